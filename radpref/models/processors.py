"""Processors of images and text, the same whatever is installed, and saved so that they open everywhere.

Images go through the PIL backend wherever a family has one: torchvision's resizes to slightly other pixels, and a
model must see in evaluation what it saw in training. Video and audio parts, which need torchvision and are never used
here, are left out; their settings are kept and written beside what is saved.
"""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from radpref.models.vlm import ModelError
from radpref.outside import brief, is_of_memory

_SETTINGS = "processor_config.json"
_USED = ("image_processor", "tokenizer")
_UNUSED = ("video_processor", "feature_extractor", "audio_processor")


def load_processor(folder: Path, name: str) -> Any:
    """The model's processor of images and text.

    Raises ModelError where there is none or it cannot be built; where torchvision is what it lacks, that is said.
    """
    try:
        kind = _kind(folder)
        parts = kind.get_attributes() if kind else ()
        if kind and {*_USED} < {*parts} <= {*_USED, *_UNUSED}:
            processor = _of_parts(kind, folder)
        else:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            if isinstance(getattr(processor, "image_processor", None), transformers.BaseImageProcessor):
                processor.image_processor = _image_processor(folder)
    except Exception as error:  # the tokenizers' own errors are no more than exceptions
        if is_of_memory(error):
            raise
        raise ModelError(f"the processor of {name} cannot be loaded: {brief(str(error))}. {_advice(error)}") from error
    if not isinstance(processor, ProcessorMixin) or getattr(processor, "image_processor", None) is None:
        raise ModelError(
            f"{name} comes with a {type(processor).__name__} and no image processor, so that it cannot be shown "
            "images. Save the model's own processor into the folder, or use a vision-language model."
        )
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template  # either may hold it
    return processor


def _kind(folder: Path) -> Any:
    """The class of a model's processor, by the model's type or else by its own settings; None where neither says."""
    config = type(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    if config in PROCESSOR_MAPPING:
        return PROCESSOR_MAPPING[config]
    named = _read(folder / _SETTINGS).get("processor_class")
    return getattr(transformers, str(named), None)


def _image_processor(folder: Path) -> Any:
    return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)


def _advice(error: Exception) -> str:
    if "torchvision" in str(error).lower() or (isinstance(error, ImportError) and not is_torchvision_available()):
        return (
            "Its images or videos are prepared by torchvision, which is not installed here: pip install torchvision, "
            "of the version that belongs to torch."
        )
    if isinstance(error, ImportError):
        return "Install what it names."
    return (
        "The folder needs the tokenizer's files and processor_config.json or preprocessor_config.json, as "
        "save_pretrained of the processor writes them."
    )


def image_only(kind: Any) -> Any:
    """A subclass of a processor class that takes images and text and has no video or audio part.

    transformers reads the parts of a processor off the parameters of ``__init__``: this one names none of the others,
    so that none is asked for, none is loaded and none is saved. The subclass keeps the parent's name, so that what it
    saves is loaded as the parent elsewhere.
    """
    parts = kind.get_attributes()

    class Fewer(ProcessorMixin):  # type: ignore[misc]
        """Comes after the parent in the order of resolution, and drops what the parent hands on as None."""

        def __init__(self, *given: Any, **named: Any) -> None:
            named |= dict(zip(parts, given, strict=False))
            super().__init__(**{key: value for key, value in named.items() if key in _USED or key not in parts})

    def __init__(self: Any, image_processor: Any, tokenizer: Any, chat_template: Any = None, **rest: Any) -> None:
        unused = {part: None for part in parts if part not in _USED}
        kind.__init__(
            self, image_processor=image_processor, tokenizer=tokenizer, chat_template=chat_template, **unused, **rest
        )

    signature = inspect.signature(kind.__init__)
    kept = [value for key, value in signature.parameters.items() if key in _USED or key not in parts]
    vars(__init__)["__signature__"] = signature.replace(parameters=kept)  # what is saved is read off it as well
    return type(kind.__name__, (kind, Fewer), {"__init__": __init__})


def _of_parts(kind: Any, folder: Path) -> Any:
    settings, _ = kind.get_processor_dict(folder)
    known = inspect.signature(kind).parameters.keys() - set(kind.get_attributes())
    return image_only(kind)(
        _image_processor(folder),
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        **{key: value for key, value in settings.items() if key in known},
    )


def save_processor(processor: Any, source: Path, folder: Path) -> None:
    """Write a processor with the settings of the video and audio parts that it was loaded without.

    Those of ``source``, the folder that it was loaded from; where that has none either, a part that a family insists on
    is one of its own defaults. What is written loads in transformers with and without torchvision.
    """
    processor.save_pretrained(folder)
    parents: list[Any] = [kind for kind in type(processor).__mro__[1:] if kind.__name__ == type(processor).__name__]
    unused = [part for part in (parents[0].get_attributes() if parents else ()) if part not in _USED]
    written, known = _read(folder / _SETTINGS), _read(source / _SETTINGS)
    legacy = {"video_processor": "video_preprocessor_config.json"}
    for part in unused:
        file = source / legacy.get(part, "")
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
        else:
            written[part] = known.get(part, {})  # without settings, its class follows from the model's type
    (folder / _SETTINGS).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
