"""The road of CheXPO: what is mined is what is paired, the control sees the same items, a killed run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from radpref import config
from radpref.config import RecipeError
from radpref.mining import Summary
from radpref.pipeline import run_all, run_stage_alone
from radpref.records import Quarantined, TokenScores
from radpref.runs.folder import Run, RunError
from radpref.stages import answers
from radpref.stages.ports import COMPLETIONS, MINED, PAIRS, TRAIN
from radpref.tasks import matches
from tests.runs import counts, digest, finished, last_line, rows

pytestmark = pytest.mark.heavy

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
    assert set(finished(run).values()) == {"yes"}
    questions = {row.id: row for row in rows(run, TRAIN)}
    mined = {row.id for row in rows(run, MINED)}
    pairs = rows(run, PAIRS)
    assert 0 < len(mined) <= 8  # the budget, where so many are hard or near
    assert all(questions[id].split == "train" for id in mined)
    assert pairs
    assert {pair.question for pair in pairs} <= mined
    dropped = counts(run, "pair")["dropped"]
    assert len(pairs) + sum(dropped.values()) == len(mined)


def test_the_chosen_side_is_the_reference_and_the_rejected_side_is_wrong(run: Run) -> None:
    questions = {row.id: row for row in rows(run, TRAIN)}
    for pair in rows(run, PAIRS):
        asked = questions[pair.question]
        assert pair.chosen == asked.reference
        assert pair.rejected != pair.chosen
        assert pair.provenance["attribute"]


def test_the_control_has_the_items_of_the_alignment(run: Run) -> None:
    aligned = counts(run, "align")
    assert aligned["items"] == len(rows(run, PAIRS))
    assert f"{aligned['steps']} steps" in last_line(run, "control")
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
    answers = other.table("answer", COMPLETIONS)
    answers.reopen()  # as a kill leaves it: a part, torn in the middle of a row, and no table
    part = answers.part("old").rename(answers.part(0))
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:25])
    for stage in ("answer", "mine", "pair", "prepare", "align"):
        other.path(stage, "done.json").unlink()
    other.path("pair", "pairs.jsonl").unlink()
    for name in ("answer", "judge", "embed", "mine", "pair"):
        run_stage_alone(other, name)
    for stage, port in (("answer", COMPLETIONS), ("mine", MINED), ("pair", PAIRS)):
        assert digest(other, stage, port) == digest(run, stage, port), stage


def test_random_questions_cost_the_same_budget_and_no_new_answers(run: Run, tmp_path: Path) -> None:
    other = again(run, tmp_path / "random", "mine.select=random")
    run_stage_alone(other, "mine", redo=True)
    assert finished(other)["answer"] == "yes"
    drawn, mined = ({row.id for row in rows(one, MINED)} for one in (other, run))
    assert len(drawn) == len(mined)
    assert drawn != mined
    assert all(row.of is None for row in rows(other, MINED))
    summary = Summary.model_validate(counts(other, "mine")["summary"])
    assert sum(row.taken for row in summary.strata) == len(mined)


def test_a_sampled_rejected_side_is_the_own_wrong_answer(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other answer is made a wrong one: the built-in model may get so few questions all right."""
    own, wrong = answers.greedy, "nothing of it"

    def half_wrong(*given: Any, **more: Any) -> Any:
        scores = TokenScores(logps=(-0.1,), margins=(0.5,), ends=(len(wrong),))
        for number, rows_of in enumerate(own(*given, **more)):
            assert not isinstance(rows_of, Quarantined)
            yield [row.model_copy(update={"text": wrong, "scores": scores}) if number % 2 else row for row in rows_of]

    monkeypatch.setattr(answers, "greedy", half_wrong)
    other = again(run, tmp_path / "sampled", "pair.rejected=sampled", "sample.max_new_tokens=11")
    for name in ("answer", "judge", "mine", "pair"):
        run_stage_alone(other, name, redo=True)
    questions = {row.id: row for row in rows(other, TRAIN)}
    said = {row.question: row.text for row in rows(other, COMPLETIONS)}
    pairs = rows(other, PAIRS)
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
        run_stage_alone(bare, "mine")
    with pytest.raises(RunError, match="no usable study"):
        run_stage_alone(Run(tmp_path / "few", loaded()), "studies", limit=1)
