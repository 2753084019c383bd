"""The stages that make pairs: ranked candidates, edits of own words, counterfactuals, pairs from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from radpref.config import EditSection, Recipe
from radpref.records import Candidate, Completion, Judgement, Pair, Quarantined, Question, Study, reasons
from radpref.rooms import data, formats, pairs
from radpref.runs.context import QUARANTINED, Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Identity, Outcome, Rows, Stage, Whole
from radpref.runs.table import Merged
from radpref.stages.identities import READER
from radpref.stages.judge import candidates
from radpref.stages.ports import COMPLETIONS, JUDGEMENTS, MINED, PAIRS, STUDIES, TRAIN

BATCH = 64
"""Questions that are edited between two writes of the table."""


def _statistics(context: Context) -> dict[str, float]:
    return pairs.statistics(context.own(PAIRS))


# ------------------------------------------------------------------------------------------ ranked


def _judged_groups(context: Context) -> Iterator[tuple[Question, list[Completion], list[Judgement]]]:
    """Every training question with its candidates and what the judge says of them, one question at a time."""
    judged = groupby(context.read(JUDGEMENTS), key=lambda row: row.question)
    answered = groupby(context.read(COMPLETIONS), key=lambda row: row.question)
    judgements, completions = next(judged, None), next(answered, None)
    for question in context.read(TRAIN):
        own: list[Completion] = []
        said: list[Judgement] = []
        if completions is not None and completions[0] == question.id:
            own, completions = list(completions[1]), next(answered, None)
        if judgements is not None and judgements[0] == question.id:
            said, judgements = list(judgements[1]), next(judged, None)
        yield question, own, said


def _ranked(context: Context) -> Outcome:
    """Rank each question's candidates into a pair of best and worst."""
    section = context.config.pair
    if context.limit is not None:
        section = section.model_copy(update={"limit": min(context.limit, section.limit or context.limit)})
    ranking = pairs.Ranking(section)
    made = context.write(PAIRS, ranking.pairs(_judged_groups(context)))
    lost = ", ".join(f"{reason} {n}" for reason, n in ranking.dropped.items())
    if not made:
        unscored = ", ".join(f"{reason} {n}" for reason, n in ranking.unscored.items())
        raise RunError(
            f"no question gave a pair: {lost or 'there are no candidates'}; unscored candidates: "
            f"{unscored or 'none'}. Sample more candidates (sample.n), raise sample.temperature, lower pair.margin, "
            "or, where candidates are cut, raise sample.max_new_tokens."
        )
    return Outcome(
        f"{made} pairs from {ranking.questions} questions" + (f" ({lost})" if lost else ""),
        counts={
            "pairs": made,
            "dropped": dict(ranking.dropped),
            "unscored": dict(ranking.unscored),
            "statistics": _statistics(context),
        },
        finished=context.limit is None,
    )


RANKED = Stage(
    name="pair",
    help="Rank the candidates into preference pairs.",
    work=Whole(_ranked),
    reads=(TRAIN, COMPLETIONS, JUDGEMENTS),
    writes=(PAIRS,),
    config=("pair.tie", "pair.margin", "pair.limit", "pair.drop_unfinished"),
    rooms=("pairs",),
)


# ------------------------------------------------------------------------------------------ edited


def _editor(recipe: Recipe) -> str:
    """What edits follow from: the rules and their words, or the chat model that is asked."""
    return pairs.editor_version(recipe.edit)


EDITOR = Identity("the editor", ("edit.editor", "edit.server", "edit.model", "edit.template", "edit.json_schema",
                                 "edit.max_tokens", "edit.repairs", "edit.api_key_env", "edit.cache",
                                 "edit.concurrency", "edit.timeout", "edit.retries"), _editor)  # fmt: skip
EDITS = ("edit.flips", "edit.attributes", "edit.comparisons", "edit.max_distance", "edit.max_length_ratio")


def _edit_section(context: Context) -> EditSection:
    """The section with a chat editor's cache in the run folder."""
    section = context.config.edit
    return section.model_copy(update={"cache": section.cache or str(context.folder / "answers")})


def with_answers(questions: Iterator[Question], completions: Iterator[Completion]) -> Iterator[Candidate]:
    """Every question with the model's greedy answer, or without one where it gave none."""
    coming = iter(completions)
    row = next(coming, None)
    for question in questions:
        own = None
        while row is not None and row.question == question.id:
            own, row = own or row, next(coming, None)
        yield Candidate(id=question.id, question=question, completion=own)


def _built(batch: Sequence[Candidate], found: pairs.Built) -> Iterator[list[Pair] | Quarantined]:
    """Of each question its pair, or why there is none."""
    made = {pair.question: pair for pair in found.pairs}
    why = {one.id: one.failed or "" for one in found.edits}
    for one in batch:
        pair = made.get(one.question.id)
        yield [pair] if pair is not None else Quarantined(id=one.id, stage="pair", reason=why[one.question.id])


def _edited(batch: Sequence[Candidate], context: Context) -> Iterator[list[Pair] | Quarantined]:
    """The model's own answers, edited where they are wrong, or made minimally wrong where they are right (FiRe-MPO)."""
    section = _edit_section(context)
    own = [one.completion for one in batch if one.completion is not None]
    found = pairs.edit_pairs([one.question for one in batch], own, pairs.EDITORS[section.editor](section), section)
    return _built(batch, found)


def _close(context: Context, merged: Merged) -> Outcome:
    dropped = Counter(row.reason for row in merged.refused)
    if not merged.rows:
        lost = ", ".join(f"{reason} {n}" for reason, n in dropped.most_common())
        raise RunError(f"no question of {merged.items} gave a pair: {lost or 'there are no questions'}.")
    return Outcome(
        f"{merged.rows} pairs from {merged.items} questions",
        counts={"pairs": merged.rows, "dropped": dict(dropped), "unscored": {}, "statistics": _statistics(context)},
    )


def _told(one: Candidate) -> list[object]:
    """What an edit follows from besides the editor: all that the question tells, and the model's words."""
    question = one.question.model_dump(exclude={"images"})
    images = [image.digest for image in one.question.images]
    return [question, images, one.completion.model_dump(exclude={"scores"}) if one.completion else None]


EDITED = Stage(
    name="pair",
    help="Edit the model's own answers minimally into preference pairs.",
    work=Rows(
        make=_edited,
        item=Candidate,
        items=lambda context: with_answers(iter(context.read(TRAIN)), iter(context.read(COMPLETIONS))),
        total=lambda context: len(context.read(TRAIN)),
        into=PAIRS,
        content=_told,
        batch=lambda recipe: BATCH,
        close=_close,
        unit="questions",
        most=lambda recipe: recipe.pair.limit,
    ),
    reads=(TRAIN, COMPLETIONS),
    writes=(PAIRS,),
    config=(*EDITS, "pair.limit"),
    identities=(EDITOR, READER),
    rooms=("pairs", "findings", "judges", "tasks"),
    check=lambda recipe: pairs.check_editor(recipe.edit),
)


# ------------------------------------------------------------------------------------------ counterfactual


def _mined(context: Context) -> Iterator[Candidate]:
    """The mined questions with the model's answers."""
    wanted = {row.id for row in context.read(MINED)}
    rows = with_answers(iter(context.read(TRAIN)), iter(context.read(COMPLETIONS)))
    return (row for row in rows if row.question.id in wanted)


def _counterfactual(batch: Sequence[Candidate], context: Context) -> Iterator[list[Pair] | Quarantined]:
    """The references against themselves with one attribute flipped, or against the model's wrong answers (CheXPO)."""
    section, questions = _edit_section(context), [one.question for one in batch]
    if context.config.pair.rejected == "sampled":
        own = [one.completion for one in batch if one.completion is not None]
        return _built(batch, pairs.against_own(questions, own))
    return _built(
        batch, pairs.counterfactuals(questions, pairs.EDITORS[section.editor](pairs.single(section)), section)
    )


COUNTERFACTUAL = Stage(
    name="pair",
    help="Make counterfactual pairs of the mined questions.",
    work=Rows(
        make=_counterfactual,
        item=Candidate,
        items=_mined,
        total=lambda context: len(context.read(MINED)),
        into=PAIRS,
        content=_told,
        batch=lambda recipe: BATCH,
        close=_close,
        unit="questions",
        most=lambda recipe: recipe.pair.limit,
    ),
    reads=(TRAIN, COMPLETIONS, MINED),
    writes=(PAIRS,),
    config=(*EDITS, "pair.limit", "pair.rejected"),
    identities=(EDITOR, READER),
    rooms=("pairs", "findings", "judges", "tasks"),
    check=lambda recipe: pairs.check_editor(recipe.edit),
)


# ------------------------------------------------------------------------------------------ from elsewhere


def _given(context: Context) -> Outcome:
    """Read ``pair.file``; a pair about a held-out study, its patient or its image is quarantined.

    Raises:
        DataError: the file cannot be read.
        RunError: no pair is left.
    """
    section, source = context.config.pair, context.config.data
    assert section.file is not None  # `_check_given` has seen to it
    bar = context.progress(total=None, unit="images")
    found = formats.read_pairs(
        section.file,
        context.folder,
        root=Path(section.root) if section.root else None,
        also=[Path(folder) for folder in (source.root, str(context.folder.parent)) if folder],
        limit=min((count for count in (context.limit, section.limit) if count is not None), default=None),
        progress=bar.update,
    )
    bar.close()
    held = _HeldOut(context)
    leaks = [Quarantined(id=p.id, stage="pair", reason=why) for p in found.pairs if (why := held.reason(p))]
    leaking = {row.id for row in leaks}
    quarantined = [*found.quarantined, *leaks]
    context.write(QUARANTINED, quarantined)
    made = context.write(PAIRS, (pair for pair in found.pairs if pair.id not in leaking))
    if not made:
        raise RunError(
            f"no pair is left of {len(quarantined)}{reasons(quarantined)}. See "
            f"{context.folder / 'quarantined.jsonl'}; pairs must not be about what results are measured on."
        )
    for note in found.notes:
        context.note(note)
    dropped = dict(Counter(row.reason.split(":")[0] for row in quarantined))
    return Outcome(
        f"{made} pairs; {len(quarantined)} quarantined{reasons(quarantined)}",
        counts={"pairs": made, "dropped": dropped, "unscored": {}, "statistics": _statistics(context)},
        finished=context.limit is None,
    )


class _HeldOut:
    """What results are measured on and chosen by: studies, patients and images of validation and test."""

    def __init__(self, context: Context) -> None:
        held: list[Study] = [study for study in context.read(STUDIES) if study.split != "train"]
        # decoded when the studies were read; pixels tell an image that was saved anew
        verdicts = data.ImageCheck(context.folder.parent / "studies")(
            [image for study in held for image in study.images]
        )
        self._check = data.ImageCheck(context.folder)
        self._pixels = {verdict.pixels for verdict in verdicts.values() if verdict.reason is None}
        self._patients = {study.patient for study in held}
        self._studies = {study.id for study in held}

    def reason(self, pair: Pair) -> str | None:
        """Why a pair must not be trained on; None when it may."""
        if pair.question in self._studies:
            return "study held out: the pair is about a study of validation or test"
        if pair.patient in self._patients:
            return "patient held out: the pair is about a patient of validation or test"
        if any(verdict.pixels in self._pixels for verdict in self._check(pair.images).values()):
            return "image held out: the same picture is in validation or test"
        return None


GIVEN = Stage(
    name="pair",
    help="Read pairs that were made elsewhere.",
    work=Whole(_given),
    may_read=(STUDIES,),
    writes=(PAIRS,),
    config=("pair.file", "pair.root", "pair.limit", "data.root"),
    rooms=("data", "images"),
    outside=True,
)

__all__ = ["COUNTERFACTUAL", "EDITED", "GIVEN", "RANKED", "candidates"]
