"""Labellers by language; a report in an unsupported language gets no labels."""

import functools
from collections.abc import Collection, Sequence

import numpy as np

from medclip_keras.errors import near_names, refusal
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.knowledge.detection import UNKNOWN, detect
from medclip_keras.knowledge.labeller import ReportLabeller, ReportLabels
from medclip_keras.knowledge.language import ENGLISH, Language, languages, load_language
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, Section, split_sections
from medclip_keras.knowledge.states import StateVector

AUTO = "auto"  # the language of each report is detected
_NO_HEADING = frozenset({"body", "preamble"})


def require_language(name: str) -> None:
    """Refuse a language that does not ship.

    Raises:
        ValueError: neither `AUTO` nor a shipped language; the near names are in the sentence.
    """
    choices = (AUTO, *languages())
    if name not in choices:
        raise refusal("language", f"one of {', '.join(choices)}", name, near_names(name, choices))


class Labellers:
    """One labeller a language, made when the first report in it comes.

    `language` is `AUTO` or the code of the language in which all reports are read. `linking` and `words` are
    those of `Extractor`; misspelled words are linked in English alone.

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> labellers = Labellers(load_table("chexpert14"))
    >>> labels = labellers.label([Section("body", "Kein Pneumothorax. Pleuraerguss rechts.")])
    >>> [(mention.name, mention.assertion) for mention in labels.mentions], labels.language
    ([('Pneumothorax', 'negative'), ('Pleural Effusion', 'positive')], 'de')
    >>> labellers.label([Section("body", "Pas de pneumothorax.")]).language
    ''

    Raises:
        ValueError: a language that does not ship.
    """

    def __init__(
        self,
        table: ConceptTable,
        linking: Linking | None = None,
        language: str = AUTO,
        words: Collection[str] | None = None,
    ):
        require_language(language)
        self.table = table
        self._fixed = "" if language == AUTO else language
        self._linking, self._words = linking, words
        self._labellers: dict[str, ReportLabeller] = {}

    def label(self, sections: Sequence[Section]) -> ReportLabels:
        """Label a report, or leave it without labels and language.

        `section_mentions` are of the sections that `read_sections` gives.
        """
        code = self.language_of(sections)
        if code == UNKNOWN:
            return ReportLabels((), self._nothing.copy(), ((),) * len(sections), False, UNKNOWN)
        language = load_language(code)
        return self.labeller(language).label(read_sections(sections, language))

    def language_of(self, sections: Sequence[Section]) -> str:
        """The code of the language in which a report is read, `UNKNOWN` for one that does not ship."""
        return self._fixed or detect("\n".join(section.text for section in sections))

    def labeller(self, language: Language) -> ReportLabeller:
        """The labeller of a language."""
        if language.code not in self._labellers:
            linking = self._linking if language is ENGLISH else None
            self._labellers[language.code] = ReportLabeller(self.table, linking, self._words, language)
        return self._labellers[language.code]

    @functools.cached_property
    def _nothing(self) -> StateVector:
        return np.zeros(len(self.table), np.int8)


def read_sections(sections: Sequence[Section], language: Language) -> tuple[Section, ...]:
    """Sections that were split at English headings, split at the language's own headings as well.

    >>> sections = [Section("body", "Klinik: Pneumonie? Befund: Kein Erguss.")]
    >>> [(section.name, section.text) for section in read_sections(sections, load_language("de"))]
    [('indication', 'Pneumonie?'), ('findings', 'Kein Erguss.')]
    """
    if language is ENGLISH:
        return tuple(sections)
    return tuple(part for section in sections for part in _split(section, language))


def _split(section: Section, language: Language) -> tuple[Section, ...]:
    heading = f"{section.heading}:\n" if section.heading and section.name in CONTENT_SECTIONS else ""
    parts = split_sections(heading + section.text, language)
    if not parts or parts[0].name not in _NO_HEADING or section.name in _NO_HEADING:
        return parts
    return (Section(section.name, parts[0].text, section.heading), *parts[1:])
