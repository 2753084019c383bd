"""How the judges rank published systems, trivial reports beside them, and how that agrees with published scores.

    python benchmarks/judge_systems.py FOLDER [--judge green --judge lc-green] [--reports FILE]

FOLDER holds one ``SYSTEM.jsonl`` a system (``id, reference, candidate``, the same studies in each) and, where there
is one, ``published.json`` (system to scores, nested or not). ``--reports`` is a table of training reports whose most
frequent one is a trivial report. Prints, for each judge, the mean score over all studies, over those whose reference
states a finding of weight, and over the rest, with the mean number of words; and Spearman's rank correlation over
the systems with each published score.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from radpref.config import JudgeSection
from radpref.data.rows import stream
from radpref.judges import JUDGES, Case
from radpref.judges.auditing.corruptions import told
from radpref.judges.radiologists import rank_correlation

TRIVIAL = ("Clear lungs.", "Normal.", "Unremarkable.", "No acute cardiopulmonary abnormality.")


def systems(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The references, and each system's candidates in their order."""
    read = {p.stem: [json.loads(line) for line in p.read_text().splitlines()] for p in sorted(folder.glob("*.jsonl"))}
    references = [row["reference"] for row in next(iter(read.values()))]
    return references, {name: [row["candidate"] for row in rows] for name, rows in read.items()}


def flat(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(name, value) of every number in nested scores."""
    for name, value in scores.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)


def mean(scores: Iterable[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", action="append")
    parser.add_argument("--reports", type=Path)
    parser.add_argument("--normals", default="weigh")
    args = parser.parse_args()
    references, candidates = systems(args.folder)
    n = len(references)
    if args.reports:
        texts = (str((entry.cells or {}).get("findings") or "").strip() for entry in stream(args.reports))
        candidates["most frequent report"] = [Counter(text for text in texts if text).most_common(1)[0][0]] * n
    candidates |= {text: [text] * n for text in TRIVIAL}
    weighty = [bool(told(reference)) for reference in references]
    published = (
        json.loads((args.folder / "published.json").read_text()) if (args.folder / "published.json").exists() else {}
    )
    print(f"{n} studies, {sum(weighty)} state a finding of weight\n")
    for name in args.judge or ("green", "lc-green", "green-1", "lc-green-1"):
        judge = JUDGES[name](JudgeSection(normals=args.normals))
        print(f"**{name}**\n\n| | words | all | finding of weight | none |\n|---|---:|---:|---:|---:|")
        means = {}
        for system, texts in candidates.items():
            cases = [Case(str(i), str(i), *pair) for i, pair in enumerate(zip(references, texts, strict=True))]
            scores = [judgement.score for judgement in judge(cases)]
            parts = [scores, *([s for s, w in zip(scores, weighty, strict=True) if w is v] for v in (True, False))]
            means[system] = mean(scores)
            length = sum(len(text.split()) for text in texts) / n
            print(f"| {system} | {length:.0f} | " + " | ".join(f"{mean(part):.3f}" for part in parts) + " |")
        names = dict.fromkeys(metric for scores in published.values() for metric, _ in flat(scores))
        for metric in names:
            theirs = {
                system: dict(flat(scores))[metric]
                for system, scores in published.items()
                if metric in dict(flat(scores))
            }
            rho, count = rank_correlation(means, theirs)
            if count >= 3:
                print(f"rank correlation with {metric}: {rho:.2f} over {count} systems")
        print()


if __name__ == "__main__":
    main()
