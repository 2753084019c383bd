"""The questions of a run: reports, a data set's own questions, or instruction data made from findings (CheXPO)."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

from radpref.config import TaskSection
from radpref.records import Question, Split, Study
from radpref.tasks.asked import question_of
from radpref.tasks.basic import basic
from radpref.tasks.comparison import comparison
from radpref.tasks.known import known, vocabulary
from radpref.tasks.made import Made
from radpref.tasks.region import region
from radpref.tasks.report import report_question


def questions(
    studies: Iterable[Study],
    task: TaskSection,
    *,
    max_images: int,
    folder: Path,
    seed: int,
    split: Split | None = None,
) -> Iterator[Question]:
    """What ``task`` asks about the studies of a split (of all where there is none), in their order, one at a time.

    ``report``: one question a study. ``questions``: a study's own questions where its source asks any, all of them;
    else questions made from its findings, ``task.per_study`` of them, drawn as ``task.balance`` says within each
    split. ``studies`` is gone through more than once. ``folder`` takes the images that marks are drawn on. The same
    seed makes the same questions. In memory are what is known of studies that are priors of others and, for a
    balance, a few words a question.
    """
    wanted = (study for study in studies if split in (None, study.split))
    if task.kind == "report":
        for study in wanted:
            yield report_question(study, task, max_images)
        return
    maker = _Maker(studies, task, max_images, folder, seed)
    taken = _balanced(maker, studies, task, seed) if task.balance != "none" else None
    for study in wanted:
        if study.questions:
            yield from (question_of(study, asked, max_images=max_images) for asked in study.questions)
            continue
        made = maker.of(study)
        if taken is None:
            kept = {question.id for question in _shuffled(study, made, seed)[: task.per_study]}
            yield from (question for question in made if question.id in kept)
        else:
            yield from (question for question in made if hash(question.id) in taken)


class _Maker:
    """Makes all questions about one study; it knows which findings are common, and what priors showed."""

    def __init__(self, studies: Iterable[Study], task: TaskSection, max_images: int, folder: Path, seed: int) -> None:
        self._task, self._max_images, self._folder, self._seed = task, max_images, folder, seed
        compares = "comparison" in task.asks
        priors = {study.prior for study in studies if study.prior is not None} if compares else set()
        self._priors = {study.id: (study, known(study)) for study in studies if study.id in priors}
        self._common = vocabulary(known(study) for study in studies if study.split == "train" and not study.questions)

    def of(self, study: Study) -> list[Question]:
        """Every question that can be made about a study."""
        task, now, made = self._task, known(study), list[Made]()
        if "basic" in task.asks:
            made += basic(study, now, self._common, seed=self._seed, max_images=self._max_images)
        if "region" in task.asks:
            made += region(study, now, self._common, seed=self._seed, folder=self._folder, marks=task.marks)
        if "comparison" in task.asks and study.prior in self._priors:
            prior, then = self._priors[study.prior]
            made += comparison(study, now, prior, then, seed=self._seed)
        return [question_of(study, question.asked, question.images) for question in made]


# ---- which of them

_STRATA: dict[str, Callable[[Question], Hashable]] = {
    "kind": lambda question: (question.task, question.kind),
    "finding": lambda question: question.about[0].name if question.about else "",
    "answer": lambda question: (question.task, question.kind, question.answer),
}


def _shuffled(study: Study, rows: Sequence[Question], seed: int) -> list[Question]:
    return Random(f"{seed}:{study.id}").sample(list(rows), len(rows))


class _Candidates:
    """The questions that can be asked of the studies of a split, each by its id's hash and its stratum's number."""

    def __init__(self) -> None:
        self.hashes, self.strata, self.ends = array("q"), array("l"), array("q")

    def by_stratum(self) -> list[array[int]]:
        """The hashes of each stratum: every study's first question, then every study's second ..."""
        found: dict[int, array[int]] = {}
        starts = (0, *self.ends)
        for turn in range(max((end - start for start, end in pairwise(starts)), default=0)):
            for start, end in pairwise(starts):
                if start + turn < end:
                    found.setdefault(self.strata[start + turn], array("q")).append(self.hashes[start + turn])
        return list(found.values())


def _balanced(maker: _Maker, studies: Iterable[Study], task: TaskSection, seed: int) -> set[int]:
    """Of the questions that are asked where strata take turns, so that a rare one gives all it has, the ids' hashes.

    Within a split as many in all as ``per_study`` of each study would be; any question of a study alike.
    """
    of_split: defaultdict[str, _Candidates] = defaultdict(_Candidates)
    numbers: dict[Hashable, int] = {}
    for study in studies:
        if not study.questions:
            asked = of_split[study.split]
            for row in _shuffled(study, maker.of(study), seed):
                asked.hashes.append(hash(row.id))
                asked.strata.append(numbers.setdefault(_STRATA[task.balance](row), len(numbers)))
            asked.ends.append(len(asked.hashes))
    taken: set[int] = set()
    for asked in of_split.values():
        total = sum(min(end - start, task.per_study) for start, end in pairwise((0, *asked.ends)))
        taken |= set(_in_turns(asked.by_stratum(), total))
    return taken


def _in_turns(strata: Sequence[Sequence[int]], total: int) -> list[int]:
    """``total`` questions, one of each stratum a turn."""
    taken: list[int] = []
    turn = 0
    while len(taken) < total:
        row = [stratum[turn] for stratum in strata if turn < len(stratum)]
        if not row:
            break
        taken += row
        turn += 1
    return taken[:total]
