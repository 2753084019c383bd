"""The aligned model's reports for a leaderboard: ReXrank's file of studies, each with a ``model_prediction``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from radpref.config import DataSection
from radpref.exports.of_run import chosen_model
from radpref.records import Quarantined, Study, reasons
from radpref.rooms import data, models, tasks
from radpref.runs.context import section_of
from radpref.runs.folder import Run, RunError
from radpref.runs.progress import progress
from radpref.runs.stage import Road

_STEP = 256
"""Studies whose images are looked at before their questions are put."""


def export_rexrank(run: Run, road: Road, asked: Path, out: Path, *, root: Path | None = None) -> str:
    """Let the chosen model report on every study of ReXrank's file ``asked`` and write it to ``out``, reports added.

    The prompt is the run's, with a study's first images, frontals first; answers are greedy. ``root`` is the folder
    of the images, that of ``asked`` if absent. Returns a line about it.

    Raises:
        RunError: nothing is selected yet; a study that cannot be answered (the leaderboard scores all of them).
        DataError: ``asked`` is no file of ReXrank's.
    """
    recipe = run.recipe
    if recipe.task.kind != "report":
        raise RunError(f"{run.folder} answers questions (task.kind); ReXrank asks for reports.")
    if out.exists():
        raise RunError(f"{out} is there already; give a new file.")
    if not asked.is_file():
        raise RunError(f"there is no file {asked}; --asked is ReXrank's JSON file, such as ReXRank_MIMICCXR_test.json.")
    chosen = chosen_model(run, road)
    place = (root or asked.parent).resolve()
    with TemporaryDirectory() as cache:
        studies, refused = _studies(asked.resolve(), place, Path(cache))
        if refused or not studies:
            raise _not_all(asked, len(studies) + len(refused), refused)
        questions = [tasks.report_question(study, recipe.task, recipe.data.max_images) for study in studies]
        vlm = models.load(section_of(chosen.weights), recipe.run)
        said, cut = dict[str, str](), 0
        bar = progress(total=len(questions), unit="studies", what="rexrank")
        for question, answers in models.generate(
            vlm, questions, max_new_tokens=recipe.sample.max_new_tokens, batch=recipe.evaluate.batch, seed=0
        ):
            if isinstance(answers, Quarantined):
                refused.append(answers)
            else:
                said[question.study], cut = answers[0].text, cut + (not answers[0].finished)
            bar.update(1)
        bar.close()
    if refused:
        raise _not_all(asked, len(questions), refused)
    count = data.submission(asked, said, out)
    silent = sum(not text.strip() for text in said.values())
    more = "".join(f", {n} {what}" for n, what in ((silent, "empty"), (cut, "cut at sample.max_new_tokens")) if n)
    return f"{count:,} reports by {chosen.id}{more}"


def _studies(asked: Path, root: Path, cache: Path) -> tuple[list[Study], list[Quarantined]]:
    """The file's studies with the images that decode, and what cannot be answered.

    They do not pass the gate that a run's studies pass: a lateral alone, or a study without a reference, is asked too.
    """
    section = DataSection(source="rexrank", root=str(root), file=str(asked))
    found = data.SOURCES["rexrank"].read(section, cache, 0)
    check = data.ImageCheck(cache)
    good: list[Study] = []
    refused: list[Quarantined] = []
    rows = iter(found.studies)
    while batch := list(islice(rows, _STEP)):
        some = [row for row in batch if not isinstance(row, Quarantined)]
        refused += [row for row in batch if isinstance(row, Quarantined)]
        verdicts = check([image for study in some for image in study.images])
        for study in some:
            images = tuple(image for image in study.images if verdicts[image.path].reason is None)
            if images:
                good.append(data.frontal_first(study.model_copy(update={"images": images})))
            else:
                why = next((verdicts[image.path].reason for image in study.images), None) or "no images"
                refused.append(Quarantined(id=study.id, stage="data", reason=why))
    return good, refused


def _not_all(asked: Path, count: int, refused: list[Quarantined]) -> RunError:
    return RunError(
        f"{len(refused):,} of {count:,} studies of {asked.name} cannot be answered{reasons(refused)}; the leaderboard "
        "scores all of them, so nothing was written. --root names the folder of the images."
    )
