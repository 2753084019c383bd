"""How well findings are read: against human coding, against the CheXpert labeler, against radlabels.

    python benchmarks/findings_validation.py [--data FOLDER] > tables.md

Reads the real reports in FOLDER (default: $RADPREF_SHARED_DATA, else ../shared/data beside the checkout) and prints
every table of docs/findings.md as Markdown. Counts and scores only; no report text. Intervals are percentiles of
2,000 bootstrap resamples of reports (seed 0).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radpref.evaluation.resampling import draws, interval
from radpref.findings import CLASSES_14, labels, read

RESAMPLES = 2000
SEED = 0

GOLD = ("Atelectasis", "Cardiomegaly", "Effusion", "Pneumonia", "Pneumothorax", "Consolidation", "Edema")
"""Classes of the human coding for which the original labeler's figure is published."""
OURS: dict[str, frozenset[str]] = {name: frozenset({name.lower()}) for name in GOLD} | {
    "Effusion": frozenset({"pleural effusion"}),
    "Mass": frozenset({"mass"}),
    "Nodule": frozenset({"nodule"}),
    "Emphysema": frozenset({"emphysema"}),
    "Fibrosis": frozenset({"fibrosis"}),
    "Pleural_Thickening": frozenset({"pleural thickening"}),
}
"""Class of the human coding to our names."""
CHEXPERT_NAME = {"Effusion": "Pleural Effusion"}
KEYWORDS = {
    "Atelectasis": 0.90,
    "Cardiomegaly": 0.95,
    "Effusion": 0.80,
    "Pneumonia": 0.44,
    "Pneumothorax": 0.79,
    "Consolidation": 0.89,
    "Edema": 0.60,
}
"""F1 of thirty lines of keywords and negation words on findings and impression: what any reader has to beat."""
RADLABELS: dict[str, frozenset[str]] = {
    name: frozenset(ours)
    for name, ours in {
        "pleural_effusion": {"pleural effusion", "costophrenic blunting"},
        "pneumothorax": {"pneumothorax"},
        "pulmonary_congestion_pulmonary_venous_congestion": {"vascular congestion", "edema"},
        "cardiomegaly": {"cardiomegaly"},
        "pulmonary_edema": {"edema"},
        "atelectasis": {"atelectasis"},
        "pneumonia": {"pneumonia", "infection"},
        "enteric_tube": {"enteric tube"},
        "endotracheal_tube": {"endotracheal tube"},
        "tracheostomy_tube": {"tracheostomy"},
        "consolidation": {"consolidation"},
        "central_venous_catheter": {"central venous catheter"},
        "intercostal_drain": {"chest tube"},
        "emphysema": {"emphysema", "subcutaneous emphysema"},
        "fracture_generic": {"fracture", "rib fracture"},
        "pacemaker_electronic_cardiac_device_or_wires": {"pacemaker"},
        "calcification_of_the_aorta": {"aortic atherosclerosis"},
        "tortuous_aorta": {"tortuous aorta"},
        "subcutaneous_emphysema": {"subcutaneous emphysema"},
        "hyperinflation": {"hyperinflation"},
        "lung_nodule_or_mass": {"nodule", "mass"},
        "enlarged_cardiomediastinum": {"enlarged mediastinum"},
        "pleural_thickening": {"pleural thickening"},
        "pneumomediastinum": {"pneumomediastinum"},
        "pneumoperitoneum": {"pneumoperitoneum"},
        "hiatus_hernia": {"hiatal hernia"},
    }.items()
}
"""radlabels' classes that map onto ours. Its airspace and lung opacity take words together that we keep apart."""


@dataclass(frozen=True)
class Reading:
    """Who said what of one class, report by report: boolean arrays (reports,)."""

    said: np.ndarray
    true: np.ndarray

    def counts(self) -> np.ndarray:
        """True positives, false positives, false negatives: float64 (reports, 3)."""
        tp, fp, fn = self.said & self.true, self.said & ~self.true, ~self.said & self.true
        return np.stack([tp, fp, fn], axis=1).astype(np.float64)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 0)


def f1(sums: np.ndarray) -> np.ndarray:
    """F1 from (..., 3) sums of tp, fp, fn."""
    tp, fp, fn = np.moveaxis(sums, -1, 0)
    return ratio(2 * tp, 2 * tp + fp + fn)


def resampled(counts: np.ndarray) -> np.ndarray:
    """F1 in each bootstrap resample of reports: (resamples,)."""
    return f1(draws(len(counts), RESAMPLES, SEED) @ counts)


def shown(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}".lstrip("0") if value < 1 else f"{value:.3f}"


def between(values: np.ndarray) -> str:
    found = interval(values)
    return f"{shown(found[0])} to {shown(found[1])}" if found else "–"


def row(name: str, counts: np.ndarray, *more: str) -> str:
    sums = counts.sum(axis=0)
    tp, fp, fn = sums
    cells = [
        name,
        f"{tp + fn:.0f}",
        f"{tp + fp:.0f}",
        shown(float(ratio(tp, tp + fp))),
        shown(float(ratio(tp, tp + fn))),
        shown(float(f1(sums))),
        between(resampled(counts)),
        *more,
    ]
    return f"| {' | '.join(cells)} |"


HEAD = ("class", "positive", "we say", "precision", "recall", "F1", "95 % interval")


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    align = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", align, *rows]) + "\n"


def present(text: str) -> set[str]:
    """Names asserted without doubt."""
    return {finding.name for finding in read(text) if finding.presence == "present"}


def asserted(text: str) -> set[str]:
    return {finding.name for finding in read(text) if finding.presence != "absent"}


def array(values: Iterable[object]) -> np.ndarray:
    return np.array([bool(value) for value in values], dtype=bool)


def against_people(rows: Sequence[Mapping[str, Any]]) -> None:
    coded = [r for r in rows if r["negbio_gold14"]]
    said = [present(f"{r['findings']}\n\n{r['impression']}") for r in coded]

    def reading(name: str) -> Reading:
        return Reading(array(s & OURS[name] for s in said), array(r["negbio_gold14"][name] for r in coded))

    counts = {name: reading(name).counts() for name in OURS}
    print(f"### Findings and impression against human coding ({len(coded):,} reports)\n")
    rows_ = [row(name, counts[name], shown(KEYWORDS[name])) for name in GOLD]
    rows_.append(row("**all seven, micro**", sum(counts[n] for n in GOLD), ".840"))  # type: ignore[arg-type]
    print(table((*HEAD, "F1 of keywords"), rows_))
    print("Other classes of the same coding, without a target:\n")
    print(table(HEAD, [row(name.replace("_", " "), counts[name]) for name in OURS if name not in GOLD]))

    print("### The same by halves\n")
    half = array(hashlib.blake2b(str(r["uid"]).encode()).digest()[0] % 2 for r in coded)
    micro = sum(counts[n] for n in GOLD)
    rows_ = [
        row(f"{name} ({int(mask.sum()):,} reports)", micro[mask])  # type: ignore[index]
        for name, mask in (("hash of the uid odd", half), ("hash of the uid even", ~half))
    ]
    print(table(("half", *HEAD[1:]), rows_))


def against_labeler_and_people(rows: Sequence[Mapping[str, Any]]) -> None:
    some = [r for r in rows if r["negbio_gold14"] and r["findings"] and r["chexpert_labeler_on_findings"]]
    said = [present(r["findings"]) for r in some]
    ours: dict[str, np.ndarray] = {}
    theirs: dict[str, np.ndarray] = {}
    arbitrated = [0, 0]
    for name in GOLD:
        true = array(r["negbio_gold14"][name] for r in some)
        we = array(s & OURS[name] for s in said)
        they = array(r["chexpert_labeler_on_findings"][CHEXPERT_NAME.get(name, name)] == 1 for r in some)
        ours[name], theirs[name] = Reading(we, true).counts(), Reading(they, true).counts()
        arbitrated[0] += int(((we != they) & (we == true)).sum())
        arbitrated[1] += int((we != they).sum())
    ours["**all seven, micro**"] = sum(ours[n] for n in GOLD)  # type: ignore[assignment]
    theirs["**all seven, micro**"] = sum(theirs[n] for n in GOLD)  # type: ignore[assignment]
    print(f"### FINDINGS alone, beside the original labeler, against human coding ({len(some):,} reports)\n")
    lines = []
    for name in ours:
        we_f1, they_f1 = f1(ours[name].sum(axis=0)), f1(theirs[name].sum(axis=0))
        difference = resampled(ours[name]) - resampled(theirs[name])
        cells = [
            name,
            f"{ours[name][:, [0, 2]].sum():.0f}",
            shown(float(we_f1)),
            between(resampled(ours[name])),
            shown(float(they_f1)),
            between(resampled(theirs[name])),
            f"{we_f1 - they_f1:+.3f}",
            between(difference),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    head = ("class", "positive", "our F1", "95 % interval", "its F1", "95 % interval", "difference", "95 % interval")
    print(table(head, lines))
    print(
        f"Where we and the labeler disagree whether a class is positive ({arbitrated[1]:,} times in the seven "
        f"classes), the human coding says what we say {arbitrated[0]:,} times "
        f"({arbitrated[0] / arbitrated[1]:.0%}).\n"
    )


def against_labeler(rows: Sequence[Mapping[str, Any]]) -> None:
    some = [r for r in rows if r["findings"] and r["chexpert_labeler_on_findings"]]
    ours = [labels(r["findings"]) for r in some]
    theirs = [r["chexpert_labeler_on_findings"] for r in some]

    def counts(name: str, positive: tuple[int, ...]) -> np.ndarray:
        return Reading(array(o[name] in positive for o in ours), array(t[name] in positive for t in theirs)).counts()

    plain = {name: counts(name, (1,)) for name in CLASSES_14}
    print(f"### FINDINGS alone, agreement with the original labeler's output ({len(some):,} reports)\n")
    print("Positive is a label of 1; uncertain (-1), negative and blank are not.\n")
    rows_ = [row(name, plain[name]) for name in CLASSES_14]
    rows_.append(row("**13 classes, micro**", sum(plain[n] for n in CLASSES_14[1:])))  # type: ignore[arg-type]
    rows_.append(row("**14 classes, micro**", sum(plain[n] for n in CLASSES_14)))  # type: ignore[arg-type]
    either = sum(counts(n, (1, -1)) for n in CLASSES_14[1:])
    rows_.append(row("13 classes, micro, uncertain as positive on both sides", either))  # type: ignore[arg-type]
    print(table(("class", "it says", *HEAD[2:]), rows_))


def against_radlabels(rows: Sequence[Mapping[str, Any]]) -> None:
    said = [asserted(r["text"]) for r in rows]
    counts = {
        theirs: Reading(
            array(s & ours for s in said),
            array(r["labels"].get(theirs) in ("definitely present", "uncertain") for r in rows),
        ).counts()
        for theirs, ours in RADLABELS.items()
    }
    print(f"### radlabels' synthetic reports ({len(rows):,}, machine-made labels)\n")
    print("Positive is present or uncertain, on both sides.\n")
    ordered = sorted(counts, key=lambda name: -counts[name][:, [0, 2]].sum())
    micro: Any = sum(counts.values())
    lines = [row(f"{name} = {' or '.join(sorted(RADLABELS[name]))}", counts[name]) for name in ordered]
    print(table(HEAD, [*lines, row("**all, micro**", micro)]))
    half = array(hashlib.blake2b(str(r["id"]).encode()).digest()[0] % 2 for r in rows)
    print(
        table(("half", *HEAD[1:]), [row("hash of the id odd", micro[half]), row("hash of the id even", micro[~half])])
    )


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RADPREF_SHARED_DATA", beside)))
    folder = parser.parse_args().data
    openi = folder / "iu_xray_256" / "reports.jsonl"
    if not openi.is_file():
        parser.error(f"no real reports at {openi}; give their folder with --data or RADPREF_SHARED_DATA")
    reports = jsonl(openi)
    against_people(reports)
    against_labeler_and_people(reports)
    against_labeler(reports)
    against_radlabels(jsonl(folder / "radlabels_synthetic_1000" / "reports.jsonl"))


if __name__ == "__main__":
    main()
