"""What a version promises, and what is published beside the code, is what the code says.

``RADPREF_PROMISE=1 pytest tests/test_release.py`` writes docs/promise-0.2.json anew: only where a new minor version
begins, or to add what is new.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import radpref
from radpref import config, records
from radpref.config import Recipe
from radpref.records import Record
from radpref.runs.folder import FORMAT

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
MINOR = ".".join(PROJECT["version"].split(".")[:2])
PROMISE = REPOSITORY / "docs" / f"promise-{MINOR}.json"
ROWS = ("Study", "Question", "Completion", "Judgement", "Pair", "Metric", "Quarantined")


def kinds(schema: Any) -> list[str]:
    """What values a key takes, as words: its JSON types, and the words of an enumeration."""
    if not isinstance(schema, dict):
        return []
    own = [str(schema["type"])] if "type" in schema else []
    own += [f"ref {schema['$ref'].rpartition('/')[2]}"] if "$ref" in schema else []
    own += [json.dumps(value) for value in schema.get("enum", [])]
    own += [json.dumps(schema["const"])] if "const" in schema else []
    return sorted({*own, *(kind for one in schema.get("anyOf", []) for kind in kinds(one))})


def keys() -> dict[str, list[str]]:
    """Every key of a recipe by its dotted name, with what it takes."""
    schema = Recipe.model_json_schema()
    found: dict[str, list[str]] = {}
    known = set(config.keys())

    def walk(part: dict[str, Any], prefix: str) -> None:
        for name, field in part.get("properties", {}).items():
            inner = field.get("$ref") or next((one["$ref"] for one in field.get("allOf", []) if "$ref" in one), None)
            target = schema["$defs"][inner.rpartition("/")[2]] if inner else {}
            if "properties" in target and f"{prefix}{name}" not in known:
                walk(target, f"{prefix}{name}.")
            else:
                found[f"{prefix}{name}"] = kinds(field)

    walk(schema, "")
    return found


def now() -> dict[str, Any]:
    """What the code promises as it is."""
    rows = {}
    for name in ROWS:
        row: type[Record] = getattr(records, name)
        rows[name] = {field: about.is_required() for field, about in row.model_fields.items()}
    calls = {
        name: list(inspect.signature(value).parameters) if callable(value) else []
        for name in radpref.__all__
        if not name.startswith("_") and (value := getattr(radpref, name)) is not None
    }
    return {"format of runs": FORMAT, "recipe": keys(), "rows": rows, "python": calls}


@pytest.mark.skipif(not os.environ.get("RADPREF_PROMISE"), reason="writes the promise anew")
def test_the_promise_is_written() -> None:
    PROMISE.write_text(json.dumps(now(), indent=1) + "\n", "utf-8")


def test_what_a_minor_version_promises_is_kept() -> None:
    """Keys, rows and names of the version are still there and take what they took; more may have come."""
    given, code = json.loads(PROMISE.read_text("utf-8")), now()
    assert code["format of runs"] == given["format of runs"]
    assert set(code["recipe"]) == set(config.keys())
    for key, taken in given["recipe"].items():
        assert key in code["recipe"], (
            f"the key {key} has gone: that is a new major version, or a new minor one before 1.0"
        )
        assert set(taken) <= set(code["recipe"][key]), f"the key {key} takes less than it did"
    for name, fields in given["rows"].items():
        assert fields.keys() <= code["rows"][name].keys(), f"rows of {name} have lost fields"
        new = {field for field, required in code["rows"][name].items() if required and not fields.get(field, False)}
        assert not new, f"rows of {name} now need {new}, which files of {MINOR} do not have"
    for name, arguments in given["python"].items():
        assert arguments == [one for one in code["python"][name] if one in arguments], f"radpref.{name} takes less"


def test_the_version_stands_the_same_everywhere() -> None:
    version = PROJECT["version"]
    assert radpref.__version__ == version
    log = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## {re.escape(version)} \(20\d\d-\d\d-\d\d\)$", log, re.MULTILINE), "a dated entry"
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert cited["version"] == version
    assert str(cited["date-released"]) in log


def test_the_workflow_and_the_container_give_the_readmes_commands() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    steps = [step.get("run", "") for step in workflow["jobs"]["check"]["steps"]]
    assert ".ci/run" in steps
    pythons = workflow["jobs"]["check"]["strategy"]["matrix"]["python"]
    said = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert set(pythons) == said
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    container = (REPOSITORY / "Containerfile").read_text("utf-8")
    assert "make demo" in readme
    assert 'CMD ["make", "demo"]' in container
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    for target in re.findall(r"^RUN make ([\w./-]+)", container, re.MULTILINE):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_every_dependency_has_a_least_version_and_a_licence() -> None:
    listed = (REPOSITORY / "docs" / "licences.md").read_text("utf-8").lower().replace("_", "-")
    for need in PROJECT["dependencies"]:
        name = re.split(r"[<>=\[ ]", need)[0].lower().replace("_", "-")
        assert ">=" in need, f"{need} has no least version"
        assert f"| {name} |" in listed, f"docs/licences.md lacks {name}; `make sbom` makes it anew"


def test_all_data_of_the_package_are_packed() -> None:
    """Every file of the package that is no code is named by package-data: a wheel holds no other."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["radpref"]
    package = REPOSITORY / "radpref"
    packed = {path for pattern in patterns for path in package.glob(pattern.removesuffix("/*") + "/*"
              if pattern.endswith("**/*") else pattern)}  # fmt: skip
    others = [path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    left = [str(path.relative_to(package)) for path in others if path not in packed]
    assert not left, f"no wheel would hold {left}"
