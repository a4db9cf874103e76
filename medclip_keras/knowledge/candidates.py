"""Candidates: the matches of a table's aliases in a sentence, and which of them is read.

Parts of an alias are combined where they stand close together; of overlapping candidates the longest wins.
"""

import bisect
import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from medclip_keras.knowledge.aliases import EXCLUDED, OPEN, Alias, Span

MAX_GAP = 6  # words between the parts of an alias such as `heart + enlarged`
_MAX_SPAN = 60  # words between two parts in a list of organs, or with a phrase in commas between them
_FEW = 8  # candidates that are compared without a search
_MARKS = frozenset({",", ";", ".", "--", "-"})


class Candidate(NamedTuple):
    """A match of an alias: words[start:end]; `parts` are the spans of its parts."""

    concept: int
    role: str
    start: int
    end: int
    parts: tuple[Span, ...]
    rule: str


def combine(
    position: int,
    alias: Alias,
    found: Mapping[int, list[Span]],
    words: list[str],
    sets: Mapping[str, frozenset[str]],
) -> Iterator[Candidate]:
    """Candidates of an alias with several parts: in any order, close together, in one clause."""
    for spans in _tuples(alias, found, words):
        ordered = tuple(sorted(spans))
        if alias.listed:
            joined = ordered[0][1] <= ordered[1][0] and _is_list(words, ordered, spans, sets)
        else:
            gaps = itertools.pairwise(ordered)
            joined = all(_is_joined(words, left[1], right[0], sets) for left, right in gaps)
        if joined:
            yield Candidate(position, alias.role, ordered[0][0], ordered[-1][1], ordered, alias.text)


def _tuples(alias: Alias, found: Mapping[int, list[Span]], words: list[str]) -> Iterator[tuple[Span, ...]]:
    """The spans of all parts, those of the first near each of the others."""
    each = [found[number] for number in range(len(alias.parts))]
    if max(map(len, each)) == 1:
        yield tuple([spans[0] for spans in each])
        return
    longest = max(end - start for spans in each for start, end in spans)
    reach = _MAX_SPAN if alias.listed or "," in words else MAX_GAP + longest
    others = [sorted(spans) for spans in each[1:]]
    for first in each[0]:
        yield from itertools.product((first,), *(_nearby(first, spans, reach) for spans in others))


def _nearby(span: Span, spans: list[Span], reach: int) -> list[Span]:
    """Of spans in text order those around another one."""
    first = bisect.bisect_left(spans, (span[0] - reach, 0))
    return spans[first : bisect.bisect_right(spans, (span[1] + reach, 0))]


def _is_joined(words: list[str], end: int, start: int, sets: Mapping[str, frozenset[str]]) -> bool:
    """Whether the words from the end of a part to the start of the next leave both in one clause."""
    if not 0 <= start - end <= _MAX_SPAN:
        return False
    gap = _without_insertion(words[end:start], sets)
    return len(gap) <= MAX_GAP and _MARKS.isdisjoint(gap) and sets["apart"].isdisjoint(gap)


def _is_list(
    words: list[str], ordered: tuple[Span, ...], spans: tuple[Span, ...], sets: Mapping[str, frozenset[str]]
) -> bool:
    """Whether a bare list of organs joins an organ and its description.

    "Heart and lungs are normal", "normal heart and lungs"; but not "enlarged heart, normal lungs", nor "heart
    normal, lungs hyperinflated".
    """
    (start, end), (after, _) = ordered
    gap, lists = words[end:after], sets["organs"]
    if not all(word in lists or word[0].isdigit() for word in gap):
        return False
    if ordered[0] == spans[0]:
        return not gap or not (gap[-1] == "," or gap[-1] in sets["and"]) or words[after] in sets["predicates"]
    before = words[start - 1] if start else ","
    return before == "," or before in sets["and"] or before not in lists


def _without_insertion(between: list[str], sets: Mapping[str, frozenset[str]]) -> list[str]:
    """The words between two parts, without a phrase in commas: "the heart, on both views, is enlarged"."""
    if between[:1] == [","] and between.count(",") == 2:
        closing = between.index(",", 1)
        if between[closing + 1 :] and between[closing + 1] in sets["copulas"]:
            return between[closing + 1 :]
    return between


def best_readings(candidates: list[Candidate]) -> list[Candidate]:
    """Drop excluded candidates and those covered by a longer candidate."""
    if len(candidates) == 1:
        return [c for c in candidates if c.role != EXCLUDED]
    if len(candidates) <= _FEW:
        return [c for c in candidates if c.role != EXCLUDED and not _is_explained(c, candidates)]
    ordered = sorted(candidates, key=operator.attrgetter("start"))
    starts = [c.start for c in ordered]
    longest = max(c.end - c.start for c in candidates)
    return [
        c
        for c in candidates
        if c.role != EXCLUDED
        and not _is_explained(
            c, ordered[bisect.bisect_left(starts, c.end - longest) : bisect.bisect_right(starts, c.start)]
        )
    ]


def _is_explained(shorter: Candidate, candidates: list[Candidate]) -> bool:
    """Whether one of the candidates covers the words of another one."""
    start, end = shorter.start, shorter.end
    for longer in candidates:  # a loop: quicker than any()
        if longer.start <= start and longer.end >= end and _explains(longer, shorter):
            return True
    return False


def _explains(longer: Candidate, shorter: Candidate) -> bool:
    """Whether `longer`, around the words of `shorter`, is read in its place."""
    same = longer.concept == shorter.concept
    if longer is shorter or (longer.role in (EXCLUDED, OPEN) and not same):
        return False
    size = shorter.end - shorter.start
    if same:
        wider = longer.end - longer.start > size
        return wider or (longer.role, longer.rule) < (shorter.role, shorter.rule)
    return any(
        start <= shorter.start and shorter.end <= end and end - start > size for start, end in longer.parts
    )
