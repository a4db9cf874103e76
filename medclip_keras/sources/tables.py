"""Read the tables of the archives: comma-separated values with a header, or lines of one form."""

import csv
import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from etils import epath

from medclip_keras.errors import near_names, refusal, require
from medclip_keras.knowledge.label_names import concept_of_label, concepts_above, labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import files, parquet_files, spreadsheets

csv.field_size_limit(1 << 30)  # a cell may hold a report of any length

Labels = dict[str, LabelState]  # concept → state
_Value = TypeVar("_Value")

CHEXPERT_OBSERVATIONS = labels_of("chexpert")

# CheXpert's coding of a label column (Irvin et al., AAAI 2019).
STATE_OF_CODE = {
    "": LabelState.NOT_MENTIONED,
    "1": LabelState.POSITIVE,
    "0": LabelState.NEGATIVE,
    "-1": LabelState.UNCERTAIN,
}
CODE_OF_STATE = {state: code for code, state in STATE_OF_CODE.items()}
_QUOTED = re.compile(  # in errors; another cell may be the text of a report
    r"[-+.,\d]{1,20}|yes|no|true|false|positive|negative|present|absent|uncertain|nan|none|null|n/?a|\w",
    re.IGNORECASE,
)
_WHOLE_CODE = re.compile(r"^\+?(-?[01])(?:\.0*)?$")
_CODES = {"1.0": "1", "0.0": "0", "-1.0": "-1", "-0.0": "0"}  # the usual ones, without a pattern

_DRIVE = re.compile(r"[A-Za-z]:(?!//)|\\\\")  # or a server's name
# Columns of identifiers, in lower case without blanks and underscores.
_IDENTIFIERS = frozenset(
    (
        "patientid",
        "patient",
        "subjectid",
        "studyid",
        "study",
        "accessionnumber",
        "dicomid",
        "imageid",
        "reportid",
        "uid",
    )
)
_WHOLE_NUMBER = re.compile(r"(\d+)\.0+")
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[Ee]\+\d+")  # 1.23457E+11: several identifiers become one


class TableRow(dict[str, str]):
    """A row by column name; its methods raise the error sentence with the row's number.

    Attributes:
        number: of the row; the first row after the header is row 1.
        table: the path of its table.
    """

    def __init__(self, cells: Iterable[tuple[str, str]], number: int, table: epath.PathLike, line: int = 0):
        super().__init__(cells)
        self.number, self.table, self._line = number, table, line or number + 1

    @property
    def place(self) -> str:
        """The row's number and its table, and its line where blank lines or line breaks come before it."""
        line = "" if self._line == self.number + 1 else f", line {self._line}"
        return f"row {self.number} of {self.table}{line}"

    def refuse(self, column: str, requirement: str, advice: str = "") -> NoReturn:
        """Raise the error sentence for a cell, without its content."""
        raise refusal(column, requirement, self.place, advice)

    def match(self, column: str, pattern: re.Pattern[str], requirement: str) -> re.Match[str]:
        """Match the whole cell, or raise the error sentence."""
        match = pattern.fullmatch(self[column])
        return match if match is not None else self.refuse(column, requirement)

    def image_name(self) -> str:
        """The cell "path" with slashes for backslashes; refuse a drive letter and a server's name."""
        name = self["path"]
        if _DRIVE.match(name):
            advice = "Write it relative to the table's folder, such as images/0001.png."
            self.refuse("path", "a path without a drive letter or a server's name", advice)
        return name if "://" in name else name.replace("\\", "/")

    def choose(self, column: str, known: Mapping[str, _Value], requirement: str = "") -> _Value:
        """Look a cell up, or raise the error sentence with the cell, which is no text of a report."""
        cell = self[column]
        if cell not in known:
            requirement = requirement or f"one of {', '.join(known)}"
            raise refusal(column, requirement, cell, f"It is {self.place}.")
        return known[cell]


def read_table(path: epath.PathLike, columns: Sequence[str]) -> Iterator[TableRow]:
    """Yield the rows of a table, blanks around its cells removed; blank rows are skipped.

    Cells missing at the end of a row are "". Identifiers are in one form (`identifier`).

    Args:
        path: a file of values with a header, separated by commas, semicolons or tabs, UTF-8 with or without a
            byte-order mark, lines with any ends; as it is, or compressed: `.csv.gz`, `.csv.zip`. Or a
            `.parquet` table, or the first sheet of an `.xlsx` workbook.
        columns: the columns that must be there.

    Raises:
        ValueError: no such file, no table, or a column that is missing or there twice, at the first `next()`;
            a line that is not UTF-8; a row that ends before one of the columns or has more cells than the
            header; a quotation mark that is not closed; a compressed file that is damaged or locked.
    """
    numbered = _reader_of(path)(epath.Path(path))
    header = next(numbered, (0, 0, []))[2]
    require(bool(header), "input", "a table with a header", f"the empty {path}")
    require_columns(header, columns, str(path))
    repeated = [name for name in header if name and header.count(name) > 1]
    require(not repeated, "column", f"different from all other columns of {path}", repeated[:1])
    least = max((header.index(column) + 1 for column in columns), default=0)
    identifiers = [name for name in header if plain(name) in _IDENTIFIERS]
    table = str(path)
    for number, line, cells in numbered:
        blank = [""] * (len(header) - len(cells))
        row = TableRow(zip(header, cells + blank, strict=False), number, table, line)
        if not least <= len(cells) <= len(header):
            row.refuse("input", "a table whose rows are as long as its header")
        for name in identifiers:
            if not (row[name].isalnum() and row[name].isascii()):  # most are, and are in their form
                row[name] = _identifier_in(row, name)
        yield row


def _reader_of(path: epath.PathLike) -> Callable[[epath.Path], Iterator[tuple[int, int, list[str]]]]:
    """The reader of a file's cells, by the file's suffix."""
    kinds = (parquet_files, spreadsheets)
    return next((kind.numbered_cells for kind in kinds if str(path).endswith(kind.SUFFIX)), _text_cells)


def _text_cells(path: epath.Path) -> Iterator[tuple[int, int, list[str]]]:
    lines = files.read_lines(path)
    blank_or_header = [*_until_filled(lines)]
    delimiter = max(",;\t", key=blank_or_header[-1].count) if blank_or_header else ","
    reader = csv.reader(itertools.chain(blank_or_header, lines), delimiter=delimiter, strict=True)
    return _numbered_cells(reader, path)


def _until_filled(lines: Iterator[str]) -> Iterator[str]:
    """The leading blank lines and the first line with text."""
    for line in lines:
        yield line
        if line.strip():
            return


def _numbered_cells(reader: Any, path: epath.PathLike) -> Iterator[tuple[int, int, list[str]]]:
    """Number, first line and stripped cells of the rows that are not blank; the header is row 0.

    Rows of blank cells count; blank lines do not, but in the lines.
    """
    number, line = -1, 1
    try:
        for cells in reader:
            number += bool(cells)
            cells = list(map(str.strip, cells))
            if any(cells):
                yield number, line, cells
            line = reader.line_num + 1
    except csv.Error:
        requirement = "a table with closed quotation marks"
        place = TableRow((), number + 1, path, line).place
        raise refusal("input", requirement, place, "Close it, or double a mark inside of a cell.") from None


def identifier(text: str) -> str:
    """An identifier in the form in which all tables are joined.

    Composed characters, no blanks around it, and no decimals of a whole number, which programs add where
    cells of the column are blank.

    >>> identifier(" 50414267.0 "), identifier("s1"), identifier("1.2.840.10")
    ('50414267', 's1', '1.2.840.10')
    """
    text = text.strip()
    if text.isascii():
        match = _WHOLE_NUMBER.fullmatch(text) if text.endswith("0") else None
        return match[1] if match else text
    return unicodedata.normalize("NFC", text)


def _identifier_in(row: TableRow, column: str) -> str:
    text = identifier(row[column])
    if "+" in text and _ROUNDED.fullmatch(text):
        row.refuse(column, "written with all of its digits", "A spreadsheet rounded it: format it as text.")
    return text


def plain(name: str) -> str:
    """A column's name in lower case without blanks, hyphens and underscores.

    >>> plain("Study ID")
    'studyid'
    """
    return re.sub(r"[\s_-]+", "", name).lower()


def read_lines(
    path: epath.PathLike, pattern: re.Pattern[str], argument: str, requirement: str
) -> list[TableRow]:
    """The lines of a file without a header: the pattern's groups, and the whole line as "line".

    A line that does not match raises the error sentence of `argument` and `requirement`.
    """
    lines = [line.strip() for line in files.read_lines(epath.Path(path))]
    rows = [TableRow([("line", line)], number, path) for number, line in enumerate(filter(None, lines), 1)]
    for row in rows:
        match = pattern.fullmatch(row["line"])
        row.update(match.groupdict("") if match is not None else row.refuse(argument, requirement))
    return rows


def first_file(folder: epath.Path, names: Iterable[str]) -> epath.Path | None:
    """The first of these files that exists in a folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def require_file(folder: epath.Path, names: Sequence[str], advice: str, wanted: str = "") -> epath.Path:
    """The first of these files, or an error sentence that asks for `wanted`, by default the first name."""
    file = first_file(folder, names)
    if file is None:
        raise refusal("input", f"a folder with {wanted or names[0]}", str(folder), advice)
    return file


def require_columns(found: Sequence[str], columns: Sequence[str], path: str) -> None:
    """Raise the error sentence, with the near names, for the first missing column."""
    for column in columns:
        require(column in found, column, f"a column of {path}", list(found), near_names(column, found))


def require_distinct(keys: Iterable[Hashable], column: str, path: epath.PathLike) -> None:
    """Raise the error sentence, with both rows' numbers, for the first row that repeats another's key."""
    row_of: dict[Hashable, int] = {}
    for number, key in enumerate(keys, 1):
        earlier = row_of.setdefault(key, number)
        if earlier != number:
            received = f"row {number}, which repeats row {earlier}"
            raise refusal(column, f"different in every row of {path}", received, "Delete one of them.")


def plain_code(text: str) -> str:
    """A code without decimals and a plus sign, as programs write the codes of a column with blanks.

    >>> plain_code("1.0"), plain_code("-0.0"), plain_code("yes")
    ('1', '0', 'yes')
    """
    if text in STATE_OF_CODE:
        return text
    text = text.strip()
    text = _CODES.get(text) or _WHOLE_CODE.sub(r"\1", text)
    return "0" if text == "-0" else text


def state_of_code(code: str, column: str, place: str = "") -> LabelState:
    """The state that a table's cell means, or the error sentence with its place; "1.0" is read as "1"."""
    text = plain_code(code)
    if text not in STATE_OF_CODE:
        advice = f"It is {place}." if place else "Code the labels as CheXpert does."
        received = code if _QUOTED.fullmatch(text) else "a text"
        raise refusal(column, "1, 0, -1 or blank", received, advice)
    return STATE_OF_CODE[text]


def state_in(row: TableRow, column: str) -> LabelState:
    """The state that a row's cell means, or the error sentence with its row."""
    state = STATE_OF_CODE.get(plain_code(row[column]))
    return state_of_code(row[column], column, row.place) if state is None else state


def states_in(row: TableRow, concept_of_label: Mapping[str, str]) -> Labels:
    """The states in those label columns that a row has; rows with frequent codes share one dictionary."""
    labels = tuple(label for label in concept_of_label if label in row)
    codes = tuple(row[label] for label in labels)
    try:
        return _states_of_codes(labels, tuple(concept_of_label[label] for label in labels), codes)
    except ValueError:  # the cache knows no row
        for label in labels:
            state_in(row, label)
        raise


@functools.lru_cache(maxsize=4096)
def _states_of_codes(labels: Sequence[str], concepts: Sequence[str], codes: Sequence[str]) -> Labels:
    pairs = zip(labels, concepts, codes, strict=True)
    return {concept: state_of_code(code, label) for label, concept, code in pairs}


def concepts_of(dataset: str) -> dict[str, str]:
    """Published label → concept, for the labels of a data set that stand for a concept.

    >>> concepts_of("rsna")
    {'Lung Opacity': 'Lung Opacity', 'Normal': 'No Finding', 'Target': 'Pneumonia'}
    """
    pairs = ((label, concept_of_label(dataset, label)) for label in labels_of(dataset))
    return {label: concept for label, concept in pairs if concept is not None}


def states_of(dataset: str, positive: Iterable[str], negative: Iterable[str]) -> Labels:
    """The states of a class that has some of the published labels and lacks others.

    >>> {concept: state.name for concept, state in states_of("kermany", ["NORMAL"], ["PNEUMONIA"]).items()}
    {'No Finding': 'POSITIVE', 'Pneumonia': 'NEGATIVE'}
    """
    concepts = concepts_of(dataset)
    states = dict.fromkeys((concepts[label] for label in positive), LabelState.POSITIVE)
    return states | dict.fromkeys((concepts[label] for label in negative), LabelState.NEGATIVE)


# Of several states of one concept, the first one counts.
_PRECEDENCE = (LabelState.POSITIVE, LabelState.UNCERTAIN, LabelState.NEGATIVE, LabelState.NOT_MENTIONED)


def concept_states(dataset: str, states: Mapping[str, LabelState]) -> Labels:
    """The states of a data set's labels by concept, and of the wider concepts without a label of their own.

    Several labels of a concept: positive before uncertain before negative. A wider concept, such as Fracture,
    is positive or uncertain where a narrower one is.

    >>> states = {"clavicle fracture": LabelState.POSITIVE, "unchanged": LabelState.POSITIVE}
    >>> {concept: state.name for concept, state in concept_states("padchest", states).items()}
    {'Clavicle Fracture': 'POSITIVE', 'Fracture': 'POSITIVE'}
    """
    own: Labels = {}
    for label, state in states.items():
        concept = concept_of_label(dataset, label)
        if concept is not None:
            own[concept] = min(state, own.get(concept, state), key=_PRECEDENCE.index)
    wider: Labels = {}
    for concept, state in own.items():
        for above in concepts_above(concept) if state in _PRECEDENCE[:2] else ():
            wider[above] = min(state, wider.get(above, state), key=_PRECEDENCE.index)
    return own | {concept: state for concept, state in wider.items() if concept not in own}
