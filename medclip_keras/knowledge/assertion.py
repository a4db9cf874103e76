"""Is a finding denied, doubted, past or there? The scope of the cues of `knowledge.cues` in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL = "positive", "negative", "uncertain", "historical"
ASSERTIONS = (POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL)

_VERBS = frozenset(
    (
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "has",
        "have",
        "had",
        "appear",
        "show",
        "demonstrate",
        "reveal",
        "remain",
        "seem",
        "measure",
        "project",
        "contain",
        "extend",
        "persist",
        "suggest",
        "represent",
        "obscure",
        "overlie",
    )
)
_DETERMINERS = frozenset(
    ("the", "a", "an", "there", "this", "these", "those", "it", "its", "we", "he", "she", "patient")
)
_NEW_SUBJECTS = _DETERMINERS | frozenset(
    (
        "heart",
        "cardiac",
        "cardiomediastinal",
        "mediastinal",
        "mediastinum",
        "mild",
        "moderate",
        "small",
        "large",
        "minimal",
        "trace",
        "tiny",
        "stable",
        "unchanged",
        "increased",
        "decreased",
        "persistent",
        "interval",
        "new",
        "left",
        "right",
        "bilateral",
        "bibasilar",
        "with",
        "normal",
        "clear",
        "possible",
        "probable",
        "likely",
        "questionable",
        "mildly",
        "moderately",
        "slightly",
    )
)
_STOP_MARKS = frozenset({";", ".", "!", "-", "--"})
_OR = frozenset({"or", "nor", "/"})
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
_SHORT_REACH = {"not": 6, "n't": 6, "resolved": 3, "cleared": 3, "removed": 4, "excludes": 5}


@dataclass(frozen=True)
class Cue:
    """A phrase of `knowledge.cues` in a sentence: words[start:end]."""

    kind: str
    start: int
    end: int
    text: str


class Scopes:
    """The cues of one sentence, and what each reaches.

    Args:
        words: the sentence's normalised words and marks.
        cues: what the matcher found; a cue inside a longer one does not count.
        findings: word spans (start, end) of the findings. A phrase of change ("no enlargement of") that
            shares words with one ("enlargement of the heart") does not count.
    """

    def __init__(self, words: Sequence[str], cues: Sequence[Cue], findings: Sequence[tuple[int, int]]):
        self._words = words
        cues = _longest([cue for cue in cues if cue.kind != "no_cue" or not _meets(cue, findings)])
        self._stops = {k for cue in cues if cue.kind == "stop" for k in range(cue.start, cue.end)}
        self._stops.update(k for k, word in enumerate(words) if word in _STOP_MARKS)
        self._cues = [cue for cue in cues if cue.kind not in ("stop", "no_cue")]
        self._findings = findings

    def assertion(self, start: int, end: int) -> tuple[str, str]:
        """The assertion of the finding words[start:end] and the cue that decides ("" where none does)."""
        resolved = self._after("resolved_after", start, end) or self._before("resolved_before", start)
        if resolved:
            return HISTORICAL, resolved.text
        denied = self._before("negative_before", start) or self._after("negative_after", start, end)
        doubted = self._doubt(start, end)
        doubts_denial = doubted and denied and denied.text in _OF_VERBS and doubted.start < denied.start
        if denied and not doubts_denial:
            return NEGATIVE, denied.text
        if doubted:
            return UNCERTAIN, doubted.text
        past = self._before("historical_before", start)
        if past and not self._after("present_after", start, end):
            return HISTORICAL, past.text
        return POSITIVE, ""

    def _doubt(self, start: int, end: int) -> Cue | None:
        return (
            self._before("uncertain_before", start)
            or self._after("uncertain_after", start, end)
            or self._before("uncertain_between", start)
            or self._after("uncertain_between", start, end)
        )

    def _before(self, kind: str, start: int) -> Cue | None:
        """The nearest cue of a kind before a finding that reaches it."""
        for cue in reversed(self._cues):
            reach = _SHORT_REACH.get(cue.text, _REACH[cue.kind])
            if cue.kind == kind and 0 <= start - cue.end <= reach and self._runs(cue.end, start):
                return cue
        return None

    def _after(self, kind: str, start: int, end: int) -> Cue | None:
        """The nearest cue of a kind after a finding that reaches back to it."""
        for cue in self._cues:
            reach = _REACH[cue.kind]
            if cue.kind == kind and 0 <= cue.start - end <= reach and self._runs_back(end, cue.start):
                return cue
        return None

    def _runs(self, begin: int, end: int) -> bool:
        """Whether a scope that opens at `begin` still holds at `end`."""
        for k in range(begin, end):
            word = self._words[k]
            following = self._words[k + 1] if k + 1 < len(self._words) else ""
            if k in self._stops or word in ("with", ":"):
                return False
            if word == "and" and (following in _DETERMINERS or self._is_clause(k + 1, following)):
                return False
            if word == "," and self._opens_clause(k + 1):
                return False
        return True

    def _runs_back(self, begin: int, end: int) -> bool:
        """Whether the words between a finding and a cue after it belong to one statement."""
        between = self._words[begin:end]
        if any(k in self._stops for k in range(begin, end)) or _VERBS.intersection(between[:-1]):
            return False
        if "," in between:
            comma = begin + len(between) - 1 - between[::-1].index(",")
            listed = _OR.union(("and",)).intersection(self._words[comma:end])
            return bool(listed) or not any(comma < start < end for start, _ in self._findings)
        return True

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


def _longest(cues: Sequence[Cue]) -> list[Cue]:
    """Cues in order, without those that lie inside a longer one."""
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
