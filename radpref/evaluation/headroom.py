"""Whether a better choice among a model's own answers would help: what alignment on preferences can gain at most.

Alignment by preference moves a model towards answers that it gives already. Where the best of several draws is no
better than what it says greedily, there is nothing to move to; where it is, *consensus* says how much of that a model
can know without a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from radpref.evaluation.measure import Measured, compare, error_totals
from radpref.judges import Case, Judge, agreement
from radpref.records import Choosing, Question

GREEDY = "greedy"
PROBE = "probe"
"""Plain reports of what can be read from the model's image features (``training.train_probe``)."""
REFERENCE = "reference"
"""What the judge and the reader make of the references themselves: the most that can be measured."""


class Answered(NamedTuple):
    """A question, the model's greedy answer, and answers drawn from it."""

    question: Question
    greedy: str
    drawn: Sequence[str]


def choices(rows: Sequence[Answered], judge: Judge, among: Judge) -> dict[str, dict[str, str]]:
    """Way to choose to the answers that it takes, by question id.

    ``greedy``; ``one draw``; ``best of k`` of the first k draws, by ``judge`` against the reference, for k of 2, 4, 8
    ... and all; ``consensus of n``, by ``among`` against the other draws; ``reference``. Of equal answers the first is
    taken; an answer without a score is the worst.
    """
    count = min(len(row.drawn) for row in rows)
    cases = [
        Case.of(row.question, text, f"{number}/{at}")
        for number, row in enumerate(rows)
        for at, text in enumerate(dict.fromkeys(row.drawn))
    ]
    found = iter(-1.0 if judged.score is None else judged.score for judged in judge(cases))
    scores = [{text: next(found) for text in dict.fromkeys(row.drawn)} for row in rows]
    agreed = agreement(((row.question, row.drawn[:count]) for row in rows), among)
    sizes = [*(k for k in (2, 4, 8, 16, 32, 64) if k < count), count]
    ways: dict[str, list[str]] = {GREEDY: [row.greedy for row in rows], "one draw": [row.drawn[0] for row in rows]}
    for k in sizes:
        ways[f"best of {k}"] = [max(row.drawn[:k], key=own.__getitem__) for row, own in zip(rows, scores, strict=True)]
    ways[f"consensus of {count}"] = [
        row.drawn[max(range(count), key=own.__getitem__)] for row, own in zip(rows, agreed, strict=True)
    ]
    ways[REFERENCE] = [row.question.answer or row.question.reference for row in rows]
    ids = [row.question.id for row in rows]
    return {name: dict(zip(ids, texts, strict=True)) for name, texts in ways.items()}


def headroom(
    measured: Mapping[str, Measured], answers: Mapping[str, Mapping[str, str]], metrics: Sequence[str],
    *, resamples: int, seed: int,
) -> list[Choosing]:  # fmt: skip
    """Each way to choose, by its answers (``choices``) and their measurement, with its gain over greedy."""
    found = []
    for name, one in measured.items():
        gains = (
            [] if name == GREEDY else compare(measured[GREEDY], one, metrics=metrics, resamples=resamples, seed=seed)
        )
        told = list(answers[name].values())
        errors = error_totals(one) if "green" in one.judgements else {}
        found.append(
            Choosing(
                id=name,
                words=sum(len(text.split()) for text in told) / len(told),
                metrics={row.name: row for row in one.metrics if row.name in metrics},
                gains={row.name: row for row in gains},
                errors={kind: n / len(told) for kind, n in errors.items()},
            )
        )
    return found


def as_plain(way: Choosing) -> dict[str, object]:
    """A way to choose as values of JSON."""
    return {
        "name": way.id,
        "words": round(way.words, 2),
        "metrics": {name: row.model_dump(include={"value", "low", "high", "n"}) for name, row in way.metrics.items()},
        "gains": {name: row.model_dump(include={"difference", "low", "high", "p"}) for name, row in way.gains.items()},
        "errors": {kind: round(mean, 4) for kind, mean in way.errors.items()},
    }


def headroom_verdict(rows: Sequence[Choosing], metric: str) -> str:
    """What that says of alignment, in a sentence or two."""
    best = next(row for row in rows if row.id == _best(rows, 8))
    agreed = next(row for row in rows if row.id.startswith("consensus"))
    told = [f"{row.id} {_gain(row, metric)}" for row in (best, agreed)]
    clear = agreed.gains.get(metric)
    if clear is not None and clear.low is not None and clear.low > 0:
        word = "a model can know better than it says: preferences among its own answers have something to teach"
    elif (top := best.gains.get(metric)) is not None and top.low is not None and top.low > 0:
        word = (
            "better answers are among those drawn, but not where they agree: what a judge adds must come from the "
            "references"
        )
    else:
        word = "its own answers hold nothing better: preferences among them can gain nothing"
    return f"against greedy: {', '.join(told)}; {word}.{_seen(rows, metric)}"


def _seen(rows: Sequence[Choosing], metric: str) -> str:
    """What a probe says of the model's sight, where there is one."""
    probe = next((row for row in rows if row.id == PROBE), None)
    if probe is None:
        return ""
    gain = probe.gains.get(metric)
    if gain is not None and gain.low is not None and gain.low > 0:
        return (
            f" A plain report of what a probe reads from its image features: {_gain(probe, metric)}; the images tell "
            "more than the model says."
        )
    return f" A probe on its image features finds no more ({_gain(probe, metric)})."


def _best(rows: Sequence[Choosing], most: int) -> str:
    sizes = [int(row.id.rpartition(" ")[2]) for row in rows if row.id.startswith("best of")]
    return f"best of {max((size for size in sizes if size <= most), default=min(sizes))}"


def _gain(row: Choosing, metric: str) -> str:
    gain = row.gains.get(metric)
    return "not measured" if gain is None else f"{gain.difference:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
