"""Processors, also of families that insist on a video processor, which needs torchvision."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from radpref.models.vlm import ModelError


def load_processor(folder: Path, name: str) -> Any:
    """The model's processor; where its class wants a video processor and torchvision is absent, without that.

    Raises ModelError where there is no processor or it cannot be built.
    """
    try:
        kind = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder, trust_remote_code=False))]
        if "video_processor" in inspect.signature(kind).parameters and not is_torchvision_available():
            processor = _without_video(kind, folder)
        else:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, ImportError, AttributeError, TypeError, KeyError) as error:
        raise ModelError(
            f"the processor of {name} cannot be loaded: {error}. The folder needs the tokenizer's files and "
            "processor_config.json or preprocessor_config.json, as save_pretrained of the processor writes them."
        ) from error
    if not isinstance(processor, ProcessorMixin) or getattr(processor, "image_processor", None) is None:
        raise ModelError(
            f"{name} comes with a {type(processor).__name__} and no image processor, so that it cannot be shown "
            "images. Save the model's own processor into the folder, or use a vision-language model."
        )
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template  # either may hold it
    return processor


def image_only(kind: type) -> Any:
    """A subclass of a processor class that takes images and text and has no video processor.

    transformers reads the parts of a processor off the parameters of ``__init__``: this one names no
    ``video_processor``, so that none is asked for, none is loaded and none is saved. The subclass keeps the
    parent's name, so that what it saves is loaded as the parent elsewhere.
    """

    def __init__(self: Any, image_processor: Any, tokenizer: Any, chat_template: Any = None, **rest: Any) -> None:
        kind.__init__(  # type: ignore[misc]
            self, image_processor=image_processor, tokenizer=tokenizer, video_processor=None,
            chat_template=chat_template, **rest,
        )  # fmt: skip

    return type(kind.__name__, (kind,), {"__init__": __init__})


def _without_video(kind: type, folder: Path) -> Any:
    settings, _ = kind.get_processor_dict(folder)  # type: ignore[attr-defined]
    parts = ("image_processor", "tokenizer", "video_processor")
    known = inspect.signature(kind).parameters.keys() - parts
    return image_only(kind)(
        AutoImageProcessor.from_pretrained(folder, trust_remote_code=False),
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        **{key: value for key, value in settings.items() if key in known},
    )
