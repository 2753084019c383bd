"""The built-in world: what is drawn, where it lies, and that it follows from the seed."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from radpref.data.phantom import NAMES, STREAM, contact_sheet, draw, stream
from radpref.data.phantom import image as images
from radpref.data.phantom.lateral import SHOWN
from radpref.data.phantom.patients import GRADED, SEVERITIES, Lesion, _lesion, generator, sample
from radpref.data.phantom.sheet import COLOURS
from radpref.records import Finding

FINGERPRINT = """
import hashlib
from radpref.data.phantom import draw
total = hashlib.sha256()
for index in (0, 3, 8, 11):
    for view in ("frontal", "lateral"):
        image = draw(index, seed=4, size=96, view=view)
        total.update(image.image.tobytes())
        total.update(repr((image.truth, image.report)).encode())
        for name, mask in image.masks.items():
            total.update(name.encode() + mask.tobytes())
print(total.hexdigest())
"""


def graded(lesion: Lesion, severity: str) -> Lesion:
    place = ("apex" if severity == "mild" else None) if lesion.name == "pneumothorax" else lesion.place
    return replace(lesion, severity=severity, place=place)  # type: ignore[arg-type]


def test_two_processes_draw_the_same() -> None:
    runs = {
        subprocess.run([sys.executable, "-c", FINGERPRINT], check=True, capture_output=True).stdout for _ in range(2)
    }
    assert len(runs) == 1


def test_seed_index_visit_and_view_each_change_the_image() -> None:
    index = next(i for i in range(50) if sample(i, seed=0).before is not None)
    pictures = [
        draw(index, seed=0, size=64),
        draw(index, seed=1, size=64),
        draw(index + 1, seed=0, size=64),
        draw(index, seed=0, size=64, visit="prior"),
        draw(index, seed=0, size=64, view="lateral"),
    ]
    assert len({hashlib.sha256(p.image.tobytes()).digest() for p in pictures}) == len(pictures)


@pytest.mark.parametrize(("size", "count"), [(128, 250), (64, 30), (75, 20), (300, 6)])
def test_every_finding_has_its_mask(size: int, count: int) -> None:
    for index in range(count):
        image = draw(index, seed=2, size=size)
        assert image.image.shape == (size, size)
        assert image.image.dtype == np.uint8
        assert set(image.masks) == {finding.name for finding in image.truth}
        for name, mask in image.masks.items():
            assert mask.shape == (size, size), name
            assert mask.dtype == np.bool_, name
            assert 3 <= mask.sum() < 0.5 * size * size, (index, name)


def test_lateral_masks_are_of_findings_that_show() -> None:
    for index in range(120):
        image = draw(index, seed=2, size=96, view="lateral")
        assert set(image.masks) == {finding.name for finding in image.truth} & set(SHOWN)
        assert all(mask.any() for mask in image.masks.values()), index


def test_the_patients_left_is_on_the_images_right() -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for index in range(700):
        image = draw(index, seed=1, size=128)
        columns = np.arange(128)
        for finding in image.truth:
            if finding.side is None:
                continue
            mask = image.masks[finding.name]
            if finding.name == "central venous catheter":  # it ends on the right whatever its side: take the start
                mask = mask & (np.cumsum(mask.any(1)) <= 6)[:, None]
            elif finding.name == "pacemaker":  # the generator, not the leads
                mask = ndimage.binary_erosion(mask, iterations=2)
            share_left = (mask.sum(0) * (columns >= 64)).sum() / mask.sum()
            seen[finding.name, finding.side] += 1
            if finding.side == "left":
                assert share_left > 0.8, (index, finding)
            elif finding.side == "right":
                assert share_left < 0.2, (index, finding)
            else:
                assert 0.02 < share_left < 0.98, (index, finding)
    assert len(seen) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_finding_shows_where_its_mask_is_and_grows_with_severity(name: str) -> None:
    """Against the same patient without it: the image changes inside the mask, and more so when more severe."""
    effects: dict[str | None, list[float]] = {}
    for index in range(12):
        healthy = replace(sample(index, seed=9), lesions=(), before=None)
        bare = images.render(healthy, seed=9, size=128).image.astype(float)
        lesion = _lesion(name, generator(5, index))
        for severity in SEVERITIES if name in GRADED else (None,):
            ill = replace(healthy, lesions=(graded(lesion, severity) if severity else lesion,))
            image = images.render(ill, seed=9, size=128)
            change = np.abs(image.image - bare)
            mask = image.masks[name]
            inside, outside = change[mask].mean(), change[~ndimage.binary_dilation(mask, iterations=3)].mean()
            assert inside > 3.0, (index, severity)
            assert inside > 2.5 * outside, (index, severity)
            effects.setdefault(severity, []).append(float(change.sum()))
    means = [np.mean(values) for values in effects.values()]
    assert all(low < high for low, high in itertools.pairwise(means))


def test_zones_lie_above_each_other() -> None:
    heights: dict[str, list[float]] = {}
    for index in range(40):
        for zone in ("upper zone", "mid zone", "lower zone"):
            healthy = replace(sample(index, seed=9), before=None)
            lesion = replace(_lesion("nodule", generator(5, index)), place=zone)
            mask = images.render(replace(healthy, lesions=(lesion,)), seed=9, size=96).masks["nodule"]
            heights.setdefault(zone, []).append(float(np.nonzero(mask)[0].mean()))
    upper, mid, lower = (np.array(values) for values in heights.values())
    assert (upper + 4 < mid).all()
    assert (mid + 4 < lower).all()


def test_a_patient_is_the_same_at_any_size() -> None:
    for index in range(6):
        small, large = draw(index, seed=3, size=64), draw(index, seed=3, size=256)
        assert small.truth == large.truth
        assert small.report == large.report
        shrunk = np.asarray(Image.fromarray(large.image).resize((64, 64), Image.Resampling.BOX), float)
        assert np.corrcoef(shrunk.ravel(), small.image.ravel())[0, 1] > 0.93  # grain apart


def test_prevalence_has_a_long_tail_and_findings_come_together() -> None:
    count = 6000
    people = [{lesion.name for lesion in sample(index, seed=0).lesions} for index in range(count)]
    share = {name: sum(name in person for person in people) / count for name in NAMES}
    assert 0.28 < sum(not person for person in people) / count < 0.40
    assert max(share.values()) < 0.20
    assert 0.01 < min(share.values()) < 0.03
    hearts = [person for person in people if "cardiomegaly" in person]
    assert sum("edema" in person for person in hearts) / len(hearts) > 3 * share["edema"]
    tubes = [person for person in people if "endotracheal tube" in person]
    assert sum("enteric tube" in person for person in tubes) / len(tubes) > 5 * share["enteric tube"]


def test_truth_keeps_to_the_vocabulary() -> None:
    places = {None, "upper zone", "mid zone", "lower zone", "apex", "base"}
    for index in range(800):
        names = []
        for lesion in sample(index, seed=6).lesions:
            finding = lesion.finding()
            names.append(finding.name)
            assert finding.name in NAMES
            assert finding.place in places
            assert (finding.severity is not None) == (finding.name in GRADED)
        assert len(names) == len(set(names))


@settings(max_examples=150, deadline=None)
@given(index=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_changes_agree_with_the_prior(index: int, seed: int) -> None:
    patient = sample(index, seed=seed, prior_share=0.5)
    assert patient.before is not None
    earlier = {lesion.name: lesion for lesion in patient.before}
    assert all(lesion.change is None for lesion in patient.before)
    for lesion in patient.lesions:
        then = earlier.get(lesion.name)
        if lesion.change == "new":
            assert then is None
            continue
        assert then is not None
        assert (then.side, then.dice) == (lesion.side, lesion.dice)
        step = {"worse": 1, "better": -1, "unchanged": 0}[lesion.change or ""]
        assert lesion.grade - then.grade == step


def test_a_prior_shows_the_same_patient() -> None:
    pairs = [(i, sample(i, seed=0)) for i in range(400)]
    same, other = [], []
    for index, patient in pairs:
        if patient.before is None or patient.lesions or patient.before:
            continue
        now, then = (draw(index, seed=0, size=64, visit=visit) for visit in ("current", "prior"))
        stranger = draw(index + 1, seed=0, size=64)
        same.append(np.corrcoef(now.image.ravel(), then.image.ravel())[0, 1])
        other.append(np.corrcoef(now.image.ravel(), stranger.image.ravel())[0, 1])
    assert len(same) >= 10
    assert np.mean(same) > np.mean(other)


def test_no_prior_means_no_change_and_no_prior_visit() -> None:
    index = next(i for i in range(50) if sample(i, seed=0).before is None and sample(i, seed=0).lesions)
    assert all(finding.change is None for finding in draw(index, seed=0, size=32).truth)
    with pytest.raises(ValueError, match="no prior visit"):
        draw(index, seed=0, size=32, visit="prior")


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ValueError, match="frontal or lateral"):
        draw(0, seed=0, size=32, view="unknown")


def test_stream_is_draw_beyond_every_split() -> None:
    images_ = list(stream(5, 3, seed=2, size=32))
    assert [image.index for image in images_] == [STREAM + 5, STREAM + 6, STREAM + 7]
    assert (images_[0].image == draw(STREAM + 5, seed=2, size=32).image).all()


def test_contact_sheet_shows_images_outlines_and_captions() -> None:
    index = next(i for i in range(300) if any(x.name == "mass" for x in sample(i, seed=0).lesions))
    items = [draw(index, seed=0, size=64), draw(index + 1, seed=0, size=64), draw(index + 2, seed=0, size=64)]
    sheet = contact_sheet(items, columns=2, tile=96)
    assert sheet.width == 192
    assert sheet.height > 192
    tile = np.asarray(sheet)[:96, :96]
    assert (tile == COLOURS["mass"]).all(-1).sum() > 8
    plain = np.asarray(contact_sheet(items, columns=2, tile=96, outlines=False))[:96, :96]
    assert not (plain == COLOURS["mass"]).all(-1).any()
    with pytest.raises(ValueError, match="needs items"):
        contact_sheet([])


def test_truth_is_made_of_findings() -> None:
    assert all(isinstance(f, Finding) and f.span is None and f.presence == "present" for f in draw(8, seed=4).truth)
