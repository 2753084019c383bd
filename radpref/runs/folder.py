"""The folder of one run: its recipe, tables, event log and the marks of what is finished.

::

    RUN/
      run.json          the command, versions, hardware, where each value of the recipe came from
      recipe.yaml       the resolved recipe; behind each value its help and where it came from
      precision.json    what `run.precision: auto` came to on each kind of device
      events.jsonl      what happened when: stages, counts
      studies/ sft/ sample/ judge/ pair/ prepare/ align/ select/ evaluate/    one folder a stage
      metrics.json      every number of the results table
      report.html       the report

Each stage's folder holds its tables and, once it is finished, ``done.json``: what the results follow from, the digests
of the tables, and facts about them.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from radpref import config
from radpref.errors import RadprefError
from radpref.files import StoreError, append_lines, read_json, replacing, sweep_litter, write_atomically
from radpref.records import Record
from radpref.runs.stage import Basis, TableOf
from radpref.runs.table import Table
from radpref.versions import installed

Row = TypeVar("Row", bound=Record)

FORMAT = 2
"""Of run folders; raised when an older folder can no longer be read."""


_EVENT: dict[str, Any] = {"stage": str, "event": str}
_FIELDS = {"finished": {**_EVENT, "seconds": int | float, "result": str}, "note": {**_EVENT, "text": str}}
"""What an event holds; a line of the log without it is passed over, like a torn one."""


class RunError(RadprefError):
    """A run that cannot start or go on; the message says why and what to do."""


class Mark(BaseModel):
    """What stands in a finished stage's ``done.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: Basis
    tables: dict[str, str] = {}
    """Digests of what it wrote."""
    facts: dict[str, dict[str, Any]] = {}
    counts: dict[str, Any] = {}
    published: tuple[str, ...] = ()
    """Files of the run as a whole that it wrote."""

    def digest(self, name: str) -> str:
        """Of a table or a fact: what depends on it is outdated when this changes."""
        if name in self.tables:
            return self.tables[name]
        fact = self.facts.get(name, {})
        return str(fact["fingerprint"]) if "fingerprint" in fact else Basis(config=fact).key


class Run:
    """One run folder, opened for work or for reading.

    Args:
        folder: the run folder.
        loaded: the resolved recipe; read from the folder where absent.
        main: whether this process writes what belongs to the run as a whole; of several, the first.

    Raises:
        RunError: there is no run in ``folder`` and no recipe was given, or it is of another version.
    """

    def __init__(self, folder: Path, loaded: config.Loaded | None = None, *, main: bool = True) -> None:
        self.folder = folder
        self.main = main
        self.loaded = config.anchored(read_recipe(folder) if loaded is None else loaded)
        self.recipe = self.loaded.recipe

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    @property
    def root(self) -> Path:
        """What paths in tables and marks are relative to."""
        return self.folder.resolve()

    def table(self, stage: str, port: TableOf[Row]) -> Table[Row]:
        return Table(self.path(stage, f"{port.name}.jsonl"), port.row, root=self.root)

    def write_json(self, value: Any, *parts: str) -> None:
        if self.main:
            write_atomically(self.path(*parts), _as_json(value))

    def read_json(self, *parts: str) -> Any:
        path = self.path(*parts)
        return read_json(path) if path.exists() else None

    # -------------------------------------------------------------------------------------- marks

    def mark(self, stage: str) -> Mark | None:
        """What `finish` recorded; None when the stage has not finished, or something that it wrote is not there."""
        content = self.read_json(stage, "done.json")
        try:
            mark = None if content is None else Mark.model_validate(content)
        except ValidationError:
            return None
        if mark is None:
            return None
        made = [f"{stage}/{name}.jsonl" for name in mark.tables] + [*mark.published, *_inside(mark.facts)]
        return mark if all(self.path(path).exists() for path in made) else None

    def begin(self, stage: str) -> None:
        """Take a stage's mark away, since its results are about to change."""
        if self.main:
            self.path(stage, "done.json").unlink(missing_ok=True)

    def finish(self, stage: str, mark: Mark) -> None:
        """Mark a stage as finished."""
        self.write_json(mark.model_dump(mode="json"), stage, "done.json")

    # -------------------------------------------------------------------------------------- events

    def event(self, stage: str, what: str, **facts: Any) -> None:
        """Append one line to the event log. A torn line (a kill) is skipped when the log is read."""
        if self.main:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "stage": stage, "event": what}
            append_lines(self.path("events.jsonl"), json.dumps({**line, **facts}, ensure_ascii=False).encode() + b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        path = self.path("events.jsonl")
        for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and all(
                isinstance(event.get(name), kind) for name, kind in _FIELDS.get(str(event.get("event")), _EVENT).items()
            ):
                yield event

    def history(self) -> list[dict[str, Any]]:
        """The events of what the folder holds now: of a stage that was done again for other settings or inputs, those
        since then."""
        kept: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        basis: dict[str, object] = {}
        for at, event in enumerate(self.events()):
            stage = event["stage"]
            if event["event"] == "started" and (now := event.get("basis")) is not None and now != basis.get(stage):
                basis[stage] = now
                kept[stage] = []
            kept.setdefault(stage, []).append((at, event))
        return [event for _, event in sorted((one for events in kept.values() for one in events), key=itemgetter(0))]

    def seconds(self) -> dict[str, float]:
        """Seconds that what each stage holds now has taken, over all sittings that ended."""
        spent: dict[str, float] = {}
        for event in self.history():
            if event["event"] == "finished":
                spent[event["stage"]] = spent.get(event["stage"], 0.0) + event["seconds"]
        return spent

    # -------------------------------------------------------------------------------------- opening

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process, or for this process and those that were started with it.

        Raises:
            RunError: another process works in this folder, or it holds something that is no run.
            StoreError: the folder cannot be written.
        """
        if not self.main:
            yield
            return
        if self.path("recipe.yaml").exists() and not self.path("run.json").exists():
            raise RunError(
                f"{self.folder} holds a recipe.yaml and no run, which a run would write over. Give another --out."
            )
        if self.path("run.json").exists():
            _known(self.folder)
        try:
            self._make()
            lock = FileLock(self.path(".lock"), timeout=0)
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another process works in {self.folder}. Wait for it, stop it, or give this run another --out."
            ) from None
        except OSError as error:
            raise StoreError(
                f"cannot write in the run folder {self.folder}: {error.strerror or error}. Make it writable, or give "
                "another --out."
            ) from error
        with lock:
            sweep_litter(self.folder, below=True, all_of_it=True)
            yield

    def _make(self) -> None:
        """The folder, where there is none: it will hold reports, so that nobody else may look into it unless asked."""
        if not self.folder.is_dir():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o777 if self.recipe.run.shared else 0o700, exist_ok=True)

    def note_recipe(self) -> None:
        """Write down the recipe and how the run was made; called when all checks have passed."""
        if self.main:
            with replacing(self.path("recipe.yaml")) as recipe, replacing(self.path("run.json")) as made:
                recipe.write(config.dump(self.loaded).encode())
                recipe.flush()  # where there is no room for either, neither is replaced
                made.write(_as_json(about(self.loaded)).encode())  # in place first: a recipe.yaml alone is somebody's


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _inside(fact: Any) -> Iterator[str]:
    """The models in the run folder that facts name (``records.StoredModel``)."""
    if isinstance(fact, Mapping | list):
        for part in fact.values() if isinstance(fact, Mapping) else fact:
            yield from _inside(part)
    elif isinstance(fact, str) and fact.startswith("./"):
        yield fact


def read_recipe(folder: Path) -> config.Loaded:
    """The recipe that a run folder was made with, with where its values came from.

    Raises:
        RunError: the folder holds no run, or one of another version.
        RecipeError: its recipe.yaml was changed by hand into something that cannot be run.
    """
    path = folder / "recipe.yaml"
    if not path.is_file() or not (folder / "run.json").is_file():
        raise RunError(f"{folder} holds no run (no recipe.yaml with a run.json). `radpref run RECIPE --out {folder}`.")
    provenance = _known(folder).get("provenance", {})
    loaded = config.load(str(path))
    return config.Loaded(
        recipe=loaded.recipe,
        provenance={key: provenance.get(key, where) for key, where in loaded.provenance.items()},
    )


def _known(folder: Path) -> Mapping[str, Any]:
    """``run.json`` of a folder. Raises RunError where another version of radpref has made it."""
    known = read_json(folder / "run.json")
    if not isinstance(known, Mapping) or not isinstance(known.get("provenance", {}), Mapping):
        raise RunError(
            f"{folder / 'run.json'} is not as a run writes it; it was changed by hand. Put the old file back, or give "
            "another --out."
        )
    if known.get("format") != FORMAT:
        raise RunError(
            f"{folder} was made by another version of radpref (its format is {known.get('format', 1)}, this one reads "
            f"{FORMAT}). Give another --out, or use the version that made it."
        )
    return known


def about(loaded: config.Loaded) -> dict[str, Any]:
    """What is worth knowing about how a run was made."""
    return {
        "format": FORMAT,
        "command": sys.argv[1:],
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": loaded.recipe.run.seed,
        "versions": installed(),
        "machine": {"system": platform.system(), "machine": platform.machine(), "python": platform.python_version()},
        "provenance": loaded.provenance,
    }
