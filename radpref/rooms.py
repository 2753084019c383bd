"""The rooms that stages work with, each loaded when it is first used.

``radpref status`` reads what stages declare, and must not wait for torch. This is the one place that puts an import
off: ``from radpref.rooms import models`` gives the module, to read and to type-check alike.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radpref import (
        data,
        evaluation,
        findings,
        formats,
        grounding,
        images,
        judges,
        losses,
        mining,
        models,
        pairs,
        pipeline,
        report,
        tasks,
        training,
    )
    from radpref.runs.engine import ray as ray_engine

__all__ = [
    "data",
    "evaluation",
    "findings",
    "formats",
    "grounding",
    "images",
    "judges",
    "losses",
    "mining",
    "models",
    "pairs",
    "pipeline",
    "ray_engine",
    "report",
    "tasks",
    "training",
]


class _Room:
    """A module that is imported when one of its names is first asked for."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> tuple[type[_Room], tuple[str]]:
        """A function that travels to another process takes the name along, and not the module."""
        return _Room, (self._module,)

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)


if not TYPE_CHECKING:
    globals().update({name: _Room(f"radpref.{name}") for name in __all__ if name != "ray_engine"})
    ray_engine = _Room("radpref.runs.engine.ray")
