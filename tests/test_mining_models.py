"""What mining asks of models: how sure they were of each token, vectors of images; and the stage on phantoms."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image

from radpref import config
from radpref.images import ImageError
from radpref.mining import Summary, as_tensor, image_vectors, mean_vectors, tower
from radpref.mining.encoders import EncoderError, image_encoder, sentence_vectors
from radpref.models import collate, encode_prompt, generate
from radpref.pipeline import run_stage_alone
from radpref.records import Completion, ImageFile, Quarantined, Question
from radpref.report import mining as charts
from radpref.runs.folder import Run, RunError
from radpref.stages.ports import COMPLETIONS, MINED, TRAIN, VECTORS
from tests.runs import copy, counts, last_line, rows, tables
from tests.tiny import FAMILIES, picture, tiny_vlm

pytestmark = pytest.mark.heavy


def question(number: int, prompt: str) -> Question:
    image = ImageFile(path=str(number), digest=f"d{number}")
    return Question(
        id=f"q{number}", study="s", patient="p", split="train", images=(image,), prompt=prompt, reference=""
    )


QUESTIONS = [question(1, "Is there an effusion?"), question(2, "Write the findings of this chest X-ray.")]


def read(image: ImageFile) -> Image.Image:
    if image.path == "broken":
        raise ImageError("broken: not an image")
    return picture(int(image.path))


def scored(family: str, **settings: Any) -> list[Completion]:
    settings = {"max_new_tokens": 10, "batch": 4, "seed": 3, "scores": True, "read": read, **settings}
    return [
        row for _, rows in generate(tiny_vlm(family), QUESTIONS, **settings) if isinstance(rows, list) for row in rows
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_and_margins_are_those_of_a_plain_forward(family: str) -> None:
    vlm = tiny_vlm(family)
    seen: list[list[int]] = []
    whole = vlm.tokenizer.batch_decode

    def listen(rows: Any, **more: Any) -> Any:
        seen.append(max(rows, key=len))
        return whole(rows, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm.tokenizer, "batch_decode", listen)
        rows = scored(family)
    ids = seen[1:]  # the first decodes all answers, then each answer its beginnings
    for asked, row, answer in zip(QUESTIONS, rows, ids, strict=True):
        batch = collate(vlm, [encode_prompt(vlm, asked.prompt, [read(asked.images[0])])], [answer])
        spoken = batch.pop("completion_mask")[0]
        with torch.no_grad():
            logits = vlm.model(**batch).logits[0][spoken.roll(-1)].float()
        never = torch.arange(logits.shape[-1]) >= len(vlm.tokenizer)
        never[[i for i in _placeholders(vlm) if i < len(never)]] = True
        logps = logits.masked_fill(never, -torch.inf).log_softmax(-1)
        own = logps.gather(-1, torch.tensor(answer)[:, None]).squeeze(-1)
        first, second = logps.exp().topk(2, -1).values.unbind(-1)
        assert row.scores is not None
        torch.testing.assert_close(torch.tensor(row.scores.logps), own, atol=2e-3, rtol=0)
        torch.testing.assert_close(torch.tensor(row.scores.margins), first - second, atol=2e-3, rtol=0)


def _placeholders(vlm: Any) -> frozenset[int]:
    from radpref.models import image_token_ids

    return image_token_ids(vlm)


@pytest.mark.parametrize("settings", [{}, {"n": 3, "temperature": 1.3, "top_p": 0.8}])
def test_scores_change_no_answer_and_fit_their_text(settings: dict[str, Any]) -> None:
    rows, silent = scored("llava", **settings), scored("llava", scores=False, **settings)
    assert [row.model_copy(update={"scores": None}) for row in rows] == silent
    assert all(row.scores is None for row in silent)
    for row in rows:
        scores = row.scores
        assert scores is not None
        assert len(scores.logps) == len(scores.margins) == len(scores.ends) == row.tokens
        assert list(scores.ends) == sorted(scores.ends)
        assert scores.ends[-1] == len(row.text)
        assert all(value <= 0 for value in scores.logps)
        assert all(0 <= value <= 1 for value in scores.margins)
        assert Completion.model_validate_json(row.model_dump_json()) == row
        if not settings:  # a greedy token is the likeliest: its margin is at most its probability
            assert all(m <= math.exp(p) + 1e-3 for p, m in zip(scores.logps, scores.margins, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_image_vectors_do_not_depend_on_the_batch(family: str) -> None:
    images = [ImageFile(path=str(i), digest=f"d{i}") for i in range(5)]
    encode = tower(tiny_vlm(family))
    alone = [row for _, row in image_vectors(encode, images, batch=1, read=read)]
    together = [row for _, row in image_vectors(encode, images, batch=3, read=read)]
    for a, b in zip(alone, together, strict=True):
        assert isinstance(a, torch.Tensor)
        assert isinstance(b, torch.Tensor)
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)  # type: ignore[arg-type]


def test_a_broken_image_is_told_and_the_others_have_vectors() -> None:
    images = [
        ImageFile(path="1", digest="d1"),
        ImageFile(path="broken", digest="d2"),
        ImageFile(path="3", digest="d3"),
    ]
    encode = tower(tiny_vlm("llava"))
    rows = {image.digest: row for image, row in image_vectors(encode, images, batch=3, read=read)}
    assert isinstance(rows["d2"], Quarantined)
    assert rows["d2"].id == "d2"
    own = {name: row for name, row in rows.items() if isinstance(row, torch.Tensor)}
    both, one = question(1, ""), question(2, "")
    asked = [both.model_copy(update={"images": tuple(images)}), one.model_copy(update={"images": (images[1],)})]
    vectors = as_tensor(mean_vectors(asked, own.items()), slice(None))
    directions = sum(v / v.norm() for v in own.values())
    torch.testing.assert_close(vectors[0], directions / directions.norm(), atol=1e-5, rtol=0)  # type: ignore[union-attr, operator]
    assert (vectors[1] == 0).all()


def test_one_image_that_an_encoder_refuses_does_not_take_its_batch_along() -> None:
    def encode(images: Any) -> torch.Tensor:
        if any(image.width == 99 for image in images):
            raise ValueError("too wide")
        return torch.ones(len(images), 2)

    images = [ImageFile(path=str(i), digest=f"d{i}") for i in range(3)]
    wide = lambda image: picture(0, 99 if image.path == "1" else 50)  # noqa: E731
    rows = [row for _, row in image_vectors(encode, images, batch=3, read=wide)]
    assert [row.reason if isinstance(row, Quarantined) else row.tolist() for row in rows] == [
        [1, 1],
        "too wide",
        [1, 1],
    ]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_clip_like_encoders_through_transformers(kind: str, tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tower_shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text, vision = {**tower_shape, "vocab_size": 50}, {**tower_shape, "image_size": 32, "patch_size": 16}
    model: Any = (
        hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
        if kind == "clip"
        else hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision))
    )
    model.save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(tmp_path)
    encode = image_encoder(str(tmp_path), torch.device("cpu"))
    images = [ImageFile(path=str(i), digest=f"d{i}") for i in range(3)]
    rows = [row for _, row in image_vectors(encode, images, batch=2, read=read)]
    assert [row.shape for row in rows if isinstance(row, torch.Tensor)] == [(24 if kind == "clip" else 32,)] * 3


def test_encoders_that_are_not_there_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"mine\.image_model"):
        image_encoder(str(tmp_path), torch.device("cpu"))
    with pytest.raises(EncoderError, match=r"open_clip|safetensors"):
        image_encoder(f"open_clip:{tmp_path}", torch.device("cpu"))
    with pytest.raises(EncoderError, match=r"mine\.text_model"):
        sentence_vectors(["a"], str(tmp_path))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    overrides = [
        "sft.enabled=false", "task.kind=questions", "data.train=24", "data.validation=2", "data.test=2",
        "sample.max_new_tokens=16", "evaluate.resamples=100", "mine.k=3", "mine.image=0.5", "mine.finding=1.0",
        "mine.budget=12", "run.precision=float32", "task.per_study=2", "mine.confidence=geometric",
        "mine.quota=tempered", "mine.strata=[task, kind, finding]",
    ]  # fmt: skip
    run = Run(tmp_path_factory.mktemp("runs") / "mine", config.load("chexpo", preset="tiny", overrides=overrides))
    for stage in ROAD:
        run_stage_alone(run, stage)
    return run


ROAD = ("studies", "sft", "answer", "judge", "embed", "mine")


def test_the_stage_writes_rows_and_a_summary(run: Run) -> None:
    mined = rows(run, MINED)
    summary = Summary.model_validate(counts(run, "mine")["summary"])
    assert len(mined) == summary.taken == min(12, summary.hard + summary.neighbours)
    assert summary.scored > 0
    assert summary.moved, "how the hard set follows the cut"
    assert {row.id for row in mined} <= {question.id for question in rows(run, TRAIN)}
    assert all(row.scores for row in rows(run, COMPLETIONS))
    assert {row.id for row in rows(run, VECTORS)} == {i.digest for q in rows(run, TRAIN) for i in q.images}


def test_the_stages_do_nothing_twice_and_resume_to_the_same_rows(run: Run, tmp_path: Path) -> None:
    other = copy(run, tmp_path / "again")
    before = tables(other.folder)
    for stage in ROAD[1:]:
        run_stage_alone(other, stage)
        assert last_line(other, stage) == "up to date"
    for stage, port in (("answer", COMPLETIONS), ("embed", VECTORS)):  # killed in the midst of a line
        table = other.table(stage, port)
        table.reopen()
        part = table.part("old").rename(table.part(0))
        lines = part.read_bytes().splitlines(keepends=True)
        part.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])
        other.path(stage, "done.json").unlink()
    other.path("mine", "done.json").unlink()
    for stage in ROAD[2:]:
        run_stage_alone(other, stage)
    assert "mined" in last_line(other, "mine")
    assert tables(other.folder) == before


def test_a_limit_stops_after_whole_batches(tmp_path: Path, run: Run) -> None:
    other = copy(run, tmp_path / "limited")
    shutil.rmtree(other.path("answer"))
    run_stage_alone(other, "answer", limit=1)
    asked, batch = len(rows(run, TRAIN)), run.recipe.evaluate.batch
    assert 0 < batch < asked
    assert last_line(other, "answer").startswith(f"{batch} of {asked} studies (--limit)")
    assert other.mark("answer") is None
    with pytest.raises(RunError, match="`answer` makes, which has not finished"):
        run_stage_alone(other, "mine")


def test_charts_of_a_summary_are_svg(run: Run) -> None:
    summary = Summary.model_validate(counts(run, "mine")["summary"])
    assert summary.calibration is not None
    drawn = [
        charts.cells(summary), charts.sensitivity(summary), charts.hits(summary), charts.tail(summary),
        charts.calibration(summary.calibration), charts.calibration(summary.calibration, mass=False),
    ]  # fmt: skip
    for chart in drawn[:3] + drawn[4:]:
        assert chart.startswith("<svg")
        assert "nan" not in chart
