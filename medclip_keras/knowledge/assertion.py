"""Assertion of each finding in a sentence, by the scopes of its cues (as NegEx and ConText do)."""

from collections.abc import Sequence
from typing import NamedTuple

from medclip_keras.knowledge.language import ENGLISH, Language

POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL = "positive", "negative", "uncertain", "historical"
ASSERTIONS = (POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL)

_STOP_MARKS = frozenset({";", ".", "!", "-", "--"})
# Largest scope of a cue, in words.
_REACH = {
    "negative_before": 30,
    "negative_after": 14,
    "resolved_before": 6,
    "resolved_after": 8,
    "uncertain_before": 14,
    "uncertain_after": 8,
    "uncertain_between": 6,
    "historical_before": 5,
    "present_after": 12,
}
_REACH_AHEAD = frozenset(kind for kind in _REACH if kind.endswith(("_before", "_between")))
_REACH_BACK = frozenset(kind for kind in _REACH if kind.endswith(("_after", "_between")))


class Cue(NamedTuple):
    """A phrase of `knowledge.cues` in a sentence: words[start:end]."""

    kind: str
    start: int
    end: int
    text: str


class Scopes:
    """The scope of each cue in one sentence.

    The scope of a cue runs forward, backward or both, for the number of words that its kind allows; a stop
    word or a new clause ends it. A forward scope contains the findings that begin in it, a backward scope
    those that end in it.

    Args:
        words: the sentence's normalised words and marks.
        cues: matched cues; those inside a longer cue are dropped.
        findings: word spans (start, end) of the findings. A phrase of change ("no enlargement of") that
            overlaps one ("enlargement of the heart") is dropped.
        others: word spans of excluded phrases, which may have cues of their own.
        language: that of the words.
    """

    def __init__(
        self,
        words: Sequence[str],
        cues: Sequence[Cue],
        findings: Sequence[tuple[int, int]],
        others: Sequence[tuple[int, int]] = (),
        language: Language = ENGLISH,
    ):
        self._words = words
        self._clauses = language.clauses
        self._reaches = language.reaches
        cues = _longest([cue for cue in cues if cue.kind != "no_cue" or not _meets(cue, findings)])
        self._stops = {k for cue in cues if cue.kind == "stop" for k in range(cue.start, cue.end)}
        self._stops.update(k for k, word in enumerate(words) if word in _STOP_MARKS)
        self._findings = [*findings, *others]
        self._before: dict[str, list[tuple[Cue, int]]] = {}  # kind → (cue, end of its scope), in text order
        self._after: dict[str, list[tuple[Cue, int]]] = {}  # kind → (cue, start of its scope), in text order
        for cue in cues:
            if cue.kind in _REACH_AHEAD:
                self._before.setdefault(cue.kind, []).append((cue, self._last(cue)))
            if cue.kind in _REACH_BACK and not self._looks_ahead(cue):
                self._after.setdefault(cue.kind, []).append((cue, self._first(cue)))

    def assertion(self, start: int, end: int) -> tuple[str, Cue | None]:
        """The assertion of the finding words[start:end] and its cue; None for the default, positive."""
        resolved = self._behind("resolved_after", end) or self._ahead("resolved_before", start)
        if resolved:
            return HISTORICAL, resolved
        denied = self._ahead("negative_before", start) or self._behind("negative_after", end)
        doubted = self._doubt(start, end)
        doubts_denial = (
            doubted
            and denied
            and denied.text in self._clauses["verb_negations"]
            and doubted.start < denied.start
        )
        if denied and not doubts_denial:
            return NEGATIVE, denied
        if doubted:
            return UNCERTAIN, doubted
        past = self._ahead("historical_before", start)
        if past and not self._behind("present_after", end):
            return HISTORICAL, past
        return POSITIVE, None

    def scope(self, cue: Cue) -> tuple[int, int]:
        """The scope of a cue as words[begin:end]; it contains the cue if it runs both ways."""
        last = next((last for other, last in self._before.get(cue.kind, ()) if other is cue), cue.start)
        first = next((first for other, first in self._after.get(cue.kind, ()) if other is cue), cue.end)
        while last > first + 1 and self._words[last - 1] == ",":
            last -= 1
        return first + (self._words[first] == ","), last

    def _doubt(self, start: int, end: int) -> Cue | None:
        return (
            self._ahead("uncertain_before", start)
            or self._behind("uncertain_after", end)
            or self._ahead("uncertain_between", start)
            or self._behind("uncertain_between", end)
        )

    def _ahead(self, kind: str, start: int) -> Cue | None:
        """The nearest cue before a finding that begins in the cue's scope."""
        return next((c for c, last in reversed(self._before.get(kind, ())) if c.end <= start < last), None)

    def _behind(self, kind: str, end: int) -> Cue | None:
        """The nearest cue after a finding that ends in the cue's scope."""
        return next((c for c, first in self._after.get(kind, ()) if first < end <= c.start), None)

    def _last(self, cue: Cue) -> int:
        """The end of a forward scope."""
        limit = min(cue.end + self._reaches.get(cue.text, _REACH[cue.kind]) + 1, len(self._words))
        # "In the appropriate clinical setting, this is …": the comma is the cue's own.
        opening = (
            self._words[cue.end : cue.end + 1] == [","]
            and self._words[cue.end - 1] in self._clauses["openings"]
        )
        return next((k for k in range(cue.end + opening, limit) if self._ends_scope(k)), limit)

    def _first(self, cue: Cue) -> int:
        """The start of a backward scope."""
        limit = max(cue.start - self._reaches.get(cue.text, _REACH[cue.kind]) - 1, 0)
        comma = None
        for k in range(cue.start - 1, limit - 1, -1):
            word = self._words[k]
            between = word == ":" and cue.kind == "uncertain_between"  # "opacity: edema versus infection"
            if between or k in self._stops or (word in self._clauses["verbs"] and k < cue.start - 1):
                return k + 1
            if word == "," and comma is None:  # the last one decides
                comma = k
                listed = not (self._clauses["and"] | self._clauses["or"]).isdisjoint(
                    self._words[k : cue.start]
                )
                if not listed and any(k < start < cue.start for start, _ in self._findings):
                    return k + 1
        return limit

    def _looks_ahead(self, cue: Cue) -> bool:
        """Whether an adjective applies to the next finding only: "effusion and questionable edema"."""
        return cue.text in self._clauses["adjectives"] and any(
            0 <= start - cue.end <= 6 for start, _ in self._findings
        )

    def _ends_scope(self, k: int) -> bool:
        """Whether a word ends a forward scope: a stop word, or the first word of a clause."""
        word = self._words[k]
        if k in self._stops or word == ":":
            return True
        if word in self._clauses["with"]:  # "consolidation with effusion", but "consistent with pneumonia"
            return k == 0 or self._words[k - 1] not in self._clauses["agreeing"]
        if word in self._clauses["and"]:
            following = self._words[k + 1] if k + 1 < len(self._words) else ""
            return following in self._clauses["determiners"] or self._is_clause(k + 1, following)
        return word == "," and self._opens_clause(k + 1)

    def _is_subject(self, word: str) -> bool:
        return word in self._clauses["determiners"] or word in self._clauses["subjects"]

    def _segment(self, start: int) -> list[str]:
        """The words up to the next comma or stop."""
        end = start
        while end < len(self._words) and self._words[end] != "," and end not in self._stops:
            end += 1
        return list(self._words[start:end])

    def _is_clause(self, start: int, first: str) -> bool:
        """Whether a clause begins here: "and small effusions persist", but not "and effusion"."""
        segment = self._segment(start)
        return (
            self._is_subject(first)
            and bool(self._clauses["verbs"].intersection(segment))
            and not self._clauses["or"].intersection(segment)
        )

    def _opens_clause(self, start: int) -> bool:
        """Whether a comma is followed by a new clause, not by the next item of a list."""
        segment = self._segment(start)
        if not segment or segment[0] in self._clauses["or"]:
            return False
        if segment[0] in self._clauses["and"]:
            return len(segment) > 1 and (
                segment[1] in self._clauses["determiners"]
                or bool(self._clauses["verbs"].intersection(segment[:-2]))
            )
        for word in self._words[start:]:
            if word in self._clauses["or"]:
                return False
            if word in self._clauses["verbs"] or word in (";", "but"):
                break
        return self._is_subject(segment[0]) or bool(self._clauses["verbs"].intersection(segment))


def _meets(cue: Cue, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start < cue.end and cue.start < end for start, end in spans)


def _longest(cues: list[Cue]) -> list[Cue]:
    """Cues in text order; those inside a longer cue are dropped."""
    if len(cues) < 2:
        return cues
    kept = (c for c in cues if not any(_is_inside(c, other) for other in cues))
    return sorted(kept, key=lambda cue: (cue.start, cue.end))


def _is_inside(cue: Cue, other: Cue) -> bool:
    longer = other.end - other.start > cue.end - cue.start
    return longer and other.start <= cue.start and cue.end <= other.end
