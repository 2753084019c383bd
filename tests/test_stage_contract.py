"""The stage contract: a change outdates the stages that depend on it, and no other; nothing is read undeclared.

What depends on what stands here by hand, apart from what the stages declare.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from radpref import config, findings, judges, models
from radpref.config import Recipe, UndeclaredKeyError, covered, fields, marked, narrowed
from radpref.pipeline import METHODS, commands, road_of
from radpref.records import Completion, Question, Weights
from radpref.runs.context import QUARANTINED, UndeclaredPortError
from radpref.runs.engine.local import Local
from radpref.runs.folder import Mark, Run, RunError
from radpref.runs.runner import basis_of, check, keep_precision, run_stage, settled, states
from radpref.runs.stage import Identity, Outcome, Ranks, Rows, Stage, TableOf
from radpref.runs.stage import Whole as WholeWork
from radpref.stages.ports import MODEL, PAIRS, TRAIN
from radpref.versions import ROOMS
from tests.runs import Whole, copy, finished, smallest

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("whole")]  # one worker: the tests share finished runs

NEEDS = {
    "studies": "", "sft": "studies", "sample": "studies sft", "answer": "studies sft", "judge": "sample answer",
    "embed": "studies sft", "mine": "studies answer judge embed", "pair": "studies sample answer judge mine",
    "corrupt": "pair sft", "prepare": "pair corrupt sft", "align": "pair corrupt sft", "control": "pair corrupt sft",
    "grpo": "studies sft", "validate": "studies sft align control grpo", "select": "validate", "ground": "select",
    "predict": "studies select", "evaluate": "studies predict ground", "report": "evaluate pair corrupt judge mine",
}  # fmt: skip
"""What each stage reads of others, where its method has them."""

MODELS = "sft sample answer embed corrupt prepare align control grpo validate predict ground"
"""Stages that run a model."""
KINDS = {
    "ranked": {"chexalign"}, "edited": {"firempo", "chexpo"}, "counterfactual": {"chexpo"}, "given": {"pairs"},
}  # fmt: skip
"""What the stage `pair` does in which method."""
NOTHING = "-"
"""Of a key that no result follows from, so that not even the report is outdated."""

KEYS: Mapping[str, tuple[object, str]] = {
    "data.train": (9, "studies"),
    "data.validation_share": (0.15, "studies"),
    "data.root": ("/elsewhere", "studies given"),
    "data.file": ("other.csv", "studies"),
    "data.options": ({"another": 1}, "studies"),
    "data.unreported.options": ({"another": 1}, "studies"),
    "data.phantom.seed": (5, "studies"),
    "data.table.findings": ("text", "studies"),
    "task.kind": (..., "studies ranked evaluate"),
    "task.prompt": ("Describe it.", "studies"),
    "task.per_study": (3, "studies"),
    "run.seed": (18, "studies sft sample align control grpo mine evaluate"),
    "run.precision": ("bfloat16", MODELS),
    "run.device": ("cpu", ""),  # the kind that `auto` came to
    "run.threads": (2, NOTHING),
    "model.quantize": ("nf4", MODELS),
    "engine.name": ("ray", NOTHING),
    "engine.workers": (3, NOTHING),
    "sft.enabled": (True, "sft"),
    "sft.lr": (0.5, "sft"),
    "sft.lora.rank": (3, "sft"),
    "sft.save_steps": (7, "sft"),
    "sample.n": (3, "sample"),
    "sample.batch": (3, "sample"),
    "sample.studies": ("reported", "sample answer ranked edited embed mine grpo"),
    "sample.most": (3, "sample answer ranked edited embed mine grpo"),
    "sample.server": ("http://localhost:1/v1", "sample answer"),
    "evaluate.server": ("http://localhost:1/v1", "validate predict"),
    "serve.model": ("another", NOTHING),
    "serve.tolerance": (0.2, NOTHING),
    "sample.temperature": (0.9, "sample grpo"),
    "sample.top_p": (0.9, "sample grpo"),
    "sample.max_new_tokens": (13, "sample answer validate predict grpo"),
    "judge.name": ("text", "judge grpo"),
    "judge.server": ("http://localhost:1/v1", ""),  # of a judge that asks none
    "judge.concurrency": (2, NOTHING),
    "judge.timeout": (2.0, NOTHING),
    "mine.select": ("random", "mine"),
    "mine.k": (3, "embed mine"),
    "mine.image": (0.5, "embed mine"),
    "mine.image_batch": (3, "embed mine"),
    "mine.budget": (7.0, "mine"),
    "mine.strata": (["task"], "mine"),
    "pair.by": ("consensus", "ranked"),
    "pair.chosen": ("reference", "ranked"),
    "pair.tie": (0.1, "ranked"),
    "pair.margin": (0.1, "ranked"),
    "pair.drop_unfinished": (False, "ranked"),
    "pair.limit": (3, "ranked edited given"),
    "pair.rejected": ("sampled", "counterfactual"),
    "pair.root": ("/elsewhere", "given"),
    "edit.flips": (2, "edited"),
    "edit.attributes": (["side"], "edited"),
    "edit.max_distance": (0.4, "edited"),
    "edit.editor": ("chat", "edited"),
    "edit.server": ("http://localhost:1/v1", ""),  # the rules ask nobody
    "corrupt.operator": ("blur", "corrupt"),
    "corrupt.strength": (0.33, "corrupt"),
    "align.lr": (0.3, "align control"),
    "align.epochs": (3.0, "align control"),
    "align.accumulate": (3, "align control"),
    "align.weight_decay": (0.1, "align control"),
    "align.lora.rank": (3, "align control"),
    "align.save_steps": (7, "align control"),
    "align.batch": (3, "prepare align control"),
    "align.max_length": (900, "prepare align"),
    "align.train_projector": (True, "prepare align"),
    "align.beta": (0.77, "align"),
    "align.nll": (0.77, "align"),
    "align.loss": ("hinge", "align"),  # reads the same of the reference
    "align.gradient_checkpointing": (True, NOTHING),
    "align.shared_prefix": ("never", NOTHING),
    "align.cache_features": ("always", NOTHING),
    "grpo.lr": (0.3, "grpo"),
    "grpo.reward": ("chexpo", "grpo"),
    "select.by": ("text", "select"),
    "select.betas": ([0.3, 0.4], "align"),
    "select.checkpoints": (False, "validate select"),
    "evaluate.control": (False, "control"),
    "evaluate.control_lrs": ([0.3], "control"),
    "evaluate.controls": (["swapped"], "studies"),
    "evaluate.drawn": (True, "predict"),
    "evaluate.consensus": (3, "predict"),
    "evaluate.resamples": (101, "evaluate mine"),
    "evaluate.batch": (3, "answer validate predict ground"),
    "ground.studies": (2, "ground"),
    "ground.placements": (2, "ground"),
    "report.studies": (1, ""),
}
"""Key to another value, and the stages whose results follow from it; the report shows all keys."""

ROOM = {
    "data": "studies given",
    "images": "studies embed corrupt ground given",
    "tasks": "studies mine edited",
    "models": "sft sample answer embed prepare align control grpo validate predict ground",
    "training": "sft prepare align control grpo",
    "losses": "prepare align",
    "judges": "judge grpo ranked edited select evaluate",
    "findings": "judge grpo ranked edited select evaluate report",
    "pairs": "ranked edited corrupt",
    "grounding": "corrupt ground evaluate",
    "mining": "embed mine",
    "evaluation": "mine evaluate",
    "report": "report",
}
"""Room to the stages that its code makes the results of."""

METHOD = pytest.mark.parametrize("method", METHODS)


# ------------------------------------------------------------------------------------------ what is outdated


def meant(method: str, words: str) -> set[str]:
    """The stages of a method that a line of the tables above speaks of."""
    named = {"pair" if method in KINDS.get(word, ()) else word for word in words.split()}
    return named & {stage.name for stage in METHODS[method]}


def behind(method: str, first: Iterable[str]) -> list[str]:
    """Those stages, and all that rest on them."""
    found: set[str] = set()
    for stage in METHODS[method]:
        if stage.name in first or found & set(NEEDS[stage.name].split()):
            found.add(stage.name)
    return [stage.name for stage in METHODS[method] if stage.name in found]


def affected(run: Run, road: list[Stage]) -> set[str]:
    """Stages whose own basis has changed, whatever is before them."""
    marks = {stage.name: mark for stage in road if (mark := run.mark(stage.name))}
    assert len(marks) == len(road)
    recipe = settled(run)
    return {stage.name for stage in road if basis_of(stage, road, marks, recipe).key != marks[stage.name].basis.key}


def problems(run: Run, method: str, first: Iterable[str]) -> str:
    """Where what is outdated is not what should be; empty where all is well."""
    road = list(METHODS[method])
    own = affected(run, road)
    found = [name for name, state in states(run, road).items() if state.finished != "yes"]
    if own == set(first) and found == behind(method, first):
        return ""
    return f"{sorted(own)} change and {found} are outdated, but should {sorted(first)} and {behind(method, first)}"


def changed(run: Run, key: str, value: object) -> Run:
    return Run(run.folder, config.override(run.loaded, {key: value}))


def value_of(recipe: Recipe, key: str) -> Any:
    found: Any = recipe
    for name in key.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.slow
@METHOD
def test_a_finished_run_is_up_to_date(method: str, whole: Whole) -> None:
    run = whole(method)
    assert finished(run) == {stage.name: "yes" for stage in METHODS[method]}
    assert not problems(run, method, ())


@METHOD
def test_a_key_outdates_what_follows_from_it(method: str, whole: Whole) -> None:
    """Every key of the table above, one at a time."""
    run, wrong = whole(method), {}
    assert set(KEYS) <= set(config.keys())
    for key, (value, words) in KEYS.items():
        if value is ...:
            value = {"report": "questions", "questions": "report"}[value_of(run.recipe, key)]
        assert value_of(run.recipe, key) != value, key
        first = set() if words == NOTHING else meant(method, f"{words} report")
        if found := problems(changed(run, key, value), method, first):
            wrong[key] = found
    assert not wrong, "\n".join(f"{key}: {found}" for key, found in wrong.items())


@METHOD
def test_every_other_key_outdates_what_declares_it(method: str, whole: Whole) -> None:
    """The keys that do not stand in the table: by what the stages declare, and none of those of speed."""
    run, wrong, road = whole(method), {}, METHODS[method]
    recipe = settled(run)
    for key, field in fields():
        if key in KEYS or key in ELSEWHERE:
            continue
        other = changed(run, key, another(run.loaded, key))
        after = settled(other)
        first = {stage.name for stage in road if covered(key, stage.config) and not marked(field, "speed")}
        for stage in road:
            for identity in stage.identities:
                if covered(key, identity.keys) and of(identity, recipe) != of(identity, after):
                    first.add(stage.name)
        if marked(field, "speed"):
            assert not first, key
        else:
            assert "report" in first, key
        if found := problems(other, method, first):
            wrong[key] = found
    assert not wrong, "\n".join(f"{key}: {found}" for key, found in wrong.items())


def test_a_model_that_was_moved_leaves_the_state_unknown(whole: Whole) -> None:
    """`status` still says what there is; a run stops with the reason."""
    run = changed(whole("chexalign"), "model.path", "/elsewhere/model")
    found = states(run, METHODS["chexalign"], run.recipe)
    assert found["studies"].finished == "yes"
    assert found["sft"].finished == found["report"].finished == "unknown"
    assert "/elsewhere/model" in found["sft"].why[0]
    assert found["sample"].why == ("`sft` is unknown",)


ELSEWHERE = (
    "align.objective", "align.spans", "align.kl.weight", "align.kl.scope", "model.path", "model.adapter",
    "data.source", "pair.file", "align.rounds", "headroom.enabled", "evaluate.style",
    "select.interpolate",
)  # fmt: skip
"""Keys with tests of their own below: another value alone may be none that can be run."""


def of(identity: Identity, recipe: Recipe) -> str:
    return identity.of(narrowed(recipe, identity.keys))


def another(loaded: config.Loaded, key: str) -> object:
    """Another valid value of a key."""
    field = dict(fields())[key]
    old = value_of(loaded.recipe, key)
    for value in candidates(field.annotation, old):
        try:
            new = value_of(config.override(loaded, {key: value}).recipe, key)
        except config.RecipeError:
            continue
        if new != old:
            return value
    raise AssertionError(f"no other value of {key} is known; add it to KEYS")


def candidates(kind: Any, old: object) -> Iterator[object]:
    if isinstance(old, bool):
        yield not old
    elif isinstance(old, int | float):
        yield from (old + 1, old * 0.5 + 0.01, old - 1)
    if get_origin(kind) is Literal:
        yield from get_args(kind)
        return
    if get_origin(kind) is tuple:
        for one in candidates(get_args(kind)[0], None):
            yield [one]
    for inner in get_args(kind):
        yield from candidates(inner, None)
    if old is None or isinstance(old, str):
        yield from ("another", 3, 0.3, True)


@METHOD
def test_an_objective_outdates_as_far_as_it_differs(method: str, whole: Whole) -> None:
    run = whole(method)
    name, words = ("dpo", "prepare align report") if method == "firempo" else ("ipo", "align report")
    assert not problems(changed(run, "align.objective", name), method, meant(method, words))


@pytest.mark.parametrize(
    ("method", "key", "value", "words"),
    [
        ("chexalign", "align.loss", "kto", "prepare align"),  # single answers
        ("chexalign", "align.loss", "simpo", "prepare align"),  # reads no reference
        ("pairs", "align.visual.weight", 0.3, "prepare align"),  # reads the corrupted image too
        ("firempo", "align.visual.weight", 0.3, "align"),  # which it has read already
        ("firempo", "align.visual.form", "chosen", "prepare align"),
        ("firempo", "align.kl.weight", 0.3, "align"),
        ("firempo", "align.kl.scope", "completion", "prepare align"),
        ("chexalign", "align.spans", True, "prepare align"),
        ("chexalign", "judge.name", "lc-text", "judge"),
        ("chexpo", "select.by", "green", "select"),
        ("pairs", "pair.file", "another.jsonl", "pair"),
        ("pairs", "data.source", "openi", "studies"),
    ],
)
def test_what_a_key_means_depends_on_the_others(method: str, key: str, value: object, words: str, whole: Whole) -> None:
    assert not problems(changed(whole(method), key, value), method, meant(method, f"{words} report"))


def test_an_asked_judge_follows_from_how_it_is_asked() -> None:
    """Model and words of a chat judge; not where it is asked, how often, nor how fast."""
    asked = {"judge.name": "chat", "judge.server": "http://localhost:1/v1", "judge.model": "m"}
    loaded = config.override(smallest("chexalign"), asked)
    (identity,) = (one for stage in METHODS["chexalign"] if stage.name == "judge" for one in stage.identities)
    before = of(identity, loaded.recipe)
    for key, value, follows in (
        ("judge.model", "n", True),
        ("judge.server", "http://localhost:2/v1", False),
        ("judge.max_tokens", 100, True),
        ("judge.retries", 1, False),
        ("judge.concurrency", 1, False),
        ("judge.timeout", 1.0, False),
    ):
        assert (of(identity, config.override(loaded, {key: value}).recipe) != before) is follows, key


# ------------------------------------------------------------------------------------------ what else changes


@METHOD
def test_another_lexicon_outdates_what_reads_reports(
    method: str, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = whole(method)
    monkeypatch.setattr(findings, "lexicon", lambda: SimpleNamespace(digest="another"))
    assert not problems(run, method, meant(method, "studies edited mine ground evaluate report"))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("chexalign", "judge select evaluate"),
        ("firempo", "select evaluate"),
        ("chexpo", "judge select"),
        ("grpo", "grpo select evaluate"),
        ("pairs", "select evaluate"),
    ],
)
def test_a_judges_new_rules_outdate_what_it_has_judged(
    method: str, words: str, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = whole(method)
    before, name = judges.version, run.recipe.judge.name
    judging = judges.judging
    monkeypatch.setattr(judges, "version", lambda one, section: before(one, section) + ("+" if one == name else ""))
    monkeypatch.setattr(judges, "judging", lambda section: SimpleNamespace(version=f"{judging(section).version}+"))
    assert not problems(run, method, meant(method, words))


@METHOD
def test_a_changed_model_file_outdates_what_is_loaded_from_it(method: str, whole: Whole) -> None:
    run, path = whole(method), whole.model / "config.json"
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    try:
        assert not problems(run, method, meant(method, "sft predict ground"))
    finally:
        path.write_bytes(content)


@METHOD
def test_an_adapter_outdates_what_is_loaded_with_it(method: str, whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    run = changed(whole(method), "model.adapter", str(tmp_path))
    assert not problems(run, method, meant(method, "sft predict ground report"))


def test_the_same_model_elsewhere_outdates_nothing_but_the_report(whole: Whole, tmp_path: Path) -> None:
    shutil.copytree(whole.model, tmp_path / "model")
    run = changed(whole("chexalign"), "model.path", str(tmp_path / "model"))
    assert not problems(run, "chexalign", ["report"])


@METHOD
def test_another_kind_of_device_outdates_what_is_computed_on_it(
    method: str, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = whole(method)
    monkeypatch.setattr(models, "pick_device", lambda device: torch.device("cuda"))
    assert not problems(run, method, meant(method, f"{MODELS} mine"))


@METHOD
def test_a_rooms_new_code_outdates_what_it_makes(method: str, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    run, wrong = whole(method), {}
    assert set(ROOM) == set(ROOMS)
    for room, words in ROOM.items():
        with monkeypatch.context() as patched:
            patched.setitem(ROOMS, room, ROOMS[room] + 1)
            if found := problems(run, method, meant(method, words)):
                wrong[room] = found
    assert not wrong, wrong


@METHOD
def test_a_table_that_was_changed_is_seen(method: str, whole: Whole, tmp_path: Path) -> None:
    run = copy(whole(method), tmp_path / "run")
    for stage in METHODS[method]:
        mark = run.mark(stage.name)
        assert mark is not None
        for name in mark.tables:
            path = run.path(stage.name, f"{name}.jsonl")
            content = path.read_bytes()
            path.write_bytes(content + b"\n")
            assert finished(run)[stage.name] == "damaged", path
            path.write_bytes(content)
    assert set(finished(run).values()) == {"yes"}


def test_precision_that_is_settled_stays_so(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` is measured once on a kind of device; a busy machine must not outdate a run."""
    run = copy(whole("chexalign"), tmp_path / "run")
    other = changed(run, "run.precision", "auto")
    monkeypatch.setattr(models, "settle_precision", lambda device: "float32")
    recipe = settled(other)
    assert recipe.run.precision == "float32"
    assert not run.path("precision.json").exists(), "looking writes nothing"
    keep_precision(other, recipe)
    monkeypatch.setattr(models, "settle_precision", lambda device: "bfloat16")
    assert settled(other).run.precision == "float32"
    assert not problems(other, "chexalign", ())


# ------------------------------------------------------------------------------------------ what is declared


STAGES = [(method, stage) for method, road in METHODS.items() for stage in road]
EACH = pytest.mark.parametrize(("method", "stage"), STAGES, ids=lambda one: getattr(one, "name", one))


@EACH
def test_what_a_stage_declares_is_there(method: str, stage: Stage) -> None:
    known = config.keys()
    for key in stage.readable:
        assert key == "*" or any(covered(one, [key]) for one in known), f"{key} is no key of a recipe"
    assert set(stage.rooms) <= set(ROOMS)
    road = METHODS[method]
    earlier = {port.name for one in road[: road.index(stage)] for port in one.writes}
    assert {port.name for port in stage.reads} <= earlier
    assert stage in commands().values() or stage.name in commands()


def test_no_key_is_read_by_nobody() -> None:
    """Every key that may change a result is declared by a stage that is no report."""
    ours = [key for _, stage in STAGES for key in stage.readable if stage.name != "report"]
    unread = [key for key, field in fields() if not marked(field, "speed") and not covered(key, ours)]
    assert unread == [
        "method",
        "select.interpolate",
        "evaluate.style",
        "headroom.enabled",
        "headroom.n",
        "headroom.probe",
        "report.studies",
        "report.pairs",
    ]  # they decide on stages of their own


@contextmanager
def nosy(run: Run, work: Any, **declared: Any) -> Iterator[tuple[Run, list[Stage], Stage]]:
    """A run whose last stage is one of ours."""
    stage = Stage(name="nosy", help="", work=work, **declared)
    yield run, [*road_of(run.recipe), stage], stage


def do(run: Run, work: Any, **declared: Any) -> Mark:
    """Do such a stage on a run."""
    with nosy(run, work, **declared) as (_, road, stage):
        recipe = settled(run)
        check(road[-1:], recipe)
        run_stage(run, road, stage, recipe, Local())
    mark = run.mark("nosy")
    assert mark is not None
    return mark


@pytest.fixture
def own(whole: Whole, tmp_path: Path) -> Run:
    """A finished run that may be spoilt."""
    return copy(whole("chexalign"), tmp_path / "own")


def rows_work(make: Any) -> Rows[Question]:
    return Rows(
        make=make,
        item=Question,
        items=lambda context: iter(context.read(TRAIN)),
        total=lambda context: len(context.read(TRAIN)),
        into=SEEN,
        content=lambda question: question.prompt,
        batch=lambda recipe: 2,
        close=lambda context, merged: Outcome(f"{merged.rows} rows"),
    )


def beta_of(context: Any) -> Outcome:
    return Outcome(f"{context.config.align.beta}")


def noted(batch: Any, context: Any) -> list[list[Completion]]:
    return [[seen(one.id, f"{context.config.align.beta}")] for one in batch]


def seen(id: str, text: str) -> Completion:
    return Completion(id=id, question=id, index=0, text=text, tokens=0, finished=True)


SEEN = TableOf("seen", Completion)


@pytest.mark.parametrize("key", ["sft", "align.lr", "align.lora", "alig"])
def test_a_stage_that_reads_an_undeclared_key_fails(key: str, own: Run) -> None:
    """Whatever its work is, and beside the keys of the same section."""
    if key == "alig":
        with pytest.raises(UndeclaredKeyError, match="`align` of Recipe"):
            do(own, WholeWork(beta_of), config=(key,))
        return
    what = "`align` of Recipe" if key == "sft" else "`beta` of AlignSection"
    with pytest.raises(UndeclaredKeyError, match=what):
        do(own, WholeWork(beta_of), config=(key,))
    with pytest.raises(UndeclaredKeyError, match=what):
        do(own, Ranks(beta_of), config=(key,))
    with pytest.raises(UndeclaredKeyError, match=what):
        do(own, rows_work(noted), reads=(TRAIN,), writes=(SEEN,), config=(key,))
    with pytest.raises(UndeclaredKeyError, match=what):
        do(own, WholeWork(lambda context: Outcome("")), config=(key,), check=lambda recipe: print(recipe.align.beta))
    identity = Identity("beta", (key,), lambda recipe: str(recipe.align.beta))
    with pytest.raises(UndeclaredKeyError, match=what):
        do(own, WholeWork(lambda context: Outcome("")), identities=(identity,))
    assert own.mark("nosy") is None


@pytest.mark.parametrize("key", ["align", "align.beta", "*"])
def test_a_stage_reads_what_it_declares(key: str, own: Run) -> None:
    beta = own.recipe.align.beta
    do(own, WholeWork(beta_of), config=(key,))
    assert f"{beta}" in [event.get("result") for event in own.events()]
    mark = do(own, rows_work(noted), reads=(TRAIN,), writes=(SEEN,), config=(key,))
    assert list(mark.tables) == ["seen", "quarantined"]
    assert not list(own.table("nosy", QUARANTINED))
    assert {row.text for row in own.table("nosy", SEEN)} == {f"{beta}"}
    identity = Identity("beta", (key,), lambda recipe: str(recipe.align.beta))
    assert do(own, WholeWork(beta_of), identities=(identity,)).basis.identity == {"beta": str(beta)}


def test_a_stage_that_uses_an_undeclared_table_or_fact_fails(own: Run) -> None:
    row = seen("a", "b")
    weights = Weights(path="/elsewhere", fingerprint="0")
    for work, what in (
        (lambda context: Outcome(str(len(list(context.read(TRAIN))))), "uses train"),
        (lambda context: Outcome(str(context.fact(MODEL))), "uses model"),
        (lambda context: Outcome(str(context.has(PAIRS))), "uses pairs"),
        (lambda context: Outcome(str(context.counts(PAIRS))), "uses pairs"),
        (lambda context: Outcome(str(context.write(SEEN, [row]))), "uses seen"),
        (lambda context: Outcome(str(context.own(SEEN))), "uses seen"),
    ):
        with pytest.raises(UndeclaredPortError, match=what):
            do(own, WholeWork(work))
    with pytest.raises(RunError, match="declares that it writes seen, and has not"):
        do(own, WholeWork(lambda context: Outcome("")), writes=(SEEN,))
    with pytest.raises(RunError, match="declares that it writes model, and has not"):
        do(own, WholeWork(lambda context: Outcome("")), writes=(MODEL,))
    assert own.mark("nosy") is None
    mark = do(own, WholeWork(lambda context: Outcome("", {"model": weights})), writes=(MODEL,))
    assert mark.facts["model"]["fingerprint"] == "0"


def test_what_a_stage_declares_alone_makes_its_key(own: Run) -> None:
    """A result does not follow from keys that are not declared, nor from tables that are not read."""
    one = do(own, WholeWork(beta_of), config=("align.beta",)).basis
    assert one.config == {"align.beta": own.recipe.align.beta}
    assert one.inputs == {}
    two = do(own, WholeWork(beta_of), config=("align.beta",), reads=(PAIRS, MODEL), rooms=("pairs",)).basis
    assert set(two.inputs) == {"pair/pairs", "sft/model"}
    assert two.identity == {"the code of pairs": str(ROOMS["pairs"])}
    assert one.key != two.key
    assert two.changes(one) == [
        "the code of pairs has changed",
        "what pair/pairs holds has changed",
        "what sft/model holds has changed",
    ]
