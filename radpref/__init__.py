"""radpref: preference alignment for radiology vision-language models, without human feedback.

In Python the front door is this module: ``radpref.run``, ``load_recipe``, ``load_studies``, ``read_findings``,
``label``, ``judge``, ``corrupt``, ``pair``, ``align``, ``evaluate``, ``compare`` and ``losses`` (docs/python.md), each
imported when it is first used. The rooms behind them, from the bottom up: ``records`` and ``files``, ``config`` (what a
run does), ``images``, ``findings``, ``losses``, ``tasks``, ``judges``, ``data``, ``models``, ``pairs``, ``training``,
``evaluation``, ``mining``, ``grounding``, ``report``, then ``runs``, ``stages``, ``pipeline`` and ``cli``.
docs/architecture.md draws them.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # a medical tool reports to nobody

if TYPE_CHECKING:
    from radpref import losses
    from radpref.api import (
        Aligned,
        Result,
        align,
        compare,
        corrupt,
        evaluate,
        judge,
        label,
        load_recipe,
        load_studies,
        pair,
        read_findings,
        run,
    )

__version__ = "0.2.0"

__all__ = [
    "Aligned",
    "Result",
    "__version__",
    "align",
    "compare",
    "corrupt",
    "evaluate",
    "judge",
    "label",
    "load_recipe",
    "load_studies",
    "losses",
    "pair",
    "read_findings",
    "run",
]


def __getattr__(name: str) -> Any:
    """What the front door gives, when it is first asked for (PEP 562)."""
    if name == "losses":
        return import_module("radpref.losses")
    if name in __all__:
        return getattr(import_module("radpref.api"), name)
    raise AttributeError(f"module 'radpref' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
