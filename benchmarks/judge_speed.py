"""How many report pairs a second the judges read on one core.

    OMP_NUM_THREADS=1 python benchmarks/judge_speed.py [--studies 2000] [--candidates 4] [--pairs 100000]

The reports are phantoms'; the candidates of a study are the reports of other studies, so that every pair is
another. Prints, in one run: findings-GREEN and text similarity on distinct pairs, on pairs that come five times
each, the memory that ``--pairs`` pairs add, and negspacy's Negex with this lexicon (its findings only; it reads no
places, states or changes) beside our reader on the same texts. Times are of this process, start-up left out.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from itertools import islice

from radpref.data.phantom.film import generator
from radpref.data.phantom.patients import sample
from radpref.data.phantom.reports import write
from radpref.findings import lexicon, read
from radpref.judges import JUDGES, Case


def reports(count: int) -> list[str]:
    """The findings sections of ``count`` phantoms."""
    texts = []
    for index in range(count):
        patient = sample(index, seed=0, prior_share=0.25)
        truth = [lesion.finding() for lesion in patient.at("current")]
        texts.append(write(truth, (), patient.before is not None, generator(0, index, 4)).findings)
    return texts


def cases(texts: list[str], candidates: int) -> list[Case]:
    """``candidates`` cases a study; each candidate is another study's report."""
    return [
        Case(f"{index}/{k}", str(index), reference, texts[(index + 1 + k * 7) % len(texts)])
        for index, reference in enumerate(texts)
        for k in range(candidates)
    ]


def timed(work: Callable[[], object]) -> float:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=0, help="judge this many pairs in chunks and print the memory")
    args = parser.parse_args()
    texts = reports(args.studies)
    asked = cases(texts, args.candidates)
    read(texts[0])

    other = negex()
    if other is not None:
        for name, reader in (("negspacy's Negex", other), ("radpref.findings.read", read)):
            seconds = timed(lambda reader=reader: [reader(text) for text in texts])
            print(f"{name:24s} {len(texts) / seconds:10,.0f} reports/s")
    for name in ("green", "text"):
        judge = JUDGES[name]()
        distinct = len(asked) / timed(lambda judge=judge: judge(asked))
        repeated = 5 * len(asked) / timed(lambda judge=judge: judge(asked * 5))
        print(f"{name:24s} {distinct:10,.0f} pairs/s distinct, {repeated:10,.0f} pairs/s where each comes five times")
    if args.pairs:
        judge = JUDGES["green"]()
        before = peak_mb()
        endless = (case for _ in iter(int, 1) for case in asked)
        for _ in range(0, args.pairs, 256):
            judge(list(islice(endless, 256)))
        print(
            f"{args.pairs:,} pairs in chunks of 256: peak memory {before:,.0f} MB before, {peak_mb():,.0f} MB after"
        )


if __name__ == "__main__":
    main()
