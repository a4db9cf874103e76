"""Validation of concept tables: each check yields the invalid rows.

A row is refused for a malformed CUI, a duplicate name or CUI, a parent that the table does not have, a circle
of parents, an alias that cannot be parsed, and an alias (or name) that two concepts claim.

Two aliases are equal if they are matched by the same words. A phrase that several concepts may rightly name
("hydropneumothorax" in a table without one) carries the sign & in each. Excluded readings claim nothing, and
a normal phrase may deny several concepts.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medclip_keras.errors import near_names
from medclip_keras.knowledge.aliases import ABSENT, EXCLUDED, Alias, normalise, parse_alias, words_of

TEXTS = ("cui", "name")
LISTS = ("aliases", "parents", "equivalents")

Problem = tuple[str, str, tuple[int, ...]]  # the requirement, the received value, the rows' positions


@dataclass(frozen=True)
class Concept:
    """One finding: a row of a concept table."""

    cui: str
    name: str
    aliases: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()  # names of concepts of the same table
    equivalents: tuple[str, ...] = ()  # further CUIs that mean the same finding


def row_problem(row: Any) -> str:
    """The first error in the fields of a JSON row; "" for a valid row.

    >>> row_problem({"cui": "C0034063", "name": "Edema", "parent": "Lung Opacity"})
    "unknown field 'parent'; Near names: parents"
    """
    if not isinstance(row, dict):
        return "no JSON object"
    for field in TEXTS:
        if not isinstance(row.get(field), str) or not row[field].strip():
            return f"{field} is missing or no text"
    for field in row:
        if field not in TEXTS + LISTS:
            return f"unknown field {field!r}; {near_names(field, TEXTS + LISTS).rstrip('.')}"
    for field in LISTS:
        values = row.get(field, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return f"{field} is no list of texts"
    return ""


@functools.lru_cache(maxsize=8)  # a worker builds the same table more than once
def first_problem(concepts: tuple[Concept, ...]) -> Problem | None:
    """The first validation error of a table, or None."""
    if not concepts:
        return "hold at least one concept", "none", ()
    checks = (_malformed_cuis, _duplicates, _unknown_parents, _circles, _alias_problems)
    return next(itertools.chain.from_iterable(check(concepts) for check in checks), None)


def parents_first(concepts: Sequence[Concept]) -> list[int]:
    """Positions with every parent before its children, without circles and their descendants."""
    order: list[int] = []
    placed: set[str] = set()
    while True:
        ready = [
            position
            for position, concept in enumerate(concepts)
            if concept.name not in placed and placed.issuperset(concept.parents)
        ]
        if not ready:
            return order
        order += ready
        placed.update(concepts[position].name for position in ready)


def _malformed_cuis(concepts: Sequence[Concept]) -> Iterator[Problem]:
    for position, concept in enumerate(concepts):
        for cui in (concept.cui, *concept.equivalents):
            if not re.fullmatch(r"C\d{7}", cui):
                yield "have UMLS CUIs (C and seven digits)", repr(cui), (position,)


def _duplicates(concepts: Sequence[Concept]) -> Iterator[Problem]:
    names = [(repr(concept.name), k) for k, concept in enumerate(concepts)]
    cuis = [(cui, k) for k, concept in enumerate(concepts) for cui in (concept.cui, *concept.equivalents)]
    for noun, values in (("names", names), ("CUIs", cuis)):
        first: dict[str, int] = {}
        for value, position in values:
            if value in first:
                yield f"have different {noun}", value, (first[value], position)
            first[value] = position


def _unknown_parents(concepts: Sequence[Concept]) -> Iterator[Problem]:
    names = {concept.name: None for concept in concepts}
    for position, concept in enumerate(concepts):
        for parent in concept.parents:
            if parent not in names:
                received = f"{parent!r} ({near_names(parent, names).rstrip('.')})"
                yield "name parents of the same table", received, (position,)


def _circles(concepts: Sequence[Concept]) -> Iterator[Problem]:
    placed = {concepts[position].name for position in parents_first(concepts)}
    positions = {concept.name: position for position, concept in enumerate(concepts)}
    path = [name for name in positions if name not in placed][:1]
    while path and path.count(path[-1]) == 1:  # every concept that is left has a parent that is left
        path.append(next(name for name in concepts[positions[path[-1]]].parents if name not in placed))
    circle = path[path.index(path[-1]) : -1] if path else []
    if circle:
        yield "have parents without a circle", "a circle", tuple(positions[name] for name in circle)


def _alias_problems(concepts: Sequence[Concept]) -> Iterator[Problem]:
    claims: dict[tuple[str, ...], tuple[int, bool]] = {}
    for position, concept in enumerate(concepts):
        own: dict[tuple[str, ...], bool] = {}
        for text in (concept.name, *concept.aliases):
            try:
                alias = parse_alias(text)
            except ValueError:
                yield "have aliases that can be parsed", repr(text), (position,)
                continue
            if alias.role not in (ABSENT, EXCLUDED):
                for key in _keys(alias):
                    own[key] = alias.shared or own.get(key, False)
        for key, shared in own.items():
            other, other_shared = claims.setdefault(key, (position, shared))
            if other != position and not (shared and other_shared):
                phrase = " + ".join(key[1:])
                yield "have aliases of one concept each, or & in both", repr(phrase), (other, position)


def _keys(alias: Alias) -> Iterator[tuple[str, ...]]:
    """Comparison keys of an alias: its role and the sorted words of its parts."""
    parts = [[_plain(phrase) for phrase in part] for part in alias.parts]
    for phrases in itertools.product(*parts):
        yield (alias.role, *sorted(phrases))


def _plain(phrase: str) -> str:
    words = phrase.split()
    if "".join(words).isalpha():  # what `words_of` would give, in a tenth of the time
        return " ".join(map(normalise, words))
    return " ".join(words_of(phrase)[0])
