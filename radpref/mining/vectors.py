"""What questions are compared by: vectors of their texts, images and findings, all offline by default.

Cosine is asked of unit vectors on a grid (``unit``); findings are compared by ``signs``, whose inner product is the
number of agreements less that of differences. Sums of products of either are exact in float64, in any order:
distances do not depend on blocks, threads or machines.
"""

from __future__ import annotations

import base64
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import log

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from radpref.findings import read
from radpref.images import ImageError, read_image
from radpref.mining.rows import DistinctTexts, Rows, as_tensor, batched
from radpref.models import Vlm, image_features
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


def text_vectors(texts: Iterable[str], dims: int = 512) -> Rows:
    """Hashed TF-IDF of words and pairs of words: (N, dims) ``unit`` rows.

    A term's weight is (1 + ln count) * (1 + ln((1 + N) / (1 + texts that have it))), as in scikit-learn with
    sublinear counts; its bucket and sign follow from a hash (Weinberger et al., 2009), so that the same texts give
    the same vectors on every machine. Terms that meet in a bucket add up with their signs, which is noise of mean 0.
    """
    distinct = DistinctTexts(texts)
    having: Counter[str] = Counter()
    for text, times in zip(distinct, distinct.times, strict=True):
        having.update(dict.fromkeys(_terms(text), int(times)))
    weight = {
        term: (place, sign * (1 + log((1 + len(distinct.of)) / (1 + n))))
        for term, n in having.items()
        for place, sign in [_bucket(term, dims)]
    }

    def vector(text: str) -> list[float]:
        row = [0.0] * dims
        for term, n in sorted(Counter(_terms(text)).items()):
            bucket, rarity = weight[term]
            row[bucket] += (1 + log(n)) * rarity
        return row

    return distinct.vectors(lambda some: unit(torch.tensor([vector(text) for text in some])))


def _terms(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


def _bucket(term: str, dims: int) -> tuple[int, int]:
    number = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "big")
    return (number >> 1) % dims, 1 if number & 1 else -1


def findings_of(question: Question) -> tuple[Finding, ...]:
    """What a question is about: truth, labels where there is no reference, what it was made from, or its texts."""
    if question.truth is not None:
        return question.truth
    if not question.reference and question.labels:
        return question.labels
    return question.about or read(f"{question.prompt}\n{question.answer}\n{question.reference}", questions=True)


def names_of(findings: Iterable[Finding]) -> frozenset[str]:
    """The names of the findings present or uncertain."""
    return frozenset(finding.name for finding in findings if finding.presence != "absent")


def finding_vectors(rows: Sequence[frozenset[str]]) -> tuple[Rows, list[str]]:
    """Multi-hot vectors of sets of names (``names_of``): ``signs`` (N, C), and the C names in their order.

    C is the number of names that occur, at least 1.
    """
    names = sorted(frozenset().union(*set(rows))) or [""]
    sets = {own: number for number, own in enumerate(dict.fromkeys(rows))}
    members = torch.tensor([[name in own for name in names] for own in sets], dtype=torch.bool).view(-1, len(names))
    return Rows([signs(members)], np.array([sets[own] for own in rows], dtype=np.int64)), names


Encode = Callable[[Sequence[Image.Image]], Tensor]
"""Images (n) to vectors (n, D), float32 on the CPU. Raises ValueError where an image cannot be encoded."""


def tower(vlm: Vlm) -> Encode:
    """The mean of what the model's own tower and projector hand to its language model, over all places of an image."""
    return lambda images: torch.stack([part.mean(0) for part in image_features(vlm, images)])


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


def mean_vectors(questions: Iterable[Question], images: Iterable[tuple[str, Tensor]]) -> Rows:
    """One ``unit`` vector a question: the mean over its images' own vectors, scaled to the same length.

    ``images`` are vectors (D,) with their images' ``ImageFile.digest``; images that are not there are left out, and a
    question without any has zeros.
    """
    place: dict[str, int] = {}

    def scaled() -> Iterator[Tensor]:
        for some in batched(images):
            place.update({digest: number for number, (digest, _) in enumerate(some, len(place))})
            vectors = torch.stack([vector for _, vector in some])
            yield vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-20)

    stored = Rows(scaled())
    sets: dict[tuple[int, ...], int] = {}
    of = array("q")
    for question in questions:
        own = tuple(place[image.digest] for image in question.images if image.digest in place)
        of.append(sets.setdefault(own, len(sets)))

    def means(some: Sequence[tuple[int, ...]]) -> Tensor:
        rows = torch.zeros(len(some), stored.shape[1])
        for number, own in enumerate(some):
            if own:
                rows[number] = as_tensor(stored, torch.tensor(own)).mean(0)
        return unit(rows)

    return Rows(map(means, batched(sets)), np.array(of, dtype=np.int64))


def packed(digest: str, vector: Tensor) -> ImageVector:
    """An image's vector, (D,) float32, as a row of a table."""
    return ImageVector(id=digest, values=base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode())


def unpacked(row: ImageVector) -> Tensor:
    """(D,) float32."""
    return torch.frombuffer(bytearray(base64.b64decode(row.values)), dtype=torch.float32)
