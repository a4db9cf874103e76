"""Label reports: one state vector per sentence and one per report."""

import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.knowledge.abbreviations import definitions
from medclip_keras.knowledge.assertion import HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.concepts import NO_FINDING, ConceptTable
from medclip_keras.knowledge.extractor import Extractor, Mention
from medclip_keras.knowledge.language import ENGLISH, Language
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, Section, split_sentences
from medclip_keras.knowledge.states import LabelState, StateVector

_STATES = {  # plain ints: looked up for every mention
    POSITIVE: int(LabelState.POSITIVE),
    UNCERTAIN: int(LabelState.UNCERTAIN),
    NEGATIVE: int(LabelState.NEGATIVE),
    HISTORICAL: int(LabelState.NEGATIVE),  # a past or resolved finding is not on this image
}
# Of several mentions of a concept the highest rank decides.
_RANKS = {
    int(LabelState.NOT_MENTIONED): 0,
    int(LabelState.NEGATIVE): 1,
    int(LabelState.UNCERTAIN): 2,
    int(LabelState.POSITIVE): 3,
}
_ABNORMAL_RANK = 2
# "The lungs are clear" denies the first, "the heart is of normal size" one of the second.
_LUNGS = frozenset({"Lung Opacity"})
_HEART = frozenset({"Cardiomegaly", "Enlarged Cardiomediastinum"})


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence with its states."""

    section: str
    text: str
    states: StateVector  # (num_findings,)


@dataclass(frozen=True)
class ReportLabels:
    """The labels of a report."""

    sentences: tuple[LabelledSentence, ...]  # of findings, impression and text under no heading, in order
    states: StateVector  # (num_findings,) int8 of the whole report, no closure over parents
    # of each section, the mentions that give the states; offsets into its text
    section_mentions: tuple[tuple[Mention, ...], ...]
    usable: bool  # False for a report without sentences, or without a language
    language: str = ENGLISH.code  # in which it was read, "" for a language without cues

    @functools.cached_property
    def mentions(self) -> tuple[Mention, ...]:
        """The mentions of the whole report, in order."""
        return tuple(itertools.chain.from_iterable(self.section_mentions))


class ReportLabeller:
    """Label reports with the concepts of a table.

    Several mentions of a concept: positive before uncertain before negative. Historical and resolved count as
    negative. `No Finding` is positive where normality is stated overall, or of lungs and heart alike, and
    nothing but support devices is positive or uncertain; it is left unmentioned elsewhere. `linking`,
    `words` and `language` are those of `Extractor`.

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> labeller = ReportLabeller(load_table("chexpert14"))
    >>> labels = labeller.label([Section("impression", "Normal chest. No pneumothorax.")])
    >>> {name: LabelState(s).name for name, s in zip(labeller.table.names, labels.states) if s}
    {'No Finding': 'POSITIVE', 'Pneumothorax': 'NEGATIVE'}
    """

    def __init__(
        self,
        table: ConceptTable,
        linking: Linking | None = None,
        words: Collection[str] | None = None,
        language: Language = ENGLISH,
    ):
        self.table = table
        self._language = language
        self._extractor = Extractor(table, linking, words, language)
        self._positions, self._abnormal = table.positions, frozenset(table.abnormal)
        self._no_finding = self._positions.get(NO_FINDING)
        self._lungs = [k for name, k in self._positions.items() if name in _LUNGS]
        self._heart = [k for name, k in self._positions.items() if name in _HEART]

    def label(self, sections: Sequence[Section]) -> ReportLabels:
        """Label a report; only the sections of `CONTENT_SECTIONS` are read for findings."""
        sentences: list[LabelledSentence] = []
        section_mentions: list[tuple[Mention, ...]] = []
        meanings: dict[str, tuple[str, ...]] = {}
        for section in sections:
            own: list[Mention] = []
            if section.name in CONTENT_SECTIONS:
                meanings.update(definitions(section.text, self._language))
                for start, end in split_sentences(section.text, self._language):
                    text = section.text[start:end]
                    found = self._extractor.sentence_mentions(text, section.name, start, meanings)
                    own += found
                    sentences.append(LabelledSentence(section.name, text, self.states(found)))
            section_mentions.append(tuple(own))
        states = self.states(list(itertools.chain.from_iterable(section_mentions)))
        usable, code = bool(sentences), self._language.code
        return ReportLabels(tuple(sentences), states, tuple(section_mentions), usable, code)

    def states(self, mentions: Sequence[Mention]) -> StateVector:
        """Combine mentions: (num_findings,) int8."""
        states = np.zeros(len(self.table), np.int8)
        if not mentions:
            return states
        found: dict[int, int] = {}  # states by position: a table may have 10,000
        for mention in mentions:
            position, state = self._positions[mention.name], _STATES[mention.assertion]
            if _RANKS[state] > _RANKS[found.get(position, 0)]:
                found[position] = state
        if self._no_finding is not None:
            found[self._no_finding] = self._normality(found)
        for position, state in found.items():
            states[position] = state
        return states

    def _normality(self, found: Mapping[int, int]) -> int:
        """The state of `No Finding`: positive if normality is stated and not contradicted."""
        denied, said = int(LabelState.NEGATIVE), found.get(self._no_finding or 0, 0)
        lungs = any(found.get(k) == denied for k in self._lungs)
        if lungs and any(found.get(k) == denied for k in self._heart):
            said = int(LabelState.POSITIVE)
        if said and any(_RANKS[state] >= _ABNORMAL_RANK for k, state in found.items() if k in self._abnormal):
            said = int(LabelState.NOT_MENTIONED)
        return said
