"""Headroom: what a better choice among a model's own answers would give, by toys with known answers and on a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from radpref.cli import app
from radpref.evaluation import GREEDY, Answered, choices, headroom, headroom_verdict, measure
from radpref.judges import JUDGES, agreement
from radpref.records import ImageFile, Question

GREEN = JUDGES["green"]()


def question(number: int, reference: str) -> Question:
    return Question(
        id=f"q{number}", study=f"s{number}", patient=f"p{number}", split="validation", prompt="Report.",
        images=(ImageFile(path="x"),), reference=reference,
    )  # fmt: skip


RIGHT = "There is a moderate left pleural effusion. The heart is normal in size."
WRONG = "There is a large right pneumothorax. The heart is severely enlarged."


def test_agreement_is_the_mean_score_against_all_others() -> None:
    texts = [RIGHT, WRONG, RIGHT, "The lungs are clear."]
    [found] = agreement([(question(0, "of no account"), texts)], GREEN)
    for at, text in enumerate(texts):
        others = [other for place, other in enumerate(texts) if place != at]
        scores = [1.0 if text == other else JUDGE(other, text) for other in others]
        assert found[at] == pytest.approx(sum(scores) / 3)
    assert found[0] == found[2] > found[1]


def JUDGE(reference: str, candidate: str) -> float:
    from radpref.judges import Case

    [row] = GREEN([Case("a", "a", reference, candidate)])
    return row.score or 0.0


def test_answers_to_short_questions_agree_by_their_words() -> None:
    asked = question(0, "Yes.").model_copy(update={"answer": "yes", "closed": True, "prompt": "Is there an effusion?"})
    [found] = agreement([(asked, ["Yes.", "yes, there is", "No."])], JUDGES["answer"]())
    assert found == [0.5, 0.5, 0.0]


def rows(count: int = 12) -> list[Answered]:
    """The greedy answer is wrong; of four draws the second and third are right, and agree."""
    return [Answered(question(i, RIGHT), WRONG, ["The lungs are clear.", RIGHT, RIGHT, WRONG]) for i in range(count)]


def test_the_best_and_the_consensus_are_found_among_the_draws() -> None:
    found = choices(rows(), GREEN, GREEN)
    assert list(found) == [GREEDY, "one draw", "best of 2", "best of 4", "consensus of 4", "reference"]
    assert set(found["one draw"].values()) == {"The lungs are clear."}
    for name in ("best of 2", "best of 4", "consensus of 4", "reference"):
        assert set(found[name].values()) == {RIGHT}, name


def test_the_verdict_says_what_there_is_to_gain() -> None:
    def told(some: list[Answered]) -> str:
        answers = choices(some, GREEN, GREEN)
        questions = [row.question for row in some]
        measured = {name: measure(name, questions, texts, resamples=100) for name, texts in answers.items()}
        ways = headroom(measured, answers, ["green_mean"], resamples=100, seed=1)
        assert ways[0].gains == {}
        assert sum(ways[-1].errors.values()) == 0
        assert bool(sum(ways[0].errors.values())) == (some[0].greedy == WRONG)
        return headroom_verdict(ways, "green_mean")

    assert "know better than it says" in told(rows())
    alone = [row._replace(drawn=[WRONG, WRONG, WRONG, RIGHT]) for row in rows()]
    assert "not where they agree" in told(alone)
    assert "nothing better" in told([row._replace(greedy=RIGHT, drawn=[RIGHT] * 4) for row in rows()])


@pytest.mark.slow
def test_the_command_measures_before_any_alignment_and_a_run_goes_on_from_it(tmp_path: Path) -> None:
    words = ["--preset", "tiny", "--out", str(tmp_path / "run"), "--data.validation", "6"]
    done = CliRunner().invoke(app, ["headroom", "chexalign", *words, "--headroom.n", "3"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "run" / "headroom.json").read_text())
    assert found["questions"] == 6
    names = [way["name"] for way in found["choices"]]
    assert names == ["greedy", "one draw", "best of 2", "best of 3", "consensus of 3", "reference"]
    page = (tmp_path / "run" / "headroom.html").read_text()
    assert "<script" not in page
    assert page.count("<svg") >= 2
    again = CliRunner().invoke(app, ["headroom", str(tmp_path / "run")])
    assert "up to date" in again.output
    stamps = {name: (tmp_path / "run" / name / "done.json").read_text() for name in ("draw", "headroom")}
    whole = CliRunner().invoke(app, ["run", "chexalign", *words, "--headroom.n", "3", "--headroom.enabled", "true"])
    assert whole.exit_code == 0, whole.output
    assert stamps == {name: (tmp_path / "run" / name / "done.json").read_text() for name in stamps}
    section = (tmp_path / "run" / "report.html").read_text().partition('<section id="headroom">')[2]
    assert "consensus of 3" in section.partition("</section>")[0]
    other = CliRunner().invoke(app, ["headroom", str(tmp_path / "run"), "--headroom.n", "4"])
    assert other.exit_code != 0
    assert "--redo" in other.output
    status = CliRunner().invoke(app, ["status", str(tmp_path / "run")]).output
    assert "sft" in status
    none = CliRunner().invoke(app, ["headroom", "pairs", "--out", str(tmp_path / "none"), "--data.source", "none"])
    assert none.exit_code != 0
    assert "Traceback" not in none.output
