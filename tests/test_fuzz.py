"""Whatever bytes a reader is given, it gives something or explains why not. The long run: ``make fuzz``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzed import READERS, crashes, survives

pytestmark = pytest.mark.heavy

EXAMPLES = int(os.environ.get("RADPREF_FUZZ", "150"))
"""Inputs a reader."""
_SPLICES = (
    b"", b"\0", b"\xff\xfe", b"[" * 2000, b"{" * 2000, b"9" * 5000, b"nan", b"1e999", b"&a [*a]", b"<<: *a", b"\r",
    b"\n", b"'", b'"', b"!!int x", b"2024-99-99", b"null", b"true", b"-1", b"\xed\xa0\x80", b"x" * 5000,
    b"../../etc/passwd",
    b"\x1b[2J", b"{{ 1 / 0 }}", b"{% for a in range(9**9) %}", b"<!ENTITY a 'b'>", b"\x80" * 8, b"\x7f\xff\xff\xff",
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A good input in which some pieces are cut out, doubled, or replaced by what readers stumble over."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((0, 0, 1, 2, 8, 64, 10_000))))
        piece = draw(st.one_of(st.sampled_from(_SPLICES), st.binary(max_size=8), st.just(content[start:end] * 2)))
        content = content[:start] + piece + content[end:]
    return content


@pytest.mark.parametrize("name", READERS)
def test_a_reader_explains_what_is_wrong(name: str) -> None:
    # the same inputs everywhere: what draws anew is `make fuzz`, and what that finds is kept as a case
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(st.one_of(spoilt(READERS[name].seeds), spoilt(READERS[name].seeds), st.binary(max_size=300)))
    def run(content: bytes) -> None:
        survives(name, content)

    run()


@pytest.mark.parametrize("name", READERS)
def test_a_good_input_is_read(name: str) -> None:
    for seed in READERS[name].seeds:
        if name not in ("pairs", "words"):  # whose images, and keys of other packages, are not there
            READERS[name].read(seed)


@pytest.mark.parametrize(("name", "path"), crashes(), ids=lambda given: Path(str(given)).name)
def test_what_crashed_once_is_explained(name: str, path: Path) -> None:
    survives(name, path.read_bytes())
