"""Read JSON files of archives: one value, or one object a line."""

import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from medclip_keras.errors import refusal
from medclip_keras.sources.tables import TableRow


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """The only object of a file; raises an error sentence otherwise."""
    return _object(epath.Path(path).read_bytes(), str(path), "one JSON object")


def read_rows(path: epath.PathLike) -> Iterator[TableRow]:
    """The objects of a file, one a line, as rows of text; null is "", a blank line none."""
    for number, line in enumerate(epath.Path(path).read_bytes().splitlines(), 1):
        if line.strip():
            entry = _object(line, f"line {number} of {path}", "a JSON object in every line")
            yield TableRow(((name, cell_of(value)) for name, value in entry.items()), number, path, number)


def cell_of(value: Any) -> str:
    """A value as the cell of a table; null is ""."""
    return "" if value is None else str(value).strip()


def _object(content: bytes, place: str, requirement: str) -> dict[str, Any]:
    try:
        entry = json.loads(content)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise refusal("input", requirement, place, "Download it again.")
    return entry
