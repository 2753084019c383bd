"""What other packages add through Python entry points, beside what comes with radpref.

A package adds a judge, say, by naming it in its own ``pyproject.toml``::

    [project.entry-points."radpref.judges"]
    house = "my_package.judging:house"

==========================  =========================================================================================
``radpref.judges``          a ``judges.Maker``: takes the recipe's judge section, gives an object with name, version,
                            check and call (``judges.Judge``); ``lc-house`` is its length-controlled form
``radpref.sources``         a ``data.Source``, with options of its own (``data.options``)
``radpref.objectives``      a ``losses.Ranking``: a loss of both sides' token log-probs, for ``align.loss``
``radpref.corruptions``     a function (values, mask, section, rng) -> values, for ``corrupt.operator``
``radpref.metrics``         a function (questions, answers) -> a number or None each, for the table of results
==========================  =========================================================================================

``radpref doctor`` lists what is found; docs/python.md shows one of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from radpref.errors import RadprefError

T = TypeVar("T")

GROUPS = ("judges", "sources", "objectives", "corruptions", "metrics")


class PluginError(RadprefError):
    """Something that another package adds and that cannot be used; the message names the package."""


@cache
def found(group: str) -> Mapping[str, EntryPoint]:
    """What other packages add to a group, by name."""
    return {point.name: point for point in entry_points(group=f"radpref.{group}")}


def versions(group: str) -> str:
    """What other packages add to a group, with the packages' versions."""
    return " ".join(f"{name} {point.dist.version if point.dist else ''}" for name, point in found(group).items())


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


class Extended(Mapping[str, T]):
    """A dictionary of what comes with radpref and, behind it, of what other packages add to a group.

    A name of ours is ours, whoever else takes it; what others add is imported when it is asked for.
    """

    def __init__(self, group: str, ours: Mapping[str, T]) -> None:
        self._group, self._ours = group, ours

    def __getitem__(self, name: str) -> T:
        if name in self._ours:
            return self._ours[name]
        if name not in found(self._group):
            raise KeyError(name)
        added: T = load(self._group, name)
        return added

    def __iter__(self) -> Iterator[str]:
        return iter([*self._ours, *(name for name in found(self._group) if name not in self._ours)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in found(self._group)
