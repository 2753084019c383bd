"""What radpref depends on, all the way down, with licences: ``python benchmarks/licences.py LICENCES.md OUT.md``.

Out of the table that pip-licenses writes of an environment: only what a plain ``pip install radpref`` brings.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HEAD = """# Licences of what radpref depends on

`pip install radpref` brings these, in these versions where this list was made (`make sbom` makes it anew, and beside it
`dist/radpref.cdx.json`, a CycloneDX list of all that is installed). radpref itself is Apache-2.0.

| package | version | licence |
|---|---|---|
"""


def name_of(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(root: str) -> set[str]:
    """What a distribution requires without extras, all the way down, as far as it is installed."""
    found, left = set[str](), [root]
    while left:
        name = name_of(left.pop())
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                left.append(need.name)
    return found - {root}


def main(table: Path, out: Path) -> None:
    wanted, rows = closure("radpref"), []
    for line in table.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and name_of(cells[0]) in wanted:
            rows.append(f"| {cells[0]} | {cells[1]} | {' '.join(cells[2].split())[:120]} |")
    out.write_text(HEAD + "\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
