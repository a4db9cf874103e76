"""Mentions in colour, as HTML: a report for a notebook, and a page of its own.

Assertions differ by colour, by the line under the words and by a sign. Words that several mentions share have
the lines and signs of all. Hover and focus explain a mention, mark its cue and underline what that reaches.
"""

import html
import importlib.resources
import itertools
import string
from collections.abc import Iterable, Sequence

from medclip_keras.knowledge.assertion import ASSERTIONS, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.explain import MEANINGS, SIGNS, Explained, Piece, pieces, scope_words
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, Section

_SIGNS = {**SIGNS, NEGATIVE: "−"}


def highlight(sections: Sequence[Section], mentions: Iterable[Mention]) -> str:
    """A report as a piece of HTML, for a notebook.

    Args:
        sections: of the report.
        mentions: of the report, in its order: `ReportLabels.mentions`.

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
        found = list(
            itertools.takewhile(lambda m, s=section: m.section == s.name and m.end <= len(s.text), left)
        )
        by_section.append(tuple(found))
        left = left[len(found) :]
    if left:
        raise ValueError(
            "`mentions` must be of these sections, in their order. "
            f"Received: one of the section {left[0].section!r} at {left[0].start}. Hand in what `label` gave."
        )
    return f"<style>{_resource('report.css')}</style>\n{_report(sections, by_section)}"


def render_page(report: Explained) -> str:
    """A page that needs nothing else: the report, its mentions, the findings."""
    legend = (f"<li>{_sample(assertion)} {MEANINGS[assertion]}</li>" for assertion in ASSERTIONS)
    return string.Template(_resource("page.html")).substitute(
        style=_resource("report.css"),
        legend="".join(legend),
        report=_report(report.sections, report.mentions),
        findings=_findings_table(report),
        mentions=_mentions_table(report),
        concepts=html.escape(report.concepts),
    )


def _report(sections: Sequence[Section], by_section: Sequence[Sequence[Mention]]) -> str:
    """The sections, and the rules that light up cue and scope of the mention under the pointer."""
    number, parts = 1, []
    for section, mentions in zip(sections, by_section, strict=True):
        parts.append(_section(section, mentions, number))
        number += len(mentions)
    rules = "".join(
        f".medclip-report:has(.m{n}:is(:hover,:focus)) .{kind}{n}{{{declaration}}}"
        for n in range(1, number)
        for kind, declaration in (("s", "border-bottom:2px solid"), ("c", "outline:2px solid"))
    )
    return f'<div class="medclip-report"><style>{rules}</style>{"".join(parts)}</div>'


def _section(section: Section, mentions: Sequence[Mention], first: int) -> str:
    by_number = dict(enumerate(mentions, start=first))
    words = []
    for numbers, group in itertools.groupby(
        pieces(section.text, mentions, first), key=lambda piece: piece.mentions
    ):
        inner = "".join(_piece(piece) for piece in group)
        words.append(_mention(inner, section, {n: by_number[n] for n in numbers}) if numbers else inner)
    is_read = section.name in CONTENT_SECTIONS
    note = "" if is_read else " <small>not read for findings</small>"
    kind = "read" if is_read else "unread"
    return (
        f'<section class="{kind}"><h3>{html.escape(section.name)}{note}</h3><p>{"".join(words)}</p></section>'
    )


def _piece(piece: Piece) -> str:
    names = [f"c{n}" for n in piece.cues] + [f"s{n}" for n in piece.scopes]
    if not names:
        return html.escape(piece.text)
    kind = "cue " if piece.cues else ""
    return f'<span class="{kind}{" ".join(names)}">{html.escape(piece.text)}</span>'


def _mention(words: str, section: Section, covering: dict[int, Mention]) -> str:
    """Marked words: a mark within the other for each mention, the signs, and the explanation."""
    for mention in covering.values():
        words = f'<mark class="{mention.assertion}">{words}</mark>'
    signs = " ".join(f"{number}{_SIGNS[mention.assertion]}" for number, mention in covering.items())
    classes = " ".join(f"m{number}" for number in covering)
    explained = [_explanation(number, section, mention) for number, mention in covering.items()]
    label = html.escape("; ".join(" ".join(lines) for lines in explained))
    tip = "".join(
        "<span>" + "<br>".join(html.escape(line) for line in lines) + "</span>" for lines in explained
    )
    return (
        f'<span class="mention {classes}" tabindex="0" role="note" aria-label="{label}">'
        f'{words}<sup>{signs}</sup><span class="tip" aria-hidden="true">{tip}</span></span>'
    )


def _sample(assertion: str) -> str:
    mark = f'<mark class="{assertion}">{assertion}</mark>'
    return f'<span class="mention">{mark}<sup>{_SIGNS[assertion]}</sup></span>'


def _explanation(number: int, section: Section, mention: Mention) -> list[str]:
    lines = [f"{number} {mention.name} ({mention.cui}): {mention.assertion}"]
    if mention.cue:
        lines.append(f"cue: {mention.cue}")
        lines.append(f"reaches: {scope_words(section, mention)}")
    return [*lines, f"rule: {mention.rule}"]


def _findings_table(report: Explained) -> str:
    rows = [
        (
            _sample(state),
            html.escape(name),
            ", ".join(str(n) for n, _, mention in report.numbered if mention.name == name) or "by rule",
        )
        for state in (POSITIVE, UNCERTAIN, NEGATIVE)
        for name, said in report.findings.items()
        if said == state
    ]
    return _table(("", "finding", "mentions"), rows) if rows else "<p>None.</p>"


def _mentions_table(report: Explained) -> str:
    escape = html.escape
    rows = [
        (
            f"{number}{_SIGNS[mention.assertion]}",
            f"{escape(mention.name)} <small>{mention.cui}</small>",
            f"{escape(section.text[mention.start : mention.end])} <small>{escape(section.name)}</small>",
            mention.assertion,
            escape(mention.cue),
            escape(scope_words(section, mention)),
            escape(mention.rule).replace("|", "|<wbr>"),
        )
        for number, section, mention in report.numbered
    ]
    header = ("", "concept", "words", "assertion", "cue", "reaches", "rule")
    return _table(header, rows) if rows else "<p>None.</p>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f'<th scope="col">{name}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _resource(name: str) -> str:
    return (importlib.resources.files("medclip_keras.knowledge") / name).read_text(encoding="utf-8")
