"""The stages that say before any training whether alignment can help: draw, probe and headroom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from radpref.records import Completion, Finding, Headroom, Quarantined, Question
from radpref.rooms import evaluation, findings, images, judges, report, training
from radpref.runs.context import Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Stage, TableOf, Whole
from radpref.runs.streams import grouped
from radpref.runs.table import Merged
from radpref.stages import answers
from radpref.stages.evaluate import MAIN
from radpref.stages.identities import COMPUTES, DEVICE, JUDGE, READER, SAMPLED_BY
from radpref.stages.judge import check_judge, section_of
from radpref.stages.ports import HEADROOM, MODEL, TRAIN, VALIDATION

if TYPE_CHECKING:
    from PIL import Image

DRAWN = TableOf("drawn", Completion)
"""Of each validation question the greedy answer (index 0), then those drawn."""
TABLE, PAGE = "headroom.json", "headroom.html"
"""The files of the run with the numbers and the page."""
TRUTH = "finding_f1_micro_truth_uncertain-positive"
FINDINGS = "finding_f1_micro_reference_uncertain-positive"


def _drawn(batch: Sequence[Question], context: Context) -> Iterator[Sequence[Completion] | Quarantined]:
    greedy = answers.greedy(context, context.fact(MODEL), batch, by=answers.sampler(context.config))
    for one, several in zip(greedy, answers.drawn(batch, context, context.config.headroom.n), strict=True):
        if isinstance(one, Quarantined) or isinstance(several, Quarantined):
            yield one if isinstance(one, Quarantined) else several
            continue
        rows = [*one, *several]
        yield [row.model_copy(update={"id": f"{row.question}#{at}", "index": at}) for at, row in enumerate(rows)]


def _close(context: Context, merged: Merged) -> Outcome:
    cut = sum(not row.finished for row in context.own(DRAWN))
    return Outcome(f"{merged.rows} answers to {merged.items} questions, {cut} cut")


DRAW = replace(
    answers.SAMPLE,
    name="draw",
    help="Draw answers to the validation questions from the fine-tuned model, beside the greedy one.",
    work=replace(
        answers.SAMPLING,
        make=_drawn,
        items=lambda context: context.read(VALIDATION),
        total=lambda context: len(context.read(VALIDATION)),
        into=DRAWN,
        close=_close,
    ),
    reads=(VALIDATION, MODEL),
    writes=(DRAWN,),
    config=("headroom.n", "sample.temperature", "sample.top_p", "sample.max_new_tokens", "sample.batch", "run.seed",
            *COMPUTES),
)  # fmt: skip


PROBED = TableOf("probed", Completion)
"""Plain reports of what a probe on the model's image features finds on the validation images."""


def _probe(context: Context) -> Outcome:
    """Train a probe on the training reports' findings, and write down what it finds on the validation images."""
    recipe, most = context.config, context.config.headroom.probe
    why = (
        "not asked for" if not most
        else "not of answers to questions" if recipe.task.kind != "report"
        else "not of a model behind a server" if answers.sampler(recipe).addresses
        else ""
    )  # fmt: skip
    if why:
        context.write(PROBED, ())
        return Outcome(f"no probe: {why}")
    vlm, known = context.load(context.fact(MODEL)), list(islice((q for q in context.read(TRAIN) if q.reference), most))
    asked = list(context.read(VALIDATION))
    bar = context.progress(total=len(known) + len(asked), unit="studies")

    def pictures(questions: Sequence[Question]) -> Iterator[Sequence[Image.Image]]:
        for question in questions:
            yield [images.read_image(image) for image in question.images]
            bar.update(1)

    said = [findings.read(question.reference) for question in known]
    try:
        probe = training.train_probe(training.sight(vlm, pictures(known)), said, seed=recipe.run.seed)
    except ValueError as error:
        context.write(PROBED, ())
        return Outcome(f"no probe: {error}")
    found = probe.findings(training.sight(vlm, pictures(asked)))
    bar.close()
    context.write(PROBED, (_plain(question, own, "probe") for question, own in zip(asked, found, strict=True)))
    return Outcome(f"a probe on {len(known)} studies, for {len(probe.names)} findings")


def _plain(question: Question, found: Sequence[Finding], system: str) -> Completion:
    text = findings.in_words(found)
    return Completion(
        id=f"{question.id}/{system}", question=question.id, system=system, index=0, text=text,
        tokens=len(text.split()), finished=True,
    )  # fmt: skip


PROBE = Stage(
    name="probe",
    help="Read the validation images by a probe on the model's image features.",
    work=Whole(_probe),
    reads=(TRAIN, VALIDATION, MODEL),
    writes=(PROBED,),
    config=("headroom.probe", "task.kind", "run.seed", *COMPUTES),
    identities=(READER, DEVICE, SAMPLED_BY),
    rooms=("models", "training", "findings", "images"),
)


def _headroom(context: Context) -> Outcome:
    """Measure greedy, one draw, the best of several, their consensus, a probe and the references against greedy."""
    recipe, section = context.config, section_of(context)
    found = grouped(context.read(VALIDATION), context.read(DRAWN))
    rows = [evaluation.Answered(question, own[0].text, [row.text for row in own[1:]]) for question, own in found if own]
    if not rows:
        raise RunError("no validation question has answers, so that there is nothing to measure.")
    kind, resamples, seed = recipe.task.kind, recipe.evaluate.resamples, recipe.run.seed
    chosen = evaluation.choices(rows, judges.JUDGES[section.name](section), judges.among(kind))
    questions = [row.question for row in rows]
    bounds = {evaluation.REFERENCE: chosen.pop(evaluation.REFERENCE)}
    chosen = {**chosen, **_plainly(context, questions), **bounds}
    measured = evaluation.measure_all(
        kind, chosen, [], questions, resamples=resamples, seed=seed, normals=recipe.judge.normals
    )
    names = (MAIN[kind][0], FINDINGS, TRUTH) if kind == "report" else (MAIN[kind][0],)
    known = [name for name in names if measured[evaluation.GREEDY].value(name) is not None]
    own = {name: measured[name] for name in chosen}
    ways = evaluation.headroom(own, chosen, known, resamples=resamples, seed=seed)
    told = Headroom(
        verdict=evaluation.headroom_verdict(ways, known[0]), questions=len(rows), judge=section.name,
        drawn=recipe.headroom.n, names=tuple(known), ways=tuple(ways),
    )  # fmt: skip
    content = {
        **told.model_dump(include={"judge", "questions", "drawn", "verdict"}), "split": "validation",
        "temperature": recipe.sample.temperature, "seed": recipe.run.seed,
        "choices": [evaluation.as_plain(way) for way in ways],
    }  # fmt: skip
    context.publish(TABLE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    context.publish(PAGE, report.headroom_page(context.root.name, told))
    return Outcome(told.verdict, {"headroom": told}, finished=context.limit is None)


def _plainly(context: Context, questions: Sequence[Question]) -> dict[str, dict[str, str]]:
    """Plain reports of what a probe finds, and, where it is known, of what is true."""
    probed = {row.question: row.text for row in context.read(PROBED)}
    ways = {"probe": {question.id: probed.get(question.id, "") for question in questions}} if probed else {}
    truth = {question.id: findings.in_words(question.truth) for question in questions if question.truth is not None}
    return {**ways, **({"truth": truth} if len(truth) == len(questions) else {})}


MEASURE = Stage(
    name="headroom",
    help="Measure what a better choice among the model's own answers would give.",
    work=Whole(_headroom),
    reads=(VALIDATION, DRAWN, PROBED),
    writes=(HEADROOM,),
    config=("task.kind", "headroom.n", "sample.temperature", "evaluate.resamples", "run.seed"),
    identities=(JUDGE, READER),
    rooms=("evaluation", "judges", "findings", "report"),
    check=check_judge,
)
