"""Judges: how good a candidate report is against its reference, with the reasons, or why it could not be judged.

``JUDGES`` maps a name to the making of a judge out of the recipe's judge section. ``green`` and ``text`` need
nothing but the texts; ``chat`` and ``green-model`` ask a model behind a server; ``radeval-*`` run RadEval's metrics
in another process. Each has its length-controlled form, ``lc-`` before the name. ``answer`` is for questions: 1
where the answer is right, else 0.
"""

from typing import Protocol

from radpref.config import JudgeSection
from radpref.files import content_key
from radpref.findings import lexicon
from radpref.judges import chat as _chat
from radpref.judges import radeval as _radeval
from radpref.judges.case import Case, Judge, JudgeError, Verdict, judge_all, judge_by, length_controlled
from radpref.judges.report_errors import Pairing, compare, compare_truth, green, pairing
from radpref.judges.rewards import answer_match, chexpo, finding_graph, reward_function
from radpref.judges.server import TRANSIENT, Server
from radpref.judges.short_answer import VERSION as _ANSWER_VERSION
from radpref.judges.short_answer import short_answer
from radpref.judges.soft_matching import text
from radpref.records import Judgement

_DEFAULT = JudgeSection()


class Maker(Protocol):
    """Makes a judge; raises JudgeError where the section lacks what it needs. It opens no connection."""

    def __call__(self, section: JudgeSection = _DEFAULT) -> Judge: ...


def _controlled(make: Maker) -> Maker:
    return lambda section=_DEFAULT: length_controlled(make(section))


_PLAIN: dict[str, Maker] = {
    "green": lambda section=_DEFAULT: green,
    "text": lambda section=_DEFAULT: text,
    "chat": lambda section=_DEFAULT: _chat.chat(section),
    "green-model": lambda section=_DEFAULT: _chat.green_model(section),
    **{f"radeval-{metric}": _radeval.maker(metric) for metric in _radeval.METRICS},
}

JUDGES: dict[str, Maker] = (
    _PLAIN
    | {f"lc-{name}": _controlled(make) for name, make in _PLAIN.items()}
    | {"answer": lambda section=_DEFAULT: short_answer}  # of a question, which no length makes right
)
"""Name to the making of a judge."""

FREE = ("green", "text", "lc-green", "lc-text")
"""Judges that need nothing but the texts, and cost next to nothing."""

VERSION = f"2-{lexicon().digest}"
"""Changes with whatever can change a judgement: raised by hand with the rules, by itself with the lexicon."""


def version(name: str, section: JudgeSection) -> str:
    """What a judgement follows from besides the two texts: the rules, or the model and how it is asked."""
    plain = name.removeprefix("lc-")
    if name in FREE:
        return VERSION
    if name == "answer":
        return f"answer-{_ANSWER_VERSION}-{lexicon().digest}"
    if plain.startswith("radeval-"):
        return content_key("radeval", _radeval.VERSION, section.python)
    return _chat.identity(section, "json" if plain == "chat" else "green")


def check(name: str, section: JudgeSection) -> None:
    """Whether the judge could begin now: its server answers, its package is there.

    Raises:
        JudgeError: what is absent and what to do.
    """
    JUDGES[name](section)
    plain = name.removeprefix("lc-")
    if plain in ("chat", "green-model"):
        Server(section).check()
    elif plain.startswith("radeval-"):
        _radeval.check(plain.removeprefix("radeval-"), section)


def transient(judgement: Judgement) -> bool:
    """Whether the judgement failed for a reason that may be gone by now, so that asking again makes sense."""
    return judgement.unscored is not None and judgement.unscored.startswith(TRANSIENT)


__all__ = [
    "FREE",
    "JUDGES",
    "VERSION",
    "Case",
    "Judge",
    "JudgeError",
    "Maker",
    "Pairing",
    "Verdict",
    "answer_match",
    "check",
    "chexpo",
    "compare",
    "compare_truth",
    "finding_graph",
    "green",
    "judge_all",
    "judge_by",
    "length_controlled",
    "pairing",
    "reward_function",
    "short_answer",
    "text",
    "transient",
    "version",
]
