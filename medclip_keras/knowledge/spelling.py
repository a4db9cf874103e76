"""Misspelled words, read as words of the dictionary: "plueral effusion", "cardio megaly", "pleuraleffusion".

A word is looked up if neither the dictionary nor the list of valid words (`tables/valid_words.txt`) holds it:
a valid word is never corrected, an infusion is no effusion. It is read as the dictionary's word with the
fewest edits (`rapidfuzz`), if that is near enough.

The threshold was chosen on 3,110 misspellings of the words of chest21, one or two edits each, and 15,290
valid words of Open-i's tuning reports and of BERT's vocabulary that the dictionary does not hold
(`tests/benchmarks/linking.py`, last in commit 06cdc5e). Precision counts both. The list of valid words was
written with these words in view: the precision without the list is the stricter figure.

    threshold                 recall   precision   without the list
    0.7                         .945        .643               .533
    0.8, the default            .850        .927               .790
    0.85                        .601        .970               .908
    highest cosine, 0.8         .361        .893               .786

Of aliases with one misspelled word 92 % are found in a sentence, 13 % without correction. On the tuning
reports themselves, which were proofread, it adds 92 mentions and moves no score of
`tests/benchmarks/labels.py`.
"""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import process
from rapidfuzz.distance import OSA, Jaro

from medclip_keras.knowledge import TABLES
from medclip_keras.knowledge.aliases import Span, normalise, words_of
from medclip_keras.knowledge.language import ENGLISH

THRESHOLD = 0.8
MIN_LETTERS = 5  # of a word that is looked up; "hart" could be too many words
_WORDS_KEPT = 20_000


@dataclass(frozen=True)
class Reading:
    """A sentence with corrected spelling."""

    words: list[str]  # normalised words and marks
    offsets: list[Span]  # the characters of each in the sentence as it is written
    similarities: Mapping[int, float]  # position of a corrected word → similarity of its spelling


class SpellingLinker:
    """Correct misspelled words to words of the dictionary.

    `dictionary` holds the normalised words of aliases and cues, `also_known` further valid words. `threshold`
    is the least similarity of a spelling to a word: one minus edits by letters, in (0, 1].

    >>> linker = SpellingLinker(["pleural", "effusion", "cardiomegaly"])
    >>> linker.read(*words_of("Plueral effusions, cardio megaly.")).words
    ['pleural', 'effusion', ',', 'cardiomegaly', '.']
    """

    def __init__(
        self,
        dictionary: Collection[str],
        also_known: Collection[str] = (),
        threshold: float = THRESHOLD,
    ):
        self._dictionary = frozenset(filter(_is_long, dictionary))
        self._targets = sorted(self._dictionary)
        self._known = valid_words().union(dictionary, also_known)
        self._threshold = threshold
        self._link = functools.lru_cache(_WORDS_KEPT)(self.link)
        self._is_valid = functools.lru_cache(_WORDS_KEPT)(self.is_valid)

    def link(self, word: str) -> tuple[str, float]:
        """The dictionary's word for a spelling and their similarity; ("", 0.0) if none is near enough.

        Of words with equally few edits the one with the most letters in the same places (Jaro) is taken.
        """
        # rapidfuzz rounds a cut-off up: one edit in five letters would miss 0.8.
        near = process.extract(
            word, self._targets, scorer=similarity, score_cutoff=self._threshold - 0.01, limit=None
        )
        ranked = [(score, Jaro.similarity(word, target), target) for target, score, _ in near]
        score, _, best = max(ranked, default=(0.0, 0.0, ""))
        return (best, score) if score >= self._threshold else ("", 0.0)

    def read(self, words: list[str], offsets: list[Span]) -> Reading:
        """Correct the unknown words of a sentence."""
        if all(self._is_valid(word) for word in words):
            return Reading(words, offsets, {})
        read: list[str] = []
        places: list[Span] = []
        similarities: dict[int, float] = {}
        position = 0
        while position < len(words):
            num_words, spelled, near = self._spell(words, position)
            start, end = offsets[position][0], offsets[position + num_words - 1][1]
            if near:
                similarities.update(dict.fromkeys(range(len(read), len(read) + len(spelled)), near))
            read += spelled
            cut = start + len(spelled[0])
            places += [(start, end)] if len(spelled) == 1 else [(start, cut), (cut, end)]
            position += num_words
        return Reading(read, places, similarities)

    def is_valid(self, word: str) -> bool:
        """Whether a word needs no correction: known, prefix and known word, short, punctuation or a mask."""
        if not _is_long(word) or word in self._known or len(set(word)) < 3:
            return True
        return any(
            word.startswith(prefix) and word[len(prefix) :] in self._known
            for prefix in ENGLISH.forms["prefixes"]
        )

    def _spell(self, words: Sequence[str], position: int) -> tuple[int, tuple[str, ...], float]:
        """Correct the words at a position: (number of words replaced, replacements, similarity)."""
        pair = words[position : position + 2]
        if "".join(pair) in self._dictionary and not all(map(self._is_valid, pair)):
            return len(pair), ("".join(pair),), 1.0
        word = words[position]
        if self._is_valid(word):
            return 1, (word,), 0.0
        linked, near = self._link(word)
        halves = () if linked else self._halves(word)
        return 1, halves or (linked or word,), 1.0 if halves else near

    def _halves(self, word: str) -> tuple[str, ...]:
        """Split a word into two words of the dictionary; () if impossible."""
        cuts = range(MIN_LETTERS, len(word) - MIN_LETTERS + 1)
        halves = ((word[:cut], word[cut:]) for cut in cuts)
        return next((pair for pair in halves if self._dictionary.issuperset(pair)), ())


# One minus the edits between two words by the letters of the longer one: the restricted Damerau-Levenshtein
# distance, of which an edit drops, adds or replaces a letter, or swaps two neighbours.
similarity = OSA.normalized_similarity


@functools.cache
def valid_words() -> frozenset[str]:
    """Valid words that resemble dictionary words, normalised.

    >>> "infusion" in valid_words(), "efusion" in valid_words()
    (True, False)
    """
    words = (TABLES / "valid_words.txt").read_text(encoding="utf-8").split()
    return frozenset(map(normalise, words))


@functools.cache
def words_of_shipped_tables() -> frozenset[str]:
    """The words of all shipped concept tables, valid whatever table is used."""
    files = (path for path in TABLES.iterdir() if path.name.endswith(".jsonl"))
    rows = (json.loads(line) for path in files for line in path.read_text("utf-8").splitlines())
    texts = (text for row in rows for text in (row["name"], *row["aliases"]))
    return frozenset(word for text in texts for word in words_of(text)[0])


def _is_long(word: str) -> bool:
    return len(word) >= MIN_LETTERS and word.isalpha()
