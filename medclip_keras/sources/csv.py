r"""The user's own archive: one table of values that names images, reports and labels.

    path,patient_id,study_id,split,view,report,Pleural Effusion,Cardiomegaly
    images/0001.png,p17,s1,train,PA,"FINDINGS: Small left effusion.",1,0
    images/0002.png,p17,s2,train,lateral,,,-1
    ,p23,s3,,,"IMPRESSION: No acute disease.",,

The input is the table's file as a spreadsheet saves it: UTF-8 with a header, the columns in any order,
separated by commas, semicolons or tabs. Blanks around a cell and blank rows do not count; row 1 follows the
header. A row is an image, a report, or both:

path         the image, JPEG, PNG or DICOM; relative to the table's folder, or absolute, or a URL such as gs://…
             Folders are separated by / or \. Blank: the row has no image. Each image stands in one row: a
             second one is a bad row. Needed to read images.
report       the report's text, line breaks within quotes. Blank: no report. Where several rows of one study
             hold a report, the first one counts. Needed to read reports.
patient_id   needed: splits are made by patient.
study_id     joins a report with the images of its study. Without this column each row is a study.
split        train, valid (or val, validation) or test; blank or no column: by patient.
view         frontal (or PA, AP), lateral (or LL), or blank: then the view in a .dcm file's header, if any.
any other    a concept's name, such as `Pleural Effusion`: 1 present, 0 absent, -1 uncertain, blank not known.
             The job prints the other columns that have filled cells: they are not used.

The label columns are the images'. With `decode_images --reports`, what the study's report says fills in the
blank ones (`--label_precedence`). Concept names are those of the table in use
(`chest21` by default). Refused before any work: a missing column, one that is there twice, one that differs
from a name of chest21 only in case, blanks or underscores; a row without a patient; a path with a drive
letter; a split, view or label code that is none of the above.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom, nih_chestxray14, tables
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow

CITATION = "The user's own data."
LICENCE = "The user's own."
PRIVATE = True  # keys need a salt of the owner's; a blank label is not known

read_image = dicom.read_image  # JPEG, PNG or DICOM files

CHEST21 = tuple(dict.fromkeys((*tables.CHEXPERT_OBSERVATIONS, *nih_chestxray14.CONCEPT_OF_LABEL.values())))
OWN_COLUMNS = ("path", "patient_id", "study_id", "split", "view", "report")
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
        name = row.image_name()
        if name:
            image = ImageRow(
                image_id=name,
                study_id=_study_of(row, path),
                patient_id=row["patient_id"],
                path=name if "://" in name else str(epath.Path(path).parent / name),
                view=view,
                labels=shared.setdefault(tuple(labels.items()), labels),
                split=split,
                number=row.number,
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
        study, content = _study_of(row, path), row["report"].encode()
        if content.strip() and study not in seen:
            seen.add(study)
            split = _choose(_SPLITS, row, "split")
            yield ReportRow(study, study, row["patient_id"], str(path), content, split, row.number)


def unused_columns(path: epath.PathLike, concepts: Collection[str]) -> dict[str, int]:
    """Filled cells of each column that is neither the table's own nor one of the concepts.

    Raises:
        ValueError: a concept's cell that is no code, with its row.
    """
    filled: Counter[str] = Counter()
    for row in _read(path, "patient_id"):
        for column, cell in row.items():
            if column in concepts:
                tables.state_of_code(cell, column, row.place)
            elif cell and column not in OWN_COLUMNS:
                filled[column] += 1
    return dict(filled)


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections."""
    if row.content is None:
        raise BadRowError("the row has no report text")
    return split_sections(row.content.decode())


def _read(path: epath.PathLike, column: str) -> Iterator[tables.TableRow]:
    """The filled rows of the table, stripped; `column` and `patient_id` must be columns of it."""
    for number, row in enumerate(tables.read_table(path, (column, "patient_id"), strict=True)):
        if not number:
            _refuse_misspelt(row)
        row.update({name: cell.strip() for name, cell in row.items() if name != "report"})
        if not any(row.values()):
            continue
        if not row["patient_id"]:
            row.refuse("patient_id", "filled", "Splits are by patient.")
        yield row


def _study_of(row: tables.TableRow, path: epath.PathLike) -> str:
    return row.get("study_id") or f"row {row.number} of {epath.Path(path).name}"  # not that of another table


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _refuse_misspelt(row: tables.TableRow) -> None:
    written = {_plain(name): name for name in (*CHEST21, *OWN_COLUMNS)}
    for column in row:
        meant = written.get(_plain(column), column)
        require(column == meant, "column", f"written {meant!r}", column, "Rename the column.")


def _labels(row: tables.TableRow) -> tables.Labels:
    """States by column; a column that is no concept of chest21 counts in the rows with a code in it."""
    labels = {}
    for column, code in row.items():
        if column in CHEST21:
            labels[column] = tables.state_of_code(code, column, row.place)
        elif column not in OWN_COLUMNS and code and code.removesuffix(".0") in tables.STATE_OF_CODE:
            labels[column] = tables.state_of_code(code, column)
    return labels


def _choose(known: Mapping[str, str], row: tables.TableRow, column: str) -> str:
    value = row.get(column, "").lower()
    form = f"one of {', '.join(filter(None, known))} or blank"
    require(value in known, column, form, value, f"It is {row.place}.")
    return known[value]


def _view_of_header(path: str) -> str:
    try:
        return dicom.view_of_file(path) if path.lower().endswith(dicom.SUFFIXES) else ""
    except OSError:  # a bad row when its image is decoded
        return ""
