"""The mine stage: which training questions are worth a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from radpref.config import MineSection
from radpref.files import content_key, write_atomically
from radpref.records import Completion, MinedQuestion, Quarantined, Question
from radpref.run.folder import Run, RunError, progress
from radpref.stages.answers import answer
from radpref.stages.common import batched, fine_tuned, load, questions_key, questions_of
from radpref.stages.judgements import judge_rows, judge_section

SHARD = 256
"""Images whose vectors are kept in one file: at most so many are encoded again after a kill."""


def mine(run: Run, limit: int | None = None) -> str:
    """Ask the fine-tuned model all training questions, and mine what it says.

    ``limit`` asks so many of them (rounded up to whole batches) and stops.
    """
    from radpref import mining
    from radpref.judges import version

    recipe = run.recipe
    model, fingerprint = fine_tuned(run)
    questions = questions_of(run, "train")
    reports = any(question.task == "report" for question in questions)
    rules = [recipe.judge, version(recipe.judge.name, recipe.judge)] if reports else []
    key = content_key(
        "mine", recipe.mine, recipe.run.seed, recipe.evaluate.resamples, recipe.sample.max_new_tokens, fingerprint,
        questions_key(questions), [[q.answer, q.closed, q.task, q.kind, q.patient] for q in questions], rules,
    )  # fmt: skip
    if not run.begin("mine", key):
        return "up to date"
    loaded: list[Any] = []

    def vlm() -> Any:
        if not loaded:
            loaded.append(load(run, model))
        return loaded[0]

    section = recipe.sample.model_copy(update={"batch": recipe.evaluate.batch})
    asked = content_key("greedy with scores", section.max_new_tokens, fingerprint)
    answers, line = answer(run, "mine", "answers", vlm, questions, asked, section, limit, greedy=True, scores=True)
    if answers is None:
        return line
    correct = _correct(run, questions, answers)
    if not correct:
        raise RunError(
            f"none of {len(questions)} answers could be scored, so that there is nothing to mine. See "
            f"{run.path('mine', 'answers-quarantined.jsonl')}; questions need an answer, reports a judge that scores."
        )
    texts = {question.id: question for question in questions}
    confidences = {
        row.question: sure
        for row in answers
        if (sure := _confidence(row, texts[row.question], recipe.mine)) is not None
    }
    vectors, unseen = _vectors(run, questions, recipe.mine, vlm, fingerprint)
    run.table("mine", "quarantined", Quarantined).write(unseen)
    found = mining.mine(
        questions,
        correct,
        confidences,
        vectors,
        recipe.mine,
        seed=recipe.run.seed,
        resamples=recipe.evaluate.resamples,
    )
    run.table("mine", "mined", MinedQuestion).write(found.rows)
    summary = found.summary
    run.write_json(summary.model_dump(), "mine", "summary.json")
    for moved in summary.moved:
        run.event("mine", "sensitivity", **moved.model_dump())
    run.finish("mine", key, taken=summary.taken, hard=summary.hard, neighbours=summary.neighbours)
    counts = ", ".join(f"{name} {n}" for name, n in summary.cells.items())
    return (
        f"{summary.taken} of {len(questions)} questions taken: {summary.hard} hard, {summary.neighbours} neighbours, "
        f"{len(unseen)} images unused, {summary.unscored} unscored ({counts})"
    )


def _correct(run: Run, questions: Sequence[Question], answers: Sequence[Completion]) -> dict[str, bool]:
    """Question id to whether its answer is right; without those that cannot be told."""
    from radpref.mining import correct_reports
    from radpref.tasks import matches

    texts = {row.question: row for row in answers}
    asked = [q for q in questions if q.id in texts]
    correct = {q.id: matches(texts[q.id].text, q.answer, q.closed) for q in asked if q.task != "report" and q.answer}
    reports = [q for q in asked if q.task == "report"]
    if reports:
        section = run.recipe.mine
        rows, _ = judge_rows(run, "mine", "judgements", judge_section(run), reports, [texts[q.id] for q in reports])
        correct |= correct_reports(rows or [], section.report_wrong, section.report_quantile)
    return correct


def _confidence(row: Completion, question: Question, section: MineSection) -> float | None:
    from radpref.mining import answer_span, confidence

    if row.scores is None:
        return None
    over = None
    if section.tokens == "answer" and question.task != "report":
        over = answer_span(row.text, question.answer)
    return confidence(row.scores, section.confidence, over)


def _vectors(
    run: Run, questions: Sequence[Question], section: MineSection, vlm: Callable[[], Any], fingerprint: str
) -> tuple[dict[str, Any], list[Quarantined]]:
    """What questions are compared by, as far as the recipe weighs it, and the images that have no vector."""
    from radpref import mining
    from radpref.mining.encoders import sentence_vectors
    from radpref.models import pick_device

    def of(texts: list[str]) -> Any:
        if section.text_model is None:
            return mining.text_vectors(texts, section.text_dims)
        return sentence_vectors(texts, section.text_model, device=str(pick_device(run.recipe.run.device)))

    vectors: dict[str, Any] = {}
    if not section.k:
        return vectors, []
    if section.question:
        vectors["question"] = of([question.prompt for question in questions])
    if section.rationale:
        vectors["rationale"] = of([question.reference for question in questions])
    if section.finding:
        vectors["finding"] = mining.finding_vectors([mining.findings_of(question) for question in questions])[0]
    unseen: list[Quarantined] = []
    if section.image:
        images, unseen = _image_vectors(run, questions, section, vlm, fingerprint)
        vectors["image"] = mining.mean_vectors(questions, images)
    return vectors, unseen


def _image_vectors(
    run: Run, questions: Sequence[Question], section: MineSection, vlm: Callable[[], Any], fingerprint: str
) -> tuple[dict[str, Any], list[Quarantined]]:
    """Image digest to vector, each image once; kept in shards under what they were computed from."""
    from safetensors.torch import load_file, save

    from radpref import mining
    from radpref.mining.encoders import image_encoder
    from radpref.models import pick_device

    images = {image.digest: image for question in questions for image in question.images}
    folder = run.path("mine", "images")
    vectors: dict[str, Any] = {}
    unseen: list[Quarantined] = []
    used = set()
    encode: Any = None
    bar = progress(total=len(images), unit="images", what="mine")
    for group in batched(sorted(images), SHARD):
        name = content_key("images", section.image_model or fingerprint, section.image_batch, group)
        path, failed = folder / f"{name}.safetensors", run.table("mine/images", name, Quarantined)
        if not path.exists():
            if encode is None and section.image_model:
                encode = image_encoder(section.image_model, pick_device(run.recipe.run.device))
            elif encode is None:
                encode = mining.tower(vlm())
            rows = list(mining.image_vectors(encode, [images[d] for d in group], batch=section.image_batch))
            failed.write(row for _, row in rows if isinstance(row, Quarantined))
            good = {image.digest: row for image, row in rows if not isinstance(row, Quarantined)}
            write_atomically(path, save({digest: row.contiguous() for digest, row in good.items()}))
        vectors |= load_file(path)
        unseen += list(failed)
        used.add(name)
        bar.update(len(group))
    bar.close()
    for path in folder.iterdir():
        if path.name.split(".")[0] not in used:
            path.unlink()
    return vectors, unseen
