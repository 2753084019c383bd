"""The result in words: is it a gain, and is it more than chance, length, the pairs themselves, or a template?

Nothing here is written by hand for one outcome: every sentence follows from the metrics and the paired tests, and
what was not measured is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from radpref.evaluation import definition, headline
from radpref.evaluation.tables import format_p
from radpref.records import Comparison, Metric
from radpref.report.data import ReportData

Answer = Literal["yes", "no", "partly", "unknown"]
Level = Literal["good", "mixed", "none", "bad", "unknown"]
ALPHA = 0.05
FEW_STUDIES = 100
ONE = " One training."
SAME_LENGTH = 0.02
"""A change of the mean length by no more than this share is none."""


@dataclass(frozen=True)
class Check:
    """One question that a gain has to answer, and the answer with its numbers."""

    question: str
    answer: Answer
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The headline, what it rests on, and what a reader should keep in mind.

    ``level`` is good (a gain that passes every check that was made), mixed (a gain with a but), none, bad (a
    loss), or unknown.
    """

    level: Level
    headline: str
    checks: tuple[Check, ...]
    caveats: tuple[str, ...]


def verdict(data: ReportData) -> Verdict:
    """The verdict on ``data.after`` against ``data.before`` by the main metric."""
    numbers = _Numbers(data)
    chance, change = _chance(numbers)
    # without a gain there is none that length could explain; an answer to a question is right at any length
    length = [_length(numbers)] if change == "gain" and not numbers.main.startswith("vqa_") else []
    untouched = [_untouched(numbers)] if numbers.untouched else []
    checks = (chance, *untouched, *length, _control(numbers), _trivial(numbers), _cost(numbers))
    level, headline = _headline(numbers, change, {check.question: check.answer for check in checks})
    return Verdict(level, headline, checks, _caveats(numbers))


CHANCE = "More than chance?"
UNTOUCHED = "By a measure that it was not selected by?"
LENGTH = "More than length?"
CONTROL = "More than SFT on the same pairs?"
TRIVIAL = "Above trivial answers?"
COST = "At no cost elsewhere?"

Change = Literal["gain", "loss", "none", "unknown"]


class _Numbers:
    """The metrics and tests of a report, by name."""

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.before, self.after, self.control, self.main = data.before, data.after, data.control, data.main
        self.untouched = data.untouched
        self._metrics = {(metric.system, metric.name): metric for metric in data.metrics}
        self._tests = {(row.name, row.before, row.after): row for row in data.comparisons}

    def metric(self, system: str, name: str) -> Metric | None:
        found = self._metrics.get((system, name))
        return found if found is not None and found.value is not None else None

    def value(self, system: str, name: str) -> float | None:
        found = self.metric(system, name)
        return None if found is None else found.value

    def counted(self, n: int) -> str:
        """So many of what the main metric is measured on."""
        words = ("question", "questions") if self.main.startswith("vqa_") else ("study", "studies")
        return _count(n, *words)

    @property
    def few(self) -> bool:
        """Whether so little was tested that what is not shown may well be there."""
        main = self.metric(self.after, self.main)
        return main is not None and main.n < FEW_STUDIES

    def words(self) -> tuple[float, float] | None:
        """Mean words of an answer, before and after; None where they were not measured."""
        name = "vqa_words_mean" if self.main.startswith("vqa_") else "words_mean"
        before, after = (self.value(system, name) for system in (self.before, self.after))
        return None if before is None or after is None else (before, after)

    def test(self, name: str, before: str) -> Comparison | None:
        return self._tests.get((name, before, self.after))


def direction(row: Comparison) -> Change:
    """Gain or loss where test and interval agree that the difference is not chance; else none."""
    sign = {"higher": 1, "lower": -1, "neither": 0}[definition(row.name).better]
    low, high = sorted((sign * row.low, sign * row.high))
    if row.p < ALPHA and low > 0:
        return "gain"
    if row.p < ALPHA and high < 0:
        return "loss"
    return "none"


def _chance(numbers: _Numbers) -> tuple[Check, Change]:
    row = numbers.test(numbers.main, numbers.before)
    title = definition(numbers.main).title
    if row is None:
        return Check(
            CHANCE, "unknown", f"There is no paired test of {title}: it needs both systems on at least two patients."
        ), "unknown"
    change = direction(row)
    rests = f"{_interval(row)}; p {_p(row.p)}, {numbers.counted(row.n)}"
    said = f"{title} changed by {_signed(row.difference)} ({rests})."
    if change == "gain":
        return Check(CHANCE, "yes", said), change
    if change == "loss":
        return Check(CHANCE, "no", f"{said} The change is more than chance, but for the worse."), change
    if row.p < ALPHA or row.low > 0 or row.high < 0:
        return Check(
            CHANCE, "no", f"{said} Test and interval disagree, so it is not taken for more than chance."
        ), change
    said = f"{said} Swapping the two models' answers at random moves it as far."
    if numbers.few:
        said += " On so few, what is not shown may still be there."
    return Check(CHANCE, "no", said), change


def _untouched(numbers: _Numbers) -> Check:
    title = definition(numbers.untouched).title
    row = numbers.test(numbers.untouched, numbers.before)
    if row is None:
        return Check(UNTOUCHED, "unknown", f"There is no paired test of {title}, which the run was not selected by.")
    said = f"{title}, which the run was not selected by, changed by {_signed(row.difference)} ({_interval(row)}; p "
    said += f"{_p(row.p)})."
    change = direction(row)
    if change == "gain":
        return Check(UNTOUCHED, "yes", said)
    if change == "loss":
        return Check(UNTOUCHED, "no", f"{said} By this measure it became worse.")
    return Check(UNTOUCHED, "partly", f"{said} By this measure no change is shown.")


def _length(numbers: _Numbers) -> Check:
    before, after = (numbers.value(system, "words_mean") for system in (numbers.before, numbers.after))
    ratio = numbers.value(numbers.before, "verbosity_ratio_total")
    row = numbers.test("lc-green_mean", numbers.before)
    if before is None or after is None or row is None:
        return Check(LENGTH, "unknown", "Lengths or LC-GREEN were not measured on both.")
    grown = after / before - 1 if before else 0.0
    words = f"Reports are {_longer(grown)} ({before:.1f} to {after:.1f} words)"
    control = f"LC-GREEN changed by {_signed(row.difference)} ({_interval(row)})"
    change = direction(row)
    if change == "loss":
        return Check(LENGTH, "no", f"{words}, and with length controlled the score falls: {control}.")
    if change == "none" and grown > SAME_LENGTH:
        return Check(LENGTH, "no", f"{words}, and with length controlled the gain is no longer clear: {control}.")
    if change == "none":
        return Check(LENGTH, "partly", f"{words}, so they do not gain by length alone, but {control}.")
    if grown > 0.1 and ratio is not None and ratio < 0.95:
        return Check(
            LENGTH,
            "partly",
            f"{words}; {control}. LC-GREEN does not count words up to the reference's length, which the model before "
            f"did not reach ({ratio:.2f} of it), so part of the gain may be room to say more.",
        )
    return Check(LENGTH, "yes", f"{words}; {control}.")


def _control(numbers: _Numbers) -> Check:
    row = numbers.test(numbers.main, numbers.control)
    title = definition(numbers.main).title
    if row is None:
        return Check(
            CONTROL,
            "unknown",
            "The control, SFT on the chosen side of the same pairs, was not run, so the loss itself has no proof.",
        )
    rests = f"{_interval(row)}; p {_p(row.p)}"
    said = f"Against SFT on the chosen side, {title} differs by {_signed(row.difference)} ({rests})."
    change = direction(row)
    if change == "gain":
        return Check(CONTROL, "yes", said)
    if change == "loss":
        return Check(CONTROL, "no", f"{said} Plain SFT on the same pairs is better.")
    return Check(
        CONTROL, "partly", f"{said} That is within chance: more than plain SFT on the same pairs is not shown."
    )


def _trivial(numbers: _Numbers) -> Check:
    names = [name for name in numbers.data.baselines if numbers.value(name, numbers.main) is not None]
    value, metric = numbers.value(numbers.after, numbers.main), numbers.metric(numbers.after, numbers.main)
    title = definition(numbers.main).title
    if not names or value is None or metric is None:
        return Check(TRIVIAL, "unknown", "No trivial baseline was measured beside the model.")
    best = max(names, key=lambda name: numbers.value(name, numbers.main) or 0.0)
    reached = numbers.value(best, numbers.main) or 0.0
    row = numbers.test(numbers.main, best)
    above = direction(row) == "gain" if row is not None else metric.low is not None and metric.low > reached
    ahead = _ahead(numbers, names)
    also = f" Elsewhere a trivial answer is ahead: {ahead}." if ahead else ""
    if above:
        return Check(
            TRIVIAL,
            "partly" if ahead else "yes",
            f"{title} is {value:.3f}; the best trivial answer, “{best}”, reaches {reached:.3f}.{also}",
        )
    so = "is not clearly above" if value > reached else "is below"
    return Check(
        TRIVIAL,
        "no",
        f"{title} {so} what “{best}” reaches without looking at an image: {value:.3f} against {reached:.3f}.{also}",
    )


def _ahead(numbers: _Numbers, names: Sequence[str]) -> str:
    """Headline metrics, the main one apart, on which some baseline is better than the model."""
    found = []
    for name in headline(metric.name for metric in numbers.data.metrics):
        value = numbers.value(numbers.after, name)
        better = definition(name).better
        if name == numbers.main or value is None or better == "neither":
            continue
        sign = 1 if better == "higher" else -1
        rivals = {rival: reached for rival in names if (reached := numbers.value(rival, name)) is not None}
        best = max(rivals, key=lambda rival: sign * rivals[rival], default=None)
        if best is not None and sign * rivals[best] > sign * value:
            found.append(f"{definition(name).title} ({rivals[best]:.3f}, “{best}”, against {value:.3f})")
    return "; ".join(found)


def _cost(numbers: _Numbers) -> Check:
    names = dict.fromkeys(row.name for row in numbers.data.comparisons if row.name != numbers.main)
    tests = [row for name in names if (row := numbers.test(name, numbers.before)) is not None]
    tests = [row for row in tests if definition(row.name).better != "neither"]
    if not tests:
        return Check(COST, "unknown", "No other metric was tested.")
    lost = [row for row in tests if direction(row) == "loss" and (row.p if row.p_holm is None else row.p_holm) < ALPHA]
    if not lost:
        said = f"None of the {len(tests)} other tested metrics got worse by more than chance (Holm-corrected)"
        worst = min(tests, key=_reach)
        reach = f"the interval that reaches furthest allows {definition(worst.name).title} to be worse by "
        reach += f"{max(0.0, -_reach(worst)):.3f}"
        if numbers.few:
            return Check(COST, "partly", f"{said}, but on so few a cost may not show: {reach}.")
        return Check(COST, "yes", f"{said}; {reach}.")
    said = ", ".join(f"{definition(row.name).title} {_signed(row.difference)}" for row in lost)
    return Check(COST, "no", f"Worse by more than chance (Holm-corrected): {said}.")


def _reach(row: Comparison) -> float:
    """The end of the interval on the side of the worse, as a gain."""
    return row.low if definition(row.name).better == "higher" else -row.high


def _moved(numbers: _Numbers, name: str) -> str:
    before, after = (numbers.value(system, name) for system in (numbers.before, numbers.after))
    if before is None or after is None:
        return ""
    return f"{definition(name).title} went from {before:.3f} to {after:.3f}"


def _headline(numbers: _Numbers, change: Change, answers: dict[str, Answer]) -> tuple[Level, str]:
    title = definition(numbers.main).title
    before, after = (numbers.value(system, numbers.main) for system in (numbers.before, numbers.after))
    if change == "unknown" or before is None or after is None:
        return "unknown", f"Not enough was measured to say whether {title} changed."
    words, also = numbers.words(), _moved(numbers, numbers.untouched) if numbers.untouched else ""
    moved = " and ".join(part for part in (_moved(numbers, numbers.main), also) if part)
    if words is not None:
        moved += f" with {words[0]:.1f} and {words[1]:.1f} words"
    other = answers.get(UNTOUCHED, "unknown")
    named = definition(numbers.untouched).title if also else ""
    if change == "loss":
        rose = f" Yet {named} rose by more than chance." if named and other == "yes" else ""
        return "bad", f"Alignment made it worse: {moved}.{rose}{ONE}"
    if change == "none":
        rose = f" Yet {named} rose by more than chance." if named and other == "yes" else ""
        fell = f" {named} fell by more than chance." if named and other == "no" else ""
        few = f" On {numbers.counted(_n(numbers))}, that is not to say that there is none." if numbers.few else ""
        return (
            "none",
            f"No gain shown: {moved}; {title} did not clearly move by more than chance.{rose}{fell}{few}{ONE}",
        )
    buts = []
    if named and other == "no":
        buts.append(f"{named}, which it was not selected by, fell")
    elif named and other == "partly":
        buts.append(f"{named}, which it was not selected by, does not show it")
    length = answers.get(LENGTH, "yes")
    if length == "no":
        buts.append("it does not stand once length is controlled")
    elif length == "partly":
        buts.append("length is not ruled out")
    if answers[CONTROL] == "no":
        buts.append("SFT on the chosen side of the same pairs is better")
    elif answers[CONTROL] == "partly":
        buts.append("more than SFT on the chosen side of the same pairs is not shown")
    if answers[TRIVIAL] == "no":
        buts.append("a trivial answer does at least as well")
    if answers[COST] == "no":
        buts.append("other metrics got worse")
    elif answers[COST] == "partly":
        buts.append("on so few studies a cost elsewhere may not show")
    unknown = [
        what
        for question, what in ((LENGTH, "length"), (CONTROL, "SFT on the same pairs"), (TRIVIAL, "trivial answers"))
        if answers.get(question) == "unknown"
    ]
    if buts:
        return "mixed", f"A gain with a but: {moved}, more than chance, yet {_join(buts)}.{ONE}"
    if unknown:
        return (
            "mixed",
            f"A gain, not fully examined: {moved}, more than chance; not compared with {_join(unknown)}.{ONE}",
        )
    return "good", f"A gain: {moved}, more than chance, more than length, more than SFT on the same pairs.{ONE}"


def _caveats(numbers: _Numbers) -> tuple[str, ...]:
    data = numbers.data
    found = []
    main = numbers.metric(numbers.after, numbers.main)
    if main is not None and main.n < FEW_STUDIES:
        found.append(f"The test rests on {numbers.counted(main.n)}; only a large difference can show.")
    shares = [numbers.value(system, "unscored_share_green") for system in (data.before, data.after)]
    if any(share is not None and share > 0.02 for share in shares):
        said = " before and ".join("unknown" if share is None else f"{share:.1%}" for share in shares)
        found.append(f"Of the answers, the judge could not score {said} after; they count in no judged number.")
    empty = numbers.value(data.after, "empty_share")
    if empty:
        found.append(f"{empty:.1%} of the answers of “{data.after}” are empty; GREEN leaves them out, F1 does not.")
    found.append(
        "This verdict is of one training: its intervals cover the choice of patients and say nothing of another "
        "training. `radpref compare` holds runs with other seeds against each other."
    )
    return (*found, *data.notes)


def _n(numbers: _Numbers) -> int:
    main = numbers.metric(numbers.after, numbers.main)
    return 0 if main is None else main.n


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _interval(row: Comparison) -> str:
    return f"95 % interval {_signed(row.low)} to {_signed(row.high)}"


def _p(p: float) -> str:
    text = format_p(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def _longer(grown: float) -> str:
    if abs(grown) <= SAME_LENGTH:
        return "as long as before"
    return f"{abs(grown):.0%} {'longer' if grown > 0 else 'shorter'}"


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
