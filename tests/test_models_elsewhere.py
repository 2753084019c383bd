"""A checkpoint opens wherever it is taken: with torchvision or without, in radpref and in transformers alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch

from radpref.config import LoraSection, ModelSection
from radpref.models import attach_lora, encode_prompt, load, loading, save
from tests import elsewhere
from tests import training_toys as toys
from tests.families import save_family
from tests.tiny import fresh_vlm, picture

FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision", "gemma4")
"""One without a video processor, and five that insist on one where torchvision is."""


def make(folder: str) -> None:
    for family in FAMILIES:
        save_family(family, Path(folder) / family)


def look(source: str, target: str) -> None:
    """Loads each family, prints its logits for an image, and saves it as radpref does."""
    for family in FAMILIES:
        vlm = load(ModelSection(path=str(Path(source) / family)), toys.FLOAT32)
        with torch.no_grad():
            logits = vlm.model(**encode_prompt(vlm, "Write the findings.", [picture(1, 90, 50)])).logits
        print(json.dumps({family: logits.flatten().tolist()}))
        save(vlm, Path(target) / family)


def plain(source: str) -> None:
    """transformers alone, as any other tool uses it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    for family in FAMILIES:
        processor = AutoProcessor.from_pretrained(Path(source) / family)
        model = AutoModelForImageTextToText.from_pretrained(Path(source) / family)
        content = [{"type": "image", "image": picture(1, 90, 50)}, {"type": "text", "text": "Write the findings."}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        out = model.generate(**inputs, max_new_tokens=2, do_sample=False)
        video = getattr(processor, "video_processor", None)
        print(json.dumps({family: [out.shape[1], type(video).__name__]}))


def printed(text: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        found |= json.loads(line) if line.startswith("{") else {}
    return found


@pytest.mark.slow
def test_saved_with_or_without_torchvision_it_loads_without_or_with(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    if why := elsewhere.packages(packages):
        pytest.skip(f"torchvision cannot be had here: {why}")
    made, without, both = (str(tmp_path / name) for name in ("made", "without", "both"))
    elsewhere.call(None, "tests.test_models_elsewhere:make", made)
    first = printed(elsewhere.call(None, "tests.test_models_elsewhere:look", made, without))
    second = printed(elsewhere.call(packages, "tests.test_models_elsewhere:look", without, both))
    third = printed(elsewhere.call(None, "tests.test_models_elsewhere:look", both, str(tmp_path / "last")))
    assert first.keys() == second.keys() == third.keys() == set(FAMILIES)
    for family in FAMILIES:
        assert first[family] == pytest.approx(second[family], abs=1e-5), family
        assert first[family] == pytest.approx(third[family], abs=1e-5), family
    for folder in (without, both):
        found = printed(elsewhere.call(packages, "tests.test_models_elsewhere:plain", folder))
        assert found.keys() == set(FAMILIES)
        assert all(video != "NoneType" for family, (_, video) in found.items() if family != "llava")


def test_settings_of_a_video_processor_are_kept_where_it_cannot_be_loaded(tmp_path: Path) -> None:
    source = save_family("qwen2_vl", tmp_path / "source")
    settings = {"video_processor_type": "Qwen2VLVideoProcessor", "max_frames": 17}
    file = source / "processor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "video_processor": settings}))
    vlm = load(ModelSection(path=str(source)), toys.FLOAT32)
    save(vlm, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / file.name).read_text())["video_processor"] == settings


def test_what_is_saved_may_be_read_by_others_and_lies_in_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = fresh_vlm("llava")
    monkeypatch.setattr(loading, "SHARD", "100KB")
    before = os.umask(0o022)
    try:
        save(vlm, tmp_path / "whole")
        save(attach_lora(vlm, LoraSection(rank=2)), tmp_path / "adapter")
        os.umask(0o077)
        save(fresh_vlm("llava"), tmp_path / "private")
    finally:
        os.umask(before)
    shards = list((tmp_path / "whole").glob("model-*.safetensors"))
    assert len(shards) > 1
    assert max(shard.stat().st_size for shard in shards) < 120_000
    for folder, mode in (("whole", 0o644), ("adapter", 0o644), ("private", 0o600)):
        for path in (tmp_path / folder).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == mode, path
    load(ModelSection(path=str(tmp_path / "whole")), toys.FLOAT32)
