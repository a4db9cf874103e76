"""Mentions in colour, as HTML: a report for a notebook, and a page of its own.

Assertions differ by colour, by the line under the words and by a sign. Words that several mentions share
carry the lines and signs of all. Hover and focus explain a mention, mark its cue and underline its scope.
"""

import itertools
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from medclip_keras.knowledge.assertion import ASSERTIONS, HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.explain import SIGNS, Explained, runs, scope_words
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, Section
from medclip_keras.pages import fill_template, html_table

_SIGNS = {**SIGNS, NEGATIVE: "−"}
_MEANINGS = {
    POSITIVE: "the report says that it is there",
    NEGATIVE: "it says that it is not there",
    UNCERTAIN: "it leaves it open",
    HISTORICAL: "it was there, or has resolved: counts as negative",
}


def highlight(sections: Sequence[Section], mentions: Iterable[Mention]) -> str:
    """A report as a piece of HTML, for a notebook.

    `mentions` are those of the report in its order, `ReportLabels.mentions`.

    Raises:
        ValueError: a mention that is in none of the sections.

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> from medclip_keras.knowledge.labeller import ReportLabeller
    >>> sections = [Section("impression", "No effusion.")]
    >>> labels = ReportLabeller(load_table("chest21")).label(sections)
    >>> "Pleural Effusion (C0032227): negative" in highlight(sections, labels.mentions)
    True
    """
    left, by_section = list(mentions), []
    for section in sections:
        in_section = [m.section == section.name and m.end <= len(section.text) for m in left]
        count = [*in_section, False].index(False)
        by_section.append(tuple(left[:count]))
        left = left[count:]
    if left:
        raise ValueError(
            "`mentions` must be of these sections, in their order. "
            f"Received: one of the section {left[0].section!r} at {left[0].start}. Hand in what `label` gave."
        )
    return _report(Explained("", tuple(sections), tuple(by_section), {}), style=True)


def render_page(report: Explained) -> str:
    """A self-contained page: the report, its findings, its mentions."""
    return fill_template(
        "medclip_keras.knowledge",
        "page.html",
        legend=[(_sample(assertion), _MEANINGS[assertion]) for assertion in ASSERTIONS],
        report=_report(report),
        findings=_findings_table(report),
        mentions=_mentions_table(report),
        concepts=report.concepts,
    )


def _report(report: Explained, style: bool = False) -> Markup:
    """The sections, and the rules that mark cue and scope of the mention under the pointer."""
    numbered = report.numbered
    return fill_template(
        "medclip_keras.knowledge",
        "report.html",
        style=style,
        sections=[(section, mentions, runs(section.text, mentions)) for section, mentions in numbered],
        numbers=list(itertools.chain.from_iterable(mentions for _, mentions in numbered)),
        read=CONTENT_SECTIONS,
        signs=_SIGNS,
        explanation=_explanation,
    )


def _explanation(number: int, section: Section, mention: Mention) -> list[str]:
    lines = [f"{number} {mention.name} ({mention.cui}): {mention.assertion}"]
    if mention.cue:
        lines += [f"cue: {mention.cue}", f"reaches: {scope_words(section, mention)}"]
    return [*lines, f"rule: {mention.rule}"]


def _sample(assertion: str) -> Markup:
    sample = Markup('<span class="mention"><mark class="{0}">{0}</mark><sup>{1}</sup></span>')
    return sample.format(assertion, _SIGNS[assertion])


def _findings_table(report: Explained) -> Markup:
    numbers: dict[str, list[str]] = {}
    for _, mentions in report.numbered:
        for number, mention in mentions.items():
            numbers.setdefault(mention.name, []).append(str(number))
    rows = [
        (_sample(state), name, ", ".join(numbers.get(name, ["by rule"])))
        for state, names in report.findings_by_state()
        for name in names
    ]
    return html_table(("", "finding", "mentions"), rows) if rows else Markup("<p>None.</p>")


def _mentions_table(report: Explained) -> Markup:
    noted = Markup("{} <small>{}</small>")
    rows = [
        (
            f"{number}{_SIGNS[mention.assertion]}",
            noted.format(mention.name, mention.cui),
            noted.format(section.text[mention.start : mention.end], section.name),
            mention.assertion,
            mention.cue,
            scope_words(section, mention),
            Markup("|<wbr>").join(mention.rule.split("|")),
        )
        for section, mentions in report.numbered
        for number, mention in mentions.items()
    ]
    header = ("", "concept", "words", "assertion", "cue", "reaches", "rule")
    return html_table(header, rows) if rows else Markup("<p>None.</p>")
