"""What several stages share: questions, keys, the models of a run, progress over steps."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from radpref.config import ModelSection, Precision, RecipeError, nearest
from radpref.files import content_key, write_atomically
from radpref.records import Quarantined, Question
from radpref.run.folder import Run, progress

T = TypeVar("T")

BEFORE = "sft"
AFTER = "aligned"
CONTROL = "sft on chosen"
"""Names of the measured systems: before and after alignment, and the control."""

NO_STUDIES = "none"
"""The ``data.source`` of a run that has pairs and nothing else."""


def questions_of(run: Run, split: str) -> list[Question]:
    """The questions of one split, in the order of the studies."""
    return [question for question in run.rows("studies", "questions", Question) if question.split == split]


def question_key(question: Question) -> str:
    """What a model is shown: the prompt and the images' bytes, wherever they lie."""
    return content_key(question.prompt, [image.digest for image in question.images])


def questions_key(questions: Sequence[Question]) -> str:
    return content_key([[question_key(question), question.reference] for question in questions])


def reasons(rows: Iterable[Quarantined]) -> str:
    counts = Counter(row.reason.split(":")[0] for row in rows)
    text = ", ".join(f"{reason} {n}" for reason, n in counts.most_common(3))
    return f" ({text})" if text else ""


def print_of(model: ModelSection) -> str:
    """The fingerprint of a model with its adapter. Raises ModelError where its files are not there."""
    from radpref.models import fingerprint, locate

    return fingerprint(locate(model), model.adapter)


def fine_tuned(run: Run) -> tuple[ModelSection, str]:
    """The model after sft, and a key of its weights."""
    done = run.done("sft")
    assert done is not None  # `pipeline` runs sft first
    return located(run, done["model"]), done["fingerprint"]


def pairs_from(run: Run) -> str:
    """The stage whose pairs are aligned on: with corrupted images where the method makes them."""
    return "corrupt" if run.recipe.method == "firempo" else "pair"


def outcome(run: Run) -> dict[str, Any] | None:
    """What the last stage of training recorded: ``by``, ``before``, ``tried`` and the ``chosen`` model."""
    return run.done("grpo" if run.recipe.method == "grpo" else "select")


def noted(run: Run, model: ModelSection) -> dict[str, Any]:
    """A model as a done mark holds it: what lies in the run folder is found there when the folder has moved."""
    adapter = run.noted(model.adapter) if model.adapter else None
    return {**model.model_dump(), "path": run.noted(model.path), "adapter": adapter}


def located(run: Run, noted: dict[str, Any]) -> ModelSection:
    """The model that ``noted`` wrote down."""
    adapter = run.located(noted["adapter"]) if noted["adapter"] else None
    return ModelSection.model_validate({**noted, "path": run.located(noted["path"]), "adapter": adapter})


def load(run: Run, section: ModelSection) -> Any:
    """A model of the run, with the threads that the recipe asks for."""
    import torch

    from radpref import models

    if run.recipe.run.threads:
        torch.set_num_threads(run.recipe.run.threads)
    return models.load(section, run.recipe.run.model_copy(update={"precision": _precision(run)}))


def _precision(run: Run) -> Precision:
    """The recipe's precision; what ``auto`` measured once stays for the run: no sitting computes otherwise."""
    from radpref.models import pick_device, settle_precision

    if run.recipe.run.precision != "auto":
        return run.recipe.run.precision
    device = pick_device(run.recipe.run.device)
    known: dict[str, Precision] = run.read_json("precision.json") or {}
    if device.type not in known:
        known = {**known, device.type: settle_precision(device)}
        run.write_json(known, "precision.json")
    return known[device.type]


def check(run: Run, *, judging: bool = True) -> None:
    """Everything that can be known before any work: the names in the recipe, and that the model's files are there.

    ``judging``: a judge will be asked, so that its server or package must be there now.

    Raises:
        RecipeError: a source or judge that does not exist; names the nearest one.
        LossError: losses that do not exist or cannot be combined.
        JudgeError: the judge's server or package is not there.
        ModelError: what is wrong with the model, adapter or device that the recipe names.
    """
    from radpref import judges
    from radpref.data import SOURCES
    from radpref.judges import JUDGES
    from radpref.losses import objective
    from radpref.models import pick_device

    recipe = run.recipe
    _check_pairs(run)
    for key, name, known in (
        ("data.source", recipe.data.source, {**SOURCES, NO_STUDIES: None} if recipe.method == "pairs" else SOURCES),
        ("judge.name", recipe.judge.name, JUDGES),
        ("select.by", recipe.select.by, JUDGES),
    ):
        if name not in known:
            raise RecipeError(
                f"`{key}` from {run.loaded.provenance[key]} is {name!r}, which does not exist"
                f"{nearest(name, list(known)) or '.'} There are: {', '.join(known)}."
            )
    objective(recipe.align)
    for name in {recipe.judge.name, recipe.select.by} if judging else ():
        judges.check(name, recipe.judge)
    pick_device(recipe.run.device)
    print_of(recipe.model)


def _check_pairs(run: Run) -> None:
    """Whether the recipe says where pairs come from, and asks for nothing that needs studies where there are none."""
    recipe = run.recipe
    if recipe.method != "pairs":
        if recipe.pair.file is not None:
            raise RecipeError(
                f"`pair.file` names pairs that were made elsewhere, which {recipe.method} does not read: it makes "
                "its own. Set method: pairs, or leave pair.file out."
            )
        return
    if recipe.pair.file is None:
        raise RecipeError("method pairs aligns with pairs that are there already; say where with pair.file.")
    if recipe.data.source == NO_STUDIES and (recipe.sft.enabled or len(recipe.select.betas) > 1):
        what = "sft.enabled: true" if recipe.sft.enabled else "several select.betas"
        raise RecipeError(f"{what} needs studies, and data.source is {NO_STUDIES}. Name a source, or leave it out.")


def keyed_folder(folder: Path, key: str) -> Path:
    """A folder for the checkpoints of one key; what another key left there is removed."""
    mark = folder / "key"
    if folder.exists() and not (mark.exists() and mark.read_text() == key):
        shutil.rmtree(folder)
    if not mark.exists():
        write_atomically(mark, key)
    return folder


class Steps:
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


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def shown(score: float | None) -> str:
    return "unscored" if score is None else f"{score:.3f}"
