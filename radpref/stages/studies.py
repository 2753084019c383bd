"""The studies stage: from a source to checked studies and questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from radpref.config import Recipe
from radpref.records import Question, Split, Study, reasons
from radpref.rooms import data, tasks
from radpref.runs.context import QUARANTINED, Context
from radpref.runs.folder import RunError
from radpref.runs.stage import Outcome, Stage, TableOf, Whole
from radpref.stages.identities import READER
from radpref.stages.ports import STUDIES, TEST, TRAIN, TWINS, VALIDATION

SPLITS: dict[Split, TableOf[Question]] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def _studies(context: Context) -> Outcome:
    """Read the source, check every image, split by patient, write studies and questions.

    Raises:
        DataError: the source is not there or has not the columns that the recipe names.
        RunError: no usable study in a split, or one patient, study or image in two splits.
    """
    recipe = context.config
    loaded = data.load_studies(recipe.data, context.folder, recipe.run.seed)
    refused = context.write(QUARANTINED, loaded.quarantined)
    told = f"{refused} quarantined{reasons(loaded.quarantined)}"
    counts: Counter[str] = Counter()
    silent = bare = 0

    def counted() -> Iterator[Study]:
        nonlocal silent, bare
        for number, study in enumerate(loaded.studies):
            if context.limit is not None and number >= context.limit:
                return
            counts[study.split] += 1
            silent += not study.findings.strip() and not (study.labels or study.marked)
            bare += not study.findings.strip()
            yield study

    context.write(STUDIES, counted())
    for split in SPLITS:
        if not counts[split]:
            raise RunError(
                f"no usable study in the {split} split ({counts.total()} usable, {told}). See "
                f"{context.folder / 'quarantined.jsonl'}; mend the source, or change data.{split} or the split's share."
            )
    if not loaded.leaks and (problems := data.leakage(context.own(STUDIES))):
        raise RunError("the splits leak:\n  " + "\n  ".join(problems))
    if recipe.task.kind == "report" and silent:
        raise RunError(
            f"{silent} of {counts.total()} studies have no findings: data.source {recipe.data.source} asks questions. "
            "Set task.kind: questions, or take a source of reports."
        )
    if recipe.task.kind == "questions" and recipe.data.unreported.use == "labels":
        raise RunError(
            "data.unreported.use: labels is for reports, and task.kind is questions, which are made from findings or "
            "asked by the source. Leave it out, or set task.kind: report."
        )
    composition = _questions(context)
    for note in loaded.notes:
        context.note(note)
    line = ", ".join(f"{counts[split]} {split}" for split in SPLITS) + f"; {told}"
    if bare and recipe.task.kind == "report":
        line += f"; {bare} without a report"
    if recipe.task.kind == "questions":
        kinds = ", ".join(f"{kind} {count}" for kind, count in composition.most_common())
        context.note(f"{composition.total():,} questions: {kinds}")
        line += f"; {composition.total()} questions ({kinds})"
    return Outcome(line, counts={"studies": dict(counts), "unreported": bare}, finished=context.limit is None)


def _questions(context: Context) -> Counter[str]:
    """Write the questions of each split; returns how many there are of each task and kind."""
    recipe = context.config
    kinds: Counter[str] = Counter()

    def asked() -> Iterator[tuple[Split, Question]]:
        for question in tasks.questions(
            context.own(STUDIES),
            recipe.task,
            max_images=recipe.data.max_images,
            folder=context.folder / "marked",
            seed=recipe.run.seed,
        ):
            kinds[f"{question.task} {question.kind}".strip()] += 1
            yield question.split, question

    found = context.write_each(SPLITS, asked())
    for split in SPLITS:
        if not found[split]:
            raise RunError(
                f"the studies of the {split} split give no question: nothing is known of their findings. Add to "
                "task.asks what they can answer (region needs masks or boxes, comparison priors), or more studies."
            )
    wanted = recipe.evaluate.controls if recipe.task.kind == "questions" else ()
    test = list(context.own(TEST)) if wanted else []
    context.write(TWINS, tasks.twins(test, wanted, context.folder / "blank", recipe.run.seed))
    return kinds


def _check(recipe: Recipe) -> None:
    data.check(recipe.data)


STAGE = Stage(
    name="studies",
    help="Read the studies, split them by patient, write the questions.",
    work=Whole(_studies),
    writes=(STUDIES, TRAIN, VALIDATION, TEST, TWINS),
    config=("data", "task", "run.seed", "evaluate.controls"),
    identities=(READER,),
    rooms=("data", "images", "tasks"),
    check=_check,
    outside=True,
)
