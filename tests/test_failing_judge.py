"""A judge that fails on a third of its inputs: the run finishes, and no failure is taken for a bad report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from radpref import config
from radpref.pipeline import run_all, run_stage_alone
from radpref.runs.folder import Run
from radpref.stages.ports import COMPLETIONS, JUDGEMENTS, PAIRS
from tests.chat_server import Handler, say, scripted
from tests.runs import counts, rows

FAILURES = ("unparsable", "incomplete", "server error")


def number_of(question: dict[str, Any]) -> int:
    """A number that follows from the question: the same report always fails, or never."""
    return int.from_bytes(hashlib.sha256(question["messages"][0]["content"].encode()).digest()[:4], "big")


def said(question: dict[str, Any]) -> str:
    """A word of the candidate."""
    shown = question["messages"][0]["content"].split("=== candidate ")[1].split("===")[1]
    return max(shown.split(), key=len)


def moody(handler: Handler, question: dict[str, Any], _: int) -> None:
    number = number_of(question)
    if number % 3:
        matched = [{"finding": "any", "candidate": said(question)} for _ in range(number % 7)]
        error = {"kind": "false_finding", "finding": "mass", "significant": True}
        say(handler, json.dumps({"errors": [error], "matched": matched}))
    elif number % 9 == 0:
        say(handler, "As a language model, I like this report.")
    elif number % 9 == 3:
        say(handler, '{"errors": [', finish="length")
    else:
        say(handler, "", 500)


def healthy(handler: Handler, question: dict[str, Any], _: int) -> None:
    say(handler, json.dumps({"errors": [], "matched": [{"finding": "all", "candidate": said(question)}]}))


@pytest.mark.slow
def test_a_judge_that_fails_on_a_third(tmp_path: Path) -> None:
    with scripted(moody) as server:
        settings = [
            *("judge.name=chat", f"judge.server={server.url}", "judge.model=m", "judge.retries=0", "judge.repairs=0"),
            *(
                "data.train=16",
                "data.validation=3",
                "data.test=4",
                "sft.enabled=false",
                "evaluate.control=false",
                "run.threads=1",
            ),
            *("align.save_steps=50", "sample.n=4", "sample.max_new_tokens=32"),
        ]
        run = Run(tmp_path / "run", config.load("chexalign", preset="tiny", overrides=settings))
        run_all(run)

    completions = {row.id: row for row in rows(run, COMPLETIONS)}
    judgements = {row.id: row for row in rows(run, JUDGEMENTS)}
    failed = {key: row for key, row in judgements.items() if row.unscored}
    assert judgements.keys() == completions.keys()
    assert 0.15 < len(failed) / len(judgements) < 0.55
    assert {str(row.unscored).partition(":")[0] for row in failed.values()} == set(FAILURES)
    assert all(row.score is None for row in failed.values())

    pairs = rows(run, PAIRS)
    assert pairs
    for pair in pairs:
        for index in pair.id.removeprefix(f"{pair.question}/").split("-"):
            assert f"{pair.question}/{index}" not in failed

    reasons: dict[str, int] = {}
    for row in failed.values():
        reasons[str(row.unscored)] = reasons.get(str(row.unscored), 0) + 1
    assert counts(run, "pair")["unscored"] == reasons
    assert counts(run, "judge")["unscored"] == reasons
    html = run.path("report.html").read_text("utf-8")
    for reason, count in reasons.items():
        assert f"{reason}" in html, f"{reason} ({count}) is not in the report"

    # The same command again asks what may have healed, and that alone.
    with scripted(healthy) as server:
        again = config.override(run.loaded, [f"judge.server={server.url}"])
        run_stage_alone(Run(run.folder, again), "judge", redo=True)
        asked = len(server.asked)
    broken = {key for key, row in failed.items() if str(row.unscored).startswith("server error")}
    after = {row.id: row for row in rows(run, JUDGEMENTS)}
    assert 0 < asked <= len(broken)
    assert all(after[key].score == 1 for key in broken)
    assert all(after[key] == row for key, row in judgements.items() if key not in broken)
