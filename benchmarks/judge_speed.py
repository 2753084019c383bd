"""How many report pairs a second the judges read on one core.

    OMP_NUM_THREADS=1 python benchmarks/judge_speed.py [--studies 2000] [--candidates 4] [--pairs 100000]

The reports are phantoms', or those of ``--reports FILE``; the candidates of a study are the reports of other
studies, so that every pair is another, while each text stands in several pairs. Prints, in one run: findings-GREEN and
text similarity on distinct pairs, on pairs that come five times each, the memory that ``--pairs`` pairs add, and our
reader beside published ones on the same texts; and what a distinct pair is made of: reading a text that was never seen,
and judging two that are read. Times are CPU seconds of this process, start-up left out; every measurement but that of
judging alone begins with nothing remembered.

The published ones are taken if they can be imported; ``pip install --target others radreport-parser pyConTextNLP``
and ``PYTHONPATH=others`` bring two of them. negspacy and pyConTextNLP get this lexicon's names of findings and its
cues (no places, states or changes); radreport-parser has its own 50 terms. The CheXpert labeler and NegBio are on no
package index; CheXbert, RadGraph and radlabels label with weights that have to be downloaded.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from radpref.data.phantom.image import generator
from radpref.data.phantom.patients import sample
from radpref.data.phantom.reports import write
from radpref.data.rows import stream
from radpref.findings import language, lexicon, read, reader, unreadable
from radpref.findings import text as plain_text
from radpref.judges import JUDGES, Case, green1, soft_matching
from radpref.judges.green import scoring, statements

_lexicon = sys.modules["radpref.findings.lexicon"]  # the package has a function of this name


def reports(count: int) -> list[str]:
    """The findings sections of ``count`` phantoms."""
    texts = []
    for index in range(count):
        patient = sample(index, seed=0, prior_share=0.25)
        truth = [lesion.finding() for lesion in patient.at("current")]
        texts.append(write(truth, (), patient.before is not None, generator(0, index, 4)).findings)
    return texts


def findings_of(path: Path, count: int) -> list[str]:
    """The first ``count`` findings sections of a table that are not empty."""
    texts = (str((entry.cells or {}).get("findings") or "") for entry in stream(path))
    return list(islice((text for text in texts if text), count))


def cases(texts: list[str], candidates: int) -> list[Case]:
    """``candidates`` cases a study; each candidate is another study's report."""
    return [
        Case(f"{index}/{k}", str(index), reference, texts[(index + 1 + k * 7) % len(texts)])
        for index, reference in enumerate(texts)
        for k in range(candidates)
    ]


def timed(work: Callable[[], object]) -> float:
    for room in (_lexicon, language, plain_text, reader, scoring, statements, green1, soft_matching):
        for remembered in vars(room).values():
            if callable(getattr(remembered, "cache_clear", None)) and remembered.cache_parameters()["maxsize"]:
                remembered.cache_clear()  # one without a limit is what was loaded, not what was read
    return again(work)


def again(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def negex() -> Callable[[str], object] | None:
    """Blank English, sentencizer, entity ruler and three Negex, with our terms and cues; None if not installed."""
    try:
        import spacy
        from negspacy.negation import Negex  # noqa: F401  (registers the factory)
    except ImportError:
        return None
    phrases = lexicon().phrases
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"})
    ruler.add_patterns(
        [
            {"label": "FINDING", "pattern": term, "id": name}
            for (kind, name), terms in phrases.items()
            if kind == "finding"
            for term in terms
        ]
    )
    for cue in ("negation", "uncertain", "history"):
        terms = {
            "pseudo_negations": list(phrases["pseudo", "pseudo"]),
            "preceding_negations": list(phrases[f"{cue} before", f"{cue} before"]),
            "following_negations": list(phrases.get((f"{cue} after", f"{cue} after"), ())),
            "termination": list(phrases["break", "break"]),
        }
        nlp.add_pipe("negex", cue, config={"neg_termset": terms, "extension_name": cue})
    return nlp


def radreport() -> Callable[[str], object] | None:
    """radreport-parser's critical findings with negation, by its own short list."""
    try:
        from radreport_parser import CriticalFindingsDetector, ReportParser
    except ImportError:
        return None
    parser, detector = ReportParser(), CriticalFindingsDetector()
    return lambda text: detector.detect(parser.parse(f"FINDINGS:\n{text}"))


def pycontext() -> Callable[[str], object] | None:
    """pyConTextNLP (Chapman et al., 2011) with our terms and cues, sentence by sentence."""
    try:
        from pyConTextNLP.itemData import contextItem
        from pyConTextNLP.pyConTextGraph import ConTextMarkup
    except ImportError:
        return None
    phrases = lexicon().phrases
    targets = [
        contextItem((term, name, rf"\b{re.escape(term)}\b", ""))
        for (kind, name), terms in phrases.items()
        if kind == "finding"
        for term in terms
    ]
    modifiers = [
        contextItem((term, cue, re.escape(term), rule))
        for cue in ("negation", "uncertain", "history")
        for where, rule in (("before", "forward"), ("after", "backward"))
        for term in phrases.get((f"{cue} {where}", f"{cue} {where}"), ())
    ]

    def mark(text: str) -> None:
        for sentence in re.split(r"(?<=[.])\s", text):
            markup = ConTextMarkup()
            markup.setRawText(sentence.lower())
            markup.cleanText()
            markup.markItems(modifiers, mode="modifier")
            markup.markItems(targets, mode="target")
            markup.pruneMarks()
            markup.applyModifiers()

    return mark


OTHERS: dict[str, tuple[Callable[[], Callable[[str], object] | None], int]] = {
    "negspacy's Negex": (negex, 2000),
    "radreport-parser": (radreport, 2000),
    "pyConTextNLP": (pycontext, 50),
}
"""Readers of others, each with the most reports that it is given: the slow ones get few."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--reports", type=Path, help="a table with a column `findings`, in the place of phantoms")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=0, help="judge this many pairs in chunks and print the memory")
    args = parser.parse_args()
    texts = findings_of(args.reports, args.studies) if args.reports else reports(args.studies)
    asked = cases(texts, args.candidates)
    read(texts[0])

    for name, (make, most) in {**OTHERS, "radpref.findings.read": (lambda: read, len(texts))}.items():
        other = make()
        if other is None:
            print(f"{name:24s} is not installed")
            continue
        some = texts[:most]
        seconds = timed(lambda other=other, some=some: [other(text) for text in some])
        print(f"{name:24s} {len(some) / seconds:10,.0f} reports/s")
    for name in ("green", "text"):
        judge = JUDGES[name]()
        distinct = len(asked) / timed(lambda judge=judge: judge(asked))
        repeated = 5 * len(asked) / timed(lambda judge=judge: judge(asked * 5))
        print(f"{name:24s} {distinct:10,.0f} pairs/s distinct, {repeated:10,.0f} pairs/s where each comes five times")
    different = list(dict.fromkeys(texts))
    cold = len(different) / timed(lambda: [(unreadable(text), scoring.report_of(text)) for text in different])
    judged = len(asked) / again(lambda: JUDGES["green"]()(asked))
    print(f"green reads {cold:,.0f} texts/s never seen and judges {judged:,.0f} pairs/s of texts that are read;")
    print(f"the {len(asked):,} distinct pairs above are made of {len(different):,} different texts")
    if args.pairs:
        judge = JUDGES["green"]()
        before = peak_mb()
        endless = (case for _ in iter(int, 1) for case in asked)
        for _ in range(0, args.pairs, 256):
            judge(list(islice(endless, 256)))
        print(f"{args.pairs:,} pairs in chunks of 256: peak memory {before:,.0f} MB before, {peak_mb():,.0f} MB after")


if __name__ == "__main__":
    main()
