"""What a stage declares: the tables and facts that it reads and writes, the keys of the recipe, and its work.

From the declaration alone the runner makes the key of a stage's results, decides what is outdated, and hands the work
a context that holds what was declared and nothing else. There are three kinds of work:

* `Rows`: a pure function from a batch of inputs to rows. Batches follow from the list of inputs alone, so that one
  process, several, or a cluster make the same rows, and a stopped stage goes on where it was.
* `Ranks`: a function that every process enters together (training, under accelerate).
* `Whole`: a function on one process, which reads streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from radpref.config import Recipe, defaults
from radpref.files import content_key
from radpref.records import Quarantined, Record

if TYPE_CHECKING:
    from radpref.runs.context import Context
    from radpref.runs.table import Merged

R = TypeVar("R", bound=Record, covariant=True)
Item = TypeVar("Item", bound=Record)


@dataclass(frozen=True)
class TableOf(Generic[R]):
    """A table by name, with the type of its rows."""

    name: str
    row: type[R]
    first: bool = False
    """Whether it is read from the first stage that writes it, and not from the nearest (``first``)."""


@dataclass(frozen=True)
class Fact(Generic[R]):
    """A record that a stage leaves in its mark: which weights it made, what it chose."""

    name: str
    kind: type[R]
    first: bool = False


Port: TypeAlias = "TableOf[Record] | Fact[Record]"
"""What stages hand to each other: read from the nearest stage before that writes one of this name, or the first."""


class Outcome(NamedTuple):
    """What a stage says when it is done."""

    line: str
    """For the terminal and the log: counts and rates, never report text."""
    facts: Mapping[str, Record] = {}
    """By the names of its `Fact` ports."""
    counts: Mapping[str, Any] = {}
    """What else stands in the mark: numbers for the report and for sweeps."""
    finished: bool = True
    """False where a limit left some undone."""


@dataclass(frozen=True)
class Identity:
    """Something besides recipe and tables that a result follows from: weights, a judge's rules, a kind of device.

    Attributes:
        name: how messages call it.
        keys: the recipe's keys that it stands for; the stage may read them, and they count by ``of`` alone.
        of: its value for a recipe (narrowed to ``keys``).
    """

    name: str
    keys: tuple[str, ...]
    of: Callable[[Recipe], str]


@dataclass(frozen=True)
class Rows(Generic[Item]):
    """The work of a stage that makes rows of inputs.

    Attributes:
        make: a batch to what was made of each of its inputs, in their order: rows, or why there are none.
        items: the inputs, each with an id, as a stream that can be asked for again and again.
        into: the table.
        content: what the result of an input follows from, besides what the stage declares.
        batch: inputs a batch.
        close: reads the finished table and says what is there.
        total: how many inputs there are, for the progress bar.
        unit: what they are called there.
        most: rows to keep; None for all.
        again: whether a row from before is made once more although nothing has changed.
        alone: whether no result depends on the other inputs of its batch: of a batch, only what is missing is made.
        whose: whose an input is, where the stage reads facts about several (models, say) and ``content`` tells all of
            the one that counts: a batch holds one's inputs alone, and its results stay when another's fact changes.
    """

    make: Callable[[Sequence[Item], Context], Iterable[Sequence[Record] | Quarantined]]
    items: Callable[[Context], Iterable[Item]]
    into: TableOf[Record]
    content: Callable[[Item], Any]
    batch: Callable[[Recipe], int]
    close: Callable[[Context, Merged], Outcome]
    total: Callable[[Context], int]
    item: type[Item]
    unit: str = "studies"
    most: Callable[[Recipe], int | None] = lambda recipe: None
    again: Callable[[Any], bool] | None = None
    alone: Callable[[Recipe], bool] = lambda recipe: False
    whose: Callable[[Item], str] | None = None


@dataclass(frozen=True)
class Ranks:
    """The work of a stage that all processes enter together; what it returns counts on the first."""

    work: Callable[[Context], Outcome]


@dataclass(frozen=True)
class Whole:
    """The work of a stage on one process."""

    work: Callable[[Context], Outcome]


def _nothing(recipe: Recipe) -> None:
    """No check."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a method.

    Attributes:
        name: also its folder in the run folder, and its command.
        help: a line about it.
        work: what it does.
        reads: what it reads of the stages before it.
        may_read: the same, where the method has it.
        writes: what it leaves behind.
        config: keys and sections of the recipe that it reads.
        identities: what else its results follow from.
        rooms: the rooms whose code makes its results (``radpref.versions``).
        check: what can be known before any work; raises an error that reaches the user. It sees what the stage sees.
        checked: further keys that its check sees, and its work does not: its results do not follow from them.
        outside: it reads what lies outside the run folder and may change there, and so is never taken for up to date.
        command: its command, where that is not its name.
        suffix: of a later round, what its name ends in (``stages.rounds``).
    """

    name: str
    help: str
    work: Rows[Any] | Ranks | Whole
    reads: tuple[Port, ...] = ()
    may_read: tuple[Port, ...] = ()
    writes: tuple[Port, ...] = ()
    config: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()
    rooms: tuple[str, ...] = ()
    check: Callable[[Recipe], None] = _nothing
    checked: tuple[str, ...] = ()
    outside: bool = False
    command: str = ""
    suffix: str = ""

    @property
    def readable(self) -> tuple[str, ...]:
        """Keys of the recipe that its work may read."""
        return (*self.config, *(key for identity in self.identities for key in identity.keys))


@dataclass(frozen=True)
class Basis:
    """What a stage's results follow from: as declared, with the values of now. Equal bases, equal results."""

    config: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)
    """Identities and versions of rooms, by name."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of the tables and facts that it reads, by name."""

    @property
    def key(self) -> str:
        """Of all of it, for what is made for these values alone: checkpoints, a cache."""
        return content_key(self.config, self.identity, self.inputs)

    def changes(self, before: Basis) -> list[str]:
        """What differs from an earlier basis, a few words each; nothing: what was made on that is up to date.

        A key that the earlier version did not know had its default then, which changes nothing (docs/stability.md).
        """
        words, known = [], defaults()
        for name in sorted({*self.config, *before.config}):
            old, new = before.config.get(name, known.get(name)), self.config.get(name)
            if old != new:
                words.append(f"{name} was {old!r}, is {new!r}")
        for name in sorted({*self.identity, *before.identity}):
            was, is_now = before.identity.get(name), self.identity.get(name)
            if was != is_now:
                shown = f": was {_short(was)}, is {_short(is_now)}" if was and is_now else ""
                words.append(f"{name} has changed{shown}")
        for name in sorted({*self.inputs, *before.inputs}):
            if before.inputs.get(name) != self.inputs.get(name):
                words.append(f"what {name} holds has changed")
        return words


def _short(identity: str) -> str:
    """An identity to be read by people: a digest by its beginning."""
    return " ".join(f"{word[:8]}…" if len(word) > 24 else word for word in identity.split())


Road: TypeAlias = Sequence[Stage]
"""A method: its stages in their order."""
