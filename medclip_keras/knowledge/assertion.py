"""Assertion of each finding in a sentence, by the scopes of its cues (as NegEx and ConText do).

A cue is a phrase of the language (`knowledge.language`); its kind says what it makes of the findings in its
scope and in which direction that runs. `knowledge.clauses` says where it ends. A denial then holds unless

- it denies another noun, on which the finding depends: "no treatment of the effusion", "tip of the PICC not
  seen";
- it holds for another side than the finding's, or a clause without a noun of its own affirms the finding on
  the other side: "resolved on the right and decreased on the left";
- an exception affirms it: "no effusion apart from a trace";
- it is a purpose: "to ensure resolution of the effusion".
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from medclip_keras.knowledge.aliases import Span
from medclip_keras.knowledge.clauses import STOP_MARKS, Clauses
from medclip_keras.knowledge.language import ENGLISH, Language

POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL = "positive", "negative", "uncertain", "historical"
ASSERTIONS = (POSITIVE, NEGATIVE, UNCERTAIN, HISTORICAL)

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
    "historical_after": 8,
    "seen_before": 5,
    "present_after": 12,
    "persists_after": 12,
    "persists_before": 6,
    "purpose_before": 12,
    "same_before": 8,
}
_REACH_AHEAD = frozenset(kind for kind in _REACH if kind.endswith(("_before", "_between")))
_REACH_BACK = frozenset(kind for kind in _REACH if kind.endswith(("_after", "_between")))
_LISTED = 4  # words between the items of a list, through which a denial runs however long the list is
_LOOK_AHEAD = 6  # words between an adjective of doubt and the finding that it stands before
_NEAR = 5  # words in which a cue's side follows it
_SEGMENTS = 4  # after a denial, that may be about the other side
_TRIED = 8  # cues of a kind that are asked about one finding


class Cue(NamedTuple):
    """A phrase of `Language.cues` in a sentence: words[start:end]."""

    kind: str
    start: int
    end: int
    text: str


class Scopes:
    """The scope of each cue in one sentence.

    The scope of a cue runs forward, backward or both, for the number of words that its kind allows; a stop
    word or a new clause ends it. A forward scope contains the findings that begin in it, a backward scope
    those that end in it. A cue in brackets applies in them, or to the finding before them.

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
        findings: Sequence[Span],
        others: Sequence[Span] = (),
        language: Language = ENGLISH,
    ):
        self._words, self._sets, self._reaches = words, language.clauses, language.reaches
        self._before: dict[str, list[tuple[Cue, int]]] = {}  # kind → (cue, end of its scope), in text order
        self._after: dict[str, list[tuple[Cue, int]]] = {}  # kind → (cue, start of its scope), in text order
        self._own = sorted(findings)  # by start
        if not cues:
            return
        cues = _longest([c for c in _in_use(cues) if c.kind != "no_cue" or not self._meets(c)])
        stops = {k for c in cues if c.kind in ("stop", "exception") for k in range(c.start, c.end)}
        stops.update([k for k, word in enumerate(words) if word in STOP_MARKS])
        self._stops = stops
        self._clauses = Clauses(words, stops, language)
        self._findings = sorted([*findings, *others]) if others else self._own
        self._starts = [start for start, _ in self._findings]
        self._begins = set(self._starts)
        self._denials = [cue.start for cue in cues if cue.kind.startswith(("negative", "resolved"))]
        self._exceptions = [cue for cue in cues if cue.kind == "exception"]
        for cue in cues:
            self._add(cue)

    def assertion(self, start: int, end: int) -> tuple[str, Cue | None]:
        """The assertion of the finding words[start:end] and its cue; None for the default, positive."""
        if not self._before and not self._after:
            return POSITIVE, None
        same = self._ahead("same_before", start)
        position = bisect.bisect_left(self._own, (same.start,)) - 1 if same else -1
        if position >= 0:
            return self._assertion(*self._own[position])[0], same
        return self._assertion(start, end)

    def _assertion(self, start: int, end: int) -> tuple[str, Cue | None]:
        gone = self._denial("resolved", start, end)
        denied = None if gone else self._denial("negative", start, end)
        cue = gone or denied
        if cue:
            left = self._affirmed(cue, start, end)
            if left:
                return POSITIVE, left
            purpose = self._ahead("purpose_before", cue.start)
            if purpose:
                gone, denied = None, None
                if cue.kind != "resolved_after":
                    return UNCERTAIN, purpose
        if gone:
            return HISTORICAL, gone
        doubted = self._doubt(start, end)
        doubts_denial = (
            doubted
            and denied
            and denied.text in self._sets["verb_negations"]
            and doubted.start < denied.start
        )
        asked = doubted and doubted.text == self._words[-1] == "?"  # "no pneumonia after all?"
        if denied and not doubts_denial and not asked:
            return NEGATIVE, denied
        if doubted:
            return UNCERTAIN, doubted
        past = self._past(start, end)
        return (HISTORICAL, past) if past else (POSITIVE, None)

    def scope(self, cue: Cue, finding: Span) -> Span:
        """The scope of a cue as words[begin:end]; it contains the cue if it runs both ways.

        The scope of what affirms a denied finding runs from the one to the other.
        """
        last, first = _scope_of(cue, self._before), _scope_of(cue, self._after)
        if last is None and first is None:
            return finding[0], cue.end
        last, first = cue.start if last is None else last, cue.end if first is None else first
        while last > first + 1 and self._words[last - 1] == ",":
            last -= 1
        return first + (self._words[first] == ","), last

    def _denial(self, kind: str, start: int, end: int) -> Cue | None:
        """The cue that denies a finding itself, on its side."""
        ahead = self._ahead(f"{kind}_before", start)
        if ahead:
            noun = self._clauses.noun_of(start)
            if noun is None or noun < ahead.end or kind == "resolved":
                return ahead
        behind = self._behind(f"{kind}_after", end)
        if not behind or (self._clauses.noun_of(start) is not None and kind == "negative"):
            return None
        denied = self._side_after(behind)
        own = self._clauses.sides(self._clauses.begin(start), behind.start) if denied else denied
        return None if own and not denied <= own else behind

    def _side_after(self, cue: Cue) -> frozenset[str]:
        """The sides for which a cue holds: "none on the right"."""
        if not self._clauses.has_sides:
            return frozenset()
        return self._clauses.sides(cue.end, min(cue.end + _NEAR, self._clauses.until(cue.end)))

    def _affirmed(self, denial: Cue, start: int, end: int) -> Cue | None:
        """Partial affirmation of a denied finding: an exception, or a clause about the other side."""
        later = max(denial.end, end)
        position = bisect.bisect_left(self._exceptions, (later,), key=lambda cue: (cue.start,))
        for cue in self._exceptions[position : position + 1]:
            last = self._clauses.end(cue.end)
            if cue.start <= later + _LOOK_AHEAD and self._is_rest(cue.end, last):
                return cue
        if not self._clauses.has_two_sides:
            return None
        if start < denial.start:
            own = self._side_after(denial) or self._clauses.sides(self._clauses.begin(start), denial.start)
        else:
            own = self._clauses.sides(denial.end, self._clauses.until(later))
        for first, last in itertools.islice(self._clauses.segments(later), _SEGMENTS if own else 0):
            sides = self._clauses.sides(first, last)
            affirms = not self._sets["affirming"].isdisjoint(self._words[first:last])
            if denial.kind.startswith("resolved") and self._words[first] in self._sets["verb_negations"]:
                first, affirms = first + 1, True  # "has cleared on the left but not on the right"
            if affirms and sides and not sides <= own and self._is_rest(first, last):
                return Cue("elsewhere", first, last, " ".join(self._words[first:last]))
        return None

    def _is_rest(self, first: int, last: int) -> bool:
        """Whether words[first:last] refer to a finding without naming it, and contain no denial."""
        if first == last or not self._clauses.is_elliptic(first, last):
            return False
        position = bisect.bisect_left(self._denials, first)
        return not any(start < last for start in self._denials[position : position + 1])

    def _doubt(self, start: int, end: int) -> Cue | None:
        return (
            self._ahead("uncertain_before", start)
            or self._behind("uncertain_after", end)
            or self._ahead("uncertain_between", start)
            or self._behind("uncertain_between", end)
        )

    def _past(self, start: int, end: int) -> Cue | None:
        """The cue that places a finding in the past, unless another one says that it persists."""
        if self._behind("present_after", end):
            return None
        past = self._ahead("historical_before", start) or self._behind("historical_after", end)
        seen = self._ahead("seen_before", start)
        if past or not seen:
            return past
        persists = self._behind("persists_after", end) or self._ahead("persists_before", start)
        return None if persists or self._is_said_now(end) else seen

    def _is_said_now(self, end: int) -> bool:
        """Whether the words from `end` are about this examination, and contain no denial."""
        last = min(end + _REACH["persists_after"], self._clauses.until_stop(end))
        following = (*self._words[end + 1 : last], "")
        said = zip(self._words[end:last], following, strict=True) if end < last else ()
        negations = self._sets["verb_negations"]
        return any(word in self._sets["present"] and after not in negations for word, after in said)

    def _ahead(self, kind: str, start: int) -> Cue | None:
        """The nearest cue before a finding that begins in the cue's scope."""
        cues = self._before.get(kind)
        if not cues:
            return None
        position = bisect.bisect_right(cues, start, key=lambda pair: pair[0].end)
        tried = cues[max(position - _TRIED, 0) : position]
        return next((cue for cue, last in reversed(tried) if start < last), None)

    def _behind(self, kind: str, end: int) -> Cue | None:
        """The nearest cue after a finding that ends in the cue's scope."""
        cues = self._after.get(kind)
        if not cues:
            return None
        position = bisect.bisect_left(cues, end, key=lambda pair: pair[0].start)
        return next((cue for cue, first in cues[position : position + _TRIED] if first < end), None)

    def _add(self, cue: Cue) -> None:
        """Find the scopes of a cue."""
        bracket = self._clauses.brackets.get(cue.start)
        if bracket and cue.kind in _REACH and self._is_remark(cue, *bracket):
            finding = self._findings[bisect.bisect_right(self._starts, bracket[0]) - 1]
            kind = cue.kind.replace("_before", "_after")
            self._after.setdefault(kind, []).append((cue._replace(kind=kind), finding[0]))
            return
        ahead, back = self._directions(cue)
        if ahead and cue.kind in _REACH_AHEAD:
            last = self._last(cue)
            self._before.setdefault(cue.kind, []).append((cue, min(last, bracket[1]) if bracket else last))
        if back and cue.kind in _REACH_BACK:
            self._after.setdefault(cue.kind, []).append((cue, self._first(cue)))

    def _is_remark(self, cue: Cue, begin: int, closing: int) -> bool:
        """Whether a cue in brackets is about the finding before them: "effusion (resolved)"."""
        position = bisect.bisect_right(self._starts, begin) - 1
        if position < 0 or not begin - _LISTED <= self._findings[position][1] <= begin:
            return False
        following = self._starts[position + 1 : position + 2]
        return not following or following[0] > closing

    def _directions(self, cue: Cue) -> tuple[bool, bool]:
        """Whether a cue applies ahead and back: "effusion and questionable edema", "edema possible, …"."""
        if cue.text not in self._sets["adjectives"]:
            return True, True
        following = self._words[cue.end] if cue.end < len(self._words) else ","
        if following in (",", ")", "]") or following in self._sets["and"] or cue.end in self._stops:
            return cue.start == 0 or self._words[cue.start - 1] in (",", "(", "["), True
        position = bisect.bisect_left(self._starts, cue.end)
        near = self._starts[position : position + 1]
        is_ahead = bool(near) and near[0] - cue.end <= _LOOK_AHEAD
        return True, not is_ahead

    def _last(self, cue: Cue) -> int:
        """The end of a forward scope."""
        limit = min(cue.end + self._reaches.get(cue.text, _REACH[cue.kind]) + 1, len(self._words))
        # "In the appropriate clinical setting, this is …": the comma is the cue's own.
        opening = self._words[cue.end : cue.end + 1] == [","]
        opening = opening and self._words[cue.end - 1] in self._sets["openings"]
        last = self._clauses.end(cue.end + opening)
        if last > limit and cue.kind == "negative_before":
            limit = self._end_of_list(cue.end, limit)
        return min(last, limit)

    def _end_of_list(self, start: int, limit: int) -> int:
        """The end of a list of findings that begins at `start`, if it is behind the limit."""
        position, end = bisect.bisect_left(self._starts, start), start
        following = bisect.bisect_left(self._denials, start)
        stop = self._denials[following] if following < len(self._denials) else len(self._words)
        while position < len(self._findings) and self._starts[position] < min(end + _LISTED, stop):
            end = max(end, self._findings[position][1])
            position += 1
        return max(limit, end)

    def _first(self, cue: Cue) -> int:
        """The start of a backward scope."""
        limit = max(cue.start - self._reaches.get(cue.text, _REACH[cue.kind]) - 1, 0)
        listed = cue.kind in ("negative_after", "resolved_after") and cue.text not in self._reaches
        previous = self._after.get(cue.kind)
        floor = previous[-1][0].end if previous else 0
        k, comma = cue.start - 1, None
        while k >= limit:
            word = self._words[k]
            between = word == ":" and cue.kind == "uncertain_between"  # "opacity: edema versus infection"
            verb = word in self._sets["verbs"] and k < cue.start - 1 and not self._is_copula(k, cue)
            if between or k in self._stops or verb or (listed and word in self._sets["parts"]):
                return k + 1
            if word == "," and comma is None:  # the last one decides
                comma = k
                conjoined = self._sets["and"] | self._sets["or"]
                if conjoined.isdisjoint(self._words[k : cue.start]) and self._has_finding(k, cue.start):
                    return k + 1
            if listed and limit > floor and k in self._begins:
                limit = max(min(limit, k - 1 - _LISTED), floor)
            k -= 1
        return limit

    def _is_copula(self, k: int, cue: Cue) -> bool:
        """Whether a verb only joins a finding and its cue: "pneumonia is a remote possibility"."""
        plain = self._words[k] in self._sets["copulas"] and "," not in self._words[k : cue.start]
        near = cue.kind == "uncertain_after" and cue.start - k <= _LISTED
        return near and plain and not self._has_finding(k, cue.start)

    def _has_finding(self, start: int, end: int) -> bool:
        """Whether a finding begins between words[start] and words[end]."""
        return bisect.bisect_right(self._starts, start) < bisect.bisect_left(self._starts, end)

    def _meets(self, cue: Cue) -> bool:
        """Whether a finding overlaps a cue."""
        position = bisect.bisect_left(self._own, (cue.end,))
        return any(cue.start < end for _, end in self._own[max(position - _TRIED, 0) : position])


def _scope_of(cue: Cue, scopes: dict[str, list[tuple[Cue, int]]]) -> int | None:
    """The bound of a cue's scope; None where it has none in this direction."""
    own = scopes.get(cue.kind, [])
    position = bisect.bisect_left(own, cue.start, key=lambda pair: pair[0].start)
    return next((bound for other, bound in own[position : position + _TRIED] if other is cue), None)


# Kinds of which a cue says nothing without one of the others.
_QUALIFIES = {
    "persists_before": {"seen_before"},
    "persists_after": {"seen_before"},
    "present_after": {"seen_before", "historical_before", "historical_after"},
    "purpose_before": {"negative_before", "negative_after", "resolved_before", "resolved_after"},
}


def _in_use(cues: Sequence[Cue]) -> list[Cue]:
    """The cues without those that qualify cues of which there are none."""
    kinds = {cue.kind for cue in cues}
    idle = {kind for kind, others in _QUALIFIES.items() if kind in kinds and kinds.isdisjoint(others)}
    return [cue for cue in cues if cue.kind not in idle] if idle else list(cues)


def _longest(cues: list[Cue]) -> list[Cue]:
    """Cues in text order; those inside a longer cue, and all that share their words with a "no_cue", go."""
    if len(cues) < 2:
        return cues
    none = {(cue.start, cue.end) for cue in cues if cue.kind == "no_cue"}
    kept: list[Cue] = []
    widest, span = 0, (-1, -1)  # the furthest end of the cues before those of this span
    reached = 0
    for cue in sorted(cues, key=lambda cue: (cue.start, -cue.end)):
        if (cue.start, cue.end) != span:
            widest, span = reached, (cue.start, cue.end)
        reached = max(reached, cue.end)
        if cue.end > widest and (span not in none or cue.kind in ("no_cue", "present_after")):
            kept.append(cue)
    return kept
