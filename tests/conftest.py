"""Fixtures shared by all tests. Nothing here reaches a network."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores: threads would wait for each other

import pytest

from tests.runs import Whole

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test skips, saying so, where it is absent."""
    folder = Path(os.environ.get("RADPREF_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"real data is expected in CI, but there is none at {folder}")
        pytest.skip(f"no real data at {folder}; set RADPREF_SHARED_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Finished runs of each method, made when they are first asked for."""
    return Whole(tmp_path_factory.mktemp("whole"))
