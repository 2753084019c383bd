"""Finished runs held against each other: which are seeds of one method, and what is more than chance between methods.

Read of a run is what its stages' marks say that its results follow from, and the sums by test patient that `evaluate`
leaves behind; nothing is computed of answers or models again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radpref import config
from radpref.files import content_key
from radpref.pipeline import road_of
from radpref.rooms import evaluation
from radpref.runs.context import Left
from radpref.runs.folder import Run, RunError
from radpref.stages.evaluate import STAGE as EVALUATE
from radpref.stages.ports import AFTER, BEFORE, BY_PATIENT, CONTROL, TEST, UNTOUCHED

if TYPE_CHECKING:
    from radpref.evaluation import Estimate, PatientSums

SEED_KEYS = ("run.seed", "data.phantom.seed")
"""What sets two runs of one method apart."""
_MEASURING = ("evaluate.", "report.", "headroom.")
"""Sections that say how a run is measured and shown, not what it makes."""
USUAL: dict[str, tuple[str, ...]] = {
    "report": (
        "green_mean",
        "lc-green_mean",
        "finding_f1_micro_truth_uncertain-positive",
        "finding_f1_micro_reference_uncertain-positive",
        "finding_recall_micro_truth_uncertain-positive",
        "hallucination_rate_micro_truth",
    ),
    "questions": ("vqa_accuracy_all", "vqa_accuracy_balanced"),
}
"""Of each kind of task, the metrics that are compared when none is named; where the truth is unknown, without it."""
NAMED = 3
"""Most keys in a method's name; of more, it is called by a folder."""
_RULERS = ("the lexicon", "the judges' rules", "the code of evaluation", "the code of judges", "the code of findings")
"""What `evaluate` measures with, as its mark names it."""


@dataclass(frozen=True)
class Finished:
    """What comparing needs of a finished run."""

    folder: Path
    kind: str
    """Of its task: ``report`` or ``questions``."""
    settings: Mapping[str, Any]
    """All that its results follow from, seeds apart: runs with the same are seeds of one method."""
    seed: tuple[Any, ...]
    """Values of ``SEED_KEYS``; of a run on other data than phantoms the second is None."""
    test: str
    """A digest of the test questions: ids, patients, references and truths."""
    rulers: Mapping[str, str]
    """Versions of the judges, the lexicon and the rules that it was measured by."""
    systems: tuple[str, ...]
    columns: tuple[str, ...]
    """What is counted by patient."""

    def sums(self, system: str) -> PatientSums:
        """What a system counts by patient. Raises RunError where there is no such system."""
        if system not in self.systems:
            there = ", ".join(repr(name) for name in self.systems)
            raise RunError(f"{self.folder} has no system {system!r}; measured are {there}.")
        table = Run(self.folder).table(EVALUATE.name, BY_PATIENT)
        rows = (row for row in table if row.system == system)
        return evaluation.sums_of(rows, self.columns, self.test)


def read_finished(folder: Path) -> Finished:
    """A finished run, to be compared.

    Raises:
        RunError: no run, one that has not been measured to the end, or one measured before sums by patient were kept;
            with what to do.
    """
    run = Run(folder)
    road = road_of(run.recipe)
    if EVALUATE not in road:
        raise RunError(f"{folder} has no studies, so that nothing of it was measured; there is nothing to compare.")
    mark = run.mark(EVALUATE.name)
    if mark is None:
        raise RunError(f"{folder} has not been measured to the end. `radpref run {folder}` goes on with it.")
    if BY_PATIENT.name not in mark.tables:
        raise RunError(
            f"{folder} was measured by a version that kept no sums by patient. `radpref evaluate {folder} --redo` "
            "measures it again (seconds to minutes; no model is run), `radpref report` then writes its page."
        )
    settings: dict[str, Any] = {}
    for stage in road[: road.index(EVALUATE) + 1]:
        known = run.mark(stage.name)
        if known is None:
            raise RunError(f"`{stage.name}` of {folder} has not finished. `radpref run {folder}` goes on with it.")
        settings |= known.basis.config
        if stage is not EVALUATE:
            settings |= {name: value for name, value in known.basis.identity.items() if name != "the kind of device"}
    seed = tuple(settings.pop(key, None) for key in SEED_KEYS)
    phantom = settings.get("data.source", run.recipe.data.source) == "phantom"
    return Finished(
        folder=folder,
        kind=run.recipe.task.kind,
        settings={key: value for key, value in sorted(settings.items()) if not key.startswith(_MEASURING)},
        seed=seed if phantom else (seed[0], None),
        test=_test(run),
        rulers={name: value for name, value in mark.basis.identity.items() if name in _RULERS},
        systems=tuple(mark.counts["systems"]),
        columns=tuple(mark.counts["columns"]),
    )


def _test(run: Run) -> str:
    """What the test questions ask and are held against, wherever their images lie."""
    table = Left(run, road_of(run.recipe)).table(TEST)
    rows = () if table is None else table
    return content_key(
        [
            content_key(
                [row.id, row.patient, row.reference, row.answer, row.truth and [f.model_dump() for f in row.truth]]
            )
            for row in rows
        ]
    )


# ------------------------------------------------------------------------------------------ methods


@dataclass(frozen=True)
class Method:
    """Runs that differ in their seeds alone."""

    name: str
    runs: Mapping[tuple[Any, ...], Finished]
    """By seed."""


@dataclass(frozen=True)
class Difference:
    """Against one baseline, paired by seed and patient."""

    difference: Estimate
    p_holm: float
    """Over all differences of the same metric: methods times baselines."""


@dataclass(frozen=True)
class Row:
    """One system of one method on one metric."""

    metric: str
    method: str
    system: str
    name: str
    """How a table calls it: the system, of several methods with the method before it."""
    value: Estimate
    words: float | None
    """Mean words of an answer."""
    differences: Mapping[str, Difference]
    """By baseline; none of a baseline itself."""


@dataclass(frozen=True)
class Compared:
    """Everything that a comparison of runs has to say."""

    metrics: tuple[str, ...]
    against: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What a reader must know: which verdicts rest on a single training, what intervals cover."""


def methods_of(runs: Sequence[Finished]) -> list[Method]:
    """The runs by method, each named by its recipe's method and what sets it apart.

    Raises:
        RunError: the same method and seed twice, other tasks, other judges, or other test questions; with what to do.
    """
    _refuse(runs)
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(content_key(run.settings), []).append(run)
    names = _names([own[0] for own in groups.values()])
    found = []
    for name, own in zip(names, groups.values(), strict=True):
        by_seed: dict[tuple[Any, ...], Finished] = {}
        for run in own:
            if run.seed in by_seed:
                raise RunError(
                    f"{by_seed[run.seed].folder} and {run.folder} are of one recipe and one seed {_seed(run)}, so that "
                    "they are no two trainings. Give one of them, or train again with another run.seed."
                )
            by_seed[run.seed] = run
        found.append(Method(name, by_seed))
    return found


def _refuse(runs: Sequence[Finished]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.kind != first.kind:
            raise RunError(
                f"{first.folder} is about {_about(first)} and {run.folder} about {_about(run)}; they share no metric. "
                "Compare each with its like."
            )
        other = [name for name in (*first.rulers, *run.rulers) if first.rulers.get(name) != run.rulers.get(name)]
        if other:
            raise RunError(
                f"{first.folder} and {run.folder} were measured by different versions of {other[0]} "
                f"({first.rulers.get(other[0])} and {run.rulers.get(other[0])}), so that a difference may be the "
                "judge's. `radpref evaluate RUN --redo` measures the older one again; no model is run."
            )
    worlds: dict[Any, Finished] = {}
    for run in runs:
        known = worlds.setdefault(run.seed[1], run)
        if known.test != run.test:
            world = "" if run.seed[1] is None else f", in the world of data.phantom.seed {run.seed[1]}"
            raise RunError(
                f"{known.folder} and {run.folder} were tested on different questions or against different "
                f"references{world}; their difference would be that of the tests. Give both the same data.* settings "
                "(for phantoms, data.phantom.seed may differ and counts as part of the seed)."
            )


def _about(run: Finished) -> str:
    return "reports" if run.kind == "report" else "questions"


def _seed(run: Finished) -> str:
    return ", ".join(f"{key} {value}" for key, value in zip(SEED_KEYS, run.seed, strict=True) if value is not None)


def _names(firsts: Sequence[Finished]) -> list[str]:
    """A name for each method: ``chexalign``; where that does not tell them apart, with the keys that do."""
    roads: list[str] = [Run(one.folder).recipe.method for one in firsts]
    names = []
    for one, road in zip(firsts, roads, strict=True):
        rivals = [other for other, its in zip(firsts, roads, strict=True) if its == road and other is not one]
        keys = [
            key
            for key, value in one.settings.items()
            if "." in key and any(other.settings.get(key) != value for other in rivals)
        ]
        if not rivals:
            names.append(road)
        elif 0 < len(keys) <= NAMED:
            told = " ".join(f"{key}={_plain(one.settings[key])}" for key in keys)
            names.append(f"{road} {told}")
        else:
            names.append(f"{road} as {one.folder.name}")
    twice = {name for name in names if names.count(name) > 1}
    return [f"{name} ({one.folder})" if name in twice else name for name, one in zip(names, firsts, strict=True)]


def _plain(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


# ------------------------------------------------------------------------------------------ the comparison


def compare_runs(
    folders: Sequence[Path],
    *,
    system: str = AFTER,
    against: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Compared:
    """A system of every method, over its seeds and their patients, and its difference to each baseline.

    Args:
        folders: finished runs.
        against: systems of the same runs (``sft``), or methods by the names that they get; without it, the model
            before alignment and the control, where there are any.
        metrics: by name; without it, the judge's, one that no judge has a say in, and what a gain may cost.

    Raises:
        RunError: runs that cannot be held against each other, an unknown system, baseline or metric; with what to do.
    """
    runs = [read_finished(folder) for folder in folders]
    methods = methods_of(runs)
    wanted = _metrics(runs[0].kind, metrics)
    baselines = _baselines(methods, system, against)
    held: dict[tuple[str, str], Mapping[Hashable, PatientSums]] = {}

    def sums(method: Method, name: str) -> Mapping[Hashable, PatientSums]:
        if (method.name, name) not in held:
            held[method.name, name] = {seed: run.sums(name) for seed, run in method.runs.items()}
        return held[method.name, name]

    length = "words_mean" if runs[0].kind == "report" else "vqa_words_mean"
    rows: list[Row] = []
    shown: list[str] = []
    for metric in wanted:
        found: list[Row] = []
        for method in methods:
            own = [name for name in baselines if name != system and _all_have(method, name)]
            for name in (*own, system):
                value = evaluation.over_seeds(metric, sums(method, name))
                if value is None:
                    continue
                words = evaluation.over_seeds(length, sums(method, name), resamples=2)
                differences = _differences(metric, method, methods, name, baselines, sums) if name == system else {}
                told = name if len(methods) == 1 else f"{method.name}: {name}"
                found.append(
                    Row(metric, method.name, name, told, value, None if words is None else words.value, differences)
                )
        if found:
            shown.append(metric)
            rows += _corrected(found)
    if not rows:
        raise RunError(
            f"none of {', '.join(wanted)} is defined for {system!r} in these runs; metrics.json of a run has what is."
        )
    return Compared(tuple(shown), tuple(baselines), tuple(rows), _notes(methods, rows))


def _differences(
    metric: str,
    method: Method,
    methods: Sequence[Method],
    system: str,
    baselines: Sequence[str],
    sums: Callable[[Method, str], Mapping[Hashable, PatientSums]],
) -> dict[str, Difference]:
    found = {}
    for name in baselines:
        rival = next((one for one in methods if one.name == name), None)
        if rival is method or (rival is None and not _all_have(method, name)):
            continue
        before = sums(method, name) if rival is None else sums(rival, system)
        one = evaluation.difference_over_seeds(metric, before, sums(method, system))
        if one is not None:
            found[name] = Difference(one, one.p)
    return found


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows of one metric with Holm's correction over all their differences."""
    places = [(at, name) for at, row in enumerate(rows) for name in row.differences]
    adjusted = evaluation.holm([rows[at].differences[name].difference.p for at, name in places])
    told = dict(zip(places, adjusted, strict=True))
    return [
        replace(
            row,
            differences={name: replace(one, p_holm=told[at, name]) for name, one in row.differences.items()},
        )
        for at, row in enumerate(rows)
    ]


def _all_have(method: Method, system: str) -> bool:
    return all(system in run.systems for run in method.runs.values())


def _baselines(methods: Sequence[Method], system: str, against: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(name for method in methods for run in method.runs.values() for name in run.systems))
    if against is None:
        usual = [name for name in (BEFORE, UNTOUCHED, CONTROL) if any(_all_have(one, name) for one in methods)]
        # where a method was fine-tuned, the model as it was given is no baseline of its alignment
        own = [name for name in usual if name != UNTOUCHED or BEFORE not in usual or len(methods) > 1]
        return [name for name in own if name != system]
    names = [method.name for method in methods]
    for name in against:
        if name not in names and not any(_all_have(one, name) for one in methods):
            raise RunError(
                f"there is no baseline {name!r}{config.nearest(name, [*known, *names]) or '.'} Systems of these runs: "
                f"{', '.join(known)}. Methods: {', '.join(names)}."
            )
        if name == system:
            raise RunError(f"{system!r} cannot be held against itself; give another --against or --system.")
    return list(dict.fromkeys(against))


def _metrics(kind: str, metrics: Sequence[str] | None) -> list[str]:
    if not metrics:
        return list(USUAL[kind])
    for name in metrics:
        try:
            evaluation.definition(name)
        except KeyError:
            near = config.nearest(name, [*evaluation.METRICS, *USUAL["questions"]])
            raise RunError(
                f"there is no metric {name!r}{near or '.'} metrics.json of a run has all their names."
            ) from None
    return list(dict.fromkeys(metrics))


def _notes(methods: Sequence[Method], rows: Sequence[Row]) -> tuple[str, ...]:
    estimates = [row.value for row in rows] + [one.difference for row in rows for one in row.differences.values()]
    found = []
    single = [method.name for method in methods if len(method.runs) == 1]
    if single:
        found.append(
            f"{', '.join(single)}: one training: interval over patients alone; says nothing of another training."
        )
    elif any(one.one_training for one in estimates):
        found.append("One seed in common: interval over patients alone; says nothing of another training.")
    several = [one for one in estimates if not one.one_training]
    if several:
        shared = {one.shared for one in several}
        how = (
            "tested on the same patients, whose chance is added"
            if shared == {True}
            else "some tested on the same patients"
        )
        how = "each with its own test patients" if shared == {False} else how
        found.append(f"95 % intervals of Student's t over trainings, {how}.")
    if any(row.differences for row in rows):
        found.append("Differences are paired by seed and patient; Holm over all differences of a metric. A difference "
                     "that is not clear of 0 is not shown to be none.")  # fmt: skip
    return tuple(found)


def as_plain(found: Compared) -> dict[str, Any]:
    """A comparison as values of JSON."""

    def plain(one: Estimate) -> dict[str, Any]:
        numbers = {name: None if value != value else value for name, value in one._asdict().items()}
        return numbers | {"by_seed": list(one.by_seed), "one_training": one.one_training}

    return {
        "metrics": {name: evaluation.definition(name).rule for name in found.metrics},
        "rows": [
            {
                "metric": row.metric, "method": row.method, "system": row.system, "words": row.words,
                "value": {name: number for name, number in plain(row.value).items() if name != "p"},
                "against": {
                    name: plain(one.difference) | {"p_holm": one.p_holm} for name, one in row.differences.items()
                },
            }
            for row in found.rows
        ],
        "notes": list(found.notes),
    }  # fmt: skip
