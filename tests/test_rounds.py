"""Rounds: each on its own part of the studies, from the model of the round before, held against the fine-tuned one."""

from __future__ import annotations

from pathlib import Path

import pytest

from radpref.config import Recipe
from radpref.pipeline import METHODS, road_of, run_all
from radpref.records import Question
from radpref.rooms import models
from radpref.runs.folder import Run, RunError
from radpref.stages.ports import AFTER, CHOICE, COMPARISONS, MODEL, PAIRS, PREDICTED, ROUNDS, TRAIN, UNTOUCHED
from radpref.stages.rounds import part
from tests.runs import counts, fact, finished, smallest

pytestmark = pytest.mark.heavy


def asked(study: str, number: int) -> Question:
    return Question(
        id=f"{study}-{number}",
        study=study,
        patient=study,
        split="train",
        images=(),
        prompt="Describe.",
        reference="Ok.",
    )


def test_one_round_is_the_method_itself() -> None:
    assert road_of(Recipe()) is METHODS["chexalign"]


def test_each_study_is_in_one_round() -> None:
    questions = [asked(f"s{study}", number) for study in range(7) for number in range(study % 3 + 1)]
    parts = [list(part(questions, number, 3)) for number in range(3)]
    assert sorted(q.id for own in parts for q in own) == sorted(q.id for q in questions)
    studies = [{q.study for q in own} for own in parts]
    assert [sorted(own) for own in studies] == [["s0", "s3", "s6"], ["s1", "s4"], ["s2", "s5"]]


def test_a_method_without_own_answers_has_no_rounds(tmp_path: Path) -> None:
    recipe = smallest("grpo", "align.rounds=2")
    with pytest.raises(RunError, match=r"Set align\.rounds 1"):
        road_of(recipe.recipe)


@pytest.mark.parametrize("rank", [4, 0])
def test_two_rounds(tmp_path: Path, rank: int) -> None:
    few = (
        "align.rounds=2",
        f"align.lora.rank={rank}",
        "data.train=30",
        "sample.most=24",
        "sample.n=3",
        "judge.name=text",
    )
    few += ("pair.by=both", "evaluate.drawn=true", "evaluate.consensus=3")
    run = Run(tmp_path / "run", smallest("chexalign", *few))
    run_all(run)
    assert finished(run) == {stage.name: "yes" for stage in road_of(run.recipe)}
    first, second = (run.table(name, TRAIN) for name in ("round-1", "round-2"))
    assert {q.study for q in first}.isdisjoint(q.study for q in second)
    assert len(first) + len(second) == 24
    choice = run.mark("select").facts["choice"]["chosen"]["weights"]  # type: ignore[union-attr]
    newest, (before,) = fact(run, MODEL), fact(run, ROUNDS).rows
    assert before.weights.fingerprint == choice["fingerprint"]
    assert newest.adapter is None
    tuned = models.fingerprint(models.locate(run.recipe.model), None)
    chosen = fact(run, CHOICE)
    assert chosen.before.weights.fingerprint == tuned
    assert len({tuned, newest.fingerprint, chosen.chosen.weights.fingerprint}) == 3
    systems = counts(run, "evaluate")["systems"]
    ways = [f"{name}, {way}" for name in (UNTOUCHED, AFTER) for way in ("consensus of 3", "drawn")]
    assert systems[:8] == [UNTOUCHED, AFTER, f"{AFTER}, round 1", "sft on chosen", *ways]
    said = {row.id: row.text for row in run.table("predict", PREDICTED)}
    drawn = [text for id, text in said.items() if id.startswith(f"{UNTOUCHED}, drawn")]
    greedy = [text for id, text in said.items() if id.startswith(f"{UNTOUCHED}:")]
    assert len(drawn) == len(greedy) == 3
    assert drawn != greedy
    held = {(row.before, row.after) for row in run.table("evaluate", COMPARISONS)}
    assert held >= {(f"{UNTOUCHED}, {way}", f"{AFTER}, {way}") for way in ("consensus of 3", "drawn")}
    assert {pair.provenance["judge"] for pair in run.table("pair-2", PAIRS)} == {"text and consensus"}
    run_all(run)  # all of it is up to date
    assert run.path("round-2", "done.json").stat().st_mtime_ns < run.path("report.html").stat().st_mtime_ns
