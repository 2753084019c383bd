"""How a judge agrees with radiologists: Kendall's tau-b between its scores and the errors that people counted.

Read as published: ReXVal (Yu et al., Patterns 2023; PhysioNet ``rexval-dataset``) and RadEvalX (Calamida et al., 2024;
PhysioNet ``rad-eval-x``); or anyone's table with ``id, reference, candidate, significant`` and, where it has it,
``insignificant``. Nothing of these is shipped.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radpref.judges.case import Case, JudgeError
from radpref.judges.contract import Judge
from radpref.outside import guarded, read_text

REXVAL_REPORTS = "50_samples_gt_and_candidates.csv"
REXVAL_COUNTS = "6_valid_raters_per_rater_error_categories.csv"
_CANDIDATES = ("radgraph", "bertscore", "s_emb", "bleu")
"""ReXVal's columns of candidates: each the report of another patient that the metric of its name found nearest."""
RADEVALX_COUNTS = {
    "significant": "RadEval_clinically_significant_errors.csv",
    "insignificant": "RadEval-clinically_insignificant_errors.csv",
}
_IDS = ("id", "report_id", "study_id", "study", "uid")
_REFERENCES = ("reference", "ground_truth", "gt_report", "gt", "ground_truth_report", "ref")
_GIVEN = ("candidate", "candidate_report", "prediction", "predicted", "generated", "hyp", "m2tr")
_RESAMPLES = 1000
Row = Mapping[str, str]


@dataclass(frozen=True)
class Rated:
    """One candidate, and what radiologists counted in it."""

    id: str
    study: str
    """What is drawn together in a bootstrap: the candidates of one study."""
    reference: str
    candidate: str
    significant: float
    """Clinically significant errors, the mean over the raters."""
    insignificant: float | None


@dataclass(frozen=True)
class Agreement:
    """One judge against one kind of counts."""

    judge: str
    errors: str
    """``significant`` or ``all``."""
    n: int
    unscored: int
    tau: float
    """Kendall's tau-b between score and fewer errors, -1 to 1; NaN where either never changes."""
    low: float
    high: float
    """Bootstrap interval of 95 % over studies."""


def read_counts(path: Path, reports: Path | None = None) -> list[Rated]:
    """Candidates with radiologists' counts.

    Args:
        path: ReXVal's or RadEvalX's folder, or one of its files of counts, or a CSV of one's own.
        reports: a CSV with id, reference and candidate, where ``path`` does not hold the reports (RadEvalX).

    Raises:
        JudgeError: which file or column is not there.
    """
    folder = path if path.is_dir() else path.parent
    if (path.is_dir() or path.name in (REXVAL_COUNTS, REXVAL_REPORTS)) and (folder / REXVAL_COUNTS).exists():
        return _rexval(folder)
    if (path.is_dir() or path.name in RADEVALX_COUNTS.values()) and _radevalx_files(folder):
        return _radevalx(folder, reports)
    if path.is_dir():
        raise JudgeError(
            f"{path} holds neither ReXVal's counts ({REXVAL_COUNTS}) nor RadEvalX's "
            f"({RADEVALX_COUNTS['significant']}). Give the folder as it was published, or a CSV with id, reference, "
            "candidate, significant."
        )
    return _own(path, reports)


def _rexval(folder: Path) -> list[Rated]:
    """Studies are numbered by their row in the file of reports, from 0; counts come a rater, kind and candidate."""
    samples = _rows(folder / REXVAL_REPORTS)
    totals: dict[tuple[int, str], dict[str, dict[bool, float]]] = defaultdict(dict)
    for row in _rows(
        folder / REXVAL_COUNTS, ("study_number", "candidate_type", "clinically_significant", "num_errors")
    ):
        rater = totals[int(row["study_number"]), row["candidate_type"]].setdefault(row.get("rater_index", ""), {})
        significant = row["clinically_significant"].strip().lower() in ("true", "1", "yes")
        rater[significant] = rater.get(significant, 0.0) + _count(row["num_errors"])
    first = 0 if any(study == 0 for study, _ in totals) else 1
    rated = []
    for (study, kind), raters in sorted(totals.items()):
        row = samples[study - first]
        reference, candidate = _cell(row, _REFERENCES), row.get(kind, "")
        if kind not in row or not reference:
            raise JudgeError(f"{REXVAL_REPORTS} has no column {kind!r} or no reference, which {REXVAL_COUNTS} names.")
        means = {known: sum(r.get(known, 0.0) for r in raters.values()) / len(raters) for known in (True, False)}
        rated.append(Rated(f"{study}/{kind}", str(study), reference, candidate, means[True], means[False]))
    return rated


def _radevalx_files(folder: Path) -> bool:
    return (folder / RADEVALX_COUNTS["significant"]).exists()


def _radevalx(folder: Path, reports: Path | None) -> list[Rated]:
    """Two tables of consensus counts, a row a report, a column a kind of error; an empty cell is taken for none."""
    texts = _texts(reports) if reports else _found_texts(folder)
    sums: dict[str, dict[str, float]] = {}
    for what, name in RADEVALX_COUNTS.items():
        if not (folder / name).exists():
            continue
        for row in _rows(folder / name):
            key = _cell(row, _IDS)
            kinds = [value for column, value in row.items() if column.lower() not in (*_IDS, "error_type", "")]
            sums.setdefault(key, {})[what] = sum(_count(value) for value in kinds)
    missing = sorted(sums.keys() - texts.keys())
    if missing:
        raise JudgeError(
            f"{len(missing)} reports of {folder.name} have counts but no text, {missing[0]!r} among them. Give a CSV "
            "with id, reference and candidate: --reports FILE."
        )
    return [
        Rated(key, key, *texts[key], found.get("significant", 0.0), found.get("insignificant"))
        for key, found in sorted(sums.items())
    ]


def _own(path: Path, reports: Path | None) -> list[Rated]:
    texts = _texts(reports) if reports else None
    rated = []
    for number, row in enumerate(_rows(path, ("significant",))):
        key = _cell(row, _IDS) or str(number)
        if texts is not None and key not in texts:
            raise JudgeError(f"{path.name} counts errors in {key!r}, which the reports do not hold.")
        reference, candidate = texts[key] if texts is not None else (_cell(row, _REFERENCES), _cell(row, _GIVEN))
        if not reference:
            raise JudgeError(
                f"{path.name} has no reference for {key!r}; it needs id, reference, candidate, significant."
            )
        other = row.get("insignificant")
        study = row.get("study") or key
        rated.append(
            Rated(
                key, study, reference, candidate, _count(row["significant"]), None if other is None else _count(other)
            )
        )
    return rated


def _found_texts(folder: Path) -> dict[str, tuple[str, str]]:
    for path in sorted(folder.glob("*.csv")):
        if path.name not in RADEVALX_COUNTS.values():
            texts = _texts(path, required=False)
            if texts:
                return texts
    return {}


def _texts(path: Path, *, required: bool = True) -> dict[str, tuple[str, str]]:
    texts = {}
    for row in _rows(path):
        key, reference, candidate = (_cell(row, names) for names in (_IDS, _REFERENCES, _GIVEN))
        if key and reference:
            texts[key] = (reference, candidate)
        elif required:
            raise JudgeError(f"{path.name} needs the columns id, reference and candidate; it has {', '.join(row)}.")
    return texts


def _rows(path: Path, needs: Sequence[str] = ()) -> list[dict[str, str]]:
    with guarded(path, "Save it as CSV in UTF-8.", JudgeError):
        lines = io.StringIO(read_text(path, JudgeError, most=64 << 20), newline="")
        rows = [{key: value or "" for key, value in row.items() if key is not None} for row in csv.DictReader(lines)]
    lacking = [name for name in needs if rows and name not in rows[0]]
    if lacking or not rows:
        what = f"no column {lacking[0]!r}" if lacking else "no rows"
        raise JudgeError(f"{path.name} has {what}; see docs/judges.md for the layouts that are read.")
    return rows


def _cell(row: Row, names: Iterable[str]) -> str:
    known = {column.strip().lower(): value for column, value in row.items()}
    return next((known[name].strip() for name in names if known.get(name, "").strip()), "")


def _count(cell: str) -> float:
    try:
        return float(cell) if cell.strip() else 0.0
    except ValueError:
        raise JudgeError(f"a count of errors is {cell!r}, which is no number.") from None


def agreements(judge: Judge, rated: Sequence[Rated], *, seed: int = 0, resamples: int = _RESAMPLES) -> list[Agreement]:
    """Kendall's tau-b of a judge with the significant errors, and with all where both kinds were counted."""
    judged = judge([Case(one.id, one.study, one.reference, one.candidate) for one in rated])
    scored = [(one, j.score) for one, j in zip(rated, judged, strict=True) if j.score is not None]
    kinds = {"significant": [one.significant for one, _ in scored]}
    if all(one.insignificant is not None for one, _ in scored):
        kinds["all"] = [one.significant + (one.insignificant or 0.0) for one, _ in scored]
    scores = np.array([score for _, score in scored])
    studies = [one.study for one, _ in scored]
    found = []
    for name, counts in kinds.items():
        errors = np.array(counts)
        low, high = _interval(scores, errors, studies, seed, resamples)
        n = len(scored)
        found.append(Agreement(judge.name, name, n, len(rated) - n, _tau(scores, errors), low, high))
    return found


def _tau(scores: np.ndarray, errors: np.ndarray) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(scores, -errors, variant="b").statistic) if len(scores) > 1 else float("nan")


def _interval(
    scores: np.ndarray, errors: np.ndarray, studies: Sequence[str], seed: int, resamples: int
) -> tuple[float, float]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, study in enumerate(studies):
        members[study].append(index)
    groups = [np.array(rows) for rows in members.values()]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples if len(groups) > 1 else 0):
        rows = np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))])
        drawn.append(_tau(scores[rows], errors[rows]))
    known = [tau for tau in drawn if np.isfinite(tau)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def rank_correlation(ours: Mapping[str, float], others: Mapping[str, float]) -> tuple[float, int]:
    """Spearman's rho between two scores of the same systems, over those that both have; NaN below three."""
    from scipy.stats import spearmanr

    both = sorted(ours.keys() & others.keys())
    if len(both) < 3:
        return float("nan"), len(both)
    return float(spearmanr([ours[name] for name in both], [others[name] for name in both]).statistic), len(both)


HEADER = ("judge", "errors", "n", "Kendall's tau-b", "95 % interval")


def cells(row: Agreement) -> tuple[str, ...]:
    """A row of a table under ``HEADER``."""
    count = f"{row.n}" + (f" ({row.unscored} unscored)" if row.unscored else "")
    return (row.judge, row.errors, count, f"{row.tau:.3f}", f"{row.low:.3f} to {row.high:.3f}")


def markdown(rows: Sequence[Agreement]) -> str:
    """A table of agreements."""
    lines = [f"| {' | '.join(HEADER)} |", "|---|---|---:|---:|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells(row))} |" for row in rows)]) + "\n"
