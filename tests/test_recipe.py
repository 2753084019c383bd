"""Recipes: layers and where values come from, and errors before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import radpref
from radpref import config
from radpref.config import RecipeError


def presets() -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for name in config.shipped():
        content = yaml.safe_load((Path(radpref.__file__).parent / "recipes" / f"{name}.yaml").read_text("utf-8"))
        found += [(name, None), *((name, preset) for preset in (*content.get("presets", {}), *SIZED))]
    return found


SIZED = ("4b-one-gpu", "8b-4gpu")
"""Presets by the size of the model, which every recipe has."""


@pytest.mark.parametrize("name", config.shipped())
def test_presets_by_size_leave_nothing_of_the_demo_to_a_real_model(name: str) -> None:
    _, told = config.about(name)
    for preset in SIZED:
        assert told[preset]
        recipe = config.load(name, preset=preset).recipe
        for section in (recipe.sft, recipe.align):
            assert section.lora.rank == 64
            assert section.lr <= 1e-4
            assert section.gradient_checkpointing
        assert recipe.grpo.lora.rank == 64
        assert (recipe.align.beta, recipe.align.nll, recipe.align.epochs) == (0.1, 0.0, 1)


@pytest.mark.parametrize(("name", "preset"), presets())
def test_every_shipped_recipe_and_preset_loads_and_round_trips(name: str, preset: str | None, tmp_path: Path) -> None:
    loaded = config.load(name, preset=preset)
    path = tmp_path / "recipe.yaml"
    path.write_text(config.dump(loaded), encoding="utf-8")
    again = config.load(str(path)).recipe
    assert again == loaded.recipe
    assert again.model_dump_json() == loaded.recipe.model_dump_json()  # stages are keyed by what they were given
    assert config.override(loaded, []).recipe.model_dump_json() == loaded.recipe.model_dump_json()


def test_later_layers_win_and_say_where_they_came_from() -> None:
    loaded = config.load("chexalign", preset="tiny", overrides=["align.beta=0.05", "model=some/folder"])
    assert (loaded.recipe.align.beta, loaded.provenance["align.beta"]) == (0.05, "the command line")
    assert (loaded.recipe.model.path, loaded.provenance["model.path"]) == ("some/folder", "the command line")
    assert (loaded.recipe.data.train, loaded.provenance["data.train"]) == (32, "preset tiny")
    assert loaded.provenance["sample.temperature"] == "chexalign.yaml"
    assert loaded.provenance["run.seed"] == "default"
    assert set(loaded.provenance) == set(config.keys())


def test_overrides_on_a_loaded_recipe_keep_the_other_provenance() -> None:
    loaded = config.override(config.load("chexalign", preset="tiny"), ["pair.margin=0.1"])
    assert loaded.recipe.pair.margin == 0.1
    assert loaded.provenance["pair.margin"] == "the command line"
    assert loaded.provenance["data.train"] == "preset tiny"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["align.betta=1"], "`align.beta`"),
        (["algin.beta=1"], "`align`"),
        (["sample.temprature=1"], "`sample.temperature`"),
        (["align.lora.rnk=4"], "`align.lora.rank`"),
        (["temperature=1"], "`sample.temperature`"),
    ],
)
def test_a_typo_names_the_nearest_key(words: list[str], hint: str) -> None:
    with pytest.raises(RecipeError, match=f"did you mean {hint}"):
        config.load("chexalign", overrides=words)


@pytest.mark.parametrize(
    "word",
    [
        *("align.beta=strong", "sample.n=0", "sample.n=2.5", "data.train=-1", "sft.enabled=7", "run=3"),
        *("run.seed=-1", "align.beta=.inf", "align.lr=.nan", "select.betas=[0.1, -1]", "evaluate.control_lrs=[0]"),
    ],
)
def test_a_wrong_type_or_range_is_an_error_that_names_key_and_source(word: str) -> None:
    with pytest.raises(RecipeError) as caught:
        config.load("chexalign", overrides=[word])
    assert word.split("=")[0] in str(caught.value)


def test_scientific_notation_is_a_number() -> None:
    assert config.load("chexalign", overrides=["align.lr=1e-6"]).recipe.align.lr == 1e-6


def test_an_unknown_recipe_or_preset_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean `chexalign`"):
        config.load("chexaling")
    with pytest.raises(RecipeError, match="did you mean `tiny`"):
        config.load("chexalign", preset="tinny")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.root=2024-01-01", "2024-01-01"),
        ("data.root=1e5", "1e5"),
        ("data.root=null", None),
        ("data.table.split=", ""),
        ("data.table.split=''", ""),
        ("task.prompt=Findings: what you see # and no more", "Findings: what you see # and no more"),
        ("align.nll=1e-3", 1e-3),
        ("select.betas=[1e-2, 0.1]", (0.01, 0.1)),
    ],
)
def test_words_are_taken_as_they_are_and_numbers_are_read(word: str, value: object) -> None:
    loaded = config.load("chexalign", overrides=[word])
    assert dict(config.flatten(loaded.recipe.model_dump()))[word.partition("=")[0]] == value


def test_paths_that_lie_here_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    loaded = config.load("chexalign", overrides=["data.root=images", "model.path=owner/name"])
    recipe = config.anchored(loaded).recipe
    assert recipe.data.root == str(tmp_path / "images")
    assert recipe.model.path == "owner/name"
    assert config.anchored(config.load("chexalign")).recipe.model.path == "builtin"


@pytest.mark.parametrize(
    "content",
    [
        *("align: [1, 2", "- a\n- b", "align: 3", "presets: {x: {aling: {}}}", "presets: 3"),
        "align: {beta: 1}\nsft: {}\nalign: {lr: 1}",
    ],
)
def test_a_broken_file_is_an_error_that_names_it(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        config.load(str(path))


def test_every_knob_has_a_line_of_help() -> None:
    assert [key for key, text in config.helps().items() if not text] == []


@pytest.mark.parametrize("recipe", config.shipped())
def test_sizes_of_the_demo_are_no_caps_of_other_data(recipe: str) -> None:
    presets = [None, *config.about(recipe)[1]]
    caps = {
        preset: [getattr(loaded.recipe.data, split) for split in ("train", "validation", "test")]
        for preset in presets
        for loaded in [config.load(recipe, preset=preset, overrides=["data.source=table", "data.root=/data"])]
    }
    assert {preset for preset, of in caps.items() if of != [None] * 3} <= {"tiny"}


def test_a_model_of_ones_own_gets_no_settings_of_the_demo() -> None:
    own = config.load("chexalign", overrides=["model=some/model", "align.lr=1e-7"])
    assert own.recipe.sft.lora.rank == 64
    assert own.provenance["sft.lr"] == config.OWN_MODEL
    assert (own.recipe.align.lr, own.provenance["align.lr"]) == (1e-7, "the command line")
    for other in (
        config.load("chexalign", overrides=["model=builtin"]),
        config.load("chexalign", preset="tiny", overrides=["model=some/model"]),
        config.load("chexalign"),
    ):
        assert config.OWN_MODEL not in other.provenance.values()


def test_a_name_that_no_file_can_have_is_no_recipe() -> None:
    for name in ("c" + "[" * 400, "a\0b"):
        with pytest.raises(RecipeError, match="there is no recipe"):
            config.load(name)
