"""A contact sheet of questions made from findings: the images as a model is shown them, with question and answer.

    python benchmarks/question_sheet.py --out docs/images/questions.jpg
    python benchmarks/question_sheet.py --source nih --root .../nih_chestxray14_1000 --out /tmp/nih.jpg

Sheets of anything but phantoms show patients' images: they are for looking at, and not for publication.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

from radpref.config import DataSection, PhantomSection, TaskSection
from radpref.data import load_studies
from radpref.images import read_image
from radpref.records import Question
from radpref.tasks import questions
from radpref.tasks.comparison import OPENING

TEXT, LINE, LINES = 12, 15, 6


def cell(question: Question, side: int) -> Image.Image:
    """The question's images beside each other, above what is asked, answered and given as the reason."""
    width = side * len(question.images)
    made = Image.new("RGB", (width, side + LINES * LINE + 4), "black")
    for number, image in enumerate(question.images):
        picture = read_image(image)
        picture.thumbnail((side - 4, side - 4), Image.Resampling.LANCZOS)
        made.paste(picture, (number * side + (side - picture.width) // 2, (side - picture.height) // 2))
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(TEXT)
    asked = question.prompt.removeprefix(OPENING)
    lines = [(line, "white") for line in textwrap.wrap(asked, width // 6)[:3]]
    lines += [(line, "yellow") for line in textwrap.wrap(f"{question.answer}: {question.reference}", width // 6)]
    for number, (line, colour) in enumerate(lines[:LINES]):
        pen.text((4, side + number * LINE), line, fill=colour, font=font)
    return made


def sheet(rows: list[Question], side: int, columns: int) -> Image.Image:
    """Cells in rows of ``columns`` images."""
    cells = [cell(row, side) for row in rows]
    lines: list[list[Image.Image]] = [[]]
    for one in cells:
        if sum(other.width for other in lines[-1]) + one.width > columns * side:
            lines.append([])
        lines[-1].append(one)
    made = Image.new("RGB", (columns * side, len(lines) * cells[0].height), "black")
    for row, line in enumerate(lines):
        at = 0
        for one in line:
            made.paste(one, (at, row * one.height))
            at += one.width
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="phantom")
    parser.add_argument("--root")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12, help="region questions; half as many of the others")
    parser.add_argument("--studies", type=int, default=60)
    parser.add_argument("--side", type=int, default=200, help="pixels of an image")
    parser.add_argument("--size", type=int, default=384, help="pixels of a phantom as it is drawn")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    section = DataSection(
        source=arguments.source,
        root=arguments.root,
        train=arguments.studies,
        validation=2,
        test=2,
        phantom=PhantomSection(size=arguments.size, masks=True, prior_share=0.5),
    )
    with tempfile.TemporaryDirectory() as folder:
        studies = load_studies(section, Path(folder), arguments.seed).studies
        task = TaskSection(kind="questions", per_study=1000)
        rows = questions(studies, task, max_images=1, folder=Path(folder) / "marked", seed=arguments.seed)
        chosen: list[Question] = []
        for name in ("basic", "region", "comparison"):
            ours = [row for row in rows if row.task == name]
            count = arguments.count if name == "region" else arguments.count // 2
            kinds = sorted({row.kind for row in ours})
            chance = Random(arguments.seed)
            pools = [chance.sample(pool, len(pool)) for kind in kinds if (pool := [r for r in ours if r.kind == kind])]
            turns = [pool[turn] for turn in range(count) for pool in pools if turn < len(pool)]
            chosen += turns[:count]
        made = sheet(chosen, arguments.side, arguments.columns)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        made.save(arguments.out, quality=42, optimize=True)
    print(f"{len(chosen)} of {len(rows):,} questions, {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
