"""Habits of reports: each key does what it says, at its rate, and touches neither image nor truth."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radpref.config import HabitSection, PhantomSection
from radpref.data.phantom import CLEAN, CLINICAL, Habits, describe, draw, habits_of, sample, studies
from radpref.data.phantom.habits import HEDGED, MISSED, NORMAL, READERS
from radpref.data.phantom.patients import DEVICES, Patient
from radpref.data.phantom.reports import Report
from radpref.findings import read
from radpref.records import Finding

COUNT = 1500
PATIENTS: list[Patient] = [sample(index, seed=5, prior_share=0.35) for index in range(COUNT)]


def written(habits: Habits) -> list[tuple[tuple[Finding, ...], Report]]:
    return [
        (tuple(lesion.finding() for lesion in patient.lesions), describe(patient, seed=5, habits=habits))
        for patient in PATIENTS
    ]


def told(report: Report) -> dict[str, Finding]:
    """What a rule reader reads, the first mention of each finding."""
    found: dict[str, Finding] = {}
    for finding in read(report.findings):
        if finding.presence != "absent":
            found.setdefault(finding.name, finding)
    return found


def near(share: float, rate: float, n: int) -> bool:
    """Within four standard errors."""
    return abs(share - rate) < 4 * max((rate * (1 - rate) / n) ** 0.5, 1 / n)


def test_clean_has_no_habit() -> None:
    assert all(getattr(CLEAN, field.name) == 0 for field in fields(Habits))
    assert not any(report.habits for _, report in written(CLEAN))


def test_clinical_has_every_habit() -> None:
    assert all(getattr(CLINICAL, field.name) > 0 for field in fields(Habits))
    seen = {habit.partition(": ")[0] for _, report in written(CLINICAL) for habit in report.habits}
    assert seen >= {"omitted", "hedged", "uncompared", "compared", "copied", "other severity", "added"}


def test_omissions_follow_severity_and_spare_devices() -> None:
    some = written(Habits(omission=1.0))
    for severity, rate in MISSED.items():
        there = [
            (finding, report)
            for truth, report in some
            for finding in truth
            if finding.severity == severity and finding.name not in DEVICES and finding.change in (None, "unchanged")
        ]
        omitted = [finding.name in report.omitted for finding, report in there]
        assert near(float(np.mean(omitted)), rate, len(there)), severity
    for truth, report in some:
        assert set(report.omitted) <= {finding.name for finding in truth} - set(DEVICES)
        assert set(told(report)) == {finding.name for finding in truth} - set(report.omitted), report.findings


def test_readers_differ_and_keep_the_rate() -> None:
    spreads, totals = [], []
    for spread in (0.0, 1.0):
        counts: dict[int, list[int]] = {}
        for _, report in written(Habits(omission=0.5, readers=spread)):
            counts.setdefault(report.reader, []).append(len(report.omitted))
        assert len(counts) == READERS
        spreads.append(np.std([np.mean(some) for some in counts.values()]))
        totals.append(sum(map(sum, counts.values())))
    assert spreads[1] > 2 * spreads[0]
    assert 0.5 < totals[1] / totals[0] < 2.0  # eight readers are few


def test_hedging_follows_the_finding() -> None:
    some = written(Habits(hedging=1.0))
    for name in ("atelectasis", "pleural effusion"):
        there = [
            (name in report.hedged, told(report)[name].presence)
            for truth, report in some
            for finding in truth
            if finding.name == name and finding.change is None
        ]
        assert near(float(np.mean([hedged for hedged, _ in there])), HEDGED[name], len(there)), name
        assert all((presence == "uncertain") == hedged for hedged, presence in there)


def test_comparisons_without_a_prior() -> None:
    some = [
        (truth, report)
        for patient, (truth, report) in zip(PATIENTS, written(Habits(comparison=1.0)), strict=True)
        if patient.before is None and truth
    ]
    read_back = [any(finding.change for finding in told(report).values()) for _, report in some]
    assert np.mean(read_back) > 0.6
    assert all((report.comparison != "None.") == bool(report.habits) for _, report in some)


def test_copied_findings_are_stated_as_still_there() -> None:
    some = written(Habits(copied=1.0))
    copied = [(truth, report) for truth, report in some if report.habits]
    assert copied
    for truth, report in copied:
        names = {habit.partition(": ")[2] for habit in report.habits}
        assert not names & {finding.name for finding in truth}
        assert names <= set(told(report)), report.findings
        assert all(told(report)[name].change == "unchanged" for name in names), report.findings


@pytest.mark.parametrize(("habit", "attribute"), [("side_slip", "side"), ("severity_slip", "severity")])
def test_slips_change_one_attribute_at_their_rate(habit: str, attribute: str) -> None:
    some = written(Habits(**{habit: 0.3}))
    wrong = []
    for truth, report in some:
        for finding in truth:
            value = getattr(finding, attribute)
            if value is None or value == "bilateral":
                continue
            said = getattr(told(report)[finding.name], attribute)
            wrong.append(said != value)
            assert (f"other {attribute}: {finding.name}" in report.habits) == (said != value), report.findings
    assert near(float(np.mean(wrong)), 0.3, len(wrong))


def test_template_for_all_that_have_nothing_to_tell() -> None:
    some = written(Habits(template=1.0))
    normal = {
        report.findings
        for truth, report in some
        if not told(report) and not re.search("resolved|removed", report.findings)
    }
    assert normal == {NORMAL}
    assert len({report.findings for truth, report in some if truth}) > 0.9 * sum(bool(truth) for truth, _ in some)


def test_variety_says_the_same_in_more_ways() -> None:
    plain, varied = written(CLEAN), written(Habits(variety=0.5))
    words = [{word.strip(".,:-").lower() for _, r in some for word in r.findings.split()} for some in (plain, varied)]
    assert len(words[1]) > len(words[0]) + 15
    for (truth, _), (_, report) in zip(plain, varied, strict=True):
        found = told(report)
        for finding in truth:
            said = found[finding.name]
            assert (said.side, said.severity, said.change) == (finding.side, finding.severity, finding.change), (
                report.findings
            )


def test_additions_are_read_as_nothing_of_weight() -> None:
    some = written(Habits(tail=1.0, boilerplate=1.0))
    for truth, report in some:
        assert len([habit for habit in report.habits if habit.startswith("added: ")]) == 2
        drawn = {finding.name for finding in truth}
        assert drawn <= set(told(report)), report.findings
    assert len({habit for _, report in some for habit in report.habits}) > 12


def test_a_habit_leaves_the_choices_of_others_alone() -> None:
    alone, beside = written(Habits(omission=1.0)), written(replace(CLINICAL, readers=0.0))
    assert [report.omitted for _, report in alone] == [report.omitted for _, report in beside]


def test_image_and_truth_are_the_same_in_every_world() -> None:
    for index in range(6):
        clean, clinical = (draw(index, seed=3, size=64, habits=habits) for habits in (CLEAN, CLINICAL))
        assert (clean.image == clinical.image).all()
        assert clean.truth == clinical.truth


def test_studies_of_a_clinical_world_share_their_images(tmp_path: Path) -> None:
    worlds = [
        studies(PhantomSection(size=32, reports=reports), train=60, validation=2, test=2, folder=tmp_path)
        for reports in ("clean", "clinical")
    ]
    assert [study.images for study in worlds[0]] == [study.images for study in worlds[1]]
    assert [study.truth for study in worlds[0]] == [study.truth for study in worlds[1]]
    assert sum(a.findings != b.findings for a, b in zip(*worlds, strict=True)) > 30
    with Image.open(worlds[0][0].images[0].path) as picture:
        assert picture.size == (32, 32)


def test_a_key_of_the_recipe_stands_in_for_the_presets() -> None:
    section = PhantomSection(reports="clinical", habits=HabitSection(omission=0.0, tail=1.0))
    assert habits_of(section) == replace(CLINICAL, omission=0.0, tail=1.0)
    assert habits_of(PhantomSection()) == CLEAN
    assert set(HabitSection.model_fields) == {field.name for field in fields(Habits)}
