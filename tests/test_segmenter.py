"""A text-promptable segmenter of SAM 3's shape, tiny and random, saved to disk and loaded as a real one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from radpref.models import ModelError
from radpref.models.segmenter import Segmenter, load_segmenter, segment
from tests.tiny import picture, tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """A SAM 3 of 250,000 random parameters that sees images of 56 pixels in patches of 14."""
    tokens = tokenizer({})
    backbone = {
        **SIZES,
        "model_type": "sam3_vit_model",
        "num_hidden_layers": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    text = {
        **SIZES,
        "model_type": "clip_text_model",
        "vocab_size": len(tokens),
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 1,
        "eos_token_id": tokens.eos_token_id,
    }
    config = hf.Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=text,
        geometry_encoder_config={**SIZES, "num_layers": 1},
        detr_encoder_config={**SIZES, "num_layers": 1},
        detr_decoder_config={**SIZES, "num_layers": 1, "num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.Sam3Model(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    settings = {
        "image_processor_type": "Sam3ImageProcessor",
        "size": {"height": 56, "width": 56},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.5, 0.25, 0.5],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    return load_segmenter(str(folder), score=0.0)


def test_a_mask_has_the_size_of_the_image(segmenter: Segmenter) -> None:
    mask = segment(segmenter, picture(1, 90, 60), ["pleural effusion"])
    assert mask is not None
    assert mask.shape == (60, 90)
    assert mask.dtype == np.bool_
    assert 0 < mask.mean() < 1


def test_several_names_are_united(segmenter: Segmenter) -> None:
    image = picture(2)
    apart = [segment(segmenter, image, [name]) for name in ("nodule", "consolidation with atelectasis")]
    together = segment(segmenter, image, ["nodule", "consolidation with atelectasis"])
    assert apart[0] is not None
    assert apart[1] is not None
    assert together is not None
    assert (apart[0] != apart[1]).any(), "the prompt is not read"
    np.testing.assert_array_equal(together, apart[0] | apart[1])


def test_a_score_below_the_least_is_no_detection(folder: Path) -> None:
    assert segment(load_segmenter(str(folder), score=1.0), picture(1), ["nodule"]) is None


def test_the_mean_and_deviation_of_the_checkpoint_are_used(folder: Path, segmenter: Segmenter) -> None:
    assert segmenter.size == (56, 56)
    np.testing.assert_allclose(segmenter.mean.flatten(), [0.4, 0.5, 0.6])
    np.testing.assert_allclose(segmenter.std.flatten(), [0.5, 0.25, 0.5])


def test_it_agrees_with_transformers_own_processor(folder: Path, segmenter: Segmenter) -> None:
    pytest.importorskip("torchvision", reason="Sam3Processor needs torchvision")
    processor = hf.Sam3Processor(hf.Sam3ImageProcessor.from_pretrained(folder), segmenter.tokenizer)
    image = picture(3, 80, 56)
    inputs = processor(images=image, text="nodule", return_tensors="pt")
    with torch.no_grad():
        out = segmenter.model(
            pixel_values=inputs["pixel_values"],
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
        )
    theirs = processor.post_process_instance_segmentation(
        out, threshold=0.0, mask_threshold=0.5, target_sizes=[(56, 80)]
    )[0]["masks"]
    ours = segment(segmenter, image, ["nodule"])
    assert ours is not None
    agreement = (theirs.bool().any(0).numpy() == ours).mean()
    assert agreement > 0.98  # Pillow and torchvision round a resized image differently


def refused(path: Path | str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_segmenter(str(path))


def test_what_is_no_segmenter_is_refused(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "absent", "corrupt.segmenter is .* but there is no folder")
    other = copy(folder, tmp_path / "other")
    config: dict[str, Any] = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "sam"}))
    refused(other, "type 'sam'; radpref can prompt sam3")


def test_pickled_cut_and_incomplete_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    pickled = copy(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(pickled, "no weights in safetensors")
    cut = copy(folder, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    refused(cut, "cannot be loaded")
    lacking = copy(folder, tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    weights.pop("text_projection.weight")
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    refused(lacking, "lacks 1 of its weights")


def copy(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target
