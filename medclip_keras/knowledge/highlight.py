"""Mentions in colour, for a notebook."""

import html
from collections.abc import Iterable, Sequence

from medclip_keras.knowledge.assertion import HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.sources.rows import Section

COLOURS = {POSITIVE: "#f4b6a6", NEGATIVE: "#bfe3c0", UNCERTAIN: "#f7e3a1", HISTORICAL: "#d5d5e8"}


def highlight(sections: Sequence[Section], mentions: Iterable[Mention]) -> str:
    """A report as HTML: each mention on its assertion's colour, its concepts, assertion and cue on hover.

    Where mentions overlap, the first and longest is coloured; mentions of the same words share a mark.

    >>> from medclip_keras.knowledge.labeller import ReportLabeller
    >>> from medclip_keras.knowledge.concepts import load_table
    >>> sections = [Section("impression", "No effusion.")]
    >>> labels = ReportLabeller(load_table("chest21")).label(sections)
    >>> print(highlight(sections, labels.mentions))
    <p><b>impression</b> No <mark style="background:#bfe3c0" title="Pleural Effusion: negative (no)">\
effusion</mark>.</p>
    """
    mentions = list(mentions)
    paragraphs = (_paragraph(s, [m for m in mentions if m.section == s.name]) for s in sections)
    return "\n".join(paragraphs)


def _paragraph(section: Section, mentions: list[Mention]) -> str:
    pieces, position = [f"<b>{html.escape(section.name)}</b> "], 0
    for mention in sorted(mentions, key=lambda mention: (mention.start, -mention.end)):
        if mention.start < position:
            continue
        same = [m for m in mentions if (m.start, m.end) == (mention.start, mention.end)]
        title = "; ".join(f"{m.name}: {m.assertion}" + (f" ({m.cue})" if m.cue else "") for m in same)
        words = html.escape(section.text[mention.start : mention.end])
        pieces.append(html.escape(section.text[position : mention.start]))
        colour = COLOURS[mention.assertion]
        pieces.append(f'<mark style="background:{colour}" title="{html.escape(title)}">{words}</mark>')
        position = mention.end
    return f"<p>{''.join(pieces)}{html.escape(section.text[position:])}</p>"
