"""Sections to label states: a vector a sentence and a vector a report, over the table's concepts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.knowledge.abbreviations import definitions
from medclip_keras.knowledge.assertion import HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.concepts import NO_FINDING, SUPPORT_DEVICES, ConceptTable
from medclip_keras.knowledge.extractor import Extractor, Mention
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, Section, split_sentences
from medclip_keras.knowledge.states import LabelState

_STATES = {  # plain ints: looked up for every mention
    POSITIVE: int(LabelState.POSITIVE),
    UNCERTAIN: int(LabelState.UNCERTAIN),
    NEGATIVE: int(LabelState.NEGATIVE),
    HISTORICAL: int(LabelState.NEGATIVE),  # what is past or resolved is not on this image
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
    """A sentence of the findings or impression with its own states."""

    section: str
    text: str
    states: np.ndarray  # (num_findings,) int8, `LabelState`


@dataclass(frozen=True)
class ReportLabels:
    """What a report says.

    Attributes:
        sentences: of findings, impression and text under no heading, in order.
        states: (num_findings,) int8 of the whole report, no closure over parents.
        mentions: where the states come from; offsets into the section's text.
        usable: False where the report has no text of that kind.
    """

    sentences: tuple[LabelledSentence, ...]
    states: np.ndarray
    mentions: tuple[Mention, ...]
    usable: bool


class ReportLabeller:
    """Labels reports by the concepts of a table.

    Several mentions of a concept: positive before uncertain before negative. Historical and resolved count as
    negative. `No Finding` is positive where normality is stated overall, or of lungs and heart alike, and
    nothing but support devices is positive or uncertain; it is left unmentioned elsewhere.

    Args:
        table: the concepts.
        linking: how spellings that the dictionary lacks are looked up; None: not at all.
        words: of the only text that will be read, as for `Extractor`; None: any text.

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> labeller = ReportLabeller(load_table("chexpert14"))
    >>> labels = labeller.label([Section("impression", "Normal chest. No pneumothorax.")])
    >>> {name: LabelState(s).name for name, s in zip(labeller.table.names, labels.states) if s}
    {'No Finding': 'POSITIVE', 'Pneumothorax': 'NEGATIVE'}
    """

    def __init__(
        self, table: ConceptTable, linking: Linking | None = None, words: Collection[str] | None = None
    ):
        self.table = table
        self._extractor = Extractor(table, linking=linking, words=words)
        self._positions = {name: position for position, name in enumerate(table.names)}
        self._no_finding = self._positions.get(NO_FINDING)
        self._lungs = [k for name, k in self._positions.items() if name in _LUNGS]
        self._heart = [k for name, k in self._positions.items() if name in _HEART]
        devices = table.with_descendants(SUPPORT_DEVICES) if SUPPORT_DEVICES in self._positions else set()
        self._abnormal = [k for name, k in self._positions.items() if name not in {NO_FINDING, *devices}]

    def label(self, sections: Sequence[Section]) -> ReportLabels:
        """Labels a report's sections; other sections than findings, impression and body say nothing."""
        sentences, mentions, meanings = [], [], {}
        for section in sections:
            if section.name not in CONTENT_SECTIONS:
                continue
            meanings.update(definitions(section.text))
            for start, end in split_sentences(section.text):
                text = section.text[start:end]
                found = self._extractor.sentence_mentions(text, section.name, start, meanings)
                mentions += found
                sentences.append(LabelledSentence(section.name, text, self.states(found)))
        return ReportLabels(tuple(sentences), self.states(mentions), tuple(mentions), bool(sentences))

    def states(self, mentions: Sequence[Mention]) -> np.ndarray:
        """(num_findings,) int8 of what some mentions say together."""
        states = [int(LabelState.NOT_MENTIONED)] * len(self.table)
        if not mentions:
            return np.array(states, np.int8)
        for mention in mentions:
            position, state = self._positions[mention.name], _STATES[mention.assertion]
            if _RANKS[state] > _RANKS[states[position]]:
                states[position] = state
        if self._no_finding is not None:
            states[self._no_finding] = self._normality(states)
        return np.array(states, np.int8)

    def _normality(self, states: Sequence[int]) -> int:
        """The state of `No Finding`: said of all, or of lungs and heart alike, and nothing against it."""
        denied = int(LabelState.NEGATIVE)
        lungs = any(states[k] == denied for k in self._lungs)
        said = states[self._no_finding]
        if lungs and any(states[k] == denied for k in self._heart):
            said = int(LabelState.POSITIVE)
        if said and any(_RANKS[states[k]] >= _ABNORMAL_RANK for k in self._abnormal):
            said = int(LabelState.NOT_MENTIONED)
        return said
