"""A finding denied, or stated, in words that fit the report: sentence by sentence, as little changed as possible.

Like `attributes`, each function yields whole reports, the least changed first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from radpref.findings import grammar
from radpref.findings.labels import CHEXPERT
from radpref.findings.lexicon import lexicon
from radpref.findings.rewrite import phrases
from radpref.findings.rewrite.attributes import noun_phrase_start, style_of, surface
from radpref.findings.rewrite.sentences import (
    Sentence,
    contradictions,
    of_the_rest,
    replaced,
    sentence_of,
    sentences,
    words,
)
from radpref.records import Finding

_SEPARATOR = re.compile(
    r"\s*,\s+(?:and |or |with |and/or )?|\s+(?:and/or|as well as|along with|and|or|with|nor|plus|without)\s+"
)
_SEEN = re.compile(r"\b(?:is|are)\s+(present|seen|noted|identified|visualized|demonstrated|evident)\b", re.IGNORECASE)
_SHOWS = re.compile(
    r"(?:(?:the|this)\s+)?(?:film|radiograph|image|x-?ray|study|exam(?:ination)?)\s+shows\b"
    r"|what\s+it\s+marks\s+is\b|the\s+\w+\s+\w+\s+marks\b",
    re.IGNORECASE,
)
"""How an answer to a question begins: about the image, or about a mark on it."""
_ORGANS: tuple[frozenset[str], ...] = (
    frozenset(
        {"pleural effusion", "pneumothorax", "costophrenic blunting", "pleural thickening", "pleural abnormality"}
    ),
    frozenset({"cardiomegaly", "chamber enlargement", "pericardial effusion"}),
    frozenset({"enlarged mediastinum", "lymphadenopathy", "aortic aneurysm", "mediastinal shift", "pneumomediastinum"}),
    frozenset({"rib fracture", "fracture", "bone lesion", "bone abnormality", "deformity", "degenerative change"}),
    frozenset({"pneumoperitoneum", "hiatal hernia"}),
    frozenset(name for name, label in CHEXPERT.items() if label == "Support Devices"),
)
"""Findings whose sentences stand together; all others are of the lungs."""
_STATES = {
    "cardiomegaly": ("heart", "cardiomediastinum"),
    "enlarged mediastinum": ("mediastinum", "cardiomediastinum"),
    "lymphadenopathy": ("hila",),
    "vascular congestion": ("vessels",),
    "interstitial opacity": ("interstitium",),
    "elevated hemidiaphragm": ("diaphragm",),
}
"""Findings that are told by the state of a structure."""
_NORMAL_SAID = {
    "cardiomegaly": "The heart is normal in size",
    "enlarged mediastinum": "The mediastinum is normal",
    "lymphadenopathy": "The hila are normal",
    "vascular congestion": "The pulmonary vasculature is normal",
}
_ABNORMAL_SAID = {
    "cardiomegaly": "The heart is {}enlarged",
    "enlarged mediastinum": "The mediastinum is {}widened",
    "lymphadenopathy": "The hila are {}enlarged",
    "vascular congestion": "The pulmonary vasculature is {}congested",
}
_ABNORMAL = {
    "cardiomegaly": "enlarged",
    "enlarged mediastinum": "widened",
    "lymphadenopathy": "enlarged",
    "vascular congestion": "congested",
    "interstitial opacity": "prominent",
    "elevated hemidiaphragm": "elevated",
}


def is_device(name: str) -> bool:
    """Whether a finding is a support device, which nobody denies by name."""
    return CHEXPERT.get(name) == "Support Devices"


# ---------------------------------------------------------------- denying


def denied(text: str, mention: Finding, *, rebuild: bool = True) -> Iterator[str]:
    """Reports in which the statement that ``mention`` (read from ``text``) makes is not made any more.

    With ``rebuild`` the last one writes a sentence that tells other findings too anew, out of those.
    """
    sentence = _without_followers(sentence_of(text, mention), mention)
    others = [m for m in sentence.mentions if m.name != mention.name]
    yield from (replaced(sentence, body) for body in _normal_states(sentence, mention))
    if others and all(m.name in lexicon().minor for m in others):
        yield from (replaced(sentence, body) for body in without(sentence, mention))
    elif others:
        yield from (replaced(sentence, body) for body in without(sentence, mention))
        if not rebuild:
            return
        kept = [phrases.sentence(m, style_of(sentence.body), surface(text, m)) for m in _told_once(others)]
        yield replaced(sentence, *kept)
        return
    said_already = any(
        m.presence == "absent" and (m.name == mention.name or mention.name in lexicon().covers.get(m.name, ()))
        for other in sentences(text)
        if other != sentence
        for m in other.mentions
    )
    several = len(sentences(text)) > 1
    if several and (is_device(mention.name) or said_already):
        yield replaced(sentence)
    yield replaced(sentence, _denial(sentence, mention))
    yield replaced(sentence, phrases.sentence(Finding(name=mention.name, presence="absent")))
    if several:
        yield replaced(sentence)


_ANAPHOR = re.compile(r"(?:this|it|these|they|the largest)\b", re.IGNORECASE)


def _without_followers(sentence: Sentence, mention: Finding) -> Sentence:
    """The sentence in its report without the sentences behind it that go on about it (``This is 1.2 cm wide.``)."""
    index = sentences(sentence.text).index(sentence)
    text = sentence.text
    while index + 1 < len(sentences(text)):
        follower = sentences(text)[index + 1]
        if not _ANAPHOR.match(follower.body) or any(m.name != mention.name for m in follower.mentions):
            break
        text = replaced(follower)
    return sentences(text)[index]


def _told_once(mentions: list[Finding]) -> list[Finding]:
    found: dict[tuple[str, str | None], Finding] = {}
    for mention in mentions:
        found.setdefault((mention.name, mention.side), mention)
    return list(found.values())


def _denial(sentence: Sentence, mention: Finding) -> str:
    said = surface(sentence.text, mention) or grammar.noun(mention.name)
    body = sentence.body
    style = style_of(body)
    if style == "there":
        verb = re.match(r"there\s+(?:is|are)", body, re.IGNORECASE)
        return f"{verb[0] if verb else 'There is'} no {said}"
    if shows := _SHOWS.match(body):
        return f"{shows[0]} no {said}"
    seen = _SEEN.search(body)
    if style == "seen" and seen and seen.start() > sentence.at(mention)[0]:
        return f"No {said} {seen[0]}"
    return f"No {said}"


def _normal_states(sentence: Sentence, mention: Finding) -> Iterator[str]:
    """``The heart is mildly enlarged, unchanged`` to ``The heart is normal in size``."""
    body = sentence.body
    start, end = sentence.at(mention)
    inside = words(body)
    states = [w for w in inside if w.kind == "state" and start <= w.start and w.end <= end]
    structures = [w for w in inside if w.kind == "structure" and start <= w.start and w.end <= end]
    if not states or not structures:
        return
    state = states[-1]
    if state.start < structures[0].start:  # "enlarged heart"
        return
    before = body[: noun_phrase_start(body, state.start)]
    before = re.sub(r"\b(?:more|most|quite|somewhat|slightly|mildly|moderately|severely)\s+$", "", before)
    heart = structures[0].value == "heart" and "size" not in body[structures[0].start : state.start]
    end = state.end
    for further in inside:  # "borderline enlarged"
        if further.kind == "state" and 0 <= further.start - end <= 1:
            end = further.end
    after = re.sub(
        rf"^,?\s*(?:and\s+)?(?:(?:is|appears?|has)\s+)?(?:\w+ly\s+)?(?:{_CHANGED}).*$",
        "",
        body[end:],
        flags=re.IGNORECASE,
    )
    for normal in ("normal in size", "normal") if heart else ("normal", "unremarkable"):
        yield before + normal + after


_CHANGED = "new|increased|decreased|worse|worsened|improved|unchanged|stable|larger|smaller|enlarged"


def without(sentence: Sentence, mention: Finding) -> Iterator[str]:
    """The sentence without the item of its list that names ``mention``; nothing where it stands in no list."""
    body = sentence.body
    start, end = sentence.at(mention)
    cuts = [m for m in _SEPARATOR.finditer(body) if m.start() >= end or m.end() <= start]
    before = [m for m in cuts if m.end() <= start]
    after = [m for m in cuts if m.start() >= end]
    spans = [sentence.at(m) for m in sentence.mentions if m.name != mention.name]
    # the nearest separators that have another finding behind them
    left = next((m for m in reversed(before) if _free(spans, m.end(), start)), None) if before else None
    right = next((m for m in after if _free(spans, end, m.start())), None) if after else None
    np = noun_phrase_start(body, start)
    if left and right:
        rest = body[: left.start()] + right[0] + body[right.end() :]
        yield _tidy(rest)
        yield _tidy(body[: left.end()] + body[right.end() :])
    if right and any(first >= right.end() for first, _ in spans):
        following = body[right.end() :]
        yield _tidy(body[:np] + (grammar.capital(following) if np == 0 else following))
    if left and any(last <= left.start() for _, last in spans):
        earlier = body[: left.start()]
        tail = _SEEN.search(body, end)
        closed = _closed(earlier, left[0])
        if tail:
            yield _tidy(f"{closed} {body[tail.start() :]}")
        yield _tidy(closed)


def _free(spans: list[tuple[int, int]], start: int, end: int) -> bool:
    return not any(start <= first < end for first, _ in spans)


def _closed(earlier: str, separator: str) -> str:
    """``A, B`` to ``A and B`` where ``and C`` was cut off."""
    conjunction = re.search(r"\b(and|or|nor)\b", separator)
    commas = list(re.finditer(r",\s+", earlier))
    if conjunction and commas and not re.search(r"\b(?:and|or)\b", earlier[commas[-1].end() :]):
        last = commas[-1]
        return f"{earlier[: last.start()]} {conjunction[1]} {earlier[last.end() :]}"
    return earlier


def _tidy(body: str) -> str:
    """A sentence that lost an item of its list, with the commas, conjunctions and verbs that it then takes."""
    body = re.sub(r"\s{2,}", " ", body).strip(" ,;")
    body = re.sub(r"\b(?:no|without|any)\s+(?=no\b)", "", body, flags=re.IGNORECASE)
    if len(_SEPARATOR.findall(body)) == 1:  # "A, or C" and, denied, "A, C"
        body = re.sub(r",\s+(and|or)\s+", r" \1 ", body)
        if re.search(r"\b(?:no|without|free of|clear of|negative for)\b[^,]*,", body, re.IGNORECASE):
            body = re.sub(r",\s+(?!(?:no|with|without)\b)", " or ", body)
    lonely = not re.search(r"\b(?:and|with)\b|,", body)
    many = re.match(r"There are (?!no\b)(?!.*(?:s|pneumothoraces|opacities)\b)", body)
    if lonely and many:
        body = "There is" + body[len("There are") :]
    return grammar.capital(body)


# ---------------------------------------------------------------- stating


def stated(text: str, finding: Finding) -> Iterator[str]:
    """Reports that state ``finding`` as well, and do not deny it any more."""
    for report in _stated(text, finding):
        yield settled(report, finding)


def _stated(text: str, finding: Finding) -> Iterator[str]:
    found = sentences(text)
    style = report_style(text)
    wanted = finding.model_copy(update={"presence": "present", "span": None})
    for sentence in found:
        for mention in sentence.mentions:
            if mention.name != finding.name or mention.presence != "absent":
                continue
            others = [m for m in sentence.mentions if m.name != mention.name]
            yield from (replaced(sentence, body) for body in _abnormal_states(sentence, mention, wanted))
            said = surface(text, mention)
            if others:
                yield from _split(sentence, mention, phrases.sentence(wanted, _like(sentence, style), said))
            else:
                yield replaced(sentence, _turned_round(sentence, wanted, said))
                yield replaced(sentence, phrases.sentence(wanted, "plain"))
    for sentence in found:
        for mention in sentence.mentions:
            if mention.presence == "absent" and finding.name in lexicon().covers.get(mention.name, ()):
                yield replaced(sentence, phrases.sentence(wanted, style), sentence.body)
    yield _added(text, phrases.sentence(wanted, style), finding.name)


def _like(sentence: Sentence, style: phrases.Style) -> phrases.Style:
    """The style of a statement that comes out of a denial: its own, or the report's."""
    return "there" if style_of(sentence.body) == "there" else "plain" if style == "seen" else style


def _turned_round(sentence: Sentence, wanted: Finding, said: str | None) -> str:
    """``There is no effusion`` to ``There is a small left effusion``; ``No effusion is seen`` likewise."""
    body = sentence.body
    style = style_of(body)
    stated = phrases.sentence(wanted, "there" if style == "there" else "plain", said)
    if (shows := _SHOWS.match(body)) and wanted.change is None:
        return f"{shows[0]} {phrases.phrase(wanted, said).with_article()}"
    seen = _SEEN.search(body)
    if style == "seen" and seen and wanted.change is None:
        words_ = phrases.phrase(wanted, said)
        return grammar.capital(f"{words_.with_article()} {words_.be} {seen[1]}")
    return stated


def _abnormal_states(sentence: Sentence, mention: Finding, wanted: Finding) -> Iterator[str]:
    """``Heart size is normal`` to ``Heart size is mildly enlarged``."""
    body = sentence.body
    if wanted.name not in _STATES:
        return
    start, end = sentence.at(mention)
    inside = words(body)
    structures = [w for w in inside if w.kind == "structure" and start <= w.start and w.end <= end]
    states = [w for w in inside if w.kind == "state" and start <= w.start and w.end <= end]
    if not structures or not states or structures[0].value not in _STATES[wanted.name]:
        return
    grade = f"{grammar.ADVERBS[wanted.severity]} " if wanted.severity else ""
    new = f"{grade}{_ABNORMAL[wanted.name]}"
    tail = ", new from the prior" if wanted.change == "new" else grammar.tail(wanted.change)
    others = [m for m in sentence.mentions if m.name != mention.name]
    said = {m.name: _NORMAL_SAID.get(m.name, "") for m in sentence.mentions}
    if wanted.name in _ABNORMAL_SAID and all(said.values()) and (others or structures[0].value == "cardiomediastinum"):
        said[wanted.name] = _ABNORMAL_SAID[wanted.name].format(grade) + tail
        yield ". ".join(said.values())
    if states[0].start < structures[0].start:  # "normal heart size"
        word = grammar.capital(new) if states[0].start == 0 else new
        yield f"{body[: states[0].start]}{word}{body[states[0].end :]}"
        return
    before = re.sub(r"\b(?:grossly|within|at|stable|borderline|overall)\s+$", "", body[: states[0].start])
    if not others:
        yield before + new + tail
    elif structures[0].end < states[0].start and (
        joined := _SEPARATOR.search(body, structures[0].end, states[0].start)
    ):
        # "heart size and mediastinal contours are normal"
        rest = body[joined.end() :]
        yield f"{body[: joined.start()]} is {new}{tail}. {grammar.capital(rest)}"
    yield before + new + body[states[-1].end :]


def _split(sentence: Sentence, mention: Finding, statement: str) -> Iterator[str]:
    """A denial taken out of its list, and the statement put where it stood: before the others or behind them."""
    start, _ = sentence.at(mention)
    first = all(sentence.at(m)[0] >= start for m in sentence.mentions)
    for rest in without(sentence, mention):
        yield replaced(sentence, statement, rest) if first else replaced(sentence, rest, statement)


def settled(text: str, finding: Finding) -> str:
    """The report without what contradicts a finding that it states.

    An item of a list is taken out, a sentence of its own is dropped, a general statement becomes ``otherwise``.
    """
    for _ in range(6):
        if finding.name not in contradictions(text):
            return text
        clash = next(
            (
                (sentence, mention)
                for sentence in sentences(text)
                for mention in sentence.mentions
                if mention.presence == "absent"
                and (mention.name == finding.name or finding.name in lexicon().covers.get(mention.name, ()))
                and not of_the_rest(sentence, mention)
            ),
            None,
        )
        if clash is None:
            return text
        text = _relieved(*clash, finding)
    return text


def _relieved(sentence: Sentence, mention: Finding, finding: Finding) -> str:
    body = sentence.body
    others = [m for m in sentence.mentions if m.name != mention.name]
    if mention.name != finding.name:
        return replaced(sentence, _otherwise(sentence, mention))
    if not others:
        return replaced(sentence)
    for rest in without(sentence, mention):
        shorter = replaced(sentence, rest)
        if finding.name not in {m.name for s in sentences(shorter) if s.start == sentence.start for m in s.mentions}:
            return shorter
    kept = [phrases.sentence(m, style_of(body), surface(sentence.text, m)) for m in _told_once(others)]
    return replaced(sentence, *kept)


def _otherwise(sentence: Sentence, mention: Finding) -> str:
    """``The lungs are clear`` to ``The lungs are otherwise clear``, ``No disease`` to ``No other disease``."""
    body = sentence.body
    start, end = sentence.at(mention)
    states = [w for w in words(body) if w.kind == "state" and start <= w.start and w.end <= end]
    if states:
        place = states[0].start
        word = "Otherwise " if place == 0 else "otherwise "
        return body[:place] + word + (grammar.uncapital(body[place:]) if place == 0 else body[place:])
    negation = re.search(r"\b(?:no evidence of|no|without|any)\s+(?=\S)", body, re.IGNORECASE)
    if negation and negation.end() <= start + 1:
        return f"{body[: negation.end()]}other {body[negation.end() :]}"
    return f"{body[:start]}other {body[start:]}"


# ---------------------------------------------------------------- style


def report_style(text: str) -> phrases.Style:
    """How a report states its findings, by most of its sentences; plain where it does not tell."""
    styles = [style_of(s.body) for s in sentences(text) if s.mentions]
    stating = [style_of(s.body) for s in sentences(text) if any(m.presence != "absent" for m in s.mentions)]
    votes = stating or styles
    order: tuple[phrases.Style, ...] = ("plain", "there", "seen")
    return max(order, key=lambda style: votes.count(style))


def _organ(name: str) -> int:
    return next((number for number, names in enumerate(_ORGANS) if name in names), -1)


def _added(text: str, statement: str, name: str) -> str:
    """The statement behind the last sentence about the same organ, else at the end."""
    found = sentences(text)
    same = [s for s in found if any(_organ(m.name) == _organ(name) for m in s.mentions)]
    if same:
        last = same[-1]
        return replaced(last, last.body, statement)
    if not found:
        return f"{text.rstrip()} {statement}.".strip()
    last = found[-1]
    end = text.rstrip()
    stop = "" if end.endswith((".", "!", "?")) else "."
    lead = text[last.lead : last.start]
    if re.match(r"[-*•]", lead):
        return f"{end}{stop}\n{lead[:2]}{statement}."
    headed = sum(bool(re.match(r"[A-Z][A-Za-z/ ]{2,30}:", text[s.lead : s.start])) for s in found)
    return f"{end}{stop} {'Other: ' if headed > 2 else ''}{statement}."
