"""GRPO: a judge as TRL's reward, from the first step to the report, stopped and resumed on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from radpref import config
from radpref.judges import JUDGES, Judge, answer_match, chexpo, finding_graph, reward_function
from radpref.pipeline import METHODS, run_all, run_stage_alone
from radpref.records import Judgement
from radpref.runs.folder import Run, RunError
from tests.runs import counts, finished

REFERENCE = "There is a small left pleural effusion. No pneumothorax."


# ---------------------------------------------------------------- rewards


def test_a_judge_is_a_reward_for_texts_and_conversations() -> None:
    reward = reward_function(JUDGES["green"](), name="green")
    same, other = REFERENCE, "The heart is enlarged."
    plain = reward(["p", "p"], [same, other], reference=[REFERENCE] * 2)
    talked = reward(
        ["p", "p"],
        [
            [{"role": "assistant", "content": same}],
            [{"role": "assistant", "content": [{"type": "text", "text": other}]}],
        ],
        reference=[REFERENCE] * 2,
        unrelated=[1, 2],
    )
    assert plain == talked == [1.0, 0.0]
    assert reward.__name__ == "green"


def test_what_a_judge_cannot_judge_is_no_reward() -> None:
    def absent(cases: object) -> list[Judgement]:
        return [Judgement(id="0", question="0", judge="absent", score=None, unscored="timeout: ...")]

    judge: Judge = absent  # type: ignore[assignment]
    assert reward_function(judge)(["p"], ["text"], reference=["r"]) == [None]
    with pytest.raises(KeyError, match="reads the column 'reference'"):
        reward_function(judge)(["p"], ["text"], answer=["r"])


@pytest.mark.parametrize(
    ("said", "told", "value"),
    [
        ("<think>...</think><answer>Edema, mass</answer>", "edema", 1.0),
        ("<answer>mass", "edema, mass.", 1.0),
        ("Pleural  effusion.", "pleural effusion", 1.0),
        ("effusion", "pleural effusion", 0.0),
        ("", "edema", 0.0),
        (", ,", ",", 0.0),
    ],
)
def test_answer_match(said: str, told: str, value: float) -> None:
    assert answer_match(["p"], [said], answer=[told]) == [value]


@pytest.mark.parametrize(
    ("said", "told", "value"),
    [
        (REFERENCE, REFERENCE, 1.0),
        ("Hello.", "Good day.", 1.0),  # both graphs are empty
        ("Hello.", "Left pleural effusion.", 0.0),
        ("Right pleural effusion.", "Left pleural effusion.", 0.5),  # one entity of one; no relation of two
        ("Left pleural effusion. Edema.", "Left pleural effusion.", (1 / 2 + 1) / 2),
        ("No pleural effusion.", "Pleural effusion.", 0.5),  # another entity; both relations empty
    ],
)
def test_finding_graph(said: str, told: str, value: float) -> None:
    assert finding_graph(["p"], [said], reference=[told]) == [pytest.approx(value)]
    assert chexpo(["p"], [said], reference=[told]) == [pytest.approx(value)]
    assert chexpo(["p"], [f"<answer>{said}</answer>"], reference=[told], answer=[said])[0] == pytest.approx(value + 1)


# ---------------------------------------------------------------- the method


@pytest.mark.slow
def test_grpo_from_studies_to_report_with_a_stop(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", config.load("grpo", preset="tiny", overrides=["run.threads=1"]))
    for stage, limit in (("studies", None), ("sft", None), ("grpo", 1)):
        run_stage_alone(run, stage, limit=limit)
    assert run.mark("grpo") is None, "one of two steps is not the end"
    run_all(run)
    assert finished(run) == {stage.name: "yes" for stage in METHODS["grpo"]}
    log = [json.loads(line) for line in run.path("grpo", "training", "log.jsonl").read_text("utf-8").splitlines()]
    assert [entry["step"] for entry in log] == [1, 2]
    assert all(0 <= entry["reward"] <= 1 for entry in log)
    trained = counts(run, "grpo")["trainable"]
    assert trained
    assert all("q_proj" not in name or "language_model" in name for name, _ in trained)
    systems = {row["system"] for row in run.read_json("metrics.json")["metrics"]}
    assert {"base", "aligned", "constant normal report"} <= systems
    assert "GRPO" in run.path("report.html").read_text("utf-8")
    with pytest.raises(RunError, match="is a run of grpo"):
        run_stage_alone(run, "pair")
    before = run.path("grpo", "done.json").stat().st_mtime_ns
    run_stage_alone(run, "grpo")
    assert run.path("grpo", "done.json").stat().st_mtime_ns == before
