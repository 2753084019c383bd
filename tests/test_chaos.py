"""A short run of `make chaos`: killed, with a full disk or with none to write on, a run ends like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]
REPOSITORY = Path(__file__).resolve().parent.parent


def test_what_is_killed_or_has_no_disk_ends_like_the_unstopped_run(tmp_path: Path) -> None:
    """In a process of its own: it forks, which a process with threads must not."""
    words = ["--kills", "3", "--seconds", "240", "--methods", "chexalign", "--processes", "1", "--home", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "chaos.py"), *words, "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=800,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "wrong: 0" in done.stdout
    assert "kill" in done.stdout
