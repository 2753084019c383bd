"""Studies with labels and no report: which are used, where they stand; nothing is learned from an empty text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from radpref.config import DataSection, PhantomSection, SampleSection, TaskSection, UnreportedSection
from radpref.config.schema import UnreportedUse
from radpref.data import DataError, Loaded, load_studies
from radpref.data.boxes import marked_of
from radpref.data.phantom import studies
from radpref.evaluation.baselines import baselines
from radpref.findings import read
from radpref.judges import chexpo
from radpref.mining.vectors import findings_of
from radpref.pairs import rank
from radpref.records import Box, Completion, Finding, ImageFile, Judgement, Question, Study
from radpref.runs.streams import asked
from radpref.tasks import report_question
from tests import training_toys as toys
from tests.test_data_lesions import find, lines, nih_tables, save

REPORT = "Small left pleural effusion."


def loaded(root: Path, section: DataSection) -> Loaded:
    return load_studies(section, root / "cache", 3)


def world(use: UnreportedUse = "labels", **more: int) -> DataSection:
    phantom = PhantomSection(size=32, train=6, validation=2, test=2, unreported=4)
    return DataSection(phantom=phantom, unreported=UnreportedSection(use=use), **more)  # type: ignore[arg-type]


def bare(found: Sequence[Study]) -> list[Study]:
    return [study for study in found if not study.findings]


# ---------------------------------------------------------------- the built-in world


def test_further_phantoms_have_labels_in_the_place_of_report_and_truth(tmp_path: Path) -> None:
    section = PhantomSection(size=32, unreported=12)
    drawn = studies(section, train=8, validation=2, test=2, folder=tmp_path)
    whole = studies(PhantomSection(size=32), train=20, validation=2, test=2, folder=tmp_path)
    assert [study.id for study in drawn] == [study.id for study in whole]
    assert drawn[:8] == whole[:8]
    assert drawn[20:] == whole[20:]
    marks = 0
    for study, told in zip(drawn[8:20], whole[8:20], strict=True):
        assert (study.findings, study.impression, study.truth) == ("", "", None)
        assert told.truth is not None
        assert {name for name, value in study.labels.items() if value} == {f.name for f in told.truth}
        assert len(study.labels) == 16
        assert [(f.name, f.side) for f in study.marked] == [(f.name, f.side) for f in told.truth]
        assert all(f.severity is None and f.change is None for f in study.marked)
        assert {f.place for f in study.marked} <= {None, "upper zone", "mid zone", "lower zone"}
        marks += sum(f.place is not None for f in study.marked)
    assert marks


def test_they_are_used_where_the_recipe_says_so(tmp_path: Path) -> None:
    found = loaded(tmp_path, world())
    assert len(bare(list(found.studies))) == 4
    assert {study.split for study in bare(list(found.studies))} == {"train"}
    assert "4 further training studies have no report: they are judged by their labels" in found.notes
    with pytest.raises(DataError, match="use is quarantine"):
        loaded(tmp_path, world("quarantine"))


def test_caps_count_studies_with_a_report_and_without_apart(tmp_path: Path) -> None:
    section = world(train=3).model_copy(update={"unreported": UnreportedSection(use="labels", most=2)})
    rows = [study for study in loaded(tmp_path, section).studies if study.split == "train"]
    assert (len(rows) - len(bare(rows)), len(bare(rows))) == (3, 2)


def test_a_template_is_a_report_that_says_what_labels_say(tmp_path: Path) -> None:
    every = {study.id: study for study in loaded(tmp_path, world("labels")).studies}
    written = {study.id: study for study in loaded(tmp_path, world("template")).studies}
    assert every.keys() == written.keys()
    assert not bare(list(written.values()))
    for study in bare(list(every.values())):
        said = {f.name for f in read(written[study.id].findings) if f.presence == "present"}
        assert said == {name for name, value in study.labels.items() if value}


# ---------------------------------------------------------------- other sources


def table(root: Path, rows: Sequence[dict[str, object]]) -> DataSection:
    for number, row in enumerate(rows):
        save(root / f"{number}.png", seed=number)
        row |= {"id": f"s{number}", "image": f"{number}.png"}
    lines(root / "table.jsonl", [json.dumps(row) for row in rows])
    return DataSection(source="table", root=str(root), file="table.jsonl", unreported=UnreportedSection(use="labels"))


def test_rows_of_a_table_without_a_report_are_judged_by_its_columns(tmp_path: Path) -> None:
    reported = [{"patient": f"p{n}", "findings": REPORT, "Edema": None} for n in range(30)]
    others = [{"patient": f"q{n}", "findings": "", "Edema": 1, "Pneumothorax": 0, "Fracture": None} for n in range(8)]
    silent = [{"patient": "r", "findings": "", "Edema": None}]
    section = table(tmp_path, [*reported, *others, *silent])
    found = loaded(tmp_path, section)
    assert len(bare(list(found.studies))) == 8
    assert {study.split for study in bare(list(found.studies))} == {"train"}, (
        "patients without any report stay in train"
    )
    assert [row.reason for row in found.quarantined] == [
        "no findings: the section is empty, and no label says anything of the study"
    ]
    asks = report_question(bare(list(found.studies))[0], TaskSection(), 2)
    assert (asks.reference, [(f.name, f.presence) for f in asks.labels]) == (
        "",
        [("Edema", "present"), ("Pneumothorax", "absent")],
    )
    plain = section.model_copy(update={"unreported": UnreportedSection()})
    refused = loaded(tmp_path, plain).quarantined
    assert len(refused) == 9
    assert {row.reason for row in refused} == {"no findings: the section is empty"}


def test_a_study_without_a_report_of_a_held_out_patient_is_not_used(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for n in range(30):
        rows += [{"patient": f"p{n}", "findings": REPORT}, {"patient": f"p{n}", "findings": "", "Edema": 1}]
    found = loaded(tmp_path, table(tmp_path, rows))
    held = {study.patient for study in found.studies if study.split != "train"}
    assert held
    assert not held & {study.patient for study in found.studies if study.split == "train"}
    assert len(bare(list(found.studies))) == 30 - len(held)
    reasons = [row.reason for row in found.quarantined]
    assert reasons == ["no report: only training studies may have none, and this is held out"] * len(held)


def test_nih_has_labels_boxes_and_no_reference_where_labels_are_used(tmp_path: Path) -> None:
    nih_tables(tmp_path)
    first, normal, _ = find("nih", tmp_path).studies
    assert {name for name, value in first.labels.items() if value} == {"pleural effusion", "lung opacity"}
    assert len(first.labels) == 14
    assert set(normal.labels.values()) == {0}
    assert [(f.name, f.side, f.place) for f in first.marked] == [
        ("lung opacity", "right", "lower zone"),
        ("pleural effusion", "right", None),
    ]


def test_a_second_source_gives_labels_to_the_reports_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    nih_tables(tmp_path / "nih")
    section = table(tmp_path / "own", [{"patient": f"{n}", "findings": REPORT} for n in range(30)])
    other = UnreportedSection(use="labels", source="nih", root=str(tmp_path / "nih"))
    found = loaded(tmp_path, section.model_copy(update={"unreported": other}))
    rows = bare(list(found.studies))
    assert sorted(study.id for study in rows) == ["nih-00000001_000", "nih-00000001_001", "nih-00000002_000"]
    assert {study.patient for study in rows} == {"nih-1", "nih-2"}, "patient 1 of the one is not that of the other"
    assert {study.split for study in rows} == {"train"}
    with pytest.raises(DataError, match="is quarantine"):
        loaded(tmp_path, section.model_copy(update={"unreported": other.model_copy(update={"use": "quarantine"})}))
    with pytest.raises(DataError, match="itself"):
        loaded(tmp_path, section.model_copy(update={"unreported": other.model_copy(update={"source": "table"})}))


@pytest.mark.parametrize(
    ("name", "box", "wanted"),
    [
        ("consolidation", (0.1, 0.1, 0.4, 0.3), ("right", "upper zone")),
        ("consolidation", (0.6, 0.4, 0.9, 0.6), ("left", "mid zone")),
        ("lung opacity", (0.1, 0.5, 0.9, 0.9), ("bilateral", None)),
        ("pleural effusion", (0.6, 0.6, 0.9, 0.9), ("left", None)),
        ("cardiomegaly", (0.3, 0.5, 0.8, 0.8), (None, None)),
    ],
)
def test_a_box_tells_side_and_zone(name: str, box: tuple[float, ...], wanted: tuple[str | None, ...]) -> None:
    corners = dict(zip(("left", "top", "right", "bottom"), box, strict=True))
    image = ImageFile(path="/a.png", view="frontal", boxes={name: (Box(**corners),), "other lesion": (Box(**corners),)})
    assert [(f.side, f.place) for f in marked_of(image)] == [wanted]
    assert not marked_of(image.model_copy(update={"view": "lateral"}))


# ---------------------------------------------------------------- what an empty reference must not do


def question(name: str, reference: str, labels: tuple[Finding, ...] = ()) -> Question:
    images = (ImageFile(path="/a.png"),)
    return Question(
        id=name, study=name, patient=name, split="train", images=images, prompt="?", reference=reference, labels=labels
    )


def test_nothing_is_fine_tuned_on_an_empty_reference(tmp_path: Path) -> None:
    from radpref.config import SftSection
    from radpref.training import TrainingError, sft

    made = toys.questions(tmp_path / "images", 2)
    empty = made[0].model_copy(update={"reference": " "})
    with pytest.raises(TrainingError, match="no reference"):
        sft(toys.vlm(tmp_path / "llava"), [empty], SftSection(), tmp_path / "sft", seed=0)


def test_an_empty_reference_rewards_no_graph() -> None:
    assert chexpo(["?", "?"], ["", REPORT], reference=["", REPORT]) == [None, 1]


def test_the_most_frequent_report_is_one() -> None:
    train = [question("a", REPORT), *(question(f"b{n}", "") for n in range(5))]
    assert set(baselines(train, [question("t", REPORT)], 0)["most frequent report"].values()) == {REPORT}


def test_questions_with_and_without_a_reference_can_be_told_apart() -> None:
    rows = [question("a", REPORT), question("b", "")]
    assert [q.id for q in asked(rows, SampleSection())] == ["a", "b"]
    assert [q.id for q in asked(rows, SampleSection(studies="reported"))] == ["a"]
    assert [q.id for q in asked(rows, SampleSection(studies="unreported"))] == ["b"]


def test_the_first_so_many_studies_are_asked_about_with_all_their_questions() -> None:
    rows = [question("a", REPORT), question("b", ""), question("c", REPORT)]
    both = [row for row in rows for _ in range(2)]
    assert [q.id for q in asked(both, SampleSection(most=2))] == ["a", "a", "b", "b"]
    assert [q.id for q in asked(both, SampleSection(studies="reported", most=2))] == ["a", "a", "c", "c"]


def test_a_question_without_a_reference_is_about_its_labels() -> None:
    labels = (Finding(name="edema"),)
    assert findings_of(question("a", "", labels)) == labels
    assert [f.name for f in findings_of(question("a", REPORT, labels))] == ["pleural effusion"]


def test_each_question_is_ranked_by_a_judge_of_its_own() -> None:
    """Reports by one judge, labels by another: what is compared is one question's answers."""
    rows = [question("a", REPORT), question("b", "")]
    said = [
        Completion(id=f"{q.id}/{n}", question=q.id, index=n, text=f"text {n}", tokens=2, finished=True)
        for q in rows
        for n in range(2)
    ]
    from radpref.config import PairSection

    def judged(row: Completion, judge: str) -> Judgement:
        return Judgement(id=row.id, question=row.question, judge=judge, score=float(row.index))

    each = [judged(row, "green" if row.question == "a" else "labels") for row in said]
    pairs = rank(rows, said, each, PairSection()).pairs
    assert [pair.provenance["judge"] for pair in pairs] == ["green", "labels"]
    with pytest.raises(ValueError, match="several judges"):
        rank(rows, said, [judged(row, "green" if row.index else "labels") for row in said], PairSection())
