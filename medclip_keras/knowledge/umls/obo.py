"""An ontology in OBO format, such as the Human Phenotype Ontology or the Disease Ontology.

The format: https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html. A term's concepts are the UMLS
CUIs among its `xref` (UMLS:C0032227, UMLS_CUI:C0032227): the first is its CUI, further ones are equivalents.
Terms of the same CUI are one concept. Terms without a CUI are no concepts, but their parents are passed on.
"""

import gzip
import itertools
import pathlib
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.umls.hierarchy import Hierarchy
from medclip_keras.knowledge.umls.vocabulary import NUM_CUIS, Term, node_of_cui

_CUI = re.compile(r"UMLS(?:_CUI)?:(C\d{7})\b")
_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)"\s+(EXACT|BROAD|NARROW|RELATED)\b\s*([^\s\[{]*)')


@dataclass
class _Stanza:
    """One [Term]."""

    name: str = ""
    synonyms: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)
    cuis: list[int] = field(default_factory=list)
    obsolete: bool = False


class Ontology:
    """The terms of a file, .obo or .obo.gz.

    Raises:
        ValueError: no such file, one that is not in UTF-8, or one without a term.
    """

    def __init__(self, path: str):
        require(pathlib.Path(path).is_file(), "--obo", "an .obo file", path)
        self.account: dict[str, Counter[str]] = {}
        self._counts = self.account.setdefault(pathlib.Path(path).name, Counter())
        try:
            self._stanzas = dict(self._read(path))
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise refusal("--obo", "an ontology in OBO format, in UTF-8", type(error).__name__) from None
        require(bool(self._stanzas), "--obo", "an ontology in OBO format, with [Term] stanzas", path)
        self._counts["without a UMLS CUI"] = sum(not own.cuis for own in self._stanzas.values())
        numbers = itertools.count(NUM_CUIS)  # of terms without a CUI
        self._nodes = {
            name: own.cuis[0] if own.cuis else next(numbers) for name, own in self._stanzas.items()
        }
        self.num_nodes = next(numbers)
        self._equivalents = self._spread_equivalents()

    def node_of(self, name: str) -> int | None:
        """The node of an identifier of the ontology, or of a CUI that a term has."""
        if name in self._nodes:
            return self._nodes[name]
        node = node_of_cui(name)
        return node if node in self._nodes.values() else None

    def equivalents(self, node: int) -> tuple[int, ...]:
        """Further CUIs that a term names, and no other term."""
        return tuple(self._equivalents.get(node, ()))

    def hierarchy(self) -> Hierarchy:
        """The edges of is_a."""
        edges = [
            (self._nodes[name], self._nodes[parent])
            for name, own in self._stanzas.items()
            for parent in own.parents
            if parent in self._nodes
        ]
        children, parents = np.array(edges, np.int32).reshape(-1, 2).T
        return Hierarchy(children, parents, np.zeros(len(edges), np.int8), self.num_nodes)

    def of_semantic_types(self, types: Collection[str]) -> set[int]:
        """An ontology has no semantic types."""
        raise refusal("--semantic_types", "left out for an .obo file", list(types), "Give --roots.")

    def devices(self) -> set[int]:
        """None: an ontology has no semantic types."""
        return set()

    def terms(self, wanted: Collection[int]) -> Iterator[Term]:
        """Names and exact synonyms of the wanted nodes."""
        for name, own in self._stanzas.items():
            if self._nodes[name] in wanted:
                yield Term(self._nodes[name], own.name, True, 0)
                for text in own.synonyms:
                    yield Term(self._nodes[name], text, False, 0)

    def claims_of_others(self, wanted: Collection[int], texts: Collection[bytes]) -> set[bytes]:
        """Those of the texts that an unwanted node has."""
        others = set(self._nodes.values()).difference(wanted)
        return {term.text.encode().lower() for term in self.terms(others)}.intersection(texts)

    def _spread_equivalents(self) -> dict[int, list[int]]:
        taken = set(self._nodes.values())
        found: dict[int, list[int]] = {}
        for name, own in self._stanzas.items():
            for cui in own.cuis[1:]:
                if cui not in taken:
                    taken.add(cui)
                    found.setdefault(self._nodes[name], []).append(cui)
        return found

    def _read(self, path: str) -> Iterator[tuple[str, _Stanza]]:
        """Identifier and content of each term in use."""
        identifier, stanza, in_term = "", _Stanza(), False
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as lines:
            for line in itertools.chain(lines, ["[End]"]):
                key, _, value = line.strip().partition(": ")
                if line.startswith("["):
                    if identifier and not stanza.obsolete:
                        yield identifier, stanza
                    identifier, stanza, in_term = "", _Stanza(), line.startswith("[Term]")
                    self._counts["terms"] += in_term
                elif key == "id" and in_term:
                    identifier = value
                elif in_term:
                    self._take(stanza, key, value)

    def _take(self, stanza: _Stanza, key: str, value: str) -> None:
        """Add a tag of a stanza."""
        if key == "name":
            stanza.name = value
        elif key == "is_a":
            stanza.parents.append(value.split()[0])
        elif key == "is_obsolete" and value == "true":
            stanza.obsolete = True
            self._counts["obsolete"] += 1
        elif key == "xref" and (match := _CUI.match(value)):
            stanza.cuis.append(int(match[1][1:]))
        elif key == "synonym" and (match := _SYNONYM.match(value)):
            if match[2] != "EXACT" or "obsolete" in match[3]:
                self._counts["broad, narrow, related or obsolete synonyms"] += 1
            else:
                stanza.synonyms.append(re.sub(r"\\(.)", r"\1", match[1]))
