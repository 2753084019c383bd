"""The numbers of questions: accuracy by task and kind, recall of words, consistency, and what needs no image.

Which tasks and kinds there are depends on the data, so a metric's definition follows from its name:
``vqa_accuracy_closed``, ``vqa_accuracy_kind=location``, ``vqa_accuracy_blank``. Counts are summed over questions (a
micro average); ``vqa_accuracy_macro_kinds`` alone is a mean over kinds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from radpref.evaluation.metrics import Array, Definition, Sums, ratio

PREFIX = "vqa_"
CONTROLS = ("swapped", "blank")
"""Altered questions that keep the answer: another patient's image, no image."""

_RULE = (
    "share of the questions whose answer matches the reference: the first yes or no word, else the same findings and "
    "words in what the answer states (docs/questions.md)"
)


def _share(above: str, below: str, title: str, rule: str, **more: str) -> Definition:
    return Definition(title, rule, lambda sums: ratio(sums[above], sums[below]), count=below, **more)  # type: ignore[arg-type]


def _accuracy(group: str, title: str, which: str) -> Definition:
    return _share(f"{group}:right", f"{group}:n", title, f"{_RULE}; {which}; counts summed over questions")


def _macro(sums: Sums) -> Array:
    """Mean of the accuracies of the kinds that have a question; NaN where there is none."""
    kinds = [column.removesuffix(":n") for column in sums if column.startswith("kind=") and column.endswith(":n")]
    there = [sums[f"{kind}:n"] > 0 for kind in kinds]
    values = [np.where(sums[f"{kind}:n"] > 0, ratio(sums[f"{kind}:right"], sums[f"{kind}:n"]), 0.0) for kind in kinds]
    return ratio(np.sum(values, axis=0), np.sum(there, axis=0, dtype=np.float64))


def _balanced(sums: Sums) -> Array:
    return (ratio(sums["yes:right"], sums["yes:n"]) + ratio(sums["no:right"], sums["no:n"])) / 2


def _above(control: str) -> Definition:
    def value(sums: Sums) -> Array:
        return ratio(sums[f"{control}:kept"], sums[f"{control}:n"]) - ratio(
            sums[f"{control}:right"], sums[f"{control}:n"]
        )

    what = {"swapped": "another patient's image", "blank": "a grey image"}[control]
    return Definition(
        f"Gain over {what}",
        f"accuracy with the right image less accuracy with {what}, on the same questions",
        value,
        count=f"{control}:n",
    )


FIXED: dict[str, Definition] = {
    "vqa_accuracy_all": _accuracy("all", "Accuracy", "all questions"),
    "vqa_accuracy_closed": _accuracy("closed", "Accuracy, closed", "closed questions"),
    "vqa_accuracy_open": _accuracy("open", "Accuracy, open", "open questions"),
    "vqa_accuracy_macro_kinds": Definition(
        "Accuracy, mean of kinds",
        f"{_RULE}; mean of the accuracies of the kinds that are asked",
        _macro,
        count="all:n",
    ),
    "vqa_token_recall_open": _share(
        "open:recall",
        "open:n",
        "Word recall, open",
        "share of the reference answer's words, grammar aside, that the answer has; mean over open questions",
    ),
    "vqa_consistency_negation": _share(
        "negated:consistent",
        "negated:n",
        "Consistency",
        "share of the yes/no questions that are answered with the opposite when asked for the opposite",
    ),
    "vqa_accuracy_both_negation": _share(
        "negated:both",
        "negated:n",
        "Right both ways",
        "share of the yes/no questions that are answered right both as asked and asked for the opposite",
    ),
    "vqa_accuracy_swapped": _accuracy("swapped", "Accuracy, swapped image", "each asked about another patient's image"),
    "vqa_accuracy_blank": _accuracy("blank", "Accuracy, blank image", "each asked about a grey image"),
    "vqa_gain_swapped": _above("swapped"),
    "vqa_gain_blank": _above("blank"),
    "vqa_accuracy_yes": _accuracy("yes", "Accuracy where yes is right", "yes/no questions with the answer yes"),
    "vqa_accuracy_no": _accuracy("no", "Accuracy where no is right", "yes/no questions with the answer no"),
    "vqa_accuracy_balanced": Definition(
        "Balanced accuracy, yes and no",
        f"{_RULE}; mean of the accuracies on questions with the answer yes and with the answer no: who always says "
        "the same has 1/2",
        _balanced,
        count="polar:n",
    ),
    "vqa_yes_share": _share(
        "polar:yes",
        "polar:n",
        "Said yes",
        "share of the yes/no questions that are answered with yes",
        better="neither",
    ),
    "vqa_undecided_share": _share(
        "polar:none",
        "polar:n",
        "Neither yes nor no",
        "share of the yes/no questions whose answer has neither word; they count as wrong",
        better="lower",
    ),
    "vqa_empty_share": _share(
        "empty", "all:n", "Empty answers", "share of the answers without a word; they count as wrong", better="lower"
    ),
    "vqa_words_mean": _share("words", "all:n", "Words", "mean words of an answer", better="neither"),
}
"""The metrics whose names do not depend on the data."""

HEADLINE: tuple[str, ...] = (
    "vqa_accuracy_all",
    "vqa_accuracy_closed",
    "vqa_accuracy_open",
    "vqa_accuracy_macro_kinds",
    "vqa_accuracy_balanced",
    "vqa_token_recall_open",
    "vqa_consistency_negation",
    "vqa_accuracy_both_negation",
    "vqa_accuracy_swapped",
    "vqa_accuracy_blank",
)


def group_of(name: str) -> str | None:
    """The group of columns that ``vqa_accuracy_{group}`` is of, for a task, a kind or one kind of a task."""
    group = name.removeprefix("vqa_accuracy_")
    return group if group != name and "=" in group else None


def vqa_definition(name: str) -> Definition:
    """The definition of a metric by its name. Raises KeyError for a name that is none."""
    if name in FIXED:
        return FIXED[name]
    group = group_of(name)
    if group is None:
        raise KeyError(name)
    what = group.split("=", 1)[1]
    return _accuracy(group, f"Accuracy, {what}", f"questions of {group.split('=', 1)[0]} {what}")


def names_of(groups: Iterable[str]) -> list[str]:
    """Every metric there is where questions fall into ``groups`` (``task=basic``, ``kind=presence``, ``of=...``)."""
    return [*FIXED, *(f"vqa_accuracy_{group}" for group in groups)]
