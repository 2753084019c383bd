"""Every family of vision-language models that transformers loads without foreign code, built from its config."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from radpref.config import ModelSection
from radpref.models import ModelError, load
from tests import elsewhere, families, tiny
from tests import training_toys as toys
from tests.family_road import road

pytestmark = pytest.mark.heavy

ELSEWHERE = [family for some in families.MORE.values() for family in some]
HERE = [family for family in (*tiny.BUILDERS, *families.BUILDERS) if family not in (*ELSEWHERE, "blip2")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("family", HERE)
def test_a_family_goes_down_the_whole_road(family: str, tmp_path: Path) -> None:
    road(family, tmp_path)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with torchvision, num2words and timm."""
    folder = tmp_path_factory.mktemp("packages")
    if why := elsewhere.packages(folder):
        pytest.skip(f"torchvision, num2words and timm cannot be had here: {why}")
    return folder


@pytest.fixture(scope="module")
def driven(more: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stopped the families that need more packages, in a process that has them; nothing where all went well."""
    folder = tmp_path_factory.mktemp("roads")
    lines = elsewhere.call(more, "tests.family_road:drive", str(folder), *ELSEWHERE).splitlines()
    return {family: why for line in lines if line.startswith("{") for family, why in json.loads(line).items()}


@pytest.mark.slow
@pytest.mark.parametrize("family", ELSEWHERE)
def test_a_family_that_needs_more_packages_goes_down_the_whole_road(family: str, driven: dict[str, str]) -> None:
    assert driven[family] == ""


@pytest.mark.parametrize(
    ("family", "cause"),
    [("git", "has no token that stands for an image"), ("blip2", "cannot be decoded with a cache")],
)
def test_a_family_that_cannot_be_used_is_refused_with_the_cause(family: str, cause: str, tmp_path: Path) -> None:
    path = families.save_family(family, tmp_path / family)
    with pytest.raises(ModelError, match=cause):
        load(ModelSection(path=str(path)), toys.FLOAT32)
