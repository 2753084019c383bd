"""Pairs in the layouts of other tools: read back by ``datasets`` and TRL, and held against the others' rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig
from PIL import Image, PngImagePlugin
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
from typer.testing import CliRunner

from radpref import config
from radpref.cli import app
from radpref.formats import WRITERS, Written, write_pairs
from radpref.formats.common import png
from radpref.images import is_plain, read_image
from radpref.models import encode_answer, encode_prompt, language_targets
from radpref.records import ImageFile, Pair, Span
from radpref.runs.folder import Run
from radpref.stages.ports import PAIRS
from tests import tiny
from tests import training_toys as toys
from tests.runs import pretend

NOISE = np.random.default_rng(3).integers(0, 256, (40, 50), dtype=np.uint8)


def odd_images(folder: Path) -> dict[str, ImageFile]:
    """Images that other programs read in their own ways, by what is odd about them."""
    folder.mkdir(parents=True, exist_ok=True)

    def saved(image: Image.Image, name: str, **settings: Any) -> ImageFile:
        image.save(folder / name, **settings)
        return ImageFile(path=str(folder / name))

    grey = Image.fromarray(NOISE)
    sideways = Image.Exif()
    sideways[274] = 6
    alpha = Image.merge("LA", (grey, Image.fromarray(255 - NOISE)))
    squashed = saved(grey, "squashed.png")
    return {
        "16 bits": saved(Image.fromarray(NOISE.astype(np.uint16) * 12), "deep.png"),
        "transparent": saved(alpha, "alpha.png"),
        "transparent colour": saved(grey, "key.png", transparency=7),
        "sideways": saved(grey, "sideways.jpg", exif=sideways),
        "squashed": squashed.model_copy(update={"rows": 80, "cols": 50}),
        "palette": saved(grey.convert("RGB").quantize(16), "palette.png"),
        "tiff": saved(grey, "image.tif"),
    }


def even_images(folder: Path) -> dict[str, ImageFile]:
    folder.mkdir(parents=True, exist_ok=True)
    grey = Image.fromarray(NOISE)
    found = {}
    for name, image in {"grey.png": grey, "grey.jpg": grey, "rgb.png": grey.convert("RGB")}.items():
        image.save(folder / name)
        found[name] = ImageFile(path=str(folder / name))
    return found


def as_others_read(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


# ---- images


def test_a_plain_image_is_one_that_every_program_reads_alike(tmp_path: Path) -> None:
    for name, image in even_images(tmp_path).items():
        assert is_plain(image), name
        assert same(as_others_read(image.path), read_image(image)), name
    differing = {
        name for name, image in odd_images(tmp_path).items() if not same(as_others_read(image.path), read_image(image))
    }
    assert {"16 bits", "transparent", "sideways", "squashed"} <= differing, "nothing to tell apart"
    assert not any(is_plain(image) for image in odd_images(tmp_path).values())


def test_a_copied_image_is_what_the_model_sees_and_holds_no_word_of_its_file(tmp_path: Path) -> None:
    for name, image in (odd_images(tmp_path) | even_images(tmp_path)).items():
        (tmp_path / "copy.png").write_bytes(png(image))
        assert same(as_others_read(str(tmp_path / "copy.png")), read_image(image)), name
    words = PngImagePlugin.PngInfo()
    words.add_text("Patient", "Erika Mustermann")
    exif = Image.Exif()
    exif[270] = "Erika Mustermann"
    Image.fromarray(NOISE).save(tmp_path / "named.png", pnginfo=words, exif=exif)
    assert b"Mustermann" in (tmp_path / "named.png").read_bytes()
    assert b"Mustermann" not in png(ImageFile(path=str(tmp_path / "named.png")))


# ---- TRL


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """One or two images a pair; every second one has spans, scores and corrupted images."""
    return [
        pair.model_copy(
            update={
                "chosen_spans": (Span(start=0, end=2),),
                "chosen_score": 0.75,
                "rejected_score": 0.5,
                "corrupted": tuple(pair.images),
                "provenance": {"judge": "green", "rejected_finished": "no", "editor": f"said {pair.rejected}"},
            }
        )
        if number % 2
        else pair
        for number, pair in enumerate(toys.pairs(tmp_path / "images", 6))
    ]


def loaded(folder: Path, tmp_path: Path) -> Any:
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]


@pytest.mark.parametrize("copy_images", [False, True])
def test_datasets_reads_what_was_written(pairs: list[Pair], tmp_path: Path, copy_images: bool) -> None:
    odd = list(odd_images(tmp_path / "odd").values())
    pairs += [
        pairs[0].model_copy(update={"id": f"odd{number}", "images": (image,)}) for number, image in enumerate(odd)
    ]
    written = write_pairs("trl", pairs, tmp_path / "out", copy_images=copy_images)
    assert written == Written(len(pairs), len(pairs), [])
    rows = loaded(tmp_path / "out", tmp_path)
    assert len(rows) == len(pairs)
    for row, pair in zip(rows, pairs, strict=True):
        assert row["id"] == pair.id
        assert row["prompt"] == [{"role": "user", "content": pair.prompt}]
        assert row["chosen"] == [{"role": "assistant", "content": pair.chosen}]
        assert row["rejected"] == [{"role": "assistant", "content": pair.rejected}]
        assert (row["score_chosen"], row["score_rejected"]) == (pair.chosen_score, pair.rejected_score)
        assert len(row["images"]) == len(pair.images)
        for picture, image in zip(row["images"], pair.images, strict=True):
            assert picture.mode == "RGB"
            assert same(picture, read_image(image)), image.path
    raw = datasets.Dataset.with_format(rows, "arrow")[:]["images"].to_pylist()
    embedded = [picture["bytes"] is not None for pictures in raw for picture in pictures]
    assert all(embedded) if copy_images else sum(embedded) == len(odd)


def test_a_file_of_many_pairs_has_few_row_groups(
    pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group costs memory until the end, and readers a seek each; images inside bound it by their bytes."""
    import pyarrow.parquet

    many = [pairs[0].model_copy(update={"id": f"p{number}"}) for number in range(2500)]
    written = write_pairs("trl", many, tmp_path / "out")
    file = pyarrow.parquet.ParquetFile(tmp_path / "out" / "train.parquet")
    assert (written.pairs, file.metadata.num_rows, file.num_row_groups) == (2500, 2500, 3)
    monkeypatch.setattr("radpref.formats.trl._HELD", 1)
    write_pairs("trl", many[:5], tmp_path / "copied", copy_images=True)
    assert pyarrow.parquet.ParquetFile(tmp_path / "copied" / "train.parquet").num_row_groups == 5


@pytest.mark.parametrize("family", ["llava", "idefics3", "gemma3", "qwen2_5_vl"])
def test_trl_makes_the_tokens_of_it_that_we_make(family: str, pairs: list[Pair], tmp_path: Path) -> None:
    vlm = tiny.tiny_vlm(family)
    if family == "idefics3":  # the image's count decides its layout: TRL's collator wants one for all
        pairs = [pair.model_copy(update={"images": pair.images[:1]}) for pair in pairs]
    write_pairs("trl", pairs, tmp_path / "out")
    batch = DataCollatorForVisionPreference(vlm.processor)(list(loaded(tmp_path / "out", tmp_path)))
    for number, (pair, answer) in enumerate([(p, p.chosen) for p in pairs] + [(p, p.rejected) for p in pairs]):
        theirs = batch["input_ids"][number][batch["attention_mask"][number].bool()].tolist()
        prompt = encode_prompt(vlm, pair.prompt, [read_image(image) for image in pair.images])["input_ids"][0].tolist()
        ours = prompt + encode_answer(vlm, answer)
        assert theirs[: len(ours)] == ours
        assert not vlm.tokenizer.decode(theirs[len(ours) :]).strip(), (
            "after the end of turn the template writes no word"
        )
        scored = batch["completion_mask"][number].bool()
        assert int(scored.nonzero()[0]) == len(prompt)


def trl_config(kind: type, folder: Path) -> Any:
    return kind(
        output_dir=str(folder),
        per_device_train_batch_size=3,
        max_steps=1,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        report_to="none",
        save_strategy="no",
    )


@pytest.mark.parametrize("unpaired", [False, True])
def test_trl_trains_on_it(pairs: list[Pair], tmp_path: Path, unpaired: bool) -> None:
    vlm = tiny.fresh_vlm("llava")
    write_pairs("trl", pairs, tmp_path / "out", unpaired=unpaired)
    trainer_of, config_of = (KTOTrainer, KTOConfig) if unpaired else (DPOTrainer, DPOConfig)
    trainer = trainer_of(
        vlm.model,
        args=trl_config(config_of, tmp_path / "trainer"),
        train_dataset=loaded(tmp_path / "out", tmp_path),
        processing_class=vlm.processor,
        peft_config=LoraConfig(r=4, target_modules=language_targets(vlm.model)),
    )
    loss = trainer.train().training_loss
    assert np.isfinite(loss)
    assert loss == pytest.approx(0.5 if unpaired else np.log(2), abs=0.01), "an untrained adapter prefers nothing"
    moved = [p for name, p in trainer.model.named_parameters() if "lora_B" in name and torch.any(p != 0)]
    assert moved


# ---- LLaMA-Factory and ms-swift, by the rules of their documentation and readers


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("unpaired", [False, True])
def test_llama_factory_finds_its_columns(pairs: list[Pair], tmp_path: Path, unpaired: bool) -> None:
    written = write_pairs("llama-factory", pairs, tmp_path / "out", unpaired=unpaired)
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text("utf-8"))["radpref"]
    rows = lines(tmp_path / "out" / info["file_name"])
    assert len(rows) == written.rows == len(pairs) * (1 + unpaired)
    assert info.get("ranking", False) is not unpaired
    assert all(set(info["columns"].values()) <= row.keys() for row in rows)
    sides = [(pair, good) for pair in pairs for good in ((True, False) if unpaired else (True,))]
    for row, (pair, good) in zip(rows, sides, strict=True):
        asked, *answers = row[info["columns"]["messages"]]
        assert asked == {"from": "human", "value": "<image>" * len(pair.images) + pair.prompt}
        assert row["images"] == [image.path for image in pair.images]
        if unpaired:
            assert row[info["columns"]["kto_tag"]] is good
            assert answers == [{"from": "gpt", "value": pair.chosen if good else pair.rejected}]
        else:
            assert answers == [], "a ranking row ends with the user's turn"
            assert row["chosen"] == {"from": "gpt", "value": pair.chosen}
            assert row["rejected"] == {"from": "gpt", "value": pair.rejected}


def test_ms_swift_and_its_visual_rows(pairs: list[Pair], tmp_path: Path) -> None:
    written = write_pairs("ms-swift", pairs, tmp_path / "out")
    for row, pair in zip(lines(tmp_path / "out" / "pairs.jsonl"), pairs, strict=True):
        user, assistant = row["messages"]
        assert user == {"role": "user", "content": "<image>" * len(pair.images) + pair.prompt}
        assert assistant == {"role": "assistant", "content": pair.chosen}
        assert row["rejected_response"] == pair.rejected != pair.chosen
        assert row["images"] == [image.path for image in pair.images]
    visual = lines(tmp_path / "out" / "visual.jsonl")
    assert len(visual) == written.visual == 3
    for row, pair in zip(visual, [pair for pair in pairs if pair.corrupted], strict=True):
        assert row["rejected_messages"] == row["messages"], "the same answer on both sides: the image decides"
        assert row["messages"][1]["content"] == pair.chosen
        assert row["rejected_images"] == [image.path for image in pair.corrupted]
        assert "rejected_response" not in row

    write_pairs("ms-swift", pairs, tmp_path / "kto", unpaired=True)
    rows = lines(tmp_path / "kto" / "pairs.jsonl")
    assert [row["label"] for row in rows] == [True, False] * len(pairs)
    assert all(row["messages"][-1]["role"] == "assistant" and "rejected_response" not in row for row in rows)
    assert not (tmp_path / "kto" / "visual.jsonl").exists()


@pytest.mark.parametrize("to", ["llama-factory", "ms-swift"])
def test_copied_images_are_named_by_content_and_lie_in_the_folder(pairs: list[Pair], tmp_path: Path, to: str) -> None:
    odd = odd_images(tmp_path / "odd")["16 bits"]
    pairs = [*pairs, pairs[0].model_copy(update={"id": "odd", "images": (odd,)})]
    for copy_images in (False, True):
        out = tmp_path / f"out{copy_images}"
        write_pairs(to, pairs, out, copy_images=copy_images)
        for row, pair in zip(lines(out / "pairs.jsonl"), pairs, strict=True):
            for named, image in zip(row["images"], pair.images, strict=True):
                assert Path(named).is_absolute() is not (copy_images or image == odd)
                assert same(as_others_read(str(out / named)), read_image(image))
    kept = {path.name for path in (tmp_path / "outTrue" / "images").iterdir()}
    assert len(kept) == len({image.path for pair in pairs for image in pair.images}), (
        "an image of two pairs is one file"
    )
    assert not any("image" in name or "deep" in name for name in kept), "an image's own name may name a patient"


# ---- what must not leave


def test_ids_hold_no_text_no_image_and_no_patient(pairs: list[Pair], tmp_path: Path) -> None:
    assert write_pairs("ids", pairs, tmp_path / "out").pairs == len(pairs)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ids.jsonl", "README.md"}
    everything = "".join(path.read_text("utf-8") for path in (tmp_path / "out").iterdir())
    for pair in pairs:
        words = {*pair.chosen.split(), *pair.rejected.split()} - {"left", "no", "are", "no."}
        assert not [word for word in words if word in everything], "a word of an answer"
        assert pair.prompt not in everything
        assert not [image.path for image in pair.images if image.path in everything]
        assert f'"{pair.patient}"' not in everything
    row = lines(tmp_path / "out" / "ids.jsonl")[1]
    assert (row["id"], row["question"]) == (pairs[1].id, pairs[1].question)
    assert row["chosen"]["spans"] == [[0, 2]]
    assert row["chosen"]["score"] == 0.75
    assert row["chosen"]["characters"] == len(pairs[1].chosen)
    assert row["provenance"] == {"judge": "green", "rejected_finished": "no"}


@pytest.mark.parametrize("to", WRITERS)
def test_a_pair_that_cannot_be_written_is_left_out_with_its_reason(pairs: list[Pair], tmp_path: Path, to: str) -> None:
    pairs = [pair.model_copy(update={"images": pair.images[:1], "corrupted": ()}) for pair in pairs]
    gone = pairs[1].model_copy(update={"id": "gone", "images": (ImageFile(path=str(tmp_path / "nothing.png")),)})
    tag = pairs[0].model_copy(update={"id": "tag", "rejected": "The heart <image> is large."})
    written = write_pairs(to, [tag, *pairs, gone], tmp_path / "out", copy_images=True)
    assert written.pairs == len(pairs)
    reasons = {row["id"]: row["reason"] for row in lines(tmp_path / "out" / "quarantined.jsonl")}
    assert reasons.keys() == {"gone", "tag"}
    assert "image missing" in reasons["gone"]
    assert "image token in the text: the rejected spells <image>" in reasons["tag"]
    assert [row["id"] for row in lines(tmp_path / "out" / "ids.jsonl")] == [pair.id for pair in pairs]
    page = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "left out: 1 image missing" in page


def test_a_page_says_what_is_there(pairs: list[Pair], tmp_path: Path) -> None:
    write_pairs("ms-swift", pairs, tmp_path / "out", unpaired=False)
    page = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "6 pairs" in page
    assert "3 answers were cut" in page
    assert "visual.jsonl" in page


# ---- the command


@pytest.fixture
def run(pairs: list[Pair], tmp_path: Path) -> Run:
    run = Run(tmp_path / "run", config.load("chexalign", preset="tiny"))
    pretend(run, "prepare", {PAIRS: pairs})
    return run


def radpref(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join((done.output + done.stderr).split())


def test_the_export_command(run: Run, tmp_path: Path) -> None:
    for to in (*WRITERS, "ids"):
        code, said = radpref("export", run.folder, "--to", to, tmp_path / to)
        assert code == 0, said
        assert "6 pairs" in said
        assert (tmp_path / to / "ids.jsonl").is_file()
        assert not (tmp_path / f"{to}.part").exists()
    code, said = radpref("export", run.folder, "--to", "trl", tmp_path / "trl")
    assert code == 2
    assert "is there already" in said
    code, said = radpref("export", run.folder, "--to", "ids", tmp_path / "x", "--copy-images")
    assert code == 2
    assert "neither images nor sides" in said
    code, said = radpref("export", run.folder, "--to", "model", tmp_path / "x")
    assert code == 2
    assert "nothing is selected" in said
    assert radpref("export", run.folder, "--to", "openrlhf", tmp_path / "x")[0] == 2
    code, said = radpref("export", run.folder, "--to", "trl", tmp_path / "kto", "--unpaired")
    assert "6 pairs, 12 rows" in said
    run.path("pair", "done.json").unlink()
    code, said = radpref("export", run.folder, "--to", "trl", tmp_path / "y")
    assert (code, "there are no pairs" in said) == (2, True)


def test_an_export_without_a_single_image_leaves_nothing(run: Run, pairs: list[Pair], tmp_path: Path) -> None:
    for image in {image.path for pair in pairs for image in pair.images}:
        Path(image).unlink()
    code, said = radpref("export", run.folder, "--to", "trl", tmp_path / "x")
    assert code == 2
    assert "no pair can be written (image missing 6)" in said
    assert not list(tmp_path.glob("x*"))
