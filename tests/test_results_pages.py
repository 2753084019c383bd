"""Pages of results whose tables stand in a file beside them: every table is what the sweep makes of the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from radpref.files import read_json
from radpref.sweep import Estimate, Grid, markdown

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def estimates(table: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, Estimate]]:
    """Estimates as JSON keeps them."""
    return {row: {metric: Estimate(*one) for metric, one in metrics.items()} for row, metrics in table.items()}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_table_of_a_page_is_what_its_numbers_give(path: Path) -> None:
    found = read_json(path)
    results: dict[str, Any] = {name: estimates(found[name]) for name in ("means", "trivial", "differences", "effects")}
    results["claims"] = {name: one and Estimate(*one) for name, one in found.get("claims", {}).items()}
    results |= {name: found[name] for name in ("tuned", "failed") if name in found}
    tables = markdown(Grid.model_validate(found["grid"]), results).split("\n\n")
    page = path.with_suffix(".md").read_text("utf-8")
    assert len(tables) > 2
    for table in tables:
        assert table.strip() in page, f"{path.name}: this table is not in the page as it is\n{table[:300]}"
    for row, metrics in found["values"].items():
        for metric, by_seed in metrics.items():
            if by_seed:
                assert results["means"][row][metric].n == len(by_seed)


def verdicts(name: str) -> dict[str, bool]:
    """Whether each claim of a comparison that was measured holds."""
    found = read_json(RESULTS / f"{name}.json")
    grid = Grid.model_validate(found["grid"])
    measured = {claim: Estimate(*one) for claim, one in found["claims"].items() if one is not None}
    return {claim: grid.claims[claim].holds(one.low, one.high) for claim, one in measured.items()}


def test_every_claim_is_answered_alike_by_other_seeds_or_said_not_to_be() -> None:
    first, again = verdicts("evidence"), verdicts("evidence-again")
    seeds = [
        {*read_json(RESULTS / f"{name}.json")["values"]["sft"]["green_mean"]} for name in ("evidence", "evidence-again")
    ]
    assert not seeds[0] & seeds[1]
    assert len(seeds[0]) == len(seeds[1]) == 5
    _, _, told = (RESULTS / "evidence.md").read_text("utf-8").partition("Answered otherwise by the other five")
    told = told.partition("\n\n")[0]
    assert len(again) > 20
    for claim, holds in again.items():
        assert (first[claim] == holds) == (f"*{claim}*" not in told), claim
