"""Names that a recipe may give, of what comes with radpref and of what other packages add through entry points.

A package adds a judge, say, by naming it in its own ``pyproject.toml``::

    [project.entry-points."radpref.judges"]
    house = "my_package.judging:house_judge"

The groups are ``radpref.judges``, ``radpref.sources``, ``radpref.objectives``, ``radpref.corruptions`` and
``radpref.metrics``; docs/python.md shows one of each. ``radpref doctor`` lists what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from radpref.config import Recipe, fields, marked, nearest, objectives
from radpref.errors import RadprefError
from radpref.rooms import data, judges

GROUPS = ("judges", "sources", "objectives", "corruptions", "metrics")


class PluginError(RadprefError):
    """Something that another package adds and that cannot be used; the message names the package."""


@cache
def found(group: str) -> Mapping[str, EntryPoint]:
    """What other packages add to a group, by name."""
    return {point.name: point for point in entry_points(group=f"radpref.{group}")}


def load(group: str, name: str) -> Any:
    """What a package adds under a name. Raises PluginError where it cannot be imported."""
    point = found(group)[name]
    try:
        return point.load()
    except Exception as error:  # a foreign package may raise anything
        package = point.dist.name if point.dist else point.value
        raise PluginError(
            f"{name!r} of radpref.{group} is added by {package}, which cannot be imported ({type(error).__name__}: "
            f"{error}). Mend or uninstall it."
        ) from error


_OURS: dict[str, Callable[[], Any]] = {
    "judges": lambda: judges.JUDGES,
    "sources": lambda: data.SOURCES,
    "objectives": objectives,
}


def names(group: str) -> list[str]:
    """All names of a group: ours, then others'."""
    return [*(_OURS[group]() if group in _OURS else ()), *found(group)]


def named(recipe: Recipe) -> Iterator[tuple[str, str, list[str]]]:
    """Every key of a recipe that takes a name of a group, with its value and the names there are."""
    for key, field in fields():
        group = marked(field, "names")
        value: Any = recipe
        for part in key.split("."):
            value = getattr(value, part)
        if group and value is not None:
            yield key, value, names(group)


def unknown(key: str, name: str, known: list[str], where: str) -> str:
    """Why a name cannot be taken."""
    return (
        f"`{key}` from {where} is {name!r}, which does not exist{nearest(name, known) or '.'} "
        f"There are: {', '.join(known)}."
    )
