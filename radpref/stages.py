"""What each stage does: read rows, hand them to a room with its section of the recipe, write rows.

A stage knows its own folder and the tables it reads. Everything it computes is keyed by what it was computed from,
so that after a kill or a change the same command does what is missing and nothing else. A stage returns one line
about what is there now, which goes to the terminal and the event log: counts and rates, never report text.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from radpref.recipe import LossName, ModelSection
from radpref.records import Comparison, Completion, Judgement, Metric, Pair, Quarantined, Question, Study
from radpref.runfolder import Run, RunError, progress
from radpref.store import content_key

T = TypeVar("T")

AFTER_SFT = "sft"
ALIGNED = "aligned"
CONTROL = "sft on chosen"


# ---------------------------------------------------------------------------------------------- studies


def studies(run: Run, limit: int | None = None) -> str:
    """Read the source, check and hash every film, split by patient, write studies and questions.

    Raises:
        DataError: the source is not there or has not the columns that the recipe names.
        RunError: no usable study in a split, or one patient, study or film in two splits.
    """
    from radpref.data import leakage, load_studies
    from radpref.images import film_hash
    from radpref.tasks import report_question

    recipe = run.recipe
    loaded = load_studies(recipe.data, run.path("studies"), recipe.run.seed)
    found = loaded.studies[:limit]
    for split in ("train", "validation", "test"):
        if not any(study.split == split for study in found):
            raise RunError(
                f"no usable study in the {split} split ({len(found)} usable, {len(loaded.quarantined)} quarantined"
                f"{_reasons(loaded.quarantined)}). See {run.path('studies', 'quarantined.jsonl')} after mending "
                f"the source, or change data.{split} or the split's share."
            )
    if problems := leakage(found):
        raise RunError("the splits leak:\n  " + "\n  ".join(problems))
    hashed = [
        study.model_copy(
            update={"films": tuple(film.model_copy(update={"digest": film_hash(film)}) for film in study.films)}
        )
        for study in found
    ]
    questions = [report_question(study, recipe.task, recipe.data.max_films) for study in hashed]
    run.table("studies", "studies", Study).write(hashed)
    run.table("studies", "questions", Question).write(questions)
    run.table("studies", "quarantined", Quarantined).write(loaded.quarantined)
    for note in loaded.notes:
        run.event("studies", "note", text=note)
    counts = Counter(study.split for study in hashed)
    run.finish("studies", content_key(recipe.data, recipe.task, recipe.run.seed), counts=dict(counts))
    parts = ", ".join(f"{counts[split]} {split}" for split in ("train", "validation", "test"))
    return f"{parts}; {len(loaded.quarantined)} quarantined{_reasons(loaded.quarantined)}"


def _reasons(rows: Iterable[Quarantined]) -> str:
    counts = Counter(row.reason.split(":")[0] for row in rows)
    text = ", ".join(f"{reason} {n}" for reason, n in counts.most_common(3))
    return f" ({text})" if text else ""


def questions_of(run: Run, split: str) -> list[Question]:
    """The questions of one split, in the order of the studies."""
    return [question for question in run.rows("studies", "questions", Question) if question.split == split]


def _question_key(question: Question) -> str:
    """What a model is shown: the prompt and the films' bytes, wherever they lie."""
    return content_key(question.prompt, [film.digest for film in question.films])


def _questions_key(questions: Sequence[Question]) -> str:
    return content_key([[_question_key(question), question.reference] for question in questions])


# ------------------------------------------------------------------------------------------------ models


def check(run: Run) -> None:
    """Everything about the model that can be known before any work: it exists, and its files can be read.

    Raises:
        ModelError: what is wrong with the model or adapter that the recipe names.
    """
    from radpref.models import fingerprint, locate

    base = locate(run.recipe.model)
    fingerprint(base, run.recipe.model.adapter)


def _fine_tuned(run: Run) -> tuple[ModelSection, str]:
    """The model after sft, and a key of its weights."""
    done = run.done("sft")
    assert done is not None  # `pipeline` runs sft first
    return ModelSection.model_validate(done["model"]), done["fingerprint"]


def _load(run: Run, section: ModelSection) -> Any:
    from radpref.models import load

    return load(section, run.recipe.run)


def sft(run: Run, limit: int | None = None) -> str:
    """Fine-tune on the training references, or take the model as it is where ``sft.enabled`` is false."""
    from radpref.models import fingerprint, locate

    recipe = run.recipe
    questions = questions_of(run, "train")
    base = fingerprint(locate(recipe.model), recipe.model.adapter)
    if not recipe.sft.enabled:
        key = content_key("sft off", base)
        run.finish("sft", key, model=recipe.model.model_dump(), fingerprint=base)
        return "off: the model as it is"
    key = content_key("sft", recipe.sft, recipe.run.seed, base, _questions_key(questions))
    if run.is_done("sft", key):
        return "up to date"
    from radpref import training

    folder = _keyed_folder(run, "sft", key)
    result = training.sft(
        _load(run, recipe.model),
        questions,
        recipe.sft,
        folder,
        seed=recipe.run.seed,
        max_steps=limit,
        log=lambda row: run.event("sft", "log", **row),
    )
    if not result.finished:
        return f"stopped at step {result.step} of {result.steps} (--limit); the same command goes on"
    section = ModelSection(path=str(folder / "model"))
    run.write_json(result.history, "sft", "history.json")
    run.finish(
        "sft",
        key,
        model=section.model_dump(),
        fingerprint=fingerprint(locate(section), None),
        trainable=result.trainable,
        steps=result.steps,
    )
    return f"{result.steps} steps on {len(questions)} studies, loss {result.loss:.3f}"


def _keyed_folder(run: Run, stage: str, key: str, *parts: str) -> Path:
    """A folder for the checkpoints of one key; what another key left there is removed."""
    folder = run.path(stage, *parts)
    mark = folder / "key"
    if mark.exists() and mark.read_text() != key:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(key)
    return folder


# ------------------------------------------------------------------------------------ sample and judge


def sample(run: Run, limit: int | None = None) -> str:
    """N candidates for every training question, from the fine-tuned model."""
    section = run.recipe.sample
    model, fingerprint = _fine_tuned(run)
    key = content_key(
        "sample", section.model_dump(exclude={"batch"}), fingerprint, run.recipe.run.seed, run.recipe.model.max_pixels
    )
    questions = questions_of(run, "train")
    return _answer(
        run,
        "sample",
        "completions",
        model,
        questions,
        key,
        n=section.n,
        temperature=section.temperature,
        top_p=section.top_p,
        max_new_tokens=section.max_new_tokens,
        batch=section.batch,
        limit=limit,
    )


def _answer(
    run: Run,
    stage: str,
    name: str,
    model: ModelSection,
    questions: Sequence[Question],
    key: str,
    *,
    n: int,
    temperature: float | None,
    top_p: float,
    max_new_tokens: int,
    batch: int,
    limit: int | None = None,
    vlm: Any = None,
) -> str:
    """Fill a table of completions; only what is missing or depends on something that changed is generated."""
    from radpref.models import generate

    table = run.table(stage, name, Completion)
    failed = run.table(stage, f"{name}-quarantined", Quarantined)
    keys = {question.id: content_key(key, _question_key(question)) for question in questions}

    def complete(question: Question) -> bool:
        row_key = keys[question.id]
        if failed.get(question.id, row_key):
            return True
        return all(table.get(f"{question.id}/{index}", row_key) for index in range(n))

    todo = [question for question in questions if not complete(question)]
    now = todo[:limit]
    tokens, began = 0, time.monotonic()
    if now:
        vlm = vlm or _load(run, model)
        bar = progress(total=len(questions), done=len(questions) - len(todo), unit="studies", what=name)
        results = generate(
            vlm,
            now,
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            batch=batch,
            seed=run.recipe.run.seed,
        )
        for group in _batched(results, batch):
            good = [(keys[q.id], row) for q, rows in group if not isinstance(rows, Quarantined) for row in rows]
            table.append(good)
            failed.append((keys[q.id], rows) for q, rows in group if isinstance(rows, Quarantined))
            tokens += sum(row.tokens for _, row in good)
            bar.update(len(group))
        bar.close()
    rate = tokens / max(time.monotonic() - began, 1e-9)
    if len(now) < len(todo):
        return f"{len(questions) - len(todo) + len(now)} of {len(questions)} studies (--limit), {rate:.0f} tokens/s"
    ids = [f"{question.id}/{index}" for question in questions for index in range(n)]
    rows = table.finish(ids)
    failures = failed.finish(question.id for question in questions if failed.get(question.id, keys[question.id]))
    cut = sum(not row.finished for row in rows)
    run.finish_part(stage, name, key, studies=len(questions), completions=len(rows), quarantined=len(failures))
    speed = f", {rate:.0f} tokens/s" if now else ""
    return f"{len(rows)} answers for {len(questions)} studies, {cut} cut, {len(failures)} quarantined{speed}"


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def judge(run: Run, limit: int | None = None) -> str:
    """Judge every candidate against the reference of its question."""
    from radpref.judges import JUDGES, length_controlled

    section = run.recipe.judge
    make = JUDGES[section.name]
    judging = length_controlled(make()) if section.length_control else make()
    references = {question.id: question for question in questions_of(run, "train")}
    completions = run.rows("sample", "completions", Completion)
    rows, line = _judge(run, "judge", "judgements", judging, section.model_dump(), references, completions, limit)
    if rows is not None:
        unscored = Counter(row.unscored for row in rows if row.unscored)
        run.finish("judge", content_key(section), judgements=len(rows), unscored=dict(unscored))
    return line


def _judge(
    run: Run,
    stage: str,
    name: str,
    judging: Any,
    settings: dict[str, Any],
    references: dict[str, Question],
    completions: Sequence[Completion],
    limit: int | None = None,
) -> tuple[list[Judgement] | None, str]:
    """Fill a table of judgements; None instead of rows when ``limit`` left some undone."""
    from radpref.judges import VERSION, Case

    table = run.table(stage, name, Judgement)
    keys = {
        row.id: content_key("judge", VERSION, settings, references[row.question].reference, row.text)
        for row in completions
    }
    todo = [row for row in completions if not table.get(row.id, keys[row.id])]
    now = todo[:limit]
    began = time.monotonic()
    bar = progress(total=len(completions), done=len(completions) - len(todo), unit="reports", what=name)
    for chunk in _batched(now, 256):
        cases = [Case(row.id, row.question, references[row.question].reference, row.text) for row in chunk]
        judged = judging(cases)
        table.append((keys[row.id], row) for row in judged)
        bar.update(len(chunk))
    bar.close()
    rate = f", {len(now) / max(time.monotonic() - began, 1e-9):.0f} a second" if now else ""
    if len(now) < len(todo):
        return None, f"{len(completions) - len(todo) + len(now)} of {len(completions)} judged (--limit){rate}"
    rows = table.finish(row.id for row in completions)
    scores = [row.score for row in rows if row.score is not None]
    mean = f"mean {sum(scores) / len(scores):.3f}" if scores else "no score"
    return rows, f"{len(scores)} scored, {mean}; {len(rows) - len(scores)} unscored{rate}"


# ------------------------------------------------------------------------------------------------ pairs


def pair(run: Run, limit: int | None = None) -> str:
    """Rank each question's candidates into a pair of best and worst."""
    from radpref.pairs import rank, statistics

    section = run.recipe.pair
    if limit is not None:
        section = section.model_copy(update={"limit": limit})
    questions = questions_of(run, "train")
    ranked = rank(
        questions, run.rows("sample", "completions", Completion), run.rows("judge", "judgements", Judgement), section
    )
    run.table("pair", "pairs", Pair).write(ranked.pairs)
    facts = {"dropped": ranked.dropped, "unscored": ranked.unscored, "statistics": statistics(ranked.pairs)}
    run.write_json(facts, "pair", "statistics.json")
    if not ranked.pairs:
        raise RunError(
            f"no question gave a pair: {ranked.dropped or 'there are no candidates'}, unscored: {ranked.unscored}. "
            "Sample more candidates (sample.n), raise sample.temperature, or lower pair.margin."
        )
    run.finish("pair", content_key(section), pairs=len(ranked.pairs), dropped=ranked.dropped)
    lost = ", ".join(f"{reason} {n}" for reason, n in ranked.dropped.items())
    return f"{len(ranked.pairs)} pairs from {len(questions)} questions" + (f" ({lost})" if lost else "")
