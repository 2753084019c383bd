"""What all commands share: where they print, errors as explanations, and overrides on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from radpref import config

out = Console()
err = Console(stderr=True)

TAKES_OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}


@contextmanager
def friendly() -> Iterator[None]:
    """Turn the errors that have an explanation into that explanation and exit status 2."""
    from radpref.errors import RadprefError
    from radpref.files import disk_errors
    from radpref.outside import enough_memory

    try:
        with enough_memory("this command", "the number of rows or the size of batches and images"), disk_errors(Path()):
            yield
    except RadprefError as error:
        err.print(f"[bold red]radpref:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on where this one was.")
        raise typer.Exit(130) from None


def tell(line: str, quarantined: Mapping[str, int], refused: Path | None) -> None:
    """A line about finished work, then what could not be used and where it is listed."""
    from radpref.outside import shown

    out.print(shown(line), highlight=False, markup=False)
    for reason, count in quarantined.items():
        out.print(shown(f"  quarantined: {count:,} {reason}"), highlight=False, markup=False)
    if refused is not None:
        out.print(f"  listed in {refused}", highlight=False, markup=False, soft_wrap=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    from radpref.outside import shown, without_key

    return escape(shown(without_key(text)))


def overrides(extra: list[str]) -> list[str]:
    """``--align.beta 0.05 --judge.name=lc-green`` as ``key=value`` words.

    Raises:
        RecipeError: a word that is not an option, or an option without a value.
    """
    result, words = [], iter(extra)
    for word in words:
        if not word.startswith("--"):
            raise config.RecipeError(f"`{word}` belongs to no option; write --section.key value.")
        key, equals, value = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                known = config.SHORTHANDS.keys() | set(config.keys())
                hint = "" if key.replace("-", "_") in known else config.nearest(key, sorted(known))
                raise config.RecipeError(f"`--{key}` needs a value{hint or '.'}")
            value = following
        result.append(f"{key}={value}")
    return result
