"""Nothing leaves the machine, and nothing that names a patient or repeats a report stands where logs are shared.

All tests run with every way out shut (``tests/conftest.py``): a connection to anything but this machine raises, and is
written down. Here each method is run so, and once more in a network of its own without any way out.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from radpref.cli import app
from radpref.data import phantom
from radpref.pipeline import METHODS
from tests.conftest import OUTSIDE
from tests.runs import Whole, finished, smallest_words

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("whole")]

ID, PATIENT, WORD, FILE = "Quagga77", "Okapi88", "zebraword", "tapirfile"
"""What stands in the data: an id, a patient, a word of every report, a part of every file's name."""
SECRETS = re.compile("|".join((ID, PATIENT, WORD, FILE)), re.IGNORECASE)


def test_the_way_out_is_shut() -> None:
    before = len(OUTSIDE)
    with socket.socket() as out:
        out.settimeout(1)
        with pytest.raises(OSError, match="shut"):
            out.connect(("192.0.2.1", 80))
    with pytest.raises(OSError, match="shut"):
        socket.getaddrinfo("example.org", 443)
    assert len(OUTSIDE) == before + 2
    del OUTSIDE[before:]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_opens_nothing_but_this_machine(method: str, whole: Whole) -> None:
    run = whole(method)
    assert set(finished(run).values()) == {"yes"}
    assert OUTSIDE == []


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name != "pairs"])
def test_a_method_runs_without_a_network(method: str, tmp_path: Path) -> None:
    """In a network of its own, with no device up, the hub's libraries not told to be offline."""
    alone = ["unshare", "--net", "--map-root-user", sys.executable, "-c", "pass"]
    if shutil.which("unshare") is None or subprocess.run(alone, capture_output=True).returncode:
        pytest.skip("this machine makes no network of its own for a process")
    words = [*alone[:4], "-m", "radpref", "run", method, "--out", str(tmp_path / "run"), *smallest_words(method)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


def write_studies(folder: Path) -> None:
    """A table whose every cell names something that must stay inside, with rows that cannot be used."""
    folder.mkdir()
    rows = []
    for index in range(16):
        drawn = phantom.draw(index, seed=3, size=64)
        Image.fromarray(drawn.image).save(folder / f"{FILE}{index}.png")
        split = ("train", "train", "train", "validation", "test")[index % 5]
        rows.append({"id": f"{ID}-{index}", "patient": f"{PATIENT}-{index}", "images": [f"{FILE}{index}.png"],
                     "findings": f"The {WORD} is seen. {drawn.report.findings}", "split": split})  # fmt: skip
    (folder / f"{FILE}3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    rows[5]["images"] = [f"../{FILE}.png"]
    rows[6]["findings"] = f"{WORD} " * 9000
    rows[7]["findings"] = f"<image> {WORD}"
    (folder / "studies.jsonl").write_text("\n".join(map(json.dumps, rows)) + f'\n{{"id": "{ID}"', encoding="utf-8")


@pytest.mark.slow
def test_what_is_shared_names_nobody_and_repeats_no_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Terminal, logs, event log, run.json, the page's title, marks: counts and reasons, never ids, names or words."""
    write_studies(tmp_path / "data")
    given = [word for word in smallest_words("chexalign") if not word.startswith("--data.")]
    words = ["run", "chexalign", "--out", str(tmp_path / "run"), *given, "--data", "table"]
    words += ["--data.root", str(tmp_path / "data"), "--data.table.patient", "patient"]
    with caplog.at_level(logging.DEBUG, "radpref"):
        done = CliRunner().invoke(app, words)
        shown = done.output
        for more in (("status",), ("results",), ("align", "--align.beta", "0.9"), ("evaluate", "--data.train", "2")):
            shown += CliRunner().invoke(app, [more[0], str(tmp_path / "run"), *more[1:]]).output
        (tmp_path / "data" / f"{FILE}0.png").unlink()  # a drive that is not mounted
        shown += CliRunner().invoke(app, words).output
    run = tmp_path / "run"
    assert done.exit_code == 0, done.output[-2000:]
    page = (run / "report.html").read_text("utf-8")
    title = page.partition("<title>")[2].partition("</title>")[0]
    marks = {path.parent.name: path.read_text("utf-8") for path in run.glob("*/done.json")}
    everything = {"terminal": shown, "log": caplog.text, "title": title, **marks}
    everything |= {name: (run / name).read_text("utf-8") for name in ("events.jsonl", "run.json", "metrics.json")}
    for where, text in everything.items():
        found = SECRETS.search(text.replace(str(tmp_path), ""))
        assert not found, f"{where}: {text[max(0, found.start() - 100) : found.end() + 50]}"
