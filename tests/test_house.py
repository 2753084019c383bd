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
TESTS = REPOSITORY / "tests"
FLOORS: list[set[str]] = [
    {"errors"},
    {"plugins", "outside", "collector"},
    {"records", "versions"},
    {"files", "config"},
    {"images", "findings", "losses", "chat_client"},
    {"tasks"},
    {"judges"},
    {"data"},
    {"models", "pairs"},
    {"evaluation", "training", "formats"},
    {"mining", "grounding"},
    {"report"},
    {"rooms"},
    {"runs", "names"},
    {"stages", "bulk", "doctor"},
    {"bench", "exports"},
    {"pipeline"},
    {"comparing"},
    {"sweep", "api", "headroom"},
    {"cli"},
    {"__main__"},
]
"""Rooms from the ground up; a room may import from its own floor's rooms only itself, and from those below."""
LAZY = PACKAGE / "rooms.py"
"""The one seam that puts imports off: what it names under TYPE_CHECKING is imported when it is first used."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    floor = next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)
    assert floor is not None, f"{room} has no floor; add it to FLOORS and to docs/architecture.md"
    return floor


def imports_of(tree: ast.AST) -> set[str]:
    """The rooms that are imported anywhere in a module, or in a part of one."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "radpref":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("radpref.")}
    return found - {"__version__"}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    room, tree = room_of(path), ast.parse(path.read_text("utf-8"))
    if room == "__init__":
        return
    if path == LAZY:
        tree.body = [node for node in tree.body if not is_for_types(node)]
    below = set().union(*FLOORS[: floor_of(room)])
    assert imports_of(tree) <= below | {room}, f"{path} imports upwards or sideways"


def test_the_lazy_seam_leads_downwards() -> None:
    """What ``rooms`` puts off lies below it, but for what the front door and the choice of an engine need."""
    (for_types,) = [node for node in ast.parse(LAZY.read_text("utf-8")).body if is_for_types(node)]
    named = imports_of(for_types)
    assert len(named) > 10
    assert {room for room in named if floor_of(room) >= floor_of("rooms")} == {"runs", "pipeline"}
    taken: dict[str, set[str]] = {"pipeline": set(), "ray_engine": set()}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "radpref.rooms":
                for name in {alias.name for alias in node.names} & taken.keys():
                    taken[name].add(str(path.relative_to(PACKAGE)))
    assert taken == {"pipeline": {"api.py"}, "ray_engine": {"runs/engine/__init__.py"}}


STAGES = [*sorted((PACKAGE / "stages").glob("*.py")), PACKAGE / "pipeline.py"]


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", STAGES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_stages_import_nothing_within_functions(path: Path) -> None:
    """What a stage works with stands at the top of its module; ``rooms`` sees to it that nothing heavy is loaded."""
    for function in functions_of(path):
        late = [ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not late, f"{function.name} of {path.name}: {late}"


@pytest.mark.parametrize("path", STAGES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_signatures_of_stages_say_what_they_take_and_give(path: Path) -> None:
    for function in functions_of(path):
        own = function.args
        given = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
        types = [argument.annotation for argument in given if argument.arg not in ("self", "cls")]
        assert all(types), f"{function.name} of {path.name} has an argument without a type"
        assert function.returns is not None, f"{function.name} of {path.name} does not say what it gives"
        words = {node.id for one in (*types, function.returns) if one for node in ast.walk(one)
                 if isinstance(node, ast.Name)}  # fmt: skip
        assert "Any" not in words, f"{function.name} of {path.name}"


def test_every_place_that_contributing_names_is_there() -> None:
    """The table of where a new thing goes: every path in it exists, every name that it tells to add to as well."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(table) > 10
    code = "\n".join(path.read_text("utf-8") for folder in (PACKAGE, TESTS) for path in folder.rglob("*.py"))
    folder = PACKAGE
    for line in table:
        for word in re.findall(r"`([^`]+)`", line):
            place = word.split("::")[0]
            if re.fullmatch(r"[\w./*-]+(/|\.(py|yaml|md|toml))", place) is None:
                continue
            there = [root for root in (REPOSITORY, PACKAGE, folder) if any(root.glob(place.rstrip("/")))]
            assert there, f"CONTRIBUTING.md names {word}, which is not there: {line}"
            found = next(iter(there[0].glob(place.rstrip("/"))))
            folder = found if found.is_dir() else found.parent
        for name in re.findall(r"`([A-Z_]{4,})`", line):
            assert re.search(rf"^_?{name}\b", code, re.MULTILINE), f"CONTRIBUTING.md names {name}, which is nowhere"
        for document in re.findall(r"docs/[\w./-]+", line):
            assert (REPOSITORY / document).exists(), f"CONTRIBUTING.md names {document}, which is not there"


def test_errors_that_reach_a_user_are_explained_without_a_traceback() -> None:
    """What a room raises as ``SomethingError`` has an explanation, and so the base that the command line prints."""
    bases: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Error") for base in node.bases):
                bases[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    assert len(bases) > 10

    def explained(name: str) -> bool:
        return name == "RadprefError" or any(explained(base) for base in bases.get(name, ()))

    assert [name for name in bases if not explained(name)] == ["Unreadable"], "a model that is asked again, not a user"


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
        [sys.executable, "-m", "radpref", "--help"], capture_output=True, text=True, check=True
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
