"""Headroom: what a better choice among a model's own answers would give, by toys with known answers and on a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from radpref.cli import app
from radpref.evaluation import GREEDY, Answered, choices, headroom, headroom_verdict, measure
from radpref.judges import JUDGES, agreement
from radpref.records import Finding, ImageFile, Question
from radpref.training.probe import Sight, train_probe
from radpref.training.probe import _kept as kept

pytestmark = pytest.mark.heavy

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


def test_a_probe_finds_what_the_features_hold_and_nothing_where_they_hold_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    there = torch.rand(400, generator=rng) < 0.4
    left = torch.rand(400, generator=rng) < 0.5
    features = torch.randn(400, 9, 32, generator=rng) * 0.3
    places = torch.randint(9, (400,), generator=rng)
    for row in range(400):  # at some place the one number that tells, and its side in another
        if there[row]:
            features[row, places[row], 0] = 4.0
            features[row, places[row], 1] = 4.0 if left[row] else -4.0
    mask = torch.ones(400, 9, dtype=torch.bool)
    mask[::3, 7:] = False  # a study with fewer images
    said = [
        [Finding(name="pleural effusion", side="left" if left[row] else "right")]
        if there[row] and mask[row, places[row]] else [Finding(name="pleural effusion", presence="absent")]
        for row in range(400)
    ]  # fmt: skip
    seen = Sight(features, mask)
    probe = train_probe(Sight(features[:300], mask[:300]), said[:300])
    found = probe.findings(seen)[300:]
    right = [a == b for [a], [b] in zip(found, said[300:], strict=True)]
    assert sum(right) > 90
    torch.testing.assert_close(probe(features, mask), probe(features.where(mask[..., None], 7.0), mask))
    again = train_probe(Sight(features[:300], mask[:300]), said[:300])
    assert torch.equal(again(features, mask), probe(features, mask))  # of the seed alone
    blind = train_probe(Sight(torch.randn(300, 9, 32, generator=rng), mask[:300]), said[:300])
    guessed = [a.presence == b.presence for [a], [b] in zip(blind.findings(seen)[300:], said[300:], strict=True)]
    assert sum(guessed) < 80
    with pytest.raises(ValueError, match="names a finding"):
        train_probe(seen, [[] for _ in range(400)])


def test_many_wide_places_are_averaged_and_projected() -> None:
    one, wide = torch.ones(6, 4), torch.randn(1000, 2048)
    assert kept(one) is one
    assert kept(wide).shape == (64, 512)
    lengths = kept(wide[:60]).norm(dim=1) / wide[:60].norm(dim=1)
    assert ((lengths - 1).abs() < 0.2).all()  # distances are kept


@pytest.mark.slow
def test_the_command_measures_before_any_alignment_and_a_run_goes_on_from_it(tmp_path: Path) -> None:
    words = ["--preset", "tiny", "--out", str(tmp_path / "run"), "--data.validation", "6"]
    done = CliRunner().invoke(app, ["headroom", "chexalign", *words, "--headroom.n", "3"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "run" / "headroom.json").read_text())
    assert found["questions"] == 6
    names = [way["name"] for way in found["choices"]]
    drawn = ["greedy", "one draw", "best of 2", "best of 3", "consensus of 3"]
    assert names == [*drawn, "probe", "truth", "reference"]
    by_name = {way["name"]: way["metrics"]["finding_f1_micro_truth_uncertain-positive"] for way in found["choices"]}
    assert by_name["truth"]["value"] == 1.0
    assert "A probe on its image features" in found["verdict"] or "A plain report of what a probe" in found["verdict"]
    page = (tmp_path / "run" / "headroom.html").read_text()
    assert "<script" not in page
    assert page.count("<svg") >= 2
    again = CliRunner().invoke(app, ["headroom", str(tmp_path / "run")])
    assert "up to date" in again.output
    stamps = {name: (tmp_path / "run" / name / "done.json").read_text() for name in ("draw", "probe", "headroom")}
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
