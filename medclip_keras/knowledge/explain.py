"""A report with what was read out of it, and its text cut where mentions, cues and scopes begin and end."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medclip_keras.knowledge.assertion import HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.mentions import findings_of
from medclip_keras.knowledge.sections import Section

SIGNS = {POSITIVE: "+", NEGATIVE: "-", UNCERTAIN: "?", HISTORICAL: "past"}
MEANINGS = {
    POSITIVE: "the report says that it is there",
    NEGATIVE: "it says that it is not there",
    UNCERTAIN: "it leaves it open",
    HISTORICAL: "it was there, or has resolved: counts as negative",
}


@dataclass(frozen=True)
class Explained:
    """A report and what was read out of it.

    Attributes:
        concepts: the table's name.
        sections: of the report, in order.
        mentions: of each section; numbered from 1 throughout the report.
        findings: "positive", "negative" or "uncertain" of each concept that the report speaks of.
    """

    concepts: str
    sections: tuple[Section, ...]
    mentions: tuple[tuple[Mention, ...], ...]
    findings: Mapping[str, str]

    @property
    def numbered(self) -> list[tuple[int, Section, Mention]]:
        """Every mention with its number and its section."""
        pairs = zip(self.sections, self.mentions, strict=True)
        found = [(section, mention) for section, mentions in pairs for mention in mentions]
        return [(number, *pair) for number, pair in enumerate(found, start=1)]


@dataclass(frozen=True)
class Piece:
    """A run of text with the numbers of the mentions that it belongs to, as words, cue or scope."""

    text: str
    mentions: tuple[int, ...]
    cues: tuple[int, ...]
    scopes: tuple[int, ...]


def explain(labeller: ReportLabeller, sections: Sequence[Section]) -> Explained:
    """Reads a report; two sections of one name keep their own mentions."""
    labels = labeller.label(sections)
    # What is read in a section does not depend on later ones, so these counts divide the mentions.
    counts = [len(labeller.label(sections[:k]).mentions) for k in range(len(sections) + 1)]
    mentions = tuple(labels.mentions[first:last] for first, last in itertools.pairwise(counts))
    findings = findings_of(labels, labeller.table.names)
    return Explained(labeller.table.name, tuple(sections), mentions, findings)


def pieces(text: str, mentions: Sequence[Mention], first: int = 1) -> list[Piece]:
    """Cuts a section's text wherever a mention, a cue or a scope begins or ends.

    Args:
        text: of the section.
        mentions: of the section.
        first: the number of the first mention.

    Returns:
        Pieces that add up to the text.

    >>> mention = Mention("C0013604", "Edema", "body", 3, 8, "negative", "no", "edema", (0, 2), (3, 8))
    >>> [(piece.text, piece.mentions, piece.cues, piece.scopes) for piece in pieces("No edema", [mention])]
    [('No', (), (1,), ()), (' ', (), (), ()), ('edema', (1,), (), (1,))]
    """
    spans = [((m.start, m.end), m.cue_span or (0, 0), m.scope or (0, 0)) for m in mentions]
    cuts = sorted({0, len(text), *(cut for kinds in spans for span in kinds for cut in span)})
    return [
        Piece(text[start:end], *(_covering(spans, kind, start, end, first) for kind in range(3)))
        for start, end in itertools.pairwise(cuts)
    ]


def scope_words(section: Section, mention: Mention) -> str:
    """What the cue of a mention reaches, "" where there is none."""
    return section.text[slice(*mention.scope)] if mention.scope else ""


def _covering(spans: Sequence[tuple], kind: int, start: int, end: int, first: int) -> tuple[int, ...]:
    return tuple(
        number
        for number, kinds in enumerate(spans, start=first)
        if kinds[kind][0] <= start and end <= kinds[kind][1]
    )
