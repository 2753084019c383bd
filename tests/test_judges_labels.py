"""The judge `labels`: reports against labels and boxes; every way to please it without telling the truth loses."""

from __future__ import annotations

from statistics import fmean

import pytest

from radpref.config import EditSection, JudgeSection
from radpref.data.phantom import NAMES, draw
from radpref.data.phantom.studies import withheld
from radpref.findings.labelled import finding_of, in_words, labelled, members, tellable
from radpref.judges import JUDGES, Case, OrLabels, compare_labels, judging, reward_function
from radpref.judges.labels import NO_LABELS, NO_NEGATIVE, NOTHING_COUNTS
from radpref.pairs import EDITORS, case_of, counterfactuals, edit, edit_pairs, mended
from radpref.records import Completion, Finding, ImageFile, Question, Side, Study

NORMAL = "The lungs are clear. No pleural effusion or pneumothorax. The heart is normal in size."
EVERYTHING = "Consolidation, opacity, nodule, mass, atelectasis, edema, pleural effusion, pneumothorax, cardiomegaly."
REST = "No pleural effusion or pneumothorax. The heart is normal in size."
Labels = tuple[Finding, ...]


def found(name: str, side: Side | None = None, place: str | None = None) -> Finding:
    return Finding(name=name, side=side, place=place)


def known(*there: Finding, names: tuple[str, ...] = NAMES) -> Labels:
    """Labels of all names, positive with side and zone for those that are there."""
    return labelled({name: int(name in {f.name for f in there}) for name in names}, there)


def score(labels: Labels, text: str, name: str = "labels") -> float:
    (judgement,) = JUDGES[name]()([Case("a/0", "a", "", text, labels=labels)])
    assert judgement.score is not None, judgement.unscored
    return judgement.score


ILL = known(found("consolidation", "left", "lower zone"))
WELL = known()


# ---------------------------------------------------------------- labels as statements


def test_blank_labels_say_nothing() -> None:
    told = labelled({"Edema": None, "Pneumothorax": 0, "Cardiomegaly": 1, "Consolidation": -1, "Age": 1})
    assert {f.name: f.presence for f in told} == {
        "Pneumothorax": "absent",
        "Cardiomegaly": "present",
        "Consolidation": "uncertain",
    }


def test_a_box_stands_in_the_place_of_its_label() -> None:
    told = labelled(
        {"pleural effusion": 1, "Pleural Effusion": 1, "pneumothorax": 0}, [found("pleural effusion", "left")]
    )
    assert [(f.name, f.side, f.presence) for f in told] == [
        ("pleural effusion", "left", "present"),
        ("pneumothorax", None, "absent"),
    ]


def test_a_class_is_of_findings() -> None:
    assert members("Lung Lesion") == {"nodule", "mass"}
    assert members("nodule") == {"nodule"}
    assert not members("Age")
    assert (finding_of("Edema"), finding_of("Lung Lesion")) == ("edema", None)


@pytest.mark.parametrize(
    ("label", "enough"),
    [
        (found("pleural effusion", "left"), True),
        (found("pleural effusion"), False),
        (found("Cardiomegaly"), True),
        (found("Lung Lesion", "left"), False),
    ],
)
def test_what_labels_know_enough_to_tell(label: Finding, enough: bool) -> None:
    assert tellable(label) == enough


# ---------------------------------------------------------------- the truth wins, by class, side and place


def test_the_more_of_the_truth_the_higher() -> None:
    texts = (
        f"Left lower zone consolidation. {REST}",
        f"Left consolidation. {REST}",
        f"Possible left consolidation. {REST}",
        f"Possible consolidation. {REST}",
        "Left consolidation and a left pleural effusion. The heart is normal in size.",
        f"Right lower zone consolidation. {REST}",
    )
    scores = [score(ILL, text) for text in texts]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    assert scores[-1] == 0


def test_a_report_that_tells_the_truth_has_full_marks() -> None:
    """Phantoms' own reports, and the plain reports written from their labels, against these labels."""
    own, plain = [], []
    for index in range(60):
        drawn = draw(index, seed=5, size=32)
        study = withheld(
            Study(id="s", patient="s", images=(), findings=drawn.report.findings, truth=tuple(drawn.truth))
        )
        labels = labelled(study.labels, study.marked)
        own.append(score(labels, drawn.report.findings))
        plain.append(score(labels, in_words(labels)))
    assert fmean(plain) > 0.99
    assert fmean(own) > 0.92, "what is lost is what reports leave out of normal regions"


def test_what_labels_do_not_know_does_not_count() -> None:
    some = known(found("pleural effusion"), names=("pleural effusion", "pneumothorax"))
    plain = "There is a pleural effusion. No pneumothorax."
    for more in ("Nodule in the right upper zone.", "Severe emphysema.", "No nodule.", "Left rib fracture."):
        assert score(some, f"{plain} {more}") == score(some, plain)
    told = (f"There is a {side} pleural effusion. No pneumothorax." for side in ("left", "right", "small"))
    assert {score(some, text) for text in told} == {score(some, plain)}
    assert score(some, "Bilateral pleural effusions. No pneumothorax.") == score(some, plain)


def test_classes_are_met_by_any_of_their_findings() -> None:
    lesion = labelled({"Lung Lesion": 1, "Pneumothorax": 0})
    assert score(lesion, "Left nodule.") == score(lesion, "Left mass.") == pytest.approx(4 / 6)
    assert score(labelled({"Lung Lesion": 0, "Edema": 1}), "Edema and a left mass.") < 0.6


def test_no_finding_denies_everything_but_devices() -> None:
    clean = labelled({"No Finding": 1})
    assert score(clean, NORMAL) == 1
    assert score(clean, f"{NORMAL} Endotracheal tube.") == 1
    assert score(clean, f"{NORMAL} Left rib fracture.") < 0.7
    assert score(clean, f"{NORMAL} Pulmonary embolism.") < 0.7


# ---------------------------------------------------------------- exploits


@pytest.mark.parametrize("labels", [ILL, WELL])
@pytest.mark.parametrize(
    "text",
    [
        EVERYTHING,
        f"Possible {EVERYTHING.lower()}",
        f"Possible {EVERYTHING.lower()} {NORMAL}",
        f"{NORMAL} Correlate for {EVERYTHING.lower()}",
        f"{EVERYTHING} {NORMAL}",
    ],
    ids=["stated", "hedged", "hedged and denied", "looked for", "stated and denied"],
)
def test_naming_everything_does_not_pay(labels: Labels, text: str) -> None:
    honest = f"Left lower zone opacity. {REST}" if labels is ILL else NORMAL
    assert score(labels, text) < 0.35 < score(labels, honest)


@pytest.mark.parametrize("text", ["Normal.", "Clear lungs.", "Unremarkable.", "No acute cardiopulmonary abnormality."])
def test_two_normal_words_do_not_pay(text: str) -> None:
    assert score(ILL, text) == 0
    assert score(WELL, text) <= 0.4
    assert score(WELL, NORMAL) == 1


def test_a_normal_report_of_what_is_not_earns_nothing() -> None:
    assert score(ILL, NORMAL) == 0
    assert score(ILL, f"{NORMAL} No nodule. No mass. No edema. No atelectasis.") == 0


def test_nobody_is_paid_for_listing_denials() -> None:
    assert score(WELL, f"{NORMAL} No nodule. No mass. No edema. No pneumonia.") == score(WELL, NORMAL)


def test_both_sides_are_worse_than_a_guess() -> None:
    guess = fmean(score(ILL, f"{side} lower zone consolidation. {REST}") for side in ("Left", "Right"))
    assert score(ILL, f"Bilateral lower zone consolidation. {REST}") < guess
    zones = [f"left {zone} zone" for zone in ("upper", "mid", "lower")]
    guess = fmean(score(ILL, f"Consolidation in the {zone}. {REST}") for zone in zones)
    every = " ".join(f"Consolidation in the {zone}." for zone in zones)
    assert score(ILL, f"{every} {REST}") < guess


def test_hedging_what_is_there_is_worth_less_than_stating_it() -> None:
    assert score(ILL, f"Possible left lower zone consolidation. {REST}") < score(
        ILL, f"Left lower zone consolidation. {REST}"
    )


def test_a_contradiction_earns_nothing() -> None:
    assert score(ILL, "Left lower zone consolidation. No consolidation.") == 0


@pytest.mark.parametrize(
    ("labels", "text", "why"),
    [
        ((), NORMAL, NO_LABELS),
        (ILL, "", "the candidate has no words"),
        (ILL, "I cannot help with that.", "the candidate is no report"),
        (labelled({"Edema": 1}), EVERYTHING, NO_NEGATIVE),
        (labelled({"Edema": None}), EVERYTHING, NO_LABELS),
        (labelled({"Fracture": 0}), NORMAL, NOTHING_COUNTS),
    ],
)
def test_unscored(labels: Labels, text: str, why: str) -> None:
    (judgement,) = JUDGES["labels"]()([Case("a/0", "a", "", text, labels=labels)])
    assert judgement.score is None
    assert (judgement.unscored or "").startswith(why)


# ---------------------------------------------------------------- uncertain labels, length


def test_uncertain_labels_count_by_the_rule_in_the_name() -> None:
    labels = labelled({"Consolidation": -1, "Pleural Effusion": 0, "Pneumothorax": 0})
    said = {text: f"{text} No pleural effusion." for text in ("Left consolidation.", "The lungs are clear.")}

    def scores(rule: str) -> list[float]:
        return [score(labels, text, f"labels-uncertain-{rule}") for text in said.values()]

    claimed, denied = scores("positive")
    assert claimed > 0.9 > denied
    claimed, denied = scores("negative")
    assert claimed < 0.5
    assert denied == 1
    claimed, denied = scores("ignored")
    assert claimed == denied == 1
    assert score(labels, said["Left consolidation."]) == scores("positive")[0], "labels alone takes them for suspected"
    versions = {JUDGES[name]().version for name in JUDGES if name.startswith("labels-uncertain")}
    assert len(versions) == 3


def test_length_is_held_against_a_plain_report_of_the_labels() -> None:
    text = f"Left lower zone consolidation. {REST}"
    assert score(ILL, text, "lc-labels") == 1
    padded = " ".join([text] * 6)
    (judgement,) = JUDGES["lc-labels"]()([Case("a/0", "a", "", padded, labels=ILL)])
    assert judgement.score == pytest.approx(len(in_words(ILL).split()) / len(padded.split()))


# ---------------------------------------------------------------- beside a judge of references


def test_what_has_no_reference_is_judged_by_labels() -> None:
    judge = judging(JudgeSection(name="green"))
    assert isinstance(judge, OrLabels)
    cases = [
        Case("a/0", "a", "", NORMAL, labels=WELL),
        Case("b/0", "b", "Left pleural effusion.", "Left pleural effusion.", labels=WELL),
        Case("c/0", "c", "", NORMAL),
    ]
    rows = judge(cases)
    assert [row.id for row in rows] == ["a/0", "b/0", "c/0"]
    assert [row.judge for row in rows] == ["labels", "green", "green"]
    assert [row.score for row in rows] == [1, 1, None]
    controlled = judging(JudgeSection(name="lc-green"))
    assert [row.judge for row in controlled(cases)] == ["lc-labels", "lc-green", "lc-green"]
    assert judging(JudgeSection(name="labels-uncertain-ignored")).name == "labels-uncertain-ignored"
    assert JUDGES["labels"]().version in judge.version


def test_labels_are_a_reward() -> None:
    reward = reward_function(judging(JudgeSection(name="green")))
    given = reward(["?", "?"], [NORMAL, "Left effusion."], reference=["", "Left effusion."], labels=[WELL, ()])
    assert given == [1, 1]


# ---------------------------------------------------------------- edits by labels


def question(labels: Labels, reference: str = "") -> Question:
    images = (ImageFile(path="/a.png"),)
    return Question(
        id="q", study="q", patient="p", split="train", images=images, prompt="?", reference=reference, labels=labels
    )


EFFUSION = known(found("pleural effusion", "left"))
EDITS = (
    (EFFUSION, "Small right pleural effusion. Stable mild scarring.",
     "Small left pleural effusion. Stable mild scarring."),
    (EFFUSION, NORMAL, "The lungs are clear. Left pleural effusion. No pneumothorax. The heart is normal in size."),
    (WELL, "There is a small left pleural effusion. The heart is normal in size.",
     "There is no pleural effusion. The heart is normal in size."),
    (known(found("cardiomegaly")), NORMAL,
     "The lungs are clear. No pleural effusion or pneumothorax. The heart is enlarged."),
    (ILL, "Moderate consolidation in the left upper zone, new.", "Moderate consolidation in the left lower zone, new."),
)  # fmt: skip


@pytest.mark.parametrize(("labels", "words", "wanted"), EDITS)
def test_labels_mend_what_they_contradict_and_leave_the_rest(labels: Labels, words: str, wanted: str) -> None:
    section = EditSection()
    (made,) = edit([case_of(question(labels), words)], EDITORS["rule"](section), section)
    assert made.failed is None
    assert (made.chosen, made.rejected) == (wanted, words)


def test_nothing_is_added_that_labels_cannot_tell() -> None:
    """An effusion without a side: silence is no mistake, a denial is."""
    section = EditSection()
    bare = known(found("pleural effusion"))
    silent = "The lungs are clear. The heart is normal in size. No pneumothorax."
    (made,) = edit([case_of(question(bare), silent)], EDITORS["rule"](section), section)
    assert made.was_right
    (made,) = edit([case_of(question(bare), f"{silent} No pleural effusion.")], EDITORS["rule"](section), section)
    assert made.was_right is False
    assert made.failed is None
    assert "No pleural effusion" not in made.chosen


def test_truth_and_reference_are_believed_before_labels() -> None:
    words = "Left pleural effusion."
    assert not case_of(question(WELL, reference=words), words).bare
    truth = question(WELL).model_copy(update={"truth": (found("pleural effusion", "left"),)})
    assert not case_of(truth, words).bare
    assert case_of(question(WELL), words).bare


def test_counterfactuals_flip_the_models_own_words_where_there_is_no_reference() -> None:
    section = EditSection()
    said = [Completion(id="q/0", question="q", index=0, text="Right pleural effusion.", tokens=4, finished=True)]
    editor = EDITORS["rule"](section)
    own = mended([question(EFFUSION)], said, editor, section)
    assert own == {"q": "Left pleural effusion."}
    (pair,) = counterfactuals([question(EFFUSION)], editor, section, own).pairs
    assert pair.chosen == "Left pleural effusion."
    assert compare_labels(EFFUSION, pair.rejected).score != 1
    assert not counterfactuals([question(EFFUSION)], editor, section).pairs, "nothing is flipped in an empty reference"
    assert edit_pairs([question(EFFUSION)], said, editor, section).pairs[0].rejected == "Right pleural effusion."
