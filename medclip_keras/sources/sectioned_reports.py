"""Reports that archives publish in parts: the parts packed into a row's content, and read from it."""

import json
from collections.abc import Iterable

from medclip_keras.knowledge.sections import Section
from medclip_keras.sources.files import foreign_content
from medclip_keras.sources.rows import BadRowError, ReportRow

EMPTY = frozenset(("", "nan", "none", "n/a"))  # what programs write for a part that is not there

NO_PARTS = b"[]"  # of a report that is there, and empty


def pack(parts: Iterable[tuple[str, str]]) -> bytes:
    """Pack sections, each a name and a text, as the content of a `ReportRow`; b"" if none has text."""
    filled = [(name, text.strip()) for name, text in parts if text.strip().lower() not in EMPTY]
    return json.dumps(filled, ensure_ascii=False).encode() if filled else b""


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """Read the sections that `pack` packed; BadRowError for a report without text."""
    if not row.content:
        raise BadRowError("the row has no report text")
    sections = tuple(Section(name, text) for name, text in json.loads(row.content))
    for section in sections:
        if what := foreign_content(section.text.encode()):
            raise BadRowError(f"the report is {what}")
    return sections
