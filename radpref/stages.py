"""What each stage does: read rows, hand them to a room with its section of the recipe, write rows.

A stage knows its own folder and the tables it reads. Everything it computes is keyed by what it was computed from,
so that after a kill or a change the same command does what is missing and nothing else. A stage returns one line
about what is there now, which goes to the terminal and the event log: counts and rates, never report text.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from radpref import recipe as recipes
from radpref.recipe import AlignSection, ModelSection, ReportSection, SampleSection, SftSection
from radpref.records import Comparison, Completion, Judgement, Metric, Pair, Quarantined, Question, Study
from radpref.runfolder import Run, RunError, progress
from radpref.store import content_key, write_atomically

T = TypeVar("T")

BEFORE = "sft"
AFTER = "aligned"
CONTROL = "sft on chosen"
TITLES = {"chexalign": "CheXalign"}


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
    _base_fingerprint(run)


def _base_fingerprint(run: Run) -> str:
    from radpref.models import fingerprint, locate

    return fingerprint(locate(run.recipe.model), run.recipe.model.adapter)


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
    recipe = run.recipe
    questions = questions_of(run, "train")
    base = _base_fingerprint(run)
    if not recipe.sft.enabled:
        key = content_key("sft off", base)
        run.finish("sft", key, model=recipe.model.model_dump(), fingerprint=base)
        return "off: the model as it is"
    key = content_key("sft", recipe.sft, recipe.run.seed, base, _questions_key(questions))
    if run.is_done("sft", key):
        return "up to date"
    from radpref import models, training

    folder = _keyed_folder(run.path("sft", "training"), key)
    bar = _Steps("sft")
    result = training.sft(
        models.merged(_load(run, recipe.model)),
        questions,
        recipe.sft,
        folder,
        seed=recipe.run.seed,
        max_steps=limit,
        log=bar,
    )
    bar.close()
    run.table("sft", "quarantined", Quarantined).write(result.quarantined)
    if not result.finished:
        return f"step {result.step} of {result.steps} (--limit)"
    section = ModelSection(path=str(result.path))
    run.finish(
        "sft",
        key,
        model=section.model_dump(),
        fingerprint=models.fingerprint(result.path),
        trainable=result.trainable,
        steps=result.steps,
    )
    return f"{result.steps} steps on {len(questions)} studies, loss {result.loss:.3f}"


class _Steps:
    """A progress bar over the optimiser's steps, fed by the training log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None

    def __call__(self, row: dict[str, float]) -> None:
        step = int(row["step"])
        if self._bar is None:
            self._bar = progress(total=int(row["steps"]), done=step - 1, unit="steps", what=self._what)
        self._bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _keyed_folder(folder: Path, key: str) -> Path:
    """A folder for the checkpoints of one key; what another key left there is removed."""
    mark = folder / "key"
    if folder.exists() and not (mark.exists() and mark.read_text() == key):
        shutil.rmtree(folder)
    if not mark.exists():
        write_atomically(mark, key)
    return folder


# ------------------------------------------------------------------------------------ sample and judge


def sample(run: Run, limit: int | None = None) -> str:
    """N candidates for every training question, from the fine-tuned model."""
    section = run.recipe.sample
    model, fingerprint = _fine_tuned(run)
    key = content_key("sample", section, fingerprint, run.recipe.run.seed)
    questions = questions_of(run, "train")
    rows, line = _answer(run, "sample", "completions", lambda: _load(run, model), questions, key, section, limit)
    if rows is not None:
        run.finish("sample", key, completions=len(rows))
    return line


def _answer(
    run: Run,
    stage: str,
    name: str,
    model: Callable[[], Any],
    questions: Sequence[Question],
    key: str,
    section: SampleSection,
    limit: int | None = None,
    *,
    greedy: bool = False,
) -> tuple[list[Completion] | None, str]:
    """Fill a table of completions, generating only what is missing or depends on something that changed.

    Work is done in whole batches whose members follow from the list of questions alone: rounding in a batch depends
    on its other rows, and so a resumed run meets the same batches as one that was never stopped. Rows are None when
    ``limit`` (rounded up to whole batches) left some undone.
    """
    from radpref.models import generate

    n = 1 if greedy else section.n
    table = run.table(stage, name, Completion)
    failed = run.table(stage, f"{name}-quarantined", Quarantined)
    keys = {question.id: content_key(key, _question_key(question)) for question in questions}

    def complete(question: Question) -> bool:
        row_key = keys[question.id]
        if failed.get(question.id, row_key):
            return True
        return all(table.get(f"{question.id}/{index}", row_key) for index in range(n))

    batches = list(_batched(questions, section.batch))
    todo = [batch for batch in batches if not all(map(complete, batch))]
    now = todo if limit is None else todo[: -(-limit // section.batch)]
    tokens, began = 0, time.monotonic()
    if now:
        bar = progress(total=len(questions), done=len(questions) - sum(map(len, todo)), unit="studies", what=name)
        results = generate(
            model(),
            [question for batch in now for question in batch],
            n=n,
            temperature=None if greedy else section.temperature,
            top_p=1.0 if greedy else section.top_p,
            max_new_tokens=section.max_new_tokens,
            batch=section.batch,
            seed=run.recipe.run.seed,
        )
        for group in _batched(results, section.batch):
            good = [(keys[q.id], row) for q, rows in group if not isinstance(rows, Quarantined) for row in rows]
            table.append(good)
            failed.append((keys[q.id], rows) for q, rows in group if isinstance(rows, Quarantined))
            tokens += sum(row.tokens for _, row in good)
            bar.update(len(group))
        bar.close()
    rate = f", {tokens / max(time.monotonic() - began, 1e-9):.0f} tokens/s" if now else ""
    if len(now) < len(todo):
        left = sum(map(len, todo)) - sum(map(len, now))
        return None, f"{len(questions) - left} of {len(questions)} studies (--limit){rate}"
    rows = table.finish(f"{question.id}/{index}" for question in questions for index in range(n))
    failures = failed.finish(question.id for question in questions if failed.get(question.id, keys[question.id]))
    cut = sum(not row.finished for row in rows)
    quarantined = f", {len(failures)} quarantined{_reasons(failures)}" if failures else ""
    return rows, f"{len(rows)} answers for {len(questions)} studies, {cut} cut{quarantined}{rate}"


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def judge(run: Run, limit: int | None = None) -> str:
    """Judge every candidate against the reference of its question."""
    completions = run.rows("sample", "completions", Completion)
    rows, line = _judge(
        run, "judge", "judgements", run.recipe.judge.name, questions_of(run, "train"), completions, limit
    )
    if rows is not None:
        unscored = Counter(row.unscored for row in rows if row.unscored)
        run.finish("judge", content_key(run.recipe.judge), judgements=len(rows), unscored=dict(unscored))
    return line


def _judge(
    run: Run,
    stage: str,
    name: str,
    judge_name: str,
    questions: Sequence[Question],
    completions: Sequence[Completion],
    limit: int | None = None,
) -> tuple[list[Judgement] | None, str]:
    """Fill a table of judgements; None instead of rows when ``limit`` left some undone."""
    from radpref.judges import JUDGES, VERSION, Case

    judging = JUDGES[judge_name]()
    references = {question.id: question.reference for question in questions}
    table = run.table(stage, name, Judgement)
    keys = {
        row.id: content_key("judge", VERSION, judge_name, references[row.question], row.text) for row in completions
    }
    todo = [row for row in completions if not table.get(row.id, keys[row.id])]
    now = todo[:limit]
    began = time.monotonic()
    bar = progress(total=len(completions), done=len(completions) - len(todo), unit="reports", what=name)
    for chunk in _batched(now, 256):
        cases = [Case(row.id, row.question, references[row.question], row.text) for row in chunk]
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


# ---------------------------------------------------------------------------------------------- training


def prepare(run: Run, limit: int | None = None) -> str:
    """Score both sides of every pair under the fine-tuned model, the reference of the alignment."""
    model, fingerprint = _fine_tuned(run)
    key = content_key(
        "prepare", run.recipe.align.loss, run.recipe.align.max_length, fingerprint, run.digest("pair", "pairs")
    )
    if run.is_done("prepare", key):
        return "up to date"
    prepared = _prepared(run, _load(run, model), limit)
    run.table("prepare", "quarantined", Quarantined).write(prepared.quarantined)
    line = (
        f"{len(prepared.items)} items, {len(prepared.quarantined)} pairs quarantined{_reasons(prepared.quarantined)}"
    )
    if limit is None:
        run.finish("prepare", key, items=len(prepared.items), quarantined=len(prepared.quarantined))
    return line


def _prepared(run: Run, vlm: Any, limit: int | None = None) -> Any:
    from radpref import training

    pairs = run.rows("pair", "pairs", Pair)[:limit]
    bar: list[Any] = []

    def advance(done: int, total: int) -> None:
        if not bar:
            bar.append(progress(total=total, unit="answers", what="prepare"))
        bar[0].update(done - bar[0].n)

    prepared = training.prepare(vlm, pairs, run.recipe.align, run.path("prepare"), progress=advance)
    if bar:
        bar[0].close()
    return prepared


def align(run: Run, limit: int | None = None) -> str:
    """Train on the pairs, once for every beta of the selection."""
    from radpref import training

    recipe = run.recipe
    model, fingerprint = _fine_tuned(run)
    betas = recipe.select.betas or (recipe.align.beta,)
    pairs = run.digest("pair", "pairs")
    keys = {beta: content_key("align", _with_beta(run, beta), recipe.run.seed, fingerprint, pairs) for beta in betas}
    whole = content_key(list(keys.values()))
    if run.is_done("align", whole):
        return "up to date"
    vlm = _load(run, model)
    prepared = _prepared(run, vlm)
    runs = []
    for beta, key in keys.items():
        folder = _keyed_folder(run.path("align", f"beta-{beta:g}"), key)
        bar = _Steps(f"align {beta:g}")
        result = training.align(
            vlm, prepared, _with_beta(run, beta), folder, seed=recipe.run.seed, max_steps=limit, log=bar
        )
        bar.close()
        if not result.finished:
            return f"beta {beta:g}: step {result.step} of {result.steps} (--limit)"
        runs.append(
            {"beta": beta, "checkpoints": [{"path": str(c.path), "step": c.step} for c in result.checkpoints]}
        )
    for folder in run.path("align").glob("beta-*"):
        if folder.name not in {f"beta-{beta:g}" for beta in betas}:
            shutil.rmtree(folder)
    run.finish("align", whole, runs=runs, trainable=result.trainable, steps=result.steps, items=len(prepared.items))
    last = {name: f"{value:.3f}" for name, value in result.history[-1].items() if name in ("margin", "accuracy")}
    facts = ", ".join(f"{name} {value}" for name, value in last.items())
    return f"{result.steps} steps on {len(prepared.items)} items, betas {', '.join(f'{b:g}' for b in betas)}; {facts}"


def _with_beta(run: Run, beta: float) -> AlignSection:
    return run.recipe.align.model_copy(update={"beta": beta})


def control(run: Run, limit: int | None = None) -> str:
    """SFT on the chosen side of the same pairs: what the pairs give without any preference.

    It has the adapter, batch and epochs of the alignment; of several learning rates the one that does best on the
    validation studies, by the judge that also chooses the aligned model, is taken.
    """
    from radpref import models, training

    recipe = run.recipe
    if not recipe.evaluate.control:
        run.finish("control", "off")
        return "off"
    start, fingerprint = _fine_tuned(run)
    rates = recipe.evaluate.control_lrs or (recipe.align.lr,)
    sections = {lr: _control_section(recipe.align, lr) for lr in rates}
    pairs = run.digest("pair", "pairs")
    keys = {
        lr: content_key("control", section, recipe.run.seed, fingerprint, pairs) for lr, section in sections.items()
    }
    whole = content_key(list(keys.values()), recipe.select.by)
    if run.is_done("control", whole):
        return "up to date"
    lessons = [
        Question(
            id=row.id, study=row.question, patient=row.patient, split="train", films=row.films, prompt=row.prompt,
            reference=row.chosen,
        )
        for row in run.rows("pair", "pairs", Pair)
    ]  # fmt: skip
    tried: list[dict[str, Any]] = []
    for lr, section in sections.items():
        folder = _keyed_folder(run.path("control", f"lr-{lr:g}"), keys[lr])
        bar = _Steps(f"control {lr:g}")
        result = training.sft(
            _load(run, start), lessons, section, folder, seed=recipe.run.seed, max_steps=limit, log=bar
        )
        bar.close()
        if not result.finished:
            return f"lr {lr:g}: step {result.step} of {result.steps} (--limit)"
        model = ModelSection(path=str(result.path))
        scores = _validation_scores(run, "control", f"lr-{lr:g}", model, models.fingerprint(result.path))
        tried.append({"lr": lr, "model": model.model_dump(), "scores": scores})
    best = max(tried, key=lambda one: _rank_of(one["scores"][recipe.select.by]))
    run.finish("control", whole, tried=tried, chosen=best)
    return f"{result.steps} steps, lr {best['lr']:g}, {recipe.select.by} {_shown(best['scores'][recipe.select.by])}"


def _control_section(align: AlignSection, lr: float) -> SftSection:
    return SftSection(
        lora=align.lora, lr=lr, warmup=align.warmup, epochs=align.epochs, batch=align.batch,
        accumulate=align.accumulate,
        weight_decay=align.weight_decay, train_projector=False, save_steps=align.save_steps,
    )  # fmt: skip


# -------------------------------------------------------------------------------- select and evaluate


def _rank_of(score: float | None) -> float:
    return -1.0 if score is None else score


def _shown(score: float | None) -> str:
    return "unscored" if score is None else f"{score:.3f}"


def _greedy(
    run: Run, stage: str, name: str, model: ModelSection, fingerprint: str, questions: Sequence[Question], batch: int
) -> dict[str, str]:
    """Greedy answers by question id; an answer that could not be made is an empty text, which scores as one."""
    section = run.recipe.sample.model_copy(update={"batch": batch})
    key = content_key("greedy", section.max_new_tokens, fingerprint)
    rows, _ = _answer(run, stage, f"answers-{name}", lambda: _load(run, model), questions, key, section, greedy=True)
    texts = {row.question: row.text for row in rows or []}
    return {question.id: texts.get(question.id, "") for question in questions}


def _validation_scores(
    run: Run, stage: str, name: str, model: ModelSection, fingerprint: str
) -> dict[str, float | None]:
    """Mean scores of greedy answers on the validation studies, by judge, with the mean number of words."""
    from radpref.judges import JUDGES, Case

    questions = questions_of(run, "validation")
    answers = _greedy(run, stage, name, model, fingerprint, questions, run.recipe.evaluate.batch)
    cases = [Case(q.id, q.id, q.reference, answers[q.id]) for q in questions]
    scores: dict[str, float | None] = {}
    for judge_name, make in JUDGES.items():
        found = [row.score for row in make()(cases) if row.score is not None]
        scores[judge_name] = sum(found) / len(found) if found else None
    scores["words"] = sum(len(text.split()) for text in answers.values()) / len(answers)
    return scores


def select(run: Run, limit: int | None = None) -> str:
    """Choose among checkpoints and betas by a judge's mean on the validation studies (greedy answers)."""
    from radpref import models

    recipe = run.recipe
    start, fingerprint = _fine_tuned(run)
    done = run.done("align")
    assert done is not None  # `pipeline` runs align first
    key = content_key(
        "select", recipe.select, done["key"], fingerprint, _questions_key(questions_of(run, "validation"))
    )
    if run.is_done("select", key):
        return "up to date"
    before = _validation_scores(run, "select", "sft", start, fingerprint)
    tried = []
    for one in done["runs"]:
        for checkpoint in one["checkpoints"] if recipe.select.checkpoints else one["checkpoints"][-1:]:
            name = f"beta-{one['beta']:g}-step-{checkpoint['step']}"
            model = _checkpoint_model(run, start, checkpoint["path"])
            print_of = models.fingerprint(Path(model.path), Path(model.adapter) if model.adapter else None)
            scores = _validation_scores(run, "select", name, model, print_of)
            tried.append(
                {"name": name, "beta": one["beta"], "step": checkpoint["step"], "model": model.model_dump(),
                 "fingerprint": print_of, "scores": scores}
            )  # fmt: skip
    best = max(tried, key=lambda row: _rank_of(row["scores"][recipe.select.by]))
    run.finish("select", key, by=recipe.select.by, before=before, tried=tried, chosen=best)
    score, base = best["scores"][recipe.select.by], before[recipe.select.by]
    return f"{best['name']} of {len(tried)}, {recipe.select.by} {_shown(score)} ({_shown(base)} before) on validation"


def _checkpoint_model(run: Run, start: ModelSection, checkpoint: str) -> ModelSection:
    """How a checkpoint is loaded: as an adapter on the fine-tuned model, or as a model of its own."""
    if run.recipe.align.lora.rank:
        return ModelSection(path=start.path, revision=start.revision, adapter=checkpoint)
    return ModelSection(path=checkpoint)


def systems_of(run: Run) -> dict[str, tuple[ModelSection, str]]:
    """The models that are measured, by name, with their fingerprints: base, sft, aligned, the control."""
    from radpref import models

    start, fingerprint = _fine_tuned(run)
    systems: dict[str, tuple[ModelSection, str]] = {}
    if run.recipe.sft.enabled:
        systems["base"] = (run.recipe.model, _base_fingerprint(run))
    systems[BEFORE] = (start, fingerprint)
    chosen = (run.done("select") or {})["chosen"]
    systems[AFTER] = (ModelSection.model_validate(chosen["model"]), chosen["fingerprint"])
    if other := (run.done("control") or {}).get("chosen"):
        model = ModelSection.model_validate(other["model"])
        systems[CONTROL] = (model, models.fingerprint(Path(model.path)))
    return systems


def evaluate(run: Run, limit: int | None = None) -> str:
    """Measure base, sft, aligned, the control and the trivial baselines on the held-out patients."""
    from radpref import evaluation

    recipe = run.recipe
    questions = questions_of(run, "test")[:limit]
    systems = systems_of(run)
    key = content_key(
        "evaluate", recipe.evaluate, recipe.run.seed, [f for _, f in systems.values()], _questions_key(questions)
    )
    if run.is_done("evaluate", key):
        return "up to date"
    answers = {
        name: _greedy(run, "evaluate", name.replace(" ", "-"), model, fingerprint, questions, recipe.evaluate.batch)
        for name, (model, fingerprint) in systems.items()
    }
    answers |= evaluation.baselines(questions_of(run, "train"), questions, recipe.run.seed)
    resamples, seed = recipe.evaluate.resamples, recipe.run.seed
    measured = {
        name: evaluation.measure(name, questions, texts, resamples=resamples, seed=seed)
        for name, texts in answers.items()
    }
    comparisons = [
        row
        for name, one in measured.items()
        if name != AFTER
        for row in evaluation.compare(one, measured[AFTER], resamples=resamples, seed=seed)
    ]
    metrics = [row for one in measured.values() for row in one.metrics]
    run.table("evaluate", "metrics", Metric).write(metrics)
    run.table("evaluate", "comparisons", Comparison).write(comparisons)
    for name in systems:
        rows = [row for judged in measured[name].judgements.values() for row in judged.values()]
        rows = [row.model_copy(update={"id": f"{row.judge}:{row.id}"}) for row in rows]
        run.table("evaluate", f"judgements-{name.replace(' ', '-')}", Judgement).write(rows)
    run.write_json(
        {
            name: {
                "errors": evaluation.error_totals(one),
                "unscored": one.unscored(),
                "labels": [vars(label) for label in evaluation.by_label(one)],
            }
            for name, one in measured.items()
        },
        "evaluate",
        "details.json",
    )
    run.write_json(
        evaluation.metrics_json(
            metrics, comparisons, limited=limit is not None, counts=(run.done("studies") or {})["counts"]
        ),
        "metrics.json",
    )
    if limit is None:
        run.finish("evaluate", key, systems=list(measured))
    before, after = measured[BEFORE].value("green_mean"), measured[AFTER].value("green_mean")
    return f"{len(questions)} studies; green {_shown(before)} before, {_shown(after)} after"


# ---------------------------------------------------------------------------------------------- report


def report(run: Run, limit: int | None = None) -> str:
    """Write report.html from the tables."""
    from radpref.report import render

    if limit is not None:
        section = run.recipe.report.model_copy(update={"studies": limit, "pairs": limit})
    else:
        section = run.recipe.report
    html = render(_report_data(run, section))
    write_atomically(run.path("report.html"), html)
    run.finish("report", content_key(html))
    return f"{run.path('report.html')}, {len(html) / 1e6:.1f} MB"


def _report_data(run: Run, section: ReportSection) -> Any:
    """Everything that stands in the report, read from the run folder."""
    from radpref.evaluation import LabelScore
    from radpref.findings import read
    from radpref.report import (
        Choice,
        PairStatistics,
        PairView,
        ReportData,
        Setting,
        SplitCount,
        StudyView,
        TrainingLog,
    )
    from radpref.training import history

    recipe = run.recipe
    questions = {question.id: question for question in run.rows("studies", "questions", Question)}
    details = run.read_json("evaluate", "details.json")
    chosen = (run.done("select") or {})["chosen"]
    tried = (run.done("select") or {})["tried"]
    before = (run.done("select") or {})["before"]

    studies_of_split: dict[str, list[Question]] = {}
    for question in questions.values():
        studies_of_split.setdefault(question.split, []).append(question)
    counts = [
        SplitCount(split, len({q.patient for q in rows}), len(rows), sum(len(q.films) for q in rows))
        for split, rows in studies_of_split.items()
    ]

    texts = {
        name: {row.question: row.text for row in run.rows("evaluate", f"answers-{name}", Completion)}
        for name in (BEFORE, AFTER)
    }
    judged = {
        name: {
            row.question: row for row in run.rows("evaluate", f"judgements-{name}", Judgement) if row.judge == "green"
        }
        for name in (BEFORE, AFTER)
    }
    views = [
        StudyView(
            question=question,
            before=texts[BEFORE].get(question.id, ""),
            after=texts[AFTER].get(question.id, ""),
            before_judgement=judged[BEFORE].get(question.id),
            after_judgement=judged[AFTER].get(question.id),
            reference_findings=read(question.reference),
            before_findings=read(texts[BEFORE].get(question.id, "")),
            after_findings=read(texts[AFTER].get(question.id, "")),
        )
        for question in studies_of_split["test"][: section.studies]
    ]

    pairs = run.rows("pair", "pairs", Pair)
    statistics = run.read_json("pair", "statistics.json")
    logs = [("sft", run.path("sft", "training"))]
    logs += [
        (f"align, beta {one['beta']:g}", run.path("align", f"beta-{one['beta']:g}"))
        for one in (run.done("align") or {})["runs"]
    ]
    quarantined = [
        row
        for path in sorted(run.folder.glob("*/*quarantined.jsonl"))
        for row in run.rows(path.parent.name, path.stem, Quarantined)
    ]
    helps = recipes.helps()
    about_run = run.read_json("run.json")
    return ReportData(
        title=f"{TITLES[recipe.method]} on {recipe.data.source}",
        source=recipe.data.source,
        run=run.folder.name,
        created=about_run["written"],
        command="radpref " + " ".join(about_run["command"]),
        before=BEFORE,
        after=AFTER,
        control=CONTROL,
        metrics=run.rows("evaluate", "metrics", Metric),
        comparisons=run.rows("evaluate", "comparisons", Comparison),
        labels={name: [LabelScore(**label) for label in one["labels"]] for name, one in details.items()},
        errors={name: one["errors"] for name, one in details.items()},
        unscored={name: one["unscored"] for name, one in details.items()},
        recipe=[
            Setting(key, str(value), run.loaded.provenance.get(key, "default"), helps[key])
            for key, value in recipes.flatten(recipe.model_dump())
        ],
        facts={
            "versions": about_run["versions"],
            "machine": about_run["machine"],
            "seconds": {stage: f"{seconds:.1f}" for stage, seconds in run.seconds().items()},
        },
        counts=counts,
        quarantined=quarantined,
        training=[TrainingLog(name, history(folder)) for name, folder in logs if folder.exists()],
        candidates=run.rows("judge", "judgements", Judgement),
        statistics=PairStatistics(
            questions=len(studies_of_split["train"]),
            candidates=len(run.rows("sample", "completions", Completion)),
            pairs=len(pairs),
            dropped=statistics["dropped"],
            unscored=statistics["unscored"],
        ),
        scored_pairs=pairs,
        selection=[
            Choice("sft, before alignment", 0.0, before),
            *(Choice(row["name"], row["beta"], row["scores"], row["name"] == chosen["name"]) for row in tried),
        ],
        selected_by=recipe.select.by,
        studies=views,
        pairs=[PairView(row, questions[row.question].reference) for row in pairs[: section.pairs]],
        notes=[event["text"] for event in run.events() if event["event"] == "note"],
    )


# ---------------------------------------------------------------------------------------------- export


def export_model(run: Run, to: Path) -> None:
    """Write the chosen model, adapter merged, with its processor, as an ordinary checkpoint.

    Raises:
        RunError: nothing has been selected yet, or the folder holds something.
    """
    from radpref import models

    done = run.done("select")
    if done is None:
        raise RunError(f"nothing is selected in {run.folder} yet; `radpref select {run.folder}` does it.")
    if to.exists() and any(to.iterdir()):
        raise RunError(f"{to} is not empty; give a new folder.")
    models.save(models.merged(_load(run, ModelSection.model_validate(done["chosen"]["model"]))), to)
