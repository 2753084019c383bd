"""Does the layout of a report change what is read in it?

    python benchmarks/reading_invariance.py [--data FOLDER] [--reports 2000] [--show]

Sets the real reports of FOLDER (default: $RADPREF_SHARED_DATA, else ../shared/data beside the checkout) in other
layouts, as people and models write them, and prints in how many a CheXpert label changes, and GREEN stays. Counts
only; ``--show`` prints texts of the changed ones on the terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from html import escape
from itertools import islice
from pathlib import Path

from radpref.findings import labels
from radpref.judges import JUDGES, Case

_SENTENCE = re.compile(r"(?<=[a-z\d)\]XY])\.\s+(?=[A-Z\d])")


def parts(text: str) -> list[str]:
    """The sentences of a report without their full stops."""
    return [part for part in (part.strip().rstrip(".").strip() for part in _SENTENCE.split(text)) if part]


def _json(sentences: Sequence[str]) -> str:
    half = (len(sentences) + 1) // 2
    joined = {"findings": ". ".join(sentences[:half]), "impression": ". ".join(sentences[half:])}
    return json.dumps({key: f"{text}." for key, text in joined.items() if text})


def _wrapped(sentences: Sequence[str]) -> str:
    return textwrap.fill(". ".join(sentences) + ".", 60)


def _rows(sentences: Sequence[str]) -> str:
    return "\n".join(["| No. | Statement |", "|---|---|", *(f"| {n} | {s} |" for n, s in enumerate(sentences, 1))])


_ORGANS = (
    ("Heart", re.compile("heart|cardiac|cardiom", re.IGNORECASE)),
    ("Pleura", re.compile("effusion|pneumothora|pleura", re.IGNORECASE)),
    ("Bones", re.compile(r"\bbon|osseous|\brib|spine|fracture", re.IGNORECASE)),
    ("Lungs", re.compile("lung|opaci|consolid|pulmon", re.IGNORECASE)),
)


def _organ(sentence: str) -> str:
    return next((name for name, words in _ORGANS if words.search(sentence)), "Other")


LAYOUTS: dict[str, Callable[[Sequence[str]], str]] = {
    "a sentence a line": "\n".join,
    "a sentence a line, with stops": lambda told: "\n".join(f"{s}." for s in told),
    "bullets": lambda told: "\n".join(f"- {s}" for s in told),
    "bullets of Markdown, with stops": lambda told: "**Findings:**\n\n" + "\n".join(f"* {s}." for s in told),
    "bullets in a line": lambda told: " - " + " - ".join(told),
    "typographic bullets": lambda told: "\n".join(f"\u2022 {s}" for s in told),
    "table rows": _rows,
    "table rows of one cell": lambda told: "\n".join(f"| {s} |" for s in told),
    "bars in a line": " | ".join,
    "HTML lines": "<br>".join,
    "HTML paragraphs": lambda told: "".join(f"<p>{escape(s)}.</p>" for s in told),
    "HTML list": lambda told: "<ul>" + "".join(f"<li>{escape(s)}</li>" for s in told) + "</ul>",
    "HTML spaces": lambda told: "&nbsp;".join(f"{s}." for s in told).replace(" ", "&nbsp;"),
    "JSON fields": _json,
    "JSON list": lambda told: json.dumps({"findings": list(told)}),
    "JSON list, indented": lambda told: "```json\n" + json.dumps({"findings": list(told)}, indent=2) + "\n```",
    "upper case": lambda told: ". ".join(told).upper() + ".",
    "upper case, a sentence a line": lambda told: "\n".join(told).upper(),
    "lower case": lambda told: ". ".join(told).lower() + ".",
    "wrapped lines": _wrapped,
    "wrapped lines, upper case": lambda told: _wrapped(told).upper(),
    "numbered list": lambda told: "\n".join(f"{n}. {s}" for n, s in enumerate(told, 1)),
    "numbered in a line": lambda told: " ".join(f"{n}) {s}" for n, s in enumerate(told, 1)),
    "key: value": lambda told: "\n".join(f"Finding {chr(64 + n % 26)}: {s}" for n, s in enumerate(told, 1)),
    "key: value, bold": lambda told: "\n".join(f"- **Statement:** {s}." for s in told),
    "organ: statement": lambda told: "\n".join(f"{_organ(s)}: {s}." for s in told),
    "ORGAN: statement, in a line": lambda told: " ".join(f"{_organ(s).upper()}: {s}." for s in told),
    "table of organs": lambda told: "\n".join(f"| {_organ(s)} | {s} |" for s in told),
    "JSON of organs": lambda told: json.dumps({f"{_organ(s).lower()}_{n}": s for n, s in enumerate(told)}),
    "Markdown section": lambda told: "## Findings\n\n" + "\n\n".join(told),
    "tagged": lambda told: f"<findings>{'. '.join(told)}.</findings>",
}
"""Ways to set the same sentences."""


def report_of(row: dict[str, str]) -> str:
    return " ".join(text.strip() for text in (row["findings"], row["impression"]) if text.strip())


def changed(text: str, layout: str) -> bool:
    """Whether a label of the report changes when it is set in a layout."""
    told = parts(text)
    return labels(". ".join(told) + ".") != labels(LAYOUTS[layout](told))


def like(texts: Sequence[str], layout: str) -> float:
    """Share of the reports whose GREEN in a layout, against themselves in sentences, is at least .99."""
    told = [parts(text) for text in texts]
    cases = [
        Case(str(number), str(number), ". ".join(own) + ".", LAYOUTS[layout](own)) for number, own in enumerate(told)
    ]
    scores = [row.score for row in JUDGES["green"]()(cases)]
    return sum(score is not None and score >= 0.99 for score in scores) / len(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RADPREF_SHARED_DATA", beside)))
    parser.add_argument("--reports", type=int, default=2000)
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    path = args.data / "iu_xray_256" / "reports.jsonl"
    if not path.is_file():
        parser.error(f"no real reports at {path}; give their folder with --data or RADPREF_SHARED_DATA")
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    texts = list(islice((text for row in rows if (text := report_of(row))), args.reports))
    print(f"| layout | labels change in (of {len(texts):,}) | share | GREEN at least .99 |\n|---|---:|---:|---:|")
    for layout in LAYOUTS:
        bad = [text for text in texts if changed(text, layout)]
        equal = f"{like(texts, layout):.2%}"
        print(f"| {layout} | {len(bad)} | {len(bad) / len(texts):.2%} | {equal} |", flush=True)
        for text in bad[:8] if args.show else ():
            told = parts(text)
            first, second = labels(". ".join(told) + "."), labels(LAYOUTS[layout](told))
            print("   ", {k: (first[k], second[k]) for k in first if first[k] != second[k]}, LAYOUTS[layout](told))


if __name__ == "__main__":
    main()
