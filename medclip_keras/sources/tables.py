"""Read the tables of the archives: comma-separated values with a header, or lines of one form."""

import contextlib
import csv
import functools
import gzip
import itertools
import re
import zipfile
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NoReturn, TypeVar

from etils import epath

from medclip_keras.errors import near_names, refusal, require
from medclip_keras.knowledge.label_names import concept_of_label, labels_of
from medclip_keras.knowledge.states import LabelState

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


_DRIVE = re.compile(r"[A-Za-z]:(?!//)|\\\\")  # or a server's name


class TableRow(dict[str, str]):
    """A row by column name; its methods raise the error sentence with the row's number.

    Attributes:
        number: of the row; the first row after the header is row 1.
    """

    def __init__(self, cells: Iterable[tuple[str, str]], number: int, table: epath.PathLike):
        super().__init__(cells)
        self.number, self._table = number, table

    @property
    def place(self) -> str:
        """The row's number and its table."""
        return f"row {self.number} of {self._table}"

    def refuse(self, column: str, requirement: str, advice: str = "") -> NoReturn:
        """Raise the error sentence for a cell, without its content."""
        raise refusal(column, requirement, self.place, advice)

    def match(self, column: str, pattern: re.Pattern[str], requirement: str) -> re.Match[str]:
        """Match the whole cell, or raise the error sentence."""
        match = pattern.fullmatch(self[column])
        return match if match is not None else self.refuse(column, requirement)

    def image_name(self) -> str:
        """The cell "path" with slashes for backslashes; refuse a drive letter and a server's name."""
        name = self["path"].strip()
        if _DRIVE.match(name):
            advice = "Write it relative to the table's folder, such as images/0001.png."
            self.refuse("path", "a path without a drive letter or a server's name", advice)
        return name if "://" in name else name.replace("\\", "/")

    def choose(self, column: str, known: Mapping[str, _Value], requirement: str = "") -> _Value:
        """Look a cell up, or raise the error sentence with the cell, which is no text of a report."""
        cell = self[column].strip()
        if cell not in known:
            requirement = requirement or f"one of {', '.join(known)}"
            raise refusal(column, requirement, cell, f"It is {self.place}.")
        return known[cell]


def read_table(path: epath.PathLike, columns: Sequence[str], *, strict: bool = False) -> Iterator[TableRow]:
    """Yield the rows of a table; blank lines are skipped, cells missing at the end of a row are "".

    Args:
        path: a file of values with a header, separated by commas, semicolons or tabs, UTF-8 with or without a
            byte-order mark; as it is, or compressed: `.csv.gz`, `.csv.zip`.
        columns: the columns that must be there.
        strict: refuse a column that is there twice, a row with more cells than the header, and a quotation
            mark that is not closed.

    Raises:
        ValueError: no such file, or a column is missing, at the first `next()`; a line that is not UTF-8; a
            row that ends before one of the columns; a compressed file that is damaged.
    """
    exists = epath.Path(path).is_file()
    require(exists, "input", "a table of comma-separated values", str(path), "There is no such file.")
    with _open(epath.Path(path)) as file:
        lines = (_decode(line, number, path) for number, line in enumerate(file, 1))
        first = next(lines, "")
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=strict)
        numbered = _numbered_cells(reader, path)
        header = [name.strip() for name in next(numbered, (0, []))[1]]
        require_columns(header, columns, str(path))
        repeated = [name for name in header if strict and name and header.count(name) > 1]
        require(not repeated, "column", f"different from all other columns of {path}", repeated[:1])
        least = max((header.index(column) + 1 for column in columns), default=0)
        most = len(header) if strict else float("inf")
        for number, cells in numbered:
            row = TableRow(zip(header, cells + [""] * (len(header) - len(cells)), strict=False), number, path)
            if not least <= len(cells) <= most:
                row.refuse("input", "a table whose rows are as long as its header")
            yield row


def _numbered_cells(rows: Iterable[list[str]], path: epath.PathLike) -> Iterator[tuple[int, list[str]]]:
    number = -1
    try:
        for number, cells in enumerate(filter(None, rows)):
            yield number, cells
    except csv.Error:
        requirement = "a table with closed quotation marks and the line ends of Unix or Windows"
        raise refusal("input", requirement, f"row {number + 1} of {path}") from None


def read_lines(
    path: epath.PathLike, pattern: re.Pattern[str], argument: str, requirement: str
) -> list[TableRow]:
    """The lines of a file without a header: the pattern's groups, and the whole line as "line".

    A line that does not match raises the error sentence of `argument` and `requirement`.
    """
    lines = [line.strip() for line in epath.Path(path).read_text().splitlines()]
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


@contextlib.contextmanager
def _open(path: epath.Path) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        try:
            if path.name.endswith(".gz"):
                file = stack.enter_context(gzip.open(file))
            elif path.name.endswith(".zip"):
                archive = stack.enter_context(zipfile.ZipFile(file))
                names = [name for name in archive.namelist() if name.endswith(".csv")]
                require(len(names) == 1, "input", f"one table of comma-separated values in {path}", names)
                file = stack.enter_context(archive.open(names[0]))
            yield file
        except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
            received = f"{path} ({type(error).__name__})"
            raise refusal("input", "a whole compressed table", received, "Download it again.") from None


def _decode(line: bytes, number: int, path: epath.PathLike) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        received = f"byte {error.object[error.start]:#x} in line {number} of {path}"
        raise refusal("input", "UTF-8", received, "Save the table as UTF-8.") from None


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


def state_of_code(code: str, column: str, place: str = "") -> LabelState:
    """The state that a table's cell means, or the error sentence with its place; "1.0" is read as "1"."""
    text = code.strip().removesuffix(".0")
    text = "0" if text == "-0" else text
    advice = f"It is {place}." if place else "Code the labels as CheXpert does."
    require(text in STATE_OF_CODE, column, "1, 0, -1 or blank", code, advice)
    return STATE_OF_CODE[text]


def states_in(row: TableRow, concept_of_label: Mapping[str, str]) -> Labels:
    """The states in those label columns that a row has; rows with frequent codes share one dictionary."""
    labels = tuple(label for label in concept_of_label if label in row)
    codes = tuple(row[label] for label in labels)
    return _states_of_codes(labels, tuple(concept_of_label[label] for label in labels), codes)


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
