"""Which language a report is in, by its commonest little words: enough to say that a table is not in English."""

from __future__ import annotations

import re

WORDS = {
    "English": "the is are no of and with there in to was were for on this",
    "Spanish": "el la los las de del sin se en con no por una un y",
    "German": "der die das und kein keine im mit von ist nicht des zu bei",
    "French": "le la les des du pas de et est une un en au avec sans",
    "Portuguese": "o a os as do da dos das sem com em não e um uma",
    "Italian": "il la le di del della e non con in si un una per dei",
    "Dutch": "de het een van geen en is met in niet op te voor er zijn",
}
"""A language to words that nearly every report in it has."""
_SETS = {name: frozenset(words.split()) for name, words in WORDS.items()}
_SCRIPTS = (
    ("Chinese", "一", "鿿"),
    ("Japanese", "぀", "ヿ"),
    ("Korean", "가", "힯"),
    ("Russian", "Ѐ", "ӿ"),
    ("Arabic", "؀", "ۿ"),
)
LEAST = 4
"""Fewest words that a text is judged by."""


def language_of(text: str) -> str:
    """The likeliest language, or ``unknown``: too short, or no language's little words."""
    sample = text[:2000]
    if not sample.isascii():
        for name, first, last in _SCRIPTS:
            if sum(first <= letter <= last for letter in sample) > 0.2 * len(sample):
                return name
    words = re.findall(r"[^\W\d_]+", sample.lower())
    if len(words) < LEAST:
        return "unknown"
    counts = {name: sum(word in little for word in words) for name, little in _SETS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] >= max(1, len(words) // 20) else "unknown"
