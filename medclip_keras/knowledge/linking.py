"""Spellings that the dictionary lacks: "plueral effusion", "cardio megaly", "pleuraleffusion".

scispaCy's candidate generation (Neumann et al., BioNLP 2019) wherever it holds: its `KnowledgeBase`, its
`CandidateGenerator` over TF-IDF vectors of character n-grams, and its `EntityLinker` for the entities of an
installed scispaCy model. Three things are our own, each where that was measured to be better
(`python tests/benchmarks/linking.py`):

- the index. scispaCy's own maker of one refuses SciPy 1.11 and later, and the approximate index misses
  exact aliases. `ExactIndex` is a sparse product behind the same method;
- what is looked up: words that neither the dictionary nor `knowledge.real_words` holds. A real word is never
  taken for another: an infusion is no effusion;
- what is accepted: the candidate with the fewest edits, not the highest cosine.

The threshold was chosen on 3,110 misspellings of the words of chest21, one or two edits each, and 15,290 real
words of Open-i's tuning reports and of BERT's vocabulary that the dictionary does not hold. Precision counts
both; the list of real words was written with these in view, and so the figure without it is the sterner one.

    threshold                 recall   precision   without the list
    0.7                         .939        .645               .534
    0.8, the default            .847        .924               .787
    0.85                        .601        .970               .908
    highest cosine, 0.8         .361        .893               .786

Of aliases with one misspelled word 92 % are found in a sentence, 13 % without linking. On the tuning reports
themselves, which were proofread, it adds 92 mentions and moves no score of `tests/benchmarks/labels.py`.
"""

import functools
import importlib.resources
import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclip_keras.errors import require
from medclip_keras.knowledge.aliases import words_of
from medclip_keras.knowledge.real_words import PREFIXES, real_words
from medclip_keras.knowledge.umls import knowledge_base_path

if TYPE_CHECKING:
    import spacy
    from scispacy.candidate_generation import CandidateGenerator
    from scispacy.linking_utils import Entity

THRESHOLD = 0.8
MIN_LETTERS = 5  # of a word that is looked up; "hart" could be too many words
_NUM_CANDIDATES = 10  # the right word is among so many in 99 of 100 cases
_LETTERS = " abcdefghijklmnopqrstuvwxyz"  # and where a word begins or ends
_NGRAMS = (2, 3)  # trigrams alone lose short words: "plueral" shares three of seven with "pleural"


@dataclass(frozen=True)
class Linking:
    """How spellings that the dictionary lacks are looked up; small, so that it travels to workers.

    Args:
        threshold: least similarity of a spelling to a word of the dictionary: one minus edits by letters, in
            (0, 1]. With 0.8, one edit in five letters, two in ten.
        scispacy_model: name or folder of an installed spaCy model, such as `en_core_sci_sm`. Its entities are
            linked to the dictionary's phrases, where the cosine reaches the threshold.
        umls: aliases to add for the concepts of the table: a file in the form of scispaCy's knowledge bases
            (JSON lines), or "umls" for the one that scispaCy downloads and keeps.

    Raises:
        ValueError: a threshold outside of (0, 1].
    """

    threshold: float = THRESHOLD
    scispacy_model: str = ""
    umls: str = ""

    def __post_init__(self):
        require(0 < self.threshold <= 1, "threshold", "in (0, 1]", self.threshold)

    def resources(self) -> dict[str, str]:
        """What a job must notice a change of: the path of the knowledge base, name and version of the model.

        Raises:
            ValueError: one that is not there; so it is best asked before any work.
        """
        model = _load_model(self.scispacy_model).meta if self.scispacy_model else {}
        return {
            "umls": str(knowledge_base_path(self.umls)) if self.umls else "",
            "scispacy_model": f"{model['lang']}_{model['name']} {model['version']}" if model else "",
        }


@dataclass(frozen=True)
class Reading:
    """A sentence as the dictionary would spell it.

    Attributes:
        words: normalised words and marks.
        offsets: where each stands in the sentence as it is written.
        similarities: position of a word that was spelled in another way → similarity of its spelling.
    """

    words: list[str]
    offsets: list[tuple[int, int]]
    similarities: Mapping[int, float]


class Linker:
    """What an extractor asks of this module.

    Args:
        linking: what to look for.
        phrases: CUI → the dictionary's phrases.
        dictionary: words of aliases and cues, normalised.
    """

    def __init__(self, linking: Linking, phrases: Mapping[str, Sequence[str]], dictionary: Collection[str]):
        spelling = SpellingLinker(dictionary, words_of_shipped_tables(), linking.threshold)
        self.read = spelling.read
        model = linking.scispacy_model
        self._entities = EntityLinker(model, phrases, linking.threshold) if model else None

    def entities(self, sentence: str) -> list[tuple[int, int, str, float]]:
        """Those of `EntityLinker.entities`; none without a model."""
        return self._entities.entities(sentence) if self._entities else []


class ExactIndex:
    """The nearest rows of a sparse matrix by cosine, under the name of nmslib's method; exact, and the same
    in every process.

    Args:
        vectors: sparse float32 (num_aliases, num_ngrams), rows of length 1.
    """

    def __init__(self, vectors):
        self._vectors = vectors.T.tocsr()

    def knnQueryBatch(self, queries, k: int) -> list[tuple[np.ndarray, np.ndarray]]:  # noqa: N802, nmslib's
        """(positions, cosine distances) of up to k rows a query, nearest first, earlier rows before later."""
        found = []
        for row in (queries @ self._vectors).tocsr():
            order = np.lexsort((row.indices, -row.data))[:k]
            found.append((row.indices[order], 1 - row.data[order]))
        return found


def candidate_generator(entities: Iterable["Entity"]) -> "CandidateGenerator":
    """scispaCy's candidate generator over a small knowledge base of its own, with an exact index."""
    from scispacy.candidate_generation import CandidateGenerator
    from scispacy.linking_utils import KnowledgeBase
    from sklearn.feature_extraction.text import TfidfVectorizer

    base = KnowledgeBase(list(entities))
    aliases = sorted(base.alias_to_cuis)  # its own order differs from process to process
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=_NGRAMS, vocabulary=_all_ngrams(aliases), dtype=np.float32
    )
    index = ExactIndex(vectorizer.fit_transform(aliases))
    return CandidateGenerator(index, vectorizer, aliases, base)


def _all_ngrams(aliases: Sequence[str]) -> list[str]:
    """N-grams of the aliases and of all letters: one that no alias has makes a text less like each of them,
    and would not count if the vectorizer did not know it."""
    from sklearn.feature_extraction.text import CountVectorizer

    own = CountVectorizer(analyzer="char_wb", ngram_range=_NGRAMS).fit(aliases).get_feature_names_out()
    lengths = range(_NGRAMS[0], _NGRAMS[1] + 1)
    return sorted({*own, *("".join(gram) for n in lengths for gram in itertools.product(_LETTERS, repeat=n))})


class SpellingLinker:
    """Links misspelled words to those of the dictionary.

    Args:
        dictionary: words of aliases and cues, normalised.
        also_known: more words that are right as they are.
        threshold: see `Linking`.
        cache_size: how many different words are remembered.

    >>> linker = SpellingLinker(["pleural", "effusion", "cardiomegaly"])
    >>> linker.read(*words_of("Plueral effusions, cardio megaly.")).words
    ['pleural', 'effusion', ',', 'cardiomegaly', '.']
    """

    def __init__(
        self,
        dictionary: Collection[str],
        also_known: Collection[str] = (),
        threshold: float = THRESHOLD,
        cache_size: int = 20_000,
    ):
        from scispacy.linking_utils import Entity

        self._dictionary = frozenset(filter(_is_long, dictionary))
        self._known = real_words().union(dictionary, also_known)
        self._threshold = threshold
        self._generate = candidate_generator(Entity(w, w, [w]) for w in sorted(self._dictionary))
        self._link = functools.lru_cache(maxsize=cache_size)(self.link)
        self._stands = functools.lru_cache(maxsize=cache_size)(self.stands)

    def link(self, word: str) -> tuple[str, float]:
        """The dictionary's word for a spelling and their similarity; ("", 0.0) where none is near enough."""
        (candidates,) = self._generate([word], _NUM_CANDIDATES)
        ranked = [
            (similarity(word, candidate.concept_id), max(candidate.similarities), candidate.concept_id)
            for candidate in candidates
        ]
        best = max(ranked, default=(0.0, 0.0, ""))
        return (best[2], best[0]) if best[0] >= self._threshold else ("", 0.0)

    def read(self, words: list[str], offsets: list[tuple[int, int]]) -> Reading:
        """A sentence with its unknown words as the dictionary spells them, where it has them."""
        if all(self._stands(word) for word in words):
            return Reading(words, offsets, {})
        read, places, similarities = [], [], {}
        position = 0
        while position < len(words):
            num_words, spelled, near = self._spell(words, position)
            start, end = offsets[position][0], offsets[position + num_words - 1][1]
            if near:
                similarities.update(dict.fromkeys(range(len(read), len(read) + len(spelled)), near))
            read += spelled
            places += [(start, end)] if len(spelled) == 1 else _halved(start, end, len(spelled[0]))
            position += num_words
        return Reading(read, places, similarities)

    def stands(self, word: str) -> bool:
        """Whether a word stands for itself: too short, a mark, a mask, known, or formed of a known one."""
        if not _is_long(word) or word in self._known or len(set(word)) < 3:
            return True
        return any(word.startswith(prefix) and word[len(prefix) :] in self._known for prefix in PREFIXES)

    def _spell(self, words: Sequence[str], position: int) -> tuple[int, tuple[str, ...], float]:
        """How many written words stand for which words, from a position on, and how near they are."""
        pair = words[position : position + 2]
        if "".join(pair) in self._dictionary and not all(map(self._stands, pair)):
            return len(pair), ("".join(pair),), 1.0
        word = words[position]
        if self._stands(word):
            return 1, (word,), 0.0
        linked, near = self._link(word)
        halves = () if linked else self._halves(word)
        return 1, halves or (linked or word,), 1.0 if halves else near

    def _halves(self, word: str) -> tuple[str, ...]:
        """Two words of the dictionary that were written as one."""
        cuts = range(MIN_LETTERS, len(word) - MIN_LETTERS + 1)
        halves = ((word[:cut], word[cut:]) for cut in cuts)
        return next((pair for pair in halves if self._dictionary.issuperset(pair)), ())


class EntityLinker:
    """Links the entities of a scispaCy model to the dictionary's phrases, with scispaCy's own linker.

    Args:
        model: name or folder of an installed spaCy model.
        phrases: CUI → phrases.
        threshold: least cosine.

    Raises:
        ValueError: no such model, or one that finds no entities.
    """

    def __init__(self, model: str, phrases: Mapping[str, Sequence[str]], threshold: float = THRESHOLD):
        from scispacy.linking import EntityLinker
        from scispacy.linking_utils import Entity

        self._model = _load_model(model)
        generate = candidate_generator(Entity(cui, own[0], list(own)) for cui, own in phrases.items())
        self._linker = EntityLinker(
            candidate_generator=generate,
            k=_NUM_CANDIDATES,
            threshold=threshold,
            filter_for_definitions=False,
            max_entities_per_mention=1,
        )

    def entities(self, sentence: str) -> list[tuple[int, int, str, float]]:
        """(start, end, phrase, similarity) of the entities that are near a phrase; offsets of characters."""
        found = []
        with self._model.memory_zone():  # words that are seen once are not kept
            for entity in self._linker(self._model(sentence)).ents:
                for cui, near in entity._.kb_ents:
                    phrase = self._nearest_phrase(entity.text.lower(), cui)
                    found.append((entity.start_char, entity.end_char, phrase, float(near)))
        return found

    def _nearest_phrase(self, text: str, cui: str) -> str:
        """The phrase of a concept for which scispaCy linked a text to it."""
        (candidates,) = self._linker.candidate_generator([text], _NUM_CANDIDATES)
        nearest = next(candidate for candidate in candidates if candidate.concept_id == cui)
        return nearest.aliases[int(np.argmax(nearest.similarities))]


def similarity(one: str, other: str) -> float:
    """One minus the edits between two words by the letters of the longer one.

    An edit drops, adds or replaces a letter, or swaps two neighbours: the restricted Damerau-Levenshtein
    distance.

    >>> similarity("plueral", "pleural"), similarity("efusion", "effusion")
    (0.8571428571428572, 0.875)
    """
    before, row = [], list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        older, before, row = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            edits = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                edits = min(edits, older[j - 2] + 1)
            row.append(edits)
    return 1 - row[-1] / max(len(one), len(other), 1)


@functools.cache
def words_of_shipped_tables() -> frozenset[str]:
    """The words of all shipped tables: what one table has no concept for is real all the same."""
    folder = importlib.resources.files("medclip_keras.knowledge") / "tables"
    files = (path for path in folder.iterdir() if path.name.endswith(".jsonl"))
    rows = (json.loads(line) for path in files for line in path.read_text("utf-8").splitlines())
    texts = (text for row in rows for text in (row["name"], *row["aliases"]))
    return frozenset(word for text in texts for word in words_of(text)[0])


def _load_model(name: str) -> "spacy.Language":
    import spacy

    try:
        model = spacy.load(name)
    except (OSError, ImportError) as error:
        advice = f"Install it as scispaCy's page says ({type(error).__name__}), or leave it out."
        require(False, "scispacy_model", "an installed spaCy model or its folder", name, advice)
    finds = {"ner", "entity_ruler", "span_ruler"}.intersection(model.pipe_names)
    require(bool(finds), "scispacy_model", "a model that finds entities", f"{name}, {model.pipe_names}")
    return model


def _is_long(word: str) -> bool:
    return len(word) >= MIN_LETTERS and word.isalpha()


def _halved(start: int, end: int, length: int) -> list[tuple[int, int]]:
    """Where the two words of a run-together one stand."""
    return [(start, start + length), (start + length, end)]
