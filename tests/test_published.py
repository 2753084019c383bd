"""Numbers that others published, computed by us on the same pairs of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from radpref.evaluation.counts import BLEU_ORDERS, text_counts
from radpref.evaluation.metrics import METRICS, corpus_bleu
from radpref.judges import JUDGES, Case
from radpref.judges.bleu import bleu

PAIRS = (
    ("W00 w01 w02 w03.", "W00 w01 w02 w03."),
    ("W04 w05 w06 w07 w08 w09 w10 w11 w12 w13.", "W14 w15 w16 w17 w06 w07 w09 w10 w11 w18 w19 w13."),
    (
        "w20. W21 W22 w23 w24 w25 w26 w27 w28 w29 w21 w30 w31.w32. W04 w33 w34 w35.",
        "W36 w37 w38 w39 w06 w00 w40 w41 w42 w43.",
    ),
    (
        "W00 w44 w01 w02 w03. W15 w16 w17 w45 w46 w47 w48 w49'w50 w51.",
        "W52 w53 w28 w33 w54 w06 w55 w56 w57 w58, w59 w00 w60 w33 w58.",
    ),
    ("W61 w04 w33 w58 w11 w21 w62 w13.", "W00 w09 w10 w63 w64."),
)
"""(reference, hypothesis) of RadEval's regression test, each word replaced by a code. Which words are equal, their
capitals and the punctuation are kept: BLEU and ROUGE see nothing else, and no report text is copied."""


@pytest.fixture
def expected(shared_data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared_data / "fixtures/radeval/expected_scores_cpu.json").read_text())
    return found


def test_rouge_l_is_radevals(expected: dict[str, Any]) -> None:
    scores = [text_counts(hypothesis, reference)["rouge:stemmed"] for reference, hypothesis in PAIRS]
    assert scores == pytest.approx(expected["per_sample"]["rougeL"])
    assert np.mean(scores) == pytest.approx(expected["default"]["rougeL"], abs=5e-5)


def test_corpus_bleu_is_radevals_under_its_tokens(expected: dict[str, Any]) -> None:
    """RadEval splits at blanks and keeps capitals; our own BLEU-4 takes 13a tokens in lower case, so it differs."""
    theirs = BLEU(tokenize="none", effective_order=True)
    sums: dict[str, float] = {"studies": len(PAIRS), "bleu:system": 0, "bleu:reference": 0}
    for reference, hypothesis in PAIRS:
        found = theirs.sentence_score(hypothesis, [reference])
        sums["bleu:system"] += found.sys_len
        sums["bleu:reference"] += found.ref_len
        for order in BLEU_ORDERS:
            for name, values in (("correct", found.counts), ("total", found.totals)):
                key = f"bleu:{name}{order}"
                sums[key] = sums.get(key, 0) + values[order - 1]
    value = corpus_bleu({name: np.asarray(float(total)) for name, total in sums.items()})
    assert float(value) == pytest.approx(expected["default"]["bleu"], abs=5e-5)

    columns = [text_counts(hypothesis, reference) for reference, hypothesis in PAIRS]
    ours = corpus_bleu({name: np.asarray(sum(c[name] for c in columns)) for name in columns[0]})
    assert float(ours) == pytest.approx(0.1037, abs=5e-5)


DIVERGENCE = {1: 1.0, 2: 0.0, 3: 1 / 3, 4: 0.5, 5: 1.0, 6: 0.0, 7: 0.0, 8: 0.0}
"""Findings-GREEN of RadEval's examples where metrics diverge: what their narratives ask of a clinical metric."""


def test_where_metrics_diverge_green_goes_with_the_findings(shared_data: Path) -> None:
    rows = json.loads((shared_data / "fixtures/radeval/divergence_examples.json").read_text())
    cases = [Case(str(row["id"]), "q", row["ref"], row["hyp"]) for row in rows]
    assert {int(j.id): j.score for j in JUDGES["green-1"]()(cases)} == pytest.approx(DIVERGENCE)
    by_weight = {int(j.id): j.score or 0 for j in JUDGES["green"]()(cases)}
    assert (by_weight[1], by_weight[5]) == (1, 1), "a paraphrase, and the same words"
    assert all(by_weight[number] < 0.5 for number in (3, 4)), "one thing missing, one false"
    assert all(by_weight[number] <= 0.1 + 1e-9 for number in (2, 6, 7, 8)), "the opposite, or another thing"
    by_bleu = {int(j.id): j.score or 0 for j in bleu(cases)}
    assert by_bleu[1] < 0.1, "a paraphrase"
    assert by_bleu[2] > by_bleu[1], "BLEU prefers the opposite"


def test_every_synthetic_report_can_be_judged(shared_data: Path) -> None:
    rows = json.loads((shared_data / "fixtures/radeval/synthetic_reports.json").read_text())
    texts = [row["ground_truth"] for row in rows]
    judged = JUDGES["green"]()([Case(str(i), "q", text, text) for i, text in enumerate(texts)])
    unscored = [texts[i] for i, judgement in enumerate(judged) if judgement.score is None]
    assert len(unscored) <= 1, "one says that nothing has changed, and names nothing"
    assert {judgement.score for judgement in judged} <= {1.0, None}


SYSTEMS = ("template", "copy_oracle_beam3", "logp_top20", "number_beam1", "clinical_oracle")


@pytest.mark.parametrize("system", SYSTEMS)
def test_text_metrics_are_the_public_ones_on_published_systems(shared_data: Path, system: str) -> None:
    """coco-caption's ROUGE-L, rouge-score's with its stemmer, sacrebleu's BLEU: to four digits."""
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    path = shared_data / f"fixtures/published_systems_iu/{system}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    counts = [text_counts(row["candidate"], row["reference"]) for row in rows]
    coco, _ = rouge.Rouge().compute_score(
        {n: [row["reference"]] for n, row in enumerate(rows)}, {n: [row["candidate"]] for n, row in enumerate(rows)}
    )
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    stemmed = np.mean([scorer.score(row["reference"], row["candidate"])["rougeL"].fmeasure for row in rows])
    expected = BLEU(lowercase=True).corpus_score([r["candidate"] for r in rows], [[r["reference"] for r in rows]])
    sums = {name: np.asarray(float(sum(row[name] for row in counts))) for name in counts[0]}
    assert METRICS["rouge_l_coco"].value(sums) == pytest.approx(coco, abs=5e-5)
    assert METRICS["rouge_l_stemmed"].value(sums) == pytest.approx(stemmed, abs=5e-5)
    assert 100 * METRICS["bleu"].value(sums) == pytest.approx(expected.score, abs=5e-5)
