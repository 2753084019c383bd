"""A recipe cut down to the keys that somebody declares: reading any other is an error, not a silent dependence."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from radpref.config.load import fields, marked
from radpref.config.schema import Recipe, Section

Part = TypeVar("Part", bound=Section)


def covered(key: str, declared: Collection[str]) -> bool:
    """Whether a dotted key is one of ``declared``, or lies in a section that is; ``*`` covers all."""
    return any(name in ("*", key) or key.startswith(f"{name}.") for name in declared)


def declared_values(recipe: Recipe, declared: Collection[str]) -> dict[str, Any]:
    """The keys that ``declared`` covers and a result may depend on, with their values: those of speed are left out."""
    found: dict[str, Any] = {}
    for key, field in fields():
        if covered(key, declared) and not marked(field, "speed"):
            value: Any = recipe
            for name in key.split("."):
                value = getattr(value, name)
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


def narrowed(section: Part, declared: Collection[str], prefix: str = "") -> Part:
    """The section with the declared keys alone; it is of the same type, and any other key raises UndeclaredKeyError."""
    values: dict[str, Any] = {}
    for name in type(section).model_fields:
        key = f"{prefix}{name}"
        value = getattr(section, name)
        if covered(key, declared):
            values[name] = value
        elif isinstance(value, Section) and any(other.startswith(f"{key}.") for other in declared):
            values[name] = narrowed(value, declared, f"{key}.")
    part = type(section).__new__(type(section))
    for slot, content in (
        ("__dict__", values),
        ("__pydantic_fields_set__", set(values)),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(part, slot, content)
    return part
