"""The book of a data set while it is read: rows on disk, and of each study only what splits and checks ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic_core import PydanticSerializationError

from radpref.config.schema import UnreportedUse
from radpref.data.disk import database
from radpref.data.gate import MAX_ID, frontal_first, problem, reported
from radpref.data.source import quarantine
from radpref.data.splits import SPLITS, draw, joined, split_of
from radpref.data.spool import Spool
from radpref.findings.labelled import in_words, labelled
from radpref.records import Quarantined, Split, Study

_TABLES = """
CREATE TABLE study (n INTEGER PRIMARY KEY, id TEXT UNIQUE, patient TEXT, published INTEGER, split INTEGER, draw REAL,
  reported INTEGER, kept INTEGER DEFAULT 0);
CREATE TABLE image (path TEXT, patient TEXT);
CREATE TABLE refused (id TEXT PRIMARY KEY, times INTEGER);
CREATE TABLE shown (pixels BLOB PRIMARY KEY, split INTEGER, published INTEGER) WITHOUT ROWID;
"""


class Book:
    """Studies that can be used so far, and the rows that cannot.

    Rows lie in ``folder``, facts in a database that the process alone has; both are gone with it. Memory does not
    grow with the number of studies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = Spool(Study, folder)
        self.quarantined = Spool(Quarantined, folder)
        self.reasons: Counter[str] = Counter()
        self._facts = database(_TABLES)

    def close(self) -> None:
        self._facts.close()

    # ---- reading the source

    def refuse(self, row: Quarantined) -> None:
        """Into quarantine, under an id that is unique in the table: the second of an id ends in ``~2``."""
        row = row.model_copy(update={"id": row.id.encode("utf-8", "replace").decode()})
        (times,) = self._facts.execute(
            "INSERT INTO refused VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1 RETURNING times", (row.id,)
        ).fetchone()
        self.reasons[row.reason.split(":")[0]] += 1
        self.quarantined.append(row if times == 1 else row.model_copy(update={"id": f"{row.id}~{times}"}))

    def admit(
        self, found: Iterable[Study | Quarantined], *, published: bool, use: UnreportedUse = "quarantine"
    ) -> None:
        """Take in what a source holds: studies whose rows can be used, and the others with the reason.

        Reads no image. ``published``: the studies' splits are those of the source. ``use``: what becomes of studies
        that have labels and no report.
        """
        for row in found:
            if isinstance(row, Quarantined):
                self.refuse(row)
                continue
            bare = use != "quarantine" and not row.questions and not reported(row)
            told = row.model_copy(update={"findings": written(row) if use == "template" else ""}) if bare else row
            if reason := problem(row, unreported=bare) or self._enter(told, published, not bare):
                self.refuse(quarantine(row.id[:MAX_ID], reason))

    def _enter(self, study: Study, published: bool, reported: bool) -> str | None:
        """Write a study down, or say why not."""
        if self._facts.execute("SELECT 1 FROM study WHERE id = ?", (study.id,)).fetchone():
            return "duplicate id: an earlier row has it"
        try:
            self._rows.append(frontal_first(study))
        except PydanticSerializationError:
            return "name not usable: the name of an image or patient is not UTF-8; rename it"
        split = SPLITS.index(study.split) if published else 0
        self._facts.execute(
            "INSERT INTO study (n, id, patient, published, split, reported) VALUES (?, ?, ?, ?, ?, ?)",
            (len(self._rows) - 1, study.id, study.patient, split if published else None, split, reported),
        )
        self._facts.executemany(
            "INSERT INTO image VALUES (?, ?)", {(image.path, study.patient) for image in study.images}
        )
        return None

    def __len__(self) -> int:
        return len(self._rows)

    def studies(self) -> Iterator[Study]:
        """The studies as they were read."""
        return iter(self._rows)

    # ---- patients and splits

    def join_patients(self) -> int:
        """Patients that share an image file become one; returns how many took another's name."""
        shared = self._facts.execute(
            "SELECT i.path, i.patient FROM image i JOIN (SELECT path FROM image GROUP BY path "
            "HAVING min(patient) < max(patient)) s ON i.path = s.path GROUP BY i.path, i.patient ORDER BY i.path"
        )
        names = joined(_grouped(shared))
        self._facts.executescript("DROP TABLE image; CREATE INDEX patients ON study (patient);")
        self._facts.executemany(
            "UPDATE study SET patient = ? WHERE patient = ?", [(name, old) for old, name in names.items()]
        )
        return len(names)

    def splits(self) -> frozenset[Split]:
        return frozenset(SPLITS[number] for (number,) in self._facts.execute("SELECT DISTINCT split FROM study"))

    def draw_splits(self, shares: Mapping[str, float], lacking: frozenset[Split]) -> None:
        """``lacking`` splits are taken out of the train patients, by the number that ``number_patients`` drew.

        Patients without a report all stay in train: nothing can be measured on them.
        """

        def split(number: float) -> int:
            return SPLITS.index(
                split_of(number, validation_share=shares["validation"], test_share=shares["test"], only=lacking)
            )

        self._facts.create_function("split_of", 1, split, deterministic=True)
        self._facts.execute(
            "UPDATE study SET split = split_of(draw) WHERE split = 0 AND patient IN "
            "(SELECT patient FROM study WHERE reported)"
        )

    def hold_back(self) -> None:
        """Refuse studies without a report that have come into a held-out split, with their patient or by the source."""
        rows = self._facts.execute(
            "UPDATE study SET split = -1 WHERE NOT reported AND split > 0 RETURNING id, patient"
        ).fetchall()
        for identifier, _ in sorted(rows):
            self.refuse(quarantine(identifier, "no report: only training studies may have none, and this is held out"))

    def number_patients(self, seed: int) -> None:
        """Draw each patient's number, which decides split and order."""
        self._facts.create_function("draw", 1, lambda patient: draw(seed, patient), deterministic=True)
        self._facts.execute("UPDATE study SET draw = draw(patient)")

    def queue(self, split: Split, *, reported: bool = True) -> Iterator[Study]:
        """The studies of a split in the fixed random order, with their patient's name and split as they are now.

        Those with a report, or those without.
        """
        order = self._facts.execute(
            "SELECT n, patient FROM study WHERE split = ? AND reported = ? ORDER BY draw, id",
            (SPLITS.index(split), reported),
        )
        for number, patient in order:
            yield self._rows[number].model_copy(update={"patient": patient, "split": split})

    def count(self, split: Split, *, reported: bool = True) -> int:
        found: tuple[int] = self._facts.execute(
            "SELECT count(*) FROM study WHERE split = ? AND reported = ?", (SPLITS.index(split), reported)
        ).fetchone()
        return found[0]

    # ---- what is kept

    def clash(self, study: Study, pixels: Iterable[str]) -> tuple[Split, bool] | None:
        """The split that shows one of these pictures already, if it is another one than the study's.

        Also whether the source put both into splits of its own that differ.
        """
        ours, own = SPLITS.index(study.split), self._published(study.id)
        for one in pixels:
            found = self._facts.execute(
                "SELECT split, published FROM shown WHERE pixels = ?", (bytes.fromhex(one),)
            ).fetchone()
            if found and found[0] != ours:
                return SPLITS[found[0]], found[1] != own
        return None

    def keep(self, study: Study, pixels: Iterable[str]) -> None:
        """The study is chosen, and its pictures belong to its split."""
        split, own = SPLITS.index(study.split), self._published(study.id)
        self._facts.executemany(
            "INSERT OR REPLACE INTO shown VALUES (?, ?, ?)", [(bytes.fromhex(one), split, own) for one in pixels]
        )
        self._facts.execute("UPDATE study SET kept = 1 WHERE id = ?", (study.id,))

    def kept(self, identifier: str) -> bool:
        return bool(self._facts.execute("SELECT kept FROM study WHERE id = ? AND kept", (identifier,)).fetchone())

    def patients(self) -> int:
        """How many patients the kept studies are of."""
        found: tuple[int] = self._facts.execute("SELECT count(DISTINCT patient) FROM study WHERE kept").fetchone()
        return found[0]

    def _published(self, identifier: str) -> int | None:
        found: tuple[int | None] = self._facts.execute(
            "SELECT published FROM study WHERE id = ?", (identifier,)
        ).fetchone()
        return found[0]


def written(study: Study) -> str:
    """A plain report of what a study's labels say."""
    return in_words(labelled(study.labels, study.marked))


def _grouped(rows: Iterable[tuple[str, str]]) -> Iterator[list[str]]:
    """The second values of neighbours with the same first one."""
    last, group = "", list[str]()
    for first, second in rows:
        if first != last and group:
            yield group
            group = []
        last = first
        group.append(second)
    if group:
        yield group
