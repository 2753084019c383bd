"""Encoders of others, for retrieval: sentence-transformers for texts, CLIP-like models for images. All are extras.

Only safetensors are read, and no code of a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from radpref.errors import RadprefError
from radpref.mining.rows import DistinctTexts, Rows
from radpref.mining.vectors import Encode, unit

OPEN_CLIP = "open_clip:"
"""Before the folder of an open_clip model, such as BiomedCLIP."""


class EncoderError(RadprefError, ValueError):
    """An encoder that cannot be used; the message says why and what to do."""


def sentence_vectors(texts: Iterable[str], model: str, *, device: str = "cpu", batch: int = 64) -> Rows:
    """``unit`` rows (N, D) by a sentence-transformers model, a folder or a name on the hub.

    Raises:
        EncoderError: the package is not installed, or the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EncoderError(
            f"mine.text_model is {model!r}, but sentence-transformers is not installed: pip install "
            "'radpref[retrieval]', or leave mine.text_model out for hashed TF-IDF."
        ) from error
    try:
        encoder = SentenceTransformer(
            model, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError) as error:
        raise EncoderError(f"mine.text_model is {model!r}, which cannot be loaded: {error}") from error

    def encode(some: list[str]) -> Tensor:
        return unit(torch.from_numpy(encoder.encode(some, batch_size=batch, show_progress_bar=False)))

    return DistinctTexts(texts).vectors(encode)


def image_encoder(model: str, device: torch.device) -> Encode:
    """Images by the image side of a CLIP-like model.

    CLIP, SigLIP and their kin come through transformers, others (BiomedCLIP) through open_clip, as
    ``open_clip:FOLDER``.

    Raises:
        EncoderError: it cannot be loaded, or has no image side of its own.
    """
    if model.startswith(OPEN_CLIP):
        return _open_clip(Path(model.removeprefix(OPEN_CLIP)).expanduser(), device)
    from transformers import AutoImageProcessor, AutoModel

    try:
        network = AutoModel.from_pretrained(model, trust_remote_code=False, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise EncoderError(
            f"mine.image_model is {model!r}, which cannot be loaded: {error}. Give the folder or name of a CLIP-like "
            "model in safetensors, or leave mine.image_model out for the model's own tower."
        ) from error
    if not hasattr(network, "get_image_features"):
        raise EncoderError(
            f"mine.image_model is {model!r}, a {type(network).__name__}, which has no vector for an image alone; "
            "give a CLIP-like model."
        )
    network = network.to(device).eval()

    def encode(images: Sequence[Image.Image]) -> Tensor:
        pixels = processor(images=[image.convert("RGB") for image in images], return_tensors="pt").to(device)
        with torch.no_grad():
            out = network.get_image_features(**pixels)
        vectors: Tensor = out if isinstance(out, Tensor) else out.pooler_output
        return vectors.float().cpu()

    return encode


def _open_clip(folder: Path, device: torch.device) -> Encode:
    """The folder holds open_clip_config.json and weights in safetensors, as they lie on the hub."""
    try:
        import open_clip
    except ImportError as error:
        raise EncoderError(
            f"mine.image_model asks for open_clip, which is not installed: pip install 'radpref[retrieval]'. The "
            f"folder given is {folder}."
        ) from error
    config, weights = folder / "open_clip_config.json", sorted(folder.glob("*.safetensors"))
    if not config.is_file() or not weights:
        raise EncoderError(
            f"mine.image_model names the folder {folder}, which lacks open_clip_config.json or weights in "
            "safetensors. Download the model there; pickled weights are refused."
        )
    network, processor = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=device)
    network.eval()

    def encode(images: Sequence[Image.Image]) -> Tensor:
        pixels = torch.stack([processor(image.convert("RGB")) for image in images]).to(device)
        with torch.no_grad():
            vectors: Tensor = network.encode_image(pixels)
        return vectors.float().cpu()

    return encode
