"""Concept tables: the ordered findings of a record's label vector.

A table is a JSON-lines file, a concept a line: UMLS CUI, name, aliases (`knowledge.aliases`), parents, and
the CUIs of further UMLS concepts for the same thing as `equivalents`.

Three tables ship:

chexpert14   CheXpert's observations, as the MedCLIP paper has them.
chest21      those and the seven further names of ChestX-ray14. The default.
thorax       those and the further terms that PadChest maps to UMLS. Its terms, CUIs and tree are facts taken
             from Bustos et al., PadChest: a large chest x-ray image dataset with multi-label annotated
             reports, Medical Image Analysis 66, 2020
             (https://github.com/auriml/Rx-thorax-automatic-captioning, which states no licence and asks for
             this citation); names and aliases are our own. A parent stands here only where its child implies
             it: PadChest's tree groups by topic (a goiter under a wide upper mediastinum, a scoliosis under a
             deformed rib cage), ours is closed over by machine.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
from etils import epath

from medclip_keras.errors import near_names, refusal
from medclip_keras.knowledge import TABLES
from medclip_keras.knowledge.table_checks import LISTS, Concept, first_problem, parents_first, row_problem

NO_FINDING = "No Finding"  # set by rule (knowledge.labeller), not by a mention alone
SUPPORT_DEVICES = "Support Devices"  # their presence does not make a chest abnormal


@dataclass(frozen=True)
class ConceptTable:
    """An ordered list of concepts; position k is entry k of every label vector.

    Raises:
        ValueError: the problem that `table_checks.first_problem` finds, with the row.
    """

    name: str
    concepts: tuple[Concept, ...]
    lines: tuple[int, ...] = field(default=(), repr=False, compare=False)  # of the file, for the sentences

    def __post_init__(self) -> None:
        problem = first_problem(self.concepts)
        if problem:
            raise self._refusal(*problem)

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
        if name not in self.positions:
            known = f"a concept of the table {self.name!r}"
            raise refusal("name", known, name, near_names(name, self.names))
        return self.positions[name]

    @functools.cached_property
    def positions(self) -> dict[str, int]:
        """Position in the label vector of each name."""
        return {name: position for position, name in enumerate(self.names)}

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """Positions with every parent before its children."""
        return tuple(parents_first(self.concepts))

    @functools.cached_property
    def implications(self) -> npt.NDArray[np.int64]:
        """(num_pairs, 2), sorted: (k, l) for each concept l that implies concept k, or is k itself.

        A wide table has ten pairs a concept, and a matrix of 100 million entries.
        """
        above: dict[int, set[int]] = {}
        for child in self.order:
            parents = {self.positions[parent] for parent in self.concepts[child].parents}
            above[child] = {child}.union(*(above[parent] for parent in parents))
        return np.array(sorted((k, child) for child, own in above.items() for k in own), np.int64)

    @functools.cached_property
    def descendants(self) -> npt.NDArray[np.bool_]:
        """(num_findings, num_findings) bool: [k, l] if concept l implies concept k, or is k itself."""
        implied = np.zeros((len(self), len(self)), bool)
        implied[tuple(self.implications.T)] = True
        return implied

    def with_descendants(self, name: str) -> frozenset[str]:
        """A concept's name and those of all concepts that imply it.

        >>> sorted(load_table("chexpert14").with_descendants("Consolidation"))
        ['Consolidation', 'Pneumonia']

        Raises:
            ValueError: no such concept.
        """
        implied, implying = self.implications.T
        return frozenset(self.names[k] for k in implying[implied == self.index(name)])

    @functools.cached_property
    def abnormal(self) -> tuple[int, ...]:
        """Positions of the findings that contradict No Finding: all others but support devices."""
        devices = self.with_descendants(SUPPORT_DEVICES) if SUPPORT_DEVICES in self.positions else ()
        others = {NO_FINDING, *devices}
        return tuple(k for k, name in enumerate(self.names) if name not in others)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON lines: equal tables, equal fingerprints."""
        return hashlib.sha256(self.to_jsonl().encode()).hexdigest()

    def to_jsonl(self) -> str:
        """The table as JSON lines; `load_table` reads it back from a file."""
        return "".join(json.dumps(_row_of(concept), ensure_ascii=False) + "\n" for concept in self.concepts)

    def _refusal(self, requirement: str, received: str, positions: Sequence[int]) -> ValueError:
        rows = [f"row {self.lines[k] if self.lines else k + 1} ({self.names[k]!r})" for k in positions]
        where = f", {' and '.join(rows)}" if rows else ""
        return ValueError(
            f"`concepts` must {requirement}. Received: {received}{where} of the table {self.name!r}."
        )


def load_table(name_or_path: str) -> ConceptTable:
    """Loads a shipped concept table by name, or a file of JSON lines whose name ends in .jsonl.

    >>> load_table("chexpert14").names[2]
    'Cardiomegaly'

    Raises:
        ValueError: no such table or file, or a row that is not a concept; the row is in the sentence.
    """
    shipped = sorted(p.name.removesuffix(".jsonl") for p in TABLES.iterdir() if p.name.endswith(".jsonl"))
    if str(name_or_path) in shipped:
        return _parse_table(name_or_path, (TABLES / f"{name_or_path}.jsonl").read_text(encoding="utf-8"))
    path = epath.Path(name_or_path)
    if path.suffix != ".jsonl" or not path.is_file():
        advice = f"Shipped tables: {', '.join(shipped)}."
        raise refusal("concepts", "a shipped concept table or a .jsonl file", str(name_or_path), advice)
    return _parse_table(path.stem, path.read_text())


def check_cuis(table: ConceptTable, known: Collection[str]) -> None:
    """Refuses a table with a CUI that a knowledge base does not hold.

    `known` holds CUIs, such as the keys of scispaCy's `KnowledgeBase.cui_to_entity`.

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
                raise table._refusal("have CUIs of the knowledge base", cui, [position])


def _row_of(concept: Concept) -> dict[str, str | tuple[str, ...]]:
    row = asdict(concept)
    return row if concept.equivalents else {key: row[key] for key in row if key != "equivalents"}


def _parse_table(name: str, text: str) -> ConceptTable:
    rows = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    concepts = tuple(_parse_row(name, number, line) for number, line in rows)
    return ConceptTable(name=name, concepts=concepts, lines=tuple(number for number, _ in rows))


def _parse_row(name: str, number: int, line: str) -> Concept:
    try:
        row = json.loads(line)
        problem = row_problem(row)
    except json.JSONDecodeError as error:
        problem = f"no JSON (column {error.colno})"
    if problem:
        raise ValueError(
            f"`concepts` must be JSON lines with cui, name, aliases, parents and perhaps equivalents. "
            f"Received: line {number} of {name!r}: {problem}."
        )
    return Concept(row["cui"], row["name"], **{key: tuple(row.get(key, ())) for key in LISTS})
