"""Messages for the owner of the data, printed on the job's machine and never written to a file."""

import itertools
from collections.abc import Iterable, Sequence
from types import ModuleType

from beam_jobs.dataset.options import JobOptions
from beam_jobs.dataset.sharding import BadRow, Row, key_row
from medclip_keras.errors import near_names
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.sources.rows import ImageRow

MOST_BAD_ROWS = 100


def print_unused_columns(source: ModuleType, path: str, table: ConceptTable) -> None:
    """Print the columns of the user's own table that are no concept, with their filled cells and near names.

    Raises:
        ValueError: a concept's cell that is no code.
    """
    if not hasattr(source, "unused_columns"):
        return
    concept_of = {alias.lower(): concept.name for concept in table.concepts for alias in concept.aliases}
    for column, filled in source.unused_columns(path, table.names).items():
        concept = concept_of.get(column.lower())
        known = (concept,) if concept else (*table.names, *source.OWN_COLUMNS)
        near = near_names(concept or column, known)
        advice = f" {near}" if near.startswith("Near") else ""
        print(f"Unused column {column!r}: {filled} filled cells, no concept of {table.name}.{advice}")


def print_passed_over(source: ModuleType, path: str) -> None:
    """Print how many files of a folder without a table are not read, by their kind."""
    if hasattr(source, "passed_over"):
        for kind, number in source.passed_over(path).items():
            print(f"Passed over: {number} files ({kind}).")


def print_bad_rows(rows: Iterable[Row], options: JobOptions, bad: Sequence[BadRow]) -> None:
    """Print number, path and reason of bad rows, which files name by their keys alone."""
    reasons = {row["key"]: row["reason"] for row in bad}
    keyed_rows = (key_row(row, options) for row in rows)
    found = (keyed for keyed in keyed_rows if keyed.record_key in reasons)
    for keyed in itertools.islice(found, MOST_BAD_ROWS):
        print(f"Bad row: {_place(keyed.row)}: {reasons[keyed.record_key]}")
    if len(bad) > MOST_BAD_ROWS:
        print(f"Bad rows: the first {MOST_BAD_ROWS} of {len(bad)}")


def _place(row: Row) -> str:
    if row.number:
        return f"row {row.number}, {row.path}"
    return row.path if isinstance(row, ImageRow) else f"{row.report_id}, {row.path}"
