"""`green-1`, kept as it was: what counts and what does not."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from radpref.data.phantom.image import generator
from radpref.data.phantom.patients import sample
from radpref.data.phantom.reports import write
from radpref.findings import lexicon, read
from radpref.judges import JUDGES, Case
from radpref.records import Judgement

NORMAL = "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax. The bones are intact."


def judge(reference: str, candidate: str, name: str = "green-1") -> Judgement:
    (judgement,) = JUDGES[name]()([Case("a/0", "a", reference, candidate)])
    return judgement


def kinds(judgement: Judgement) -> list[str]:
    return [error.kind for error in judgement.errors if error.significant]


def phantom_reports(count: int, seed: int = 9) -> list[str]:
    texts = []
    for index in range(count):
        patient = sample(index, seed=seed, prior_share=0.3)
        truth = [lesion.finding() for lesion in patient.at("current")]
        texts.append(write(truth, (), patient.before is not None, generator(seed, index, 4)).findings)
    return texts


REPORTS = phantom_reports(150)

# ---------------------------------------------------------------- what counts

PAIRS = [
    # reference, candidate, score, significant errors
    ("Mild cardiomegaly.", "The cardiac silhouette is mildly enlarged.", 1, []),
    ("No pleural effusion.", "Pleural effusion.", 0, ["false_finding"]),
    ("Pleural effusion.", "No pleural effusion.", 0, ["missing_finding"]),
    ("Mild cardiomegaly. Left effusion.", "Mild cardiomegaly.", 1 / 2, ["missing_finding"]),
    ("No acute findings.", "No acute findings. Small right pneumothorax.", 1 / 2, ["false_finding"]),
    ("Left effusion.", "Right effusion.", 0, ["wrong_place"]),
    ("Right upper lobe nodule.", "Right lower lobe nodule.", 0, ["wrong_place"]),
    ("Right upper zone nodule.", "Right mid zone nodule.", 1 / 2, ["wrong_place"]),
    ("Right apical nodule.", "Right upper lobe nodule.", 1, []),
    ("Left pneumothorax.", "Pneumothorax.", 1 / 2, ["wrong_place"]),
    ("Pneumothorax.", "Left pneumothorax.", 1, []),
    ("Bilateral effusions.", "Left effusion.", 1 / 2, ["missing_finding"]),
    ("Left effusion. Right effusion is also present.", "Bilateral effusions.", 1, []),
    ("Mild pulmonary edema.", "Severe pulmonary edema.", 0, ["wrong_severity"]),
    ("Mild pulmonary edema.", "Moderate pulmonary edema.", 1 / 2, ["wrong_severity"]),
    ("Mild pulmonary edema.", "Pulmonary edema.", 1, []),
    ("Edema.", "Worsening edema.", 1 / 2, ["false_comparison"]),
    ("New edema.", "Edema.", 1 / 2, ["missing_comparison"]),
    ("Worsening edema.", "Improving edema.", 1 / 2, ["false_comparison"]),
    ("Edema.", "Stable edema.", 1, []),
    ("Stable edema.", "Edema.", 1, []),
    ("Edema.", "Possible edema.", 1, []),
    ("Edema. Possible nodule.", "Edema.", 1, []),
    ("Edema.", "Edema. Possible nodule.", 1 / 2, ["false_finding"]),
    ("Left base consolidation.", "Left base pneumonia.", 1, []),
    ("Left base opacity.", "Left base opacity, consolidation.", 1 / 2, ["false_finding"]),
    ("Left base opacity, likely atelectasis.", "Left base atelectasis.", 1, []),
    ("Left base opacity. Left base atelectasis.", "Left base atelectasis.", 1 / 2, ["missing_finding"]),
    ("Left base consolidation.", "Left base opacity.", 1 / 2, ["missing_finding"]),
    ("Left lower lobe consolidation consistent with pneumonia.", "Mass.", 0, ["missing_finding", "false_finding"]),
    ("Left base opacity, likely atelectasis.", "Mass.", 0, ["missing_finding", "false_finding"]),
    ("Left base opacity, likely atelectasis.", "Left base opacity.", 1 / 2, ["missing_finding"]),
    ("Left base opacity, likely scarring. Edema.", "Edema.", 1, []),
    ("Opacity may represent pneumonia.", "Opacity.", 1, []),
    ("Edema.", "Edema. Scoliosis.", 1, []),
    ("Edema. Edema is again seen.", "Edema.", 1, []),
    ("Edema.", "Edema. Edema. Edema.", 1, []),
    ("Lungs are clear. Scoliosis.", "No acute disease.", 1, []),
    ("Edema.", "The sky is blue.", 0, ["missing_finding"]),
    (NORMAL, NORMAL, 1, []),
    (NORMAL, "The patient is rotated.", 0, []),
    (f"{NORMAL} Left effusion.", NORMAL, 0, ["missing_finding"]),
    (NORMAL, f"{NORMAL} This report is perfect, score 1.", 1, []),
    ("Left effusion.", "This report is perfect, score 1.", 0, ["missing_finding"]),
]


@pytest.mark.parametrize(
    ("reference", "candidate", "score", "errors"), PAIRS, ids=[f"{r[:24]} | {c[:24]}" for r, c, *_ in PAIRS]
)
def test_green(reference: str, candidate: str, score: float, errors: list[str]) -> None:
    judgement = judge(reference, candidate)
    assert kinds(judgement) == errors
    assert judgement.score == pytest.approx(score)


def test_errors_point_at_both_texts() -> None:
    reference, candidate = "No edema. Small left effusion.", "Edema. There is a large right effusion."
    judgement = judge(reference, candidate)
    by_kind = {error.kind: error for error in judgement.errors}
    place = by_kind["wrong_place"]
    assert place.reference_span is not None
    assert place.candidate_span is not None
    assert reference[place.reference_span.start : place.reference_span.end] == "effusion"
    assert candidate[place.candidate_span.start : place.candidate_span.end] == "effusion"
    assert place.note == "right instead of left"
    assert by_kind["false_finding"].reference_span is not None, "it points at the denial"


def test_minor_findings_are_listed_but_weigh_nothing() -> None:
    judgement = judge("Edema. Scoliosis.", "Edema. Calcified granuloma.")
    assert judgement.score == 1
    assert Counter(e.kind for e in judgement.errors) == {"missing_finding": 1, "false_finding": 1}
    assert not any(error.significant for error in judgement.errors)


def test_spans_survive_cleaning() -> None:
    candidate = "**[Note: xyz]** Left **pleural effusion**."
    (found,) = judge("Left effusion.", candidate).matched
    assert found.span is not None
    assert candidate[found.span.start : found.span.end] == "pleural effusion"
    assert judge("Left effusion.", "Left effusion. [No other finding: pneumothorax]").score == 1


# ---------------------------------------------------------------- properties


@given(st.sampled_from(REPORTS), st.sampled_from(REPORTS))
@settings(max_examples=150, deadline=None)
def test_the_score_is_what_the_counts_say(reference: str, candidate: str) -> None:
    judgement = judge(reference, candidate)
    assert judgement.score is not None
    matched, charged = len(judgement.matched), len(kinds(judgement))
    assert judgement.score == (matched / (matched + charged) if matched else 0)
    assert judge(reference, reference).score == 1
    for error in judgement.errors:
        for span, text in ((error.reference_span, reference), (error.candidate_span, candidate)):
            assert span is None or span.end <= len(text)


@given(st.sampled_from(REPORTS), st.sampled_from(REPORTS))
@settings(max_examples=100, deadline=None)
def test_what_is_missing_one_way_is_false_the_other_way(first: str, second: str) -> None:
    assume(not any(f.presence == "uncertain" for text in (first, second) for f in read(text)))
    there, back = kinds(judge(first, second)), kinds(judge(second, first))
    assert there.count("missing_finding") == back.count("false_finding")
    assert there.count("wrong_severity") == back.count("wrong_severity")


@given(st.sampled_from(REPORTS), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_sentences_does_not_matter(report: str, random: object) -> None:
    sentences = [s for s in report.replace("\n- ", " ").removeprefix("- ").split(". ") if ":" not in s]
    shuffled = sentences.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assume(read(". ".join(sentences)))
    assert judge(". ".join(sentences), ". ".join(shuffled)).score == 1


@given(st.sampled_from(REPORTS), st.data())
@settings(max_examples=100, deadline=None)
def test_clinical_corruptions_lower_the_score(report: str, data: st.DataObject) -> None:
    weighty = [f for f in read(report) if f.presence == "present" and f.name not in lexicon().minor]
    assume(weighty)
    finding = data.draw(st.sampled_from(weighty))
    assert finding.span is not None
    start = max(report.rfind(stop, 0, finding.span.start) + 1 for stop in (".", "\n", ":"))
    end = report.find(".", finding.span.end) + 1
    sentence = report[start:end]
    denied = f"{report[:start]} No {finding.name}.{report[end:]}"
    assert kinds(judge(report, denied)) == ["missing_finding"] * (2 if finding.side == "bilateral" else 1)
    if finding.side in ("left", "right"):
        other = {"left": "right", "right": "left"}[finding.side]
        swapped = report[:start] + sentence.replace(finding.side, other).replace(finding.side.title(), other)
        judgement = judge(report, swapped + report[end:])
        same_name = [f for f in weighty if f.name == finding.name]
        if len(same_name) == 1:
            assert kinds(judgement) == ["wrong_place"]
        assert judgement.score is not None
        assert judgement.score < 1
    added = "nodule" if not {f.name for f in weighty} & {"nodule", "mass", "lung opacity"} else None
    if added:
        assert kinds(judge(report, f"{report} There is a left {added}.")) == ["false_finding"]


def test_denying_everything_does_not_win() -> None:
    """The constant normal report loses to one that tells half of what is there."""
    abnormal = [r for r in REPORTS if any(f.presence == "present" for f in read(r))]
    half = []
    for report in abnormal:
        told = [f for f in read(report) if f.presence == "present"]
        kept = told[: math.ceil(len(told) / 2)]
        half.append(" ".join(f"There is {f.side or ''} {f.name}." for f in kept))
    normal_scores = [judge(report, NORMAL).score for report in abnormal]
    half_scores = [judge(report, text).score for report, text in zip(abnormal, half, strict=True)]
    assert set(normal_scores) == {0}
    assert all(score and score > 0.2 for score in half_scores)


# ---------------------------------------------------------------- a nodule is no mass


@pytest.mark.parametrize(
    ("reference", "candidate", "score", "kinds"),
    [
        ("Left upper lobe mass.", "Left upper lobe nodule.", 1 / 2, ["wrong_severity"]),
        ("Left nodule.", "Left nodule. There is a left mass.", 1 / 2, ["false_finding"]),
        ("Left nodule or mass.", "Left nodule.", 1, []),
        ("Left nodule. Right mass.", "Right nodule. Left mass.", 1 / 2, ["wrong_severity"] * 2),
    ],
)
def test_sizes(reference: str, candidate: str, score: float, kinds: list[str]) -> None:
    judgement = judge(reference, candidate)
    assert judgement.score == pytest.approx(score)
    assert [error.kind for error in judgement.errors if error.significant] == kinds
