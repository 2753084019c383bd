"""Answers by servers: the rows of this process, whatever the server does; no other model, and nothing asked twice."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from radpref import chat_client, config
from radpref.chat_client import ClientError
from radpref.config import ModelSection, RunSection, ServeSection
from radpref.exports import serve_command
from radpref.models import Vlm, generate, load, locate, reach, served_name
from radpref.models.serving import Served, _seed
from radpref.pipeline import road_of, run_stage_alone
from radpref.records import Completion, ImageFile, Quarantined, Question
from radpref.runs.folder import Run, RunError
from radpref.stages.ports import COMPLETIONS, MODEL
from tests.chat_server import Behind, Handler, say, scripted, send, transformers_serve
from tests.runs import fact, quarantined, rows
from tests.test_judges_servers import WAYS, Way

pytestmark = pytest.mark.heavy

FLOAT32 = RunSection(device="cpu", precision="float32", threads=1)
MODEL_HERE = ModelSection(path=str(locate(ModelSection())))
PROMPTS = ("Write the findings of this chest X-ray.", "Is there a pleural effusion?", "Is the heart enlarged?")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "_FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load(MODEL_HERE, FLOAT32)


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probes")


def picture(image: ImageFile) -> Image.Image:
    return Image.radial_gradient("L").rotate(40 * int(image.path)).resize((150, 128)).convert("RGB")


def questions(n: int = 6) -> list[Question]:
    return [
        Question(id=f"q{i}", study=f"q{i}", patient="p", split="train", prompt=PROMPTS[i % 3], reference="",
                 images=tuple(ImageFile(path=str(i + k)) for k in range(1 + (i == 3))))
        for i in range(n)
    ]  # fmt: skip


def reached(address: str, probes: Path, temperature: float | None = None, **settings: Any) -> Served:
    serve = ServeSection.model_validate({"timeout": 30.0, "retries": 2, "concurrency": 4, **settings})
    return reach(address, "sample.server", serve, MODEL_HERE, probes, temperature=temperature)


def asked(served: Served, some: list[Question], **how: Any) -> list[list[Completion] | Quarantined]:
    return list(served.answers(some, **{"max_new_tokens": 24, "seed": 5, "read": picture, **how}))


def here(vlm: Vlm, some: list[Question], **how: Any) -> list[list[Completion] | Quarantined]:
    made = generate(vlm, some, **{"max_new_tokens": 24, "seed": 5, "batch": 4, "read": picture, **how})
    return [answers for _, answers in made]


# ------------------------------------------------------------------------------------------ the same rows


def test_greedy_answers_with_their_scores_are_those_of_this_process(vlm: Vlm, probes: Path) -> None:
    expected = here(vlm, questions(), scores=True)
    with scripted(Behind(vlm)) as place:
        served = reached(place.url, probes)
        found = asked(served, questions(), scores=True)
    assert "log-probs" in served.told
    for ours, theirs in zip(expected, found, strict=True):
        assert isinstance(ours, list)
        assert isinstance(theirs, list)
        assert [row.model_copy(update={"scores": None}) for row in ours] == [
            row.model_copy(update={"scores": None}) for row in theirs
        ]
        assert ours[0].scores
        assert theirs[0].scores
        assert theirs[0].scores.ends == ours[0].scores.ends
        assert theirs[0].scores.logps == pytest.approx(ours[0].scores.logps, abs=1e-3)
        assert theirs[0].scores.margins == pytest.approx(ours[0].scores.margins, abs=1e-3)


@pytest.mark.slow
def test_transformers_own_server_gives_the_rows_of_this_process(vlm: Vlm, probes: Path) -> None:
    with transformers_serve(Path(MODEL_HERE.path)) as address:
        served = reached(address, probes, timeout=120.0)
        assert asked(served, questions()) == here(vlm, questions())
        with pytest.raises(ClientError, match="does not sample"):
            reached(address, probes, temperature=1.0)


def test_candidates_come_of_one_request_and_follow_from_the_seed(vlm: Vlm, probes: Path) -> None:
    with scripted(Behind(vlm)) as place:
        served = reached(place.url, probes, temperature=1.0)
        before = len(place.asked)
        found = asked(served, questions(), n=4, temperature=1.0)
        assert [question["n"] for question in place.asked[before:]] == [4] * 6
        assert asked(served, questions()[::-1], n=4, temperature=1.0) == found[::-1]
        assert asked(served, questions(), n=4, temperature=1.0, seed=6) != found
    for question, answers in zip(questions(), found, strict=True):
        assert isinstance(answers, list)
        assert [row.id for row in answers] == [f"{question.id}/{i}" for i in range(4)]
    assert any(len({row.text for row in answers}) > 1 for answers in found if isinstance(answers, list))


def test_a_server_that_knows_no_n_is_asked_for_each_candidate(vlm: Vlm, probes: Path) -> None:
    with scripted(Behind(vlm, several=False, logprobs=False)) as place:
        served = reached(place.url, probes)
        before = len(place.asked)
        (found,) = asked(served, questions(1), n=3, temperature=1.0)
        seeds = [question["seed"] for question in place.asked[before:]]
    assert seeds == [_seed(5, "q0", i) for i in range(3)]
    assert isinstance(found, list)
    assert len(found) == 3
    assert "no log-probs" in served.told


def test_a_thought_is_cut_from_what_a_server_says(vlm: Vlm, probes: Path) -> None:
    def thinks(handler: Handler, question: dict[str, Any], number: int) -> bool:
        if number < 3:
            return False
        say(handler, ("<think>hm</think>\n\nNo effusion.", "<think>hm")[number % 2])
        return True

    with scripted(Behind(vlm, trouble=thinks)) as place:
        found = asked(reached(place.url, probes, concurrency=1), questions(2))
    texts = [row.text for rows in found if isinstance(rows, list) for row in rows]
    assert texts == ["", "No effusion."]


# ------------------------------------------------------------------------------------------ what may go wrong


def test_trouble_is_asked_again_and_refusal_is_quarantined(vlm: Vlm, probes: Path) -> None:
    expected = here(vlm, questions())

    def moody(handler: Handler, question: dict[str, Any], number: int) -> bool:
        if "effusion" in question["messages"][0]["content"][-1]["text"]:
            send(handler, '{"error": "too long"}', 400)
        elif number % 3 == 1:
            send(handler, "busy", 429, Retry_After="0")
        elif number % 3 == 2 and number % 2:
            send(handler, '{"choices": []}')
        else:
            return False
        return True

    with scripted(Behind(vlm, trouble=moody)) as place:
        found = asked(reached(place.url, probes, retries=8), questions())
    for question, ours, theirs in zip(questions(), expected, found, strict=True):
        if "effusion" in question.prompt:
            assert isinstance(theirs, Quarantined)
            assert theirs.reason == "refused: the server did not take the question (status 400)"
        else:
            assert theirs == ours


OF_JUDGES = ("a null for an answer", "an answer that was cut", "an answer about the weather")
"""Ways that spoil a verdict; a model may say such things."""


@pytest.mark.parametrize("way", [way for way in WAYS if way.name not in OF_JUDGES], ids=lambda way: way.name)
def test_a_sampler_lives_through_it(way: Way, vlm: Vlm, probes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the judge and the editor: it heals and the rows are those of this process, costs its question, or stops."""
    monkeypatch.setattr(chat_client, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(chat_client, "_LONGEST_ANSWER", 1 << 18)
    some, begun, seen = questions(3), threading.Event(), Counter[str]()

    def trouble(handler: Handler, question: dict[str, Any], _: int) -> bool:
        text = json.dumps(question["messages"])
        seen[text] += 1
        if not begun.is_set() or (way.ends == "heals" and seen[text] > 1):
            return False
        way.act(handler, question)
        return True

    with scripted(Behind(vlm, trouble=trouble)) as place:
        served = reached(place.url, probes, timeout=2.0)
        begun.set()
        seen.clear()
        if way.ends == "stops":
            with pytest.raises(ClientError, match=way.says) as told:
                asked(served, some)
            assert "\n" not in str(told.value)
            return
        found = asked(served, some)
    if way.ends == "heals":
        assert found == here(vlm, some)
        assert set(seen.values()) == {2}, "nothing is asked twice that was answered"
    else:
        assert all(isinstance(one, Quarantined) for one in found)


def test_words_that_are_commands_are_not_sent(vlm: Vlm, probes: Path) -> None:
    poisoned = questions(1)[0].model_copy(update={"prompt": f"Cough {vlm.control.texts[0]}."})
    with scripted(Behind(vlm)) as place:
        served = reached(place.url, probes)
        before = len(place.asked)
        (found,) = asked(served, [poisoned])
        assert len(place.asked) == before
    assert isinstance(found, Quarantined)
    assert "spells special tokens" in found.reason


def test_another_address_takes_over_where_one_dies(vlm: Vlm, probes: Path) -> None:
    def dies(handler: Handler, question: dict[str, Any], number: int) -> bool:
        if number >= 4:
            handler.connection.close()
        return number >= 4

    with scripted(Behind(vlm, trouble=dies)) as one, scripted(Behind(vlm)) as other:
        served = reached(f"{one.url},{other.url}", probes)
        found = asked(served, questions(9))
        assert len(one.asked) > 4
    assert found == here(vlm, questions(9))


def test_an_address_that_is_away_or_serves_something_else_is_left_out(vlm: Vlm, probes: Path, other: Vlm) -> None:
    with scripted(Behind(other)) as wrong, scripted(Behind(vlm)) as right:
        served = reached(f"http://127.0.0.1:1/v1,{wrong.url},{right.url}", probes)
        before = len(wrong.asked)
        assert asked(served, questions(3)) == here(vlm, questions(3))
        assert len(wrong.asked) == before


def test_no_more_is_asked_at_a_time_than_allowed_nor_far_ahead_of_who_reads(vlm: Vlm, probes: Path) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def slow(handler: Handler, question: dict[str, Any], number: int) -> bool:
        if number < 3:
            return False
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        say(handler, "Clear.")
        return True

    with scripted(Behind(vlm, trouble=slow)) as place:
        served = reached(place.url, probes, concurrency=3)
        answers = served.answers(questions(40), max_new_tokens=8, seed=0, read=picture)
        next(answers)
        time.sleep(0.3)
        assert len(place.asked) <= 3 + 1 + 2 * 3
        assert len(list(answers)) == 39
    assert 1 < most[0] <= 3


# ------------------------------------------------------------------------------------------ the model that is meant


@pytest.fixture(scope="module")
def other() -> Vlm:
    """The model with weights a little off."""
    import torch

    vlm = load(MODEL_HERE, FLOAT32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vlm.model.get_decoder().parameters():
            parameter += 0.5 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return vlm


@pytest.mark.parametrize("logprobs", [True, False])
def test_another_model_is_refused(vlm: Vlm, other: Vlm, probes: Path, logprobs: bool) -> None:
    with (
        scripted(Behind(other, logprobs=logprobs)) as place,
        pytest.raises(ClientError, match=r"serves (another model|other weights).*serve-command"),
    ):
        reached(place.url, probes)


def test_weights_that_say_the_same_with_other_probabilities_are_refused(vlm: Vlm, probes: Path) -> None:
    """As of a checkpoint before or after alignment: told by log-probs alone."""
    flatter = load(MODEL_HERE, FLOAT32)
    flatter.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: 0.4 * logits)
    with scripted(Behind(flatter)) as place:
        with pytest.raises(ClientError, match=r"serves other weights.*serve\.tolerance"):
            reached(place.url, probes)
        assert reached(place.url, probes, tolerance=50.0)


def test_the_name_is_ours_or_the_folders_or_the_only_one(vlm: Vlm, probes: Path) -> None:
    mine = served_name(vlm.fingerprint)
    for names, expected in (([], MODEL_HERE.path), (["m"], "m"), (["a", mine], mine), (["a", "b"], MODEL_HERE.path)):
        with scripted(Behind(vlm)) as place:
            place.names = names
            assert reached(place.url, probes).name == expected
    with scripted(Behind(vlm)) as place:
        assert reached(place.url, probes, model="given").name == "given"


# ------------------------------------------------------------------------------------------ in a run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    overrides = [
        *("sft.enabled=false", "run.threads=1", "run.precision=float32", "serve.concurrency=2", "serve.retries=1"),
        *("data.train=12", "data.validation=2", "data.test=3", "sample.max_new_tokens=24"),
    ]
    run = Run(tmp_path / "run", config.load("firempo", preset="tiny", overrides=overrides))
    for stage in ("studies", "sft"):
        run_stage_alone(run, stage)
    return run


def by_server(run: Run, url: str) -> Run:
    return Run(run.folder, config.override(run.loaded, [f"sample.server={url}"]))


def prompts_of(place: Any, after: int = 0) -> Counter[str]:
    """How often each question was asked: told by its words and images."""
    return Counter(str(question["messages"]) for question in place.asked[after:])


def test_a_server_that_dies_ends_the_stage_and_nothing_that_was_stored_is_asked_again(
    run: Run, vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_client, "PATIENCE", 3)
    monkeypatch.setattr("radpref.runs.rows.FLUSH", 0.0)

    def dies(handler: Handler, question: dict[str, Any], number: int) -> bool:
        if number >= 3 + 6:
            handler.connection.close()
        return number >= 3 + 6

    with scripted(Behind(vlm, trouble=dies)) as place:
        with pytest.raises(chat_client.ClientError, match="3 questions in a row"):
            run_stage_alone(by_server(run, place.url), "answer")
        first = prompts_of(place, 3)
    stored = sum(1 for part in run.path("answer").glob("completions.part*") for _ in part.open())
    assert 4 <= stored <= 8
    with scripted(Behind(vlm)) as place:  # at another address
        run_stage_alone(by_server(run, place.url), "answer")
        second = prompts_of(place, 3)
    assert sum(second.values()) <= 12 - stored + 3
    assert len(first | second) == 12
    served = rows(run, COMPLETIONS)

    run_stage_alone(Run(run.folder, config.override(run.loaded, ["sample.server=null"])), "answer", redo=True)
    assert "log-probs of" in "\n".join(event["text"] for event in run.events() if event["event"] == "note")
    plain = rows(run, COMPLETIONS)
    assert [row.model_copy(update={"scores": None}) for row in served] == [
        row.model_copy(update={"scores": None}) for row in plain
    ]


def test_what_no_server_answered_is_asked_again_by_the_same_command(run: Run, vlm: Vlm) -> None:
    def drops(handler: Handler, question: dict[str, Any], number: int) -> bool:
        lost = number >= 3 and len(str(question["messages"])) % 3 == 0
        if lost:
            send(handler, "", 500)
        return lost

    with scripted(Behind(vlm, trouble=drops)) as place:
        run_stage_alone(by_server(run, place.url), "answer")
    lost = quarantined(run, "answer")
    assert all(row.reason == "server error: status 500" for row in lost)
    with scripted(Behind(vlm)) as place:
        run_stage_alone(by_server(run, place.url), "answer", redo=True)
        assert len(place.asked) == (3 + len(lost) if lost else 0)
    assert len(rows(run, COMPLETIONS)) == 12
    assert not quarantined(run, "answer")


def test_a_server_without_the_model_says_how_to_start_one(run: Run) -> None:
    with pytest.raises(RunError, match="cannot be reached"):
        run_stage_alone(by_server(run, "http://127.0.0.1:1/v1"), "answer")


def test_the_command_serves_what_the_next_stage_asks_under_our_name(run: Run) -> None:
    road = road_of(run.recipe)
    model = fact(run, MODEL)
    text = serve_command(run, road)
    assert "radpref answer" in text
    line = next(line for line in text.splitlines() if line.startswith("vllm serve "))
    assert f"--served-model-name {served_name(model.fingerprint)}" in line
    assert "--dtype float32" in line
    assert """--limit-mm-per-prompt '{"image": 2}'""" in line
    assert "--sample.server http://localhost:8000/v1" in text
    with pytest.raises(RunError, match="has no stage 'sample'"):
        serve_command(run, road, "sample")
