"""Sources of images with lesions marked, on small files of the published layouts that the tests write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from radpref.config import DataSection
from radpref.data import DataError, load_studies
from radpref.data.boxes import box_of, names_of
from radpref.data.covid import NAMES as COVID
from radpref.data.load import SOURCES
from radpref.data.nih import NAMES as NIH
from radpref.data.source import RowError
from radpref.data.vindr import NAMES as VINDR
from radpref.findings import lexicon
from radpref.images import own_mask, read_image
from radpref.records import Quarantined, Study


def save(path: Path, size: tuple[int, int] = (64, 64), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def lines(path: Path, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


class Read(NamedTuple):
    """All that a source holds."""

    studies: list[Study]
    quarantined: list[Quarantined]
    notes: list[str]
    split: bool


def find(source: str, root: Path) -> Read:
    found = SOURCES[source].read(DataSection(source=source, root=str(root)), root / "cache", 0)
    rows = list(found.studies)
    studies = [row for row in rows if isinstance(row, Study)]
    return Read(studies, [row for row in rows if isinstance(row, Quarantined)], found.notes, found.split)


def reasons(found: Read) -> list[str]:
    return [row.reason.split(":")[0] for row in found.quarantined]


# ---- boxes


def test_a_box_is_a_share_of_its_frame() -> None:
    box = box_of(256, 512, 512, 1024, (1024, 1024))
    assert (box.left, box.top, box.right, box.bottom) == (0.25, 0.5, 0.5, 1.0)
    assert box_of(-2, 0, 1026, 10, (1024, 1024)).right == 1.0  # a hair over the edge


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        ((0, 0, float("nan"), 5), "box broken"),
        ((10, 10, 10, 20), "box empty"),
        ((20, 20, 10, 30), "box empty"),
        ((0, 0, 2000, 100), "box outside of the image"),
    ],
)
def test_a_box_that_is_none_is_refused(corners: tuple[float, float, float, float], words: str) -> None:
    with pytest.raises(RowError, match=words):
        box_of(*corners, (1024, 1024))


def test_the_names_are_of_the_lexicon() -> None:
    ms_cxr = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Lung Opacity", "Pleural Effusion")
    vindr = ("Calcification", "Emphysema", "Mediastinal shift", "Pleural thickening", "Rib fracture", "Pneumothorax")
    known = lexicon().chexpert
    for name in (*NIH.values(), *COVID.values(), *VINDR.values(), *names_of((*ms_cxr, *vindr), {})):
        assert name in known, name


# ---- NIH ChestX-ray14

ENTRY = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def nih_tables(root: Path) -> None:
    lines(
        root / "Data_Entry_2017.csv",
        [
            ENTRY,
            "00000001_000.png,Effusion|Infiltration,0,1,58,M,PA,2682,2749,0.143,0.143,",
            "00000001_001.png,No Finding,1,1,58,M,AP,2682,2749,0.143,0.143,",
            "00000002_000.png,Pneumonia,0,2,60,F,AP,2500,2048,0.171,0.171,",
            "00000003_000.png,Mass,0,3,61,F,AP,2500,2048,0.171,0.171,",
        ],
    )
    lines(
        root / "BBox_List_2017.csv",
        [
            BOXES,
            "00000001_000.png,Infiltrate,256,512,256,512,,,",
            "00000001_000.png,Effusion,0,0,102.4,102.4,,,",
            "00000002_000.png,Pneumonia,0,0,0,100,,,",
        ],
    )
    for number, name in enumerate(("00000001_000", "00000001_001", "00000002_000")):
        save(root / "images_001" / "images" / f"{name}.png", seed=number)


def test_nih_as_published(tmp_path: Path) -> None:
    nih_tables(tmp_path)
    found = find("nih", tmp_path)
    first, normal, _ = found.studies
    assert (first.patient, first.images[0].view) == ("1", "frontal")
    assert first.findings == "Pleural effusion. Lung opacity."
    assert normal.findings == "No finding."
    mask = own_mask(first.images[0], (64, 64), ["lung opacity"]).mask
    assert mask is not None
    expected = np.zeros((64, 64), np.bool_)
    expected[32:64, 16:32] = True  # the box of the frame of 1024, on an image of 64
    np.testing.assert_array_equal(mask, expected)
    assert reasons(found) == ["box empty"]
    assert "nih: 1 rows of Data_Entry_2017.csv have no image under data.root" in found.notes
    assert not found.split


def test_nih_keeps_its_published_split(tmp_path: Path) -> None:
    nih_tables(tmp_path)
    lines(tmp_path / "train_val_list.txt", ["00000001_000.png", "00000001_001.png"])
    lines(tmp_path / "test_list.txt", ["00000002_000.png"])
    found = find("nih", tmp_path)
    assert found.split
    assert [study.split for study in found.studies] == ["train", "train", "test"]


def test_nih_as_one_file(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", (32, 32))
    row = {
        "image": "images/a.png",
        "patient_id": "7",
        "view": "PA",
        "nih_labels": ["Pneumonia"],
        "nih_boxes_xywh": [{"label": "Pneumonia", "box": [0, 0, 512, 512]}],
        "rsna": {"lung_opacity_boxes_xywh": [[512, 512, 512, 512], [900, 900, 500, 10]]},
        "box_frame": [1024, 1024],
    }
    outside = {**row, "image": "../a.png"}
    lines(tmp_path / "annotations.jsonl", [json.dumps(row), json.dumps(outside), "{", json.dumps({"image": 3})])
    found = find("nih", tmp_path)
    image = found.studies[0].images[0]
    assert set(image.boxes) == {"pneumonia", "lung opacity"}
    assert len(image.boxes["lung opacity"]) == 1
    assert reasons(found)[:3] == ["box outside of the image", "path leads out of data.root", "row broken"]


def test_nih_without_tables_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Data_Entry_2017"):
        find("nih", tmp_path)


# ---- COVID lesion masks


def test_covid_masks_of_lesions_and_devices(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", (40, 30))
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 10:20] = 255
    for name in ("ground_glass_opacities", "left_lung", "endotracheal_tube"):
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).convert("1").save(tmp_path / "masks" / f"{name}.png")
    masks = {
        name: {"path": f"masks/{name}.png", "area_frac": 0.08}
        for name in ("left_lung", "endotracheal_tube", "ground_glass_opacities")
    }
    row = {"image": "images/a.png", "masks": masks, "patientid": "5", "view": "PA"}
    lines(tmp_path / "records.jsonl", [json.dumps(row), json.dumps({**row, "masks": 3})])
    found = find("covid", tmp_path)
    (study,) = found.studies
    assert list(study.images[0].masks) == ["lung opacity", "endotracheal tube"]
    assert study.findings == "Lung opacity. Endotracheal tube."
    located = own_mask(study.images[0], read_image(study.images[0]).size, ["lung opacity"])
    assert located.mask is not None
    np.testing.assert_array_equal(located.mask, mask > 0)
    assert reasons(found) == ["row broken"]


# ---- MS-CXR

MS_CXR = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"


def test_ms_cxr_phrases_and_boxes(tmp_path: Path) -> None:
    home = "files/p10/p10000032/s50414267"
    save(tmp_path / home / "aa-bb.png", (50, 40))
    lines(
        tmp_path / "MS_CXR_Local_Alignment_v1.1.0.csv",
        [
            MS_CXR,
            f'aa-bb,Pleural Effusion,"small effusion, on the left",{home}/aa-bb.jpg,0,0,1000,1200,2500,2000,train',
            f'aa-bb,Pleural Effusion,"small effusion, on the left",{home}/aa-bb.jpg,1500,0,1000,2000,2500,2000,train',
            f"aa-bb,Pneumothorax,apical pneumothorax,{home}/aa-bb.jpg,0,0,,10,2500,2000,train",
            f"cc-dd,Edema,mild edema,{home}/cc-dd.jpg,0,0,10,10,2500,2000,test",
        ],
    )
    found = find("ms-cxr", tmp_path)
    (study,) = found.studies
    assert study.patient == "10000032"
    assert study.findings == "small effusion, on the left."
    mask = own_mask(study.images[0], (50, 40)).mask
    assert mask is not None
    expected = np.zeros((40, 50), np.bool_)
    expected[:24, :20] = True
    expected[:, 30:] = True
    np.testing.assert_array_equal(mask, expected)
    assert sorted(reasons(found)) == ["box broken", "image missing"]
    assert not found.split


# ---- VinDr-CXR

VINDR_HEAD = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"


def test_vindr_boxes_of_several_readers(tmp_path: Path) -> None:
    save(tmp_path / "train" / "f1.png", (100, 80))
    save(tmp_path / "train" / "f2.png", (100, 80), seed=1)
    save(tmp_path / "test" / "f3.png", (100, 80), seed=2)
    lines(
        tmp_path / "annotations" / "annotations_train.csv",
        [
            VINDR_HEAD,
            "f1,R1,Nodule/Mass,10,8,30,24",
            "f1,R2,Nodule/Mass,20,8,40,24",
            "f1,R3,No finding,,,,",
            "f1,R3,ILD,0,0,900,20",
            "f2,R1,No finding,,,,",
            "gone,R1,No finding,,,,",
        ],
    )
    lines(
        tmp_path / "annotations" / "annotations_test.csv",
        [VINDR_HEAD.replace("rad_id,", ""), "f3,Pleural effusion,0,0,50,80"],
    )
    found = find("vindr", tmp_path)
    assert [(study.id, study.split) for study in found.studies] == [("f1", "train"), ("f2", "train"), ("f3", "test")]
    assert [study.findings for study in found.studies] == ["Nodule.", "No finding.", "Pleural effusion."]
    mask = own_mask(found.studies[0].images[0], (100, 80)).mask
    assert mask is not None
    expected = np.zeros((80, 100), np.bool_)
    expected[8:24, 10:40] = True
    np.testing.assert_array_equal(mask, expected)
    assert reasons(found) == ["box outside of the image"]
    assert "vindr: 1 images of the tables are not under data.root" in found.notes


def test_vindr_images_made_smaller_take_their_frame_from_the_table(tmp_path: Path) -> None:
    save(tmp_path / "f1.png", (50, 40))
    lines(tmp_path / "annotations_train.csv", [VINDR_HEAD, "f1,R1,Edema,0,0,1250,2000"])
    lines(tmp_path / "train_meta.csv", ["image_id,dim0,dim1", "f1,2000,2500"])
    (box,) = find("vindr", tmp_path).studies[0].images[0].boxes["edema"]
    assert (box.right, box.bottom) == (0.5, 1.0)


# ---- the real ones


@pytest.mark.parametrize(
    ("source", "folder", "images", "marked"),
    [("nih", "nih_chestxray14_1000", 601, 101), ("covid", "covid_lesion_masks_44", 20, 20)],
)
def test_real_images_and_their_marks(
    shared_data: Path, tmp_path: Path, source: str, folder: str, images: int, marked: int
) -> None:
    found = find(source, shared_data / folder)
    assert len(found.studies) == images
    assert not found.quarantined
    shown = [study.images[0] for study in found.studies if study.images[0].boxes or study.images[0].masks]
    assert len(shown) == marked
    for image in shown[:5]:
        picture = read_image(image)
        located = own_mask(image, picture.size)
        assert located.mask is not None
        assert not located.broken
        assert located.mask.shape == picture.size[::-1]
        assert 0.001 < located.mask.mean() < 0.6


def test_a_marked_source_passes_the_gate(shared_data: Path, tmp_path: Path) -> None:
    section = DataSection(
        source="covid", root=str(shared_data / "covid_lesion_masks_44"), train=4, validation=1, test=2
    )
    loaded = load_studies(section, tmp_path, 17)
    assert all(study.images[0].masks and study.images[0].digest for study in loaded.studies)
