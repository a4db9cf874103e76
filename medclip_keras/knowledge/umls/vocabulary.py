"""The compiler's interface to a vocabulary: a Metathesaurus or an ontology."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol

from medclip_keras.knowledge.umls.hierarchy import Hierarchy

NUM_CUIS = 10_000_000  # C0000000 to C9999999
_CUI = re.compile(r"C(\d{7})")


class Term(NamedTuple):
    """One text of a concept."""

    node: int  # the number of the CUI
    text: str
    preferred: bool  # the vocabulary's name of the concept, in its language
    language: int  # position among the languages that were asked for


class Vocabulary(Protocol):
    """A source of concepts; counts of its rows gather in `account`, by file."""

    num_nodes: int
    account: dict[str, Counter[str]]

    def node_of(self, name: str) -> int | None:
        """The node of a CUI, or of an identifier of the vocabulary; None if there is none."""

    def hierarchy(self) -> Hierarchy:
        """All is-a edges."""

    def of_semantic_types(self, types: Collection[str]) -> set[int]:
        """Nodes of UMLS semantic types, given as TUI or name."""

    def devices(self) -> set[int]:
        """Nodes of medical devices, as far as the vocabulary says so."""

    def terms(self, wanted: Collection[int]) -> Iterator[Term]:
        """All usable texts of the wanted nodes."""

    def claims_of_others(self, wanted: Collection[int], texts: Collection[bytes]) -> set[bytes]:
        """Those of the texts, UTF-8 in lower case, that a node has that is not wanted."""

    def equivalents(self, node: int) -> tuple[int, ...]:
        """Further CUIs of a node."""


def cui_of(node: int) -> str:
    """The CUI of a node's number.

    >>> cui_of(32227)
    'C0032227'
    """
    return f"C{node:07d}"


def node_of_cui(cui: str) -> int | None:
    """The number of a CUI, None for another text."""
    match = _CUI.fullmatch(cui)
    return int(match[1]) if match else None
