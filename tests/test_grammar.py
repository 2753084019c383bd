"""The English of findings: one grammar for the rewriter, the questions and the phantom's reports."""

from __future__ import annotations

import pytest

from radpref.findings import CHEXPERT, grammar, lexicon, read
from radpref.findings.grammar import Phrase, article, kind, many, noun, noun_kind, plural, singular
from radpref.findings.rewrite import phrases
from radpref.records import Finding
from radpref.tasks import wording


def test_every_finding_has_its_english() -> None:
    assert set(grammar._grammar()["findings"]) == set(CHEXPERT)
    places = set(grammar._grammar()["places"])
    assert places <= set(lexicon().bands) | {value for kind, value in lexicon().phrases if kind == "position"}


@pytest.mark.parametrize("name", CHEXPERT)
def test_what_is_written_of_a_finding_is_read_alike_and_agrees(name: str) -> None:
    bare = wording.bare(Finding(name=name))
    assert [f.name for f in read(f"There {Phrase(name, kind(name)).be} {bare}.")] == [name]
    said = phrases.sentence(Finding(name=name), "there")
    assert [f.name for f in read(said)] == [name]
    assert said.startswith("There are") == (noun_kind(name) == "plural")
    several = many(name)
    assert [f.name for f in read(f"Bilateral {several.text}.")] == [name]
    if kind(name) == "plural":
        assert (several.text, several.be, bare) == (name, "are", name)
    if kind(name) == "count":
        assert singular(several.text) == singular(name)
        assert bare == f"{article(name)} {name}"


def test_nothing_has_a_plural_of_a_plural() -> None:
    every = {many(name).text for name in CHEXPERT} | {wording.noun(Finding(name=n, side="bilateral")) for n in CHEXPERT}
    assert not [word for word in every if word.endswith(("seses", "clipses", "volumeses", "leadses"))]
    assert many("surgical clips").text == "surgical clips"
    assert wording.is_many(Finding(name="surgical clips"))
    assert wording.bare(Finding(name="aortic atherosclerosis")) == "aortic atherosclerosis"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("effusion", "an"), ("nodule", "a"), ("unilateral effusion", "a"), ("unchanged effusion", "an"),
        ("ET tube", "an"), ("NG tube", "an"), ("PICC", "a"), ("ICD", "an"), ("upper zone mass", "an"),
    ],
)  # fmt: skip
def test_articles_follow_the_sound(text: str, wanted: str) -> None:
    assert article(text) == wanted


@pytest.mark.parametrize(
    ("one", "several"),
    [("pneumothorax", "pneumothoraces"), ("lung opacity", "lung opacities"), ("mass", "masses"), ("apex", "apices")],
)
def test_plurals(one: str, several: str) -> None:
    assert (plural(one), singular(several)) == (several, one)


def test_where_a_device_ends_has_no_side() -> None:
    line = Finding(name="central venous catheter", side="right", place="superior vena cava")
    assert wording.noun(line) == "a right central venous catheter in the superior vena cava"
    told = read(f"There is {wording.noun(line)}.")
    assert [(f.name, f.side, f.place) for f in told] == [(line.name, "right", "superior vena cava")]
    assert [(f.side, f.place) for f in read(phrases.sentence(line))] == [("right", "superior vena cava")]
    assert noun("lung opacity") == "opacity"
