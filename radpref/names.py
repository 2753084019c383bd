"""Names in a recipe that stand for something on a list: a source, a judge, an objective, a corruption."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from radpref.config import Loaded, RecipeError, fields, marked, nearest, objectives, value_of
from radpref.rooms import data, images, judges

NO_STUDIES = "none"
"""The ``data.source`` of a run that has pairs and nothing else."""

_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "judges": lambda: judges.JUDGES,
    "sources": lambda: data.SOURCES,
    "objectives": objectives,
    "corruptions": lambda: images.OPERATORS,
}
"""The names of each group that a key of the recipe may take, ours and those of other packages."""


def check_names(loaded: Loaded) -> None:
    """Whether every name that the recipe takes from a list is on it, and what no stage could see by itself.

    Raises:
        RecipeError: a source, judge or objective that does not exist, with the nearest one; pairs that no stage reads.
    """
    recipe = loaded.recipe
    for key, field in fields():
        group, name = marked(field, "names"), value_of(recipe, key)
        if group is None or name is None:
            continue
        known = [*_NAMES[group](), *([NO_STUDIES] if key == "data.source" and recipe.method == "pairs" else [])]
        if name not in known:
            raise RecipeError(
                f"`{key}` from {loaded.provenance.get(key, 'the recipe')} is {name!r}, which does not exist"
                f"{nearest(name, known) or '.'} There are: {', '.join(known)}."
            )
    if recipe.method != "pairs":
        if recipe.pair.file is not None:
            raise RecipeError(
                f"`pair.file` names pairs that were made elsewhere, which {recipe.method} does not read: it makes "
                "its own. Set method: pairs, or leave pair.file out."
            )
        return
    if recipe.pair.file is None:
        raise RecipeError("method pairs aligns with pairs that are there already; say where with pair.file.")
    if recipe.data.source == NO_STUDIES and (recipe.sft.enabled or len(recipe.select.betas) > 1):
        what = "sft.enabled: true" if recipe.sft.enabled else "several select.betas"
        raise RecipeError(f"{what} needs studies, and data.source is {NO_STUDIES}. Name a source, or leave it out.")
