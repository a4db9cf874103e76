"""The labels of a report as the line of JSON that `label_reports --mentions` writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip_keras.knowledge.labeller import ReportLabels
from medclip_keras.knowledge.states import LabelState

_EXPLAINED = ("cue", "rule")
_SHOWN = ("cui", "name", "section", "start", "end", "assertion")  # of a mention, not its text


def mentions_line(
    report_id: str, labels: ReportLabels, names: Sequence[str], explained: bool = False
) -> dict[str, Any]:
    """A report's line of the mentions file: state by finding of the table `names`, and mentions without text.

    An explained line has the words of each mention's cue and the rule, an alias of the table, too.

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> from medclip_keras.knowledge.labeller import ReportLabeller
    >>> from medclip_keras.knowledge.sections import Section
    >>> labeller = ReportLabeller(load_table("chexpert14"))
    >>> line = mentions_line("7", labeller.label([Section("findings", "No effusion.")]), labeller.table.names)
    >>> line["findings"], line["mentions"][0]["start"]
    ({'Pleural Effusion': 'negative'}, 3)
    """
    fields = _SHOWN + _EXPLAINED if explained else _SHOWN
    return {
        "report_id": report_id,
        "findings": findings_of(labels, names),
        "mentions": [{field: getattr(mention, field) for field in fields} for mention in labels.mentions],
    }


def findings_of(labels: ReportLabels, names: Sequence[str]) -> dict[str, str]:
    """The concepts that a report mentions, in the table's order: "positive", "negative" or "uncertain"."""
    return {names[k]: LabelState(labels.states[k]).name.lower() for k in np.flatnonzero(labels.states)}
