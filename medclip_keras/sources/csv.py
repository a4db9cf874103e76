"""The user's own archive: one table of comma-separated values that names images, reports and labels.

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
view         frontal (or PA, AP), lateral (or LL), or blank: then the view in a .dcm file's header, if any.
any other    a concept's name, such as `Pleural Effusion`: 1 present, 0 absent, -1 uncertain, blank not
             mentioned, as CheXpert codes them. Columns that are no concept of the table in use are ignored.

Reports are labelled from their text; the label columns are the images'. Concept names are those of the table
in use (`chest21` by default); a column that differs from one of chest21's only in case, blanks or underscores
is refused rather than ignored. Refused before any work, too: a missing column; a row without a patient; a
split, view or label code that is none of the above.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom, nih_chestxray14, tables
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow

CITATION = "The user's own data."
LICENCE = "The user's own."

read_image = dicom.read_image  # JPEG, PNG or DICOM files

CHEST21 = tuple(dict.fromkeys((*tables.CHEXPERT_OBSERVATIONS, *nih_chestxray14.CONCEPT_OF_LABEL.values())))
_OWN_COLUMNS = ("path", "patient_id", "study_id", "split", "view", "report")
_SPLITS = {name: name for name in ("", "train", "valid", "test")}
_SPLITS |= dict.fromkeys(("val", "validation", "validate"), "valid")
_VIEWS = (
    {"": ""} | dict.fromkeys(("pa", "ap", "frontal"), "frontal") | dict.fromkeys(("ll", "lateral"), "lateral")
)


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The rows that name an image."""
    rows = []
    shared: dict[tuple[tuple[str, LabelState], ...], tables.Labels] = {}  # one dictionary for equal labels
    for row in _read(path, "path"):
        labels, view, split = _labels(row), _choose(_VIEWS, row, "view"), _choose(_SPLITS, row, "split")
        if row["path"]:
            image = ImageRow(
                image_id=row["path"],
                study_id=_study_of(row),
                patient_id=row["patient_id"],
                path=row["path"] if "://" in row["path"] else str(epath.Path(path).parent / row["path"]),
                view=view,
                labels=shared.setdefault(tuple(labels.items()), labels),
                split=split,
            )
            rows.append(image)
    for image in rows:
        yield image if image.view else replace(image, view=_view_of_header(image.path))


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports, one a study."""
    for row in _read(path, "report"):  # check all rows, then read again: texts need much memory
        _choose(_SPLITS, row, "split")
    seen = set()
    for row in _read(path, "report"):
        study, content = _study_of(row), row["report"].encode()
        if content.strip() and study not in seen:
            seen.add(study)
            split = _choose(_SPLITS, row, "split")
            yield ReportRow(study, study, row["patient_id"], str(path), content, split)


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections."""
    if row.content is None:
        raise BadRowError("the row has no report text")
    return split_sections(row.content.decode())


def _read(path: epath.PathLike, column: str) -> Iterator[tables.TableRow]:
    """The rows of the table; `column` and `patient_id` must be columns of it."""
    for number, row in enumerate(tables.read_table(path, (column, "patient_id"), as_wide=True)):
        if not number:
            _refuse_misspelt(row)
        if not row["patient_id"]:
            row.refuse("patient_id", "filled", "Splits are by patient.")
        yield row


def _study_of(row: tables.TableRow) -> str:
    return row.get("study_id") or f"row {row.number}"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _refuse_misspelt(row: tables.TableRow) -> None:
    written = {_plain(name): name for name in (*CHEST21, *_OWN_COLUMNS)}
    for column in row:
        meant = written.get(_plain(column), column)
        require(column == meant, "column", f"written {meant!r}", column, "Rename the column.")


def _labels(row: tables.TableRow) -> tables.Labels:
    """States by column; a column that is no concept of chest21 counts in the rows with a code in it."""
    labels = {}
    for column, code in row.items():
        if column in CHEST21:
            labels[column] = tables.state_of_code(code, column)
        elif column not in _OWN_COLUMNS and code.strip() in tables.STATE_OF_CODE:
            labels[column] = tables.STATE_OF_CODE[code.strip()]
    return labels


def _choose(known: Mapping[str, str], row: tables.TableRow, column: str) -> str:
    value = row.get(column, "").strip().lower()
    require(value in known, column, f"one of {', '.join(filter(None, known))} or blank", value)
    return known[value]


def _view_of_header(path: str) -> str:
    try:
        return dicom.view_of_file(path) if path.lower().endswith(dicom.SUFFIXES) else ""
    except OSError:  # a bad row when its image is decoded
        return ""
