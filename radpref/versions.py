"""The version of each room's code: raised by hand whenever its results change.

A stage names the rooms that make its results, and is outdated when one of their numbers has risen.
``tests/test_versions`` compares small results of each room with what they were, so that this is not forgotten. They
stand here and not in the rooms, so that ``radpref status`` need not load torch to know them.
"""

ROOMS: dict[str, int] = {
    "data": 2,
    "evaluation": 1,
    "findings": 1,
    "grounding": 1,
    "images": 1,
    "judges": 1,
    "losses": 1,
    "mining": 1,
    "models": 1,
    "pairs": 1,
    "report": 1,
    "tasks": 1,
    "training": 1,
}
