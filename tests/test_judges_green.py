"""`green`, version 2: what is earned, what is charged, and what order follows."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from radpref.config import JudgeSection
from radpref.findings import COVERS, lexicon, read
from radpref.judges import JUDGES, Case
from radpref.judges.green import compare
from radpref.judges.green.weights import weights
from radpref.records import Judgement
from tests.test_judges_green1 import REPORTS
from tests.triples import HONEST, NORMAL, TRIPLES

REPORT = st.sampled_from(REPORTS)


def judge(reference: str, candidate: str, name: str = "green", normals: str = "weigh") -> Judgement:
    section = JudgeSection(normals=normals)  # type: ignore[arg-type]
    (judgement,) = JUDGES[name](section)([Case("a/0", "a", reference, candidate)])
    return judgement


def score(reference: str, candidate: str, **more: str) -> float:
    found = judge(reference, candidate, **more).score
    assert found is not None
    return found


# ---------------------------------------------------------------- the order


@pytest.mark.parametrize(("why", "reference", "better", "worse", "strict"), TRIPLES, ids=[t[0] for t in TRIPLES])
@pytest.mark.parametrize("name", ["green", "lc-green"])
def test_triples(name: str, why: str, reference: str, better: str, worse: str, strict: bool) -> None:
    good, bad = judge(reference, better, name).score, judge(reference, worse, name).score
    assert good is not None
    if bad is None:
        assert why in ("refusal", "German", "French", "questions")
    else:
        assert good > bad + 1e-9 if strict else good >= bad - 1e-9


# ---------------------------------------------------------------- the sheet


@given(REPORT, REPORT)
@settings(max_examples=150, deadline=None)
def test_the_score_is_what_the_sheet_says(reference: str, candidate: str) -> None:
    found = judge(reference, candidate)
    earned, charged = sum(found.earned), sum(error.weight for error in found.errors)
    assert len(found.earned) == len(found.matched)
    assert found.score == pytest.approx(earned / (earned + charged))
    assert all(weight > 0 for weight in (*found.earned, *(e.weight for e in found.errors)))
    for error in found.errors:
        for span, text in ((error.reference_span, reference), (error.candidate_span, candidate)):
            assert span is None or span.end <= len(text)
        assert error.reference_span or error.candidate_span, "every error can be shown"


@given(REPORT)
@settings(max_examples=100, deadline=None)
def test_a_report_agrees_with_itself(report: str) -> None:
    found = judge(report, report)
    assert found.score == 1
    assert found.errors == ()


@given(REPORT, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_sentences_does_not_matter(report: str, random: object) -> None:
    sentences = [s for s in report.replace("\n- ", " ").removeprefix("- ").split(". ") if ":" not in s]
    assume(read(". ".join(sentences)))
    shuffled = sentences.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert score(". ".join(sentences), ". ".join(shuffled)) == pytest.approx(1)


@given(REPORT, REPORT, st.data())
@settings(max_examples=100, deadline=None)
def test_saying_more_of_what_is_true_never_costs(reference: str, other: str, data: st.DataObject) -> None:
    """A sentence of the reference added to any report of it does not lower the score."""
    sentences = re.split(r"(?<=\.)\s+", reference)
    kept = data.draw(st.lists(st.sampled_from(sentences), min_size=1, max_size=len(sentences), unique=True))
    more = data.draw(st.sampled_from(sentences))
    before = " ".join(s for s in sentences if s in kept)
    assume(read(before))
    after = " ".join(s for s in sentences if s in kept or s == more)
    assert score(reference, after) >= score(reference, before) - 1e-9


def test_every_finding_of_the_lexicon_has_a_weight_and_a_region() -> None:
    book = weights()
    assert set(book.of) == set(lexicon().chexpert)
    assert set(book.region.values()) <= set(book.regions)
    assert all(book.of[name] == book.of["scarring"] for name in lexicon().minor)
    assert set(book.general) == set(COVERS)


def test_errors_point_at_both_texts() -> None:
    reference, candidate = "No edema. Small left effusion.", "Edema. There is a small right effusion."
    by_kind = {error.kind: error for error in judge(reference, candidate).errors}
    place, false = by_kind["wrong_place"], by_kind["false_finding"]
    assert place.note == "right instead of left"
    assert place.significant
    assert place.reference_span is not None
    assert place.candidate_span is not None
    assert reference[place.reference_span.start : place.reference_span.end] == "effusion"
    assert candidate[place.candidate_span.start : place.candidate_span.end] == "effusion"
    assert false.reference_span is not None, "it points at the denial"


@pytest.mark.parametrize(
    ("reference", "candidate", "kind", "note"),
    [
        ("Left effusion.", "Effusion.", "wrong_place", "side not told, it is left"),
        ("Severe edema.", "Edema.", "wrong_severity", "severity not told, it is severe"),
        ("Left apical nodule.", "Left nodule.", "wrong_place", "place not told, it is apex"),
        ("Edema.", "Possible edema.", "missing_finding", "only suspected"),
        ("Possible edema.", "Edema.", "false_finding", "stated, it is only suspected"),
        ("Nodule of 28 mm.", "Nodule.", "wrong_severity", "size not told, it is 28 mm"),
        ("Five nodules.", "Nodules.", "wrong_severity", "number not told, it is 5"),
        ("Acute rib fracture.", "Rib fracture.", "wrong_severity", "age not told, it is acute"),
    ],
)
def test_silence_is_listed_and_is_not_significant(reference: str, candidate: str, kind: str, note: str) -> None:
    (error,) = judge(reference, candidate).errors
    assert (error.kind, error.note, error.significant) == (kind, note, False)


# ---------------------------------------------------------------- normals


def test_each_region_earns_its_part() -> None:
    regions = ["Heart size is normal.", "Lungs are clear.", "No effusion or pneumothorax.", "Bones are intact."]
    told = [score(NORMAL, " ".join(regions[:count])) for count in range(1, 5)]
    assert told == sorted(told)
    assert len(set(told)) == 4
    assert told[-1] == pytest.approx(1)


def test_normal_statements_are_paid_in_the_share_of_findings_found() -> None:
    reference = "Left pneumothorax. Right effusion. Heart size is normal."
    both, one = judge(reference, reference), judge(reference, "Left pneumothorax. Heart size is normal.")
    heart = [dict(zip((m.name for m in j.matched), j.earned, strict=True))["cardiomegaly"] for j in (both, one)]
    assert heart[1] == pytest.approx(heart[0] * 0.6), "6 of the weight of 10"
    assert score(reference, HONEST) == 0


def test_normals_as_asked() -> None:
    reference = f"Left pneumothorax. {NORMAL.replace('No pneumothorax. ', '')}"
    half = "Left pneumothorax."
    whole = f"{half} Lungs are clear. Normal heart."
    assert score(reference, whole, normals="none") == score(reference, half, normals="none") == 1
    assert score(reference, whole) > score(reference, half)
    assert score(reference, HONEST, normals="count") > 0.4, "the published practice pays for denying everything"
    assert score(reference, HONEST) == 0


def test_a_denial_of_a_kind_earns_part() -> None:
    """``No large effusion`` risks nothing where there is one, so that it must not earn what ``no effusion`` does."""
    plain, of_a_kind = score(NORMAL, "No effusion."), score(NORMAL, "No large effusion.")
    assert 0 < of_a_kind < plain
    assert score("No large effusion.", "No large effusion.") == 1
    assert score("No large effusion.", "No effusion.") == 1


@pytest.mark.parametrize(
    "added",
    [
        "Please exclude pneumonia.", "There may or may not be a lung mass.", "Bowel ischemia.", "COVID.",
        "Flail chest.", "Dextrocardia.", "Query left pneumonia.", "Whether there is a lung mass is unclear.",
        "Lung mass could be missed.", "Pneumonia is one consideration.", "Doubt pneumonia, left.",
        "Diaphragmatic hernia.", "Air embolism.", "No change in the left lung mass.",
        "Left lung mass has not resolved.", "Not without a left lung mass.", "{Pneumoperitoneum.}",
        "Mass? Pneumonia. Fracture.", "Negative: effusion. Positive: lung mass.", "Vena cava syndrome.",
    ],
)  # fmt: skip
def test_more_that_costs(added: str) -> None:
    for reference, honest in (
        ("Small left apical pneumothorax. Lungs are otherwise clear.", "Small left pneumothorax."),
        (NORMAL, "Heart size is normal. Lungs are clear."),
    ):
        assert score(reference, f"{honest} {added}") < score(reference, honest)


# ---------------------------------------------------------------- what is said, in what form


def test_spans_survive_cleaning() -> None:
    candidate = "**[Note: xyz]** Left **pleural effusion**."
    (found,) = judge("Left effusion.", candidate).matched
    assert found.span is not None
    assert candidate[found.span.start : found.span.end] == "pleural effusion"


def lines(report: str) -> str:
    return report.replace(". ", ".\n")


def bullets(report: str) -> str:
    return "\n".join(f"- {line}" for line in lines(report).splitlines())


def numbered(report: str) -> str:
    return "\n".join(f"{n}. {line}" for n, line in enumerate(lines(report).splitlines(), 1))


def markup(report: str) -> str:
    return "".join(f"<p>{line}</p>" for line in lines(report).splitlines())


def wrapped(report: str) -> str:
    words, out, length = report.split(), "", 0
    for word in words:
        length += len(word) + 1
        out += ("\n" if length > 60 else " " if out else "") + word
        length = len(word) if length > 60 else length
    return out


@pytest.mark.parametrize("form", [lines, bullets, numbered, markup, wrapped, str.upper], ids=lambda form: form.__name__)
def test_the_form_makes_no_difference(form: Callable[[str], str]) -> None:
    plain = [report for report in REPORTS if "\n" not in report and ":" not in report]
    same = [judge(report, form(report)).score for report in plain]
    assert len(same) > 50
    assert sum(found is not None and found > 0.99 for found in same) >= 0.99 * len(same)


@pytest.mark.parametrize(
    ("reference", "candidate", "what"),
    [
        ("No effusion.", "Kein Pneumothorax, kein Erguss, Herz normal.", "candidate"),
        ("No effusion.", "I cannot provide a diagnosis from this image.", "candidate"),
        ("No effusion.", "Is there an effusion?", "candidate"),
        ("Pas d'épanchement pleural. Le coeur est normal.", "No effusion.", "reference"),
    ],
)
def test_what_is_no_english_report_is_unscored(reference: str, candidate: str, what: str) -> None:
    found = judge(reference, candidate)
    assert found.score is None
    assert found.unscored is not None
    assert found.unscored.startswith(f"the {what} is no report")


def test_a_candidate_that_says_nothing_of_the_chest_scores_0() -> None:
    assert judge("Left effusion.", "The sky is blue.").score == 0
    assert judge("The sky is blue.", "Left effusion.").unscored == "no finding could be read in the reference"


def test_compare_reads_what_the_judge_reads() -> None:
    candidate = "Left effusion. [Right mass.]"
    assert compare("Left effusion.", candidate).score == judge("Left effusion.", candidate).score < 1  # type: ignore[operator]


@pytest.mark.parametrize("between", ["\n", "&nbsp;&nbsp;&nbsp;", " | ", "\n- ", "<br>"])
def test_a_layout_without_stops_is_the_report_itself(between: str) -> None:
    """What a sentence qualifies or contradicts ends with it, by whatever sign."""
    parts = [
        "Heart size within normal limits", "No pneumothorax or large pleural effusion",
        "There is a stable right basilar opacity", "Mild degenerative change of the spine", "No acute disease",
    ]  # fmt: skip
    report = " ".join(f"{part}." for part in parts)
    [row] = JUDGES["green"]()([Case("a", "a", report, between.join(parts))])
    assert row.score is not None
    assert row.score >= 0.99, row.errors
