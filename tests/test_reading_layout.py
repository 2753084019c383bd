"""The layout of a report changes nothing in what is read; what is no English report is told apart."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reading_invariance import LAYOUTS, changed, report_of
from radpref.data.phantom.image import generator
from radpref.data.phantom.patients import sample
from radpref.data.phantom.reports import write
from radpref.findings import language_of, lexicon, read, unreadable
from radpref.findings.text import plain

MOST = 0.01
"""Share of reports in which a layout may change a label."""


def phantoms(count: int) -> list[str]:
    texts = []
    for index in range(count):
        patient = sample(index, seed=9, prior_share=0.3)
        report = write(
            [lesion.finding() for lesion in patient.at("current")],
            (),
            patient.before is not None,
            generator(9, index, 4),
        )
        texts.append(" ".join(report.findings.replace("- ", "").split()))
    return texts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_no_label_of_a_phantoms_report(layout: str) -> None:
    texts = phantoms(150)
    bad = [text for text in texts if changed(text, layout)]
    assert len(bad) <= MOST * len(texts), bad[:3]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_no_label_of_a_real_report(layout: str, shared_data: Path) -> None:
    lines = (shared_data / "iu_xray_256/reports.jsonl").read_text("utf-8").splitlines()
    texts = list(islice((text for line in lines[1::12] if (text := report_of(json.loads(line)))), 200))
    assert sum(changed(text, layout) for text in texts) <= MOST * len(texts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<p>Small <b>left</b> effusion.</p>", "effusion"),
        ("Small left e\ufb00usion.", "e\ufb00usion"),
        ("A left pneumo-\nthorax.", "pneumo-\nthorax"),
        ("&nbsp;&nbsp;Left&nbsp;effusion", "effusion"),
        ('{"findings": "A mass.\\nLeft effusion."}', "effusion"),
        ("| Pleural effusion | Present |", "Pleural effusion"),
        ("<think>mass?</think> **Left** effusion", "effusion"),
    ],
)
def test_spans_are_offsets_into_the_text_with_its_layout(text: str, said: str) -> None:
    spans = [text[f.span.start : f.span.end] for f in read(text) if f.span]
    assert said in spans


@given(st.text(alphabet="ab .\n<>&|*_-\"{}[]:,;#`/\ufb01\u2022\u2028'", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_layout_is_survived(text: str) -> None:
    made = plain(text)
    assert made.offsets is None or len(made.offsets) == len(made.text)
    for index in range(len(made.text)):
        start, end = made.span(index, index + 1)
        assert 0 <= start < end <= len(text) or made.text[index].isspace()


# ---------------------------------------------------------------- what the final word is


def said(text: str) -> dict[str, str]:
    return {finding.name: finding.presence for finding in read(text)}


def test_an_addendum_takes_the_place_of_what_it_speaks_of() -> None:
    assert said("FINDINGS: No pneumothorax. Small left effusion.\nADDENDUM: There is a tiny right pneumothorax.") == {
        "pneumothorax": "present",
        "pleural effusion": "present",
    }
    both = read("IMPRESSION: Right pneumothorax. Left pneumothorax.\nADDENDUM: No left pneumothorax.")
    assert [(f.side, f.presence) for f in both] == [("right", "present"), ("left", "absent")]


def test_a_preliminary_reading_counts_where_nothing_else_is_left() -> None:
    assert said("WET READ: Small pneumothorax.") == {"pneumothorax": "present"}
    assert said("WET READ: Small pneumothorax.\nFINAL REPORT: No pneumothorax.") == {"pneumothorax": "absent"}


def test_a_report_in_one_line_behind_its_comparison_is_read() -> None:
    assert said("COMPARISON: None. Small effusion.") == {"pleural effusion": "present"}
    assert said("HISTORY: Effusion.\n\nFINDINGS: Mass.") == {"mass": "present"}


def test_a_question_says_nothing_but_can_be_asked_for() -> None:
    assert read("Is there a pleural effusion?") == ()
    assert [f.name for f in read("Is there a pleural effusion?", questions=True)] == ["pleural effusion"]


# ---------------------------------------------------------------- language and chatter


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Kein Pneumothorax.", "German"),
        ("Herz normal groß, keine Stauung.", "German"),
        ("No hay edema ni cardiomegalia.", "Spanish"),
        ("Derrame pleural izquierdo.", "Spanish"),
        ("Pas d'épanchement pleural.", "French"),
        ("Nessun versamento pleurico.", "Italian"),
        ("Sem derrame pleural.", "Portuguese"),
        ("Geen pneumothorax.", "Dutch"),
        ("心影不大，双肺清晰。", "Chinese"),
        ("Без очаговых изменений.", "Cyrillic"),
        ("Keuhkoissa ei todeta infiltraatteja, sydän on normaalin kokoinen eikä nestettä näy pleuratiloissa.", "fi"),
        ("I'm sorry, but I cannot interpret medical images.", "declines"),
        ("As an AI language model, I can't read this radiograph.", "declines"),
        ("I am unable to provide a diagnosis of the effusion.", "declines"),
        ("<think>Perhaps an effusion.", "thinks aloud"),
        ("Is there a pneumothorax? Would you like more views?", "only asks"),
        ("...", "no words"),
        ("", "no words"),
    ],
)
def test_what_is_no_english_report_is_told_with_its_reason(text: str, reason: str) -> None:
    assert reason in str(unreadable(text))
    assert read(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "Normal.",
        "NAD",
        "Cardiomegaly.",
        "Pneumothorax.",
        "LUNGS CLEAR. NO PTX.",
        "RUL PNA, b/l effusions.",
        "XXXX XXXX.",
        "No edema.",
        "Mediastinum normal. Aorta tortuosa?",
        "Small left effusion?",
        "I do not see a pneumothorax.",
        "I cannot identify a fracture.",
        "MULTIPLE MYELOMA BMT W/U LAB;",
        "LA enlarged. De novo nodule.",
        "Les Smith notified.",
    ],
)
def test_short_and_telegram_style_english_is_readable(text: str) -> None:
    assert unreadable(text) is None


def test_no_real_report_is_called_foreign(shared_data: Path) -> None:
    for line in (shared_data / "iu_xray_256/reports.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        for field in ("findings", "impression", "indication", "comparison"):
            assert language_of(row[field]) in (None, "English"), (row["uid"], field)
            assert language_of(row[field].upper()) in (None, "English"), (row["uid"], field)


# ---------------------------------------------------------------- slips


@pytest.mark.parametrize(
    ("slip", "word"),
    [
        ("pnuemothorax", "pneumothorax"),
        ("effussion", "effusion"),
        ("atelectesis", "atelectasis"),
        ("cardiomegally", "cardiomegaly"),
        ("consolidaton", "consolidation"),
        ("haemothorax", "hemothorax"),
        ("visualised", "visualized"),
    ],
)
def test_a_slip_of_one_letter_is_mended(slip: str, word: str) -> None:
    assert lexicon().spelled(slip) == word


@pytest.mark.parametrize(
    "word",
    [
        "injection",
        "atypical",
        "passive",
        "function",
        "resolve",
        "diffusion",
        "lobulated",
        "modular",
        "probably",
        "mass",
        "internal",
    ],
)
def test_a_word_of_its_own_is_no_slip(word: str) -> None:
    assert lexicon().spelled(word) == word
