"""Runs one RadEval metric in a process of its own: a line of JSON in, a line of JSON out.

Started by `radeval.py` under any Python that has RadEval, which need not be the one that has radpref: only the
standard library and RadEval are imported here.

    python radeval_worker.py                   prints {"version": ...}, or {"absent": reason}
    python radeval_worker.py METRIC KEY        lines {"references": [...], "candidates": [...]} on standard input
                                               to lines {"scores": [float or null, ...]} on standard output
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from typing import Any

sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
# else our own radeval.py, which lies beside this file, would be imported as RadEval's package


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the metrics print must not get between the answers
    try:
        radeval = importlib.import_module("radeval")
    except ImportError as error:
        say(out, {"absent": str(error)})
        return
    if len(sys.argv) < 3:
        say(out, {"version": str(getattr(radeval, "__version__", "unknown"))})
        return
    metric, key = sys.argv[1:3]
    try:
        evaluator = radeval.RadEval(metrics=[metric], per_sample=True, show_progress=False)
    except Exception as error:
        say(out, {"failed": f"{type(error).__name__}: {error}"})
        return
    say(out, {"ready": True})
    for line in sys.stdin:
        pairs = json.loads(line)
        say(out, {"scores": score(evaluator, key, pairs["references"], pairs["candidates"])})


def score(evaluator: Any, key: str, references: list[str], candidates: list[str]) -> list[float | None]:
    """A number for each pair, or None where the metric fails on it; one bad pair costs itself alone."""
    try:
        return [number(value) for value in evaluator(refs=references, hyps=candidates)[key]]
    except Exception:
        if len(references) == 1:
            return [None]
        pairs = zip(references, candidates)  # noqa: B905  one length
        return [score(evaluator, key, [reference], [candidate])[0] for reference, candidate in pairs]


def number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def say(out: Any, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
