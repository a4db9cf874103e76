"""The first sheet of an Excel workbook (.xlsx) as rows of cells.

Cells are values, not as they are shown: a date is a number, an error is blank, a formula its last result. A
whole number has no decimals.
"""

import re
import zipfile
from collections.abc import Iterator
from xml.etree import ElementTree

from etils import epath

from medclip_keras.errors import refusal

SUFFIX = ".xlsx"
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_LETTERS = re.compile(r"[A-Z]+")
# ECMA-376, part 1, 22.4.2.4: _x000D_ is a carriage return. Halves of surrogate pairs stay as they are.
_ESCAPED = re.compile(r"_x((?![Dd][89A-Fa-f])[0-9A-Fa-f]{4})_")


def numbered_cells(path: epath.Path) -> Iterator[tuple[int, int, list[str]]]:
    """Number, line and cells of the rows that are not blank; the header is row 0."""
    number = 0
    for line, cells in _lines(path):
        if any(cells):
            yield number, line, cells
            number += 1


def _lines(path: epath.Path) -> list[tuple[int, list[str]]]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as book:
            strings = _shared_strings(book)
            sheet = ElementTree.fromstring(book.read(_first_sheet(book)))
            rows = sheet.iter(f"{_MAIN}row")
            return [(int(row.get("r", k)), _cells(row, strings)) for k, row in enumerate(rows, 1)]
    except (
        zipfile.BadZipFile,
        ElementTree.ParseError,
        LookupError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        received = f"{path} ({type(error).__name__})"
        raise refusal("input", "an Excel workbook (.xlsx)", received, "Save it anew, or as CSV.") from None


def _first_sheet(book: zipfile.ZipFile) -> str:
    """The file of the first sheet, by the workbook's list."""
    sheets = ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{_MAIN}sheet")
    relations = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    target = {one.get("Id"): one.get("Target", "") for one in relations}[
        next(sheets, relations).get(_RELATION)
    ]
    return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"


def _shared_strings(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    items = ElementTree.fromstring(book.read("xl/sharedStrings.xml")).iter(f"{_MAIN}si")
    return [_text(item) for item in items]


def _text(item: ElementTree.Element) -> str:
    """The text of a string, in one piece or in runs of several fonts."""
    runs = [*item.findall(f"{_MAIN}t"), *item.findall(f"{_MAIN}r/{_MAIN}t")]
    text = "".join(run.text or "" for run in runs)
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).strip()


def _cells(row: ElementTree.Element, strings: list[str]) -> list[str]:
    """The cells of a row; those that the file leaves out are blank."""
    cells: list[str] = []
    for cell in row.iter(f"{_MAIN}c"):
        name = _LETTERS.match(cell.get("r", ""))
        position = _position(name[0]) if name else len(cells)
        cells += [""] * (position - len(cells))
        cells.append(_value(cell, strings))
    while cells and not cells[-1]:  # formatted, and empty
        cells.pop()
    return cells


def _position(letters: str) -> int:
    """Position of a column by its name: A is 0, AA 26."""
    position = 0
    for letter in letters:
        position = 26 * position + ord(letter) - ord("A") + 1
    return position - 1


def _value(cell: ElementTree.Element, strings: list[str]) -> str:
    kind, value = cell.get("t", "n"), (cell.findtext(f"{_MAIN}v") or "").strip()
    if kind == "inlineStr":
        inline = cell.find(f"{_MAIN}is")
        return _text(inline) if inline is not None else ""
    if kind == "s":
        return strings[int(value)]
    if kind == "n" and value:
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else value
    return "" if kind == "e" else value
