"""``radpref corrupt preview``: images without their lesions, for the eye."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radpref import config
from radpref.cli.terminal import TAKES_OVERRIDES, friendly, out, overrides
from radpref.files import replacing

if TYPE_CHECKING:
    from PIL import Image

    from radpref.config import DataSection, Recipe
    from radpref.records import Study

corrupt_app = typer.Typer(name="corrupt", help="Take lesions out of images, and look at it.", no_args_is_help=True)


@corrupt_app.command(context_settings=TAKES_OVERRIDES)
def preview(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Option("--run", help="A run folder: draw what its corrupt stage made. Absent: the data.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="The picture to write (PNG).")] = Path("corruption.png"),
    count: Annotated[int, typer.Option(min=1, max=100, help="Rows of the sheet.")] = 6,
    operator: Annotated[
        list[str] | None, typer.Option(help="An operator; may come again. The recipe's corrupt.operator if absent.")
    ] = None,
    side: Annotated[int, typer.Option(min=64, max=1024, help="Longest side of a picture on the sheet.")] = 256,
    recipe: Annotated[str, typer.Option(help="The recipe whose data and corrupt sections are used.")] = "chexalign",
) -> None:
    """Draw clean, mask and corrupted images side by side (--data nih --data.root ... --corrupt.grow .03).

    Of a data source, studies with masks or boxes come first.
    """
    with friendly():
        words = overrides(context.args)
        sheet = _of_run(folder, count, side) if folder else _of_source(recipe, words, operator or [], count, side)
        with replacing(to) as file:
            sheet.save(file, format="PNG")
        out.print(f"written to {to}", highlight=False, markup=False)


def _of_run(folder: Path, count: int, side: int) -> Image.Image:
    """Raises RunError: no run, or its corrupt stage has made nothing."""
    from itertools import islice

    from radpref.pairs.preview import kept_sheet
    from radpref.runs.folder import Run, RunError
    from radpref.stages.ports import PAIRS

    made = list(islice(Run(folder).table("corrupt", PAIRS), count))
    if not made:
        raise RunError(f"{folder} has no corrupted pairs; `radpref corrupt pairs {folder}` makes them.")
    return kept_sheet(made, side=side)


def _of_source(recipe: str, words: list[str], operators: list[str], count: int, side: int) -> Image.Image:
    """Raises RecipeError and its kin: a source, operator or provider that cannot be used."""
    import tempfile

    from radpref.grounding import providers_of
    from radpref.names import check_names
    from radpref.pairs import check_corrupt
    from radpref.pairs.preview import as_pair, made_sheet

    words_of = [[*words, f"corrupt.operator={name}"] for name in operators] or [words]
    recipes = [config.load(recipe, overrides=one) for one in words_of]
    for one in recipes:
        check_names(one)
    loaded, sections = recipes[0].recipe, [one.recipe.corrupt for one in recipes]
    section = loaded.corrupt
    check_corrupt(section)
    if "evidence" in section.masks:
        raise config.RecipeError(
            "evidence is of a model and a pair's words; preview a run that has both: "
            "radpref corrupt preview --run FOLDER"
        )
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary).resolve()
        chosen = [as_pair(study) for study in _studies(loaded, home, count)]
        return made_sheet(chosen, sections, home / "images", providers_of(section, loaded.run.device), side=side)


def _studies(recipe: Recipe, home: Path, count: int) -> list[Study]:
    """The first ``count`` studies that the recipe's source lists, those with masks or boxes first."""
    from radpref.data import SOURCES, DataError
    from radpref.images import marked
    from radpref.records import Study

    section = recipe.data
    rows = SOURCES[section.source].read(_drawn(section, count), home, recipe.run.seed).studies
    found = [row for row in rows if isinstance(row, Study)]
    if not found:
        raise DataError(f"{section.source}: no study to draw; check data.root and data.file")
    with_marks = [study for study in found if any(map(marked, study.images))]
    without = [study for study in found if study.images and not any(map(marked, study.images))]
    return [*with_marks, *without][:count]


def _drawn(section: DataSection, count: int) -> DataSection:
    """Phantoms are drawn for the sheet: few, with their masks, and large enough to be looked at."""
    world = section.phantom.model_copy(update={"masks": True, "size": max(256, section.phantom.size)})
    return section.model_copy(
        update={
            "phantom": world,
            **({"train": 3 * count, "validation": 1, "test": 1} if section.source == "phantom" else {}),
        }
    )
