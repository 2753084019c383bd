"""RadEval's metrics (Xu et al. 2025, https://github.com/jbdel/RadEval) as judges, in a process of their own.

RadEval pins versions that cannot always live beside ours, so it runs under ``judge.python``, any interpreter that
has it; ``radeval_worker.py`` is all that runs there. One process a judge is started at the first case, keeps its
models loaded, and ends with ours.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radpref.config import JudgeSection
from radpref.files import content_key
from radpref.judges.case import JudgeError, Verdict
from radpref.judges.contract import Judge, Maker, PairJudge, Texts

VERSION = 1
"""Raised with the mapping of values to scores."""

_WORKER = Path(__file__).with_name("radeval_worker.py")
_DEFAULT = JudgeSection()
_BATCH = 64
"""Pairs a line; a metric batches them further as it likes."""


@dataclass(frozen=True)
class Metric:
    """One of RadEval's metrics and the way from its value to a score from 0 to 1, more being better."""

    name: str
    key: str
    """Of RadEval's result with ``per_sample``."""
    score: Callable[[float], float] = lambda value: min(max(value, 0.0), 1.0)


METRICS = {
    "chexbert": Metric("f1chexbert", "f1chexbert_sample_acc_5"),
    "radgraph": Metric("radgraph", "radgraph_partial"),
    "ratescore": Metric("ratescore", "ratescore"),
    # RadCliQ predicts a number of errors, on a scale without bounds: the logistic function of its negative.
    "radcliq": Metric("radcliq", "radcliq_v1", lambda value: 1 / (1 + math.exp(min(max(value, -500), 500)))),
    "bertscore": Metric("bertscore", "bertscore"),
    "green": Metric("green", "green"),
    # CRIMSON goes from -1 to 1.
    "crimson": Metric("crimson", "crimson", lambda value: min(max((value + 1) / 2, 0.0), 1.0)),
    "bleu": Metric("bleu", "bleu"),
    "rouge": Metric("rouge", "rougeL"),
}
"""Our name to the metric; the judge is called ``radeval-`` and this name."""


def maker(name: str) -> Maker:
    """The making of the judge ``radeval-{name}``."""

    def make(section: JudgeSection = _DEFAULT) -> Judge:
        version = f"radeval-{name}-{content_key(VERSION, section.python)}"
        worker = _Worker(METRICS[name], section.python or sys.executable)
        return PairJudge(f"radeval-{name}", version, worker, ready=lambda section: check(name, section))

    return make


def check(name: str, section: JudgeSection) -> None:
    """Raises JudgeError where the interpreter is not there or has no RadEval."""
    python = section.python or sys.executable
    try:
        done = subprocess.run([python, str(_WORKER)], capture_output=True, text=True, timeout=300)
        said = json.loads(done.stdout)
    except OSError as error:
        raise JudgeError(f"`judge.python` is {python!r}, which cannot be started: {error.strerror}.") from error
    except (ValueError, subprocess.TimeoutExpired) as error:
        raise JudgeError(
            f"`judge.python` is {python!r}, which does not run our script {_WORKER.name} ({type(error).__name__}); "
            "give a Python of at least 3.9."
        ) from error
    if "version" not in said:
        raise JudgeError(
            f"the judge radeval-{name} needs the package RadEval, which {python} cannot import ({said['absent']}). "
            "Install it there: pip install 'radpref[radeval]'; or, where its versions clash with others, install "
            "RadEval in an environment of its own and name that one's interpreter: --judge.python PATH."
        )


class _Worker:
    """Pairs of reports to verdicts, through a process that is started when it is first needed."""

    def __init__(self, metric: Metric, python: str) -> None:
        self._metric, self._python = metric, python
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, pairs: Sequence[Texts]) -> list[Verdict]:
        return list(self._verdicts(pairs))

    def _verdicts(self, pairs: Sequence[Texts]) -> Iterator[Verdict]:
        for start in range(0, len(pairs), _BATCH):
            some = pairs[start : start + _BATCH]
            answer = self._say({"references": [r for r, _, _ in some], "candidates": [c for _, c, _ in some]})
            scores = answer.get("scores")
            if not isinstance(scores, list) or len(scores) != len(some):
                raise JudgeError(f"RadEval's {self._metric.name} gave no score for each of {len(some)} reports.")
            for score in scores:
                yield (
                    Verdict(None, "radeval: the metric failed") if score is None else Verdict(self._metric.score(score))
                )

    def _say(self, line: dict[str, Any]) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # the reading below tells how it ended
        return self._hear(process)

    def _start(self) -> subprocess.Popen[str]:
        try:
            process = subprocess.Popen(
                [self._python, str(_WORKER), self._metric.name, self._metric.key],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # it may quote reports
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise JudgeError(
                f"`judge.python` is {self._python!r}, which cannot be started: {error.strerror}."
            ) from error
        said = self._hear(process)
        if "ready" not in said:
            raise JudgeError(
                f"RadEval's {self._metric.name} cannot be used under {self._python}: "
                f"{said.get('failed') or said.get('absent')}"
            )
        self._process = process
        weakref.finalize(self, _end, process)
        return process

    def _hear(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._process = None
            raise JudgeError(
                f"RadEval's process for {self._metric.name} ended with status {process.wait()}. What was judged "
                "before is kept; the same command goes on. Too little memory is the usual cause."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Let a worker go whose judge is not used any more, and with it the weights that it holds."""
    process.kill()
    process.communicate()
