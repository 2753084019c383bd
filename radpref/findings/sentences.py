"""Where the sentences of a plain report begin and end: full stops, layout, lists, keys, and lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from radpref.findings.lexicon import lexicon, tokens
from radpref.findings.sections import Region, regions
from radpref.findings.text import BREAK

# Every alternative looks back at the sign that the pattern begins with: a set of signs is found fast.
_END = re.compile(
    r"[.!?,;(\d\n" + BREAK + r"-](?:"
    r"(?<=[^\W\d_]{2}[.!?])(?=[^\W\d_])"  # a missing space
    r"|(?<=[.!?])[.!?]*(?=[\s)\"']|$)"
    r"|(?<=" + BREAK + r")\s*"
    r"|(?<=\n)\s*(?:\n\s*|(?=(?:\(?\d{1,2}[.)]|[-*])\s)|$)"
    r"|(?<=\s\()\d{1,2}\)\s|(?<=\s\d)\d?\)\s"
    r"|(?<=[,;])\s+(?=[A-Z][A-Za-z /]{2,30}:)|(?<=;)\s*(?=[A-Za-z][A-Za-z /]{2,30}(?::|\s-\s))"
    r"|(?P<dash>(?<=\s-)\s)"
    r"|(?P<line>(?<=\n)))"
)
_FIRST = re.compile(r"[\s\"'(]*([^\W_]+|_+)")
_MARK = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[-*])\s")
_VALUE = re.compile(r"[:=|-]\s*\w+\Z")
_SHORT = 12
"""Most letters of a word written short."""
_ANSWER = re.compile(r"\s*(?:yes|no|none|nil|absent|present|negative|positive|not seen)\b", re.IGNORECASE)
_STOP_WITHIN = re.compile(r"[a-zA-Z]{2}\.\s+\S")
_WRAPPED_AT = 40
"""Characters of the longest line from which on lines may have been broken to fit a page."""
_WRAPPED_SHARE = 0.6
"""Share of lines that must be full for a text to be one that was broken to fit."""


def sentences(text: str) -> Iterator[tuple[Region, int, int]]:
    """Offsets of the sentences of a plain text, each with the region it stands in."""
    for region in regions(text):
        start = region.start
        lines = _Lines(text, region) if "\n" in text[region.start : region.end] else None
        bulleted = text[start : start + _SHORT].lstrip().startswith("- ")
        for match in _END.finditer(text, region.start, region.end):
            sign = match[0]
            if match["dash"]:
                if not bulleted or not text[start : match.start()].strip():
                    continue  # a dash of its own, or the bullet of this sentence
            elif match["line"] is not None:
                if lines is None or lines.goes_on(match.start()):
                    continue
            elif sign[0] == "." and _abbreviates(text, start, match):
                continue
            elif sign[0] == "?" and (_ANSWER.match(text, match.end()) or not text[start : match.start()].strip()):
                continue  # "is there an effusion? No.", "? effusion"
            if text[start : match.start()].strip():
                yield region, start, match.start()
            start = match.end()
        if text[start : region.end].strip():
            yield region, start, region.end


def _abbreviates(text: str, start: int, stop: re.Match[str]) -> bool:
    """Whether a full stop belongs to a word written short: ``no sig. effusion``."""
    words = text[max(start, stop.start() - _SHORT) : stop.start()].lower().split()
    if not words or words[-1].lstrip("(") not in lexicon().abbreviated:
        return False
    following = _FIRST.match(text, stop.end())
    if following is None:
        return False
    first = following[1]
    return first[0].islower() or first[0].isdigit() or first.lower() not in lexicon().openers or text.isupper()


class _Lines:
    """The lines of a region: which of them go on in the next."""

    def __init__(self, text: str, region: Region) -> None:
        self.text, self.region = text, region
        lines = [line.rstrip() for line in text[region.start : region.end].split("\n")]
        filled = [line for line in lines if line]
        self.width = max((len(line) for line in filled), default=0)
        firsts = [_MARK.sub("", line).split(maxsplit=1)[0] for line in filled if _MARK.sub("", line).strip()]
        full = [len(line) + 1 + len(after) > self.width for line, after in zip(filled, firsts[1:], strict=False)]
        # Prose has full stops within its lines; sentences set a line each have none.
        prose = any(_STOP_WITHIN.search(line) for line in filled)
        self.wrapped = prose and self.width >= _WRAPPED_AT and sum(full) >= _WRAPPED_SHARE * len(full)
        # Where capitals tell nothing: all capitals, or none at the beginning of any line.
        self.caseless = not any(first[:1].isupper() for first in firsts) or not any(map(str.islower, "".join(filled)))

    def goes_on(self, at: int) -> bool:
        """Whether the line that ends at ``at`` is continued by the next."""
        text, region = self.text, self.region
        begin = max(text.rfind("\n", region.start, at) + 1, region.start)
        before = text[begin:at].rstrip()
        following = _FIRST.match(text, at + 1, region.end)
        if not before or following is None:
            return True
        if before[-1] in ":,(/&-":
            return True
        words = [word for word, _, _ in tokens(before[-60:])]
        last, first = words[-1] if words else "", following[1]
        if last in lexicon().lists["open"] and not _VALUE.search(before):
            return True
        end = text.find("\n", at + 1, region.end)
        line = text[at + 1 : end if end >= 0 else region.end]
        if re.match(r"[A-Za-z][A-Za-z /&-]{2,30}:", line.strip()):
            return False
        full = self.wrapped and len(before) + 1 + len(line.split(maxsplit=1)[0]) > self.width
        if self.caseless or not first[0].isalpha() or set(first) == {"X"}:
            if full:
                return True
            if first.lower() in ("no", "there", "without"):
                return False
            return _is_open(words) and first.lower() not in ("the",)
        if first[0].islower():
            return True
        return _is_open(words) or (full and first.lower() not in lexicon().openers)


_ADJECTIVE = re.compile(r"(?:al|ic|ar|ous|ony|ary)$")


@cache
def _attributive() -> frozenset[str]:
    """Words that want a noun behind them: ``pleural``, ``small``, ``rib``."""
    inner: set[str] = set()
    heads: set[str] = set()
    adjectives: set[str] = set()
    for (kind, _), terms in lexicon().phrases.items():
        for term in terms:
            words = term.split()
            if kind in ("finding", "structure", "place"):
                inner.update(words[:-1])
            if len(words) == 1 and kind in ("structure", "place") and _ADJECTIVE.search(term):
                adjectives.add(term)
            elif kind in ("finding", "structure", "place", "state", "change", "value") or kind.endswith("after"):
                heads.add(words[-1])
            if kind == "severity":
                inner.update(words[-1:])
    return frozenset((inner - heads - {"left", "right"}) | adjectives)


def _is_open(words: list[str]) -> bool:
    last = words[-1] if words else ""
    if last in ("left", "right"):
        return len(words) < 2 or words[-2] not in ("the", "on")
    return last in _attributive()
