"""Reading a recipe: layers of YAML and of words on the command line, merged and checked before any work.

Later layers win: the defaults of the schema, the recipe file, a preset inside it, the command line
(``--section.key value``). The layer that each value came from is kept and written beside the value in the run folder.
An unknown key or a wrong type is an error that names the nearest key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from radpref.config.schema import AlignSection, DataSection, Recipe, Section, UnreportedSection
from radpref.errors import RadprefError
from radpref.outside import is_there, parse_yaml, read_text, value_shown
from radpref.plugins import found


class RecipeError(RadprefError, ValueError):
    """A recipe that cannot be run; the message says what was given, why not, and what to do."""


Part = TypeVar("Part", bound=Section)
Layer = tuple[str, dict[str, Any]]
"""Where values come from (``chexalign.yaml``, ``preset tiny``, ``the command line``) and a nested mapping."""

SHORTHANDS = {"model": "model.path", "data": "data.source", "engine": "engine.name"}
"""``--model X`` is ``--model.path X``; ``--data X`` is ``--data.source X``; ``--engine X`` is ``--engine.name X``."""


def marked(field: FieldInfo, mark: str) -> Any:
    """What a field's mark of this name says (``schema.PATH`` and its kin); None where it has none."""
    extra = field.json_schema_extra
    return extra.get(mark) if isinstance(extra, dict) else None


class Loaded(BaseModel):
    """A recipe, and for every dotted key the layer that its value came from."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    provenance: dict[str, str]


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("radpref") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def about(name: str) -> tuple[str, dict[str, str]]:
    """What a shipped recipe is for, and each of its presets: the comments that they begin with."""
    text = (resources.files("radpref") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    head = " ".join(line.lstrip("# ") for line in text.split("#\n")[0].splitlines())
    presets = text.partition("\npresets:")[2]
    told = re.findall(r"^  ([\w-]+):[^#\n]*(?:# *(.*))?$", presets, re.MULTILINE)
    told += re.findall(r"^([\w-]+):[^#\n]*(?:# *(.*))?$", _part("sizes"), re.MULTILINE)
    return head.split(". ")[0].rstrip(".") + ".", dict(told)


def _part(name: str) -> str:
    """A file that all recipes share."""
    return (resources.files("radpref") / "recipes" / "parts" / f"{name}.yaml").read_text(encoding="utf-8")


def load(name: str, *, preset: str | None = None, overrides: Sequence[str] = ()) -> Loaded:
    """Read a recipe by shipped name or path, and put a preset and ``key=value`` overrides on top.

    Where ``overrides`` name a model of one's own for a shipped recipe and no preset is given, it gets the settings of
    ``FOR_OWN_MODEL``, below the overrides.

    Raises:
        RecipeError: an unknown recipe, preset or key (with the nearest one), or a value of the wrong type.
    """
    where, content = _read_file(name)
    presets = {**yaml.safe_load(_part("sizes")), **(content.pop("presets", None) or {})}
    layers: list[Layer] = [(where, content)]
    if preset is not None:
        if preset not in presets:
            raise RecipeError(
                f"{where} has no preset `{preset}`{nearest(preset, presets) or '.'} "
                f"It has: {', '.join(map(str, presets)) or 'none'}."
            )
        layers.append((f"preset {preset}", presets[preset] or {}))
    for preset_name, values in presets.items():  # a typo in a preset nobody asked for is still a typo
        _check_keys(values or {}, Recipe, f"preset {preset_name} of {where}")
    words = _nested(overrides)
    if preset is None and name in shipped() and _brought(words):
        layers.append((OWN_MODEL, presets[FOR_OWN_MODEL]))
    layers.append(("the command line", words))
    return resolve(layers)


FOR_OWN_MODEL = "4b-one-gpu"
OWN_MODEL = f"preset {FOR_OWN_MODEL}, for a model of your own"
"""A shipped recipe's own settings are those of the built-in model, whose rates would ruin any other."""


def _brought(words: Mapping[str, Any]) -> bool:
    """Whether a model is named that is not the built-in one."""
    section = words.get("model")
    return isinstance(section, Mapping) and section.get("path", "builtin") != "builtin"


def resolve(layers: Sequence[Layer]) -> Loaded:
    """Merge layers, later ones winning, and validate the result."""
    provenance = {key: "default" for key, _ in fields()}
    merged: dict[str, Any] = {}
    for where, values in _with_objectives(layers):
        _check_keys(values, Recipe, where)
        for key, value in flatten(values):
            if isinstance(value, bool) and not {bool, str, Any} & set(_plain_kinds(key)):
                raise RecipeError(f"`{key}` from {where} is {str(value).lower()}, which is neither number nor name.")
            provenance[_key_of(key, provenance)] = where
            _put(merged, key, value)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            source = next((provenance[k] for k in provenance if k == key or key.startswith(k + ".")), "the recipe")
            lines.append(f"`{key}` from {source} is {value_shown(problem['input'])}: {problem['msg'].lower()}")
        raise RecipeError("the recipe cannot be run:\n  " + "\n  ".join(lines)) from None
    return Loaded(recipe=recipe, provenance=provenance)


def _key_of(key: str, known: Mapping[str, object]) -> str:
    """The recipe's key that a dotted one belongs to: of ``data.options.x``, a mapping's own entry, ``data.options``."""
    while key not in known and "." in key:
        key = key.rpartition(".")[0]
    return key


OBJECTIVE_KEYS = tuple(name for name, field in AlignSection.model_fields.items() if marked(field, "objective"))
"""Keys of ``align`` that an objective consists of: naming one sets all of them, to its values or to the defaults."""


def objectives() -> dict[str, dict[str, Any]]:
    """The published objectives by name: what each sets in ``align``, the defaults of ``OBJECTIVE_KEYS`` filled in."""
    text = _part("objectives")
    default = AlignSection().model_dump(include=set(OBJECTIVE_KEYS))
    others = {name: {"loss": name} for name in found("objectives")}
    return {name: _merged(default, values or {}) for name, values in {**others, **yaml.safe_load(text)}.items()}


def _merged(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    out = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in flatten(values):
        _put(out, key, value)
    return out


def _with_objectives(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Each layer, and before one that names an objective what that objective consists of."""
    for where, values in layers:
        align = values.get("align")
        name = align.get("objective") if isinstance(align, Mapping) else None
        if name is not None:
            known = objectives()
            if name not in known:
                hint = nearest(str(name), known) or "."
                raise RecipeError(
                    f"`align.objective` from {where} is {value_shown(name)}, which is none{hint} "
                    f"There are: {', '.join(known)}."
                )
            yield f"objective {name}", {"align": known[name]}
        yield where, values


def override(loaded: Loaded, overrides: Sequence[str] | Mapping[str, Any], where: str = "the command line") -> Loaded:
    """A loaded recipe with ``key=value`` words, or dotted keys and their values, on top.

    Everything else keeps its value and provenance. Raises RecipeError.
    """
    changes = _of_keys(overrides) if isinstance(overrides, Mapping) else _nested(overrides)
    changed = resolve([("the run folder", loaded.recipe.model_dump()), (where, changes)])
    touched = {key for key, _ in flatten(changes)}
    provenance = {
        key: where if key in touched or where.startswith("objective ") else loaded.provenance.get(key, "default")
        for key, where in changed.provenance.items()
    }
    return Loaded(recipe=changed.recipe, provenance=provenance)


def anchored(loaded: Loaded) -> Loaded:
    """The recipe with the relative paths of what lies here made absolute: a run goes on from any other folder."""
    return loaded.model_copy(update={"recipe": _anchored(loaded.recipe)})


def _anchored(section: Part) -> Part:
    """The section with its paths made absolute; a table that lies in its root stays as it is."""
    changed: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        given = getattr(section, name)
        if isinstance(given, Section):
            changed[name] = _anchored(given)
        elif marked(field, "path") and given is not None and given != "builtin":
            path = Path(given).expanduser()
            sourced = isinstance(section, DataSection | UnreportedSection)
            of_root = name == "file" and sourced and getattr(section, "root", None) is not None
            if not of_root and not path.is_absolute() and is_there(path):
                changed[name] = str(path.absolute())
    return section.model_copy(update=changed)


def dump(loaded: Loaded) -> str:
    """The resolved recipe as YAML; behind every value its help and where it came from."""
    lines: list[str] = []

    def walk(section: BaseModel, prefix: str, depth: int) -> None:
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            key = f"{prefix}{name}"
            indent = "  " * depth
            if isinstance(value, Section):
                lines.append(f"{indent}{name}:")
                walk(value, f"{key}.", depth + 1)
                continue
            text = yaml.safe_dump(
                list(value) if isinstance(value, tuple) else value,
                default_flow_style=True,
                allow_unicode=True,
                width=10_000,
            )
            text = text.strip().removesuffix("...").strip()
            lines.append(f"{indent}{name}: {text}  # {field.description} [{loaded.provenance.get(key, 'default')}]")

    walk(loaded.recipe, "", 0)
    return "\n".join(lines) + "\n"


def nearest(word: str, choices: Iterator[str] | Mapping[str, Any] | Sequence[str]) -> str:
    """``; did you mean `x`?`` for the closest choice, or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else ""


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaf values of a nested mapping."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def fields(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key that a recipe may hold, with its field."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def keys() -> list[str]:
    """Every dotted key that a recipe may hold."""
    return [key for key, _ in fields()]


@cache
def defaults() -> dict[str, Any]:
    """Every dotted key with its default, tuples as lists."""
    found = {key: field.get_default(call_default_factory=True) for key, field in fields()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def helps() -> dict[str, str]:
    """Every dotted key with its line of help."""
    return {key: field.description or "" for key, field in fields()}


def _read_file(name: str) -> tuple[str, dict[str, Any]]:
    path = Path(name)
    if name in shipped():
        text, where = (
            (resources.files("radpref") / "recipes" / f"{name}.yaml").read_text("utf-8"),
            f"{name}.yaml",
        )
    elif is_there(path) and not path.is_dir():
        text, where = read_text(path, RecipeError), path.name
    else:
        raise RecipeError(
            f"there is no recipe `{name}`{nearest(name, shipped()) or '.'} "
            f"Give a shipped name ({', '.join(shipped())}) or the path of a YAML file."
        )
    content = parse_yaml(text, where, RecipeError)
    if content is None:
        return where, {}
    if not isinstance(content, dict):
        raise RecipeError(f"{where} holds a {type(content).__name__}; a recipe is a mapping of sections.")
    presets = content.get("presets") or {}
    if not (isinstance(presets, dict) and all(isinstance(name, str) for name in presets)):
        told = value_shown(presets)
        raise RecipeError(f"`presets` in {where} is {told}; it must be a mapping of names to sections.")
    return where, content


def given(words: Sequence[str]) -> dict[str, Any]:
    """``["align.beta=0.05"]`` to dotted keys and their values, read as `override` reads them. Raises RecipeError."""
    return dict(flatten(_nested(words)))


def _nested(overrides: Sequence[str]) -> dict[str, Any]:
    """``["align.beta=0.05"]`` to ``{"align": {"beta": 0.05}}``; values are read as YAML."""
    result: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"`{override}` is not an override; write --section.key value.")
        key = SHORTHANDS.get(key, key).replace("-", "_")
        _put(result, key, _value(text, _kinds(key), key))
    return result


def _of_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        _put(result, SHORTHANDS.get(key, key).replace("-", "_"), value)
    return result


def _value(text: str, kinds: Sequence[Any], key: str) -> Any:
    """What a word of the command line stands for: itself where the key holds words (a folder may be called 2024, a
    prompt may hold a colon), else what YAML reads."""
    if text in kinds:  # one of a few words, of which YAML may take some (off, no, null) for something else
        return text
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if str in kinds and not quoted:
        return None if type(None) in kinds and text in ("", "null", "~") else text
    try:
        value = parse_yaml(text, key, RecipeError)
        # YAML 1.1 reads 1e-5 as a word
        return float(value) if isinstance(value, str) and any(c.isdigit() for c in value) else value
    except ValueError:
        return text


def _plain_kinds(key: str) -> Sequence[Any]:
    """The types that a dotted key takes, unions and what is in ``Annotated`` opened; the words of a ``Literal`` too."""
    found, left = list[Any](), list(_kinds(key)) or [Any]
    while left:
        kind = left.pop()
        inner = get_args(kind)
        left += inner
        found += [] if inner else [kind] if isinstance(kind, type) or kind is Any else [type(kind)]
    return found


def _kinds(key: str) -> Sequence[Any]:
    """The types that a dotted key takes; empty where there is no such key, which is told later."""
    model: Any = Recipe
    for name in key.split("."):
        field = model.model_fields.get(name) if isinstance(model, type) and issubclass(model, Section) else None
        if field is None:
            return ()
        model = field.annotation
    return get_args(model) or (model,)


def _put(target: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"`{key}` goes below `{section}`, which has been given the value {value_shown(inner)}.")
        target = inner
    target[name] = value


def _near(name: str, prefix: str, model: type[BaseModel]) -> str:
    """The same name in another section, a like name in this one, or a like key anywhere."""
    same = [key for key in keys() if key.rpartition(".")[2] == name]
    near = [prefix + field for field in difflib.get_close_matches(name, list(model.model_fields), n=1, cutoff=0.6)]
    best = same or near or difflib.get_close_matches(prefix + name, keys(), n=1, cutoff=0.5)
    return f"; did you mean `{best[0]}`?" if best else "."


def _check_keys(values: Any, model: type[BaseModel], where: str, prefix: str = "") -> None:
    if not isinstance(values, Mapping):
        raise RecipeError(
            f"`{prefix.rstrip('.') or where}` in {where} is {value_shown(values)}; it must be a section of keys."
        )
    for name, value in values.items():
        key = f"{prefix}{name}"
        field = model.model_fields.get(str(name))
        if field is None:
            raise RecipeError(f"`{key}` in {where} is not a key of a recipe{_near(str(name), prefix, model)}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            _check_keys(value, field.annotation, where, f"{key}.")
