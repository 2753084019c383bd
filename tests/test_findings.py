"""Radiology text to findings, and findings to CheXpert's labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.findings_validation import GOLD, KEYWORDS, OURS, RADLABELS
from radpref.data.phantom.image import generator
from radpref.data.phantom.patients import sample
from radpref.data.phantom.reports import write
from radpref.findings import CHEXPERT, CLASSES_5, CLASSES_14, COVERS, labels, lexicon, read
from radpref.findings.lexicon import _forms
from radpref.records import Finding

SAID = [
    ("No pleural effusion or pneumothorax.", {"pleural effusion": "absent", "pneumothorax": "absent"}),
    ("Pleural effusion or pneumothorax is not seen.", {"pleural effusion": "absent", "pneumothorax": "absent"}),
    ("No pneumothorax, small left effusion.", {"pneumothorax": "absent", "pleural effusion": "present"}),
    ("Cardiomegaly without overt edema.", {"cardiomegaly": "present", "edema": "absent"}),
    ("No edema, but there is a right effusion.", {"edema": "absent", "pleural effusion": "present"}),
    ("No significant change in the right effusion.", {"pleural effusion": "present"}),
    ("The effusion has resolved.", {"pleural effusion": "absent"}),
    ("The previously seen pneumothorax is no longer seen.", {"pneumothorax": "absent"}),
    ("There are no XXXX of a large pleural effusion.", {"pleural effusion": "absent"}),
    ("There is no focal XXXX, ___ or pneumothorax.", {"pneumothorax": "absent"}),
    ("Low volumes with no significant consolidation.", {"low lung volumes": "present", "consolidation": "absent"}),
    ("Pneumonia cannot be excluded.", {"pneumonia": "uncertain"}),
    ("Opacity may represent pneumonia.", {"lung opacity": "present", "pneumonia": "uncertain"}),
    ("Atelectasis or pneumonia.", {"atelectasis": "uncertain", "pneumonia": "uncertain"}),
    ("Effusion and/or atelectasis.", {"pleural effusion": "present", "atelectasis": "present"}),
    ("Elevated dome, question small effusion.", {"pleural effusion": "uncertain"}),
    ("Probable small effusion.", {"pleural effusion": "present"}),
    ("History of pneumonia.", {}),
    ("Recommend CT to exclude a mass.", {}),
    ("Heart size is normal.", {"cardiomegaly": "absent"}),
    ("Heart size is at the upper limits of normal.", {"cardiomegaly": "absent"}),
    ("The heart is not enlarged.", {"cardiomegaly": "absent"}),
    ("The heart is mildly enlarged.", {"cardiomegaly": "present"}),
    ("Heart: the heart is enlarged, increased from the prior.", {"cardiomegaly": "present"}),
    ("Enlargement of the cardiac silhouette.", {"cardiomegaly": "present"}),
    ("Normal heart size and mediastinal contours.", {"cardiomegaly": "absent", "enlarged mediastinum": "absent"}),
    ("Heart size normal and lungs are clear.", {"cardiomegaly": "absent", "lung disease": "absent"}),
    ("Heart is enlarged, mediastinum is normal.", {"cardiomegaly": "present", "enlarged mediastinum": "absent"}),
    ("The aorta is tortuous and calcified.", {"tortuous aorta": "present", "aortic atherosclerosis": "present"}),
    ("The pulmonary vasculature is not engorged.", {"vascular congestion": "absent"}),
    ("Vascular engorgement is within normal limits.", {"vascular congestion": "absent"}),
    ("Hyperexpanded but clear lungs.", {"hyperinflation": "present", "lung disease": "absent"}),
    ("No acute cardiopulmonary disease.", {"acute disease": "absent"}),
    ("NG tube with the tip not identified.", {"enteric tube": "present"}),
    ("Interval removal of the chest tube.", {"chest tube": "absent"}),
    ("9 mm nodule, not seen on prior exams.", {"nodule": "present"}),
    ("Pericardial effusion.", {"pericardial effusion": "present"}),
    ("Left lower lobe collapse.", {"atelectasis": "present"}),
    ("INDICATION: Rule out pneumonia. Effusion?\nFINDINGS: No edema.", {"edema": "absent"}),
    ("HISTORY: pneumothorax.\n\nLarge mass.", {"mass": "present"}),
    ("FINDINGS: Mass. COMPARISON: Effusion on CT. IMPRESSION: Edema.", {"mass": "present", "edema": "present"}),
    ("XXXX XXXX.", {}),
    ("", {}),
]


@pytest.mark.parametrize(("text", "said"), SAID, ids=[text[:40] for text, _ in SAID])
def test_presence(text: str, said: dict[str, str]) -> None:
    assert {finding.name: finding.presence for finding in read(text)} == said


TOLD: list[tuple[str, list[dict[str, Any]]]] = [
    ("Small left pleural effusion.", [{"side": "left", "severity": "mild"}]),
    (
        "Small left effusion with right basilar atelectasis.",
        [{"side": "left", "severity": "mild", "place": None}, {"side": "right", "severity": None, "place": "base"}],
    ),
    ("Opacities in the left and right lower lobes.", [{"side": "bilateral", "place": "lower lobe"}]),
    ("Nodule in the lingula.", [{"side": "left", "place": "lingula"}]),
    ("Bilateral effusions, right greater than left, have increased.", [{"side": "bilateral", "change": "worse"}]),
    ("Bibasilar atelectasis is unchanged.", [{"side": "bilateral", "place": "base", "change": "unchanged"}]),
    ("Stable severe cardiomegaly.", [{"severity": "severe", "change": "unchanged", "side": None}]),
    ("The heart is large.", [{"severity": None}]),
    ("No large right effusion.", [{"side": "right", "severity": None}]),
    ("Bilateral lower zone opacities.", [{"side": "bilateral", "place": "lower zone"}]),
    ("Opacities in both lung bases.", [{"side": "bilateral", "place": "base"}]),
    ("New opacity in the right upper lobe.", [{"change": "new", "side": "right", "place": "upper lobe"}]),
]


@pytest.mark.parametrize(("text", "told"), TOLD, ids=[text[:40] for text, _ in TOLD])
def test_attributes(text: str, told: list[dict[str, Any]]) -> None:
    findings = read(text)
    assert len(findings) == len(told)
    for finding, expected in zip(findings, told, strict=True):
        assert {key: getattr(finding, key) for key in expected} == expected


def test_spans_are_offsets_into_the_given_text() -> None:
    text = "FINDINGS:\n  1. The heart is  mildly\nenlarged.  2. No  pleural\n effusion."
    spans = [text[f.span.start : f.span.end] for f in read(text) if f.span]
    assert spans == ["heart is  mildly\nenlarged", "pleural\n effusion"]


# ---------------------------------------------------------------- properties

PIECES = st.sampled_from(
    [text for text, _ in SAID if ":" not in text and text] + ["XXXX", "___", "1.", "\n\n", "no", ",", "or", "İ", "–"]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=8).map(" ".join))


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_never_raises_and_every_span_lies_in_the_text(text: str) -> None:
    for finding in read(text):
        assert finding.span is not None
        assert 0 <= finding.span.start < finding.span.end <= len(text)
        assert finding.name in CHEXPERT
        assert text[finding.span.start : finding.span.end].strip()
    assert set(labels(text)) == set(CLASSES_14)


@given(st.lists(st.sampled_from([t for t, _ in SAID if t.endswith(".") and ":" not in t]), max_size=5))
@settings(max_examples=100, deadline=None)
def test_sentences_are_read_each_for_itself(sentences: list[str]) -> None:
    whole = [f.model_copy(update={"span": None}) for f in read(" ".join(sentences))]
    parts = [f.model_copy(update={"span": None}) for sentence in sentences for f in read(sentence)]
    assert whole == parts


@given(st.sampled_from([text for text, _ in SAID if ":" not in text]))
@settings(max_examples=60, deadline=None)
def test_case_and_hyphens_do_not_matter(text: str) -> None:
    assert read(text.upper()) == read(text)
    assert [f.name for f in read(text.replace("pleural effusion", "pleural-effusion"))] == [f.name for f in read(text)]


# ---------------------------------------------------------------- labels


def test_labels_follow_chexpert() -> None:
    told = labels("Small effusion. Possible pneumonia. No pneumothorax.")
    assert {name: value for name, value in told.items() if value is not None} == {
        "Pleural Effusion": 1,
        "Pneumonia": -1,
        "Pneumothorax": 0,
    }
    assert list(told) == list(CLASSES_14)
    assert set(CLASSES_5) < set(CLASSES_14)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Lungs are clear.", 1),
        ("No effusion. Pacemaker in place.", 1),
        ("Low lung volumes. Surgical clips.", 1),
        ("Possible nodule.", None),
        ("Scoliosis.", None),
        ("", None),
        ("XXXX.", None),
    ],
)
def test_no_finding(text: str, value: int | None) -> None:
    assert labels(text)["No Finding"] == value


def test_of_several_statements_the_positive_one_counts() -> None:
    for order in (("effusion", "No effusion", "Possible effusion"), ("Possible effusion", "No effusion", "effusion")):
        assert labels(". ".join(order))["Pleural Effusion"] == 1
    assert labels("No effusion. Possible effusion.")["Pleural Effusion"] == -1


def test_labels_of_findings_equal_labels_of_their_text() -> None:
    text = "Mild cardiomegaly. No effusion. Vascular congestion."
    assert labels(read(text)) == labels(text)
    assert labels(text)["Edema"] == -1, "congestion is weak evidence of edema"
    assert labels([Finding(name="something new")])["No Finding"] is None


# ---------------------------------------------------------------- the lexicon


def test_the_lexicon_holds_together() -> None:
    book = lexicon()
    names = {value for kind, value in book.phrases if kind == "finding"}
    assert set(CHEXPERT) == names
    assert set(CHEXPERT.values()) - {None} == set(CLASSES_14) - {"No Finding"}
    used = set().union(*book.covers.values(), *book.kin, *book.sizes, *book.general.values(), *book.states.values())
    assert used | set(book.covers) | set(book.general) | book.minor | book.midline <= names
    assert dict(book.covers) == COVERS


def test_terms_are_lower_case_words_without_hyphens() -> None:
    for (kind, value), terms in lexicon().phrases.items():
        for term in terms:
            assert isinstance(term, str), f"{kind} {value}: {term!r} is no text (YAML reads on, no, yes as booleans)"
            assert term == term.lower()
            assert "-" not in term or term == "-"


def test_a_term_names_one_finding() -> None:
    owners: dict[str, set[str]] = {}
    for (kind, value), terms in lexicon().phrases.items():
        if kind == "finding":
            for term in terms:
                for form in _forms(kind, term):
                    owners.setdefault(form, set()).add(value)
    both = {term for term, names in owners.items() if len(names) > 1}
    assert both == {"hydropneumothorax", "hydropneumothoraces"}, "air and fluid: two findings on purpose"


@pytest.mark.parametrize(
    ("name", "chexpert"),
    [
        ("pleural effusion", "Pleural Effusion"),
        ("mass", "Lung Lesion"),
        ("nodule", "Lung Lesion"),
        ("lung opacity", "Lung Opacity"),
        ("enlarged mediastinum", "Enlarged Cardiomediastinum"),
        ("rib fracture", "Fracture"),
        ("pleural thickening", "Pleural Other"),
        ("endotracheal tube", "Support Devices"),
        ("central venous catheter", "Support Devices"),
        ("hiatal hernia", None),
    ],
)
def test_the_vocabulary_others_rely_on(name: str, chexpert: str | None) -> None:
    assert CHEXPERT[name] == chexpert


# ---------------------------------------------------------------- against truth and others' labels


def test_phantom_reports_are_read_without_error() -> None:
    for index in range(300):
        patient = sample(index, seed=5, prior_share=0.4)
        truth = [lesion.finding() for lesion in patient.at("current")]
        report = write(truth, (), patient.before is not None, generator(5, index, 4))
        asserted = [f for f in read(report.findings) if f.presence != "absent"]
        expected = [f for f in truth if f.name not in report.omitted]
        key = ("name", "side", "place", "severity")
        told = sorted(str([getattr(f, k) for k in key]) for f in asserted)
        # A writer may leave the place of an effusion, a device or an atelectasis to the name.
        assert len(told) == len(expected), report.findings
        for finding in expected:
            twin = next((f for f in asserted if (f.name, f.side) == (finding.name, finding.side)), None)
            assert twin is not None, report.findings
            assert (twin.presence == "uncertain") == (finding.name in report.hedged), report.findings
            assert twin.severity in (finding.severity, None)
            assert twin.change in (finding.change, None)
            # Where a device ends is told in the text alone.
            assert twin.place in (finding.place, None) or CHEXPERT[finding.name] == "Support Devices"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def f1(pairs: list[tuple[bool, bool]]) -> float:
    """Of (said, true) pairs."""
    tp = sum(said and true for said, true in pairs)
    wrong = sum(said != true for said, true in pairs)
    return 2 * tp / (2 * tp + wrong) if tp or wrong else 1.0


def test_the_published_sample_of_the_chexpert_labeler_reproduces(shared_data: Path) -> None:
    with (shared_data / "fixtures/chexpert_labeler/labeled_reports.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            expected = {name: int(float(row[name])) if row[name] else None for name in CLASSES_14}
            assert labels(row["Reports"]) == expected


NAMES = {name: next(iter(OURS[name])) for name in GOLD}


def test_human_labels_of_findings_and_impression(shared_data: Path) -> None:
    """Open-i's manual coding; what is asserted without doubt counts as positive."""
    pairs: dict[str, list[tuple[bool, bool]]] = {name: [] for name in NAMES}
    for row in rows(shared_data / "iu_xray_256/reports.jsonl"):
        if row["negbio_gold14"]:
            text = f"{row['findings']}\n\n{row['impression']}"
            present = {finding.name for finding in read(text) if finding.presence == "present"}
            for name, ours in NAMES.items():
                pairs[name].append((ours in present, bool(row["negbio_gold14"][name])))
    assert f1([pair for of_class in pairs.values() for pair in of_class]) >= 0.94
    for name, floor in KEYWORDS.items():
        assert f1(pairs[name]) > floor, name


def test_at_least_the_original_labeler_on_findings_alone(shared_data: Path) -> None:
    classes = {"Effusion": "Pleural Effusion"}
    ours: dict[str, list[tuple[bool, bool]]] = {name: [] for name in NAMES}
    theirs: dict[str, list[tuple[bool, bool]]] = {name: [] for name in NAMES}
    for row in rows(shared_data / "iu_xray_256/reports.jsonl"):
        labeler = row["chexpert_labeler_on_findings"]
        if row["negbio_gold14"] and row["findings"] and labeler:
            present = {finding.name for finding in read(row["findings"]) if finding.presence == "present"}
            for name in NAMES:
                gold = bool(row["negbio_gold14"][name])
                ours[name].append((NAMES[name] in present, gold))
                theirs[name].append((labeler[classes.get(name, name)] == 1, gold))
    assert all(f1(ours[name]) > f1(theirs[name]) for name in NAMES)


def test_machine_labels_of_synthetic_reports(shared_data: Path) -> None:
    """What is asserted, with doubt or without: radlabels calls most of what is only suspected present."""
    pairs = []
    for row in rows(shared_data / "radlabels_synthetic_1000/reports.jsonl"):
        asserted = {finding.name for finding in read(row["text"]) if finding.presence != "absent"}
        for theirs, ours in RADLABELS.items():
            pairs.append((bool(asserted & ours), row["labels"].get(theirs) in ("definitely present", "uncertain")))
    assert f1(pairs) >= 0.93
