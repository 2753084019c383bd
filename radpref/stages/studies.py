"""The studies stage: from a source to checked studies and questions."""

from __future__ import annotations

from collections import Counter

from radpref.records import Quarantined, Question, Study
from radpref.run.folder import Run, RunError
from radpref.stages.common import reasons


def studies(run: Run, limit: int | None = None) -> str:
    """Read the source, check every image, split by patient, write studies and questions.

    Raises:
        DataError: the source is not there or has not the columns that the recipe names.
        RunError: no usable study in a split, or one patient, study or image in two splits.
    """
    from radpref.data import leakage, load_studies
    from radpref.tasks import composition, questions

    recipe = run.recipe
    run.begin("studies")
    loaded = load_studies(recipe.data, run.path("studies"), recipe.run.seed)
    run.table("studies", "quarantined", Quarantined).write(loaded.quarantined)
    found = loaded.studies[:limit]
    for split in ("train", "validation", "test"):
        if not any(study.split == split for study in found):
            raise RunError(
                f"no usable study in the {split} split ({len(found)} usable, {len(loaded.quarantined)} quarantined"
                f"{reasons(loaded.quarantined)}). See {run.path('studies', 'quarantined.jsonl')}; mend the "
                f"source, or change data.{split} or the split's share."
            )
    if problems := leakage(found):
        raise RunError("the splits leak:\n  " + "\n  ".join(problems))
    if recipe.task.kind == "report" and (without := sum(not study.findings.strip() for study in found)):
        raise RunError(
            f"{without} of {len(found)} studies have no findings: data.source {recipe.data.source} asks questions. "
            "Set task.kind: questions, or take a source of reports."
        )
    asked = questions(
        found,
        recipe.task,
        max_images=recipe.data.max_images,
        folder=run.path("studies", "marked"),
        seed=recipe.run.seed,
    )
    for split in ("train", "validation", "test"):
        if not any(question.split == split for question in asked):
            raise RunError(
                f"the studies of the {split} split give no question: nothing is known of their findings. Add to "
                "task.asks what they can answer (region needs masks or boxes, comparison priors), or more studies."
            )
    run.table("studies", "studies", Study).write(found)
    run.table("studies", "questions", Question).write(asked)
    for note in loaded.notes:
        run.event("studies", "note", text=note)
    counts = Counter(study.split for study in found)
    run.finish("studies", run.digest("studies", "questions"), counts=dict(counts))
    parts = ", ".join(f"{counts[split]} {split}" for split in ("train", "validation", "test"))
    line = f"{parts}; {len(loaded.quarantined)} quarantined{reasons(loaded.quarantined)}"
    if recipe.task.kind == "report":
        return line
    kinds = ", ".join(f"{kind} {count}" for kind, count in composition(asked).items())
    run.event("studies", "note", text=f"{len(asked):,} questions: {kinds}")
    return f"{line}; {len(asked)} questions ({kinds})"
