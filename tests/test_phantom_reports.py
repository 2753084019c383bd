"""Reports of phantoms say what is there, as a rule reader reads them, apart from what they declare."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from radpref.data.phantom.image import describe
from radpref.data.phantom.patients import DEVICES, NAMES, sample
from radpref.data.phantom.reports import STYLES, Report
from radpref.findings import read
from radpref.records import Finding

COUNT = 1200


@pytest.fixture(scope="module")
def cases() -> list[tuple[tuple[Finding, ...], tuple[Finding, ...], Report]]:
    found = []
    for index in range(COUNT):
        patient = sample(index, seed=5, prior_share=0.35)
        names = {lesion.name for lesion in patient.lesions}
        gone = tuple(x.finding() for x in patient.before or () if x.name not in names)
        truth = tuple(lesion.finding() for lesion in patient.lesions)
        found.append((truth, gone, describe(patient, seed=5)))
    return found


def test_the_reader_finds_the_truth_and_nothing_else(
    cases: list[tuple[tuple[Finding, ...], tuple[Finding, ...], Report]],
) -> None:
    for truth, _, report in cases:
        told: dict[str, list[Finding]] = {}
        for finding in read(report.findings):
            if finding.presence != "absent":
                told.setdefault(finding.name, []).append(finding)
        expected = {finding.name: finding for finding in truth if finding.name not in report.omitted}
        assert set(told) == set(expected), report.findings
        for name, finding in expected.items():
            said = told[name][0]
            hedged, silent = name in report.hedged, name in report.uncompared
            assert said.presence == ("uncertain" if hedged else "present"), report.findings
            place = None if name in DEVICES else said.place  # where a device ends is told in the text alone
            attributes = (finding.side, finding.place, finding.severity)
            assert (said.side, place, said.severity) == attributes, report.findings
            assert said.change == (None if silent else finding.change), report.findings


def test_what_is_gone_is_read_as_absent(
    cases: list[tuple[tuple[Finding, ...], tuple[Finding, ...], Report]],
) -> None:
    mentioned = 0
    for truth, gone, report in cases:
        present = {finding.name for finding in truth}
        for finding in gone:
            readings = [x for x in read(report.findings) if x.name == finding.name]
            mentioned += bool(readings)
            assert finding.name in present or all(x.presence == "absent" for x in readings), report.findings
    assert mentioned > 10


def test_styles_lengths_and_words(cases: list[tuple[tuple[Finding, ...], tuple[Finding, ...], Report]]) -> None:
    reports = [report for _, _, report in cases]
    assert min(Counter(report.style for report in reports).values()) > COUNT / len(STYLES) / 2
    lengths = [len(report.findings.split()) for report in reports]
    assert min(lengths) >= 6
    assert np.mean([15 <= length <= 80 for length in lengths]) > 0.95
    vocabulary = {word.strip(".,:-").lower() for report in reports for word in report.findings.split()}
    assert len(vocabulary) < 250
    assert len({report.findings for report in reports}) > 0.6 * COUNT
    assert all(report.findings and report.impression and report.indication for report in reports)


def test_every_finding_gets_written() -> None:
    written: set[str] = set()
    for index in range(2500):
        patient = sample(index, seed=8)
        written |= {lesion.name for lesion in patient.lesions} - set(describe(patient, seed=8).omitted)
    assert written == set(NAMES)


def test_the_indication_tells_little() -> None:
    """The best guess from the indication alone stays near the base rate."""
    rows = [
        (describe(p, seed=1).indication, {x.name for x in p.lesions}) for p in (sample(i, seed=1) for i in range(3000))
    ]
    for name in ("pleural effusion", "consolidation", "edema", "nodule"):
        base = np.mean([name in names for _, names in rows])
        for reason, many in Counter(reason for reason, _ in rows).items():
            if many > 80:
                assert np.mean([name in names for told, names in rows if told == reason]) < base + 0.25, (
                    name,
                    reason,
                )
