"""Compile a concept table from a UMLS Metathesaurus or an ontology of your own.

    python -m medclip_keras.knowledge.umls --meta META_DIR --semantic_types T047,T046 --output table.jsonl
    python -m medclip_keras.knowledge.umls --meta META_DIR --roots C0024115 --languages ENG,SPA \\
        --output table.jsonl
    python -m medclip_keras.knowledge.umls --meta META_DIR --table thorax --output table.jsonl
    python -m medclip_keras.knowledge.umls --obo hp.obo --roots HP:0002086 --output table.jsonl

META_DIR holds MRCONSO.RRF, MRREL.RRF and MRSTY.RRF, or them as .gz. Selected are the roots with all concepts
below them, the concepts of the semantic types (with both options: those in both), or those of a concept
table, which keeps its names, aliases and parents and gains aliases. The jobs take the table as --concepts.
Nothing of UMLS ships with this project, and its licence covers what you compile.
"""

import argparse
import pathlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from medclip_keras.command import new_parser, run_command
from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.concepts import ConceptTable, load_table

_COMMAND = "medclip_keras.knowledge.umls"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parse(argv)
    return run_command(_COMMAND, lambda: _compile(arguments))


def _compile(arguments: argparse.Namespace) -> None:
    from medclip_keras.knowledge.umls.compiler import compile_table, extend_table
    from medclip_keras.knowledge.umls.obo import Ontology
    from medclip_keras.knowledge.umls.rrf import Metathesaurus
    from medclip_keras.knowledge.umls.vocabulary import Vocabulary

    output = pathlib.Path(arguments.output)
    roots, types, languages = map(_listed, (arguments.roots, arguments.semantic_types, arguments.languages))
    _check(arguments, output, bool(roots or types))
    base = load_table(arguments.table) if arguments.table else None
    vocabulary: Vocabulary
    vocabulary = Ontology(arguments.obo) if arguments.obo else Metathesaurus(arguments.meta, languages)
    extended = extend_table(base, vocabulary) if base else None
    table = extended or compile_table(output.stem, vocabulary, roots, types)
    _write(output, table)
    print(describe(vocabulary.account))
    print(f"\n{output}: {len(table)} concepts, {sum(len(c.aliases) for c in table.concepts)} further aliases")


def describe(account: Mapping[str, Counter[str]]) -> str:
    """Format the account: counts of read, kept and dropped rows, by file and kind.

    >>> print(describe({"MRREL.RRF": Counter(rows=1200, suppressed=0)}))
    MRREL.RRF
           1,200 rows
    """
    lines = []
    for part, counts in account.items():
        lines += [part, *(f"{count:12,} {what}" for what, count in counts.items() if count)]
    return "\n".join(lines)


def _check(arguments: argparse.Namespace, output: pathlib.Path, selects: bool) -> None:
    given = [name for name in ("meta", "obo") if getattr(arguments, name)]
    require(len(given) == 1, "--meta and --obo", "given one at a time", given, "Say --help.")
    require(output.suffix == ".jsonl", "--output", "a file whose name ends in .jsonl", str(output))
    require(output.absolute().parent.is_dir(), "--output", "in a folder that exists", str(output))
    apart = not (arguments.table and selects)
    received = [name for name in ("roots", "semantic_types", "table") if getattr(arguments, name)]
    require(apart, "--table", "given without --roots and --semantic_types", received)
    chosen = bool(received or arguments.obo)
    require(chosen, "--roots, --semantic_types or --table", "given with --meta", received, "Say --help.")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _write(path: pathlib.Path, table: ConceptTable) -> None:
    try:
        path.write_text(table.to_jsonl(), encoding="utf-8")
    except OSError as error:
        reason = f"The system says: {error.strerror}."
        raise refusal("--output", "a file that can be written", str(path), reason) from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(_COMMAND, __doc__ or "")
    add = parser.add_argument
    add("--meta", default="", metavar="META_DIR", help="folder of a Metathesaurus in Rich Release Format")
    add("--obo", default="", metavar="FILE.obo", help="an ontology whose terms name UMLS CUIs, may be .gz")
    add("--roots", default="", metavar="CUI,…", help="these concepts and all below them")
    add("--semantic_types", default="", metavar="TUI,…", help="concepts of these types, such as T047")
    add("--table", default="", metavar="NAME or FILE", help="the concepts of a concept table")
    languages = "codes of MRCONSO's LAT; the first gives the names (default %(default)s)"
    add("--languages", default="ENG", metavar="LAT,…", help=languages)
    add("--output", required=True, metavar="TABLE.jsonl", help="the concept table to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
