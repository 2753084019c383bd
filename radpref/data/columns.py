"""Which column of a table holds what: by the recipe where it says so, else by the names that tables usually give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from radpref.config import TableSection
from radpref.data.source import DataError, listed, nearest
from radpref.findings import CLASSES_14

USUAL: dict[str, tuple[str, ...]] = {
    "id": (
        "id", "study_id", "study", "studyinstanceuid", "study_uid", "accession", "accession_number", "accession_no",
        "exam_id", "report_id", "case_id", "series_id", "uid", "examination_id", "study_instance_uid",
    ),
    "patient": (
        "patient", "patient_id", "subject_id", "subject", "mrn", "pid", "person_id", "deid_patient_id", "patient_mrn",
        "pat_id", "patient_no", "patient_number", "medical_record_number", "anon_patient_id", "empi", "patienten_id",
        "patient_identifier", "medical_record_no", "anonymized_patient_id", "anonymised_patient_id",
    ),
    "images": (
        "images", "image", "path", "image_path", "image_paths", "images_path", "img_path", "file_name", "file",
        "file_path", "path_to_image", "img", "image_file", "image_files", "png_path", "jpg_path", "dicom_path",
        "path_to_dcm", "image_file_path", "image_file_name", "dicom_file", "dicom_file_path", "full_path", "dicom_id",
        "image_id", "image_name", "img_name", "sop_instance_uid", "picture", "frontal_path",
    ),
    "view": ("view", "view_position", "projection", "frontal_lateral", "views", "ap_pa", "image_view_position"),
    "findings": ("findings", "finding", "section_findings", "findings_section", "findings_text", "reference"),
    "impression": ("impression", "impressions", "section_impression", "conclusion", "impression_text"),
    "indication": (
        "indication", "clinical_indication", "section_indication", "clinical_history", "section_clinical_history",
        "history", "reason", "reason_for_exam", "clinical_information", "reason_for_study",
    ),
    "report": (
        "report", "report_text", "text", "radiology_report", "full_report", "full_text", "narrative", "report_content",
        "result_text", "report_body", "caption",
    ),
    "date": (
        "date", "study_date", "exam_date", "study_datetime", "datetime", "exam_datetime", "report_date",
        "acquisition_date", "date_of_exam", "performed", "performed_date", "study_date_time", "timestamp",
    ),
    "time": ("time", "study_time", "exam_time", "acquisition_time"),
    "prior": ("prior", "prior_id", "prior_study", "prior_study_id", "previous_study", "previous_study_id"),
    "question": ("question", "questions", "query", "question_text"),
    "answer": ("answer", "answers", "answer_text", "ground_truth", "correct_answer"),
    "split": ("split", "set", "partition", "subset", "fold_name", "official_split"),
}  # fmt: skip
"""What a column is for, to the names that it goes by; capitals, blanks and underscores make no difference."""
AUTO = "auto"
"""In place of a column's name: found by the usual ones."""
_WORDS = {
    "patient": ("patient", "subject", "mrn", "person", "pat"),
    "images": ("image", "dicom", "dcm", "png", "jpg", "path", "file", "bild"),
    "findings": ("finding", "report", "befund", "text", "narrative"),
    "id": ("study", "accession", "exam", "report_id"),
}
"""Words that the likeliest column for a field has in its name, where none has a usual name."""


@dataclass(frozen=True)
class Columns:
    """Which column holds what."""

    of: dict[str, str]
    """A field of ``USUAL`` to a column; a field that no column holds is absent."""
    found: tuple[str, ...]
    """The fields whose column was found by its name, not named in the recipe."""
    alone: bool = False
    """True where the recipe says that each study is of another patient."""

    def shown(self) -> str:
        """``id from StudyInstanceUID, patient from mrn``."""
        return ", ".join(f"{name} from {self.of[name]!r}" for name in self.of)


def find_columns(section: TableSection, there: Sequence[str]) -> Columns:
    """Map the fields of a study to the table's columns.

    Raises DataError: a column that the recipe names and the table lacks; no images; no text and no question; no
    patient (each study its own patient must be asked for: ``data.table.patient: study``); no id.
    """
    columns: dict[str, str] = {}
    found: list[str] = []
    taken: set[str] = set()
    for name in USUAL:
        given = getattr(section, name, AUTO)
        if given == AUTO:
            continue
        if given in there and given != "":
            columns[name] = given
            taken.add(given)
        elif given != "" and not (name == "patient" and given == "study"):
            raise DataError(
                f"data.table.{name} is {given!r}, but the table has no such column{nearest(given, there)}; "
                f"it has {listed(there)}"
            )
    plain = {_plain(column): column for column in reversed(there)}
    for name, usual in USUAL.items():
        if getattr(section, name, AUTO) != AUTO:
            continue
        free = {key: column for key, column in plain.items() if column not in taken or key == name}
        column = next((free[key] for word in usual if (key := _plain(word)) in free), None)
        if column is not None:
            columns[name] = column
            found.append(name)
            taken.add(column)
    alone = section.patient == "study" and "patient" not in columns
    _require(section, columns, there, alone)
    return Columns({name: columns[name] for name in USUAL if name in columns}, tuple(found), alone)


def _require(section: TableSection, columns: dict[str, str], there: Sequence[str], alone: bool) -> None:
    def missing(name: str, what: str, more: str = "") -> DataError:
        near = _likeliest(name, columns, there) or nearest(name, there)
        head = "" if columns else ". Not one column has a usual name: is the table's first line its header?"
        return DataError(
            f"the table has no column of {what} by a usual name{near}; it has {listed(there)}; "
            f"name it with --data.table.{name}{more}{head}"
        )

    if "images" not in columns:
        raise missing("images", "images")
    asks = "question" in columns and "answer" in columns
    if ("question" in columns) != ("answer" in columns) and not {"findings", "report"} & columns.keys():
        raise missing(
            "answer" if "question" in columns else "question", "answers" if "question" in columns else "questions"
        )
    if not asks and not {"findings", "report"} & columns.keys() and not set(CLASSES_14) & set(there):
        raise missing("findings", "findings", " (or the whole report's with --data.table.report)")
    if "id" not in columns and section.id != "" and not asks:
        raise missing("id", "study ids", ", or set it to '' to number the rows")
    if "patient" not in columns and not alone:
        near = _likeliest("patient", columns, there)
        raise DataError(
            f"the table has no column of patients by a usual name{near}; it has {listed(there)}. One patient's studies "
            "must not stand on both sides of a split. Name the column with --data.table.patient, or say "
            "--data.table.patient study where each study is of another patient"
        )


def _likeliest(name: str, columns: Mapping[str, str], there: Sequence[str]) -> str:
    """``; the likeliest is 'x': --data.table.images 'x'``, or nothing."""
    free = [column for column in there if column not in columns.values()]
    likely = next((column for word in _WORDS.get(name, ()) for column in free if word in column.lower()), None)
    return f"; the likeliest is {likely!r}: --data.table.{name} {likely!r}" if likely else ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
