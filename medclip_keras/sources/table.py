"""The user's own archive in other tables than `csv`: Parquet with or without images in it, Excel, tsv, csv.

Layout on disk: a file, or a folder with several of one kind, as https://huggingface.co/docs/datasets writes
them
    data/train-00000-of-00002.parquet, …    .parquet, .csv, .tsv or .xlsx, in the folder or a folder in it
Rows and columns mean what they mean in `csv` (`medclip_keras/sources/csv.py` explains each): path,
patient_id, study_id, split, view, report, and one column a concept. Where a column of these names is not
there, others stand for it, in any case, with blanks or underscores:

    path          image, image_path, file_name, filename
    patient_id    subject_id, patient
    study_id      study, accession_number
    view          view_position
    report        text, report_text; or the columns findings and impression together

An image may lie in a Parquet table: a column of binary values, or of `bytes` and `path` (`datasets.Image`).
Paths are relative to the folder, or to the folder of the file. A column of classes (`datasets.ClassLabel`)
has their names; those of a label may be present, absent, uncertain and unlabeled. Without a column `split`
the file's name says it, where it is train, valid, validation or test, or begins so
(`train-00000-of-00002.parquet`).

Of a workbook (.xlsx) the first sheet is read. Refused before any work: what `csv` refuses; two columns that
stand for the same; a folder of files of several kinds, or of none."""

import re
from collections.abc import Collection, Iterator

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.sections import Section
from medclip_keras.sources import csv, dicom, parquet_files, tables
from medclip_keras.sources.files import is_hidden
from medclip_keras.sources.rows import ImageContent, ImageRow, ReportRow

CITATION = csv.CITATION
LICENCE = csv.LICENCE
PRIVATE = csv.PRIVATE
OWN_COLUMNS = csv.OWN_COLUMNS

SUFFIXES = (".parquet", ".csv", ".tsv", ".xlsx")
STANDS_FOR = {  # a column's plain name → the column of `csv` that it stands for
    **dict.fromkeys(("image", "imagepath", "filename"), "path"),
    **dict.fromkeys(("patientid", "subjectid", "patient"), "patient_id"),
    **dict.fromkeys(("studyid", "study", "accessionnumber"), "study_id"),
    "viewposition": "view",
    **dict.fromkeys(("patientsex", "gender", "patientgender"), "sex"),
    "patientage": "age",
    **dict.fromkeys(("text", "reporttext"), "report"),
}
_CODES = {"present": "1", "absent": "0", "uncertain": "-1", "unlabeled": ""}
_PARTS = ("findings", "impression")
_SPLIT = re.compile(r"(train|valid|validation|test)(?=[-._]|$)")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The rows that name or hold an image."""
    return csv.image_rows(path, _read)


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports, one a study."""
    return csv.report_rows(path, _read)


def unused_columns(path: epath.PathLike, concepts: Collection[str]) -> dict[str, int]:
    """Filled cells of each column that is neither the table's own nor one of the concepts."""
    return csv.unused_columns(path, concepts, _read)


def read_image(row: ImageRow) -> ImageContent:
    """The image of a row: a file, or the bytes inside of the table."""
    if parquet_files.is_reference(row.path):
        return dicom.decode_file(parquet_files.read_image_bytes(row.path))
    return dicom.read_image(row)


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections; BadRowError for a cell that holds no report."""
    return csv.read_report(row)


def _read(path: epath.PathLike, column: str) -> Iterator[tables.TableRow]:
    return csv.checked(
        row for file in _files(epath.Path(path)) for row in _rows(epath.Path(path), file, column)
    )


def _files(path: epath.Path) -> list[epath.Path]:
    """The table, or the tables of one kind in a folder and in its folders."""
    if not path.is_dir():
        return [path]
    names = [f"{level}*{kind}" for level in ("", "*/") for kind in SUFFIXES]
    found = sorted(
        file for name in names for file in path.glob(name) if not is_hidden(str(file.relative_to(path)))
    )
    kinds = sorted({file.suffix for file in found})
    advice = "Keep the tables of one kind in it, or name one file."
    require(
        len(kinds) == 1, "input", f"a folder of one kind of {', '.join(SUFFIXES)}", kinds or str(path), advice
    )
    return found


def _rows(path: epath.Path, file: epath.Path, column: str) -> Iterator[tables.TableRow]:
    """The rows of a file under the names of `csv`."""
    folder = "" if file.parent in (path, path.parent) else f"{file.parent.relative_to(path)}/"
    named_split = _SPLIT.match(file.name.lower())
    renamed: dict[str, str] = {}
    for row in tables.read_table(file, ()):
        renamed = renamed or _renamed(list(row), file)
        cells = {renamed.get(name, name): cell for name, cell in row.items()}
        parts_of = {tables.plain(name): name for name in cells if tables.plain(name) in _PARTS}
        if "report" not in cells and parts_of:
            parts = [(part, cells.pop(parts_of[part])) for part in _PARTS if part in parts_of]
            cells["report"] = "\n".join(f"{part.upper()}: {text}" for part, text in parts if text)
        tables.require_columns(list(cells), (column, "patient_id"), str(file))
        for name in cells.keys() - set(csv.OWN_COLUMNS):
            cells[name] = _CODES.get(cells[name].lower(), cells[name])
        for name in csv.OWN_COLUMNS:
            if name != "path" and parquet_files.is_reference(cells.get(name, "")):
                raise refusal(name, "a column of text or numbers", f"binary values in {file}")
        if cells.get("path") and parquet_files.is_reference(cells["path"]):
            cells["path"] = f"{folder}{cells['path']}"
        if named_split and "split" not in row:
            cells["split"] = named_split[0]
        yield tables.TableRow(cells.items(), row.number, file)


def _renamed(columns: list[str], file: epath.Path) -> dict[str, str]:
    """Column → its name in `csv`, unless a column already has that name."""
    renamed: dict[str, str] = {}
    for column in columns:
        meant = STANDS_FOR.get(tables.plain(column), column)
        if meant in columns or meant == column:
            continue
        if meant in renamed.values():
            first = next(name for name in renamed if renamed[name] == meant)
            received = f"{first} and {column} in {file}"
            raise refusal("column", f"one that stands for {meant}", received, "Rename the one that counts.")
        renamed[column] = meant
    return renamed
