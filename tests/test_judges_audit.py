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
from radpref.judges.audit import HALF, REFERENCE, REWORDING, Row, audit, battery, cells, markdown
from radpref.judges.bleu import bleu
from radpref.judges.corruptions import (
    CORRUPTIONS,
    INJECTION,
    NORMAL,
    TRICKS,
    add,
    change_severity,
    deny,
    half_told,
    inject,
    normal,
    omit,
    pad,
    pieces,
    repeat,
    reword,
    shuffle_words,
    swap_sides,
    told,
    undeny,
)
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
def test_half_a_report_tells_some_of_it_and_a_trick_tells_no_more(report: str, chance: Random) -> None:
    half = half_told(report, chance)
    assume(half is not None)
    assert half is not None
    assert told(half)
    assert said(half) < said(report)
    for trick in (repeat, pad, inject):
        assert said(trick(half, report, chance)) == said(half)
    assert len(pad(half, report, chance).split()) > len(half.split())
    assert inject(half, report, chance).endswith(INJECTION)


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


def by_judge(rows: list[Row], judge: str) -> dict[str, Row]:
    return {row.corruption: row for row in rows if row.judge == judge}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    judges = {name: JUDGES[name]() for name in ("green", "lc-green", "text")} | {"bleu": bleu}
    return audit(judges, battery(REPORTS[:60]))


def test_green_orders_every_clinical_corruption_below_the_original(rows: list[Row]) -> None:
    found = by_judge(rows, "green")
    assert list(found) == [REWORDING, *CORRUPTIONS, *TRICKS]
    for name in CORRUPTIONS.keys() - {"word order"}:
        assert (found[name].below, found[name].below_reworded) == (1, 1), name
    assert found[REWORDING].mean == 1
    assert all(found[name].above == 0 for name in TRICKS)
    assert found["constant normal report"].mean == 0
    assert found["constant normal report instead"].below == 1


def test_length_control_punishes_length_alone(rows: list[Row]) -> None:
    found = by_judge(rows, "lc-green")
    assert found["repetition"].below == 1
    assert by_judge(rows, "green")["repetition"].below == 0


@pytest.mark.parametrize("judge", ["text", "bleu"])
def test_what_compares_words_is_fooled(rows: list[Row], judge: str) -> None:
    found = by_judge(rows, judge)
    for name in ("side swap", "severity change"):
        assert found[name].below == 1, "any change of words is seen beside the very same words"
        assert found[name].below_reworded == 0, "but an honest rewording is ranked lower still"


def test_the_battery_follows_from_seed_and_text() -> None:
    assert battery(REPORTS[:5]) == battery(REPORTS[:5])
    assert battery(REPORTS[:5], seed=1) != battery(REPORTS[:5])
    assert battery(REPORTS[3:5]) == [t for t in battery(REPORTS[:5]) if t.reference in REPORTS[3:5]]
    assert {t.made_from for t in battery(REPORTS[:9])} == {REFERENCE, HALF}


def test_unscored_trials_are_counted_and_not_averaged() -> None:
    def compare(reference: str, candidate: str) -> Verdict:
        return Verdict(None, "no idea") if "4 cm" in candidate else Verdict(0.5)

    rows = audit({"moody": judge_by("moody", compare)}, battery([PLAIN, "Left nodule. Heart is normal."]))
    found = by_judge(rows, "moody")
    assert (found["omission"].n, found["omission"].mean, found["omission"].below) == (2, 0.5, 0)
    missing = found["added finding"].unscored
    assert found["added finding"].n + missing == 2
    assert len(cells(found["omission"])) == markdown(rows).splitlines()[2].count("|") - 1


def test_the_interval_holds_the_mean_and_a_constant_has_none(rows: list[Row]) -> None:
    for row in rows:
        assert row.low - 1e-9 <= row.mean <= row.high + 1e-9
    constant = by_judge(rows, "green")[REWORDING]
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
