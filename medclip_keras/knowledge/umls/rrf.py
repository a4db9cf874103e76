"""A UMLS Metathesaurus in Rich Release Format, read row by row: MRCONSO.RRF, MRREL.RRF, MRSTY.RRF.

Rows are UTF-8 lines without a header, fields end in `|` (UMLS Reference Manual, chapter 3,
https://www.ncbi.nlm.nih.gov/books/NBK9685/). A file may be compressed (MRCONSO.RRF.gz) or, as releases are
shipped, in compressed pieces (MRCONSO.RRF.aa.gz, MRCONSO.RRF.ab.gz, …). In MRREL a label is read from the
second concept to the first: `C1|…|PAR|C2|…|inverse_isa|` says that C2 is the parent of C1.
"""

import contextlib
import gzip
import itertools
import pathlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.umls.hierarchy import Hierarchy
from medclip_keras.knowledge.umls.vocabulary import NUM_CUIS, Term, cui_of, node_of_cui

# Relation → whether the second concept is the parent, and trust of the edge; first RELA, then REL.
_IS_A = {b"isa": (False, 0), b"inverse_isa": (True, 0)}
_HIERARCHICAL = {b"PAR": (True, 1), b"CHD": (False, 1), b"RB": (True, 2), b"RN": (False, 2)}
_FIELDS = {"MRCONSO.RRF": 18, "MRREL.RRF": 16, "MRSTY.RRF": 6}
_DEVICES = ("T074", "T075", "T203")  # Medical Device, Research Device, Drug Delivery Device
_SHOWN = (b"N", b"")  # SUPPRESS of a row that is not suppressed
_PIECES = "{}.[a-z][a-z]*"


class Metathesaurus:
    """The files of a folder; `languages` are codes of its LAT, such as ENG and SPA.

    Raises:
        ValueError: no such folder, a missing file, or a row with fewer fields (when the file is read).
    """

    num_nodes = NUM_CUIS

    def __init__(self, folder: str, languages: Sequence[str] = ("ENG",)):
        self._folder = pathlib.Path(folder)
        require(self._folder.is_dir(), "--meta", "a folder with MRCONSO.RRF, MRREL.RRF, MRSTY.RRF", folder)
        self._languages = {code.encode(): position for position, code in enumerate(languages)}
        self.account: dict[str, Counter[str]] = {}

    def node_of(self, name: str) -> int | None:
        """The number of a CUI."""
        return node_of_cui(name)

    def equivalents(self, node: int) -> tuple[int, ...]:
        """None: equivalent concepts are already merged in the Metathesaurus."""
        return ()

    def hierarchy(self) -> Hierarchy:
        """Edges of PAR, CHD, RB and RN that no further label makes a part-of, and of isa.

        Parents of broader and narrower rows have the least trust, those that say isa the most.
        """
        children, parents, trusts = array("i"), array("i"), array("b")
        counts = self.account.setdefault("MRREL.RRF", Counter())
        with _sentence("MRREL.RRF", counts):
            for row in self._rows("MRREL.RRF"):
                fields = row.split(b"|", 15)
                rel, rela, suppress = fields[3], fields[7], fields[14]
                arrow = _IS_A.get(rela) or (None if rela else _HIERARCHICAL.get(rel))
                counts["rows"] += 1
                if suppress not in _SHOWN:
                    counts["suppressed"] += 1
                elif arrow is None:
                    counts["of another relation"] += 1
                else:
                    first, second = int(fields[0][1:]), int(fields[4][1:])
                    children.append(first if arrow[0] else second)
                    parents.append(second if arrow[0] else first)
                    trusts.append(arrow[1])
        ends = np.frombuffer(children, np.int32), np.frombuffer(parents, np.int32)
        return Hierarchy(*ends, np.frombuffer(trusts, np.int8), NUM_CUIS)

    def of_semantic_types(self, types: Collection[str]) -> set[int]:
        """Nodes of semantic types, by TUI ("T047") or name ("Disease or Syndrome").

        Raises:
            ValueError: a type that no row has.
        """
        found = self._by_type(types)
        missing = ", ".join(sorted(set(types).difference(found)))
        require(not missing, "--semantic_types", "types of MRSTY.RRF, as T047 or by name", missing)
        return set().union(*found.values())

    def devices(self) -> set[int]:
        """Nodes of the semantic types of medical devices."""
        return set().union(*self._by_type(_DEVICES).values())

    def _by_type(self, types: Collection[str]) -> dict[str, set[int]]:
        """The nodes of each type that occurs."""
        counts = self.account["MRSTY.RRF"] = Counter()
        wanted, found = {one.encode(): one for one in types}, dict[str, set[int]]()
        with _sentence("MRSTY.RRF", counts):
            for row in self._rows("MRSTY.RRF"):
                cui, tui, _, name, _ = row.split(b"|", 4)
                counts["rows"] += 1
                if tui in wanted or name in wanted:
                    found.setdefault(wanted.get(tui) or wanted[name], set()).add(int(cui[1:]))
        return found

    def terms(self, wanted: Collection[int]) -> Iterator[Term]:
        """Texts of the wanted nodes in the languages, without suppressed rows."""
        cuis = {cui_of(node).encode() for node in wanted}
        counts = self.account.setdefault("MRCONSO.RRF", Counter())
        with _sentence("MRCONSO.RRF", counts):
            for row in self._rows("MRCONSO.RRF"):
                counts["rows"] += 1
                if row[:8] not in cuis:
                    continue
                fields = row.split(b"|", 17)
                if fields[1] not in self._languages:
                    counts["in another language"] += 1
                elif fields[16] not in _SHOWN:
                    counts["suppressed"] += 1
                else:
                    preferred = (fields[2], fields[4], fields[6]) == (b"P", b"PF", b"Y")
                    language = self._languages[fields[1]]
                    yield Term(int(row[1:8]), fields[14].decode(), preferred, language)

    def claims_of_others(self, wanted: Collection[int], texts: Collection[bytes]) -> set[bytes]:
        """Those of the texts that an unwanted node has, in the languages and not suppressed."""
        cuis = {cui_of(node).encode() for node in wanted}
        found: set[bytes] = set()
        with _sentence("MRCONSO.RRF", Counter()):
            for row in self._rows("MRCONSO.RRF"):
                head, text, _, suppress, _, _ = row.rsplit(b"|", 5)
                claimed = text.lower() in texts and row[:8] not in cuis and suppress in _SHOWN
                if claimed and head.split(b"|", 2)[1] in self._languages:
                    found.add(text.lower())
        return found

    def _rows(self, name: str) -> Iterator[bytes]:
        """Lines of a file, or of its pieces, which may end within a line."""
        plain, packed = self._folder / name, self._folder / f"{name}.gz"
        paths = [path for path in (plain, packed) if path.is_file()][:1]
        paths = paths or sorted(self._folder.glob(_PIECES.format(name)))
        require(bool(paths), "--meta", f"a folder with {name}, {name}.gz or its pieces", str(self._folder))
        lines = itertools.chain.from_iterable(map(_lines, paths))
        if len(paths) == 1:
            return lines
        return _joined(lines)


def _lines(path: pathlib.Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Join lines that a piece's end has cut."""
    kept = b""
    for line in lines:
        kept += line
        if kept.endswith(b"\n"):
            yield kept
            kept = b""
    if kept:
        yield kept


@contextlib.contextmanager
def _sentence(name: str, counts: Counter[str]) -> Iterator[None]:
    """Turn a row that cannot be read into the error sentence."""
    try:
        yield
    except (IndexError, ValueError, gzip.BadGzipFile, EOFError) as error:
        if str(error).startswith("`"):
            raise
        form = f"{name} of UTF-8 rows with {_FIELDS[name]} fields that end in |"
        where = f"row {counts['rows'] + 1} ({type(error).__name__})" if counts else type(error).__name__
        raise refusal("--meta", form, where, "Take the file from MetamorphoSys or a UMLS release.") from None
