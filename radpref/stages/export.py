"""What leaves a run: the aligned model as an ordinary checkpoint, the pairs for another tool."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from radpref.files import disk_errors
from radpref.records import reasons
from radpref.rooms import formats, models
from radpref.runs.context import Left, section_of
from radpref.runs.folder import Run, RunError
from radpref.runs.stage import Road
from radpref.stages.ports import CHOICE, PAIRS


def export_model(run: Run, road: Road, to: Path) -> str:
    """Write the chosen model, adapter merged, with its processor, as an ordinary checkpoint.

    Raises:
        RunError: nothing has been selected yet, or it was trained anew since; or the folder holds something.
    """
    choice = Left(run, road).fact(CHOICE)
    if choice is None:
        raise RunError(f"nothing is selected in {run.folder} yet; `radpref select {run.folder}` does it.")
    _check_new(to)
    weights = choice.chosen.weights
    section = section_of(weights)
    if models.fingerprint(models.locate(section), section.adapter) != weights.fingerprint:
        raise RunError(
            f"the model that was selected in {run.folder} has been trained anew since; `radpref run` (the same "
            "command as before) brings everything up to date."
        )
    with _whole(to) as part:
        models.save(models.merged(models.load(section, run.recipe.run)), part)
    return choice.chosen.id


def export_pairs(
    run: Run, road: Road, to: str, folder: Path, *, copy_images: bool = False, unpaired: bool = False
) -> str:
    """Write the run's pairs for the tool ``to``, a key of ``formats.WRITERS`` or ``ids``; returns a line about them.

    Raises:
        RunError: there are no pairs yet, the folder holds something, or no pair can be written.
    """
    table = Left(run, road).table(PAIRS)
    if table is None:
        raise RunError(f"there are no pairs in {run.folder} yet; `radpref pair {run.folder}` makes them.")
    _check_new(folder)
    with _whole(folder) as part:
        written = formats.write_pairs(to, table, part, copy_images=copy_images, unpaired=unpaired)
        if not written.pairs:
            raise RunError(f"no pair can be written{reasons(written.quarantined)}; nothing was.")
    left = f"; {len(written.quarantined)} left out{reasons(written.quarantined)}" if written.quarantined else ""
    visual = f", {written.visual} visual" if written.visual else ""
    return f"{written.pairs} pairs, {written.rows} rows{visual}{left}"


def _check_new(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise RunError(f"{folder} is there already; give a new or an empty folder.")


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write to that becomes ``folder`` in one step when the block ends, and not at all if it fails.

    It is made beside it under a name that nothing has: what is not ours is never removed.
    """
    folder = folder.absolute()
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            part = home / "part"
            part.mkdir()  # with the rights that umask leaves, which mkdtemp does not ask
            yield part
            part.replace(folder)
        finally:
            shutil.rmtree(home, ignore_errors=True)
