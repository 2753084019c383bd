"""The front door in Python: what ``import radpref`` gives, each on rows as plain as a data set's.

Everything here is a thin way to a room; docs/python.md has an example of each, run by a test.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radpref import config
from radpref.comparing import Compared, compare_runs
from radpref.config import AlignSection, CorruptSection, JudgeSection, ModelSection, RunSection
from radpref.config.schema import NormalsRule
from radpref.errors import RadprefError
from radpref.files import write_atomically
from radpref.records import Finding, Judgement, Metric, Question, Study
from radpref.rooms import data, evaluation, findings, formats, images, judges, models, pipeline, training
from radpref.runs.folder import Run

if TYPE_CHECKING:
    from radpref.config import Loaded

Row = dict[str, Any]


# ------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
class Result:
    """A finished run."""

    folder: Path
    metrics: list[Metric]
    """Every number of the results table."""

    @property
    def report(self) -> Path:
        """The page with everything on it."""
        return self.folder / "report.html"

    def value(self, system: str, name: str) -> float | None:
        """A metric of a system, such as ``("aligned", "green_mean")``. Raises KeyError where there is none."""
        return {(row.system, row.name): row.value for row in self.metrics}[system, name]


def load_recipe(name: str, *, preset: str | None = None, **overrides: Any) -> Loaded:
    """A shipped recipe by name, or one from a YAML file, with a preset and single keys on top.

    Keys are dotted names (``**{"align.beta": 0.05}``) or sections (``align={"beta": 0.05}``). ``.recipe`` of what
    comes back holds the values, ``.provenance`` where each came from.

    Raises:
        RecipeError: an unknown recipe, preset or key (with the nearest one), or a value that cannot be.

    >>> load_recipe("chexalign", align={"beta": 0.05}).recipe.align.beta
    0.05
    """
    loaded = config.load(name, preset=preset)
    return config.override(loaded, dict(config.flatten(overrides)), "load_recipe") if overrides else loaded


def run(
    recipe: str | Loaded, out: str | Path, *, preset: str | None = None, redo: bool = False, **overrides: Any
) -> Result:
    """Run a whole recipe in the folder ``out``; the same call again goes on where it stopped.

    Args:
        recipe: a name, a path, or what `load_recipe` gave; ``preset`` and ``overrides`` as there.
        redo: make anew what a changed setting has outdated, and give up what was there.

    Raises:
        RadprefError: whatever stops a run, with what to do about it.
    """
    loaded = recipe if isinstance(recipe, config.Loaded) else config.load(recipe, preset=preset)
    if overrides:
        loaded = config.override(loaded, dict(config.flatten(overrides)), "radpref.run")
    this = Run(Path(out), loaded)
    pipeline.run_all(this, redo=redo)
    content = this.read_json("metrics.json") or {"metrics": []}
    return Result(this.folder, [Metric.model_validate(row) for row in content["metrics"]])


def compare(
    runs: Sequence[str | Path],
    *,
    system: str = "aligned",
    against: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Compared:
    """Finished runs held against each other; those that differ in their seeds alone are seeds of one method.

    Args:
        runs: run folders.
        system: what of each run is compared.
        against: systems of the same runs, or methods by the names that they get; None for the usual ones.
        metrics: names as in ``metrics.json``; None for the usual ones.

    Returns:
        Rows with a value, its interval over trainings and patients, its length, and its difference to each baseline.

    Raises:
        RadprefError: runs that cannot be held against each other, or an unknown name; with what to do.
    """
    return compare_runs([Path(run) for run in runs], system=system, against=against, metrics=metrics)


# ------------------------------------------------------------------------------------------ data


def load_studies(source: str = "phantom", *, cache: str | Path | None = None, **settings: Any) -> Iterator[Study]:
    """The studies of a source, checked, split by patient and without leaks, one at a time.

    Args:
        source: a name of ``data.source``: ``phantom``, ``openi``, ``table`` ...
        cache: a folder for what is worth keeping between calls (verdicts on images, drawn images); a temporary one
            that is gone after the last study where it is left out.
        settings: keys of the recipe's section ``data`` (``root``, ``file``, ``train`` ...), and ``seed``.

    Raises:
        DataError: the source is not there, or nothing in it can be used.
    """
    seed = settings.pop("seed", RunSection().seed)
    section = load_recipe("chexalign", data={"source": source, **settings}).recipe.data
    with tempfile.TemporaryDirectory() as temporary:
        loaded = data.load_studies(section, Path(cache or temporary).absolute(), seed)
        yield from loaded.studies


# ------------------------------------------------------------------------------------------ findings and judges


def read_findings(text: str) -> tuple[Finding, ...]:
    """The findings that a report states: name, presence, side, place, severity, change, span.

    >>> [(f.name, f.presence, f.side) for f in read_findings("Small left effusion. No pneumothorax.")]
    [('pleural effusion', 'present', 'left'), ('pneumothorax', 'absent', None)]
    """
    return tuple(findings.read(text))


def label(text: str) -> dict[str, int | None]:
    """CheXpert's 14 labels of a report: 1 present, 0 absent, -1 uncertain, None not said.

    >>> label("Small left effusion. No pneumothorax.")["Pleural Effusion"]
    1
    """
    return findings.labels(text)


def judge(name: str, **settings: Any) -> Callable[[Sequence[str], Sequence[str]], list[Judgement]]:
    """A judge: give it references and candidates, get a judgement for each, with its score and its reasons.

    Args:
        name: ``green``, ``lc-green``, ``text``, ``chat`` ..., or one that another package adds.
        settings: keys of the recipe's section ``judge`` (``server``, ``model`` ...).

    Raises:
        JudgeError: the judge lacks what it needs. RecipeError: no such judge.

    >>> judge("green")(["Small left effusion."], ["Small left effusion."])[0].score
    1.0
    """
    known = list(judges.JUDGES)
    if name not in known:
        raise config.RecipeError(
            f"there is no judge {name!r}{config.nearest(name, known) or '.'} There are: {', '.join(known)}."
        )
    section = JudgeSection(name=name, **settings)
    asked = judges.JUDGES[name](section)

    def judged(references: Sequence[str], candidates: Sequence[str]) -> list[Judgement]:
        if isinstance(references, str) or len(references) != len(candidates):
            raise ValueError("a judge takes as many references as candidates, two lists of texts")
        cases = [
            judges.Case(str(number), str(number), reference, candidate)
            for number, (reference, candidate) in enumerate(zip(references, candidates, strict=True))
        ]
        return list(asked(cases))

    return judged


# ------------------------------------------------------------------------------------------ images


def corrupt(
    image: Image.Image | NDArray[np.uint8],
    mask: NDArray[np.bool_] | None = None,
    *,
    operator: str = "noise",
    strength: float | None = None,
    seed: int = 0,
) -> Image.Image:
    """An image without its lesion, or corrupted as a whole.

    Args:
        image: a picture, or (height, width[, 3]) uint8.
        mask: (height, width), true in the lesion; not read by ``whole-noise``, ``crop`` and ``black``.
        operator: a name of ``corrupt.operator``.
        strength: in [0, 1], as ``corrupt.strength``; None takes the operator's own.

    Raises:
        ValueError: no mask for an operator that needs one, or one of another size.
    """
    section = load_recipe("firempo", corrupt={"operator": operator, "strength": strength}).recipe.corrupt
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    return Image.fromarray(images.corrupt(pixels, mask, CorruptSection.model_validate(section.model_dump()), seed))


# ------------------------------------------------------------------------------------------ pairs and alignment


def pair(rows: Sequence[Mapping[str, Any]], *, tie: float = 1e-8, margin: float = 0.0) -> list[Row]:
    """Preference pairs out of candidates with scores: the best against the worst of each prompt.

    Args:
        rows: ``prompt``, ``images``, ``candidates`` (texts) and ``scores`` (numbers; None where there is none).
        tie, margin: no pair where best minus worst is at most ``tie`` or below ``margin``.

    Returns:
        Rows with ``prompt``, ``images``, ``chosen``, ``rejected``, ``score_chosen`` and ``score_rejected``.
    """
    made: list[Row] = []
    for row in rows:
        scored = [
            (text, score) for text, score in zip(row["candidates"], row["scores"], strict=True) if score is not None
        ]
        if len(scored) < 2:
            continue
        best, worst = max(scored, key=lambda one: one[1]), min(scored, key=lambda one: one[1])
        if best[1] - worst[1] > tie and best[1] - worst[1] >= margin and best[0].split() != worst[0].split():
            made.append(
                {
                    "prompt": row["prompt"],
                    "images": list(row["images"]),
                    "chosen": best[0],
                    "rejected": worst[0],
                    "score_chosen": best[1],
                    "score_rejected": worst[1],
                }
            )
    return made


@dataclass(frozen=True)
class Aligned:
    """A model after alignment."""

    model: Any
    """The model, in evaluation mode, with its adapter (peft) where one was trained."""
    processor: Any
    folder: Path
    """What to load again: a PEFT adapter, or a whole model where ``lora.rank`` is 0."""
    history: list[dict[str, float]]
    """What was logged, a dict a step: loss, rewards, margin, accuracy, lengths."""
    quarantined: list[str]
    """Why pairs were left out."""


def align(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    objective: str = "dpo",
    *,
    out: str | Path | None = None,
    seed: int = 17,
    device: str = "auto",
    precision: str = "auto",
    **settings: Any,
) -> Aligned:
    """Align a vision-language model with preference pairs.

    Args:
        model: an image-text-to-text model of transformers, or the path or name of one (which is cheaper: an object is
            first saved).
        processor: its processor; None where ``model`` is a path or name.
        rows: ``prompt``, ``chosen``, ``rejected`` (texts, or conversations as TRL takes them) and ``images`` (pictures
            or paths); optional ``id``, ``patient``.
        objective: a published objective by name (docs/objectives.md): ``dpo``, ``kto``, ``orpo``, ``firempo`` ...
        out: where checkpoints go; the same call again goes on there. A new temporary folder where it is left out.
        settings: keys of the recipe's section ``align`` (``beta``, ``lr``, ``epochs``, ``batch``, ``lora`` ...).

    Raises:
        RadprefError: no usable pair, a model that cannot be used, a loss that broke down; with what to do.
    """
    home = Path(out or tempfile.mkdtemp(prefix="radpref-")).absolute()
    section: AlignSection = load_recipe(
        "pairs", align={"objective": objective, "accumulate": 1, **settings}
    ).recipe.align
    vlm = models.merged(models.load(ModelSection(path=_saved(model, processor, home)), _computing(device, precision)))
    file, folders = _written(rows, home / "rows")
    imported = formats.read_pairs(str(file), home / "rows", root=home / "rows", also=folders)
    prepared = training.prepare(vlm, imported.pairs, section, home / "prepared")
    result = training.align(vlm, prepared, section, home / "training", seed=seed)
    last = result.checkpoints[-1].path
    loaded = models.load(
        ModelSection(path=str(vlm.folder), adapter=str(last)) if section.lora.rank else ModelSection(path=str(last)),
        _computing(device, precision),
    )
    left = [row.reason for row in (*imported.quarantined, *prepared.quarantined)]
    return Aligned(loaded.model, loaded.processor, last, result.history, left)


def _computing(device: str, precision: str) -> RunSection:
    return RunSection.model_validate({"device": device, "precision": precision})


def _saved(model: Any, processor: Any, home: Path) -> str:
    """Where the model lies; an object is saved there first."""
    if isinstance(model, str | Path):
        return str(model)
    if processor is None:
        raise RadprefError("a model that is an object needs its processor beside it; give both, or a path or name.")
    folder = home / "start"
    if not (folder / "config.json").exists():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return str(folder)


def _written(rows: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Path, list[Path]]:
    """The rows as a file in TRL's layout, their pictures beside it, and the folders of images given by path."""
    lines = []
    folders: dict[Path, None] = {}
    for number, row in enumerate(rows):
        given = row.get("images", row.get("image"))
        paths = []
        for place, image in enumerate(given if isinstance(given, list | tuple) else [given]):
            if isinstance(image, Image.Image):
                path = folder / f"{number}-{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
                image = path
            elif image is not None:
                image = Path(image).absolute()
                folders[image.parent] = None
            paths.append(str(image))
        lines.append(json.dumps({**row, "images": paths, "image": None}))
    path = folder / "pairs.jsonl"
    write_atomically(path, "".join(f"{line}\n" for line in lines))
    return path, list(folders)


# ------------------------------------------------------------------------------------------ evaluation


def evaluate(
    references: Sequence[str],
    candidates: Sequence[str],
    *,
    patients: Sequence[str] | None = None,
    system: str = "candidate",
    baselines: bool = True,
    normals: NormalsRule = "weigh",
    resamples: int = 1000,
    seed: int = 17,
) -> list[Metric]:
    """Every report metric of some candidates, each with its n and its 95 % interval over patients.

    Args:
        patients: of each report; without it every report is a patient of its own.
        baselines: measure the trivial answers too (a constant normal report, another patient's reference).
        normals: what agreed normal statements count in GREEN, as ``judge.normals`` of a recipe.

    Raises:
        ValueError: lists of different length.
    """
    owners = [str(number) for number in range(len(references))] if patients is None else list(patients)
    if not len(references) == len(candidates) == len(owners):
        raise ValueError("references, candidates and patients must be lists of the same length")
    questions = [
        Question(id=str(n), study=str(n), patient=owner, split="test", images=(), prompt="", reference=text)
        for n, (text, owner) in enumerate(zip(references, owners, strict=True))
    ]
    said = {system: {str(number): text for number, text in enumerate(candidates)}}
    texts = said | (evaluation.baselines([], questions, seed) if baselines else {})
    return [
        row
        for name, answers in texts.items()
        for row in evaluation.measure(name, questions, answers, resamples=resamples, seed=seed, normals=normals).metrics
    ]


__all__ = [
    "Aligned",
    "Result",
    "align",
    "compare",
    "corrupt",
    "evaluate",
    "judge",
    "label",
    "load_recipe",
    "load_studies",
    "pair",
    "read_findings",
    "run",
]
