"""Pairs that were made elsewhere: every layout they come in, what is wrong with them, and the road they take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from radpref import config
from radpref.cli import app
from radpref.config import RecipeError
from radpref.data.source import DataError, RowError
from radpref.formats import Imported, read_pairs, write_pairs
from radpref.formats.conversations import answered
from radpref.pipeline import METHODS, PAIRS_ALONE, road_of, run_all, run_stage_alone
from radpref.records import Pair
from radpref.runs.folder import Run, RunError
from radpref.runs.table import Table
from radpref.stages.ports import CHOICE, PAIRS, STUDIES
from tests import training_toys as toys
from tests.runs import fact, finished, last_line, quarantined, rows

PROMPT, GOOD, BAD = "What is seen?", "A small left effusion.", "No effusion; größer, 没有, 🫁."


def image(path: Path, number: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (24, 20), dtype=np.uint8)).save(path)
    return path.name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    for number in range(4):
        image(folder / f"{number}.png", number)
    return folder


def write(root: Path, *rows: Any, name: str = "pairs.jsonl") -> str:
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(root / name)


def row(**changes: Any) -> dict[str, Any]:
    found = {"prompt": PROMPT, "chosen": GOOD, "rejected": BAD, "images": ["0.png"], **changes}
    return {name: value for name, value in found.items() if value is not ...}


def read(file: str, tmp_path: Path, **settings: Any) -> Imported:
    return read_pairs(file, tmp_path / "store", **settings)


def user(content: Any, **more: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more}]


def assistant(content: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content}]


# ---- layouts

LAYOUTS = {
    "plain": row(),
    "one image": row(images=..., image="0.png"),
    "conversational": row(prompt=user(PROMPT), chosen=assistant(GOOD), rejected=assistant(BAD)),
    "parts": row(
        prompt=user([{"type": "image", "text": None}, {"type": "text", "text": PROMPT}]),
        chosen=assistant([{"type": "text", "text": GOOD}]),
        rejected=assistant([{"type": "text", "text": BAD}]),
    ),
    "implicit prompt": row(prompt=..., chosen=user(PROMPT) + assistant(GOOD), rejected=user(PROMPT) + assistant(BAD)),
    "prompt and whole conversations": row(
        chosen=user(PROMPT) + assistant(GOOD), rejected=user(PROMPT) + assistant(BAD)
    ),
    "a tag": row(prompt=f"<image>\n{PROMPT}"),
    "from and value": row(
        prompt=[{"from": "human", "value": f"<image>{PROMPT}"}],
        chosen=[{"from": "gpt", "value": GOOD}],
        rejected=[{"from": "gpt", "value": BAD}],
    ),
    "text after the image's tag": row(prompt=f"{PROMPT} <image>"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pair(layout: str, root: Path, tmp_path: Path) -> None:
    found = read(write(root, LAYOUTS[layout]), tmp_path)
    assert not found.quarantined
    (pair,) = found.pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == (PROMPT, GOOD, BAD)
    assert [image.path for image in pair.images] == [str(root / "0.png")]
    assert pair.patient == pair.images[0].digest != "", "without patients the image is the unit of splitting"
    assert pair.id == "line-1"
    assert any("images after words" in note for note in found.notes) is (layout == "text after the image's tag")


def hugging_face(root: Path, rows: list[dict[str, Any]]) -> Any:
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("id", "prompt", "chosen", "rejected")}
        | {"images": datasets.List(datasets.Image())}
    )
    embedded = [
        {**one, "images": [{"bytes": (root / name).read_bytes(), "path": None} for name in one["images"]]}
        for one in rows
    ]
    return datasets.Dataset.from_list(embedded, features=features)


def saved_to_disk(root: Path, rows: list[dict[str, Any]]) -> str:
    hugging_face(root, rows).save_to_disk(str(root / "saved"))
    return str(root / "saved")


def parts_on_disk(root: Path, rows: list[dict[str, Any]]) -> str:
    found = hugging_face(root, rows)
    other = hugging_face(root, [row(id="held out", prompt="held out")])
    datasets.DatasetDict({"test": other, "train": found}).save_to_disk(str(root / "parts"))
    return str(root / "parts")


def parquet(root: Path, rows: list[dict[str, Any]]) -> str:
    hugging_face(root, rows).to_parquet(str(root / "rows.parquet"))
    return str(root / "rows.parquet")


@pytest.mark.parametrize("save", [saved_to_disk, parts_on_disk, parquet])
def test_images_inside_a_data_set_keep_their_bytes(
    root: Path, tmp_path: Path, save: Callable[[Path, list[dict[str, Any]]], str]
) -> None:
    rows = [row(id="a", images=["1.png", "2.png"]), row(id="b", prompt="Other?")]
    found = read(save(root, rows), tmp_path)
    assert [pair.id for pair in found.pairs] == ["a", "b"], "the part to train on, and no other"
    kept = [Path(image.path) for image in found.pairs[0].images]
    assert [path.read_bytes() for path in kept] == [(root / name).read_bytes() for name in ("1.png", "2.png")]
    assert all(path.is_relative_to((tmp_path / "store").resolve()) for path in kept)


def test_what_we_export_to_trl_comes_back(root: Path, tmp_path: Path) -> None:
    pairs = [pair.model_copy(update={"chosen_score": 0.5}) for pair in toys.pairs(tmp_path / "images", 5)]
    for copy_images in (False, True):
        out = tmp_path / f"out{copy_images}"
        write_pairs("trl", pairs, out, copy_images=copy_images)
        found = read(str(out / "train.parquet"), tmp_path, root=tmp_path / "images")
        assert not found.quarantined
        for theirs, ours in zip(found.pairs, pairs, strict=True):
            assert (theirs.id, theirs.prompt, theirs.chosen) == (ours.id, ours.prompt, ours.chosen)
            assert (theirs.rejected, theirs.chosen_score) == (ours.rejected, 0.5)
            assert len(theirs.images) == len(ours.images)
            assert [image.path for image in theirs.images] == [image.path for image in ours.images] or copy_images


def test_our_own_table_comes_back_from_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pairs = toys.pairs(folder / "images", 3)
    Table(folder / "pair" / "pairs.jsonl", Pair, root=folder).write(pairs)
    folder.rename(tmp_path / "moved")
    with (tmp_path / "moved" / "pair" / "pairs.jsonl").open("a") as file:
        file.write('{"id": "x", "question": "x"}\n')
    found = read(str(tmp_path / "moved" / "pair" / "pairs.jsonl"), tmp_path)
    assert [pair.patient for pair in found.pairs] == [pair.patient for pair in pairs]
    assert all(image.path.startswith(str(tmp_path / "moved")) for pair in found.pairs for image in pair.images)
    assert [bad.reason.split(":")[0] for bad in found.quarantined] == ["row broken"]


def test_equal_prompts_on_equal_images_are_one_question(root: Path, tmp_path: Path) -> None:
    (root / "copy.png").write_bytes((root / "0.png").read_bytes())
    other = row(patient="p", rejected="Other words.", images=["copy.png"])
    found = read(write(root, row(), other, row(prompt="More?"), row(images=["1.png"])), tmp_path)
    questions = [pair.question for pair in found.pairs]
    assert questions[0] == questions[1]
    assert len(set(questions)) == 3
    assert found.pairs[1].patient == "p"


# ---- what is wrong with them


def test_bad_rows_are_quarantined_each_with_its_reason(root: Path, tmp_path: Path) -> None:
    (root / "cut.png").write_bytes((root / "0.png").read_bytes()[:200])
    image(tmp_path / "outside.png", 9)
    bad = {
        "no chosen": (row(chosen=""), "empty text: there is no chosen"),
        "blank rejected": (row(rejected=" \n"), "empty text: there is no rejected"),
        "no prompt": (row(prompt=...), "empty text: there is no prompt"),
        "null": (row(chosen=None), "empty text: there is no chosen"),
        "same": (row(rejected=f" {GOOD}\n"), "same words"),
        "no images": (row(images=[]), "no images"),
        "missing": (row(images=["gone.png"]), "image missing"),
        "cut": (row(images=["0.png", "cut.png"]), "image cut short"),
        "outside": (row(images=[str(tmp_path / "outside.png")]), "path leads out of"),
        "url": (row(images=["https://example.org/a.png"]), "image is a URL"),
        "number": (row(images=[3]), "image is neither path nor image"),
        "two tags": (row(prompt=f"<image><image>{PROMPT}"), "image tokens do not match: 2 in the prompt, 1 images"),
        "tag in answer": (row(rejected="It is <image> there."), "image token in the text: rejected spells <image>"),
        "several turns": (row(prompt=user("a") + assistant("b") + user("c")), "several turns"),
        "two prompts": (row(chosen=user("a") + assistant("b"), rejected=user("c") + assistant("d")), "two prompts"),
        "no answer": (row(chosen=user("a"), rejected=user("a")), "no answer"),
        "role": (row(prompt=[{"role": "tool", "content": "x"}]), "role unknown"),
        "part": (row(prompt=user([{"type": "video"}])), "content not readable"),
        "long": (row(chosen="a " * 20_000), "text too long"),
        "mapping": (row(chosen={"text": "x"}), "cell is no text"),
        "x" * 300: (row(), "id not usable"),
    }
    rows = [{**one, "id": name} for name, (one, _) in bad.items()]
    file = write(root, row(id="good"), *rows, row(id="good", prompt="again"), ["no object"])
    found = read(file, tmp_path)
    assert [pair.id for pair in found.pairs] == ["good"]
    reasons = {bad.id: bad.reason for bad in found.quarantined}
    assert len(reasons) == len(found.quarantined) == len(bad) + 2
    for name, (_, reason) in bad.items():
        if len(name) < 200:
            assert reasons[name].startswith(reason), name
    assert reasons["good"].startswith("duplicate id")
    assert reasons["line 24"].startswith("row broken")
    assert [name for name, reason in reasons.items() if reason.startswith("id not usable")] == ["line 22"]
    assert not [reason for reason in reasons.values() if GOOD in reason or str(root) in reason]


def test_tables_that_are_no_pairs_are_one_clear_error(root: Path, tmp_path: Path) -> None:
    def fails(file: str) -> str:
        with pytest.raises(DataError) as raised:
            read(file, tmp_path)
        return str(raised.value)

    write(root, row())
    assert "did you mean 'pairs.jsonl'" in fails(str(root / "pair.jsonl"))
    assert "no column 'rejected'" in fails(write(root, row(rejected=...)))
    assert "no column 'images'" in fails(write(root, row(images=...)))
    kto = {"prompt": PROMPT, "completion": GOOD, "label": True, "images": ["0.png"]}
    assert "are no pairs" in fails(write(root, kto))
    assert "none of 1 rows can be used; the first: same words" in fails(write(root, row(rejected=GOOD)))
    assert "could not be loaded" in fails("hub:nobody/nothing-of-this-name")
    assert "does not exist" in fails("nobody/nothing-of-this-name"), "the network is reached for a hub: name alone"
    one = hugging_face(root, [row(id="a")])
    datasets.DatasetDict({"a": one, "b": one}).save_to_disk(str(root / "ab"))
    assert "none called 'train'" in fails(str(root / "ab"))


def test_rows_come_one_at_a_time(root: Path, tmp_path: Path) -> None:
    file = write(root, *(row(rejected=f"{BAD} {n}") for n in range(3)), ["broken"])
    with Path(file).open("a") as more:
        more.write("not even JSON\n" * 50_000)
    found = read(file, tmp_path, limit=3)
    assert len(found.pairs) == 3
    assert not found.quarantined, "what is behind the limit is not read"


words = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(prompt=words, chosen=words, rejected=words, images=st.integers(1, 3), tags=st.integers(0, 3))
def test_any_words_come_through_unchanged_or_are_refused(
    prompt: str, chosen: str, rejected: str, images: int, tags: int
) -> None:
    def read_row() -> Any:
        return answered(user("<image>" * tags + prompt), assistant(chosen), assistant(rejected), images)

    if tags not in (0, images):
        with pytest.raises(RowError, match="do not match"):
            read_row()
        return
    said = read_row()
    assert (said.prompt, said.chosen, said.rejected) == (prompt.strip(), chosen.strip(), rejected.strip())
    assert not said.moved


def test_a_system_message_goes_before_the_words() -> None:
    said = answered([{"role": "system", "content": "Be brief."}, *user(PROMPT)], GOOD, BAD, 1)
    assert said.prompt == f"Be brief.\n\n{PROMPT}"


# ---- the road


def recipe(file: str, *overrides: str) -> Any:
    return config.load("pairs", preset="tiny", overrides=[f"pair.file={file}", "run.threads=1", *overrides])


def test_pairs_about_what_is_measured_on_are_kept_out(root: Path, tmp_path: Path) -> None:
    sizes = ("data.source=phantom", "data.train=3", "data.validation=3", "data.test=3", "data.phantom.size=64")
    run = Run(tmp_path / "run", recipe("later.jsonl", *sizes))
    run_stage_alone(run, "studies")
    held = {study.split: study for study in rows(run, STUDIES)}
    with Image.open(held["test"].images[0].path) as image:
        image.save(root / "again.png", optimize=True, compress_level=1)
    assert (root / "again.png").read_bytes() != Path(held["test"].images[0].path).read_bytes()
    with Image.open(held["train"].images[0].path) as image:
        image.save(root / "train.png")
    file = write(
        root,
        row(id="clean"),
        row(id="test image", images=["0.png", "again.png"]),
        row(id="train image", images=["train.png"]),
        row(id="patient", patient=held["validation"].patient),
    )
    run = Run(tmp_path / "run", recipe(file, *sizes))
    run_stage_alone(run, "pair")
    assert [pair.id for pair in rows(run, PAIRS)] == ["clean", "train image"]
    reasons = {bad.id: bad.reason.split(":")[0] for bad in quarantined(run, "pair")}
    assert reasons == {"test image": "image held out", "patient": "patient held out"}
    assert last_line(run, "pair").startswith("2 pairs; 2 quarantined")
    write(root, row(images=["again.png"]))
    with pytest.raises(RunError, match="no pair is left of 1"):
        run_stage_alone(run, "pair")


def test_the_road_of_pairs_alone(tmp_path: Path) -> None:
    for number in range(6):
        image(tmp_path / "data" / f"{number}.png", number)
    file = write(
        tmp_path / "data", *(row(images=[f"{n}.png"], rejected=f"{BAD} {n}") for n in range(6)), row(images=[])
    )
    run = Run(tmp_path / "run", recipe(file))
    run_all(run)
    assert finished(run) == {stage.name: "yes" for stage in PAIRS_ALONE}
    assert fact(run, CHOICE).chosen.step == 2, "the last checkpoint"
    said = CliRunner().invoke(app, ["export", str(run.folder), "--to", "model", str(tmp_path / "model")])
    assert said.exit_code == 0, said.output
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_recipe_that_does_not_fit_the_method_is_refused_before_any_work(root: Path, tmp_path: Path) -> None:
    file = write(root, row())
    for loaded, words in (
        (config.load("pairs"), "say where with pair.file"),
        (config.load("chexalign", overrides=[f"pair.file={file}"]), "Set method: pairs"),
        (recipe(file, "sft.enabled=true"), "sft.enabled: true needs studies"),
        (recipe(file, "select.betas=[0.1, 0.2]"), "several select.betas needs studies"),
        (config.load("chexalign", overrides=["data.source=none"]), "does not exist"),
    ):
        with pytest.raises(RecipeError, match=words):
            run_all(Run(tmp_path / "run", loaded))
    assert road_of(recipe(file, "data.source=openi").recipe) == METHODS["pairs"]
