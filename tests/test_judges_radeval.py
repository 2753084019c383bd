"""RadEval's metrics as judges in another process, with a small stand-in for the package's published interface."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from radpref.config import JudgeSection
from radpref.judges import JUDGES, Case, JudgeError, check
from radpref.judges.radeval import METRICS

STAND_IN = '''
"""RadEval(metrics=[...], per_sample=True, show_progress=False)(refs=[...], hyps=[...]) -> {key: [float, ...]}"""
import os, sys
__version__ = "0.0"
KEYS = {"radgraph": "radgraph_partial", "radcliq": "radcliq_v1", "crimson": "crimson", "bleu": "bleu"}

class RadEval:
    def __init__(self, metrics=None, per_sample=False, show_progress=True):
        assert per_sample and not show_progress
        if metrics == ["ratescore"]:
            raise OSError("no weights")
        print("loading ...")
        self.metric = metrics[0]

    def __call__(self, refs, hyps):
        print("noise on standard output", file=sys.stdout)
        if any("explode" in text for text in hyps):
            raise ValueError("a report that must not be shown")
        if any("die" in text for text in hyps):
            os._exit(7)
        values = []
        for ref, hyp in zip(refs, hyps):
            same = len(set(ref.split()) & set(hyp.split())) / len(set(ref.split()))
            value = {"radcliq": 2 - 4 * same, "crimson": 2 * same - 1}.get(self.metric, same)
            values.append(float("nan") if "odd" in hyp else value)
        return {KEYS[self.metric]: values}
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JudgeSection:
    (tmp_path / "radeval").mkdir()
    (tmp_path / "radeval" / "__init__.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return JudgeSection(python=sys.executable)


def cases(*candidates: str) -> list[Case]:
    return [Case(str(i), "q", "a b c d", text) for i, text in enumerate(candidates)]


@pytest.mark.parametrize("metric", ["radgraph", "radcliq", "crimson", "bleu"])
def test_more_agreement_is_a_higher_score_between_0_and_1(metric: str, stand_in: JudgeSection) -> None:
    check(f"radeval-{metric}", stand_in)
    judge = JUDGES[f"radeval-{metric}"](stand_in)
    scores = [row.score for row in judge(cases("x y", "a b x", "a b c d"))]
    assert all(score is not None and 0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, key=lambda score: score or 0)
    assert len(set(scores)) == 3
    assert [row.score for row in judge(cases("a b c d"))] == scores[-1:], "the process is asked again"


def test_one_bad_report_costs_itself_alone(stand_in: JudgeSection) -> None:
    found = JUDGES["lc-radeval-bleu"](stand_in)(cases("a b c d", "explode", "odd one", "", "a b"))
    assert [row.score for row in found] == [1.0, None, None, None, 0.5]
    assert found[1].unscored == found[2].unscored == "radeval: the metric failed"
    assert found[3].unscored == "the candidate has no words"


def test_a_process_that_dies_is_an_error_with_its_status(stand_in: JudgeSection) -> None:
    judge = JUDGES["radeval-bleu"](stand_in)
    with pytest.raises(JudgeError, match="ended with status 7"):
        judge(cases("die"))
    assert judge(cases("a b c d"))[0].score == 1.0, "the next call starts another one"


def workers() -> dict[int, subprocess.Popen[str]]:
    """RadEval's processes that run now, by their number."""
    found = [value for value in gc.get_objects() if isinstance(value, subprocess.Popen) and value.poll() is None]
    return {process.pid: process for process in found if "radeval_worker" in str(process.args)}


def test_a_judge_that_is_not_used_any_more_leaves_no_process(stand_in: JudgeSection) -> None:
    before = workers().keys()
    judge = JUDGES["radeval-bleu"](stand_in)
    judge(cases("a b c d"))
    (process,) = (process for pid, process in workers().items() if pid not in before)
    del judge
    gc.collect()
    assert process.poll() is not None


def test_a_metric_that_cannot_load_says_why(stand_in: JudgeSection) -> None:
    with pytest.raises(JudgeError, match="OSError: no weights"):
        JUDGES["radeval-ratescore"](stand_in)(cases("a"))


def test_absent_package_and_interpreter_are_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    try:
        import radeval  # noqa: F401
    except ImportError:
        with pytest.raises(JudgeError, match=r"radpref\[radeval\]"):
            check("radeval-green", JudgeSection())
    with pytest.raises(JudgeError, match="cannot be started"):
        check("radeval-green", JudgeSection(python="/no/such/python"))
    with pytest.raises(JudgeError, match="does not run"):
        check("radeval-green", JudgeSection(python="/bin/true"))


def test_every_named_metric_has_its_judges() -> None:
    assert {"chexbert", "radgraph", "ratescore", "radcliq", "bertscore", "green", "crimson"} <= METRICS.keys()
    assert all(f"{lc}radeval-{name}" in JUDGES for name in METRICS for lc in ("", "lc-"))
