"""The AUC at the words that name an attribute: the right word, its classes, and a number that means what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from attributes import CLASSES, Told, all_of, model_told, probe_on, probe_told, separation, words_of

from radpref.config import ModelSection, PhantomSection, RunSection, TaskSection
from radpref.data import phantom
from radpref.models import load
from radpref.records import Finding, Question, Study
from radpref.tasks import report_question


def question(reference: str, *truth: Finding) -> Question:
    return Question(
        id="s:report", study="s", patient="p", split="test", images=(), prompt="?", reference=reference, truth=truth
    )


def test_words_of_a_reference() -> None:
    text = (
        "There is a small left pleural effusion. Marked right lower zone consolidation. No right pneumothorax. "
        "The prior right nodule has resolved. The upper abdomen is unremarkable."
    )
    asked = question(
        text,
        Finding(name="pleural effusion", side="left", severity="mild"),
        Finding(name="consolidation", side="right", place="lower zone", severity="severe"),
    )
    found = {(attribute, finding, classes): text[at:].split()[0] for attribute, finding, classes, at in words_of(asked)}
    assert found == {
        ("side", "pleural effusion", 0): "left",
        ("severity", "pleural effusion", 0): "small",
        ("side", "consolidation", 1): "right",
        ("severity", "consolidation", 2): "Marked",
        ("place", "consolidation", 2): "lower",
    }


def test_a_slip_of_the_reference_is_no_word_of_the_truth() -> None:
    asked = question("Left pleural effusion.", Finding(name="pleural effusion", side="right", severity="mild"))
    assert list(words_of(asked)) == []


def test_separation_is_the_auc_and_its_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)

    def told(truth: int, scores: tuple[float, ...]) -> Told:
        return Told("severity", "edema", truth, scores, "s")

    perfect = [told(t, tuple(float(c == t) for c in range(3))) for t in (0, 1, 2) for _ in range(9)]
    assert separation(perfect, 3) == 1.0
    habit = [told(t, (0.0, 5.0, 0.0)) for t in (0, 1, 2) for _ in range(9)]
    assert separation(habit, 3) == 0.5
    blind = [told(int(rng.integers(2)), tuple(rng.random(2))) for _ in range(3000)]
    assert separation(blind, 2) == pytest.approx(0.5, abs=0.04)
    assert np.isnan(separation(perfect[:12], 3))


def test_a_probe_reads_what_is_there_and_not_what_is_not() -> None:
    """Features with presence and side of an effusion in one patch; the severity is nowhere."""
    rng = np.random.default_rng(1)
    studies, features = [], torch.tensor(rng.normal(size=(400, 6, 12)) * 0.3, dtype=torch.float32)
    for i in range(400):
        truth = ()
        if i % 2:
            left, severity = bool(rng.integers(2)), CLASSES["severity"][int(rng.integers(3))]
            features[i, int(rng.integers(6)), :3] += torch.tensor([4.0, 4.0 * left, 4.0 * (not left)])
            truth = (Finding(name="pleural effusion", side="left" if left else "right", severity=severity),)  # type: ignore[arg-type]
        studies.append(Study(id=f"s{i}", patient=f"s{i}", images=(), findings="", truth=truth))
    probe = probe_on(features[:300], studies[:300])
    told = probe_told(probe, features[300:], studies[300:])
    assert separation([one for one in told if one.attribute == "side"], 2) > 0.95
    assert separation([one for one in told if one.attribute == "severity"], 3) < 0.7
    guessed = probe.findings(all_of(features[300:]))
    named = [{f.name for f in found if f.presence != "absent"} for found in guessed]
    right = [own == {f.name for f in study.truth or ()} for own, study in zip(named, studies[300:], strict=True)]
    assert np.mean(right) > 0.9


def test_the_model_is_asked_at_the_word_itself(tmp_path: Path) -> None:
    """Scores at a word are those of the same reference cut before it, in any batch."""
    vlm = load(ModelSection(), RunSection(precision="float32"))
    world = PhantomSection(seed=3, lateral_share=0.5)
    studies = phantom.studies(world, train=1, validation=1, test=12, folder=tmp_path)[2:]
    questions = [report_question(study, TaskSection(), 2) for study in studies]
    told = model_told(vlm, questions, batch=5)
    assert {one.attribute for one in told} == set(CLASSES)
    by_word = iter(told)
    for asked in questions:
        for attribute, finding, truth, offset in words_of(asked):
            one = next(by_word)
            assert (one.attribute, one.finding, one.truth, one.study) == (attribute, finding, truth, asked.study)
            assert len(one.scores) == len(CLASSES[attribute])
            cut = asked.model_copy(update={"reference": asked.reference[: offset + 30]})
            alone = [o for o in model_told(vlm, [cut]) if (o.attribute, o.finding) == (attribute, finding)]
            if alone:
                assert alone[0].scores == pytest.approx(one.scores, abs=1e-3)
