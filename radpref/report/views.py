"""From the rows of a run to what its page shows of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from radpref.config import Recipe, flatten, helps
from radpref.findings import read
from radpref.records import Judgement, Pair, Question, System
from radpref.report.data import Choice, PairView, Setting, SplitCount, StudyView

TITLES = {
    "chexalign": "CheXalign",
    "chexpo": "CheXPO",
    "firempo": "FiRe-MPO",
    "grpo": "GRPO",
    "pairs": "Pairs made elsewhere",
}


def settings(recipe: Recipe, provenance: Mapping[str, str]) -> list[Setting]:
    """Every key of the recipe with where its value came from and what it means."""
    texts = helps()
    return [
        Setting(key, str(value), provenance.get(key, "default"), texts.get(key, ""))
        for key, value in flatten(recipe.model_dump())
    ]


def split_count(split: str, questions: Iterable[Question]) -> SplitCount:
    """How much a split holds; of a patient a hash is kept."""
    patients: set[int] = set()
    count = images = 0
    for question in questions:
        patients.add(hash(question.patient))
        count, images = count + 1, images + len(question.images)
    return SplitCount(split, len(patients), count, images)


def choices(tried: Iterable[System], chosen: System, before: System) -> list[Choice]:
    """The checkpoints that were chosen among, the model before alignment first."""
    names = {before.id: f"{before.id}, before alignment"}
    return [
        Choice(names.get(one.id, one.id), one.beta or 0.0, one.scores, one.id == chosen.id) for one in (before, *tried)
    ]


def study_views(
    questions: Sequence[Question],
    said: tuple[Mapping[str, str], Mapping[str, str]],
    judgements: Iterable[Judgement],
    systems: tuple[str, str],
    judge: str,
) -> Iterator[StudyView]:
    """Studies with what two systems, before and after, wrote (by question id) and what a judge found.

    ``judgements`` have ids of system, judge and question.
    """
    judged: dict[str, dict[str, Judgement]] = {name: {} for name in systems}
    for row in judgements:
        name, _, rest = row.id.partition(":")
        if name in judged and rest.startswith(f"{judge}:"):
            judged[name][row.question] = row
    for question in questions:
        before, after = (texts[question.id] for texts in said)
        yield StudyView(
            question=question,
            before=before,
            after=after,
            before_judgement=judged[systems[0]].get(question.id),
            after_judgement=judged[systems[1]].get(question.id),
            reference_findings=read(question.reference),
            before_findings=read(before),
            after_findings=read(after),
        )


def pair_views(pairs: Sequence[Pair], train: Iterable[Question]) -> list[PairView]:
    """Pairs, each with its question's reference; pairs that were made elsewhere have none."""
    wanted = {pair.question for pair in pairs}
    references = {question.id: question.reference for question in train if question.id in wanted}
    return [PairView(pair, references.get(pair.question, "")) for pair in pairs]
