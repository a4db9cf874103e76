"""Is a finding denied, doubted, past or there? The scope of the cues of `knowledge.cues` in one sentence."""

from collections.abc import Sequence
from typing import NamedTuple

from medclip_keras.knowledge.cues import CLAUSES

POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL = "positive", "negative", "uncertain", "historical"
ASSERTIONS = (POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL)

_VERBS, _DETERMINERS = CLAUSES["verbs"], CLAUSES["determiners"]
_NEW_SUBJECTS = CLAUSES["subjects"] | _DETERMINERS
_STOP_MARKS = frozenset({";", ".", "!", "-", "--"})
_OR = frozenset({"or", "nor", "/"})
_SHORT_REACH_BACK = {"removal": 0}
_OPENINGS = ("clinical setting", "clinical context")
_ADJECTIVES = frozenset(["possible", "questionable", "suspected", "questioned", "equivocal", "conceivable"])
_AGREEING = frozenset({"consistent", "compatible", "keeping", "line"})
_AND_OR = _OR | {"and"}
# "May not be enlarged" is open; "possible effusion without edema" denies the edema.
_OF_VERBS = frozenset({"not", "n't", "never"})
# How many words a cue reaches, where the clause does not end before.
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
_SHORT_REACH = {"not": 6, "n't": 6, "resolved": 3, "cleared": 3, "removed": 4, "excludes": 5}


class Cue(NamedTuple):
    """A phrase of `knowledge.cues` in a sentence: words[start:end]."""

    kind: str
    start: int
    end: int
    text: str


class Scopes:
    """The cues of one sentence, and what each reaches.

    A cue before its findings reaches as many following words as its kind may, up to a word that ends every
    scope or opens a new clause; a cue after them reaches back alike. So a cue has one scope, whatever the
    finding: it reaches those that begin in it (a cue before them) or end in it (a cue after them).

    Args:
        words: the sentence's normalised words and marks.
        cues: what the matcher found; a cue inside a longer one does not count.
        findings: word spans (start, end) of the findings. A phrase of change ("no enlargement of") that
            shares words with one ("enlargement of the heart") does not count.
        others: word spans of what is no finding of the table, but may have cues of its own.
    """

    def __init__(
        self,
        words: Sequence[str],
        cues: Sequence[Cue],
        findings: Sequence[tuple[int, int]],
        others: Sequence[tuple[int, int]] = (),
    ):
        self._words = words
        cues = _longest([cue for cue in cues if cue.kind != "no_cue" or not _meets(cue, findings)])
        self._stops = {k for cue in cues if cue.kind == "stop" for k in range(cue.start, cue.end)}
        self._stops.update(k for k, word in enumerate(words) if word in _STOP_MARKS)
        self._findings = [*findings, *others]
        self._before: dict[str, list[tuple[Cue, int]]] = {}  # kind → cues, nearest last, and where each ends
        self._after: dict[
            str, list[tuple[Cue, int]]
        ] = {}  # kind → cues, nearest first, and where each begins
        for cue in cues:
            if cue.kind in _REACH_AHEAD:
                self._before.setdefault(cue.kind, []).append((cue, self._last(cue)))
            if cue.kind in _REACH_BACK and not self._looks_ahead(cue):
                self._after.setdefault(cue.kind, []).append((cue, self._first(cue)))

    def assertion(self, start: int, end: int) -> tuple[str, Cue | None]:
        """The assertion of the finding words[start:end] and the cue that decides, None where none does."""
        resolved = self._behind("resolved_after", end) or self._ahead("resolved_before", start)
        if resolved:
            return HISTORICAL, resolved
        denied = self._ahead("negative_before", start) or self._behind("negative_after", end)
        doubted = self._doubt(start, end)
        doubts_denial = doubted and denied and denied.text in _OF_VERBS and doubted.start < denied.start
        if denied and not doubts_denial:
            return NEGATIVE, denied
        if doubted:
            return UNCERTAIN, doubted
        past = self._ahead("historical_before", start)
        if past and not self._behind("present_after", end):
            return HISTORICAL, past
        return POSITIVE, None

    def scope(self, cue: Cue) -> tuple[int, int]:
        """The words[begin:end] that a cue reaches; it lies among them where it reaches both ways."""
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
        """The nearest cue of a kind ahead of a finding that begins in its scope."""
        return next((c for c, last in reversed(self._before.get(kind, ())) if c.end <= start < last), None)

    def _behind(self, kind: str, end: int) -> Cue | None:
        """The nearest cue of a kind behind a finding that ends in its scope."""
        return next((c for c, first in self._after.get(kind, ()) if first < end <= c.start), None)

    def _last(self, cue: Cue) -> int:
        """Where the scope that a cue opens ends."""
        limit = min(cue.end + _SHORT_REACH.get(cue.text, _REACH[cue.kind]) + 1, len(self._words))
        # "In the appropriate clinical setting, this is …": the comma is the cue's own.
        opening = self._words[cue.end : cue.end + 1] == [","] and cue.text.endswith(_OPENINGS)
        return next((k for k in range(cue.end + opening, limit) if self._ends_scope(k)), limit)

    def _first(self, cue: Cue) -> int:
        """Where the scope of a cue that closes a statement begins."""
        limit = max(cue.start - _SHORT_REACH_BACK.get(cue.text, _REACH[cue.kind]) - 1, 0)
        comma = None
        for k in range(cue.start - 1, limit - 1, -1):
            word = self._words[k]
            between = word == ":" and cue.kind == "uncertain_between"  # "opacity: edema versus infection"
            if between or k in self._stops or (word in _VERBS and k < cue.start - 1):
                return k + 1
            if word == "," and comma is None:  # the last one decides
                comma = k
                listed = not _AND_OR.isdisjoint(self._words[k : cue.start])
                if not listed and any(k < start < cue.start for start, _ in self._findings):
                    return k + 1
        return limit

    def _looks_ahead(self, cue: Cue) -> bool:
        """Whether "effusion and questionable edema" doubts what follows, not what stands before."""
        return cue.text in _ADJECTIVES and any(0 <= start - cue.end <= 6 for start, _ in self._findings)

    def _ends_scope(self, k: int) -> bool:
        """Whether a scope ends at a word: a stop, or the opening of a new clause."""
        word = self._words[k]
        if k in self._stops or word == ":":
            return True
        if word == "with":  # "consolidation with effusion", but "consistent with pneumonia"
            return k == 0 or self._words[k - 1] not in _AGREEING
        if word == "and":
            following = self._words[k + 1] if k + 1 < len(self._words) else ""
            return following in _DETERMINERS or self._is_clause(k + 1, following)
        return word == "," and self._opens_clause(k + 1)

    def _segment(self, start: int) -> list[str]:
        """The words up to the next comma or stop."""
        end = start
        while end < len(self._words) and self._words[end] != "," and end not in self._stops:
            end += 1
        return list(self._words[start:end])

    def _is_clause(self, start: int, first: str) -> bool:
        """Whether "and small effusions persist" follows rather than "and effusion"."""
        segment = self._segment(start)
        return first in _NEW_SUBJECTS and bool(_VERBS.intersection(segment)) and not _OR.intersection(segment)

    def _opens_clause(self, start: int) -> bool:
        """Whether a new statement begins after a comma, rather than the next item of a list."""
        segment = self._segment(start)
        if not segment or segment[0] in _OR:
            return False
        if segment[0] == "and":
            return len(segment) > 1 and (
                segment[1] in _DETERMINERS or bool(_VERBS.intersection(segment[:-2]))
            )
        for word in self._words[start:]:
            if word in _OR:
                return False
            if word in _VERBS or word in (";", "but"):
                break
        return segment[0] in _NEW_SUBJECTS or bool(_VERBS.intersection(segment))


def _meets(cue: Cue, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start < cue.end and cue.start < end for start, end in spans)


def _longest(cues: list[Cue]) -> list[Cue]:
    """Cues in order, without those that lie inside a longer one."""
    if len(cues) < 2:
        return cues
    kept = [
        cue
        for cue in cues
        if not any(
            other.start <= cue.start
            and cue.end <= other.end
            and other.end - other.start > cue.end - cue.start
            for other in cues
        )
    ]
    return sorted(kept, key=lambda cue: (cue.start, cue.end))
