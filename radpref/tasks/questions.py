"""The questions of a run: reports, a data set's own questions, or instruction data made from findings (CheXPO)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from random import Random

from radpref.config import TaskSection
from radpref.records import Question, Study
from radpref.tasks.asked import question_of
from radpref.tasks.basic import basic
from radpref.tasks.comparison import comparison
from radpref.tasks.known import Known, known, vocabulary
from radpref.tasks.made import Made
from radpref.tasks.region import region
from radpref.tasks.report import report_question


def questions(
    studies: Sequence[Study], task: TaskSection, *, max_images: int, folder: Path, seed: int
) -> list[Question]:
    """What ``task`` asks about the studies, in their order.

    ``report``: one question a study. ``questions``: a study's own questions where its source asks any, all of them;
    else questions made from its findings, ``task.per_study`` of them, drawn as ``task.balance`` says within each
    split. ``folder`` takes the images that marks are drawn on. The same seed makes the same questions.
    """
    if task.kind == "report":
        return [report_question(study, task, max_images) for study in studies]
    own = {study.id for study in studies if study.questions}
    made = _made([study for study in studies if study.id not in own], task, max_images, folder, seed)
    rows: list[Question] = []
    for study in studies:
        if study.id in own:
            rows += [question_of(study, asked, max_images=max_images) for asked in study.questions]
        else:
            rows += made.get(study.id, [])
    return rows


def _made(
    studies: Sequence[Study], task: TaskSection, max_images: int, folder: Path, seed: int
) -> dict[str, list[Question]]:
    facts = {study.id: known(study) for study in studies}
    common = vocabulary(facts[study.id] for study in studies if study.split == "train")
    by_id = {study.id: study for study in studies}
    all_of = {
        study.id: [
            question_of(study, question.asked, question.images)
            for question in _of_study(study, facts, by_id, common, task, max_images, folder, seed)
        ]
        for study in studies
    }
    chosen: dict[str, list[Question]] = {}
    for split in dict.fromkeys(study.split for study in studies):
        here = {study.id: all_of[study.id] for study in studies if study.split == split}
        chosen |= _chosen(here, task, seed)
    return chosen


def _of_study(
    study: Study,
    facts: Mapping[str, Known],
    studies: Mapping[str, Study],
    common: Mapping[str, int],
    task: TaskSection,
    max_images: int,
    folder: Path,
    seed: int,
) -> list[Made]:
    made: list[Made] = []
    now = facts[study.id]
    if "basic" in task.asks:
        made += basic(study, now, common, seed=seed, max_images=max_images)
    if "region" in task.asks:
        made += region(study, now, common, seed=seed, folder=folder, marks=task.marks)
    prior = studies.get(study.prior) if study.prior is not None else None
    if "comparison" in task.asks and prior is not None:
        made += comparison(study, now, prior, facts[prior.id], seed=seed)
    return made


# ---- which of them

_STRATA: dict[str, Callable[[Question], Hashable]] = {
    "kind": lambda question: (question.task, question.kind),
    "finding": lambda question: question.about[0].name if question.about else "",
    "answer": lambda question: (question.task, question.kind, question.answer),
}


def _chosen(candidates: Mapping[str, list[Question]], task: TaskSection, seed: int) -> dict[str, list[Question]]:
    """The questions that are asked, by study.

    Natural: ``per_study`` of each study, any of its own alike. Balanced: as many in all, the strata taking turns, so
    that a rare one gives all it has.
    """
    shuffled = {study: Random(f"{seed}:{study}").sample(rows, len(rows)) for study, rows in candidates.items()}
    natural = {study: rows[: task.per_study] for study, rows in shuffled.items()}
    if task.balance == "none":
        taken = {question.id for rows in natural.values() for question in rows}
    else:
        strata: defaultdict[Hashable, list[Question]] = defaultdict(list)
        for turn in range(max(map(len, shuffled.values()), default=0)):
            for rows in shuffled.values():
                if turn < len(rows):
                    strata[_STRATA[task.balance](rows[turn])].append(rows[turn])
        taken = set(_in_turns(list(strata.values()), sum(map(len, natural.values()))))
    return {study: [question for question in rows if question.id in taken] for study, rows in candidates.items()}


def _in_turns(strata: Sequence[list[Question]], total: int) -> list[str]:
    """Ids of ``total`` questions, one of each stratum a turn."""
    taken: list[str] = []
    turn = 0
    while len(taken) < total:
        row = [stratum[turn].id for stratum in strata if turn < len(stratum)]
        if not row:
            break
        taken += row
        turn += 1
    return taken[:total]


def composition(rows: Sequence[Question]) -> dict[str, int]:
    """How many questions of each task and kind: ``basic presence`` to a number, the most frequent first."""
    return dict(Counter(f"{row.task} {row.kind}".strip() for row in rows).most_common())
