"""The folder of one run: its recipe, tables, event log and the marks of what is finished.

::

    RUN/
      recipe.yaml       the resolved recipe; behind each value its help and where it came from
      run.json          the command, versions, hardware, provenance of each value
      precision.json    what `run.precision: auto` came to on each kind of device
      events.jsonl      what happened when: stages, counts, training logs
      studies/ sft/ sample/ judge/ pair/ prepare/ align/ select/ evaluate/    one folder a stage
      metrics.json      every number of the results table
      report.html       the report

Each stage's folder holds its tables and, once it is finished, ``done.json`` with the key of everything that the
result depends on. A stage whose key is unchanged is up to date.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from radpref import config
from radpref.errors import RadprefError
from radpref.files import StoreError, write_atomically
from radpref.records import Record
from radpref.run.table import Table

Row = TypeVar("Row", bound=Record)

LIBRARIES = ("radpref", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "spacy")


class RunError(RadprefError):
    """A run that cannot start or go on; the message says why and what to do."""


class Run:
    """One run folder, opened for work or for reading.

    Args:
        folder: the run folder.
        loaded: the resolved recipe; read from the folder where absent.

    Raises:
        RunError: there is no run in ``folder`` and no recipe was given.
    """

    def __init__(self, folder: Path, loaded: config.Loaded | None = None) -> None:
        self.folder = folder
        if loaded is None:
            loaded = read_recipe(folder)
        self.loaded = config.anchored(loaded)
        self.recipe = self.loaded.recipe

    # -------------------------------------------------------------------------------------- files

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def table(self, stage: str, name: str, row: type[Row]) -> Table[Row]:
        return Table(self.path(stage, f"{name}.jsonl"), row, root=self.folder.resolve())

    def rows(self, stage: str, name: str, row: type[Row]) -> list[Row]:
        return list(self.table(stage, name, row))

    def digest(self, stage: str, name: str) -> str:
        """A hash of a finished table's content."""
        import hashlib

        return hashlib.blake2b(self.path(stage, f"{name}.jsonl").read_bytes(), digest_size=12).hexdigest()

    def noted(self, path: str) -> str:
        """How an absolute path is written down: from ``./``, this folder, where it lies in it. Names stay names."""
        here = self.folder.absolute()
        return f"./{Path(path).relative_to(here).as_posix()}" if Path(path).is_relative_to(here) else path

    def located(self, noted: str) -> str:
        """The path that ``noted`` wrote down, wherever this folder lies now."""
        return str(self.folder.absolute() / noted) if noted.startswith("./") else noted

    def write_json(self, value: Any, *parts: str) -> None:
        write_atomically(self.path(*parts), json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def read_json(self, *parts: str) -> Any:
        path = self.path(*parts)
        return read_json(path) if path.exists() else None

    # -------------------------------------------------------------------------------------- state

    def done(self, stage: str) -> dict[str, Any] | None:
        """What `finish` recorded of a stage, or None when it has not finished, or what it made is gone."""
        mark = self.read_json(stage, "done.json")
        whole = isinstance(mark, dict) and "key" in mark and all(self.path(place).exists() for place in _places(mark))
        return mark if whole else None

    def begin(self, stage: str, key: str | None = None) -> bool:
        """Take a stage's mark away, since its results are about to change.

        False, and nothing is done, where the stage has finished with ``key`` already.
        """
        found = self.done(stage)
        if found is not None and found["key"] == key:
            return False
        self.path(stage, "done.json").unlink(missing_ok=True)
        return True

    def finish(self, stage: str, key: str, **facts: Any) -> None:
        """Mark a stage as finished; ``key`` changes whenever its results do."""
        self.write_json({"key": key, **facts}, stage, "done.json")

    def stamp(self, stage: str, inputs: dict[str, str]) -> None:
        """Put beside a finished stage's key the keys of what it was made from, and what its folder holds."""
        mark = self.done(stage)
        if mark is not None:
            names = sorted(path.name for path in self.path(stage).iterdir() if path.name != "done.json")
            stamped = {**mark, "inputs": inputs, "files": [f"./{stage}/{name}" for name in names]}
            if stamped != mark:
                self.write_json(stamped, stage, "done.json")

    def event(self, stage: str, what: str, **facts: Any) -> None:
        """Append one line to the event log. A torn line (a kill) is skipped when the log is read."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "stage": stage, "event": what, **facts}
        try:
            with self.path("events.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StoreError(f"cannot write {self.path('events.jsonl')}: {error.strerror or error}") from error

    def events(self) -> Iterator[dict[str, Any]]:
        path = self.path("events.jsonl")
        if not path.exists():
            return
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def seconds(self) -> dict[str, float]:
        """Seconds that each stage has taken, over all sittings that ended."""
        spent: dict[str, float] = {}
        for event in self.events():
            if event["event"] == "finished":
                spent[event["stage"]] = spent.get(event["stage"], 0.0) + event["seconds"]
        return spent

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Write the recipe and hold the folder for this process alone.

        Raises:
            RunError: another process works in this folder.
            StoreError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the run folder {self.folder}: {error.strerror or error}") from error
        try:
            with FileLock(self.path(".lock"), timeout=0):
                write_atomically(self.path("recipe.yaml"), config.dump(self.loaded))
                self.write_json(about(self.loaded), "run.json")
                yield
        except Timeout:
            raise RunError(
                f"another process works in {self.folder}. Wait for it, stop it, or give this run another --out."
            ) from None


def _places(value: Any) -> Iterator[str]:
    """The places in the run folder (``Run.noted``) that a mark names."""
    if isinstance(value, str):
        if value.startswith("./"):
            yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _places(part)


def read_json(path: Path) -> Any:
    """A JSON file of a run folder.

    Raises:
        StoreError: it was changed by hand into something that is no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise StoreError(
            f"{path} cannot be read ({error}); it was changed by hand. Move the file away and give the command that "
            "writes it again."
        ) from error


def read_recipe(folder: Path) -> config.Loaded:
    """The recipe that a run folder was made with, with the provenance of its values.

    Raises:
        RunError: the folder holds no run.
        RecipeError: its recipe.yaml was changed by hand into something that cannot be run.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise RunError(f"{folder} holds no run (no recipe.yaml). `radpref run RECIPE --out {folder}` makes one.")
    loaded = config.load(str(path))
    about_path = folder / "run.json"
    known = read_json(about_path).get("provenance", {}) if about_path.exists() else {}
    return config.Loaded(
        recipe=loaded.recipe,
        provenance={key: known.get(key, where) for key, where in loaded.provenance.items()},
    )


def about(loaded: config.Loaded) -> dict[str, Any]:
    """What is worth knowing about how a run was made."""
    return {
        "command": sys.argv[1:],
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": loaded.recipe.run.seed,
        "versions": versions(),
        "machine": {"system": platform.system(), "machine": platform.machine(), "python": platform.python_version()},
        "provenance": loaded.provenance,
    }


def versions() -> dict[str, str]:
    """Installed versions of the libraries that numbers depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Yields a list that holds the seconds when the block has ended."""
    seconds: list[float] = []
    began = time.monotonic()
    yield seconds
    seconds.append(round(time.monotonic() - began, 2))


def progress(*, total: int | None, unit: str, what: str, done: int = 0) -> Any:
    """A progress bar on standard error with count, rate and, of a known total, time left; ``update(n)`` moves it."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=done,
        unit=f" {unit}",
        desc=f"{what:9}",
        mininterval=0.2 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
    )
