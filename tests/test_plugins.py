"""Another package adds a judge, a source, an objective, a corruption and a metric, by entry points alone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

HERE = Path(__file__).parent
PACKAGE = HERE / "plugin_package"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed, in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    copy = tmp_path_factory.mktemp("package")
    for file in PACKAGE.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target",
         str(folder), str(copy)],
        check=True, capture_output=True,
    )  # fmt: skip
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(HERE.parent)]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def radpref(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "radpref", *words], env=environment, capture_output=True, text=True)


WORDS = shlex.split(
    "--data ward --data.options.beds 3 --data.train null --data.validation null --data.test null "
    "--judge.name lc-house --select.by house --sft.enabled false --align.objective house-hinge "
    "--align.batch 4 --run.precision float32 --sample.max_new_tokens 88 --sample.n 2 "
    "--evaluate.resamples 100"
)


@pytest.mark.slow
def test_a_run_with_what_another_package_adds(environment: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = radpref(environment, "run", "chexalign", "--preset", "tiny", "--out", str(out), *WORDS)
    assert done.returncode == 0, done.stderr[-3000:]
    judged = [json.loads(line) for line in (out / "judge" / "judgements.jsonl").read_text().splitlines()]
    assert len(judged) == 2 * 12
    assert {row["judge"] for row in judged} == {"lc-house"}
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    assert {row["system"] for row in metrics if row["name"] == "house_words"} >= {"base", "aligned"}
    mark = json.loads((out / "align" / "done.json").read_text())
    assert mark["basis"]["config"]["align.loss"] == "house-hinge"


def test_what_is_added_is_named_and_shown(environment: dict[str, str], tmp_path: Path) -> None:
    shown = radpref(environment, "doctor").stdout
    for word in ("radpref-house 1.0", "house-hinge", "stripes", "house_words", "ward"):
        assert word in shown
    done = radpref(environment, "run", "chexalign", "--out", str(tmp_path / "r"), "--judge.name", "hous")
    assert done.returncode == 2
    assert "did you mean `house`" in done.stderr
    done = radpref(environment, "run", "chexalign", "--out", str(tmp_path / "r"), "--data", "ward",
                   "--data.options.bed", "4")  # fmt: skip
    assert done.returncode == 2
    assert "beds" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_corruption_of_another_package(environment: dict[str, str]) -> None:
    code = (
        "import numpy as np, radpref;"
        "image = np.full((8, 8), 200, np.uint8); mask = np.ones((8, 8), bool);"
        "print(np.asarray(radpref.corrupt(image, mask, operator='stripes'))[:, 0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, 200] * 4


def test_without_the_package_the_names_are_unknown(tmp_path: Path) -> None:
    done = radpref({**os.environ, "HF_HUB_OFFLINE": "1"}, "run", "chexalign", "--out", str(tmp_path / "r"),
                   "--judge.name", "house")  # fmt: skip
    assert done.returncode == 2
    assert "does not exist" in done.stderr
