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
             second one is a bad row, or refused if it has another patient or split. Needed to read images.
report       the report's text, line breaks within quotes. Blank: no report. Where several rows of one study
             hold a report, the first one counts. Needed to read reports.
patient_id   needed: splits are made by patient.
study_id     joins a report with the images of its study, within one patient: numbers may begin anew for each.
             Images of `dicom` and reports of `fhir` join too, by PatientID and StudyInstanceUID here.
             Without this column each row is a study, known by its own cells: the rows of two tables are
             never joined. `7` and `7.0` are one identifier.
split        train, valid (or val, validation) or test; blank: that of the patient's other rows; blank in all
             of them or no column: by patient. Give images and reports the same splits.
view         frontal (or PA, AP), lateral (or LL), or blank: then the view in a .dcm file's header, if any.
sex, age     M or F, and years, of the patient at the examination; anything else is unknown. They are used for
             figures by group alone.
any other    a concept's name, such as `Pleural Effusion`: 1 present, 0 absent, -1 uncertain. A blank cell of
             a concept of `chest21` is not mentioned, as in CheXpert's tables: it trains and counts as absent.
             One of another concept, and a concept without a column, is unlabelled and left out: do not keep
             columns that nobody filled.
             The job prints the other columns that have filled cells: they are not used.

The label columns are the images'. With `decode_images --reports`, what the study's report says fills in the
blank ones (`--label_precedence`). Concept names are those of the table in use
(`chest21` by default). Refused before any work: a missing column, one that is there twice, one that differs
from a concept's name only in case, blanks or underscores; a row without a patient; an identifier that a
spreadsheet rounded (1.2E+11); a path with a drive letter; a split, view or label code that is none of the
above; a blank split of a patient with several.
"""

import hashlib
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom, files, nih_chestxray14, tables
from medclip_keras.sources.rows import (
    BadRowError,
    ImageRow,
    ReportRow,
    age_of,
    own_study,
    position_of,
    sex_of,
)

CITATION = "The user's own data."
LICENCE = "The user's own."
PRIVATE = True  # keys need a salt of the owner's; a report fills in a blank label

read_image = dicom.read_image  # JPEG, PNG or DICOM files

CHEST21 = tuple(dict.fromkeys((*tables.CHEXPERT_OBSERVATIONS, *nih_chestxray14.CONCEPT_OF_LABEL.values())))
OWN_COLUMNS = ("path", "patient_id", "study_id", "split", "view", "sex", "age", "report")
_SPLITS = {name: name for name in ("", "train", "valid", "test")}
_SPLITS |= dict.fromkeys(("val", "validation", "validate"), "valid")
_VIEWS = (
    {"": ""} | dict.fromkeys(("pa", "ap", "frontal"), "frontal") | dict.fromkeys(("ll", "lateral"), "lateral")
)
Reader = Callable[[epath.PathLike, str], Iterator[tables.TableRow]]
_SECOND = re.compile(r"\.\d+$")  # Edema.1: pandas renames the second column Edema


def image_rows(path: epath.PathLike, read: Reader | None = None) -> Iterator[ImageRow]:
    """The rows that name an image; `read` yields the rows of another form of table."""
    read = read or _read
    rows, splits, folder = [], _Splits(path), _folder_of(path)
    shared: dict[tuple[tuple[str, LabelState], ...], tables.Labels] = {}  # one dictionary for equal labels
    for row, study in _with_studies(read(path, "path")):
        labels, view, split = _labels(row), _choose(_VIEWS, row, "view"), splits.add(row)
        name = row.image_name()
        if name:
            image = ImageRow(
                image_id=name if "://" in name else posixpath.normpath(name),
                study_id=study,
                patient_id=row["patient_id"],
                path=_joined(folder, name),
                view=view,
                labels=shared.setdefault(tuple(labels.items()), labels),
                split=split,
                number=row.number,
                view_position=position_of(row.get("view", "")),
                sex=sex_of(row.get("sex", "")),
                age=age_of(row.get("age", "")),
            )
            rows.append(image)
    _refuse_contradictions(rows, path)
    for image in rows:
        view = image.view or _view_of_header(image.path)
        yield replace(image, view=view, split=image.split or splits.of(image.patient_id, image.number))


def _refuse_contradictions(rows: Iterable[ImageRow], path: epath.PathLike) -> None:
    """Refuse an image of two patients or splits; a row that merely repeats another is a bad row later."""
    first: dict[str, ImageRow] = {}
    for row in rows:
        other = first.setdefault(row.image_id, row)
        same = (row.patient_id, row.split) == (other.patient_id, other.split)
        received = f"row {row.number} of {path}, which repeats row {other.number}" if not same else ""
        require(same, "path", "an image of one patient and split", received, "Delete one of the rows.")


def report_rows(path: epath.PathLike, read: Reader | None = None) -> Iterator[ReportRow]:
    """The reports, one a study; `read` yields the rows of another form of table."""
    read = read or _read
    splits, folder, patients_of = _Splits(path), _folder_of(path), defaultdict(set)
    for row in read(path, "report"):  # check all rows, then read again: texts need much memory
        splits.add(row)
        patients_of[row.get("study_id", "")].add(row["patient_id"])
    seen = set()
    for row, study in _with_studies(read(path, "report")):
        patient, own = row["patient_id"], row.get("study_id", "")
        if row["report"] and (patient, study) not in seen:
            seen.add((patient, study))
            known = own if len(patients_of[own]) == 1 else study
            yield ReportRow(
                report_id=known
                if own
                else f"row {row.number} of {epath.Path(row.table).relative_to(folder)}",
                study_id=study,
                patient_id=patient,
                path=str(path),
                content=row["report"].encode(),
                split=_choose(_SPLITS, row, "split") or splits.of(patient, row.number),
                number=row.number,
            )


def unused_columns(
    path: epath.PathLike, concepts: Collection[str], read: Reader | None = None
) -> dict[str, int]:
    """Filled cells of each column that is neither the table's own nor one of the concepts.

    Raises:
        ValueError: a concept's cell that is no code, with its row; a column that is written like a concept.
    """
    filled: Counter[str] = Counter()
    for number, row in enumerate((read or _read)(path, "patient_id")):
        if not number:
            _refuse_misspelt(row, concepts)
        for column, cell in row.items():
            if column in concepts:
                tables.state_in(row, column)
            elif cell and column not in OWN_COLUMNS:
                filled[column] += 1
    return dict(filled)


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections; BadRowError for a cell that holds no report."""
    if row.content is None:
        raise BadRowError("the row has no report text")
    if what := files.foreign_content(row.content):
        raise BadRowError(f"the report is {what}")
    return split_sections(row.content.decode())


class _Splits:
    """The splits that a table's rows name for each patient."""

    def __init__(self, path: epath.PathLike):
        self._path = path
        self._of_patient: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, row: tables.TableRow) -> str:
        """The row's split, or "" for a blank one."""
        split = _choose(_SPLITS, row, "split")
        if split:
            self._of_patient[row["patient_id"]].add(split)
        return split

    def of(self, patient: str, number: int) -> str:
        """The split of a patient's row without one; "" if no row has any."""
        found = self._of_patient.get(patient, set())
        if len(found) > 1:
            received = f"blank in row {number} of {self._path}"
            advice = "Other rows of its patient name several splits."
            raise refusal("split", f"one of {', '.join(sorted(found))}", received, advice)
        return next(iter(found), "")


def _read(path: epath.PathLike, column: str) -> Iterator[tables.TableRow]:
    """The filled rows of the table; `column` and `patient_id` must be columns of it."""
    return checked(tables.read_table(path, (column, "patient_id")))


def checked(rows: Iterable[tables.TableRow]) -> Iterator[tables.TableRow]:
    """Rows of a table; refuse misspelt columns, and a row without a patient."""
    for number, row in enumerate(rows):
        if not number:
            _refuse_misspelt(row, CHEST21)
        if not row["patient_id"]:
            row.refuse("patient_id", "filled", "Splits are by patient.")
        yield row


def _with_studies(rows: Iterable[tables.TableRow]) -> Iterator[tuple[tables.TableRow, str]]:
    """Rows, each with its study, which is known by its patient too.

    A row without a study is one by itself: equal cells make it the same study in images and reports, and no
    row of another table has them.
    """
    repeated: Counter[str] = Counter()
    for row in rows:
        study = row.get("study_id", "")
        if not study:
            cells = "\0".join(row.get(name, "") for name in ("patient_id", "path", "report"))
            study = f"row {hashlib.sha256(cells.encode()).hexdigest()[:16]}"
            repeated[study] += 1
            study += f" {repeated[study]}" if repeated[study] > 1 else ""
        yield row, own_study(row["patient_id"], study)


def _joined(folder: epath.Path, name: str) -> str:
    """The path of a file that a table names; in an address `..` is resolved, which no bucket does."""
    path = name if "://" in name else str(folder / name)
    scheme, mark, rest = path.partition("://")
    return f"{scheme}{mark}{posixpath.normpath(rest)}" if mark and name != path else path


def _folder_of(path: epath.PathLike) -> epath.Path:
    """The folder to which a table's paths are relative."""
    return epath.Path(path) if epath.Path(path).is_dir() else epath.Path(path).parent


def _refuse_misspelt(row: tables.TableRow, concepts: Iterable[str]) -> None:
    """Refuse a column whose name is nearly that of a known column, or a duplicate that pandas renamed."""
    written = {tables.plain(name): name for name in (*concepts, *OWN_COLUMNS)}
    for column in row:
        meant = written.get(tables.plain(column), column)
        require(column == meant, "column", f"written {meant!r}", column, "Rename the column.")
        first = _SECOND.sub("", column)
        twice = first != column and first in row and tables.plain(first) in written
        require(not twice, "column", f"different from the column {first!r}", column, "Delete one of them.")


def _labels(row: tables.TableRow) -> tables.Labels:
    """States by column; a column that is no concept of chest21 counts in the rows with a code in it."""
    return {
        column: tables.state_in(row, column)
        for column, code in row.items()
        if column in CHEST21
        or (code and column not in OWN_COLUMNS and tables.plain_code(code) in tables.STATE_OF_CODE)
    }


def _choose(known: Mapping[str, str], row: tables.TableRow, column: str) -> str:
    value = row.get(column, "").lower()
    if value not in known:
        form = f"one of {', '.join(filter(None, known))} or blank"
        raise refusal(column, form, value, f"It is {row.place}.")
    return known[value]


def _view_of_header(path: str) -> str:
    try:
        return dicom.view_of_file(path) if path.lower().endswith(dicom.SUFFIXES) else ""
    except OSError:  # a bad row when its image is decoded
        return ""
