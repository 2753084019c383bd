"""MIMIC-CXR's published layout, simulated: what reading it costs, and both methods that need it, end to end.

    python benchmarks/mimic_layout.py [--studies 500 2000] [--run]

Writes the layout of MIMIC-CXR-JPG (``files/p10/...``, tables packed by gzip, a report a study) into a folder that is
removed again: every shape of report that the real one has (wet reads, addenda, titles for headings, headings misspelt,
the reports that MIT-LCP cut by hand, silent ones ...), several frontals, laterals alone, images that are missing or cut
short, up to six studies a patient. Images are few, small, and shared by hard links. Each size is read in a process of
its own; every study must come out as it was made: used, or quarantined. ``--run`` puts the larger one through
``radpref run chexalign`` and, for comparison questions about a study and its prior, ``radpref run chexpo``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from radpref.config import DataSection
from radpref.data import load_studies

POOL = 40
"""Different images of a split."""
_HEAD = f"{' ' * 33}FINAL REPORT\n"
_RULE = " " + "_" * 78 + "\n"
_ASKED = " EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  ___ year old man with cough  // pneumonia?\n \n"
_BEFORE = " TECHNIQUE:  Chest PA and lateral\n \n COMPARISON:  ___.\n \n"
_END = " IMPRESSION: \n \n As above.\n"


def _plain(text: str, heading: str = "FINDINGS:") -> str:
    return f"{_HEAD}{_ASKED}{_BEFORE} {heading} \n \n {text}\n \n{_END}"


def _body(text: str) -> str:
    """A report whose description stands where MIT-LCP's list says: characters 59 to 399."""
    return f"{' ' * 33}FINAL REPORT\n CHEST, ___ \n".ljust(59) + f"{text} ".ljust(340) + "\n Signed.\n"


SHAPES: Mapping[str, tuple[Callable[[str], str], bool]] = {
    "plain": (_plain, True),
    "wet read": (lambda text: f"{' ' * 33}WET READ: ___ ___ 10:38 PM\n  Wet words.\n{_RULE}{_plain(text)}", True),
    "addendum": (lambda text: f"{' ' * 33}FINAL ADDENDUM\n ADDENDUM:  Added words.\n{_RULE}{_plain(text)}", True),
    "wet read of several lines": (
        lambda text: f"{' ' * 33}WET READ: ___\n FINDINGS: Wet words.\n \n{_RULE}{_plain(text)}", True,
    ),
    "no findings": (lambda text: f"{_HEAD}{_ASKED}{_BEFORE}{_END}", False),
    "titled by the view": (lambda text: _plain(text, "PORTABLE AP CHEST RADIOGRAPH:"), True),
    "a title without words": (lambda text: f"{_HEAD} CHEST, PA AND LAT:\n \n{_ASKED} FINDINGS:  {text}\n{_END}", True),
    "untitled": (lambda text: f"{_HEAD} HISTORY:  Cough.\n \n {text}\n", False),
    "one heading of both": (lambda text: f"{_HEAD}{_ASKED} FINDINGS AND IMPRESSION: \n \n {text}\n", False),
    "misspelt": (lambda text: _plain(text, "FINDNGS:").replace("IMPRESSION", "IMPRSSION"), True),
    "lines of windows": (lambda text: _plain(text).replace("\n", "\r\n"), True),
    "another encoding": (lambda text: _plain(text).replace("cough", "co\xfcgh"), True),
    "broken by lines": (lambda text: _plain(text.replace(" ", "\n ")), True),
    "nothing but marks": (lambda text: _plain("___ ___"), False),
    "addendum alone": (lambda text: f"{' ' * 33}FINAL ADDENDUM\n ADDENDUM:  {text}\n", False),
    "empty": (lambda text: "", False),
    "missing": (lambda text: "", False),
}  # fmt: skip
"""A report's shape to what writes it, and whether it has findings."""
BY_HAND: Mapping[int, tuple[Callable[[str], str], bool]] = {
    50913680: (lambda text: f"{_HEAD}{_ASKED} RECOMMENDATIONS:  {text}\n", True),
    50196495: (_body, True),
    50798377: (lambda text: _plain(text), False),
}
"""Studies that MIT-LCP cut by hand: under a wrong heading, under none, and without a word about the image."""
VIEWS: Sequence[tuple[tuple[str, ...], bool]] = (
    (("PA", "LATERAL"), True),
    (("AP",), True),
    (("PA", "AP", "LATERAL", "LL"), True),
    (("PA", "LATERAL"), True),
    (("LATERAL",), False),
    (("PA", "PA missing"), True),
    (("AP", "AP cut"), True),
    (("PA missing", "LATERAL"), False),
    (("",), True),
    (("AP AXIAL", "LL"), True),
)
"""The images of a study, and whether one of them can be used."""


class Made(NamedTuple):
    """What was written."""

    studies: int
    used: dict[str, str]
    """Studies that can be used, to their findings."""
    images: int
    rows: int
    """Rows of the table of images that are of no study."""


def _findings(number: int, visit: int) -> str:
    side, other = ("left", "right") if number % 2 else ("right", "left")
    size = ("small", "moderate", "large")[number % 3]
    change = "" if not visit else f"{('larger', 'smaller', 'unchanged')[number % 3]} "
    more = ("No pneumothorax.", f"Mild {other} basilar atelectasis.", "Moderate cardiomegaly.")[number % 3]
    return f"There is a {change}{size} {side} pleural effusion. {more} Study number {number}."


def _patients(studies: int) -> Iterator[tuple[int, str, int]]:
    """A patient's number, split and number of studies."""
    left, patient = studies, 0
    while left:
        visits = min((3, 4, 6, 2, 5, 1)[patient % 6], left)
        yield patient, {0: "test", 1: "validate"}.get(patient % 12, "train"), visits
        left, patient = left - visits, patient + 1


def write(root: Path, studies: int) -> Made:
    """Write the layout with so many studies; the images are hard links to ``POOL`` of each split."""
    rng = np.random.default_rng(0)
    pools: dict[str, list[Path]] = {}
    for split in ("train", "validate", "test"):
        folder = root / "pool" / split
        folder.mkdir(parents=True)
        pools[split] = [folder / f"{number}.jpg" for number in range(POOL)]
        for path in pools[split]:
            Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    tables: dict[str, list[dict[str, Any]]] = {"metadata": [], "split": [], "chexpert": []}
    numbers = iter(range(studies))
    used: dict[str, str] = {}
    by_hand = dict(zip(range(5, studies, 7), BY_HAND, strict=False))
    images = 0
    for patient, split, visits in _patients(studies):
        subject = 10_000_000 + patient * 9_999_999 // studies
        folder = root / "files" / f"p{subject}"[:3] / f"p{subject}"
        for visit in range(visits):
            number = next(numbers)
            shape = list(SHAPES)[number % len(SHAPES)]
            study = by_hand.get(number, 60_000_000 + number)
            build, told = BY_HAND[study] if study in BY_HAND else SHAPES[shape]
            views, seen = VIEWS[number % len(VIEWS)]
            text = _findings(number, visit)
            (folder / f"s{study}").mkdir(parents=True)
            if shape != "missing" or study in BY_HAND:
                encoding = "latin-1" if shape == "another encoding" else "utf-8"
                (folder / f"s{study}.txt").write_bytes(build(text).encode(encoding))
            for place, view in enumerate(views):
                name, _, wrong = view.partition(" ") if view.endswith((" missing", " cut")) else (view, "", "")
                keys = {"dicom_id": f"{number:08x}-{place}", "subject_id": subject, "study_id": study}
                source = pools[split][(number + place) % POOL]
                path = folder / f"s{study}" / f"{keys['dicom_id']}.jpg"
                if wrong == "cut":
                    path.write_bytes(source.read_bytes()[:300])
                elif not wrong:
                    os.link(source, path)
                when = {"StudyDate": 21800506 + visit, "StudyTime": "213014.53100000002"}
                tables["metadata"].append({**keys, "ViewPosition": name, "Rows": 64, "Columns": 64, **when})
                if number % 97 != 50:  # a study that the table of the split has forgotten
                    tables["split"].append({**keys, "split": split})
                images += 1
            tables["chexpert"].append({"subject_id": subject, "study_id": study, "Pleural Effusion": 1.0, "Edema": ""})
            if told and seen and number % 97 != 50:
                used[f"s{study}"] = text
    odd = {"dicom_id": "x", "subject_id": 10_000_000, "study_id": "", "ViewPosition": "PA"}
    tables["metadata"].insert(3, odd)
    for name, rows in tables.items():
        with gzip.open(root / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return Made(studies, used, images, 1)


def read(root: Path, cache: Path, made: Made) -> dict[str, Any]:
    """Read it, and hold every study against what was made; what it cost. Raises AssertionError: a study was lost."""
    start = time.process_time()
    section = DataSection(source="mimic-cxr", root=str(root), max_images=8)
    loaded = load_studies(section, cache, 17)
    found = {study.id: study.findings for study in loaded.studies}
    assert found == made.used, "a study is used that should not be, or not used, or with other findings"
    whole = Counter(row.id for row in loaded.quarantined if "#" not in row.id)
    assert len(whole) == made.studies - len(found) + made.rows, "studies in are not studies used and quarantined"
    assert set(whole.values()) == {1}, "a study stands in quarantine twice"
    return {
        "studies": made.studies,
        "used": len(found),
        "quarantined": len(whole) - made.rows,
        "images": made.images,
        "priors": sum(study.prior is not None for study in loaded.studies),
        "reasons": dict(Counter(row.reason.split(":")[0] for row in loaded.quarantined)),
        "seconds": time.process_time() - start,
    }


def _measure(studies: int, out: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        made = write(Path(place, "mimic"), studies)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        facts = read(Path(place, "mimic"), Path(place, "cache"), made)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        Path(out).write_text(json.dumps({**facts, "before": before, "peak": peak}))


RUNS = {
    "chexalign": ("--sft.lr", "1e-5", "--sample.n", "2", "--sample.max_new_tokens", "96", "--align.beta", "0.5"),
    "chexpo": ("--task.asks", "[comparison]", "--sample.max_new_tokens", "16", "--mine.budget", "0.3"),
}
"""A method to the settings of its run, beside those of its preset ``tiny``."""
CAPS = ("--data.train", "60", "--data.validation", "10", "--data.test", "20")


def end_to_end(root: Path, method: str, out: Path) -> float:
    """``radpref run METHOD`` on the layout; the seconds that it took. Raises CalledProcessError."""
    command = [sys.executable, "-m", "radpref", "run", method, "--preset", "tiny", "--out", str(out)]
    command += ["--data", "mimic-cxr", "--data.root", str(root), *CAPS, *RUNS[method]]
    start = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, nargs="+", default=(500, 2000))
    parser.add_argument("--run", action="store_true", help="run both methods on the largest")
    given = parser.parse_args()
    for studies in given.studies:
        with tempfile.NamedTemporaryFile() as out:
            child = multiprocessing.get_context("spawn").Process(target=_measure, args=(studies, out.name))
            child.start()
            child.join()
            if child.exitcode:
                raise SystemExit(f"the process that read {studies:,} studies ended with status {child.exitcode}")
            facts = json.loads(Path(out.name).read_text())
        print(
            "{studies:,} studies of {images:,} images: {used:,} used, {quarantined:,} quarantined, ".format(**facts),
            end="",
        )
        print(
            "{priors:,} with a prior; {seconds:.1f} s of CPU, peak {peak:.0f} MiB ({before:.0f} before)".format(**facts)
        )
        print(f"  {facts['reasons']}", flush=True)
    if given.run:
        with tempfile.TemporaryDirectory() as place:
            write(Path(place, "mimic"), max(given.studies))
            for method in RUNS:
                print(f"{method}: {end_to_end(Path(place, 'mimic'), method, Path(place, method)):.0f} s")


if __name__ == "__main__":
    main()
