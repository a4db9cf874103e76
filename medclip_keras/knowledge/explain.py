"""Explanation of a report: its text in pieces at the bounds of mentions, cues and scopes."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medclip_keras.knowledge.assertion import HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.mentions import findings_of
from medclip_keras.knowledge.sections import Section

SIGNS = {POSITIVE: "+", NEGATIVE: "-", UNCERTAIN: "?", HISTORICAL: "past"}


@dataclass(frozen=True)
class Explained:
    """A report and its labels."""

    concepts: str  # name of the concept table
    sections: tuple[Section, ...]  # of the report, in order
    mentions: tuple[tuple[Mention, ...], ...]  # of each section
    # "positive", "negative" or "uncertain" of each concept that the report mentions
    findings: Mapping[str, str]

    @property
    def numbered(self) -> list[tuple[Section, dict[int, Mention]]]:
        """Every section with its mentions by number; numbers run from 1 through the report."""
        numbers = itertools.count(1)
        pairs = zip(self.sections, self.mentions, strict=True)
        return [(section, {next(numbers): mention for mention in own}) for section, own in pairs]

    def findings_by_state(self) -> list[tuple[str, list[str]]]:
        """The states that occur, positive before uncertain before negative, each with its concepts."""
        names = {state: [n for n, s in self.findings.items() if s == state] for state in SIGNS}
        return [(state, names[state]) for state in (POSITIVE, UNCERTAIN, NEGATIVE) if names[state]]


@dataclass(frozen=True)
class Piece:
    """A run of text with the numbers of the mentions whose words, cue or scope contain it."""

    text: str
    mentions: tuple[int, ...]
    cues: tuple[int, ...]
    scopes: tuple[int, ...]


def explain(labeller: ReportLabeller, sections: Sequence[Section]) -> Explained:
    """Label a report; same-named sections keep separate mentions."""
    labels = labeller.label(sections)
    findings = findings_of(labels, labeller.table.names)
    return Explained(labeller.table.name, tuple(sections), labels.section_mentions, findings)


def pieces(text: str, mentions: Mapping[int, Mention]) -> list[Piece]:
    """Cut a section's text at every beginning and end of a mention, a cue or a scope.

    `mentions` are those of the section, by number; the pieces add up to the text.

    >>> mention = Mention("C0013604", "Edema", "body", 3, 8, "negative", "no", "edema", (0, 2), (3, 8))
    >>> [(piece.text, piece.mentions, piece.cues, piece.scopes) for piece in pieces("No edema", {1: mention})]
    [('No', (), (1,), ()), (' ', (), (), ()), ('edema', (1,), (), (1,))]
    """
    words = {number: (m.start, m.end) for number, m in mentions.items()}
    cues = {number: m.cue_span for number, m in mentions.items() if m.cue_span}
    scopes = {number: m.scope for number, m in mentions.items() if m.scope}
    kinds = (words, cues, scopes)
    cuts = sorted({0, len(text), *(cut for spans in kinds for span in spans.values() for cut in span)})
    return [
        Piece(
            text[start:end],
            *(tuple(n for n, (s, e) in spans.items() if s <= start and end <= e) for spans in kinds),
        )
        for start, end in itertools.pairwise(cuts)
    ]


def runs(text: str, mentions: Mapping[int, Mention]) -> list[tuple[tuple[int, ...], list[Piece]]]:
    """The pieces of a section's text, grouped by the mentions that contain them."""
    groups = itertools.groupby(pieces(text, mentions), key=lambda piece: piece.mentions)
    return [(numbers, list(group)) for numbers, group in groups]


def scope_words(section: Section, mention: Mention) -> str:
    """The text of the scope of a mention's cue, "" without a cue."""
    return section.text[slice(*mention.scope)] if mention.scope else ""
