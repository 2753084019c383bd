"""The battery: every corruption says something else, every trick says nothing more, and the table counts right."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from radpref.cli import app
from radpref.data.phantom.image import generator
from radpref.data.phantom.patients import sample
from radpref.data.phantom.reports import write
from radpref.findings import read
from radpref.judges import JUDGES, Case, Verdict, judge_by
from radpref.judges.auditing import (
    HALF,
    REFERENCE,
    REWORDING,
    WHOLE,
    Attack,
    Row,
    Target,
    agreement,
    attack,
    audit,
    battery,
    cells,
    markdown,
    of_labels,
    of_names,
    plain,
    summary,
    templates,
)
from radpref.judges.auditing.corruptions import (
    CORRUPTIONS,
    NORMAL,
    add,
    change_severity,
    deny,
    half_told,
    normal,
    omit,
    pieces,
    reword,
    shuffle_words,
    swap_sides,
    told,
    undeny,
)
from radpref.judges.auditing.exploits import EXPLOITS, SHORT, halved
from radpref.judges.bleu import bleu
from radpref.records import Finding


def phantom_reports(count: int, seed: int = 3) -> list[str]:
    texts = []
    for index in range(count):
        patient = sample(index, seed=seed, prior_share=0.3)
        truth = [lesion.finding() for lesion in patient.at("current")]
        texts.append(write(truth, (), patient.before is not None, generator(seed, index, 4)).findings)
    return texts


REPORTS = phantom_reports(120)
REPORT = st.sampled_from(REPORTS)
CHANCE = st.integers(0, 10**6).map(Random)
QUICK = settings(max_examples=80, deadline=None)


def said(report: str) -> set[tuple[object, ...]]:
    """What a report states as present or uncertain, with all that it says of it."""
    return {(f.name, f.side, f.place, f.severity, f.change) for f in read(report) if f.presence != "absent"}


def names(report: str, *presences: str) -> set[str]:
    return {f.name for f in read(report) if f.presence in presences}


def one(report: str, corruption: object, chance: Random | None = None) -> str:
    changed = corruption(report, chance or Random(0))  # type: ignore[operator]
    assert changed is not None
    return str(changed)


# ---------------------------------------------------------------- each corruption on a plain report

PLAIN = "The heart is normal in size. Small left pleural effusion. No pneumothorax."


def test_on_a_plain_report() -> None:
    assert one(PLAIN, deny) == "The heart is normal in size. No pleural effusion. No pneumothorax."
    assert one(PLAIN, swap_sides) == PLAIN.replace("left", "right")
    assert one(PLAIN, change_severity) == PLAIN.replace("Small", "Large")
    assert one(PLAIN, omit) == "The heart is normal in size. No pneumothorax."
    assert one(PLAIN, add).startswith(PLAIN)
    assert one(PLAIN, normal) == NORMAL
    assert names(one(PLAIN, undeny), "present") - {"pleural effusion"} < {"pneumothorax", "cardiomegaly"}


@pytest.mark.parametrize("corrupt", [deny, swap_sides, change_severity, omit, normal, half_told])
def test_what_a_normal_report_does_not_offer(corrupt: object) -> None:
    assert corrupt(NORMAL, Random(0)) is None  # type: ignore[operator]


def test_headings_and_bullets_stay() -> None:
    assert one("Lungs: Left base nodule. No edema.", deny) == "Lungs: No nodule. No edema."
    assert one("- Heart size is normal.\n- Left nodule.\n- No edema.", deny).splitlines()[1] == "- No nodule."
    assert one("Left nodule. Heart is normal.", omit) == "Heart is normal."


def test_pieces_join_to_the_report() -> None:
    text = "1. A 2.5 cm nodule.  No edema!\n\n- Heart: normal. XXXX."
    assert "".join(pieces(text)) == text


# ---------------------------------------------------------------- properties, on phantom reports


@given(REPORT, CHANCE)
@QUICK
def test_a_denied_finding_is_denied_and_nothing_else_is_new(report: str, chance: Random) -> None:
    changed = deny(report, chance)
    assume(changed is not None)
    assert changed is not None
    lost = names(report, "present") - names(changed, "present")
    assert lost & names(changed, "absent")
    assert said(changed) < said(report)


@given(REPORT, CHANCE)
@QUICK
def test_a_denial_dropped_states_one_finding_more(report: str, chance: Random) -> None:
    changed = undeny(report, chance)
    assume(changed is not None)
    assert changed is not None
    (new,) = names(changed, "present") - names(report, "present")
    assert new in names(report, "absent")
    assert new not in names(changed, "absent")


@given(REPORT, CHANCE)
@QUICK
def test_swapped_sides_are_swapped_and_back(report: str, chance: Random) -> None:
    changed = swap_sides(report, chance)
    assume(changed is not None)
    assert changed is not None
    other = {"left": "right", "right": "left"}

    def sides(text: str) -> list[tuple[str, object]]:
        return [(f.name, f.side) for f in read(text)]

    assert sides(changed) == [(name, other.get(str(side), side)) for name, side in sides(report)]
    assert swap_sides(changed, chance) == report


@given(REPORT, CHANCE)
@QUICK
def test_a_changed_severity_is_all_that_changes(report: str, chance: Random) -> None:
    changed = change_severity(report, chance)
    assume(changed is not None)
    assert changed is not None

    def without(text: str) -> list[Finding]:
        return [f.model_copy(update={"severity": None, "span": None}) for f in read(text)]

    assert without(changed) == without(report)
    assert [f.severity for f in read(changed)] != [f.severity for f in read(report)]


@given(REPORT, CHANCE)
@QUICK
def test_an_omitted_finding_is_not_mentioned(report: str, chance: Random) -> None:
    changed = omit(report, chance)
    assume(changed is not None)
    assert changed is not None
    assert said(changed) < said(report)
    assert names(changed, "absent") <= names(report, "absent")


@given(REPORT, CHANCE)
@QUICK
def test_an_added_finding_is_one_that_was_not_there(report: str, chance: Random) -> None:
    changed = add(report, chance)
    assume(changed is not None)
    assert changed is not None
    assert changed.startswith(report.rstrip())
    assert len(names(changed, "present") - names(report, "present", "uncertain")) == 1


@given(REPORT, CHANCE)
@QUICK
def test_shuffled_words_are_the_same_words(report: str, chance: Random) -> None:
    changed = shuffle_words(report, chance)
    assume(changed is not None)
    assert changed is not None
    assert sorted(changed.replace(".", "").split()) == sorted(report.replace(".", "").split())
    assert changed.split() != report.split()


@given(st.sampled_from([report for report in REPORTS if len({f.name for f in told(report)}) > 1]), CHANCE)
@QUICK
def test_half_a_report_tells_some_of_it(report: str, chance: Random) -> None:
    half = half_told(report, chance)
    assume(half is not None)
    assert half is not None
    assert told(half)
    assert said(half) < said(report)


@given(REPORT, CHANCE)
@QUICK
def test_a_rewording_says_the_same(report: str, chance: Random) -> None:
    changed = reword(report, chance)
    assume(changed is not None)
    assert changed is not None
    assert changed != report

    def said_in_any_words(text: str) -> list[str]:
        return sorted({str((f.name, f.presence, f.side, f.place, f.severity, f.change)) for f in read(text)})

    assert said_in_any_words(changed) == said_in_any_words(report)


# ---------------------------------------------------------------- the audit


def by_judge(rows: list[Row], judge: str) -> dict[tuple[str, str], Row]:
    return {(row.corruption, row.made_from): row for row in rows if row.judge == judge}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    judges = {name: JUDGES[name]() for name in ("green", "lc-green", "green-1", "text")} | {"bleu": bleu}
    return audit(judges, battery(REPORTS[:60]))


def test_green_orders_every_clinical_corruption_below_the_original(rows: list[Row]) -> None:
    found = by_judge(rows, "green")
    assert {name for name, _ in found} <= {REWORDING, *CORRUPTIONS, *EXPLOITS, *SHORT}
    for name in CORRUPTIONS.keys() - {"word order"}:
        row = found[name, REFERENCE]
        assert (row.below, row.below_reworded) == (1, 1), name
    assert found[REWORDING, REFERENCE].mean == 1
    assert found["constant normal report", REFERENCE].mean == 0


def test_no_exploit_pays(rows: list[Row]) -> None:
    """Of the half-told report none gains in more than 2 % of the reports; the short ones never."""
    played = [row for row in rows if row.judge == "green" and row.made_from in (HALF, WHOLE)]
    assert {row.made_from for row in played} == {HALF, WHOLE}, "normal references and abnormal ones"
    assert len(played) > 20
    assert {row.corruption: row.above for row in played if row.above > 0.02} == {}
    silent = {row.corruption: row.unscored for row in played if row.corruption in ("a refusal", "another language")}
    assert all(silent.values())


def test_the_first_version_is_fooled(rows: list[Row]) -> None:
    """The audit finds the holes that it was built to find."""
    found = by_judge(rows, "green-1")
    for name in ("false findings in brackets", "false findings, 'correlate for'", "claims outside the lexicon"):
        assert found[name, HALF].below < 0.1, name
        assert by_judge(rows, "green")[name, HALF].below > 0.9, name
    assert found["'Clear lungs.'", WHOLE].below < 0.5
    assert by_judge(rows, "green")["'Clear lungs.'", WHOLE].below == 1


def test_length_control_punishes_length_alone(rows: list[Row]) -> None:
    lc, plain_green = by_judge(rows, "lc-green"), by_judge(rows, "green")
    assert lc["repetition", HALF].below > plain_green["repetition", HALF].below == 0


@pytest.mark.parametrize("judge", ["text", "bleu"])
def test_what_compares_words_is_fooled(rows: list[Row], judge: str) -> None:
    found = by_judge(rows, judge)
    for name in ("side swap", "severity change"):
        assert found[name, REFERENCE].below == 1, "any change of words is seen beside the very same words"
        assert found[name, REFERENCE].below_reworded == 0, "but an honest rewording is ranked lower still"


def test_the_battery_follows_from_seed_and_text() -> None:
    assert battery(REPORTS[:5]) == battery(REPORTS[:5])
    assert battery(REPORTS[:5], seed=1) != battery(REPORTS[:5])
    assert battery(REPORTS[3:5]) == [t for t in battery(REPORTS[:5]) if t.reference in REPORTS[3:5]]
    assert {t.made_from for t in battery(REPORTS[:30])} == {REFERENCE, HALF, WHOLE}


def test_unscored_trials_are_counted_and_not_averaged() -> None:
    def compare(reference: str, candidate: str) -> Verdict:
        return Verdict(None, "no idea") if "4 cm" in candidate else Verdict(0.5)

    rows = audit({"moody": judge_by("moody", compare)}, battery([PLAIN, "Left nodule. Heart is normal."]))
    found = by_judge(rows, "moody")
    assert (found["omission", REFERENCE].n, found["omission", REFERENCE].mean, found["omission", REFERENCE].below) == (
        2,
        0.5,
        0,
    )
    missing = found["added finding", REFERENCE].unscored
    assert found["added finding", REFERENCE].n + missing == 2
    assert len(cells(found["omission", REFERENCE])) == markdown(rows).splitlines()[2].count("|") - 1


def test_the_interval_holds_the_mean_and_a_constant_has_none(rows: list[Row]) -> None:
    for row in rows:
        if not row.n:
            assert row.unscored
            continue
        assert row.low - 1e-9 <= row.mean <= row.high + 1e-9
    constant = by_judge(rows, "green")[REWORDING, REFERENCE]
    assert constant.low == constant.high


def test_bleu_is_sacrebleus_sentence_score() -> None:
    (same, other) = bleu([Case("a", "a", PLAIN, PLAIN.upper()), Case("b", "b", PLAIN, "Edema.")])
    assert same.score == pytest.approx(1)
    assert other.score is not None
    assert other.score < 0.05


def test_the_command(tmp_path: Path) -> None:
    reports = tmp_path / "r.csv"
    reports.write_text(f'text\n"{PLAIN}"\n""\n"{NORMAL}"\n')
    out = tmp_path / "audit.md"
    words = ["judges", "audit", "--reports", str(reports), "--field", "text", "--judge", "green", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "2 reports" in done.output
    assert "| side swap | reference | 1 | 0.000 |" in out.read_text()
    assert "text" not in out.read_text()


# ---------------------------------------------------------------- the second reading and the attacker


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Small left pleural effusion.", {"effusion": 1}),
        ("No pleural effusion or pneumothorax.", {"effusion": -1, "pneumothorax": -1}),
        ("Possible nodule.", {"nodule": 0.5}),
        ("The heart is enlarged. Normal heart size.", {"cardiomegaly": 1}),
        ("The heart size is normal.", {"cardiomegaly": -1}),
        ("The bones are intact.", {"fracture": -1}),
        ("No effusion, but there is a mass.", {"effusion": -1, "nodule": 1}),
        ("Effusion is not seen.", {"effusion": -1}),
        ("The sky is blue.", {}),
    ],
)
def test_the_second_reading(text: str, said: dict[str, float]) -> None:
    assert plain(text) == said


def test_agreement_counts_what_is_told_rightly_less_what_is_wrong() -> None:
    truth = of_names(["pleural effusion"])
    assert agreement(plain("Left effusion. No pneumothorax."), truth) == 2
    assert agreement(plain("No effusion. Hernia."), of_labels({"Effusion": 1, "Hernia": 0, "Mass": -1})) == -2
    assert agreement(plain("Granuloma."), truth) == -1, "what is not known to be there is not there"


def test_the_attacker_finds_a_hole_where_there_is_one() -> None:
    """A judge that counts words is taken for all it has; one that is right is not."""

    def wordy(reference: str, candidate: str) -> Verdict:
        return Verdict(min(len(candidate) / 2000, 1.0))

    targets = [Target(report, {}) for report in REPORTS[:6]]
    pool = templates(REPORTS)
    attacks = attack(judge_by("wordy", wordy), targets, pool)
    assert attacks
    assert all(one.gain > 0 and len(one.edits) == 4 for one in attacks)
    for one in attacks:
        truth = plain(one.reference)
        assert agreement(plain(one.text), truth) <= agreement(plain(one.start), truth), "it tells nothing more"
    fair = attack(judge_by("fair", lambda reference, candidate: Verdict(0.5)), targets, pool)
    assert {one.gain for one in fair} == {0.0}


def test_green_withstands_the_attacker() -> None:
    pool = templates(REPORTS)
    attacks = attack(JUDGES["green"](), [Target(report, {}) for report in REPORTS], pool, most=40)
    found = summary("green", attacks)
    assert found.n == 40
    assert found.mean < 0.05
    first = summary("green-1", attack(JUDGES["green-1"](), [Target(report, {}) for report in REPORTS], pool, most=40))
    assert first.mean > found.mean


def test_a_summary_counts_edits() -> None:
    attacks = [Attack("r", "s", "t", 0.2, 0.6, ["append: x", "deny"]), Attack("r", "s", "t", 0.5, 0.5)]
    found = summary("judge", attacks)
    assert (found.n, found.mean, found.share, found.most) == (2, pytest.approx(0.2), 0.5, pytest.approx(0.4))
    assert dict(found.edits) == {"append: x": 1, "deny": 1}


def test_half_of_a_normal_report_is_some_of_its_sentences() -> None:
    half = halved(NORMAL, Random(0))
    assert half is not None
    assert set(half.split(". ")) < set(NORMAL.split(". ")) | {half.split(". ")[-1]}
    assert halved("Clear lungs.", Random(0)) is None
