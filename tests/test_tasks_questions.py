"""Questions made from findings: right by the truth, read back alike, seeded, balanced on request."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radpref.config import PhantomSection, TaskSection
from radpref.data import leakage
from radpref.data.phantom import studies as phantoms
from radpref.findings import read
from radpref.images import read_image
from radpref.records import Asked, Box, Finding, ImageFile, Question, Study
from radpref.tasks import (
    blanked,
    in_sentence,
    known,
    matches,
    negated,
    polarity,
    question_of,
    questions,
    swapped,
)
from radpref.tasks.comparison import OPENING
from radpref.tasks.wording import noun, place_of

TASK = TaskSection(kind="questions", per_study=500)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    section = PhantomSection(size=64, seed=3, masks=True, prior_share=0.4)
    return phantoms(section, train=36, validation=4, test=12, folder=tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def asked(world: list[Study], tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    return list(questions(world, TASK, max_images=2, folder=tmp_path_factory.mktemp("marked"), seed=5))


def test_reports_are_asked_for_as_before(world: list[Study], tmp_path: Path) -> None:
    rows = questions(world, TaskSection(), max_images=2, folder=tmp_path, seed=5)
    assert [row.id for row in rows] == [f"{study.id}:report" for study in world]
    assert not list(tmp_path.iterdir())


def test_every_task_and_kind_is_asked(asked: list[Question]) -> None:
    kinds = {(row.task, row.kind) for row in asked}
    basic = {"presence", "abnormality", "location", "severity", "type", "view", "false premise"}
    assert {("basic", kind) for kind in basic} <= kinds
    assert {("region", kind) for kind in ("type", "presence", "location", "severity", "abnormality")} <= kinds
    assert {("comparison", kind) for kind in ("change", "new finding", "resolved finding")} <= kinds
    assert len({row.id for row in asked}) == len(asked)


def test_every_reference_gives_its_answer(asked: list[Question]) -> None:
    wrong = [
        (row.prompt, row.answer, row.reference) for row in asked if not matches(row.reference, row.answer, row.closed)
    ]
    assert not wrong, wrong[:5]


def test_yes_and_no_agree_with_the_truth(asked: list[Question]) -> None:
    for row in asked:
        if (row.task, row.kind) == ("basic", "presence"):
            name = row.about[0].name
            assert row.answer == ("yes" if any(finding.name == name for finding in row.truth or ()) else "no")
            assert name in row.prompt


def test_yes_is_about_as_frequent_as_no(asked: list[Question]) -> None:
    said = Counter(row.answer for row in asked if (row.task, row.kind) == ("basic", "presence"))
    assert 0.3 < said["yes"] / said.total() < 0.7


def test_a_rationale_claims_nothing_but_what_is_there(asked: list[Question]) -> None:
    """Read back, every finding of the rationale is in the truth, with its side, place and severity."""
    for row in asked:
        if row.task != "basic":
            continue
        truth = {finding.name: finding for finding in row.truth or ()}
        for finding in read(row.reference):
            if finding.presence != "present" or finding.name not in truth:
                assert finding.presence == "absent" or finding.name in ("bone abnormality",), (
                    row.prompt,
                    row.reference,
                )
                continue
            there = truth[finding.name]
            assert finding.side in (None, there.side), row.reference
            assert finding.place in (None, there.place), row.reference
            assert finding.severity in (None, there.severity), row.reference


def test_words_vary_and_follow_from_the_seed(world: list[Study], asked: list[Question], tmp_path: Path) -> None:
    again = questions(world, TASK, max_images=2, folder=tmp_path / "again", seed=5)
    assert [(row.id, row.prompt, row.reference) for row in again] == [(r.id, r.prompt, r.reference) for r in asked]
    other = questions(world, TASK, max_images=2, folder=tmp_path / "other", seed=6)
    same = {row.id: row.prompt for row in asked}
    assert any(same.get(row.id, row.prompt) != row.prompt for row in other)
    forms = {row.prompt.replace(row.about[0].name, "X") for row in asked if row.kind == "presence" and row.about}
    assert len(forms) > 5


def test_a_study_keeps_its_words_when_others_are_added(world: list[Study], tmp_path: Path) -> None:
    task = TASK.model_copy(update={"asks": ("comparison",)})
    few = {row.id: row for row in questions(world[:20], task, max_images=2, folder=tmp_path, seed=5)}
    many = {row.id: row for row in questions(world, task, max_images=2, folder=tmp_path, seed=5)}
    assert few
    assert all(many[key] == row for key, row in few.items())


@pytest.mark.parametrize("balance", ["none", "kind", "finding", "answer"])
def test_the_questions_of_a_split_are_those_of_all(balance: str, world: list[Study], tmp_path: Path) -> None:
    task = TaskSection.model_validate({"kind": "questions", "per_study": 3, "balance": balance, "asks": ("basic",)})
    whole = list(questions(world, task, max_images=2, folder=tmp_path, seed=5))
    for split in ("train", "validation", "test"):
        part = list(questions(world, task, max_images=2, folder=tmp_path, seed=5, split=split))
        assert part
        assert part == [row for row in whole if row.split == split]


def test_region_questions_show_a_marked_image_of_the_study(asked: list[Question], world: list[Study]) -> None:
    images = {image.path: image for study in world for image in study.images}
    for row in asked:
        if row.task != "region":
            continue
        assert len(row.images) == 1
        assert row.images[0].path not in images
        assert row.images[0].digest
        picture = np.asarray(read_image(row.images[0]))
        assert (picture.max(-1) != picture.min(-1)).any()  # colour
        marks = {"arrow", "star", "box", "contour"}
        assert any(mark in row.prompt for mark in marks)


def test_the_side_of_a_marked_region_is_the_patients(asked: list[Question]) -> None:
    for row in asked:
        if (row.task, row.kind) == ("region", "location"):
            image = np.asarray(read_image(row.images[0])).astype(int)
            coloured = np.nonzero(image.max(-1) - image.min(-1) > 60)[1]
            # an arrow's shaft may lie on the other side, so only marks around or on the part are held to it
            if " arrow" not in row.prompt:
                assert (coloured.mean() < image.shape[1] / 2) == (row.answer == "right"), row.prompt


def test_comparisons_show_the_current_image_first(asked: list[Question], world: list[Study]) -> None:
    by_id = {study.id: study for study in world}
    rows = [row for row in asked if row.task == "comparison"]
    assert rows
    for row in rows:
        current = by_id[row.study]
        assert current.prior is not None
        assert [image.path for image in row.images] == [current.images[0].path, by_id[current.prior].images[0].path]
        assert row.prompt.startswith(OPENING)
        if row.kind == "change" and row.answer not in ("yes", "no"):
            truth = {finding.name: finding.change for finding in current.truth or ()}
            assert row.answer == truth[row.about[0].name]
        if row.kind == "resolved finding" and row.answer != "none":
            here = {finding.name for finding in current.truth or ()}
            assert not here & {finding.name for finding in row.about}


def test_false_premises_are_about_what_is_not_there(asked: list[Question]) -> None:
    rows = [row for row in asked if row.kind == "false premise"]
    assert rows
    for row in rows:
        assert row.answer == "none"
        assert row.about[0].name not in {finding.name for finding in row.truth or ()}
        assert not matches("on the left", row.answer, row.closed)
        assert not matches("severe", row.answer, row.closed)


def test_per_study_and_balance(world: list[Study], tmp_path: Path) -> None:
    def count(balance: str) -> list[Question]:
        task = TaskSection.model_validate({"kind": "questions", "per_study": 3, "balance": balance, "asks": ("basic",)})
        return [row for row in questions(world, task, max_images=2, folder=tmp_path, seed=5) if row.split == "train"]

    natural, balanced = count("none"), count("finding")
    assert Counter(row.study for row in natural).most_common(1)[0][1] == 3
    assert len(natural) == len(balanced)

    def spread(rows: list[Question]) -> float:
        times = Counter(row.about[0].name for row in rows if row.about)
        return max(times.values()) / min(times.values())

    assert spread(balanced) < spread(natural)
    kinds = Counter(row.kind for row in count("kind"))
    assert max(kinds.values()) - min(kinds.values()) <= 2


def test_made_questions_do_not_leak(asked: list[Question], world: list[Study]) -> None:
    """Images that marks were drawn on stay in their study's split; no image is in two."""
    assert leakage(world) == []
    where: dict[str, set[str]] = {}
    for row in asked:
        for image in row.images:
            where.setdefault(image.digest or image.path, set()).add(row.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_a_report_is_asked_about_as_far_as_it_tells() -> None:
    study = Study(
        id="s", patient="p", images=(ImageFile(path="/f.png", view="frontal"),),
        findings="Small left pleural effusion. No pneumothorax. Possible pneumonia. Heart size is normal.",
    )  # fmt: skip
    facts = known(study)
    assert set(facts.present) == {"pleural effusion"}
    assert facts.present["pleural effusion"].side == "left"
    assert facts.denies("pneumothorax")
    assert facts.denies("cardiomegaly")
    assert not facts.denies("pneumonia")
    assert not facts.denies("consolidation")
    assert not facts.denies("mass")
    rows = list(questions([study], TASK, max_images=1, folder=Path("/nowhere"), seed=1))
    assert not [row for row in rows if "pneumonia" in row.prompt]
    assert {row.task for row in rows} == {"basic"}


def test_an_image_with_boxes_alone_gives_region_questions(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100), np.uint8)).save(tmp_path / "f.png")
    box = Box(left=0.1, top=0.5, right=0.3, bottom=0.8)
    image = ImageFile(path=str(tmp_path / "f.png"), view="frontal", boxes={"mass": (box,)})
    study = Study(id="s", patient="p", images=(image,), findings="There is a mass.")
    rows = questions([study], TASK.model_copy(update={"asks": ("region",)}), max_images=1, folder=tmp_path, seed=1)
    by_kind = {row.kind: row for row in rows}
    assert by_kind["type"].answer == "mass"
    assert by_kind["location"].answer == "right"
    assert "contour" not in by_kind["type"].prompt  # a box has no contour of its own


def test_a_broken_mask_costs_its_questions_only(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100), np.uint8)).save(tmp_path / "f.png")
    (tmp_path / "m.png").write_bytes(b"no picture")
    image = ImageFile(path=str(tmp_path / "f.png"), view="frontal", masks={"mass": str(tmp_path / "m.png")})
    study = Study(id="s", patient="p", images=(image,), findings="There is a mass in the left upper lobe.")
    rows = list(questions([study], TASK, max_images=1, folder=tmp_path / "marked", seed=1))
    assert rows
    assert {row.task for row in rows} == {"basic"}


@pytest.mark.parametrize(
    ("finding", "words", "place"),
    [
        (
            Finding(name="pleural effusion", side="bilateral", severity="mild"),
            "mild bilateral pleural effusions",
            "both sides",
        ),
        (
            Finding(name="consolidation", side="left", place="lower zone"),
            "consolidation in the left lower zone",
            "left lower zone",
        ),
        (Finding(name="atelectasis", side="bilateral", place="base"), "atelectasis at both bases", "both bases"),
        (Finding(name="endotracheal tube"), "an endotracheal tube", ""),
    ],
)  # fmt: skip
def test_findings_in_words(finding: Finding, words: str, place: str) -> None:
    assert noun(finding) == words
    assert place_of(finding) == place


def test_a_sources_question_becomes_a_row() -> None:
    images = (ImageFile(path="/a.png"), ImageFile(path="/b.png"), ImageFile(path="/c.png"))
    study = Study(id="s", patient="p", images=images, findings="")
    plain = question_of(
        study, Asked(id="1", question="Is there a pneumothorax?", answer="No", closed=True), max_images=1
    )
    assert (plain.id, plain.answer, plain.reference) == ("s:1", "No", "No, there is no pneumothorax.")
    assert len(plain.images) == 1
    pair = question_of(
        study, Asked(id="2", question="What has changed?", answer="nothing", task="comparison"), max_images=1
    )
    assert len(pair.images) == 2
    assert pair.prompt == f"{OPENING}What has changed?"
    told = Asked(id="3", question="Where?", answer="left", rationale="It lies on the left. The heart is normal.")
    assert question_of(study, told).reference == told.rationale
    astray = told.model_copy(update={"rationale": "It lies on the right."})
    assert question_of(study, astray).reference == "Left."


def test_answers_in_sentences() -> None:
    assert in_sentence("Are there any nodules?", "yes", True) == "Yes, there are nodules."
    assert in_sentence("Is there evidence of a mass", "no", True) == "No, there is no mass."
    assert in_sentence("Where is it?", "right upper lobe", False) == "Right upper lobe."
    assert in_sentence("Is the heart large?", "Yes", True) == "Yes."


# ---- controls


def test_a_negation_asks_for_the_opposite(asked: list[Question]) -> None:
    twins = {row.id: twin for row in asked if (twin := negated(row)) is not None}
    assert set(twins) == {row.id for row in asked if row.closed and row.answer in ("yes", "no")}
    for row in asked:
        twin = twins.get(row.id)
        if twin is not None:
            assert {polarity(row.answer), polarity(twin.answer)} == {"yes", "no"}
            assert twin.id == f"{row.id}~negated"
            assert twin.prompt != row.prompt
            assert twin.images == row.images
            assert matches(twin.reference, twin.answer, True)
    turned = [twin.prompt for key, twin in twins.items() if "basic-presence" in key]
    assert turned
    assert all("free of" in text or "absent" in text or "lack" in text for text in turned)


def test_swapped_images_are_another_patients(asked: list[Question]) -> None:
    test = [row for row in asked if row.split == "test"]
    owner = {image.path: row.patient for row in test for image in row.images}
    rows = swapped(test, 1)
    assert len(rows) > 0.8 * len(test)
    before = {row.id: row for row in test}
    for row in rows:
        original = before[row.id.removesuffix("~swapped")]
        assert len(row.images) == len(original.images)
        assert row.answer == original.answer
        assert all(owner[image.path] != row.patient for image in row.images)
    assert rows == swapped(test, 1)


def test_blank_images_are_grey_and_of_the_same_size(asked: list[Question], tmp_path: Path) -> None:
    test = [row for row in asked if row.split == "test"][:10]
    for row, blank in zip(test, blanked(test, tmp_path), strict=True):
        assert len(row.images) == len(blank.images)
        for image, grey in zip(row.images, blank.images, strict=True):
            picture = read_image(grey)
            assert picture.size == read_image(image).size
            assert len(picture.getcolors() or []) == 1
    assert len(list(tmp_path.iterdir())) == 1
