"""The labels of a report as the line of JSON that `label_reports --mentions` writes."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from medclip_keras.knowledge.labeller import ReportLabels
from medclip_keras.knowledge.states import LabelState


class MentionRecord(TypedDict):
    """A mention without its text; offsets into its section."""

    cui: str
    name: str
    section: str
    start: int
    end: int
    assertion: str


class MentionsLine(TypedDict):
    """A line of the mentions file."""

    report_id: str
    findings: dict[str, str]
    mentions: list[MentionRecord]


def mentions_line(report_id: str, labels: ReportLabels, names: Sequence[str]) -> MentionsLine:
    """A report's line of the mentions file: state by finding, and mentions without their text.

    `names` are those of the concept table, in its order.

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> from medclip_keras.knowledge.labeller import ReportLabeller
    >>> from medclip_keras.knowledge.sections import Section
    >>> labeller = ReportLabeller(load_table("chexpert14"))
    >>> line = mentions_line("7", labeller.label([Section("findings", "No effusion.")]), labeller.table.names)
    >>> line["findings"], line["mentions"][0]["start"]
    ({'Pleural Effusion': 'negative'}, 3)
    """
    return {
        "report_id": report_id,
        "findings": findings_of(labels, names),
        "mentions": [
            {
                "cui": mention.cui,
                "name": mention.name,
                "section": mention.section,
                "start": mention.start,
                "end": mention.end,
                "assertion": mention.assertion,
            }
            for mention in labels.mentions
        ],
    }


def findings_of(labels: ReportLabels, names: Sequence[str]) -> dict[str, str]:
    """The concepts that a report mentions, in the table's order: "positive", "negative" or "uncertain"."""
    return {names[k]: LabelState(labels.states[k]).name.lower() for k in np.flatnonzero(labels.states)}
