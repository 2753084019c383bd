"""CheXpert's 14 labels from text or findings."""

from __future__ import annotations

from collections.abc import Iterable

from radpref.findings.lexicon import lexicon
from radpref.findings.reader import read
from radpref.records import Finding

CLASSES_14 = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""CheXpert's labels, in the order of its files."""
CLASSES_5 = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five of CheXpert's competition."""
CHEXPERT: dict[str, str | None] = dict(lexicon().chexpert)
"""Finding name to CheXpert class; None for a finding that has no class."""

_WORTH = {"present": 2, "uncertain": 1, "absent": 0}
_WEAK = lexicon().weak
_LABEL = {2: 1, 1: -1, 0: 0}
_NOT_COUNTED = lexicon().benign | {name for name, chexpert in CHEXPERT.items() if chexpert == "Support Devices"}


def labels(text_or_findings: str | Iterable[Finding]) -> dict[str, int | None]:
    """CheXpert's 14 labels of a report: 1 positive, 0 negative, -1 uncertain, None not mentioned.

    Several statements about one class: positive before uncertain before negative. A general statement (``lungs are
    clear``) denies no single class. No Finding is 1 where something was read and nothing is present or uncertain,
    support devices and what the lexicon calls benign (clips, low lung volumes, ...) aside, and None otherwise;
    findings without a class (emphysema, scoliosis) count as something found. Vascular congestion makes Edema
    uncertain, not positive (Irvin et al., 2019).
    """
    findings = read(text_or_findings) if isinstance(text_or_findings, str) else tuple(text_or_findings)
    worth: dict[str, int] = {}
    clean = bool(findings)
    for finding in findings:
        name = CHEXPERT.get(finding.name)
        value = _WORTH[finding.presence]
        if name is not None:
            worth[name] = max(worth.get(name, 0), min(value, 1) if finding.name in _WEAK else value)
        if value and finding.name not in _NOT_COUNTED:
            clean = False
    result: dict[str, int | None] = {name: _LABEL[worth[name]] if name in worth else None for name in CLASSES_14}
    result["No Finding"] = 1 if clean else None
    return result
