"""Sentences of our own by kind, and the cases of ../shared where they are: the share that is read right.

``tests/cases`` was written before the reader was seen on it; other sentences of these kinds must be read too, so the
floor is a share and no sentence is named in the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from radpref.findings import CLASSES_14, labels, read

CASES = Path(__file__).parent / "cases"
FLOOR = 0.95
SHORT = dict(
    zip(("NF", "EC", "CM", "LL", "LO", "ED", "CO", "PN", "AT", "PX", "PE", "PO", "FX", "SD"), CLASSES_14, strict=True)
)


def labelled(text: str, told: str) -> dict[str, tuple[int | None, ...]]:
    """``PE=0|n CM=1`` as classes with the labels that are right."""
    parts = (part.split("=") for part in told.split())
    return {SHORT[name]: tuple(None if v == "n" else int(v) for v in values.split("|")) for name, values in parts}


def own_sentences() -> Iterator[tuple[str, str, dict[str, tuple[int | None, ...]]]]:
    for name in ("reading.yaml", "reading_more.yaml", "reading_hard.yaml", "reading_pressed.yaml"):
        for kind, rows in yaml.safe_load((CASES / name).read_text("utf-8")).items():
            for text, told in rows:
                yield kind, text, labelled(text, told)


def wrong_labels(text: str, right: Mapping[str, Sequence[int | None]]) -> list[str]:
    got = labels(text)
    return [f"{name} is {got[name]}, not {values}" for name, values in right.items() if got[name] not in values]


def lacking(text: str, findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which findings are not among those read, each with its attributes (a list: any of these)."""
    told = read(text)
    return [
        str(dict(wanted))
        for wanted in findings
        if not any(
            all(getattr(one, key) in (value if isinstance(value, list) else [value]) for key, value in wanted.items())
            for one in told
        )
    ]


def share_right(wrong: Sequence[object], total: int) -> None:
    assert 1 - len(wrong) / total >= FLOOR, "\n".join(map(str, wrong))


def test_our_own_sentences_are_read_right() -> None:
    rows = list(own_sentences())
    share_right([(kind, text, bad) for kind, text, told in rows if (bad := wrong_labels(text, told))], len(rows))


def test_our_own_attributes_are_read_right() -> None:
    rows = [
        (kind, text, findings)
        for name in ("attributes.yaml", "attributes_more.yaml", "attributes_pressed.yaml")
        for kind, of_kind in yaml.safe_load((CASES / name).read_text("utf-8")).items()
        for text, *findings in of_kind
    ]
    share_right([(kind, text, bad) for kind, text, told in rows if (bad := lacking(text, told))], len(rows))


@pytest.fixture
def shared_cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip("no shared cases")
    return folder


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_handed_sentences_are_read_right(shared_cases: Path) -> None:
    rows = jsonl(shared_cases / "reading.jsonl")
    told = [{k: v if isinstance(v, list) else [v] for k, v in row["labels"].items()} for row in rows]
    wrong = [
        (row["kind"], row["text"], b) for row, r in zip(rows, told, strict=True) if (b := wrong_labels(row["text"], r))
    ]
    share_right(wrong, len(rows))


def test_handed_attributes_are_read_right(shared_cases: Path) -> None:
    rows = jsonl(shared_cases / "attributes.jsonl")
    wrong = [(row["kind"], row["text"], bad) for row in rows if (bad := lacking(row["text"], row["findings"]))]
    share_right(wrong, len(rows))
