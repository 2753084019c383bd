"""Metrics against closed forms and other libraries, intervals and tests against toys, baselines by brute force."""

from __future__ import annotations

import io
import json
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

from radpref import evaluation
from radpref.evaluation import (
    BASELINES,
    ERROR_METRICS,
    HEADLINE,
    METRICS,
    NORMAL_REPORT,
    baselines,
    by_label,
    compare,
    comparison_table,
    error_totals,
    measure,
    metrics_json,
    resampling,
    terminal_table,
)
from radpref.evaluation.baselines import most_frequent_findings, most_frequent_report
from radpref.evaluation.counts import claimed, finding_counts, label_counts, rouge_l_coco, text_counts
from radpref.evaluation.metrics import corpus_bleu, f1, macro_f1
from radpref.findings import CLASSES_5, CLASSES_14, read
from radpref.findings.labelled import labelled
from radpref.records import Finding, Judgement, Question
from tests.report_filling import SENTENCES, answers, questions


def ask(
    reference: str, number: int = 0, patient: str | None = None, truth: tuple[Finding, ...] | None = None
) -> Question:
    return Question(
        id=f"q{number:03d}",
        study=f"s{number}",
        patient=patient or f"p{number:03d}",
        split="test",
        images=(),
        prompt="",
        reference=reference,
        truth=truth,
    )


def sums(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    columns = {column for row in rows for column in row}
    return {column: np.array(float(sum(row.get(column, 0.0) for row in rows))) for column in columns}


# ------------------------------------------------------------------------------------------ metrics


def test_finding_counts_follow_the_uncertain_rule() -> None:
    wanted = [
        Finding(name="edema"),
        Finding(name="nodule", presence="uncertain"),
        Finding(name="mass", presence="absent"),
    ]
    given_ = [Finding(name="nodule"), Finding(name="mass", presence="uncertain"), Finding(name="fracture")]
    counts = finding_counts(given_, wanted, "reference")
    parts = {
        rule: [counts[f"reference:{rule}:{part}"] for part in ("tp", "fp", "fn")]
        for rule in ("uncertain-positive", "uncertain-negative")
    }
    assert parts["uncertain-positive"] == [1, 2, 1]  # nodule; mass and fracture; edema
    assert parts["uncertain-negative"] == [0, 2, 1]  # nothing; nodule and fracture; edema
    # Stated without a hedge: nodule (which the reference suspects) and fracture (which it does not).
    assert (counts["reference:stated"], counts["reference:hallucinated"]) == (2, 1)


def test_one_claim_is_enough_whatever_else_is_said() -> None:
    assert claimed([Finding(name="edema", presence="absent"), Finding(name="edema")]) == {"edema"}


def test_micro_f1_sums_counts_and_macro_leaves_out_classes_without_a_positive_reference() -> None:
    rows = [
        label_counts({"Edema": 1, "Fracture": 1}, {"Edema": 1}),
        label_counts({"Edema": 1}, {"Atelectasis": -1}),
        label_counts({}, {"Edema": 0}),
    ]
    total = sums(rows)
    micro = METRICS["label_f1_micro_14_uncertain-positive"].value(total)
    assert micro == pytest.approx(2 * 1 / (2 * 1 + 2 + 1))
    # Edema 2/3 and Atelectasis 0 have a positive reference; Fracture has a false positive alone and is left out.
    assert macro_f1(total, "uncertain-positive", CLASSES_14) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1(total, "uncertain-negative", CLASSES_14) == pytest.approx(2 / 3)
    assert np.isnan(macro_f1(sums([label_counts({"Edema": 1}, {})]), "uncertain-positive", CLASSES_14))


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(CLASSES_5)), st.sets(st.sampled_from(CLASSES_5))), min_size=1, max_size=12
    )
)
def test_micro_f1_equals_its_definition(rows: list[tuple[set[str], set[str]]]) -> None:
    total = sums([label_counts(dict.fromkeys(given_, 1), dict.fromkeys(wanted, 1)) for wanted, given_ in rows])
    hits = sum(len(wanted & given_) for wanted, given_ in rows)
    said, there = sum(len(given_) for _, given_ in rows), sum(len(wanted) for wanted, _ in rows)
    value = METRICS["label_f1_micro_5_uncertain-positive"].value(total)
    if said + there == 0:
        assert np.isnan(value)
    else:
        precision, recall = hits / max(said, 1), hits / max(there, 1)
        assert value == pytest.approx(2 * precision * recall / (precision + recall) if hits else 0.0)


WORDS = ("the", "heart", "Heart", "is", "normal", ",", "no", "effusion", ".", "lungs")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_bleu_from_summed_counts_is_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    from sacrebleu.metrics import BLEU

    expected = BLEU(lowercase=True, tokenize="13a").corpus_score([a for a, _ in pairs], [[b for _, b in pairs]])
    got = corpus_bleu(sums([text_counts(answer, reference) for answer, reference in pairs]))
    assert 100 * got == pytest.approx(expected.score, abs=1e-9)


def test_rouge_is_that_of_rouge_score() -> None:
    # longest common subsequence 2 of 3 and 4 words: F = 2 * (2/3) * (2/4) / (2/3 + 2/4)
    assert text_counts("no Effusion seen", "no pleural effusion today")["rouge:stemmed"] == pytest.approx(4 / 7)
    assert text_counts("opacities", "opacity")["rouge:stemmed"] == 1, "with its stemmer"


def test_rouge_l_coco_by_hand() -> None:
    # "no effusion seen ." against "no pleural effusion .": 3 of 4 tokens either way
    assert rouge_l_coco("No effusion seen.", "no pleural effusion .") == pytest.approx(3 / 4)
    # 2 of 2 said, 2 of 4 told: (1 + 1.44) * 1 * .5 / (.5 + 1.44)
    assert rouge_l_coco("no effusion", "no pleural effusion seen") == pytest.approx(2.44 * 0.5 / 1.94)
    assert rouge_l_coco("a 2.5 cm mass", "a 2.5 cm mass") == 1
    assert rouge_l_coco("edema", "no effusion") == 0


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_rouge_l_coco_is_pycocoevalcaps(answer: str, reference: str) -> None:
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    apart = [text.lower().replace("\n", " ") for text in (answer, reference)]
    assume(all("." not in text for text in apart))
    wanted = rouge.Rouge().calc_score([apart[0]], [apart[1]])
    assert text_counts(answer, reference)["rouge:coco"] == pytest.approx(wanted if answer.strip() else 0)


def test_perfect_answers_are_perfect() -> None:
    rows, _ = questions(30, "test", 1)
    rows = [row.model_copy(update={"labels": read(row.reference)}) for row in rows]
    measured = measure("copy", rows, {row.id: row.reference for row in rows}, resamples=100)
    ones = (
        "green_mean",
        "lc-green_mean",
        "text_mean",
        "bleu",
        "rouge_l_coco",
        "rouge_l_stemmed",
        "verbosity_ratio_total",
    )
    for name in (*ones, *(name for name in METRICS if "_f1_" in name)):
        assert measured.value(name) == pytest.approx(1.0), name
    assert measured.value("hallucination_rate_micro_reference") == 0
    assert error_totals(measured) == dict.fromkeys(evaluation.ERROR_KINDS, 0)


def test_truth_counts_what_the_report_left_out() -> None:
    # The radiologist did not mention the nodule; a model that does is wrong by the reference, right by the truth.
    truth = (Finding(name="nodule"), Finding(name="cardiomegaly"))
    rows = [ask("The heart is enlarged.", number, truth=truth) for number in range(3)]
    text = "The heart is enlarged. There is a nodule in the right upper lobe."
    measured = measure("bold", rows, {row.id: text for row in rows}, resamples=100)
    assert measured.value("finding_f1_micro_truth_uncertain-positive") == 1.0
    assert measured.value("finding_precision_micro_reference_uncertain-positive") == 0.5
    assert measured.value("hallucination_rate_micro_reference") == 0.5
    assert measured.value("hallucination_rate_micro_truth") == 0.0


def test_labels_count_what_they_name_and_nothing_else() -> None:
    """Of the edema labels know nothing; a class is met by a finding of it; No Finding is none; -1 as the rule says."""
    labels = labelled({"Cardiomegaly": 1, "Lung Lesion": 1, "Pneumothorax": 0, "Atelectasis": -1, "No Finding": 1})
    row = ask("Normal.").model_copy(update={"labels": labels})
    other = ask("Normal.", 1)
    text = "There is a left upper lobe nodule. There is a small right pneumothorax. There is pulmonary edema."
    measured = measure("m", [row, other], {row.id: text, other.id: "Large pleural effusion."}, resamples=10)
    assert measured.value("finding_precision_micro_labels_uncertain-positive") == pytest.approx(1 / 2)
    assert measured.value("finding_recall_micro_labels_uncertain-positive") == pytest.approx(1 / 3)
    assert measured.value("finding_recall_micro_labels_uncertain-negative") == pytest.approx(1 / 2)
    assert measured.value("hallucination_rate_micro_labels") == pytest.approx(1 / 2)
    (counted,) = [one for one in measured.metrics if one.name == "finding_f1_micro_labels_uncertain-positive"]
    assert counted.n == 1


def test_lc_green_divides_by_the_words_beyond_the_reference() -> None:
    row = ask("There is cardiomegaly.")
    text = "There is cardiomegaly. There is cardiomegaly."
    measured = measure("twice", [row], {row.id: text})
    assert measured.value("green_mean") == 1.0
    assert measured.value("lc-green_mean") == pytest.approx(0.5)
    assert measured.value("verbosity_ratio_total") == pytest.approx(2.0)


def test_a_class_table_adds_up() -> None:
    rows, has = questions(40, "test", 5)
    measured = measure("m", rows, answers(rows, has, 0.3, 0.2, 1), resamples=100)
    table = by_label(measured)
    assert [score.name for score in table] == list(CLASSES_14)
    supported = [score.f1 for score in table if score.positives]
    assert measured.value("label_f1_macro_14_uncertain-positive") == pytest.approx(
        np.mean([v or 0.0 for v in supported])
    )


# ------------------------------------------------------------------------------------------ measure: edges


def test_every_metric_states_its_rule_and_names_it_in_the_key() -> None:
    words = ("mean", "micro", "macro", "corpus", "total", "per_report", "share")
    for name, definition in METRICS.items():
        assert name == "bleu" or any(word in name for word in (*words, "coco", "stemmed")), name
        assert definition.rule
        assert definition.title
        if "_f1_" in name or name.startswith("finding_"):
            assert name.endswith(("uncertain-positive", "uncertain-negative")), name
    assert set(HEADLINE) | set(ERROR_METRICS) <= set(METRICS)


def test_one_study_has_values_but_no_interval() -> None:
    row = ask("There is cardiomegaly.")
    measured = measure("one", [row], {row.id: "Heart size is normal."})
    assert measured.value("green_mean") == 0.0
    assert all(metric.low is None and metric.high is None for metric in measured.metrics)
    assert compare(measured, measured) == []


def test_no_study_at_all() -> None:
    measured = measure("none", [], {})
    assert all(metric.value is None and metric.n == 0 for metric in measured.metrics)
    assert compare(measured, measured) == []
    assert error_totals(measured) == dict.fromkeys(evaluation.ERROR_KINDS, 0)


def test_empty_answers_are_counted_and_not_scored() -> None:
    rows = [ask("There is cardiomegaly.", number) for number in range(4)]
    measured = measure("silent", rows, {row.id: "" for row in rows}, resamples=100)
    assert measured.value("green_mean") is None
    assert measured.value("unscored_share_green") == 1.0
    assert sum(measured.unscored().values()) == 4
    assert measured.value("empty_share") == 1.0
    assert measured.value("finding_f1_micro_reference_uncertain-positive") == 0.0
    assert measured.value("bleu") == 0.0
    assert measured.value("words_mean") == 0.0
    assert measured.value("hallucination_rate_micro_reference") is None
    by_name = {metric.name: metric for metric in measured.metrics}
    assert by_name["green_mean"].n == 0
    assert by_name["rouge_l_stemmed"].n == 4


def test_an_unscored_answer_is_not_a_zero() -> None:
    rows = [ask("There is cardiomegaly.", number) for number in range(4)]
    said = dict.fromkeys((row.id for row in rows), "There is cardiomegaly.") | {"q003": "..."}
    measured = measure("one failed", rows, said, resamples=100)
    assert measured.value("green_mean") == 1.0
    assert measured.value("unscored_share_green") == 0.25
    assert next(metric.n for metric in measured.metrics if metric.name == "green_mean") == 3


def test_a_judge_compares_only_what_it_scored_on_both_sides() -> None:
    rows = [ask("There is cardiomegaly.", number) for number in range(4)]
    good, bad = "There is cardiomegaly.", "Heart size is normal."
    before = measure("before", rows, dict(zip(("q000", "q001", "q002", "q003"), (good, good, bad, bad), strict=True)))
    after = measure("after", rows, dict(zip(("q000", "q001", "q002", "q003"), (good, good, "", ""), strict=True)))
    # Falling silent on the two that it got wrong is no gain: they leave both sides.
    assert after.value("green_mean") == 1.0
    row = next(row for row in compare(before, after) if row.name == "green_mean")
    assert (row.difference, row.n) == (0.0, 2)


def test_missing_and_double_questions_are_errors_that_name_them() -> None:
    rows = [ask("a", 1), ask("b", 2)]
    with pytest.raises(ValueError, match="'m' has no answer for 1 of 2 questions, 'q002'"):
        measure("m", rows, {"q001": ""})
    with pytest.raises(ValueError, match="'q001'"):
        measure("m", [rows[0], rows[0]], {"q001": ""})
    one, both = measure("m", rows[:1], {"q001": ""}), measure("m", rows, {"q001": "", "q002": ""})
    with pytest.raises(ValueError, match="not measured on the same questions"):
        compare(one, both)


def test_normals_reach_the_judge_of_an_evaluation() -> None:
    """A report of denials alone earns nothing where something of weight is there, unless normals are counted."""
    asked = [ask("Large left effusion. No pneumothorax. No fracture.")]
    said = {"q000": "No pneumothorax. No fracture."}
    weighed, counted = measure("x", asked, said), measure("x", asked, said, normals="count")
    assert weighed.value("green_mean") == 0
    assert counted.value("green_mean") > 0.3
    assert counted.judgements["green"]["q000"].score == counted.judgements["lc-green"]["q000"].score


def test_judgements_that_are_there_are_not_made_again() -> None:
    row = ask("There is cardiomegaly.")
    known = Judgement(id="x", question=row.id, judge="green", score=0.125, words=3, reference_words=3)
    measured = measure("m", [row], {row.id: "There is cardiomegaly."}, judgements={"green": {row.id: known}})
    assert measured.value("green_mean") == 0.125
    assert measured.judgements["green"][row.id] is known
    assert measured.value("text_mean") == pytest.approx(1.0)


def test_same_seed_same_numbers_whatever_the_order() -> None:
    rows, has = questions(40, "test", 2)
    said = answers(rows, has, 0.3, 0.2, 1)
    first = measure("m", rows, said, resamples=100, seed=1)
    again = measure("m", rows[::-1], dict(reversed(said.items())), resamples=100, seed=1)
    other = measure("m", rows, said, resamples=100, seed=2)
    assert first.metrics == again.metrics
    assert [metric.value for metric in first.metrics] == [metric.value for metric in other.metrics]
    assert [metric.low for metric in first.metrics] != [metric.low for metric in other.metrics]


# ------------------------------------------------------------------------------------------ intervals and tests


def test_the_patient_is_the_unit_of_the_bootstrap() -> None:
    rows, has = questions(40, "test", 2)
    said = answers(rows, has, 0.3, 0.2, 1)
    alone = [row.model_copy(update={"patient": row.id}) for row in rows]
    twins = [
        row.model_copy(update={"id": f"{row.id}-twin", "patient": patient})
        for row in alone
        for patient in [row.patient]
    ]
    strangers = [row.model_copy(update={"patient": row.id}) for row in twins]
    doubled = said | {f"{key}-twin": text for key, text in said.items()}
    width = {}
    for name, some in {"once": alone, "twins": alone + twins, "strangers": alone + strangers}.items():
        metric = next(m for m in measure(name, some, doubled, resamples=400).metrics if m.name == "green_mean")
        width[name] = metric.high - metric.low  # type: ignore[operator]
    # The same study twice of one patient is no new evidence; of two patients it would look like some.
    assert width["twins"] == pytest.approx(width["once"])
    assert width["strangers"] < 0.85 * width["once"]


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    truth, runs, patients, covered = 0.6, 300, 80, 0
    for run in range(runs):
        studies = generator.integers(1, 4, patients)
        skill = generator.beta(6, 4, patients)  # a patient's studies resemble each other
        right = generator.binomial(studies, skill)
        drawn = resampling.draws(patients, 400, seed=run)
        limits = resampling.interval((drawn @ right) / (drawn @ studies))
        both = resampling.resampled(np.stack([right, studies], 1).astype(np.float64), 400, seed=run)
        np.testing.assert_array_equal(both, np.stack([drawn @ right, drawn @ studies], 1))
        assert limits is not None
        covered += limits[0] <= truth <= limits[1]
    assert 0.90 <= covered / runs <= 0.985


def test_permutation_p_of_three_patients_is_exact() -> None:
    swap, exact = resampling.swaps(3, 1000, seed=0)
    assert exact
    assert {tuple(row) for row in swap} == set(product((0.0, 1.0), repeat=3))
    differences = np.array([1.0, 2.0, 3.0])
    permuted = differences.sum() - 2 * swap @ differences
    # Only "all as they are" and "all swapped" are as far from 0 as 6.
    assert resampling.permutation_p(6.0, permuted, exact) == 2 / 8


def test_drawn_permutations_agree_with_all_of_them() -> None:
    differences = np.array([0.9, -0.1, 0.4, 0.7, 0.2, -0.3, 0.5, 0.6, 0.1, 0.3])
    p = {}
    for resamples in (2000, 1000):
        swap, exact = resampling.swaps(10, resamples, seed=1)
        permuted = differences.sum() - 2 * swap @ differences
        p[exact] = resampling.permutation_p(differences.sum(), permuted, exact)
    assert set(p) == {True, False}
    assert p[False] == pytest.approx(p[True], abs=0.012)


def test_permutation_p_is_no_smaller_than_chance_under_the_null() -> None:
    generator = np.random.default_rng(1)
    swap, exact = resampling.swaps(40, 500, seed=3)
    found = []
    for _ in range(400):
        differences = generator.standard_t(4, 40)
        found.append(resampling.permutation_p(differences.sum(), differences.sum() - 2 * swap @ differences, exact))
    assert np.mean(np.array(found) <= 0.05) < 0.08
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_holm_by_hand() -> None:
    assert resampling.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert resampling.holm([]) == []
    assert resampling.holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p(p: list[float]) -> None:
    adjusted = resampling.holm(p)
    assert all(low <= high <= 1 for low, high in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)


def test_compare_finds_a_real_difference_and_not_an_imagined_one() -> None:
    rows, has = questions(120, "test", 7)
    one = measure("one", rows, answers(rows, has, 0.4, 0.2, 1), resamples=200)
    same = measure("same", rows, answers(rows, has, 0.4, 0.2, 2), resamples=200)
    better = measure("better", rows, answers(rows, has, 0.1, 0.05, 3), resamples=200)
    found = {row.name: row for row in compare(one, better, resamples=500)}
    for name in ("green_mean", "finding_f1_micro_truth_uncertain-positive", "label_f1_macro_14_uncertain-positive"):
        assert found[name].p < 0.01
        assert found[name].low > 0
        assert found[name].difference == pytest.approx(better.value(name) - one.value(name))  # type: ignore[operator]
        assert (found[name].p_holm or 0) >= found[name].p
    assert found["hallucination_rate_micro_reference"].high < 0
    assert next(row for row in compare(one, same, resamples=500) if row.name == "green_mean").p > 0.05


def test_compare_is_antisymmetric_and_certain_of_equality() -> None:
    rows, has = questions(30, "test", 8)
    one = measure("one", rows, answers(rows, has, 0.4, 0.2, 1), resamples=100)
    two = measure("two", rows, answers(rows, has, 0.2, 0.2, 2), resamples=100)
    there, back = compare(one, two, metrics=tuple(METRICS)), compare(two, one, metrics=tuple(METRICS))
    for a, b in zip(there, back, strict=True):
        assert (a.name, a.n) == (b.name, b.n)
        assert a.difference == pytest.approx(-b.difference)
        assert (a.low, a.high) == pytest.approx((-b.high, -b.low))
        assert a.p == pytest.approx(b.p)
    assert all(row.difference == 0 and row.p == 1 for row in compare(one, one))


def test_an_unknown_metric_is_an_error() -> None:
    rows = [ask("a", 1), ask("b", 2)]
    measured = measure("m", rows, {"q001": "", "q002": ""})
    with pytest.raises(KeyError, match="grene"):
        compare(measured, measured, metrics=["grene"])


# ------------------------------------------------------------------------------------------ baselines


def test_baselines_answer_every_question_and_follow_from_the_seed() -> None:
    train, _ = questions(60, "train", 1)
    test, _ = questions(25, "test", 1)
    made = baselines(train, test, seed=4)
    assert tuple(made) == BASELINES
    assert all(set(texts) == {row.id for row in test} for texts in made.values())
    assert made == baselines(train, test, seed=4)
    assert made["shuffled reference"] != baselines(train, test, seed=5)["shuffled reference"]
    assert set(made["constant normal report"].values()) == {NORMAL_REPORT}
    assert sorted(made["shuffled reference"].values()) == sorted(row.reference for row in test)
    lengths = {len(row.reference.split()) for row in train}
    for row in test:
        best = min(abs(length - len(row.reference.split())) for length in lengths)
        assert abs(len(made["nearest length"][row.id].split()) - len(row.reference.split())) == best


def test_the_normal_report_claims_nothing() -> None:
    findings = read(NORMAL_REPORT)
    assert findings
    assert not claimed(findings)


def test_a_baseline_without_what_it_needs_is_left_out() -> None:
    assert set(baselines([], [ask("a", 1)], 0)) == {"constant normal report"}
    assert set(baselines([], [ask("a", 1), ask("b", 2)], 0)) == {"constant normal report", "shuffled reference"}
    assert baselines([], [], 0) == {"constant normal report": {}}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=9), st.integers(0, 5))
def test_a_shuffled_reference_is_another_patients(sizes: list[int], seed: int) -> None:
    rows = [
        ask(f"{patient}", 10 * patient + study, patient=f"p{patient}")
        for patient, size in enumerate(sizes)
        for study in range(size)
    ]
    texts = baselines([], rows, seed)["shuffled reference"]
    if 2 * max(sizes) <= len(rows):
        assert all(texts[row.id] != row.reference for row in rows)
    assert Counter(texts.values()) == Counter(row.reference for row in rows)


def test_the_most_frequent_report_ignores_case_and_spaces() -> None:
    assert most_frequent_report(["Clear  lungs.", "clear lungs.", "No effusion.", ""]) == "Clear  lungs."
    assert most_frequent_report(["", " "]) is None


def test_most_frequent_findings_is_the_best_constant_set() -> None:
    rows, _ = questions(80, "train", 3)
    reports = [claimed(read(row.reference)) for row in rows]
    text = most_frequent_findings([row.reference for row in rows])
    assert text is not None
    stated = claimed(read(text))

    def score(names: frozenset[str]) -> float:
        hits = sum(len(names & report) for report in reports)
        return float(
            f1(np.array(hits), np.array(len(names) * len(reports) - hits), np.array(sum(map(len, reports)) - hits))
        )

    every = [
        frozenset(n for n, there in zip(SENTENCES, mask, strict=True) if there) for mask in product((0, 1), repeat=7)
    ]
    assert score(stated) == max(score(names) for names in every)
    # ... and it denies what most references deny.
    denied = {finding.name for finding in read(text) if finding.presence == "absent"}
    assert denied
    assert not denied & stated


@pytest.mark.parametrize("sentence", [ways[0] for ways in SENTENCES.values()])
def test_a_stated_finding_is_read_back_with_its_qualities(sentence: str) -> None:
    (wanted,) = read(sentence)
    text = most_frequent_findings([sentence] * 3)
    assert text is not None
    (got,) = read(text)
    assert got.model_copy(update={"span": None}) == wanted.model_copy(update={"span": None})


# ------------------------------------------------------------------------------------------ tables


def test_metrics_json_is_plain_and_explains_every_key() -> None:
    rows, has = questions(20, "test", 2)
    one = measure("one", rows, answers(rows, has, 0.4, 0.2, 1), resamples=100)
    two = measure("two", rows, answers(rows, has, 0.2, 0.2, 2), resamples=100)
    content = metrics_json(one.metrics + two.metrics, compare(one, two, resamples=100), limited=True)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert set(content["rules"]) == set(METRICS)
    assert content["limited"] is True
    green = content["metrics"][0]
    assert {"value", "low", "high", "n", "unit", "seed"} <= set(green)


def test_the_terminal_table_fits_80_columns_and_sets_baselines_apart() -> None:
    train, _ = questions(30, "train", 2)
    test, has = questions(20, "test", 2)
    systems = {"base": answers(test, has, 0.6, 0.3, 1), "sft [1]": answers(test, has, 0.4, 0.2, 1)} | baselines(
        train, test, 1
    )
    metrics = [metric for name, said in systems.items() for metric in measure(name, test, said, resamples=100).metrics]
    console = Console(width=80, file=io.StringIO())
    console.print(terminal_table(metrics))
    console.print(terminal_table([]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "sft [1]" in text
    assert text.index("base") < text.index("trivial answers") < text.index("constant")


def test_the_comparison_table_prints() -> None:
    rows, has = questions(20, "test", 2)
    one = measure("one", rows, answers(rows, has, 0.4, 0.2, 1), resamples=100)
    two = measure("two", rows, answers(rows, has, 0.0, 0.0, 2), resamples=100)
    console = Console(width=120, file=io.StringIO())
    console.print(comparison_table(compare(one, two, resamples=200)))
    assert "GREEN: two − one" in console.file.getvalue()  # type: ignore[attr-defined]


def test_resamples_are_the_same_kept_or_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random((37, 3))
    kept = resampling.resampled(values, 500, 17)
    np.testing.assert_array_equal(resampling.resampled(values, 500, 17), kept)
    np.testing.assert_array_equal(kept, resampling.draws(37, 500, 17) @ values)
    monkeypatch.setattr(resampling, "_HELD", 37 * 60)
    np.testing.assert_allclose(resampling.resampled(values, 500, 17), kept)
