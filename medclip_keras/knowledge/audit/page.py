"""The page beside the sheet: strata, and the drawn reports with their findings, and text if allowed."""

from collections.abc import Sequence

from medclip_keras.knowledge.audit.sheet import Line
from medclip_keras.knowledge.sections import Section
from medclip_keras.pages import fill_template, html_table


def render_audit(
    reports: Sequence[tuple[str, float, Sequence[Line]]],
    texts: Sequence[Sequence[Section]],
    strata: Sequence[tuple[str, int, int]],
    num_reports: int,
) -> str:
    """A self-contained page.

    Args:
        reports: key, weight and lines of each drawn report.
        texts: its sentences; empty without permission to show them.
        strata: name, number of reports, and how many of them were drawn.
        num_reports: all reports.
    """
    shown = [
        (number, key, weight, sentences, html_table(("finding", "said", "rule", "cue"), _rows(lines)))
        for number, ((key, weight, lines), sentences) in enumerate(zip(reports, texts, strict=True), start=1)
    ]
    table = html_table(
        ("stratum", "reports", "drawn"), [(name, f"{size:,}", str(drawn)) for name, size, drawn in strata]
    )
    return fill_template(
        "medclip_keras.knowledge.audit", "audit.html", reports=shown, strata=table, num_reports=num_reports
    )


def _rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    return [(line.finding, line.said, line.rule.replace("|", " | "), line.cue) for line in lines]
