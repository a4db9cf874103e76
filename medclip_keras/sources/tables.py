"""Reads the comma-separated tables that archives come with."""

import array
import contextlib
import csv
import difflib
import gzip
import zipfile
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState

CHEXPERT_OBSERVATIONS = labels_of("chexpert")

# CheXpert's coding of a label column (Irvin et al., AAAI 2019).
STATE_OF_CODE = {
    "": LabelState.NOT_MENTIONED,
    "1": LabelState.POSITIVE,
    "0": LabelState.NEGATIVE,
    "-1": LabelState.UNCERTAIN,
}
CODE_OF_STATE = {state: code for code, state in STATE_OF_CODE.items()}


def read_table(path: epath.PathLike, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yields the rows of a table by column name.

    Args:
        path: a file of comma-separated values with a header, UTF-8 with or without a byte-order mark; as it
            is, or compressed: `.csv.gz`, `.csv.zip`.
        columns: the columns that must be there.

    Raises:
        ValueError: no such file, or a column is missing, at the first `next()`; a line that is not UTF-8; a
            row that ends before one of the columns; a compressed file that is damaged.
    """
    there = epath.Path(path).is_file()
    require(there, "input", "a table of comma-separated values", str(path), "There is no such file.")
    with _open(epath.Path(path)) as file:
        reader = csv.DictReader(_decode(line) for line in file)
        require_columns(reader.fieldnames or (), columns, str(path))
        for number, row in enumerate(reader, 1):
            if any(row[column] is None for column in columns):
                received = f"row {number} of {path}"
                require(False, "input", "a table whose rows are as long as its header", received)
            yield row


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
            require(False, "input", "a whole compressed table", received, "Download it again.")


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        require(False, "input", "UTF-8", f"byte {error.object[error.start]:#x}", "Save the table as UTF-8.")


def require_columns(found: Sequence[str], columns: Sequence[str], path: str) -> None:
    """Raises the error sentence, with the near names, for the first missing column."""
    for column in columns:
        written = {name.lower(): name for name in found}
        near = [written[name] for name in difflib.get_close_matches(column.lower(), written, 3, 0.5)]
        advice = f"Near names: {', '.join(near)}." if near else f"Columns: {', '.join(found)}."
        require(column in found, column, f"a column of {path}", list(found), advice)


def require_distinct(keys: Iterable[Hashable], column: str, path: epath.PathLike) -> None:
    """Raises the error sentence, with both rows' numbers, for the first row that repeats another.

    Args:
        keys: what each row must have for itself, row by row; the first row after the header is row 1.
        column: what to call it.
        path: the table.
    """
    repeat = first_repeat(array.array("q", map(hash, keys)))
    if repeat is not None:
        number, earlier = (position + 1 for position in repeat)
        received = f"row {number}, which repeats row {earlier}"
        require(False, column, f"different in every row of {path}", received, "Delete one of them.")


def first_repeat(hashes: array.array) -> tuple[int, int] | None:
    """The first position whose value stands at an earlier one too, and that one; None where all differ.

    Hashes of 8 bytes each take a twentieth of what a dictionary of the keys takes; that two of 377,110
    different keys share one has a chance of 4e-9.

    >>> first_repeat(array.array("q", [5, 7, 6, 7, 5]))
    (3, 1)
    """
    values = np.frombuffer(hashes, np.int64)
    order = np.argsort(values, kind="stable")
    repeats = order[1:][values[order[1:]] == values[order[:-1]]]
    if not len(repeats):
        return None
    position = int(repeats.min())
    return position, int(np.argmax(values == values[position]))


def state_of_code(code: str | None, column: str) -> LabelState:
    """The state that a table's cell means; "1.0" is read as "1".

    Raises:
        ValueError: another code.
    """
    text = (code or "").strip().removesuffix(".0")
    text = "0" if text == "-0" else text
    require(text in STATE_OF_CODE, column, "1, 0, -1 or blank", code, "Code the labels as CheXpert does.")
    return STATE_OF_CODE[text]
