"""Agreement with radiologists: the published layouts, tau-b, intervals. All counts and reports are made up here."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy.stats import kendalltau
from typer.testing import CliRunner

from radpref.cli import app
from radpref.judges import JudgeError, Verdict, judge_by
from radpref.judges.radiologists import (
    RADEVALX_COUNTS,
    REXVAL_COUNTS,
    REXVAL_REPORTS,
    Rated,
    agreements,
    rank_correlation,
    read_counts,
)

REFERENCES = ("Left pneumothorax. No effusion.", "Enlarged heart. Lungs are clear.", "Lungs are clear. No effusion.")
CANDIDATES = ("Left pneumothorax. No effusion.", "Right mass.", "Normal heart.", "No effusion.")
KINDS = ("radgraph", "bertscore", "s_emb", "bleu")


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def rexval(tmp_path: Path) -> Path:
    table(
        tmp_path / REXVAL_REPORTS,
        ["", "study_id", "gt_report", *KINDS],
        [[n, 5000 + n, reference, *CANDIDATES] for n, reference in enumerate(REFERENCES)],
    )
    counts = [
        [study, kind, category, significant, rater, (k + study + rater) % 3 if category == 1 and significant else 0]
        for study in range(len(REFERENCES))
        for k, kind in enumerate(KINDS)
        for category in range(1, 7)
        for significant in (True, False)
        for rater in range(6)
    ]
    counts += [[0, "bleu", 2, False, rater, 3] for rater in range(6)]
    header = ["study_number", "candidate_type", "error_category", "clinically_significant", "rater_index", "num_errors"]
    table(tmp_path / REXVAL_COUNTS, header, counts)
    return tmp_path


def test_rexval_is_read_as_published(rexval: Path) -> None:
    rated = {one.id: one for one in read_counts(rexval)}
    assert len(rated) == 12
    one = rated["0/bleu"]
    assert (one.reference, one.candidate, one.study) == (REFERENCES[0], CANDIDATES[3], "0")
    assert one.significant == pytest.approx(sum((3 + rater) % 3 for rater in range(6)) / 6), "the mean of six raters"
    assert one.insignificant == 3
    assert read_counts(rexval / REXVAL_COUNTS) == list(rated.values())


@pytest.fixture
def radevalx(tmp_path: Path) -> Path:
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    for what, name in RADEVALX_COUNTS.items():
        first = 2 if what == "significant" else 1
        rows = [[n, n * first, "", "", "", "", "", 1, ""] for n in range(3)]
        table(tmp_path / name, ["report_id", *numbers], rows)
    return tmp_path


def test_radevalx_needs_the_reports(radevalx: Path) -> None:
    with pytest.raises(JudgeError, match=r"3 reports .* have counts but no text.*--reports"):
        read_counts(radevalx)
    reports = table(
        radevalx / "reports.csv",
        ["study_id", "ground_truth", "prediction"],
        [[n, REFERENCES[n], CANDIDATES[n]] for n in range(3)],
    )
    rated = read_counts(radevalx, reports)
    assert [(one.significant, one.insignificant) for one in rated] == [(1, 1), (3, 2), (5, 3)], "empty cells are none"
    assert rated == read_counts(radevalx), "a table of reports in the folder is found"


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = table(
        tmp_path / "own.csv", ["id", "reference", "candidate", "significant"], [["a", "Edema.", "No edema.", 1.5]]
    )
    assert read_counts(path) == [Rated("a", "a", "Edema.", "No edema.", 1.5, None)]
    bad = table(tmp_path / "bad.csv", ["id", "reference", "candidate", "significant"], [["a", "x", "y", "many"]])
    with pytest.raises(JudgeError, match="'many', which is no number"):
        read_counts(bad)
    with pytest.raises(JudgeError, match="no column 'significant'"):
        read_counts(table(tmp_path / "none.csv", ["id"], [["a"]]))
    with pytest.raises(JudgeError, match="neither ReXVal's counts"):
        read_counts(tmp_path)


def known(scores: dict[str, float | None]) -> object:
    return judge_by(
        "known", lambda reference, candidate: Verdict(scores[candidate], None if scores[candidate] else "no")
    )


def test_tau_is_scipys_and_the_interval_holds_it() -> None:
    rated = [Rated(str(n), str(n // 2), "reference", f"c{n}", float(n % 4), float(n % 3)) for n in range(24)]
    scores = {f"c{n}": 1 - (n % 4) / 5 + (n % 5) / 50 for n in range(24)}
    significant, everything = agreements(known(scores), rated)  # type: ignore[arg-type]
    wanted = kendalltau(list(scores.values()), [-one.significant for one in rated]).statistic
    assert significant.tau == pytest.approx(wanted)
    assert significant.low <= significant.tau <= significant.high
    assert (significant.errors, everything.errors, everything.n) == ("significant", "all", 24)
    assert everything.tau != significant.tau


def test_what_is_unscored_is_counted_and_left_out() -> None:
    rated = [Rated(str(n), str(n), "reference", f"c{n}", float(n), None) for n in range(6)]
    (only,) = agreements(known({f"c{n}": None if n == 0 else 1 - n / 10 for n in range(6)}), rated)  # type: ignore[arg-type]
    assert (only.n, only.unscored, only.tau) == (5, 1, pytest.approx(1))
    (flat,) = agreements(known({f"c{n}": 0.5 for n in range(6)}), rated)  # type: ignore[arg-type]
    assert math.isnan(flat.tau)


def test_rank_correlation_over_systems() -> None:
    assert rank_correlation({"a": 1, "b": 2, "c": 3, "d": 9}, {"a": 5, "b": 6, "c": 7}) == (pytest.approx(1), 3)
    assert math.isnan(rank_correlation({"a": 1}, {"a": 2})[0])


def test_the_command(rexval: Path) -> None:
    out = rexval / "agree.md"
    words = ["judges", "agree", str(rexval), "--judge", "green", "--judge", "bleu", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "12 reports" in done.output
    assert [line.split(" | ")[0] for line in out.read_text().splitlines()[2:]] == ["| green"] * 2 + ["| bleu"] * 2
