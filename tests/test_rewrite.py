"""Findings back into text: sentences, attributes turned, statements denied and made, flips."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radpref.findings import CHEXPERT, COVERS, read
from radpref.findings.rewrite import (
    ATTRIBUTES,
    contradictions,
    denied,
    difference,
    flip,
    flips,
    sentences,
    stated,
    turn,
    turned,
)
from radpref.findings.rewrite.phrases import plural, sentence, singular
from radpref.findings.rewrite.sentences import replaced
from radpref.records import Finding

SENTENCES = (
    "There is a small left pleural effusion.",
    "Moderate bilateral pleural effusions, increased from the prior.",
    "No pleural effusion or pneumothorax.",
    "The lungs are clear.",
    "Heart size is normal.",
    "The heart is moderately enlarged, unchanged.",
    "The mediastinum is unremarkable.",
    "Mild consolidation in the right upper zone is seen.",
    "A nodule in the left mid zone is present, stable.",
    "Severe bibasilar atelectasis.",
    "New right apical pneumothorax.",
    "No rib fracture.",
    "Endotracheal tube ending above the carina.",
    "Possible mild right mid zone pleural thickening.",
    "Old right rib fractures.",
)
reports = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6, unique=True).map(" ".join)


def first(text: str, name: str) -> Finding:
    return next(finding for finding in read(text) if finding.name == name)


@pytest.mark.parametrize(
    "name", sorted(set(CHEXPERT) - set(COVERS) - {"support device", "bone abnormality", "foreign body"})
)
@pytest.mark.parametrize("side", [None, "left", "bilateral"])
def test_a_written_finding_is_read_again(name: str, side: str | None) -> None:
    for style in ("plain", "there", "seen"):
        text = sentence(Finding(name=name, side=side), style) + "."
        assert any(f.name == name and f.presence == "present" for f in read(text)), text
    assert all(f.presence == "absent" for f in read(sentence(Finding(name=name, presence="absent")) + "."))


@pytest.mark.parametrize("place", ["upper zone", "lower lobe", "apex", "base", "perihilar", "retrocardiac", None])
@pytest.mark.parametrize("side", [None, "left", "right", "bilateral"])
def test_side_place_severity_and_change_are_read_again(side: str | None, place: str | None) -> None:
    for change in (None, "new", "worse", "better", "unchanged"):
        wanted = Finding(name="consolidation", side=side, place=place, severity="severe", change=change)
        (found,) = read(sentence(wanted) + ".")
        assert found.model_copy(update={"span": None}) == wanted


def test_plurals_come_and_go() -> None:
    for one, many in (("effusion", "effusions"), ("opacity", "opacities"), ("mass", "masses"), ("apex", "apices"),
                      ("pneumothorax", "pneumothoraces"), ("base", "bases")):  # fmt: skip
        assert (plural(one), singular(many)) == (many, one)
    assert singular("atelectasis") == "atelectasis"


TURNS = (
    ("There is a small left pleural effusion.", "pleural effusion", "side", "right",
     "There is a small right pleural effusion."),
    ("There is a small left pleural effusion.", "pleural effusion", "side", "bilateral",
     "There are small bilateral pleural effusions."),
    ("There are small bilateral pleural effusions.", "pleural effusion", "side", "left",
     "There is a small left pleural effusion."),
    ("Opacity in the left lower zone.", "lung opacity", "side", "bilateral", "Opacities in both lower zones."),
    ("Mild atelectasis at the right base.", "atelectasis", "side", "bilateral", "Mild atelectasis at both bases."),
    ("Mild right basilar atelectasis.", "atelectasis", "side", "bilateral", "Mild bibasilar atelectasis."),
    ("Left-sided pneumothorax.", "pneumothorax", "side", "right", "Right-sided pneumothorax."),
    ("Nodule at the left base.", "nodule", "place", "upper zone", "Nodule in the left upper zone."),
    ("The heart is mildly enlarged.", "cardiomegaly", "severity", "severe", "The heart is severely enlarged."),
    ("The heart is borderline enlarged.", "cardiomegaly", "severity", "severe", "The heart is severely enlarged."),
    ("An extensive pleural effusion.", "pleural effusion", "severity", "mild", "A small pleural effusion."),
    ("Cardiomegaly, increased from the prior.", "cardiomegaly", "change", "better",
     "Cardiomegaly, decreased from the prior."),
    ("Cardiomegaly, increased from the prior.", "cardiomegaly", "change", None, "Cardiomegaly."),
    ("A new right pacemaker.", "pacemaker", "change", "unchanged", "An unchanged right pacemaker."),
    ("Pleural effusion.", "pleural effusion", "side", "left", "Left pleural effusion."),
    ("There is a nodule in the right apex.", "nodule", "type", "mass", "There is a mass in the right apex."),
    ("There is an opacity in the right apex.", "lung opacity", "type", "consolidation",
     "There is consolidation in the right apex."),
)  # fmt: skip


@pytest.mark.parametrize(("text", "name", "attribute", "value", "wanted"), TURNS)
def test_an_attribute_is_turned_in_english(text: str, name: str, attribute: str, value: str, wanted: str) -> None:
    assert next(turned(text, first(text, name), attribute, value)) == wanted


DENIALS = (
    ("There is a small left pleural effusion. No pneumothorax.", "pleural effusion",
     "There is no pleural effusion. No pneumothorax."),
    ("A small effusion is present, unchanged.", "pleural effusion", "No effusion is present."),
    ("The heart is mildly enlarged, unchanged.", "cardiomegaly", "The heart is normal in size."),
    ("Heart size borderline enlarged.", "cardiomegaly", "Heart size normal."),
    ("Small effusion and atelectasis.", "pleural effusion", "Atelectasis."),
    ("Small effusion, atelectasis, and nodule.", "atelectasis", "Small effusion and nodule."),
    ("The lungs are clear. Endotracheal tube.", "endotracheal tube", "The lungs are clear."),
    ("There is a nodule. It is 1 cm wide. The heart is normal.", "nodule",
     "There is no nodule. The heart is normal."),
)  # fmt: skip


@pytest.mark.parametrize(("text", "name", "wanted"), DENIALS)
def test_a_statement_is_denied_in_english(text: str, name: str, wanted: str) -> None:
    assert next(denied(text, first(text, name))) == wanted


STATEMENTS = (
    ("No pneumothorax.", Finding(name="pneumothorax", side="right", severity="mild"), "Small right pneumothorax."),
    ("There is no pneumothorax.", Finding(name="pneumothorax", side="right"), "There is a right pneumothorax."),
    ("No effusion is seen.", Finding(name="pleural effusion", side="left"), "A left effusion is seen."),
    ("No pleural effusion or pneumothorax.", Finding(name="pleural effusion", side="left"),
     "Left pleural effusion. No pneumothorax."),
    ("No consolidation, effusion or pneumothorax.", Finding(name="pleural effusion", side="left"),
     "No consolidation or pneumothorax. Left effusion."),
    ("Heart size is normal.", Finding(name="cardiomegaly", severity="mild"), "Heart size is mildly enlarged."),
    ("The heart and mediastinum are normal.", Finding(name="cardiomegaly"),
     "The heart is enlarged. The mediastinum is normal."),
    ("The lungs are clear.", Finding(name="nodule", side="left", place="apex"),
     "Left apical nodule. The lungs are otherwise clear."),
    ("No acute abnormality.", Finding(name="consolidation"), "Consolidation. No other acute abnormality."),
    ("- Heart size is normal.\n- No rib fracture.", Finding(name="chest tube", side="left"),
     "- Heart size is normal.\n- No rib fracture.\n- Left chest tube."),
)  # fmt: skip


@pytest.mark.parametrize(("text", "finding", "wanted"), STATEMENTS)
def test_a_finding_is_stated_in_english_without_contradiction(text: str, finding: Finding, wanted: str) -> None:
    made = next(stated(text, finding))
    assert made == wanted
    assert not contradictions(made)


def test_a_removed_sentence_takes_its_bullet_or_heading_with_it() -> None:
    text = "- The lungs are clear.\n- Nodule.\n- Heart size is normal."
    assert replaced(sentences(text)[1]) == "- The lungs are clear.\n- Heart size is normal."
    text = "Lungs: Nodule. Heart: Heart size is normal."
    assert replaced(sentences(text)[0]) == "Heart: Heart size is normal."
    assert replaced(sentences("Nodule.")[0]) == ""


def test_general_denials_contradict_what_they_cover_unless_they_say_otherwise() -> None:
    assert contradictions("Nodule in the left apex. The lungs are clear.") == {"nodule"}
    assert not contradictions("Nodule in the left apex. The lungs are otherwise clear.")
    assert not contradictions("Left effusion. No right effusion.")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_each_attribute_can_be_flipped(attribute: str) -> None:
    text = "There is a new small left pleural effusion. Mild opacity in the right upper zone. Heart size is normal."
    made = flip(text, 3, [attribute])  # type: ignore[list-item]
    assert made is not None
    assert made.attribute == attribute
    assert made.before != made.after


def test_all_mentions_go_with_a_flip() -> None:
    text = "There is a left pleural effusion. No pneumothorax. The left effusion is small."
    made = turn(text, first(text, "pleural effusion"), "side", "right")
    assert made is not None
    assert made.text == "There is a right pleural effusion. No pneumothorax. The right effusion is small."
    made = turn("Opacity in the right base, likely atelectasis.", read("Opacity in the right base.")[0], "side", "left")
    assert made is not None
    assert "left base" in made.text


def test_what_differs_in_two_attributes_is_no_flip() -> None:
    before = read("Small left pleural effusion.")
    assert difference(before, read("Large right pleural effusion.")) is None
    assert difference(before, before) is None
    assert difference(before, read("Small left pneumothorax.")) == (
        "pleural effusion",
        "type",
        "pleural effusion",
        "pneumothorax",
    )
    assert difference(before, read("The study.")) == ("pleural effusion", "presence", "present", "absent")


@settings(max_examples=60, deadline=None)
@given(reports, st.integers(0, 1000))
def test_a_flip_changes_exactly_what_it_records(text: str, seed: int) -> None:
    made = flip(text, seed)
    if made is not None:
        assert difference(read(text), read(made.text)) == made[1:]
        assert contradictions(made.text) <= contradictions(text)
        assert made == flip(text, seed)


@settings(max_examples=60, deadline=None)
@given(reports, st.integers(0, 1000), st.sampled_from(["side", "place", "severity"]))
def test_flipping_back_restores_what_was_said(text: str, seed: int, attribute: str) -> None:
    made = flip(text, seed, [attribute])  # type: ignore[list-item]
    if made is None:
        return
    mention = next(f for f in read(made.text) if f.name == made.finding and getattr(f, attribute) == made.after)
    back = turn(made.text, mention, attribute, made.before)  # type: ignore[arg-type]
    assert back is not None
    plain = [[f.model_copy(update={"span": None}) for f in read(t)] for t in (text, back.text)]
    assert plain[0] == plain[1]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.integers(0, 9))
def test_any_text_is_survived(text: str, seed: int) -> None:
    for made in flips(f"{text} Small effusion. {text}", seed):
        assert made.text
