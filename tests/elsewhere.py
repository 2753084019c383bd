"""Other Pythons than this one: with torchvision (and num2words and timm), and without, whatever is installed here.

``python -m tests.elsewhere with|without MODULE:FUNCTION ARGUMENT ...`` calls a function with strings in such a process;
``call`` starts one. torchvision as PyPI gives it belongs to a CUDA build of torch: beside another one its compiled
operators do not load, which preparing images does not need.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def packages(folder: Path) -> str | None:
    """Puts torchvision, num2words and timm into ``folder``; returns why they cannot be had, or None."""
    import torch

    minor = int(torch.__version__.split(".")[1]) + 15  # torch 2.13 goes with torchvision 0.28
    wanted = [f"torchvision==0.{minor}.*", "num2words", "docopt", "timm"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr[-300:] if done.returncode else None


def call(where: Path | None, function: str, *arguments: str) -> str:
    """What the function prints, in a process with the packages of ``where``; without torchvision where that is None."""
    paths = [str(REPOSITORY), *([str(where)] if where else []), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "tests.elsewhere", "with" if where else "without", function, *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _with_torchvision() -> object:
    """Import it, with its operators declared where they cannot be loaded; what is returned must be kept."""
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")
        return library
    return None


if __name__ == "__main__":
    kept = _with_torchvision() if sys.argv[1] == "with" else sys.modules.update(torchvision=None)  # type: ignore[arg-type]
    module, _, name = sys.argv[2].partition(":")
    getattr(importlib.import_module(module), name)(*sys.argv[3:])
