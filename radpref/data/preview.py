"""A contact sheet of what a recipe's data section would give a model."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

from PIL import Image

from radpref.config import DataSection
from radpref.data import phantom
from radpref.data.load import load_studies
from radpref.images import contact_sheet


def preview_sheet(section: DataSection, *, count: int, seed: int) -> Image.Image:
    """One RGB picture of the first ``count`` images, with lesion masks where they are known.

    Phantoms are drawn with their masks outlined and their truth written below, with the report and what its habits made
    of the truth; of any other source the images stand as a model would be shown them, with the view.

    Raises:
        DataError: the source cannot be read.
    """
    if section.source == "phantom":
        world = section.phantom
        habits, size = phantom.habits_of(world), max(256, world.size)
        images = [phantom.draw(index, seed=world.seed, size=size, habits=habits) for index in range(count)]
        return phantom.contact_sheet(images, reports=True)
    with tempfile.TemporaryDirectory() as cache:
        few = section.model_copy(update={"train": count, "validation": count, "test": count})
        studies = load_studies(few, Path(cache), seed).studies
        cells = ((image, image.view) for study in studies for image in study.images[: section.max_images])
        return contact_sheet(list(islice(cells, count)), masks=True)
