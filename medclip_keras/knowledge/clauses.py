"""Clauses of a sentence: ends, brackets, sides, and clauses without a noun.

One pass over the words from their end; every question is then answered by an index, so that a sentence
costs time in proportion to its length.
"""

import bisect
import functools
from collections.abc import Collection, Iterator, Sequence

from medclip_keras.knowledge.aliases import Span
from medclip_keras.knowledge.language import Language

STOP_MARKS = frozenset({";", ".", "!", "-", "--"})
_LONGEST = 40  # words of a segment
_REACH_OF_NOUN = 6  # words between "of the" and the finding


class Clauses:
    """The clauses of one sentence.

    Args:
        words: the sentence's normalised words and marks.
        stops: positions of the words at which every scope ends.
        language: that of the words.
    """

    def __init__(self, words: Sequence[str], stops: Collection[int], language: Language):
        self._words = words
        self._stops = stops
        self._sets, self._language = language.clauses, language
        of_words = language.sides
        self._sided = [(k, of_words[word]) for k, word in enumerate(words) if word in of_words]
        sides = {side for _, side in self._sided}
        self.has_sides = bool(sides)
        self.has_two_sides = {"left", "right"} <= sides
        # The outermost bracket (opening, closing) around each word that stands in one.
        self.brackets = _brackets(words) if "(" in words or "[" in words else {}

    @functools.cached_property
    def _following(self) -> tuple[list[int], list[int], list[int]]:
        """For each word the next verb or stop, the next comma or stop, and the next "or", itself included."""
        size = len(self._words)
        verbs, cuts, ors = [size] * (size + 1), [size] * (size + 1), [size] * (size + 1)
        for k in range(size - 1, -1, -1):
            word = self._words[k]
            verbs[k] = k if word in self._sets["verbs"] or k in self._stops else verbs[k + 1]
            cuts[k] = k if word == "," or k in self._stops else cuts[k + 1]
            ors[k] = k if word in self._sets["or"] else ors[k + 1]
        return verbs, cuts, ors

    @functools.cached_property
    def _ends(self) -> list[int]:
        """The words at which forward scopes end."""
        joints = self._language.joints
        places = {k for k, word in enumerate(self._words) if word in joints}.union(self._stops)
        return [k for k in sorted(places) if self._ends_scope(k)]

    def end(self, start: int) -> int:
        """The first word from `start` on at which a forward scope ends."""
        position = bisect.bisect_left(self._ends, start)
        return self._ends[position] if position < len(self._ends) else len(self._words)

    def until_stop(self, start: int) -> int:
        """The next stop from `start` on."""
        last = min(start + _LONGEST, len(self._words))
        return next((k for k in range(start, last) if k in self._stops), last)

    def until(self, start: int) -> int:
        """The next comma, stop or conjunction from `start` on."""
        last = min(start + _LONGEST, len(self._words))
        return next((k for k in range(start, last) if self._separates(k)), last)

    def begin(self, end: int) -> int:
        """The first word of the segment between commas, stops and conjunctions that ends before `end`."""
        first = max(end - _LONGEST, 0)
        return next((k + 1 for k in range(end - 1, first - 1, -1) if self._separates(k)), first)

    def segments(self, start: int) -> Iterator[Span]:
        """The segments between commas, stops and conjunctions from `start` on."""
        while start < len(self._words):
            end = self.until(start)
            if end > start:
                yield start, end
            start = end + 1

    def sides(self, start: int, end: int) -> frozenset[str]:
        """The sides that words[start:end] name: "left", "right", "both"."""
        first = bisect.bisect_left(self._sided, (start, ""))
        return frozenset(side for _, side in self._sided[first : bisect.bisect_left(self._sided, (end, ""))])

    def is_elliptic(self, start: int, end: int) -> bool:
        """Whether words[start:end] have no noun of their own: "a tiny one on the left"."""
        return all(
            w in self._sets["elliptic"] or w in "()," or w[0].isdigit() for w in self._words[start:end]
        )

    def noun_of(self, start: int) -> int | None:
        """The noun on which a finding that begins at `start` depends: "treatment of the effusion".

        None for nouns that say no more than the finding does: "evidence of the effusion".
        """
        for k in range(start - 1, max(start - 1 - _REACH_OF_NOUN, 0), -1):
            word = self._words[k]
            if word in self._sets["prepositions"]:
                noun = self._words[k - 1]
                definite = self._words[k + 1] in self._sets["definite"]
                return k - 1 if noun in self._sets["parts"] or (self._is_noun(noun) and definite) else None
            if self._separates(k) or word in self._sets["verbs"]:
                return None
        return None

    def _is_noun(self, word: str) -> bool:
        return word.isalpha() and word not in self._sets["evidence"] and word not in self._sets["verbs"]

    def _separates(self, k: int) -> bool:
        word = self._words[k]
        return word == "," or k in self._stops or word in self._sets["and"] or word in self._sets["or"]

    def _ends_scope(self, k: int) -> bool:
        """Whether a word ends a forward scope: a stop word, or the first word of a clause."""
        word = self._words[k]
        if k in self._stops or word == ":":
            return True
        if word in self._sets["with"]:  # "consolidation with effusion", but "consistent with pneumonia"
            return k == 0 or self._words[k - 1] not in self._sets["agreeing"]
        if word in self._sets["and"]:
            return self._is_clause(k + 1)
        return word == "," and self._opens_clause(k + 1)

    def _is_subject(self, k: int) -> bool:
        return self._words[k] in self._sets["determiners"] or self._words[k] in self._sets["subjects"]

    def _is_clause(self, start: int) -> bool:
        """Whether "and" opens a clause: "and small effusions persist", but not "and effusion"."""
        verbs, cuts, ors = self._following
        if start == len(self._words):
            return False
        if self._words[start] in self._sets["determiners"]:
            return True
        return self._is_subject(start) and verbs[start] < cuts[start] and ors[start] >= cuts[start]

    def _opens_clause(self, start: int) -> bool:
        """Whether a comma is followed by a new clause, not by the next item of a list."""
        verbs, cuts, ors = self._following
        if start >= cuts[start] or ors[start] == start:
            return False
        if self._words[start] in self._sets["and"]:
            following = self._words[start + 1 : cuts[start]][:1]
            return bool(following) and (
                following[0] in self._sets["determiners"] or verbs[start] < cuts[start] - 2
            )
        if ors[start] < verbs[start]:
            return False
        return self._is_subject(start) or verbs[start] < cuts[start]


def _brackets(words: Sequence[str]) -> dict[int, Span]:
    inside: dict[int, Span] = {}
    opened: list[int] = []
    for k, word in enumerate(words):
        if word in ("(", "["):
            opened.append(k)
        elif word in (")", "]") and opened:
            begin = opened.pop()
            if not opened:
                inside.update((j, (begin, k)) for j in range(begin, k + 1))
    return inside
