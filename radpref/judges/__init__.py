"""Judges: how good a candidate report is against its reference, with the reasons, or why it could not be judged.

``JUDGES`` maps a name to the making of a judge (`contract.Judge`) out of the recipe's judge section. ``green``, its
first version ``green-1`` and ``text`` need nothing but the texts; ``chat`` and ``green-model`` ask a model behind a
server; ``radeval-*`` run RadEval's metrics in another process. Each has its length-controlled form, ``lc-`` before
the name. ``labels`` holds a report against a study's labels and boxes, and judges whatever has no reference
(`judging`). ``answer`` is for questions: 1 where the answer is right, else 0.
"""

from collections.abc import Iterator, Mapping

from radpref.config import JudgeSection
from radpref.judges import chat as _chat
from radpref.judges import labels as _labels
from radpref.judges import radeval as _radeval
from radpref.judges.case import Case, JudgeError, Verdict
from radpref.judges.consensus import agreement
from radpref.judges.contract import (
    Judge,
    LengthControlled,
    Maker,
    PairJudge,
    judge_by,
    length_controlled,
)
from radpref.judges.green import make as _make_green
from radpref.judges.green1 import Pairing, compare, compare_truth, pairing
from radpref.judges.green1 import judge as _green1
from radpref.judges.labels import OrLabels, compare_labels, pairing_of_labels
from radpref.judges.rewards import answer_match, chexpo, finding_graph, reward_function
from radpref.judges.server import TRANSIENT
from radpref.judges.short_answer import short_answer
from radpref.judges.soft_matching import text
from radpref.plugins import Extended, found
from radpref.records import Judgement, Quarantined

_DEFAULT = JudgeSection()


def _controlled(make: Maker) -> Maker:
    return lambda section=_DEFAULT: LengthControlled(make(section))


def _by_rule(rule: _labels.Rule) -> Maker:
    return lambda section=_DEFAULT: _labels.make(rule)


_PLAIN: dict[str, Maker] = {
    "green": _make_green,
    "green-1": lambda section=_DEFAULT: _green1,
    "text": lambda section=_DEFAULT: text,
    "labels": lambda section=_DEFAULT: _labels.make(_labels.RULES[0], "labels"),
    **{f"labels-{rule}": _by_rule(rule) for rule in _labels.RULES},
    "chat": lambda section=_DEFAULT: _chat.chat(section),
    "green-model": lambda section=_DEFAULT: _chat.green_model(section),
    **{f"radeval-{metric}": _radeval.maker(metric) for metric in _radeval.METRICS},
}

_OURS: dict[str, Maker] = (
    _PLAIN
    | {f"lc-{name}": _controlled(make) for name, make in _PLAIN.items()}
    | {"answer": lambda section=_DEFAULT: short_answer}  # of a question, which no length makes right
)


class _Judges(Extended[Maker]):
    """Judges, those of other packages with their length-controlled forms."""

    def __getitem__(self, name: str) -> Maker:
        plain = name.removeprefix("lc-")
        if name not in _OURS and plain != name and plain in found("judges"):
            return _controlled(super().__getitem__(plain))
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return iter([*super().__iter__(), *(f"lc-{name}" for name in found("judges") if name not in _OURS)])

    def __contains__(self, name: object) -> bool:
        return name in list(self)


JUDGES: Mapping[str, Maker] = _Judges("judges", _OURS)
"""Name to the making of a judge; other packages add to it (``radpref.plugins``)."""


def judging(section: JudgeSection, name: str | None = None) -> Judge:
    """The section's judge, or another with its settings; what has labels and no reference, `labels` judges.

    Raises:
        KeyError: no such judge. JudgeError: the section lacks what it needs.
    """
    name = name or section.name
    judge = JUDGES[name](section)
    plain = name.removeprefix("lc-")
    if plain.startswith("labels") or plain == "answer":
        return judge
    return OrLabels(judge, JUDGES["lc-labels" if name != plain else "labels"](section))


def version(name: str, section: JudgeSection) -> str:
    """What a judgement follows from besides the two texts (`Judge.version`).

    Raises:
        KeyError: no such judge. JudgeError: the section lacks what it needs.
    """
    return JUDGES[name](section).version


def check(name: str, section: JudgeSection) -> None:
    """Whether the judge could begin now: its server answers, its package is there.

    Raises:
        JudgeError: what is absent and what to do.
    """
    JUDGES[name](section).check(section)


def among(kind: str) -> Judge:
    """The judge that holds answers against each other where a consensus is looked for: reports, or ``questions``."""
    return JUDGES["answer" if kind == "questions" else "green"](_DEFAULT)


def _is_free(make: Maker) -> bool:
    try:
        return make(_DEFAULT).free
    except JudgeError:  # it needs what no recipe gives by itself
        return False


def free() -> tuple[str, ...]:
    """Judges that need nothing but the texts, and cost next to nothing."""
    return tuple(name for name, make in _OURS.items() if _is_free(make))


def transient(row: Judgement | Quarantined) -> bool:
    """Whether a judgement failed for a reason that may be gone by now, so that asking again makes sense."""
    return ((row.reason if isinstance(row, Quarantined) else row.unscored) or "").startswith(TRANSIENT)


FREE: tuple[str, ...] = free()
"""`free` of the judges that come with radpref."""

__all__ = [
    "FREE",
    "JUDGES",
    "Case",
    "Judge",
    "JudgeError",
    "LengthControlled",
    "Maker",
    "OrLabels",
    "PairJudge",
    "Pairing",
    "Verdict",
    "agreement",
    "among",
    "answer_match",
    "check",
    "chexpo",
    "compare",
    "compare_labels",
    "compare_truth",
    "finding_graph",
    "free",
    "judge_by",
    "judging",
    "length_controlled",
    "pairing",
    "pairing_of_labels",
    "reward_function",
    "short_answer",
    "text",
    "transient",
    "version",
]
