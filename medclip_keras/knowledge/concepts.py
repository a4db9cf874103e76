"""Concept tables: the ordered findings that a record's label vector speaks of.

A table is a JSON-lines file, a concept a line: UMLS CUI, name, aliases, parents, and where UMLS has several
concepts for the same thing, their CUIs as `equivalents`. Adding a concept is adding a line. Every plural,
British spelling and hyphenation of an alias is matched without being written down; `knowledge.aliases`
describes the few signs that an alias may use. `knowledge.table_checks` refuses what cannot be meant.

Three tables ship:

chexpert14   CheXpert's observations, as the MedCLIP paper has them.
chest21      those and the seven further names of ChestX-ray14. The default.
thorax       those and what else PadChest maps to UMLS. Its terms, CUIs and tree are facts taken from Bustos
             et al., PadChest: a large chest x-ray image dataset with multi-label annotated reports, Medical
             Image Analysis 66, 2020 (https://github.com/auriml/Rx-thorax-automatic-captioning, which states
             no licence and asks for this citation); names and aliases are our own. A parent stands here
             only where its child implies it: PadChest's tree groups by topic (a goiter under a wide upper
             mediastinum, a scoliosis under a deformed rib cage), ours is closed over by machine.
"""

import difflib
import functools
import hashlib
import importlib.resources
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from etils import epath

from medclip_keras.knowledge import table_checks
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
    equivalents: tuple[str, ...] = ()  # further CUIs that mean the same finding


@dataclass(frozen=True)
class ConceptTable:
    """An ordered list of concepts; position k is entry k of every label vector.

    Raises:
        ValueError: what `table_checks.first_problem` finds, with the row.
    """

    name: str
    concepts: tuple[Concept, ...]
    lines: tuple[int, ...] = field(default=(), repr=False, compare=False)  # of the file, for the sentences

    def __post_init__(self):
        problem = table_checks.first_problem(self.concepts)
        if problem:
            self._fail(*problem)

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
    def parent_positions(self) -> tuple[tuple[int, ...], ...]:
        """The positions of each concept's parents."""
        return tuple(tuple(self.names.index(name) for name in concept.parents) for concept in self.concepts)

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """Positions with every parent before its children."""
        return tuple(table_checks.parents_first(self.concepts))

    def with_descendants(self, name: str) -> frozenset[str]:
        """A concept's name and those of all concepts that imply it.

        >>> sorted(load_table("chexpert14").with_descendants("Consolidation"))
        ['Consolidation', 'Pneumonia']

        Raises:
            ValueError: no such concept.
        """
        found = {self.index(name)}
        for position in self.order:
            if found.intersection(self.parent_positions[position]):
                found.add(position)
        return frozenset(self.names[position] for position in found)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON lines: equal tables, equal fingerprints."""
        return hashlib.sha256(self.to_jsonl().encode()).hexdigest()

    def to_jsonl(self) -> str:
        """The table as JSON lines; `load_table` reads it back from a file."""
        return "".join(json.dumps(_row_of(concept), ensure_ascii=False) + "\n" for concept in self.concepts)

    def _fail(self, requirement: str, received: str, positions: Sequence[int]):
        rows = [f"row {self.lines[k] if self.lines else k + 1} ({self.names[k]!r})" for k in positions]
        where = f", {' and '.join(rows)}" if rows else ""
        raise ValueError(
            f"`concepts` must {requirement}. Received: {received}{where} of the table {self.name!r}."
        )


def load_table(name_or_path: str, known_cuis: Collection[str] | None = None) -> ConceptTable:
    """Loads a shipped concept table by name, or a JSON-lines file.

    Args:
        name_or_path: `chest21`, or a path that ends in .jsonl.
        known_cuis: the CUIs of an installed UMLS, where there is one: others are refused (`check_cuis`).

    >>> load_table("chexpert14").names[2]
    'Cardiomegaly'

    Raises:
        ValueError: no such table or file, or a row that is not a concept; the row is in the sentence.
    """
    table = _read_table(name_or_path)
    if known_cuis is not None:
        check_cuis(table, known_cuis)
    return table


def check_cuis(table: ConceptTable, known: Collection[str]) -> None:
    """Refuses a table with a CUI that a knowledge base does not hold.

    Args:
        table: the concepts.
        known: CUIs, such as the keys of scispaCy's `KnowledgeBase.cui_to_entity`.

    >>> check_cuis(ConceptTable("mine", (Concept("C9999999", "Gadget"),)), {"C0018800"})
    Traceback (most recent call last):
    ...
    ValueError: `concepts` must have CUIs of the knowledge base. Received: C9999999, row 1 ('Gadget') of ...

    Raises:
        ValueError: a CUI that is not known, with the row.
    """
    for position, concept in enumerate(table.concepts):
        for cui in (concept.cui, *concept.equivalents):
            if cui not in known:
                table._fail("have CUIs of the knowledge base", cui, [position])


def _read_table(name_or_path: str) -> ConceptTable:
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
        for parent in table.parent_positions[child]:
            above, below = closed[..., parent], closed[..., child]  # views (...,)
            lifted = (below == LabelState.UNCERTAIN) & (above != LabelState.POSITIVE)
            above[lifted] = LabelState.UNCERTAIN
            above[below == LabelState.POSITIVE] = LabelState.POSITIVE
    for child in table.order:
        for parent in table.parent_positions[child]:
            silent = closed[..., child] == LabelState.NOT_MENTIONED
            closed[..., child][silent & (closed[..., parent] == LabelState.NEGATIVE)] = LabelState.NEGATIVE
    return closed


def _row_of(concept: Concept) -> dict:
    row = {
        "cui": concept.cui,
        "name": concept.name,
        "aliases": list(concept.aliases),
        "parents": list(concept.parents),
    }
    return row | ({"equivalents": list(concept.equivalents)} if concept.equivalents else {})


def _parse_table(name: str, text: str) -> ConceptTable:
    concepts, lines = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            concepts.append(_parse_row(name, number, line))
            lines.append(number)
    return ConceptTable(name=name, concepts=tuple(concepts), lines=tuple(lines))


def _parse_row(name: str, number: int, line: str) -> Concept:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        row, problem = None, f"no JSON (column {error.colno})"
    else:
        problem = table_checks.row_problem(row)
    if problem:
        raise ValueError(
            f"`concepts` must be JSON lines with cui, name, aliases, parents and perhaps equivalents. "
            f"Received: line {number} of {name!r}: {problem}."
        )
    lists = {key: tuple(row.get(key, ())) for key in table_checks.LISTS}
    return Concept(cui=row["cui"], name=row["name"], **lists)
