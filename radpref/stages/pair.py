"""The stages that make pairs: ranked candidates, edits of own words, counterfactuals, pairs from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import tee
from pathlib import Path

from radpref.records import Candidate, Completion, Judgement, Pair, Quarantined, Question, reasons
from radpref.rooms import data, formats, judges, pairs
from radpref.runs.context import QUARANTINED, Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Identity, Outcome, Rows, Stage, Whole
from radpref.runs.streams import asked, grouped, with_answers
from radpref.runs.table import Merged
from radpref.stages.identities import ASKED, READER
from radpref.stages.ports import COMPLETIONS, JUDGEMENTS, MINED, PAIRS, STUDIES, TRAIN

BATCH = 64
"""Questions that are edited between two writes of the table."""
Made = Iterator[list[Pair] | Quarantined]


def _counts(
    context: Context, made: int, dropped: Mapping[str, int], unscored: Mapping[str, int] | None = None
) -> dict[str, object]:
    """The numbers of a table of pairs, for the report."""
    statistics = pairs.statistics(context.own(PAIRS))
    return {"pairs": made, "dropped": dict(dropped), "unscored": dict(unscored or {}), "statistics": statistics}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in counts.items())


# ------------------------------------------------------------------------------------------ ranked


Group = tuple[Question, list[Completion], list[Judgement]]


def _judged(context: Context) -> Iterator[Group]:
    """Every training question with its candidates and what the judge says of them, one question at a time."""
    first, second = tee(asked(context.read(TRAIN), context.config.sample))
    answered, judged = grouped(first, context.read(COMPLETIONS)), grouped(second, context.read(JUDGEMENTS))
    return ((question, own, said) for (question, own), (_, said) in zip(answered, judged, strict=True))


def _scored(context: Context) -> Iterator[Group]:
    """The same, with the scores that ``pair.by`` ranks by."""
    if context.config.pair.by == "judge":
        yield from _judged(context)
        return
    first, second = tee(_judged(context))
    several = ((question, [row.text for row in own]) for question, own, _ in first if len(own) > 1)
    agreed = judges.agreement(several, judges.among(context.config.task.kind))
    for question, own, said in second:
        scores = next(agreed) if len(own) > 1 else [0.0] * len(own)
        rows = pairs.by_consensus(own, scores)
        yield question, own, pairs.both(rows, said) if context.config.pair.by == "both" else rows


def _ranked(context: Context) -> Outcome:
    """Rank each question's candidates into a pair of best and worst."""
    section = context.config.pair
    if context.limit is not None:
        section = section.model_copy(update={"limit": min(context.limit, section.limit or context.limit)})
    ranking = pairs.Ranking(section)
    made = context.write(PAIRS, ranking.pairs(_scored(context)))
    lost = _told(ranking.dropped)
    if not made:
        raise RunError(
            f"no question gave a pair: {lost or 'there are no candidates'}; unscored candidates: "
            f"{_told(ranking.unscored) or 'none'}. Sample more candidates (sample.n), raise sample.temperature, lower "
            "pair.margin, or, where candidates are cut, raise sample.max_new_tokens."
        )
    return Outcome(
        f"{made} pairs from {ranking.questions} questions" + (f" ({lost})" if lost else ""),
        counts=_counts(context, made, ranking.dropped, ranking.unscored),
        finished=context.limit is None,
    )


RANKED = Stage(
    name="pair",
    help="Rank the candidates into preference pairs.",
    work=Whole(_ranked),
    reads=(TRAIN, COMPLETIONS, JUDGEMENTS),
    writes=(PAIRS,),
    config=(
        "pair.by",
        "pair.chosen",
        "pair.tie",
        "pair.margin",
        "pair.limit",
        "pair.drop_unfinished",
        "task.kind",
        *ASKED,
    ),
    rooms=("pairs", "judges", "findings"),
)


# ------------------------------------------------------------------------------------------ edited


EDITOR = Identity("the editor", ("edit.editor", "edit.server", "edit.model", "edit.template", "edit.json_schema",
                                 "edit.max_tokens", "edit.repairs", "edit.api_key_env", "edit.cache",
                                 "edit.concurrency", "edit.timeout", "edit.retries"),
                  lambda recipe: pairs.editor_version(recipe.edit))  # fmt: skip
"""The rules and their words, or the chat model that is asked."""
EDITS = ("edit.flips", "edit.attributes", "edit.comparisons", "edit.max_distance", "edit.max_length_ratio")


def _edited(batch: Sequence[Candidate], context: Context) -> Made:
    """The model's own answers, edited where they are wrong, or made minimally wrong where they are right (FiRe-MPO)."""
    section, questions = context.cached(context.config.edit), [one.question for one in batch]
    own = [one.completion for one in batch if one.completion is not None]
    return pairs.edit_pairs(questions, own, pairs.EDITORS[section.editor](section), section).of(questions)


def _close(context: Context, merged: Merged) -> Outcome:
    dropped = dict(Counter(row.reason for row in merged.refused).most_common())
    if not merged.rows:
        lost = _told(dropped) or "there are no questions"
        raise RunError(f"no question of {merged.items} gave a pair: {lost}.")
    line = f"{merged.rows} pairs from {merged.items} questions"
    return Outcome(line, counts=_counts(context, merged.rows, dropped))


def _content(one: Candidate) -> list[object]:
    """What an edit follows from besides the editor: all that the question tells, and the model's words."""
    question = one.question.model_dump(exclude={"images"})
    images = [image.digest for image in one.question.images]
    return [question, images, one.completion.model_dump(exclude={"scores"}) if one.completion else None]


_EDITING = Rows(
    make=_edited,
    item=Candidate,
    items=lambda context: with_answers(asked(context.read(TRAIN), context.config.sample), context.read(COMPLETIONS)),
    total=lambda context: sum(1 for _ in asked(context.read(TRAIN), context.config.sample)),
    into=PAIRS,
    content=_content,
    batch=lambda recipe: BATCH,
    close=_close,
    unit="questions",
    most=lambda recipe: recipe.pair.limit,
)
EDITED = Stage(
    name="pair",
    help="Edit the model's own answers minimally into preference pairs.",
    work=_EDITING,
    reads=(TRAIN, COMPLETIONS),
    writes=(PAIRS,),
    config=(*EDITS, "pair.limit", *ASKED),
    identities=(EDITOR, READER),
    rooms=("pairs", "findings", "judges", "tasks"),
    check=lambda recipe: pairs.check_editor(recipe.edit),
)


# ------------------------------------------------------------------------------------------ counterfactual


def _mined(context: Context) -> Iterator[Candidate]:
    """The mined questions with the model's answers."""
    wanted = {row.id for row in context.read(MINED)}
    rows = with_answers(context.read(TRAIN), context.read(COMPLETIONS))
    return (row for row in rows if row.question.id in wanted)


def _counterfactual(batch: Sequence[Candidate], context: Context) -> Made:
    """The references against themselves with one attribute flipped, or against the model's wrong answers (CheXPO)."""
    section, questions = context.cached(context.config.edit), [one.question for one in batch]
    if context.config.pair.rejected == "sampled":
        own = [one.completion for one in batch if one.completion is not None]
        return pairs.against_own(questions, own).of(questions)
    editor = pairs.EDITORS[section.editor](pairs.single(section))
    bare = {one.question.id for one in batch if not one.question.reference}
    own = [one.completion for one in batch if one.question.id in bare and one.completion is not None]
    unreported = [question for question in questions if question.id in bare]
    mended = pairs.mended(unreported, own, pairs.EDITORS[section.editor](section), section)
    return pairs.counterfactuals(questions, editor, section, mended).of(questions)


COUNTERFACTUAL = replace(
    EDITED,
    help="Make counterfactual pairs of the mined questions.",
    work=replace(_EDITING, make=_counterfactual, items=_mined, total=lambda context: len(context.read(MINED))),
    reads=(*EDITED.reads, MINED),
    config=(*EDITED.config, "pair.rejected"),
)


# ------------------------------------------------------------------------------------------ from elsewhere


def _given(context: Context) -> Outcome:
    """Read ``pair.file``; a pair about a held-out study, its patient or its image is quarantined.

    Raises:
        DataError: the file cannot be read.
        RunError: no pair is left.
    """
    section, source, run = context.config.pair, context.config.data, context.folder.parent
    assert section.file is not None  # `names.check_names` has seen to it
    bar = context.progress(total=None, unit="images")
    found = formats.read_pairs(
        section.file,
        context.folder,
        root=Path(section.root) if section.root else None,
        also=[Path(folder) for folder in (source.root, str(run)) if folder],
        limit=min((count for count in (context.limit, section.limit) if count is not None), default=None),
        progress=bar.update,
    )
    bar.close()
    held = data.HeldOut(context.read(STUDIES), run / "studies", context.folder)
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
    return Outcome(
        f"{made} pairs; {len(quarantined)} quarantined{reasons(quarantined)}",
        counts=_counts(context, made, Counter(row.reason.split(":")[0] for row in quarantined)),
        finished=context.limit is None,
    )


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
