"""``radpref recipes``: what comes with the package."""

from __future__ import annotations

from radpref import config
from radpref.cli.terminal import out


def list_recipes() -> None:
    """The shipped recipes and their presets, with a line about each."""
    out.print(described(), highlight=False, markup=False)


def described() -> str:
    """A line a recipe and preset."""
    lines = ["Recipes and their presets:", ""]
    for name in config.shipped():
        about, presets = config.about(name)
        lines.append(f"  {name:12} {about}")
        lines += [f"    --preset {preset:12} {text}" for preset, text in presets.items()]
    return "\n\n".join(["\b\n" + "\n".join(lines)])
