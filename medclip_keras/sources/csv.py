"""Everybody's own archive: one table of comma-separated values that names images, reports and labels.

    path,patient_id,study_id,split,view,report,Pleural Effusion,Cardiomegaly
    images/0001.png,p17,s1,train,PA,"FINDINGS: Small left effusion.",1,0
    images/0002.png,p17,s2,train,lateral,,,-1
    ,p23,s3,,,"IMPRESSION: No acute disease.",,

The input is the table's file; it is UTF-8 with a header. A row is an image, a report, or both:

path         the image, JPEG, PNG or DICOM; relative to the table's folder, or absolute, or a URL such as gs://…
             Blank: the row has no image. Each image stands in one row: a second one is a bad row. Needed to
             read images.
report       the report's text, line breaks within quotes. Blank: no report. Where several rows of one study
             hold a report, the first one counts. Needed to read reports.
patient_id   needed: splits are made by patient.
study_id     joins a report with the images of its study. Without this column each row is a study.
split        train, valid (or val, validation) or test; blank or no column: by patient.
view         frontal (or PA, AP), lateral (or LL), or blank: then a .dcm file's header tells, where it does.
any other    a concept's name, such as `Pleural Effusion`: 1 present, 0 absent, -1 uncertain, blank not
             mentioned, as CheXpert codes them. Columns that are no concept of the table in use are ignored.

Reports are labelled from their text; the label columns are the images'. Concept names are those of the table
in use (`chest21` by default); a column that differs from one of chest21's only in case, blanks or underscores
is refused rather than ignored.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import nih_chestxray14
from medclip_keras.sources.dicom import SUFFIXES, read_image_file, view_of_file
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow
from medclip_keras.sources.tables import CHEXPERT_OBSERVATIONS, STATE_OF_CODE, read_table, state_of_code

CITATION = "The user's own data."
LICENCE = "The user's own."

CHEST21 = tuple(dict.fromkeys((*CHEXPERT_OBSERVATIONS, *nih_chestxray14.CONCEPT_OF_LABEL.values())))
_OWN_COLUMNS = ("path", "patient_id", "study_id", "split", "view", "report")
_SPLITS = {"val": "valid", "validation": "valid", "validate": "valid"} | {
    name: name for name in ("", "train", "valid", "test")
}
_VIEWS = {
    "pa": "frontal",
    "ap": "frontal",
    "frontal": "frontal",
    "ll": "lateral",
    "lateral": "lateral",
    "": "",
}


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The rows that name an image.

    Args:
        path: the table.

    Raises:
        ValueError: no table, a column missing (with the near names), a concept's name misspelt, a split, view
            or label code that is none.
    """
    for _, row in _numbered_rows(path, ("path", "patient_id")):  # all of them, before any counts
        _labels(row), _choose(_VIEWS, row, "view"), _choose(_SPLITS, row, "split")
    for number, row in _numbered_rows(path, ("path", "patient_id")):
        if not row["path"]:
            continue
        image_path = _resolve(epath.Path(path), row["path"])
        yield ImageRow(
            image_id=row["path"],
            study_id=row.get("study_id") or f"row {number}",
            patient_id=row["patient_id"],
            path=image_path,
            view=_choose(_VIEWS, row, "view") or _view_of_header(image_path),
            labels=_labels(row),
            split=_choose(_SPLITS, row, "split"),
        )


def read_image(row: ImageRow) -> bytes:
    """The image file; the picture of a DICOM file, as PNG."""
    return read_image_file(row.path)


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports, one a study.

    Args:
        path: the table.

    Raises:
        ValueError: as `image_rows`, with the column `report` in place of `path`.
    """
    for _, row in _numbered_rows(path, ("report", "patient_id")):
        _choose(_SPLITS, row, "split")
    seen = set()
    for number, row in _numbered_rows(path, ("report", "patient_id")):
        study_id = row.get("study_id") or f"row {number}"
        if not row["report"].strip() or study_id in seen:
            continue
        seen.add(study_id)
        yield ReportRow(
            report_id=study_id,
            study_id=study_id,
            patient_id=row["patient_id"],
            path=str(path),
            content=row["report"].encode(),
            split=_choose(_SPLITS, row, "split"),
        )


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections.

    Raises:
        BadRowError: the row has no text.
    """
    if row.content is None:
        raise BadRowError("the row has no report text")
    return split_sections(row.content.decode())


def _numbered_rows(path: epath.PathLike, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their number, the first after the header being 1; cells are never None."""
    for number, row in enumerate(read_table(path, columns), 1):
        if number == 1:
            _refuse_misspelt(row)
        require(None not in row, "input", "a table whose rows are as long as its header", f"row {number}")
        row = {column: value or "" for column, value in row.items()}
        require(bool(row["patient_id"]), "patient_id", "filled", f"row {number}", "Splits are by patient.")
        yield number, row


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _refuse_misspelt(row: Mapping[str, str]) -> None:
    concepts = {_plain(name): name for name in CHEST21}
    own = {_plain(name): name for name in _OWN_COLUMNS}
    for column in row:
        meant = (own | concepts).get(_plain(column or ""), column)
        require(column == meant, "column", f"written {meant!r}", column, "Rename the column.")


def _labels(row: Mapping[str, str]) -> dict[str, LabelState]:
    """States by column; a column that is none of chest21's is a label only where it holds a label's code."""
    labels = {}
    for column, code in row.items():
        if column in CHEST21:
            labels[column] = state_of_code(code, column)
        elif column not in _OWN_COLUMNS and code.strip() in STATE_OF_CODE:
            labels[column] = STATE_OF_CODE[code.strip()]
    return labels


def _choose(known: Mapping[str, str], row: Mapping[str, str], column: str) -> str:
    value = row.get(column, "").strip().lower()
    require(value in known, column, f"one of {', '.join(filter(None, known))} or blank", value)
    return known[value]


def _view_of_header(path: str) -> str:
    try:
        return view_of_file(path) if path.lower().endswith(SUFFIXES) else ""
    except OSError:  # a bad row, where it is decoded
        return ""


def _resolve(table: epath.Path, path: str) -> str:
    return path if "://" in path else str(table.parent / path)
