"""The house is legible: imports run downwards, light commands stay light, and the docs name what is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "radpref"
FLOORS: list[set[str]] = [
    {"errors"},
    {"records"},
    {"files", "config"},
    {"images", "findings", "losses"},
    {"tasks"},
    {"judges"},
    {"data"},
    {"models", "pairs"},
    {"evaluation", "training", "formats"},
    {"mining", "grounding"},
    {"report"},
    {"run", "terminal"},
    {"doctor", "stages", "bulk"},
    {"bench"},
    {"pipeline", "commands"},
    {"sweep"},
    {"cli"},
]
"""Rooms from the ground up; a room may import from its own floor's rooms only itself, and from those below."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "radpref":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("radpref.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    floor = next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)
    assert floor is not None, f"{room} has no floor; add it to FLOORS and to docs/architecture.md"
    below = set().union(*FLOORS[:floor])
    assert imports_of(path) <= below | {room}, f"{path} imports upwards or sideways"


def test_errors_that_reach_a_user_are_explained_without_a_traceback() -> None:
    """What a room raises as ``SomethingError`` has an explanation, and so the base that the command line prints."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Error") for base in node.bases):
                bases = {ast.unparse(base) for base in node.bases}
                own = {"RadprefError", "RecipeError"}
                assert bases & own or node.name == "Unreadable", f"{node.name} of {path} derives from {bases}"


def test_the_command_line_starts_light() -> None:
    heavy = {"torch", "transformers", "trl", "datasets", "spacy", "peft"}
    code = f"import sys, radpref.cli; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def documents() -> list[Path]:
    return sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_in_the_docs_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_commands_in_the_readme_exist() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8") + (REPOSITORY / "docs" / "chexalign.md").read_text("utf-8")
    listing = subprocess.run(
        [sys.executable, "-m", "radpref.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    named = set(re.findall(r"^radpref ([a-z]+)|`radpref ([a-z]+)", text, re.MULTILINE))
    for command in {a or b for a, b in named}:
        assert re.search(rf"\b{command}\b", listing), f"the README names `radpref {command}`, which does not exist"


def test_nothing_of_the_real_data_is_in_the_project() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        assert not name.lower().endswith((".dcm", ".dcm.jpg", ".nii", ".gz", ".tgz", ".parquet")), name
