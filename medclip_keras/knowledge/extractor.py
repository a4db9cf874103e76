"""Extract concept mentions from report text: concept, offsets, assertion.

Each sentence takes three steps: spaCy's PhraseMatcher finds aliases and cues in the normalised words; parts
of aliases are combined and the longest match wins; `knowledge.assertion` assigns the assertion.
"""

import functools
import operator
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import spacy
from spacy.matcher import PhraseMatcher
from spacy.tokens import Doc

from medclip_keras.knowledge import assertion as assertions
from medclip_keras.knowledge.abbreviations import definitions, written_out
from medclip_keras.knowledge.aliases import (
    ABSENT,
    EXCLUDED,
    OPEN,
    PRESENT,
    WHOLE,
    Alias,
    Span,
    alternatives,
    parse_alias,
    words_of,
)
from medclip_keras.knowledge.assertion import Cue, Scopes
from medclip_keras.knowledge.candidates import Candidate, best_readings, combine
from medclip_keras.knowledge.concepts import NO_FINDING, ConceptTable
from medclip_keras.knowledge.language import ENGLISH, Language
from medclip_keras.knowledge.linking import EntityLinker, Linking
from medclip_keras.knowledge.sections import split_sentences
from medclip_keras.knowledge.spelling import SpellingLinker, words_of_shipped_tables
from medclip_keras.knowledge.umls import knowledge_base_aliases

_Use = TypeVar("_Use")
Definitions = tuple[tuple[str, tuple[str, ...]], ...]  # abbreviations and the words that each stands for

SENTENCES_KEPT = 20_000  # many sentences occur in several reports
_OTHER_WORD = "□"
# The order of spaCy's matches differs between processes, so the key compares all that mentions differ by.
_READING_ORDER = operator.attrgetter("start", "end", "name", "rule", "assertion", "cue", "cue_span", "scope")
# Of the assertions of an alias's parts the first of these decides.
_PRECEDENCE = {
    assertions.NEGATIVE: 0,
    assertions.UNCERTAIN: 1,
    assertions.HISTORICAL: 1,
    assertions.POSITIVE: 2,
}


class Mention(NamedTuple):
    """A mention of a concept: text[start:end]."""

    cui: str
    name: str
    section: str
    start: int
    end: int
    assertion: str  # "positive", "negative", "uncertain" or "historical" (of the past, or resolved)
    cue: str  # text of the cue, "" without one
    rule: str  # the alias that matched
    cue_span: Span | None = None  # characters of the cue: text[cue_span[0]:cue_span[1]]
    scope: Span | None = None  # characters of the scope of the cue


@dataclass
class _Uses:
    """The cues, alias parts and aliases with the words of one phrase."""

    cues: list[str] = field(default_factory=list)  # kinds
    parts: list[tuple[int, int]] = field(default_factory=list)  # combination, part number
    aliases: list[tuple[int, str, str]] = field(default_factory=list)  # concept, role, rule


class Extractor:
    """Extract mentions of a table's concepts from report text.

    `linking` adds misspelled words and a model's entities. `words`, the normalised words of the only text to
    be read, give a small extractor that is built much faster; linking needs all words and ignores them.
    `language` is that of the text.

    Raises:
        ValueError: an alias that cannot be parsed; a model or knowledge base that does not exist.

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> extractor = Extractor(load_table("chest21"))
    >>> [(m.name, m.assertion) for m in extractor.mentions("Enlarged heart, no pleural fluid.", "findings")]
    [('Cardiomegaly', 'positive'), ('Pleural Effusion', 'negative')]
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
        self._linking = linking
        self._only = words if linking is None else None
        self._vocab = spacy.blank("en").vocab
        # Shapes and flags of words are not needed, and slow to derive; spaCy's stubs lack the attribute.
        self._vocab.lex_attr_getters = {}  # type: ignore[attr-defined]
        self._matcher = PhraseMatcher(self._vocab, attr="ORTH")
        self._uses: dict[int, _Uses] = defaultdict(_Uses)  # by matcher key
        self.words: set[str] = set()  # of all phrases
        self._combinations: list[tuple[int, Alias]] = []
        for position, concept in enumerate(table.concepts):
            for text in language.aliases.get(concept.cui) or (concept.name, *concept.aliases):
                self._learn_alias(position, parse_alias(text, self._only, language))
        for kind, phrases in language.cues.items():
            for phrase in phrases:
                for alternative in alternatives(phrase, self._only, language):
                    _add(self._phrase(alternative).cues, kind)
        self._spelling: SpellingLinker | None = None
        self._entities: EntityLinker | None = None
        if linking:
            self._start_linking(linking)
        self._read = functools.lru_cache(maxsize=SENTENCES_KEPT)(self._read_sentence)

    def __reduce__(self) -> tuple[Callable[..., "Extractor"], tuple[object, ...]]:
        """Pickle only the settings; unpickling builds the extractor again."""
        return Extractor, (self.table, self._linking, self._only, self._language)

    def mentions(self, text: str, section: str) -> tuple[Mention, ...]:
        """Mentions in the text of a section, sorted by offset into `text`."""
        meanings = definitions(text, self._language)
        return tuple(
            mention
            for start, end in split_sentences(text, self._language)
            for mention in self.sentence_mentions(text[start:end], section, start, meanings)
        )

    def sentence_mentions(
        self,
        sentence: str,
        section: str,
        offset: int = 0,
        meanings: Mapping[str, tuple[str, ...]] | None = None,
    ) -> list[Mention]:
        """Mentions in a sentence at `offset` of its section.

        `meanings` are the abbreviations defined so far in the report (`knowledge.abbreviations`).
        """
        used = tuple(item for item in meanings.items() if item[0] in sentence) if meanings else ()
        return [_moved(mention, section, offset) for mention in self._read(sentence, used)]

    def _learn_alias(self, position: int, alias: Alias) -> None:
        if len(alias.parts) == 1:
            for phrase in alias.parts[0]:
                _add(self._phrase(phrase).aliases, (position, alias.role, alias.text))
            return
        for number, part in enumerate(alias.parts):
            for phrase in part:
                _add(self._phrase(phrase).parts, (len(self._combinations), number))
        self._combinations.append((position, alias))

    def _phrase(self, phrase: str) -> _Uses:
        """Add a phrase to the matcher, if new, and return its uses."""
        words, _ = words_of(phrase, self._language)
        key = " ".join(words)
        number = self._vocab.strings.add(key)
        if number not in self._uses:
            self._matcher.add(key, [Doc(self._vocab, words=words)])
            self.words.update(words)
        return self._uses[number]

    def _start_linking(self, linking: Linking) -> None:
        """Create the linkers to all phrases, with the aliases of a knowledge base."""
        positions = {cui: k for k, cui in enumerate(self.table.cuis)}
        for k, concept in enumerate(self.table.concepts):
            positions.update(dict.fromkeys(concept.equivalents, k))
        further = knowledge_base_aliases(linking.umls, positions) if linking.umls else {}
        for cui, aliases in further.items():
            for phrase in aliases:
                if self._vocab.strings[" ".join(words_of(phrase, self._language)[0])] not in self._uses:
                    self._phrase(phrase).aliases.append((positions[cui], PRESENT, f"UMLS: {phrase}"))
        phrases: dict[str, list[str]] = defaultdict(list)
        for key, uses in self._uses.items():
            for position in sorted({position for position, _, _ in uses.aliases}):
                if self.table.names[position] != NO_FINDING:
                    phrases[self.table.cuis[position]].append(self._vocab.strings[key])
        self._spelling = SpellingLinker(self.words, words_of_shipped_tables(), linking.threshold)
        if linking.scispacy_model:
            self._entities = EntityLinker(linking.scispacy_model, phrases, linking.threshold)

    def _link_entities(
        self, linker: EntityLinker, sentence: str, offsets: Sequence[Span], matched: Sequence[Candidate]
    ) -> Iterator[Candidate]:
        """Candidates for entities of a scispaCy model that overlap no match."""
        for first, last, phrase, similarity in linker.entities(sentence):
            inside = [k for k, (start, end) in enumerate(offsets) if start < last and first < end]
            if not inside or any(c.start <= inside[-1] and inside[0] < c.end for c in matched):
                continue
            span = (inside[0], inside[-1] + 1)
            for position, role, rule in self._uses[self._vocab.strings[phrase]].aliases:
                yield Candidate(position, role, *span, (span,), _linked(rule, similarity))

    def _read_sentence(self, sentence: str, meanings: Definitions = ()) -> tuple[Mention, ...]:
        words, offsets = words_of(sentence, self._language)
        if meanings:
            words, offsets = written_out(sentence, words, offsets, dict(meanings))
        if not words:
            return ()
        near: Mapping[int, float] = {}
        if self._spelling:
            reading = self._spelling.read(words, offsets)
            words, offsets, near = reading.words, reading.offsets, reading.similarities
        candidates, cues = self._match(words)
        if self._entities:
            candidates += self._link_entities(self._entities, sentence, offsets, candidates)
        others = [(c.start, c.end) for c in candidates if c.role == EXCLUDED]
        candidates = best_readings(candidates)
        if near:
            candidates = [_with_similarity(candidate, near) for candidate in candidates]
        if not candidates:
            return ()
        phrases = [Cue(kind, start, end, " ".join(words[start:end])) for kind, start, end in cues]
        scopes = Scopes(
            words, phrases, [part for c in candidates for part in c.parts], others, self._language
        )
        found = (self._assert(candidate, scopes, offsets) for candidate in candidates)
        return tuple(sorted({mention for mention in found if mention}, key=_READING_ORDER))

    def _match(self, words: list[str]) -> tuple[list[Candidate], list[tuple[str, int, int]]]:
        """Candidates, and cues as (kind, start, end)."""
        candidates: list[Candidate] = []
        cues: list[tuple[str, int, int]] = []
        parts: dict[int, dict[int, list[Span]]] = {}  # combination → part → word spans
        last = len(words) - (words[-1] == ".")
        for key, start, end in self._phrases_in(words):
            uses = self._uses[key]
            for kind in uses.cues:
                cues.append((kind, start, end))
            for number, part in uses.parts:
                parts.setdefault(number, {}).setdefault(part, []).append((start, end))
            for position, role, rule in uses.aliases:
                if rule[0] != WHOLE or (start == 0 and end >= last):
                    candidates.append(Candidate(position, role, start, end, ((start, end),), rule))
        for number, found in parts.items():
            position, alias = self._combinations[number]
            if len(found) == len(alias.parts):
                candidates += combine(position, alias, found, words, self._language.clauses)
        return candidates, cues

    def _phrases_in(self, words: list[str]) -> list[tuple[int, int, int]]:
        """Phrases as (key, start, end): in the words, with a full stop, and in the words without fillers.

        A phrase that only begins to fit without them gives way to one that fits the same words with them.
        """
        # spaCy keeps every word that it has seen: mask the words of no phrase.
        shown = [word if word in self.words else _OTHER_WORD for word in words]
        size, fillers = len(words), self._language.clauses["fillers"]
        kept = [] if fillers.isdisjoint(words) else [k for k in range(size) if words[k] not in fillers]
        closed = shown if words[-1] in ".?!" else [*shown, "."]
        if kept:  # one document for both readings is quicker than two
            closed = [*closed, _OTHER_WORD, *(shown[k] for k in kept)]
        offset = len(closed) - len(kept)
        found: list[tuple[int, int, int]] = []
        further: list[tuple[int, int, int]] = []
        for key, start, end in self._matcher(Doc(self._vocab, words=closed)):
            if not kept or end < offset:
                found.append((key, start, min(end, size)))
                continue
            first, last = kept[start - offset], kept[end - offset - 1] + 1
            if last - first > end - start:
                further.append((key, first, last))
        spans = {(start, end) for _, start, end in found} if further else ()
        return found + [phrase for phrase in further if phrase[1:] not in spans]

    def _assert(self, candidate: Candidate, scopes: Scopes, offsets: Sequence[Span]) -> Mention | None:
        name = self.table.names[candidate.concept]
        decided, cue = assertions.POSITIVE, None
        if name != NO_FINDING:  # "no acute disease" holds its own negation
            readings = [scopes.assertion(start, end) for start, end in candidate.parts]
            decided, cue = min(readings, key=lambda reading: _PRECEDENCE[reading[0]])
            if candidate.role == ABSENT:
                if decided == assertions.NEGATIVE:
                    return None  # "not normal in size" says too little
                decided = assertions.NEGATIVE
            elif candidate.role == OPEN and decided == assertions.POSITIVE:
                decided = assertions.UNCERTAIN
        start, end = _characters(offsets, candidate.start, candidate.end)
        return Mention(
            cui=self.table.cuis[candidate.concept],
            name=name,
            section="",
            start=start,
            end=end,
            assertion=decided,
            cue=cue.text if cue else "",
            rule=candidate.rule,
            cue_span=_characters(offsets, cue.start, cue.end) if cue else None,
            scope=_characters(offsets, *scopes.scope(cue, (candidate.start, candidate.end))) if cue else None,
        )


def _add(uses: list[_Use], use: _Use) -> None:
    if use not in uses:
        uses.append(use)


def _linked(rule: str, similarity: float) -> str:
    return f"linked: {rule} ({similarity:.2f})"


def _with_similarity(candidate: Candidate, near: Mapping[int, float]) -> Candidate:
    """Note the least similarity of corrected words, if any, in the rule."""
    similarities = [near[k] for start, end in candidate.parts for k in range(start, end) if k in near]
    return candidate._replace(rule=_linked(candidate.rule, min(similarities))) if similarities else candidate


def _moved(mention: Mention, section: str, offset: int) -> Mention:
    """Move the offsets of a mention from its sentence to its section."""
    cue_span, scope = mention.cue_span, mention.scope
    return Mention(
        mention.cui,
        mention.name,
        section,
        mention.start + offset,
        mention.end + offset,
        mention.assertion,
        mention.cue,
        mention.rule,
        cue_span and (cue_span[0] + offset, cue_span[1] + offset),
        scope and (scope[0] + offset, scope[1] + offset),
    )


def _characters(offsets: Sequence[Span], start: int, end: int) -> Span:
    """The character offsets of words[start:end]."""
    return offsets[start][0], offsets[end - 1][1]
