"""Who may say where the lesion of a pair is, by the names that ``corrupt.masks`` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from PIL import Image

from radpref import models, pairs
from radpref.config import CorruptSection
from radpref.grounding.evidence import locate
from radpref.images import Located, Mask
from radpref.pairs import Locate
from radpref.records import Pair


def providers_of(
    section: CorruptSection, device: str, model: Callable[[], models.Vlm] | None = None
) -> dict[str, Locate]:
    """The providers that ``section.masks`` may name; a model is loaded when it is first asked.

    ``device`` as in the recipe's run section; ``model`` gives the model whose evidence may be asked for.
    """

    @cache
    def segmenter() -> models.Segmenter:
        name, score = str(section.segmenter), section.segmenter_score
        return models.load_segmenter(name, score=score, device=models.pick_device(device))

    def segment(picture: Image.Image, names: Sequence[str]) -> Mask | None:
        return models.segment(segmenter(), picture, names)

    def evidence(pair: Pair, pictures: Sequence[Image.Image]) -> list[Located]:
        assert model is not None
        return locate(model(), pair, pictures, section.quantile)

    found: dict[str, Locate] = {"own": pairs.own, "segmenter": pairs.by_prompt(segment)}
    return found if model is None else {**found, "evidence": evidence}
