"""Loading: what works is loaded and what cannot work is refused before any work, with a reason."""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from radpref.config import LoraSection, ModelSection, RunSection
from radpref.models import (
    ModelError,
    Vlm,
    attach_lora,
    autocast,
    encode_prompt,
    fingerprint,
    load,
    locate,
    precision,
    save,
)
from tests import tiny
from tests.tiny import FAMILIES, fresh_vlm, picture, save_tiny, tiny_vlm

RUN = RunSection(precision="float32")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a family's tiny model; to be copied before it is changed."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(family: str) -> Path:
        return root / family if (root / family).exists() else save_tiny(family, root / family)

    return folder


@pytest.fixture
def llava(saved: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny LLaVA that may be spoilt."""
    return Path(shutil.copytree(saved("llava"), tmp_path / "llava"))


def loaded(folder: Path, adapter: Path | None = None) -> Vlm:
    return load(ModelSection(path=str(folder), adapter=str(adapter) if adapter else None), RUN)


def edit(file: Path, **values: Any) -> None:
    """Sets keys of a JSON file; None takes a key away."""
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def logits(vlm: Vlm) -> torch.Tensor:
    with torch.no_grad():
        return vlm.model(**encode_prompt(vlm, "Write the findings.", [picture(0)])).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_family_loads_ready_for_use(family: str, saved: Callable[[str], Path]) -> None:
    vlm = loaded(saved(family))
    assert not vlm.model.training
    assert (vlm.dtype, vlm.compute, vlm.device.type) == (torch.float32, torch.float32, "cpu")
    assert {p.dtype for p in vlm.model.parameters()} == {torch.float32}
    assert vlm.tokenizer.decode(list(vlm.turn.end)) == "<|end|>"
    assert vlm.fingerprint == fingerprint(saved(family))
    assert locate(ModelSection(path=str(saved(family)))) == vlm.folder


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_loads_as_it_was(family: str, tmp_path: Path) -> None:
    vlm = fresh_vlm(family)
    save(vlm, tmp_path / "again")
    again = loaded(tmp_path / "again")
    assert torch.equal(logits(again), logits(vlm))
    assert type(again.processor).__name__ == type(vlm.processor).__name__


_FROZEN = """
import gc, sys
from radpref.collector import process_is_ours
from radpref.config import ModelSection, RunSection
from radpref.models import load

section, run = ModelSection(path=sys.argv[1]), RunSection(precision="float32")
counts = []
for ours in (False, True, True):
    if ours:
        process_is_ours()
    load(section, run)
    counts.append(gc.get_freeze_count())
print(*counts)
"""


def test_a_search_for_garbage_leaves_out_what_the_imports_made(llava: Path) -> None:
    """In a process of our own, and once; in a user's own, which may hold models in cycles, never."""
    done = subprocess.run([sys.executable, "-c", _FROZEN, str(llava)], capture_output=True, text=True, check=True)
    users, ours, again = map(int, done.stdout.split())
    assert users == 0
    assert ours > 100_000  # torch and transformers alone are more
    assert again <= ours


@pytest.mark.parametrize("adapted", [False, True])
def test_a_model_is_freed_without_a_search_for_garbage(adapted: bool, saved: Callable[[str], Path]) -> None:
    gc.disable()
    try:
        vlm = loaded(saved("llava"))
        model = get_peft_model(vlm.model, LoraConfig(target_modules=["q_proj"])) if adapted else vlm.model
        held = weakref.ref(model)
        del model, vlm
        assert held() is None
    finally:
        gc.enable()


def test_half_precision_weights_are_loaded_in_float32(llava: Path) -> None:
    weights = {name: value.half() for name, value in load_file(llava / "model.safetensors").items()}
    save_file(weights, llava / "model.safetensors", metadata={"format": "pt"})
    edit(llava / "config.json", dtype="float16")
    assert {p.dtype for p in loaded(llava).model.parameters()} == {torch.float32}


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed here")
def test_a_package_that_a_tower_needs_is_named(llava: Path) -> None:
    tower = {"model_type": "timm_wrapper", "architecture": "test_efficientnet"}
    chosen = {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}
    edit(llava / "config.json", model_type="fast_vlm", vision_config=tower, **chosen)
    with pytest.raises(ModelError, match=r"needs a package that cannot be imported here: .*timm"):
        loaded(llava)


# ------------------------------------------------------------------------------------------------ fingerprint


def test_a_fingerprint_follows_contents_and_not_places(llava: Path, tmp_path: Path) -> None:
    first = fingerprint(llava)
    moved = shutil.copytree(llava, tmp_path / "elsewhere")
    assert fingerprint(moved) == first
    (moved / "README.md").write_text("hello")
    assert fingerprint(moved) == first
    for file, key in (("processor_config.json", "patch_size"), ("config.json", "image_seq_length")):
        before = fingerprint(moved)
        edit(moved / file, **{key: 99})
        assert fingerprint(moved) != before
    weights = load_file(llava / "model.safetensors")
    next(iter(weights.values())).flatten()[0] += 1e-3
    save_file(weights, llava / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(llava) != first


# ------------------------------------------------------------------------------------------------ refusals


def test_a_missing_folder_names_the_nearest_one(llava: Path) -> None:
    with pytest.raises(ModelError, match=r"no folder .*did you mean .*/llava\?"):
        load(ModelSection(path=str(llava.with_name("lava"))), RUN)


def test_a_name_that_no_hub_gives_says_so() -> None:
    with pytest.raises(ModelError, match="the hub did not give it either"):
        load(ModelSection(path="nobody/no-such-model"), RUN)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(ModelSection(path=str(tmp_path)), RUN)


def test_pickled_weights_are_refused_unread(llava: Path) -> None:
    (llava / "model.safetensors").unlink()
    (llava / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ModelError, match=r"only pickled ones \(pytorch_model\.bin\)"):
        loaded(llava)


def test_foreign_code_is_refused_unrun(llava: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (llava / "foreign.py").write_text(f"open({str(mark)!r}, 'w').write('x')")
    code = {"AutoConfig": "foreign.C", "AutoModelForImageTextToText": "foreign.M"}
    edit(llava / "config.json", model_type="foreign", auto_map=code)
    with pytest.raises(ModelError, match="never executes"):
        loaded(llava)
    assert not mark.exists()


def test_foreign_code_of_a_processor_is_not_run(llava: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (llava / "foreign.py").write_text(f"open({str(mark)!r}, 'w').write('x')")
    edit(llava / "processor_config.json", processor_class="Foreign", auto_map={"AutoProcessor": "foreign.P"})
    with pytest.raises(ModelError, match="processor"):
        loaded(llava)
    assert not mark.exists()


def test_a_type_that_transformers_does_not_know_is_refused(llava: Path) -> None:
    edit(llava / "config.json", model_type="from-the-future")
    with pytest.raises(ModelError, match="from-the-future"):
        loaded(llava)


@pytest.mark.parametrize("part", ["", "text_config"])
def test_weights_that_were_saved_quantised_are_refused(part: str, llava: Path) -> None:
    """They ended a fine-tuning with a traceback of transformers."""
    kept = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    config = json.loads((llava / "config.json").read_text("utf-8"))
    edit(llava / "config.json", **({part: {**config[part], **kept}} if part else kept))
    with pytest.raises(ModelError, match=r"saved quantised .*gptq.* model\.quantize nf4"):
        loaded(llava)


def test_a_language_model_alone_is_refused(llava: Path) -> None:
    edit(llava / "config.json", model_type="llama")
    with pytest.raises(ModelError, match="not a decoder that takes images and text"):
        loaded(llava)


def test_missing_weights_are_not_drawn_at_random(llava: Path) -> None:
    weights = load_file(llava / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    del weights[name]
    save_file(weights, llava / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 of its model's weights"):
        loaded(llava)


def test_weights_of_another_shape_are_refused(llava: Path) -> None:
    weights = load_file(llava / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    weights[name] = weights[name][:-4].contiguous()
    save_file(weights, llava / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="do not load"):
        loaded(llava)


def test_a_model_without_chat_template_is_refused(llava: Path) -> None:
    (llava / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        loaded(llava)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["processor_config.json"], "no image processor"),
        (["tokenizer.json", "tokenizer_config.json"], "no tokenizer"),
        (["chat_template.jinja"], "no chat template"),
    ],
)
def test_a_model_that_cannot_be_spoken_to_is_refused_by_its_files_alone(
    missing: list[str], words: str, llava: Path
) -> None:
    """``locate`` stands before all work, fine-tuning included."""
    for name in missing:
        (llava / name).unlink()
    with pytest.raises(ModelError, match=words):
        loaded(llava)


def test_a_chat_template_in_the_tokenizer_alone_will_do(llava: Path) -> None:
    (llava / "chat_template.jinja").unlink()
    edit(llava / "tokenizer_config.json", chat_template=tiny.template("<image>"))
    assert loaded(llava).turn == tiny_vlm("llava").turn


def test_a_template_that_leaves_images_out_is_refused(llava: Path) -> None:
    (llava / "chat_template.jinja").write_text(tiny.template(""))
    with pytest.raises(ModelError, match="chat template leaves images out"):
        loaded(llava)


def test_another_number_of_image_tokens_is_refused(llava: Path) -> None:
    edit(llava / "processor_config.json", patch_size=16)
    with pytest.raises(ModelError, match="do not fit together"):
        loaded(llava)


def test_an_image_token_that_the_model_does_not_know_is_refused(llava: Path) -> None:
    edit(llava / "config.json", image_token_index=17)
    with pytest.raises(ModelError, match="no token for an image that the model"):
        loaded(llava)


def test_a_tokenizer_larger_than_the_embedding_is_refused(llava: Path) -> None:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(llava)
    tokens.add_tokens(["<|turn2|>"], special_tokens=True)
    tokens.save_pretrained(llava)
    (llava / "chat_template.jinja").write_text(tiny.template("<image>").replace("<|turn|>", "<|turn2|>"))
    with pytest.raises(ModelError, match="has embeddings for"):
        loaded(llava)


def test_a_folder_without_processor_is_refused(llava: Path) -> None:
    (llava / "processor_config.json").unlink()
    with pytest.raises(ModelError, match="processor"):
        loaded(llava)


@pytest.mark.parametrize("device", ["cuda:7", "mps", "abacus"])
def test_an_absent_device_is_refused(device: str, llava: Path) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ModelError, match=r"run\.device"):
        load(ModelSection(path=str(llava)), RunSection(device=device))


# ------------------------------------------------------------------------------------------------ precision


@pytest.mark.parametrize("fast", [True, False])
def test_on_a_cpu_weights_stay_float32_and_products_follow_the_measurement(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "fast_bfloat16", lambda: fast)
    cpu, wide, narrow = torch.device("cpu"), torch.float32, torch.bfloat16
    assert precision.pick_dtypes("auto", cpu) == (wide, narrow if fast else wide)
    assert precision.pick_dtypes("bfloat16", cpu) == (wide, narrow)
    assert precision.pick_dtypes("float32", cpu) == (wide, wide)


def test_autocast_is_what_the_model_was_loaded_for(llava: Path) -> None:
    wide, narrow = loaded(llava), load(ModelSection(path=str(llava)), RunSection(precision="bfloat16"))
    for vlm, dtype in ((wide, torch.float32), (narrow, torch.bfloat16)):
        with autocast(vlm):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert {p.dtype for p in narrow.model.parameters()} == {torch.float32}


# ------------------------------------------------------------------------------------------------ adapters


def adapted(base: Path, folder: Path, seed: int = 0) -> Vlm:
    """A model with an adapter that does something, saved to ``folder``."""
    vlm = attach_lora(loaded(base), LoraSection(rank=2))
    torch.manual_seed(seed)
    for name, parameter in vlm.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save(vlm, folder)
    return vlm


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_loads_as_it_was(family: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    made = adapted(saved(family), tmp_path / "adapter")
    again = loaded(saved(family), tmp_path / "adapter")
    torch.testing.assert_close(logits(again), logits(made))
    assert (logits(again) - logits(loaded(saved(family)))).abs().max() > 1e-2
    assert again.fingerprint == fingerprint(saved(family), str(tmp_path / "adapter"))
    assert again.fingerprint != fingerprint(saved(family))
    adapted(saved(family), tmp_path / "other", seed=1)
    assert fingerprint(saved(family), tmp_path / "other") != again.fingerprint


def test_an_adapter_saved_again_keeps_its_base(llava: Path, tmp_path: Path) -> None:
    adapted(llava, tmp_path / "adapter")
    again = loaded(llava, tmp_path / "adapter")
    save(again, tmp_path / "copy")
    assert loaded(llava, tmp_path / "copy").fingerprint == again.fingerprint


def test_an_adapter_on_the_same_base_elsewhere_is_welcome(llava: Path, tmp_path: Path) -> None:
    adapted(llava, tmp_path / "adapter")
    moved = llava.rename(tmp_path / "moved")
    assert loaded(moved, tmp_path / "adapter").folder == moved


def test_an_adapter_of_other_weights_is_refused(llava: Path, tmp_path: Path) -> None:
    adapted(llava, tmp_path / "adapter")
    other = save_tiny("llava", tmp_path / "other" / "llava", seed=1)
    with pytest.raises(ModelError, match="trained on a model with other weights"):
        loaded(other, tmp_path / "adapter")


def foreign(vlm: Vlm, folder: Path, base: str, **settings: Any) -> Path:
    """An adapter as another tool would leave it: without a record of its base's weights."""
    config = LoraConfig(r=2, target_modules=settings.pop("target_modules", r".*language_model.*q_proj"))
    model = get_peft_model(vlm.model, config)
    model.save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=base)
    return folder


def test_another_tools_adapter_is_judged_by_name_and_shape(llava: Path, tmp_path: Path) -> None:
    good = foreign(loaded(llava), tmp_path / "good", "somebody/llava")
    assert loaded(llava, good).model.peft_config
    named = foreign(loaded(llava), tmp_path / "named", "somebody/another-model")
    with pytest.raises(ModelError, match="made for 'somebody/another-model'"):
        loaded(llava, named)
    wrong = foreign(fresh_vlm("qwen3_vl"), tmp_path / "wrong", "somebody/llava", target_modules=["attn.qkv"])
    with pytest.raises(ModelError, match="made for another base"):
        loaded(llava, wrong)


def test_an_adapter_with_missing_tensors_is_refused(llava: Path, tmp_path: Path) -> None:
    folder = foreign(loaded(llava), tmp_path / "adapter", str(llava))
    weights = load_file(folder / "adapter_model.safetensors")
    del weights[next(iter(weights))]
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 tensors are missing"):
        loaded(llava, folder)


def test_an_adapter_of_another_rank_is_refused(llava: Path, tmp_path: Path) -> None:
    folder = foreign(loaded(llava), tmp_path / "adapter", str(llava))
    edit(folder / "adapter_config.json", r=4)
    with pytest.raises(ModelError, match="made for another base"):
        loaded(llava, folder)


def test_an_adapter_that_is_not_there_or_pickled_is_refused(llava: Path, tmp_path: Path) -> None:
    folder = foreign(loaded(llava), tmp_path / "adapter", str(llava))
    with pytest.raises(ModelError, match=r"did you mean .*/adapter\?"):
        loaded(llava, tmp_path / "adaptor")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="Pickled"):
        loaded(llava, folder)
    with pytest.raises(ModelError, match=r"set model\.adapter"):
        loaded(folder)
