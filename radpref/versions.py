"""The version of each room's code: raised by hand whenever its results change.

A stage names the rooms that make its results, and is outdated when one of their numbers has risen.
``tests/test_versions`` compares small results of each room with what they were, so that this is not forgotten. They
stand here and not in the rooms, so that ``radpref status`` need not load torch to know them.
"""

from importlib import metadata

ROOMS: dict[str, int] = {
    "data": 3,
    "evaluation": 3,
    "findings": 2,
    "grounding": 1,
    "images": 1,
    "judges": 3,
    "losses": 1,
    "mining": 1,
    "models": 1,
    "pairs": 1,
    "report": 2,
    "tasks": 2,
    "training": 1,
}

LIBRARIES = ("radpref", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")
"""What numbers depend on besides our own code."""


def installed() -> dict[str, str]:
    """The versions of ``LIBRARIES`` that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
