"""Parquet tables as rows of cells, and the images that they hold, as Hugging Face's `datasets` writes them.

A column of images is a struct of `bytes` and `path`, or binary without text in it: some writers do not mark
texts as such, so a binary column whose first value is UTF-8 is one of texts. An image's cell is a reference,
such as `train-00000-of-00002.parquet#image#17`, and the bytes are read where the image is decoded; where
`bytes` is null, the file at `path`, relative to the table. A column of `ClassLabel` integers has their names
as cells.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.parquet
from etils import epath

from medclip_keras.errors import refusal
from medclip_keras.sources.rows import BadRowError

SUFFIX = ".parquet"


def numbered_cells(path: epath.Path) -> Iterator[tuple[int, int, list[str]]]:
    """Number, line and cells of the header, row 0, and of every row."""
    with _open(path) as parquet:
        schema = parquet.schema_arrow
        texts = [field.name for field in schema if not _holds_image(field, parquet)]
        names_of = _class_names(schema)
        yield 0, 0, list(schema.names)
        number = 0
        for batch in parquet.iter_batches(batch_size=1024, columns=texts):
            for values in batch.to_pylist() if texts else [{}] * batch.num_rows:
                cells = [
                    _cell(_decoded(values[name], name, path), names_of.get(name, ()))
                    if name in values
                    else f"{path.name}#{name}#{number}"
                    for name in schema.names
                ]
                number += 1
                yield number, number, cells


def is_reference(path: str) -> bool:
    """Whether a path refers to an image inside a table."""
    table, *place = path.rsplit("#", 2)
    return table.endswith(SUFFIX) and len(place) == 2 and place[1].isdigit()


def read_image_bytes(reference: str) -> bytes:
    """The image file that a reference means; BadRowError for a row without one."""
    table, column, row = reference.rsplit("#", 2)
    path, number = epath.Path(table), int(row)
    with _open(path) as parquet:
        for group in range(parquet.num_row_groups):
            num_rows = parquet.metadata.row_group(group).num_rows
            if number < num_rows:
                value = parquet.read_row_group(group, columns=[column])[column][number].as_py()
                break
            number -= num_rows
        else:
            raise BadRowError("the table has no such row")
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None and isinstance(value, dict) and value.get("path"):
        return (path.parent / value["path"]).read_bytes()
    if not content:
        raise BadRowError("the row of the table has no image")
    return content


class _Seekable:
    """A file of a bucket too as pyarrow reads it: with `closed`, and a `seek` that says where it is."""

    closed = False

    def __init__(self, file: Any):
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read some bytes; -1: all that are left."""
        content: bytes = self._file.read(size)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, counted from the start (0), from here (1) or from the end (2)."""
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        """Where the next byte is read."""
        return int(self._file.tell())


@contextlib.contextmanager
def _open(path: epath.Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    with contextlib.ExitStack() as stack:
        try:
            parquet = pyarrow.parquet.ParquetFile(_Seekable(stack.enter_context(path.open("rb"))))
        except (pyarrow.ArrowException, OSError) as error:
            received = f"{path} ({type(error).__name__})"
            raise refusal("input", "a whole Parquet table", received, "Download it again.") from None
        yield parquet


def _holds_image(field: pyarrow.Field, parquet: pyarrow.parquet.ParquetFile) -> bool:
    kind = field.type
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return not _is_text(_first_value(parquet, field.name))
    return pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _first_value(parquet: pyarrow.parquet.ParquetFile, column: str) -> bytes:
    for batch in parquet.iter_batches(batch_size=16, columns=[column]):
        for value in batch.column(0).to_pylist():
            if value:
                return value
    return b""


def _is_text(content: bytes) -> bool:
    """Whether bytes are UTF-8 without zeros: no image is."""
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _decoded(value: Any, column: str, path: epath.Path) -> Any:
    if isinstance(value, bytes) and not _is_text(value):
        raise refusal("input", f"a table with images alone, or texts in UTF-8, in {column!r}", str(path))
    return value.decode() if isinstance(value, bytes) else value


def _class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Column → the names of its classes, by the metadata that Hugging Face's `datasets` writes."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _cell(value: Any, class_names: list[str] | tuple[()]) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if class_names and isinstance(value, int):
        return class_names[value] if 0 <= value < len(class_names) else ""
    return str(int(value)) if isinstance(value, bool) else str(value).strip()
