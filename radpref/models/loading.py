"""From a name or folder to a model that has proved to work: safetensors only, no foreign code, checked once."""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

from radpref.collector import leave_out_imports
from radpref.config import ModelSection, RunSection
from radpref.models.control import control_of
from radpref.models.decoding import check_decoding, image_limit
from radpref.models.fingerprint import fingerprint
from radpref.models.precision import pick_device, pick_dtypes
from radpref.models.processors import load_processor, save_processor
from radpref.models.quantised import settings
from radpref.models.template import learn_turn, no_template
from radpref.models.vlm import Control, ModelError, Vlm
from radpref.outside import brief, is_of_memory, json_object, read_text, reason_of

BUILTIN = Path(__file__).parent / "builtin"
_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SHARD = "4GB"
"""Largest file of weights: what mail, hubs and file systems take without complaint."""
_NEEDED = {
    "tokenizer": ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json"),
    "image processor": ("processor_config.json", "preprocessor_config.json"),
}
"""What a processor is made of, and the files that may hold it."""
MOST_SETTINGS = 64 << 20
"""Bytes of a model's settings in JSON."""
BASE_RECORD = "radpref.json"
"""File beside an adapter that names the fingerprint of the model it was trained on."""


def load(section: ModelSection, run: RunSection) -> Vlm:
    """The model of a recipe, in evaluation mode on its device, with its adapter where it has one.

    Only safetensors are read and no code of a checkpoint is run. A name that is no folder is looked up on the
    hub (or in its cache, with HF_HUB_OFFLINE=1). Two test prompts with a grey image then go through model and
    decoding (``check_decoding``), so that a processor that does not fit shows now and not in the results.
    Raises ModelError, saying what to do, for whatever cannot be used.
    """
    leave_out_imports()
    disable_progress_bar()  # a bar over the tensors of every load says nothing to a user
    folder, name = locate(section), section.path
    config = _config(folder, name)
    if run.threads:
        torch.set_num_threads(run.threads)
    device = pick_device(run.device)
    dtype, compute = pick_dtypes(run.precision, device)
    processor = load_processor(folder, name)
    turn = learn_turn(processor, processor.tokenizer, name)
    quantised = section.quantize != "none"
    small = {"quantization_config": settings(config, compute), "device_map": {"": device}} if quantised else {}
    model = _weights(folder, name, config, dtype, **small)
    adapter = Path(section.adapter).expanduser() if section.adapter else None
    if adapter is not None:
        model = _with_adapter(model, adapter, folder, name)
    vlm = Vlm(
        model=(model if quantised else model.to(device)).eval(),
        processor=processor,
        tokenizer=processor.tokenizer,
        name=name,
        folder=folder,
        device=device,
        dtype=dtype,
        compute=compute,
        fingerprint=fingerprint(folder, adapter),
        turn=turn,
        control=control_of(processor, processor.tokenizer, config),
        quantised=quantised,
    )
    check_decoding(vlm)
    return replace(vlm, most_images=image_limit(vlm))


class Wording(NamedTuple):
    """The words of a model that another process runs."""

    name: str
    tokenizer: Any
    control: Control


def wording(section: ModelSection) -> Wording:
    """What is known of a model's words without its weights. Raises ModelError as `load`."""
    folder = locate(section)
    processor = load_processor(folder, section.path)
    control = control_of(processor, processor.tokenizer, _config(folder, section.path))
    return Wording(section.path, processor.tokenizer, control)


def in_full(vlm: Vlm) -> Vlm:
    """A quantised model with its weights as they were saved, and the adapter as it is now; others as they are.

    It lies on the CPU, so that it need not fit beside the other one.
    """
    if not vlm.quantised:
        return vlm
    config = _config(vlm.folder, vlm.name)
    model = _weights(vlm.folder, vlm.name, config, torch.float32 if vlm.dtype == torch.float32 else torch.bfloat16)
    if hasattr(vlm.model, "peft_config"):
        learnt = get_peft_model_state_dict(vlm.model, save_embedding_layers=False)
        model = get_peft_model(model, vlm.model.peft_config["default"])
        set_peft_model_state_dict(model, learnt)
    return replace(vlm, model=model.eval(), device=torch.device("cpu"), quantised=False)


def save(vlm: Vlm, folder: Path) -> None:
    """Writes what ``load`` reads: the adapter where there is one, else weights and processor, as safetensors.

    Beside an adapter stands the fingerprint of its base, which ``load`` compares. Weights go into shards of at most
    ``SHARD``; all files may be read by whoever the umask lets.
    """
    adapter = hasattr(vlm.model, "peft_config")
    # peft would write the whole head, and the embeddings, beside an adapter on the head
    vlm.model.save_pretrained(folder, **({"save_embedding_layers": False} if adapter else {"max_shard_size": SHARD}))
    save_beside(vlm, folder)


def save_beside(vlm: Vlm, folder: Path) -> None:
    """What ``load`` needs beside weights that lie in the folder already."""
    if hasattr(vlm.model, "peft_config"):
        record = {"base": fingerprint(vlm.folder)}
        (folder / BASE_RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    else:
        save_processor(vlm.processor, vlm.folder, folder)
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        if file.is_file():  # safetensors writes through a temporary file, which only its owner may read
            file.chmod(0o666 & ~mask)


def locate(section: ModelSection) -> Path:
    """The folder of a model: ``builtin``, a folder, or a name on the hub, whose files are fetched to its cache.

    Raises ModelError where there is none (with the nearest name beside it) and where the files alone show that
    it cannot be used: foreign code, pickled weights, not a vision-language model.
    """
    folder = _folder(section.path, section.revision)
    _config(folder, section.path)
    for name in ("generation_config.json", *_NEEDED["image processor"], "tokenizer_config.json"):
        if (folder / name).is_file():
            _json(folder / name)
    _only_safetensors(folder, section.path)
    _speaks(folder, section.path)
    if section.adapter:
        _adapter_files(Path(section.adapter).expanduser())
    return folder


def _folder(path: str, revision: str | None) -> Path:
    folder = BUILTIN if path == "builtin" else Path(path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    near = difflib.get_close_matches(folder.name, _neighbours(folder), n=1, cutoff=0.5)
    hint = f"; did you mean {folder.parent / near[0]}?" if near else ""
    if path == "builtin" or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        raise ModelError(f"model.path is {path!r}, but there is no folder {folder}{hint}")
    try:
        files = snapshot_download(path, revision=revision, allow_patterns=_FILES, ignore_patterns=["*/*"])
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.path is {path!r}, which is no folder here{hint}, and the hub did not give it either: {error}. "
            "Check the name, log in with `hf auth login` if the model is gated, or download it and name its folder."
        ) from error
    return Path(files).resolve()


def _neighbours(folder: Path) -> list[str]:
    """Names of the other folders beside one that is, or should be, there."""
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    return [entry.name for entry in beside if entry.is_dir() and entry.name != folder.name]


def _config(folder: Path, name: str) -> Any:
    file = folder / "config.json"
    if not file.exists():
        if (folder / "adapter_config.json").exists():
            raise ModelError(f"{name} is an adapter, not a model: set model.adapter to it and model.path to its base")
        raise ModelError(f"{name} has no config.json, so that it is not a saved transformers model")
    raw = _json(file)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what a family raises on a value that it does not expect
        if not isinstance(error, ValueError) or str(raw.get("model_type")) in CONFIG_MAPPING:
            raise ModelError(
                f"{file} cannot be read as a model's config: {reason_of(error)}. Copy or download it again."
            ) from error
        if "auto_map" in raw:
            raise ModelError(
                f"{name} can only be run with Python code from its own checkpoint (auto_map in config.json), which "
                "radpref never executes: such code could do anything, and it breaks with transformers' versions. "
                "Use a model whose family is part of transformers, or a converted checkpoint of it."
            ) from error
        raise ModelError(
            f"{name} is a model of type {raw.get('model_type')!r}, which this transformers does not know: {error}"
        ) from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or config.is_encoder_decoder:
        raise ModelError(
            f"{name} is a model of type {config.model_type!r}, which is not a decoder that takes images and text. "
            "Use a vision-language model (LLaVA, Idefics3, Gemma3, Qwen-VL, InternVL ...)."
        )
    kept = [getattr(part, "quantization_config", None) for part in (config, config.get_text_config())]
    if found := next((part for part in kept if part), None):
        how = found.get("quant_method", "unnamed") if isinstance(found, dict) else type(found).__name__
        raise ModelError(
            f"{name} was saved quantised (quantization_config in {file}: {how}); such weights can be neither trained "
            "nor merged into. Give the checkpoint that it was made from, and model.quantize nf4 to keep that in 4 bits."
        )
    return config


def read_config(path: str) -> Any:
    """The config of a model alone, by folder or by name on the hub, of which nothing else is fetched.

    Raises ModelError where there is none, or it is of no vision-language model that can be used.
    """
    folder = BUILTIN if path == "builtin" else Path(path).expanduser()
    if folder.is_dir():
        return _config(folder, path)
    try:
        files = snapshot_download(path, allow_patterns=["config.json"])
    except (OSError, ValueError) as error:
        raise ModelError(f"{path!r} is no folder here, and the hub did not give its config either: {error}") from error
    return _config(Path(files), path)


def _speaks(folder: Path, name: str) -> None:
    """Raises ModelError where no file can hold the processor, or none the chat template."""
    for what, files in _NEEDED.items():
        if not any((folder / file).is_file() for file in files):
            raise ModelError(
                f"{name} has no {what} ({' or '.join(files)}), so that its processor cannot be loaded. Save the "
                "processor of the same checkpoint into the folder: save_pretrained writes these files."
            )
    settings = [
        _json(folder / file) for file in ("tokenizer_config.json", "processor_config.json") if (folder / file).is_file()
    ]
    templates = [*folder.glob("chat_template.*"), *folder.glob("chat_templates/*")]
    if not templates and not any(some.get("chat_template") for some in settings):
        raise ModelError(no_template(name))


def _only_safetensors(folder: Path, name: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    found = (
        f"only pickled ones ({', '.join(pickled[:3])}), which can run any code when they are read"
        if pickled
        else "none"
    )
    raise ModelError(
        f"{name} has no weights in safetensors: {found}. Use a revision of the model that has model.safetensors, or "
        "convert it where you trust it: load it there with transformers and call save_pretrained."
    )


def _weights(folder: Path, name: str, config: Any, dtype: torch.dtype, **small: Any) -> Any:
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **small,
        )
    except Exception as error:  # what a family raises on sizes and types that cannot be
        if is_of_memory(error):
            raise
        if isinstance(error, ImportError):
            why = brief(" ".join(str(error).split())).rstrip(".")
            raise ModelError(f"{name} needs a package that cannot be imported here: {why}.") from error
        raise ModelError(
            f"the weights of {name} do not load: {brief(str(error))}. They may be cut short or belong to another "
            "config.json; copy or download them again."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(missing)} of its model's weights, which would be random: {', '.join(missing[:3])}. "
            "The download is incomplete, or config.json belongs to another model."
        )
    if not Path(name).expanduser().is_dir() and folder != BUILTIN:
        model.name_or_path = model.config._name_or_path = name  # what an adapter records as its base
    return model


def _json(file: Path) -> dict[str, Any]:
    text = read_text(file, ModelError, most=MOST_SETTINGS)
    try:
        return json_object(text, file, "Copy or download it again.", ModelError)
    except ModelError as error:
        raise ModelError(str(error).replace("cannot be read", "is no JSON object", 1)) from error


def _adapter_files(adapter: Path) -> tuple[Path, Path]:
    """Settings and weights of an adapter. Raises ModelError where it lacks them, or has them pickled only."""
    settings_file, weights_file = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    if not settings_file.is_file():
        near = difflib.get_close_matches(adapter.name, _neighbours(adapter), n=1, cutoff=0.5)
        hint = f"; did you mean {adapter.parent / near[0]}?" if near else ""
        raise ModelError(f"model.adapter is {str(adapter)!r}, but there is no {settings_file}{hint}")
    if not weights_file.is_file():
        raise ModelError(
            f"the adapter {adapter} has no adapter_model.safetensors. Pickled weights (adapter_model.bin) can run "
            "any code when they are read and are refused; save the adapter again with safe_serialization."
        )
    return settings_file, weights_file


def _with_adapter(model: Any, adapter: Path, folder: Path, name: str) -> Any:
    """``model`` with the adapter, after proof that the adapter was made for it."""
    settings_file, weights_file = _adapter_files(adapter)
    _same_base(adapter, _json(settings_file), folder, name)
    try:
        with safe_open(weights_file, "pt") as file:
            saved = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{weights_file} is broken or cut short ({error}); copy or download it again") from error
    try:
        whole = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    except Exception as error:
        if is_of_memory(error):
            raise
        raise ModelError(
            f"the adapter {adapter} does not fit {name}, so that it was made for another base: {brief(str(error))}"
        ) from error
    # Embeddings that an adapter may carry besides are weights of the model itself; peft would ask the hub for them.
    wanted = _shapes(get_peft_model_state_dict(whole, save_embedding_layers=False))
    known = {**_shapes(whole.state_dict()), **wanted}
    if odd := sorted((wanted.keys() - saved.keys()) | {key for key in saved if saved[key] != known.get(key)}):
        raise ModelError(
            f"the adapter {adapter} does not fit {name}: {len(odd)} tensors are missing, unknown or of another shape "
            f"({', '.join(odd[:3])}). It was made for another base."
        )
    return whole


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _same_base(adapter: Path, settings: dict[str, Any], folder: Path, name: str) -> None:
    """By fingerprint where ``save`` recorded one; else by name, which is all that other tools leave."""
    record = adapter / BASE_RECORD
    given = settings.get("base_model_name_or_path")
    if record.is_file():
        if _json(record).get("base") == fingerprint(folder):
            return
        raise ModelError(
            f"the adapter {adapter} was trained on a model with other weights, config or processor ({given}) than "
            f"{name}. Set model.path to that model."
        )
    if given and Path(given).name not in {Path(name).name, folder.name}:
        raise ModelError(
            f"the adapter {adapter} was made for {given!r}, not for {name!r}. Set model.path to its base; where both "
            "are the same model under two names, correct base_model_name_or_path in adapter_config.json."
        )
