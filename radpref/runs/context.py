"""What a stage's work is given: the settings, tables and facts that it declares, and nothing else of the run."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from radpref.config import ModelSection, Recipe, ServerSection, narrowed
from radpref.files import content_key, write_atomically
from radpref.records import Quarantined, Record, Weights
from radpref.rooms import models
from radpref.runs.engine.local import Processes
from radpref.runs.folder import Run, RunError
from radpref.runs.progress import Steps, progress
from radpref.runs.stage import Basis, Fact, Port, Road, Stage, TableOf
from radpref.runs.table import Table

if TYPE_CHECKING:
    from radpref.models import Vlm

Row = TypeVar("Row", bound=Record)
K = TypeVar("K")
Server = TypeVar("Server", bound=ServerSection)
T = TypeVar("T")

QUARANTINED = TableOf("quarantined", Quarantined)
"""What a stage could not use, and why; any stage may write it."""


class UndeclaredPortError(RunError):
    """A stage reads or writes a table or fact that it does not declare."""


class Context:
    """A stage's view of the run.

    Attributes:
        config: the recipe, narrowed to the keys that the stage declares; ``run.precision`` is settled.
        limit: how many items this time at most; None for all.
        processes: this one among those that were started together.
        published: the files of the run as a whole that it has written.
    """

    def __init__(
        self,
        run: Run,
        road: Road,
        stage: Stage,
        settled: Recipe,
        processes: Processes,
        limit: int | None = None,
        basis: Basis | None = None,
    ) -> None:
        self._basis = Basis() if basis is None else basis
        self._made: dict[str, Any] = {}
        self.published: list[str] = []
        self.config = narrowed(settled, stage.readable)
        self.limit = limit
        self.processes = processes
        self._run, self._stage = run, stage
        self._before = before(road, stage)
        self._loaded: tuple[str, Vlm] | None = None

    @property
    def folder(self) -> Path:
        """The stage's own folder, absolute."""
        return self._run.root / self._stage.name

    def beside(self, name: str) -> Path:
        """The folder of another stage of the same round, absolute."""
        return self._run.root / f"{name}{self._stage.suffix}"

    @property
    def root(self) -> Path:
        """The run folder, absolute: what paths of rows are relative to where they are written."""
        return self._run.root

    # -------------------------------------------------------------------------------------- what is handed on

    def has(self, port: Port) -> bool:
        """Whether the method has a stage before this one that writes it."""
        self._declared(port, (*self._stage.reads, *self._stage.may_read))
        return writer(self._before, port) is not None

    def read(self, port: TableOf[Row]) -> Table[Row]:
        """A table of a stage before this one, as a stream; without rows where the method has none."""
        found = writer(self._before, port) if self.has(port) else None
        if found is None:
            return Table(self._run.path("absent", f"{port.name}.jsonl"), port.row)
        return self._run.table(found.name, port)

    def fact(self, fact: Fact[Row]) -> Row:
        """A fact of a stage before this one. Raises RunError where there is none."""
        found = Left(self._run, self._before).fact(fact) if self.has(fact) else None
        if found is None:
            raise RunError(f"`{self._stage.name}` reads {fact.name}, which no stage before it has left here.")
        return found

    def counts(self, port: Port) -> Mapping[str, Any]:
        """The numbers that the writer of a table or fact left in its mark; {} where there is none."""
        return Left(self._run, self._before).counts(port) if self.has(port) else {}

    def write(self, port: TableOf[Row], rows: Iterable[Row]) -> int:
        """Make ``rows`` the whole of a table of this stage; returns their number. The first process writes."""
        self._declared(port, (*self._stage.writes, QUARANTINED))
        if not self._run.main:
            return 0
        return self._run.table(self._stage.name, port).write(rows)

    def write_each(self, ports: Mapping[K, TableOf[Row]], rows: Iterable[tuple[K, Row]]) -> Counter[K]:
        """Make several tables of this stage in one pass: of each row, which one is its; returns the rows of each."""
        counts: Counter[K] = Counter()
        with ExitStack() as open_:
            add = {key: open_.enter_context(self.own(port).writing()) for key, port in ports.items()}
            for key, row in rows:
                add[key](row)
                counts[key] += 1
        return counts

    def own(self, port: TableOf[Row]) -> Table[Row]:
        """A table of this stage, to read what was written."""
        self._declared(port, (*self._stage.writes, QUARANTINED))
        return self._run.table(self._stage.name, port)

    def _declared(self, port: Port, ports: Sequence[Port]) -> None:
        if all(port.name != one.name for one in ports):
            raise UndeclaredPortError(f"`{self._stage.name}` uses {port.name}, which it does not declare.")

    # -------------------------------------------------------------------------------------- what all stages do

    def load(self, weights: Weights) -> Vlm:
        """A model, with the device, precision and threads that the recipe asks for; the one loaded last is kept."""
        if self._loaded is None or self._loaded[0] != weights.fingerprint:
            self._loaded = None  # two models need not fit into the memory
            self._loaded = (weights.fingerprint, self.fresh(weights))
        return self._loaded[1]

    def fresh(self, weights: Weights) -> Vlm:
        """A model of one's own, which may be trained in place."""
        section = section_of(weights).model_copy(update={"quantize": self.config.model.quantize})
        return models.load(section, self.config.run)

    def cached(self, section: Server) -> Server:
        """A section with a server: where it names no cache, answers are kept in the stage's folder."""
        return section.model_copy(update={"cache": section.cache or str(self.folder / "answers")})

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Something that is costly to make, made when it is first asked for."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    def weights(self, path: Path | str, adapter: Path | None = None, revision: str | None = None) -> Weights:
        """A model that this stage has made, with its fingerprint; all processes call it."""
        self.processes.wait()
        folder = models.locate(ModelSection(path=str(path), revision=revision))
        name = str(path.resolve()) if isinstance(path, Path) else path
        return Weights(
            path=name,
            revision=revision,
            adapter=str(adapter.resolve()) if adapter else None,
            fingerprint=models.fingerprint(folder, adapter),
        )

    def key(self, without: Collection[str] = (), **instead: object) -> str:
        """Of what the stage's results follow from, with some of the recipe's keys replaced: for a part of its work."""
        kept = {name: value for name, value in self._basis.config.items() if name not in without}
        return content_key(kept, instead, self._basis.identity, self._basis.inputs)

    def checkpoints(self, name: str, key: str, among: Collection[str] = ()) -> Path:
        """A folder for the checkpoints of one key. What another key left there goes, and what is not ``among``."""
        folder = self.folder / name
        if self._run.main:
            mark = folder / "key"
            if folder.exists() and not (mark.exists() and mark.read_text("utf-8") == key):
                shutil.rmtree(folder)
            for other in self.folder.glob("*/key"):
                if among and other.parent.name not in among:
                    shutil.rmtree(other.parent)
            if not mark.exists():
                write_atomically(mark, key)
        self.processes.wait()
        return folder

    def enter(self, processes: Processes) -> None:
        """Go on as one of several processes, in another place than where this was made."""
        self.processes = processes
        self._run.main = processes.first

    def note(self, text: str) -> None:
        """A sentence for the event log and the report: counts, never report text."""
        self._run.event(self._stage.name, "note", text=text)

    def progress(self, *, total: int | None, unit: str, done: int = 0, what: str = "") -> Any:
        """A progress bar, on the first process alone."""
        return progress(total=total, unit=unit, what=what or self._stage.name, done=done, shown=self._run.main)

    @contextmanager
    def training(self, what: str = "") -> Iterator[dict[str, Any]]:
        """What every training is told of the run: seed, limit, trackers, and as its log a bar over its steps."""
        bar = Steps(what or self._stage.name, shown=self._run.main)
        yield {
            "seed": self.config.run.seed,
            "max_steps": self.limit,
            "log": bar,
            "trackers": self.config.run.trackers,
        }
        bar.close()

    # -------------------------------------------------------------------------------------- for the report alone

    def about(self) -> Mapping[str, Any]:
        """How the run was made: ``run.json``, with ``name``, ``seconds`` by stage and all ``notes``."""
        notes = [event["text"] for event in self._run.history() if event["event"] == "note"]
        return {
            **(self._run.read_json("run.json") or {}),
            "name": self._run.folder.name,
            "provenance": self._run.loaded.provenance,
            "seconds": {stage: f"{seconds:.1f}" for stage, seconds in self._run.seconds().items()},
            "notes": list(dict.fromkeys(notes)),
        }

    def quarantined(self) -> Iterator[Quarantined]:
        """What all stages before this one could not use."""
        for stage in self._before:
            yield from self._run.table(stage.name, QUARANTINED)

    def trainings(self) -> Iterator[tuple[str, Path]]:
        """The folders that trainings before this stage left, each with a name: ``align beta-0.1``."""
        for stage in self._before:
            for folder in sorted(self._run.root.glob(f"{stage.name}/*/log.jsonl")):
                yield f"{stage.name} {folder.parent.name}".removesuffix(" training"), folder.parent

    def publish(self, name: str, content: str) -> Path:
        """Write a file of the run as a whole (``metrics.json``, ``report.html``); returns where it is."""
        path = self._run.path(name)
        if self._run.main:
            write_atomically(path, content)
            self.published.append(name)
        return path


class Left:
    """What a run's stages have left, by the last one that writes it: for what works on a run from outside."""

    def __init__(self, run: Run, road: Road) -> None:
        self._run, self._road = run, road

    def table(self, port: TableOf[Row]) -> Table[Row] | None:
        """A finished table; None where it is not there yet. Raises RunError where it was changed since."""
        found = writer(self._road, port)
        mark = self._run.mark(found.name) if found else None
        if found is None or mark is None:
            return None
        table = self._run.table(found.name, port)
        if table.digest() != mark.digest(port.name):
            raise RunError(
                f"{table.path} is not as it was written: rows were cut, taken out or added. Put the old file back, or "
                f"`radpref {found.command or found.name} {self._run.folder}` makes it anew."
            )
        return table

    def fact(self, fact: Fact[Row]) -> Row | None:
        """A fact of a finished stage; None where it is not there yet."""
        found = writer(self._road, fact)
        mark = self._run.mark(found.name) if found else None
        if mark is None or fact.name not in mark.facts:
            return None
        return fact.kind.model_validate(mark.facts[fact.name], context={"root": self._run.root})

    def counts(self, port: Port) -> Mapping[str, Any]:
        """The numbers in the mark of the stage that writes a table or fact; {} where it is not there yet."""
        found = writer(self._road, port)
        mark = self._run.mark(found.name) if found else None
        return {} if mark is None else mark.counts


def before(road: Road, stage: Stage) -> Road:
    """The stages of a method before one of them."""
    return road[: [one.name for one in road].index(stage.name)]


def writer(stages: Road, port: Port) -> Stage | None:
    """The last of some stages that writes a table or fact of this name, or the first where the port says so."""
    order = stages if port.first else reversed(stages)
    return next((one for one in order if any(port.name == made.name for made in one.writes)), None)


def section_of(weights: Weights) -> ModelSection:
    """How ``models.load`` is told of weights."""
    return ModelSection(path=weights.path, revision=weights.revision, adapter=weights.adapter)
