"""What questions are compared by: vectors of their texts, images and findings, all offline by default.

Cosine is asked of unit vectors on a grid (``unit``); findings are compared by ``signs``, whose inner product is the
number of agreements less that of differences. Sums of products of either are exact in float64, in any order:
distances do not depend on blocks, threads or machines.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import log

import torch
from PIL import Image
from torch import Tensor

from radpref.findings import read
from radpref.images import ImageError, read_image
from radpref.models import Vlm, autocast, encode_prompt, image_token_ids, unwrapped
from radpref.models.chat import pad
from radpref.records import Finding, ImageFile, ImageVector, Quarantined, Question

GRID = 2.0**-20
"""Step of the coordinates of unit vectors; it moves a cosine by less than 1e-6."""

_WORD = re.compile(r"[^\W_]+")


def unit(vectors: Tensor) -> Tensor:
    """Rows of (N, D) divided by their lengths and rounded to multiples of ``GRID``: float32.

    A row of zeros stays one: its cosine with anything is 0.
    """
    wide = vectors.double()
    lengths = wide.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    rounded: Tensor = (wide / lengths / GRID).round() * GRID
    return rounded.float()


def signs(members: Tensor) -> Tensor:
    """Multi-hot rows (N, C), bool, as 1 and -1: float32. Their mean Hamming distance is (1 - product / C) / 2."""
    return members.float() * 2 - 1


def text_vectors(texts: Sequence[str], dims: int = 512) -> Tensor:
    """Hashed TF-IDF of words and pairs of words: (N, dims) ``unit`` rows.

    A term's weight is (1 + ln count) * (1 + ln((1 + N) / (1 + texts that have it))), as in scikit-learn with
    sublinear counts; its bucket and sign follow from a hash (Weinberger et al., 2009), so that the same texts give
    the same vectors on every machine. Terms that meet in a bucket add up with their signs, which is noise of mean 0.
    """
    counts = [Counter(_terms(text)) for text in texts]
    having = Counter(term for own in counts for term in own)
    place = {term: _bucket(term, dims) for term in having}
    rarity = {term: 1 + log((1 + len(texts)) / (1 + n)) for term, n in having.items()}
    vectors = torch.zeros(len(texts), dims)
    for number, own in enumerate(counts):
        row = [0.0] * dims
        for term, n in sorted(own.items()):
            bucket, sign = place[term]
            row[bucket] += sign * (1 + log(n)) * rarity[term]
        vectors[number] = torch.tensor(row)
    return unit(vectors)


def _terms(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


def _bucket(term: str, dims: int) -> tuple[int, int]:
    number = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "big")
    return (number >> 1) % dims, 1 if number & 1 else -1


def findings_of(question: Question) -> tuple[Finding, ...]:
    """What a question is about: the truth where it is known, else what it was made from, else what its texts say."""
    if question.truth is not None:
        return question.truth
    return question.about or read(f"{question.prompt}\n{question.answer}\n{question.reference}", questions=True)


def finding_vectors(rows: Sequence[Iterable[Finding]]) -> tuple[Tensor, list[str]]:
    """Multi-hot vectors of the findings present or uncertain: ``signs`` (N, C), and the C names in their order.

    C is the number of names that occur, at least 1.
    """
    named = [{finding.name for finding in row if finding.presence != "absent"} for row in rows]
    names = sorted(set().union(*named)) or [""]
    place = {name: number for number, name in enumerate(names)}
    members = torch.zeros(len(rows), len(names), dtype=torch.bool)
    for number, own in enumerate(named):
        members[number, [place[name] for name in own]] = True
    return signs(members), names


Encode = Callable[[Sequence[Image.Image]], Tensor]
"""Images (n) to vectors (n, D), float32 on the CPU. Raises ValueError where an image cannot be encoded."""


def tower(vlm: Vlm) -> Encode:
    """The mean of what the model's own tower and projector hand to its language model, over all places of an image."""
    model = unwrapped(vlm.model)
    known = inspect.signature(model.get_image_features).parameters.keys() - {"input_ids"}
    places = torch.tensor(sorted(image_token_ids(vlm)))

    def encode(images: Sequence[Image.Image]) -> Tensor:
        prompts = [encode_prompt(vlm, "", [image]) for image in images]
        inputs = {name: value.to(vlm.device) for name, value in pad(vlm, prompts, "left").items() if name in known}
        with torch.no_grad(), autocast(vlm):
            out = model.get_image_features(**inputs, return_dict=True).pooler_output
        features = torch.cat([part.reshape(-1, part.shape[-1]) for part in out]).float().cpu()
        tokens = [int(torch.isin(prompt["input_ids"], places).sum()) for prompt in prompts]  # as they are spread
        return torch.stack([part.mean(0) for part in torch.split(features, tokens)])

    return encode


def image_vectors(
    encode: Encode, images: Sequence[ImageFile], *, batch: int, read: Callable[[ImageFile], Image.Image] = read_image
) -> Iterator[tuple[ImageFile, Tensor | Quarantined]]:
    """The vector of each image, (D,) float32, in the order of the images; of one that cannot be used, the reason."""
    for start in range(0, len(images), batch):
        group = images[start : start + batch]
        pictures = [_opened(image, read) for image in group]
        good = [picture for picture in pictures if not isinstance(picture, Quarantined)]
        try:
            vectors: list[Tensor | str] = [*encode(good)] if good else []
        except ValueError:
            vectors = [_alone(encode, picture) for picture in good]
        found = iter(vectors)
        for image, picture in zip(group, pictures, strict=True):
            vector = picture if isinstance(picture, Quarantined) else next(found)
            yield image, _refused(image, vector) if isinstance(vector, str) else vector


def _opened(image: ImageFile, read: Callable[[ImageFile], Image.Image]) -> Image.Image | Quarantined:
    try:
        return read(image)
    except ImageError as error:
        return _refused(image, str(error))


def _alone(encode: Encode, image: Image.Image) -> Tensor | str:
    try:
        return encode([image])[0]
    except ValueError as error:
        return str(error)


def _refused(image: ImageFile, reason: str) -> Quarantined:
    return Quarantined(id=image.digest, stage="mine", reason=reason)


def mean_vectors(questions: Sequence[Question], images: dict[str, Tensor]) -> Tensor:
    """One ``unit`` vector a question: the mean over its images' own vectors, scaled to the same length.

    ``images`` is keyed by ``ImageFile.digest``; images that are not in it are left out, and a question without any has
    zeros.
    """
    width = len(next(iter(images.values()))) if images else 1
    rows = torch.zeros(len(questions), width)
    for number, question in enumerate(questions):
        own = [images[image.digest] for image in question.images if image.digest in images]
        if own:
            rows[number] = torch.stack([vector / max(float(vector.norm()), 1e-20) for vector in own]).mean(0)
    return unit(rows)


def packed(digest: str, vector: Tensor) -> ImageVector:
    """An image's vector, (D,) float32, as a row of a table."""
    return ImageVector(id=digest, values=base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode())


def unpacked(row: ImageVector) -> Tensor:
    """(D,) float32."""
    return torch.frombuffer(bytearray(base64.b64decode(row.values)), dtype=torch.float32)
