"""The corrupt stage in a run folder, and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from radpref import config
from radpref.cli import app
from radpref.config import RecipeError
from radpref.images import image_hash
from radpref.pipeline import road_of, run_stage_alone
from radpref.records import ImageFile, Pair
from radpref.runs.folder import Run, RunError
from radpref.runs.runner import check
from radpref.stages import corrupt as stage
from radpref.stages.ports import PAIRS
from tests.runs import counts, last_line, pretend, quarantined

RNG = np.random.default_rng(0)


def a_run(folder: Path, *overrides: str, name: str = "run", pairs: int = 4) -> Run:
    """A run with pairs: the last image has a mask of another shape, the one before no mask, the others one each."""
    settings = ["sft.enabled=false", "corrupt.fallback=whole", "run.precision=float32", *overrides]
    run = Run(folder / name, config.load("firempo", overrides=settings))
    rows = []
    for number in range(pairs):
        path = folder / "images" / f"{number}.png"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (40, 48), dtype=np.uint8)).save(path)
            mask = np.zeros((40, 40) if number == pairs - 1 else (40, 48), np.uint8)
            mask[10:20, 10:20] = 255
            Image.fromarray(mask).save(path.with_name(f"{number}-mask.png"))
        masks = {} if number == pairs - 2 else {"nodule": str(path.with_name(f"{number}-mask.png"))}
        image = ImageFile(path=str(path), masks=masks, digest=image_hash(ImageFile(path=str(path))))
        rows.append(
            Pair(
                id=f"q{number}/edit",
                question=f"q{number}",
                patient=f"p{number}",
                images=(image,),
                prompt="?",
                chosen="left nodule",
                rejected="right nodule",
                provenance={"findings": "nodule"},
            )
        )
    if not run.path("run.json").exists():
        pretend(run, "corrupt", {PAIRS: rows})
    return run


def corrupt(run: Run, limit: int | None = None, *, redo: bool = False) -> str:
    """What the stage says."""
    run_stage_alone(run, "corrupt", limit=limit, redo=redo)
    return last_line(run, "corrupt")


def made(run: Run) -> list[Pair]:
    return list(run.table("corrupt", PAIRS))


def test_every_pair_gets_its_images_and_the_counts_are_kept(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    line = corrupt(run)
    assert line.startswith("4 pairs, noise: mask 50.0%, whole 50.0%; 1 quarantined (mask of nodule 1)")
    assert [row.provenance["corruption_path"] for row in made(run)] == ["mask", "mask", "whole", "whole"]
    facts = counts(run, "corrupt")
    assert facts["paths"] == {"mask": 2, "whole": 2}
    assert facts["why"]["own: mask not usable"] == 1
    assert facts["masks_quarantined"] == 1
    assert [row.id for row in quarantined(run, "corrupt")] == ["q3/edit#image-1-1"]
    first = json.loads(run.path("corrupt", "pairs.jsonl").read_text().splitlines()[0])
    assert first["corrupted"][0]["path"].startswith("corrupt/images/"), "the run folder can be moved"


def test_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "BATCH", 2)
    run = a_run(tmp_path)
    assert corrupt(run, limit=1).startswith("2 of 4 pairs (--limit)")
    assert run.mark("corrupt") is None
    assert not made(run), "what is unfinished does not look finished"
    stamps = {path: path.stat().st_mtime_ns for path in run.path("corrupt", "images").iterdir()}
    assert len(stamps) == 2
    corrupt(run)
    first = Path(made(run)[0].corrupted[0].path)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert first in stamps
    whole = a_run(tmp_path, name="other")
    corrupt(whole)
    tables = [one.path("corrupt", "pairs.jsonl").read_bytes() for one in (run, whole)]
    assert tables[0] == tables[1], "interrupted or not, the table is the same"
    first.unlink()
    corrupt(run)
    assert first.exists(), "an image that was deleted is made again"
    assert run.path("corrupt", "pairs.jsonl").read_bytes() == tables[0]


def test_another_setting_makes_other_images_and_removes_the_old(tmp_path: Path) -> None:
    corrupt(a_run(tmp_path))
    run = a_run(tmp_path, "corrupt.operator=inpaint", "corrupt.fallback=none")
    with pytest.raises(RunError, match=r"corrupt\.fallback was 'whole', is 'none'.*\n?.*--redo"):
        corrupt(run)
    corrupt(run, redo=True)
    rows = made(run)
    assert [len(row.corrupted) for row in rows] == [1, 1, 0, 0]
    files = {path.name for path in run.path("corrupt", "images").iterdir()}
    assert files == {Path(image.path).name for row in rows for image in row.corrupted}


def test_a_changed_mask_is_noticed(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    corrupt(run)
    before = made(run)
    mask = np.zeros((40, 48), np.uint8)
    mask[:30] = 255
    Image.fromarray(mask).save(tmp_path / "images" / "0-mask.png")
    corrupt(run)
    after = made(run)
    assert after[0].provenance["corruption_area"] == "0.7500"
    assert after[1] == before[1]


def test_a_pair_whose_image_is_gone_is_quarantined(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    (tmp_path / "images" / "1.png").unlink()
    line = corrupt(run)
    assert "image missing 1" in line
    reasons = {row.id: row.reason.split(":")[0] for row in quarantined(run, "corrupt")}
    assert reasons == {"q1/edit": "image missing", "q3/edit#image-1-1": "mask of nodule"}
    assert [row.id for row in made(run)] == ["q0/edit", "q2/edit", "q3/edit"]
    for number in (0, 2, 3):
        (tmp_path / "images" / f"{number}.png").unlink()
    with pytest.raises(RunError, match="no pair is left"):
        corrupt(Run(run.folder, config.override(run.loaded, ["corrupt.strength=0.5"])), redo=True)


def test_a_segmenter_that_is_not_named_is_an_error_before_any_work(tmp_path: Path) -> None:
    run = a_run(tmp_path, "corrupt.masks=[own, segmenter]")
    with pytest.raises(RecipeError, match=r"corrupt\.segmenter"):
        corrupt(run)
    assert not run.path("corrupt").exists()


# ---- commands


def preview(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["corrupt", "preview", *words])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ([], True),
        (["data.phantom.masks=false"], False),
        (["data.phantom.masks=false", "corrupt.operator=crop"], True),
        (["data.phantom.masks=false", "corrupt.fallback=whole"], True),
        (["data.phantom.masks=false", "corrupt.masks=[own, evidence]"], True),
        (["data.phantom.masks=false", "align.objective=rrpo"], True),
    ],
)
def test_a_visual_term_that_no_pair_could_have_is_an_error_before_any_work(words: list[str], fits: bool) -> None:
    recipe = config.load("firempo", overrides=words).recipe
    if fits:
        check(road_of(recipe), recipe)
        return
    with pytest.raises(RecipeError, match=r"align\.visual\.weight is 0\.1, but the phantoms are written without"):
        check(road_of(recipe), recipe)


def test_preview_of_phantoms(tmp_path: Path) -> None:
    to = tmp_path / "sheet.png"
    words = ("--to", str(to), "--count", "2", "--side", "96", "--operator", "noise", "--operator", "black")
    assert preview(*words)[0] == 0
    with Image.open(to) as sheet:
        assert sheet.width == 4 * 100 + 4  # clean, mask and two operators
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    clean, marked, noisy = (pixels[4:100, 4 + 100 * n : 100 + 100 * n] for n in range(3))
    assert (np.ptp(clean, axis=-1) == 0).mean() > 0.99, "an image is grey"
    tint = np.ptp(marked, axis=-1) > 30
    assert 0 < tint.mean() < 0.5
    assert np.abs(clean - noisy)[tint].mean() > 5 * np.abs(clean - noisy)[~tint].mean()


def test_preview_of_a_run(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    corrupt(run)
    to = tmp_path / "sheet.png"
    code, output = preview("--run", str(run.folder), "--to", str(to))
    assert code == 0, output
    assert to.exists()


def test_preview_says_what_is_wrong(tmp_path: Path) -> None:
    for words, message in (
        (("--data", "phantoms"), "did you mean `phantom`"),
        (("--operator", "nois"), "corrupt.operator"),
        (("--corrupt.masks", "[evidence]"), "preview a run that has both"),
        (("--corrupt.masks", "[segmenter]"), "corrupt.segmenter"),
        (("--run", str(tmp_path)), "holds no run"),
    ):
        code, output = preview(*words, "--to", str(tmp_path / "x.png"))
        assert code == 2
        assert message in output
    assert not (tmp_path / "x.png").exists()
