"""The plot of headroom against gain, from a sweep's numbers and headrooms that stand there already."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "headroom_gain.py"


def test_a_point_a_world_and_method(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    gains = {"dpo": 0.5, "radpref": 1.0, "more sft": 0.1}
    green = {row: {"green_mean": {}} for row in ("sft", "dpo", "dpo, drawn", "radpref", "more sft")}
    for seed, consensus in enumerate((0.1, 0.2, 0.4)):
        place = sweep / "headroom" / f"seed-{seed}"
        place.mkdir(parents=True)
        ways = {"greedy": None, "best of 8": 2 * consensus, "consensus of 16": consensus}
        choices = [
            {"name": name, "gains": {} if by is None else {"green_mean": {"difference": by}}}
            for name, by in ways.items()
        ]
        (place / "headroom.json").write_text(json.dumps({"choices": choices}))
        for row, metrics in green.items():
            metrics["green_mean"][str(seed)] = 0.5 + gains.get(row, 0.0) * consensus
    (sweep / "results.json").write_text(json.dumps({"values": green}))
    out = tmp_path / "headroom"
    subprocess.run([sys.executable, str(SCRIPT), f"clinical={sweep}", "--out", str(out)], check=True, timeout=120)
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, str(seed)) for seed in range(3) for method in ("dpo", "radpref", "more sft")
    ]
    assert float(rows[-2]["gain"]) == 0.4
    assert float(rows[-1]["best_of_8"]) == 0.8
    assert "| dpo | 3 | +0.117 | +1.00 |" in out.with_suffix(".md").read_text()
    drawn = out.with_suffix(".svg").read_text()
    assert drawn.count('class="cloud two"') == 3 + 1, "and one in the legend"
    assert drawn.count('class="cloud four"') == 3 + 1
    assert drawn.count('class="cloud one"') == 3 + 1
