"""The road of CheXPO: what is mined is what is paired, the control sees the same items, a killed run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from radpref import config
from radpref.config import RecipeError
from radpref.mining import Summary
from radpref.pipeline import run_all, run_stage, states
from radpref.records import Completion, MinedQuestion, Pair, Question
from radpref.runs.folder import Run, RunError
from radpref.tasks import matches

SMALL = (
    "data.train=12", "data.validation=1", "data.test=3", "task.per_study=2", "sample.max_new_tokens=12",
    "sft.batch=12", "mine.budget=8", "mine.k=3", "align.epochs=1", "align.batch=8", "align.save_steps=9",
    "evaluate.resamples=100", "evaluate.controls=[negated]", "run.precision=float32",
)  # fmt: skip


def loaded(*overrides: str) -> config.Loaded:
    return config.load("chexpo", preset="tiny", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run."""
    run = Run(tmp_path_factory.mktemp("chexpo") / "run", loaded())
    run_all(run)
    return run


def again(run: Run, folder: Path, *overrides: str) -> Run:
    """A copy of the whole run, with other settings."""
    shutil.copytree(run.folder, folder)
    return Run(folder, loaded(*overrides))


def test_every_stage_finishes_and_mined_questions_are_those_paired(run: Run) -> None:
    assert set(states(run).values()) == {"yes"}
    questions = {row.id: row for row in run.rows("studies", "questions", Question)}
    mined = {row.id for row in run.rows("mine", "mined", MinedQuestion)}
    pairs = run.rows("pair", "pairs", Pair)
    assert len(mined) == 8
    assert all(questions[id].split == "train" for id in mined)
    assert pairs
    assert {pair.question for pair in pairs} <= mined
    dropped = (run.done("pair") or {})["dropped"]
    assert len(pairs) + sum(dropped.values()) == len(mined)


def test_the_chosen_side_is_the_reference_and_the_rejected_side_is_wrong(run: Run) -> None:
    questions = {row.id: row for row in run.rows("studies", "questions", Question)}
    for pair in run.rows("pair", "pairs", Pair):
        asked = questions[pair.question]
        assert pair.chosen == asked.reference
        assert pair.rejected != pair.chosen
        assert pair.provenance["attribute"]


def test_the_control_has_the_items_of_the_alignment(run: Run) -> None:
    aligned, control = run.done("align"), run.done("control")
    assert aligned
    assert control
    assert aligned["items"] == len(run.rows("pair", "pairs", Pair))
    assert f"{aligned['steps']} steps" in next(
        event["result"] for event in run.events() if event["stage"] == "control" and event["event"] == "finished"
    )
    systems = {row["system"] for row in run.read_json("metrics.json")["metrics"]}
    assert systems >= {"base", "sft", "aligned", "sft on chosen"}


def test_the_report_draws_the_mining(run: Run) -> None:
    page = run.path("report.html").read_text("utf-8")
    assert 'id="mining"' in page
    for title in ("How hard is what was found?", "Rare findings", "Cells", "Calibration"):
        assert title in page
    assert "candidates sampled" not in page  # nothing is sampled


def test_a_killed_run_goes_on_to_the_same_pairs(run: Run, tmp_path: Path) -> None:
    other = again(run, tmp_path / "killed")
    answers = other.path("mine", "answers.jsonl")
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:25])  # torn in the middle of a row
    for stage in ("mine", "pair", "prepare", "align"):
        other.path(stage, "done.json").unlink()
    other.path("pair", "pairs.jsonl").unlink()
    for name in ("mine", "pair"):
        run_stage(other, name)
    for stage, name in (("mine", "answers"), ("mine", "mined"), ("pair", "pairs")):
        assert other.digest(stage, name) == run.digest(stage, name), name


def test_random_questions_cost_the_same_budget_and_no_new_answers(run: Run, tmp_path: Path) -> None:
    other = again(run, tmp_path / "random", "mine.select=random")
    before = other.digest("mine", "answers")
    run_stage(other, "mine")
    assert other.digest("mine", "answers") == before
    drawn, mined = ({row.id for row in one.rows("mine", "mined", MinedQuestion)} for one in (other, run))
    assert len(drawn) == len(mined) == 8
    assert drawn != mined
    assert all(row.of is None for row in other.rows("mine", "mined", MinedQuestion))
    summary = Summary.model_validate(other.read_json("mine", "summary.json"))
    assert sum(row.taken for row in summary.strata) == 8


def test_a_sampled_rejected_side_is_the_own_wrong_answer(run: Run, tmp_path: Path) -> None:
    other = again(run, tmp_path / "sampled", "pair.rejected=sampled")
    run_stage(other, "pair")
    questions = {row.id: row for row in other.rows("studies", "questions", Question)}
    said = {row.question: row.text for row in other.rows("mine", "answers", Completion)}
    pairs = other.rows("pair", "pairs", Pair)
    assert pairs
    for pair in pairs:
        asked = questions[pair.question]
        assert pair.rejected == said[pair.question].strip()
        assert not matches(pair.rejected, asked.answer, asked.closed)


def test_bad_input_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine\.select"):
        loaded("mine.select=easy")
    with pytest.raises(RecipeError, match=r"did you mean .?mine\.budget"):
        loaded("mine.budgets=0.1")
    with pytest.raises(RecipeError, match=r"pair\.rejected"):
        loaded("pair.rejected=own")
    bare = Run(tmp_path / "bare", loaded())
    with pytest.raises(RunError, match="studies"):
        run_stage(bare, "mine")
    with pytest.raises(RunError, match="no usable study"):
        run_stage(Run(tmp_path / "few", loaded()), "studies", limit=1)
