"""Reads the comma-separated tables that archives come with."""

import csv
import difflib
from collections.abc import Iterator, Sequence

from etils import epath

from medclip_keras.config import require
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
        path: a file of comma-separated values with a header, UTF-8 with or without a byte-order mark.
        columns: the columns that must be there.

    Raises:
        ValueError: no such file, or a column is missing, at the first `next()`; a line that is not UTF-8.
    """
    require(epath.Path(path).is_file(), "input", "a table of comma-separated values", str(path))
    with epath.Path(path).open("rb") as file:
        reader = csv.DictReader(_decode(line) for line in file)
        require_columns(reader.fieldnames or (), columns, str(path))
        yield from reader


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


def state_of_code(code: str | None, column: str) -> LabelState:
    """The state that a table's cell means; "1.0" is read as "1".

    Raises:
        ValueError: another code.
    """
    text = (code or "").strip().removesuffix(".0")
    text = "0" if text == "-0" else text
    require(text in STATE_OF_CODE, column, "1, 0, -1 or blank", code, "Code the labels as CheXpert does.")
    return STATE_OF_CODE[text]
