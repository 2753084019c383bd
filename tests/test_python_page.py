"""Every example of docs/python.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import radpref

PAGE = Path(__file__).resolve().parent.parent / "docs" / "python.md"


@pytest.mark.slow
def test_every_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 9
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "run" / "report.html").is_file()
    assert "pleural effusion present left effusion" in capsys.readouterr().out.replace(
        "pleural effusion\n", "effusion\n"
    )


def test_the_front_door_is_listed_lazy_and_named_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    for name in dir(radpref):
        assert getattr(radpref, name) is not None
        if name not in ("Aligned", "Result", "__version__"):
            assert f"radpref.{name}" in text, name
