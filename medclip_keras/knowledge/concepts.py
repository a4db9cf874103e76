"""Concept tables: the ordered findings that a record's label vector speaks of.

A table is a JSON-lines file, a concept a line: UMLS CUI, name, aliases, parents. Adding a concept is adding
a line. Every plural, British spelling and hyphenation of an alias is matched without being written down;
`knowledge.aliases` describes the few signs that an alias may use.
"""

import difflib
import functools
import hashlib
import importlib.resources
import json
import re
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.knowledge.states import LabelState

NO_FINDING = "No Finding"  # set by rule (knowledge.labeller), not by a mention alone
SUPPORT_DEVICES = "Support Devices"  # present or not, it does not make a chest abnormal

_TABLES = importlib.resources.files("medclip_keras.knowledge") / "tables"


@dataclass(frozen=True)
class Concept:
    """One finding: a row of a concept table."""

    cui: str
    name: str
    aliases: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()  # names of concepts of the same table


@dataclass(frozen=True)
class ConceptTable:
    """An ordered list of concepts; position k is entry k of every label vector.

    Raises:
        ValueError: duplicate names or CUIs, an unknown parent, a circle of parents, a malformed CUI.
    """

    name: str
    concepts: tuple[Concept, ...]

    def __post_init__(self):
        _refuse(self)

    def __len__(self) -> int:
        return len(self.concepts)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Concept names, in the order of the label vector."""
        return tuple(concept.name for concept in self.concepts)

    @functools.cached_property
    def cuis(self) -> tuple[str, ...]:
        """UMLS concept unique identifiers, in the order of the label vector."""
        return tuple(concept.cui for concept in self.concepts)

    def index(self, name: str) -> int:
        """Position of a concept in the label vector.

        Raises:
            ValueError: no such concept; the near names are in the sentence.
        """
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, 3) or self.names
            raise ValueError(
                f"`name` must be a concept of the table {self.name!r}. Received: {name!r}. "
                f"Near names: {', '.join(near)}."
            )
        return self.names.index(name)

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """Positions with every parent before its children."""
        return tuple(_parents_first(self))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON lines: equal tables, equal fingerprints."""
        return hashlib.sha256(self.to_jsonl().encode()).hexdigest()

    def to_jsonl(self) -> str:
        """The table as JSON lines; `load_table` reads it back from a file."""
        rows = (
            {
                "cui": concept.cui,
                "name": concept.name,
                "aliases": list(concept.aliases),
                "parents": list(concept.parents),
            }
            for concept in self.concepts
        )
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def load_table(name_or_path: str) -> ConceptTable:
    """Loads a shipped concept table by name, or a JSON-lines file.

    >>> load_table("chexpert14").names[2]
    'Cardiomegaly'

    Raises:
        ValueError: no such table or file, or a row that is not a concept.
    """
    shipped = sorted(p.name.removesuffix(".jsonl") for p in _TABLES.iterdir() if p.name.endswith(".jsonl"))
    if str(name_or_path) in shipped:
        text = (_TABLES / f"{name_or_path}.jsonl").read_text(encoding="utf-8")
        return _parse_table(str(name_or_path), text)
    path = epath.Path(name_or_path)
    if path.suffix != ".jsonl" or not path.is_file():
        near = difflib.get_close_matches(str(name_or_path), shipped, 3) or shipped
        raise ValueError(
            f"`concepts` must be a shipped concept table or a .jsonl file. Received: {str(name_or_path)!r}. "
            f"Shipped tables: {', '.join(near)}."
        )
    return _parse_table(path.stem, path.read_text())


def close_over_parents(states: np.ndarray, table: ConceptTable) -> np.ndarray:
    """Closes label states over the table's parents.

    A positive child makes its parent positive; an uncertain child makes a parent uncertain that is not
    positive; then a negative parent makes its children negative that were not mentioned.

    Args:
        states: (..., num_findings) int8, `LabelState`.
        table: gives the order of the findings and their parents.

    Returns:
        (..., num_findings) int8, a copy.

    >>> table = load_table("chexpert14")
    >>> states = np.zeros((len(table),), np.int8)
    >>> states[table.index("Pneumonia")] = LabelState.POSITIVE
    >>> [n for n, s in zip(table.names, close_over_parents(states, table)) if s == LabelState.POSITIVE]
    ['Lung Opacity', 'Consolidation', 'Pneumonia']
    """
    closed = np.array(states, np.int8)
    if closed.shape[-1:] != (len(table),):
        raise ValueError(
            f"`states` must be of shape (..., {len(table)}) for the table {table.name!r}. "
            f"Received: {closed.shape}."
        )
    for child in reversed(table.order):
        for parent in _parent_positions(table, child):
            above, below = closed[..., parent], closed[..., child]  # views (...,)
            lifted = (below == LabelState.UNCERTAIN) & (above != LabelState.POSITIVE)
            above[lifted] = LabelState.UNCERTAIN
            above[below == LabelState.POSITIVE] = LabelState.POSITIVE
    for child in table.order:
        for parent in _parent_positions(table, child):
            silent = closed[..., child] == LabelState.NOT_MENTIONED
            closed[..., child][silent & (closed[..., parent] == LabelState.NEGATIVE)] = LabelState.NEGATIVE
    return closed


def _parent_positions(table: ConceptTable, position: int) -> list[int]:
    return [table.names.index(parent) for parent in table.concepts[position].parents]


def _parse_table(name: str, text: str) -> ConceptTable:
    concepts = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            concepts.append(
                Concept(
                    cui=row["cui"],
                    name=row["name"],
                    aliases=tuple(row.get("aliases", ())),
                    parents=tuple(row.get("parents", ())),
                )
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"`concepts` must be JSON lines with cui, name, aliases, parents. "
                f"Received: line {number} of {name!r} ({type(error).__name__}: {error})."
            ) from None
    return ConceptTable(name=name, concepts=tuple(concepts))


def _refuse(table: ConceptTable) -> None:
    """Raises for a table that cannot be meant."""

    def fail(requirement: str, received: str):
        raise ValueError(f"`concepts` must {requirement}. Received: {received} in the table {table.name!r}.")

    if not table.concepts:
        fail("hold at least one concept", "none")
    for what, values in (("names", table.names), ("CUIs", table.cuis)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            fail(f"have different {what}", f"{', '.join(twice)} more than once")
    for concept in table.concepts:
        if not re.fullmatch(r"C\d{7}", concept.cui):
            fail("have UMLS CUIs (C and seven digits)", f"{concept.cui!r} for {concept.name!r}")
        for parent in concept.parents:
            if parent not in table.names:
                near = difflib.get_close_matches(parent, table.names, 1) or table.names
                fail("name parents of the same table", f"{parent!r} for {concept.name!r} (near: {near[0]!r})")
    order = _parents_first(table)
    if len(order) < len(table):
        circle = [concept.name for k, concept in enumerate(table.concepts) if k not in order]
        fail("have parents without a circle", f"a circle through {', '.join(circle)}")


def _parents_first(table: ConceptTable) -> list[int]:
    """Topological order; concepts on a circle (and below it) are left out."""
    order: list[int] = []
    placed: set[str] = set()
    while True:
        ready = [
            k
            for k, concept in enumerate(table.concepts)
            if concept.name not in placed and placed.issuperset(concept.parents)
        ]
        if not ready:
            return order
        order += ready
        placed.update(table.names[k] for k in ready)
