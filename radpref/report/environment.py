"""The environment that pages are made in: templates, escaping, the style, and a policy that lets nothing be loaded."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from radpref.evaluation.tables import format_p
from radpref.outside import shown


def page(template: str, **values: Any) -> str:
    """A page without a script, from a template of this room; all text is escaped, and nothing can be loaded."""
    style = asset("style.css")
    policy = f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'"
    return shown(environment().get_template(template).render(style=Markup(style), policy=policy, **values))


@cache
def environment() -> Environment:
    """The templates of this room: all text is escaped, and a name that is not given is an error."""
    made = Environment(
        loader=PackageLoader("radpref.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": _number, "signed": _signed, "p": format_p, "score": _score}
    return made


def asset(name: str) -> str:
    """A file of this room."""
    return resources.files("radpref.report").joinpath(name).read_text("utf-8")


def digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}".replace("-", "−")


def _signed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:+,.{digits}f}".replace("-", "−")


def _score(value: float | None) -> str:
    """A number of any size, with about three figures."""
    return _number(value, 1 if value is not None and abs(value) >= 10 else 3)
