"""Which of several answers the others agree with most: minimum Bayes risk by any judge, without a reference.

Kumar and Byrne, *Minimum Bayes-Risk Decoding for Statistical Machine Translation*, NAACL 2004: of answers drawn from a
model, the one whose mean score against all of them is highest. Where a model's likeliest text is a habit, the answer in
the middle of what it draws need not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from radpref.judges.case import Case
from radpref.judges.contract import Judge
from radpref.records import Question

Drawn = tuple[Question, Sequence[str]]
"""A question and the answers that were drawn to it."""
_TOGETHER = 16
"""Questions whose answers are judged in one call."""


def agreement(drawn: Iterable[Drawn], judge: Judge) -> Iterator[list[float]]:
    """Of each question's answers (n, at least 2), how well each agrees with the n - 1 others: a mean in [0, 1].

    Answers that are alike agree wholly. Where ``judge`` cannot score one against another, they do not agree at all.

    Example:
        >>> from radpref.judges import JUDGES, agreement
        >>> texts = ["Small left effusion.", "Left effusion.", "No pleural effusion."]
        >>> [scores] = agreement([(question, texts)], JUDGES["green"]())  # doctest: +SKIP
    """
    rows = iter(drawn)
    while some := list(islice(rows, _TOGETHER)):
        cases = [case for number, row in enumerate(some) for case in _cases(number, *row)]
        found = {row.id: row.score or 0.0 for row in judge(cases)}
        for number, (_, texts) in enumerate(some):
            times = Counter(texts)
            place = {text: at for at, text in enumerate(times)}
            sums = {text: float(n - 1) for text, n in times.items()}
            for text, other in ((text, other) for text in times for other in times if other != text):
                sums[text] += times[other] * found[f"{number}/{place[text]}/{place[other]}"]
            yield [sums[text] / (len(texts) - 1) for text in texts]


def _cases(number: int, question: Question, texts: Sequence[str]) -> Iterator[Case]:
    """Every answer against every other one; of equal ones the first stands for all."""
    different = list(dict.fromkeys(texts))
    for i, candidate in enumerate(different):
        for j, other in enumerate(different):
            if i != j:
                told = {"reference": other, "answer": other if question.answer else ""}
                yield Case.of(question.model_copy(update=told), candidate, f"{number}/{i}/{j}")
