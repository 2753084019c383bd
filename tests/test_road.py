"""Other people's models and images go down the whole road: tiny checkpoints of other shapes, tables with bad rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radpref.data import phantom
from radpref.runs.folder import Run
from radpref.stages.ports import PAIRS, TEST, TRAIN, VALIDATION
from tests.runs import quarantined, rows
from tests.tiny import save_tiny

STUDIES = 26


def write_table(folder: Path) -> None:
    """Studies of two images each as a user has them: PNG, JPEG and 16-bit images, a JSONL file, some bad rows."""
    lines = []
    for index in range(STUDIES):
        images = []
        for view in ("frontal", "lateral"):
            drawn = phantom.draw(index, seed=3, size=64, view=view)
            name = f"{index}-{view}.{'jpg' if index % 3 else 'png'}"
            image = Image.fromarray(drawn.image)
            if index % 3 == 0 and view == "frontal":
                image = Image.fromarray(drawn.image.astype(np.uint16) * 16)
            image.save(folder / name)
            images.append(name)
        report = phantom.draw(index, seed=3, size=64).report
        keys = {"id": f"s{index}", "patient": f"s{index}", "images": images}
        lines.append(json.dumps({**keys, "findings": report.findings, "indication": report.indication}))
    whole = (folder / "1-frontal.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    bad = [
        {"id": "cut", "patient": "cut", "images": ["cut.jpg"], "findings": "Clear lungs."},
        {"id": "blanked", "patient": "blanked", "images": ["0-frontal.png"], "findings": "XXXX XXXX."},
        {"id": "s1", "patient": "s1", "images": ["2-frontal.jpg"], "findings": "Clear lungs."},
        {"id": "climbs", "patient": "climbs", "images": ["../../etc/passwd"], "findings": "Clear lungs."},
    ]
    (folder / "studies.jsonl").write_text("\n".join([*lines, *map(json.dumps, bad), '{"id": "torn", "im']) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma3", "qwen3_vl"])
def test_a_checkpoint_of_another_shape_and_a_table_with_bad_rows(family: str, tmp_path: Path) -> None:
    data, model, out = tmp_path / "data", tmp_path / "model", tmp_path / "run"
    data.mkdir()
    write_table(data)
    save_tiny(family, model)
    words = [
        *("run", "chexalign", "--preset", "tiny", "--out", str(out), "--model", str(model)),
        *("--data", "table", "--data.root", str(data), "--data.file", "studies.jsonl"),
        *(
            "--data.validation_share",
            "0.2",
            "--data.test_share",
            "0.2",
            "--data.train",
            "12",
            "--data.validation",
            "3",
        ),
        *("--judge.name", "text", "--select.by", "text", "--sample.max_new_tokens", "16", "--sft.lora.rank", "4"),
        *("--pair.drop_unfinished", "false"),  # weights by chance seldom end an answer
    ]
    done = subprocess.run(
        [sys.executable, "-m", "radpref", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = Run(out)
    for split in (TRAIN, VALIDATION, TEST):
        assert rows(run, split)
        assert all(len(question.images) == 2 for question in rows(run, split))
    refused = quarantined(run, "studies")
    assert len(refused) >= 5, refused
    assert rows(run, PAIRS)
    assert (out / "report.html").stat().st_size > 10_000
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    assert {row["system"] for row in metrics} >= {"base", "sft", "aligned", "sft on chosen"}
    assert "etc/passwd" not in done.stderr
