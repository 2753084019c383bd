"""Edits and counterfactuals against what is known: phantoms, the built-in model's reports, the rules of radpref.

    python benchmarks/edits.py [--studies 400] [--seed 7] [--folder DIR]

The built-in model reports on phantoms that it was not trained on (greedy; kept in the folder, so that a second call
asks nothing again). Its reports are edited by rule, the references flipped, and both are read by a grammar of the
phantoms' closed vocabulary that is written here and shares nothing with radpref's reader: an error of that reader
cannot vouch for itself. Prints Markdown tables with n and 95 % intervals (Wilson).
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.stats import binomtest

from radpref.config import EditSection, ModelSection, PhantomSection, RunSection, TaskSection
from radpref.data.phantom import studies
from radpref.models import Vlm, generate, load, lost
from radpref.pairs import EDITORS, Built, counterfactuals, distance, edit_pairs, single
from radpref.records import Completion, Finding, Pair, Quarantined, Question
from radpref.tasks import report_question

NAMES = {
    "pleural effusion": r"effusions?",
    "pneumothorax": r"pneumothora(?:x|ces)",
    "consolidation": r"consolidations?",
    "lung opacity": r"opacit(?:y|ies)",
    "nodule": r"nodules?",
    "mass": r"mass(?:es)?",
    "atelectasis": r"atelectasis",
    "edema": r"edema",
    "cardiomegaly": r"cardiomegaly|heart (?:size )?is (?:\w+ly )?enlarged",
    "enlarged mediastinum": r"mediastinal widening|(?:mediastinum is|contours are) (?:\w+ly )?widened",
    "rib fracture": r"rib fractures?",
    "pleural thickening": r"pleural thickening",
    "endotracheal tube": r"endotracheal tubes?",
    "enteric tube": r"enteric tubes?",
    "central venous catheter": r"central venous catheters?",
    "pacemaker": r"pacemakers?",
    "pneumonia": r"pneumonia",
    "vascular congestion": r"congestion|congested",
    "lymphadenopathy": r"lymphadenopathy|hila are \w+",
    "fibrosis": r"fibrosis",
}
SEVERITIES = {
    "mild": r"mild(?:ly)?|minimal|small",
    "moderate": r"moderate(?:ly)?",
    "severe": r"severe(?:ly)?|marked|large",
}
SIDES = {"bilateral": r"bilateral|both|bibasilar|biapical", "left": r"left", "right": r"right"}
PLACES = {"apex": r"\w*apical|apex|apices", "base": r"\w*basilar|bases?"} | {
    f"{band} zone": rf"{band} zones?" for band in ("upper", "mid", "lower")
}
CHANGES = {
    "worse": r"increased|worse|worsened|worsening",
    "better": r"decreased|better|improved|improving",
    "unchanged": r"unchanged|stable",
    "new": r"new",
}
GONE = r"(?:has|have) (?:resolved|been removed)"
DENIED = r"(?:there (?:is|are) )?no |lungs are (?:otherwise )?clear without"


@dataclass(frozen=True)
class Said:
    """A statement of a report in the phantoms' vocabulary."""

    name: str
    side: str | None
    place: str | None
    severity: str | None
    change: str | None


def parse(report: str) -> tuple[frozenset[Said], frozenset[str]]:
    """What a report states and what it denies. ValueError where a sentence states two things: not this vocabulary."""
    stated, denied = set(), set()
    for sentence in re.split(r"(?<=\.)\s+|\n", report.lower()):
        body = re.sub(r"^(?:- )?(?:[a-z]+: )?", "", sentence.strip())
        names = [name for name, words in NAMES.items() if re.search(rf"\b(?:{words})\b", body)]
        if re.search(rf"^(?:{DENIED})", body):
            denied.update(names)
        elif not re.search(GONE, body) and names:
            if len(names) > 1:
                raise ValueError(f"two findings in one sentence: {names}")
            stated.add(
                Said(names[0], _one(SIDES, body), _one(PLACES, body), _one(SEVERITIES, body), _one(CHANGES, body))
            )
    return frozenset(stated), frozenset(denied)


def _one(words: dict[str, str], body: str) -> str | None:
    return next((value for value, pattern in words.items() if re.search(rf"\b(?:{pattern})\b", body)), None)


def agrees(report: str, truth: Sequence[Finding]) -> bool:
    """Whether a report states the whole truth and nothing else, in every attribute that both tell.

    A change that is not told is an error, but for ``unchanged``. Bilateral is left and right.
    """
    try:
        stated, denied = parse(report)
    except ValueError:
        return False
    if denied & {said.name for said in stated}:
        return False
    real = {_key(f.name, side): f for f in truth for side in _sides(f.side)}
    told = {_key(s.name, side): s for s in stated for side in _sides(s.side)}
    return real.keys() == told.keys() and all(_alike(told[key], finding) for key, finding in real.items())


def _key(name: str, side: str | None) -> tuple[str, str | None]:
    return name, side


def _sides(side: str | None) -> tuple[str | None, ...]:
    return ("left", "right") if side == "bilateral" else (side,)


def _alike(said: Said, finding: Finding) -> bool:
    for mine, real in ((said.place, finding.place), (said.severity, finding.severity)):
        if mine and real and mine != real:
            return False
    quiet = (None, "unchanged")
    return said.change == finding.change or (said.change in quiet and finding.change in quiet)


def only(pair: Pair) -> bool:
    """Whether the rejected side differs in the recorded attribute of the recorded finding alone."""
    try:
        (before, _), (after, denied) = parse(pair.chosen), parse(pair.rejected)
    except ValueError:
        return False
    notes = pair.provenance
    name, attribute = notes["finding"], notes["attribute"]
    gone, come = before - after, after - before
    if denied & {said.name for said in come}:
        return False
    if attribute == "presence" and notes["to"] == "absent":
        return not come and {s.name for s in gone} == {name} and name not in {s.name for s in after}
    if attribute == "presence":
        return not gone and {s.name for s in come} == {name} and name not in {s.name for s in before}
    field = "name" if attribute == "type" else attribute
    old, new = _value(notes["from"]), _value(notes["to"])
    named = all(s.name == name for s in gone) and all(getattr(s, field) == old for s in gone)
    return bool(gone) and named and {replace(s, **{field: new}) for s in gone} == come


def _value(text: str) -> str | None:
    return None if text == "none" else text


def answers(vlm: Vlm, questions: Sequence[Question], folder: Path) -> list[Completion]:
    """Greedy reports, made once."""
    kept = folder / f"answers-{vlm.fingerprint[:12]}-{len(questions)}.jsonl"
    if not kept.exists():
        rows = generate(vlm, questions, max_new_tokens=192, batch=32, seed=0)
        lines = [row.model_dump_json() for _, done in rows if not isinstance(done, Quarantined) for row in done]
        kept.write_text("\n".join(lines), "utf-8")
    return [Completion.model_validate(json.loads(line)) for line in kept.read_text("utf-8").splitlines()]


def line(what: str, hits: Iterable[bool]) -> str:
    """A row of a table: share, interval and n."""
    found = list(hits)
    if not found:
        return f"| {what} | - | - | 0 |"
    low, high = binomtest(sum(found), len(found)).proportion_ci(method="wilson")
    return f"| {what} | {sum(found) / len(found):.3f} | {low:.3f} to {high:.3f} | {len(found)} |"


def reasons(built: Built) -> str:
    """Why questions gave no pair."""
    return "; ".join(f"{reason}: {count}" for reason, count in sorted(built.dropped.items())) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--seed", type=int, default=7, help="of the world; the model was made from world 1")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "radpref-edits")
    options = parser.parse_args()

    folder = options.folder / f"world-{options.seed}"
    world = studies(PhantomSection(seed=options.seed), train=0, validation=0, test=options.studies, folder=folder)
    questions = [report_question(study, TaskSection(), 2) for study in world]
    truth = {question.id: question.truth or () for question in questions}
    vlm = load(ModelSection(), RunSection(precision="float32"))
    section = EditSection()
    rule = EDITORS["rule"]

    edits = edit_pairs(questions, answers(vlm, questions, folder), rule(section), section)
    pairs = edits.pairs
    spans = [
        (vlm, text, marks)
        for pair in pairs
        for text, marks in ((pair.chosen, pair.chosen_spans), (pair.rejected, pair.rejected_spans))
    ]
    away = [distance(pair.chosen, pair.rejected) for pair in pairs]
    none_lost = [True] * (sum(len(marks) for *_, marks in spans) - (gone := sum(lost(*one) for one in spans)))
    print(f"{len(questions)} phantoms of world {options.seed}, greedy reports of the built-in model, edited by rule\n")
    print("| edits | share | 95 % interval | n |\n|---|---|---|---|")
    print(line("questions with a verified edit", [one.failed is None for one in edits.edits]))
    print(line("chosen side agrees with the known truth", [agrees(p.chosen, truth[p.question]) for p in pairs]))
    print(line("rejected side does not", [not agrees(p.rejected, truth[p.question]) for p in pairs]))
    print(line("edit distance in words under .25", [value < 0.25 for value in away]))
    print(line("the model was right", [p.provenance["was_right"] == "yes" for p in pairs]))
    print(line("spans that have a token", [*none_lost, *[False] * gone]))
    print(f"\nNo pair: {reasons(edits)}")

    flipped = counterfactuals(questions, rule(single(section)), section)
    kinds = Counter(pair.provenance["attribute"] for pair in flipped.pairs)
    print("\n| counterfactuals of the references | share | 95 % interval | n |\n|---|---|---|---|")
    print(line("questions with a verified counterfactual", [one.failed is None for one in flipped.edits]))
    print(line("differs in the recorded attribute alone", [only(pair) for pair in flipped.pairs]))
    for kind in sorted(kinds):
        print(line(f"... {kind}", [only(p) for p in flipped.pairs if p.provenance["attribute"] == kind]))
    lengths = [len(p.rejected.split()) / len(p.chosen.split()) for p in flipped.pairs]
    print(line("length within 20 %", [0.8 <= ratio <= 1.25 for ratio in lengths]))
    print(f"\nNo pair: {reasons(flipped)}")


if __name__ == "__main__":
    main()
