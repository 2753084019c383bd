"""The studies stage: from a source to checked studies and questions."""

from __future__ import annotations

from collections import Counter

from radpref.records import Quarantined, Question, Study
from radpref.runfolder import Run, RunError
from radpref.stages.common import reasons


def studies(run: Run, limit: int | None = None) -> str:
    """Read the source, check every film, split by patient, write studies and questions.

    Raises:
        DataError: the source is not there or has not the columns that the recipe names.
        RunError: no usable study in a split, or one patient, study or film in two splits.
    """
    from radpref.data import leakage, load_studies
    from radpref.tasks import report_question

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
    questions = [report_question(study, recipe.task, recipe.data.max_films) for study in found]
    run.table("studies", "studies", Study).write(found)
    run.table("studies", "questions", Question).write(questions)
    for note in loaded.notes:
        run.event("studies", "note", text=note)
    counts = Counter(study.split for study in found)
    run.finish("studies", run.digest("studies", "questions"), counts=dict(counts))
    parts = ", ".join(f"{counts[split]} {split}" for split in ("train", "validation", "test"))
    return f"{parts}; {len(loaded.quarantined)} quarantined{reasons(loaded.quarantined)}"
