"""A report as plain lines: tags, entities, Markdown, JSON, tables, ligatures and broken words taken out.

Every character that stays knows where it stood, so that spans are offsets into the text as it was given. `BREAK` is
put where the layout ends a statement.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from html import unescape
from typing import NamedTuple

from radpref.findings.lexicon import lexicon, tokens

BREAK = "\u2028"
"""Unicode's line separator: white space that no report holds, and that always ends a sentence."""


class Plain(NamedTuple):
    """A text made plain."""

    text: str
    offsets: Sequence[int] | None = None
    """Where each character stood; None where nothing was changed."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Offsets of ``text[start:end]`` (not empty) in the text as it was given."""
        if self.offsets is None:
            return start, end
        return self.offsets[start], self.offsets[end - 1] + 1


@lru_cache(maxsize=1 << 10)
def plain(text: str) -> Plain:
    """The text of a report without its layout. Never raises on a string."""
    made = Plain(text)
    if not text.isascii():
        made = _edited(made, _CHARACTERS, lambda match: _character(match[0]))
    if "<" in text or "&" in text:
        made = _edited(made, _THOUGHT, lambda match: BREAK)
        made = _edited(made, _TAG, lambda match: _tag(match[1], match[2]))
        made = _edited(made, _ENTITY, lambda match: _entity(match[0]))
    if '"' in text and _JSON.search(made.text):
        made = _json(made)
    if _MARKED.search(made.text):
        made = _edited(made, _MARKDOWN, _markdown)
    if "...." in text or ">" in text:
        made = _edited(made, _LEADER, lambda match: ": ")
    if "\t" in text:
        made = _edited(made, _TABS, lambda match: None, _tabbed)
    if "|" in made.text:
        made = _edited(made, _RULE, lambda match: BREAK)
        made = _edited(made, _ROW, lambda match: None, _cells)
    if "\n" in made.text:
        made = _edited(made, _ALONE, _headed)
    if "-" in made.text or "_" in made.text:
        made = _edited(made, _HYPHENATED, _joined)
    return made


Edits = Iterator[tuple[int, int, str]]


def _edited(
    made: Plain,
    pattern: re.Pattern[str],
    replace: Callable[[re.Match[str]], str | None],
    within: Callable[[re.Match[str]], Edits] | None = None,
) -> Plain:
    """Every match replaced; None leaves it. ``within`` yields several edits of one match instead."""
    edits = []
    for match in pattern.finditer(made.text):
        if within is not None:
            edits += list(within(match))
        elif (new := replace(match)) is not None:
            edits.append((match.start(), match.end(), new))
    if not edits:
        return made
    stood = made.offsets or range(len(made.text))
    parts: list[str] = []
    offsets: list[int] = []
    at = 0
    for start, end, new in edits:
        parts += (made.text[at:start], new)
        offsets += stood[at:start]
        # The first letter of what is new stands where the old began, its last where the old ended.
        offsets += [stood[min(start + index, end - 1)] for index in range(len(new) - 1)]
        offsets += [stood[end - 1]] * bool(new)
        at = end
    return Plain("".join(parts) + made.text[at:], [*offsets, *stood[at:]])


# ---------------------------------------------------------------- characters

_CHARACTERS = re.compile(r"[^\x00-\x7f]")
_SIGNS = {
    "\u2018": "'", "\u2019": "'", "\u201b": "'", "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u2033": '"',
    "\u2010": "-", "\u2011": "-", "\u2212": "-", "\u2012": "-", "\u2013": " - ", "\u2014": " - ", "\u2015": " - ",
    "\u00ad": "", "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "", "\u2192": " ",
    "\u2022": "\n- ", "\u00b7": "\n- ", "\u25aa": "\n- ", "\u25cf": "\n- ", "\u25e6": "\n- ",
    "\u2023": "\n- ", "\u2043": "\n- ",
    "\u2713": " yes ", "\u2714": " yes ", "\u2717": " no ", "\u2718": " no ", "\u00d7": "x", "\u00b1": " ",
}  # fmt: skip


def _character(sign: str) -> str | None:
    if sign in _SIGNS:
        return _SIGNS[sign]
    same = unicodedata.normalize("NFKC", sign)
    return same if same != sign and same.isascii() else None


# ---------------------------------------------------------------- HTML and XML

_THOUGHT = re.compile(
    r"<(think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis)>.*?(?:</\1>|\Z)"
    r"|\A(?:(?!<think).)*?</(?:think|thinking|reasoning)>|<!--.*?(?:-->|\Z)|<(style|script)\b.*?</\2>",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"<(/?)([A-Za-z][\w:-]{0,30})(?:\s[^<>]*)?/?>")
_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9A-Fa-f]{1,5}|[A-Za-z]{2,8});")
_INLINE = frozenset(
    {
        "b", "i", "u", "s", "em", "strong", "span", "font", "a", "sup", "sub", "small", "big", "mark",
        "code", "tt", "abbr", "bdi", "cite", "q", "ins", "del"
    }
)  # fmt: skip
_BLOCK = frozenset(
    {
        "p", "div", "li", "ul", "ol", "dl", "dt", "dd", "tr", "table", "thead", "tbody", "hr",
        "h1", "h2", "h3", "h4", "h5", "h6", "html", "body", "head", "section", "article", "pre",
        "blockquote", "main", "header", "footer", "title", "meta", "label", "center", "text", "report",
        "answer", "document", "root", "response", "output"
    }
)  # fmt: skip


def _tag(closing: str, name: str) -> str:
    name = name.lower()
    if name in _INLINE:
        return ""
    if name == "br":  # a line, like any other: it may end a statement or not
        return "\n"
    if name in ("td", "th"):
        return " " if closing else "| "
    if closing or name in _BLOCK:
        return BREAK
    return f"{BREAK}{name.replace('_', ' ').replace('-', ' ')}: "  # <findings> is a heading


def _entity(code: str) -> str | None:
    sign = unescape(code)
    return None if sign == code else (_character(sign) or (" " if sign.isspace() else sign))


# ---------------------------------------------------------------- JSON

_JSON = re.compile(r'"[^"\n]{1,60}"\s*:\s*(?:["\[{\dtfn-])|\A\s*\[\s*"')
_OBJECT = re.compile(
    r'\\n|\\"|\\u00a0|\\t|(?:_\d+)?"\s*:\s*"?|"?\s*,\s*"(?P<status>present|presence|status|value|result|positive|label|exists)"\s*:\s*"?'
    r'|"?\s*,\s*"(?P<attribute>side|laterality|location|severity|size|change|count|position|place)"\s*:\s*"?'
    r'|"(?P<name>finding|name|observation|condition|abnormality)"\s*:\s*"'
    r'|"?\s*[,}\]]\s*[,}\]\s]*"?|[{\["]|,\s*(?=")'
)


def _json(made: Plain) -> Plain:
    start = made.text.find("{")
    start = made.text.find("[") if start < 0 else start

    def replaced(match: re.Match[str]) -> str | None:
        if match.start() < start or _DIGITS.fullmatch(made.text[max(match.start() - 1, 0) : match.end() + 1]):
            return None
        mark = match[0].strip()
        if match["status"]:
            return ": "
        if match["attribute"]:
            return ", "
        if match["name"]:
            return BREAK
        if mark in ("\\n", "\\t", "\\u00a0"):
            return "\n" if mark == "\\n" else " "
        if mark == '\\"':
            return " "
        if '"' in mark and mark.rstrip('" ').endswith(":"):
            return ": "
        # A comma within a text is the text's own.
        return None if mark == "," else BREAK

    return _edited(made, _OBJECT, replaced)


_DIGITS = re.compile(r"\d,\d")

# ---------------------------------------------------------------- Markdown and tables

_MARKED = re.compile(r"[*#`~\[]|(?<!_)__(?!_)|\w_\w")
_MARKDOWN = re.compile(
    r"(?m)(?P<heading>^[ \t]*#{1,6}[ \t]+(?P<title>[^\n]*?)[ \t#]*$)"
    r"|(?P<bullet>^[ \t]*[*+][ \t]+(?:\[[ xX]?\][ \t]+)?)"
    r"|(?P<fence>```\w*)"
    r"|(?P<name>(?<=[A-Za-z])_(?=[A-Za-z]))"
    r"|(?P<mark>\*+|`|~~|(?<![_\w])__(?=[A-Za-z])|(?<=[\w.:])__(?!_))"
)


def _markdown(match: re.Match[str]) -> str | None:
    if match["heading"]:
        title = match["title"].strip("*_: ")
        return f"{BREAK}{title}:" if title else BREAK
    if match["bullet"]:
        return f"{BREAK}- "
    if match["fence"]:
        return BREAK
    return " " if match["name"] else ""


_RULE = re.compile(r"(?m)^[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-{2,}:?[ \t]*)*\|?[ \t]*$")
_ROW = re.compile(r"[^\n" + BREAK + r"]*\|[^\n" + BREAK + r"]*")


def _cells(match: re.Match[str]) -> Edits:
    """A row: its first cell is the name of what the second tells, or each cell speaks for itself."""
    row, first = match[0], match.start()
    bars = [index for index, sign in enumerate(row) if sign == "|"]
    cells = [cell.strip() for cell in row.split("|")]
    filled = [index for index, cell in enumerate(cells) if cell]
    framed = row.lstrip().startswith("|")
    named = len(filled) > 1 and _is_name(cells[filled[0]], framed) and (framed or _is_value(cells[filled[1]]))
    for index, bar in enumerate(bars):
        sign = BREAK
        if named and filled[0] <= index < filled[1]:
            sign = ": " if index == filled[1] - 1 else ""
        elif named and filled[1] <= index < filled[-1]:
            sign = ", "
        yield first + bar, first + bar + 1, sign


_LEADER = re.compile(r"\s*(?:\.[. ]*\.\.\.[. ]*|[-=]+>)\s*(?=\w)")
"""What leads from a name to its value: ``Effusion ...... none``, ``effusion -> none``."""
_TABS = re.compile(r"(?m)^([^\t\n]+)(\t[\t ]*)([^\t\n]+)")


def _tabbed(match: re.Match[str]) -> Edits:
    """A name and its value with a tab between."""
    if _is_name(match[1], framed=True) and _is_value(match[3]):
        yield *match.span(2), ": "


_ALONE = re.compile(r"(?m)^([A-Z][A-Za-z ]{3,30}?)[ \t]*\n(?=[A-Z][a-z])")


def _headed(match: re.Match[str]) -> str | None:
    """A line that only names a part of the body heads the line behind it."""
    name = " ".join(word for word, _, _ in tokens(match[1]))
    book = lexicon()
    if name in book.structure_names and name not in book.sections and name not in book.other_sections:
        return f"{match[1]}: "
    return None


def _is_name(cell: str, framed: bool) -> bool:
    """Whether a cell is the bare name of a finding, of a part of the body or of a section."""
    book = lexicon()
    words = " ".join(word for word, _, _ in tokens(cell.strip(": ")))
    if words.endswith("s") and words[:-1] in book.names:
        return True
    return words in book.names or (framed and words in book.sections)


def _is_value(cell: str) -> bool:
    return " ".join(word for word, _, _ in tokens(cell.strip(" ."))) in lexicon().values


# ---------------------------------------------------------------- words broken over lines

_HYPHENATED = re.compile(r"([^\W\d_]{2,})-[ \t]*\n[ \t]*([^\W\d_]{2,})")


def _joined(match: re.Match[str]) -> str | None:
    whole = match[1] + match[2]
    return whole if lexicon().knows(whole.lower()) else f"{match[1]}-{match[2]}"
