"""Explain the labels of one report: python -m medclip_keras.knowledge "Enlarged heart. No pleural effusion."

Prints the report with its mentions in colour, every mention with concept, assertion, cue, scope of the cue
and matched alias, and the findings.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medclip_keras.command import new_parser, run_command
from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.spelling import THRESHOLD

if TYPE_CHECKING:
    from medclip_keras.knowledge.language import Language
    from medclip_keras.knowledge.sections import Section

_COMMAND = "medclip_keras.knowledge"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parse(argv)
    return run_command(_COMMAND, lambda: _show(_read(arguments), arguments))


def _show(text: str, arguments: argparse.Namespace) -> None:
    # spaCy takes a second to import: only after the arguments are known to be valid.
    from rich.console import Console

    from medclip_keras.knowledge.aliases import words_of
    from medclip_keras.knowledge.concepts import load_table
    from medclip_keras.knowledge.explain import explain
    from medclip_keras.knowledge.labeller import ReportLabeller
    from medclip_keras.knowledge.language import ENGLISH
    from medclip_keras.knowledge.linking import Linking
    from medclip_keras.knowledge.mentions import mentions_line
    from medclip_keras.knowledge.render import render_page
    from medclip_keras.knowledge.sections import CONTENT_SECTIONS, split_sections
    from medclip_keras.knowledge.terminal import render_terminal

    language = _language_of(text, arguments.language)
    sections = split_sections(text, language)
    if CONTENT_SECTIONS.isdisjoint(section.name for section in sections):
        content = "a report with text under findings, impression, addendum, or under no heading"
        raise refusal("text", content, *_unread(sections))
    table, threshold = load_table(arguments.concepts), arguments.link_threshold
    if threshold and language is ENGLISH:  # needs the whole dictionary
        labeller = ReportLabeller(table, Linking(threshold))
    else:
        words = {word for section in sections for word in words_of(section.text, language)[0]}
        labeller = ReportLabeller(table, words=words, language=language)
    report = explain(labeller, sections)
    if arguments.html:
        _write(arguments.html, render_page(report))
    if arguments.json:
        name = pathlib.Path(arguments.file).stem
        line = mentions_line(name, labeller.label(sections), table.names, explained=True)
        print(json.dumps(line, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(render_terminal(report, console))
    if arguments.html:
        console.print(f"\nPage: {arguments.html}", soft_wrap=True)


def _language_of(text: str, name: str) -> "Language":
    """The language to read a report in, detected or as given."""
    from medclip_keras.knowledge.detection import detect
    from medclip_keras.knowledge.labellers import AUTO, require_language
    from medclip_keras.knowledge.language import languages, load_language

    require_language(name)
    code = detect(text) if name == AUTO else name
    advice = "Its words are of another language; with --language it is read all the same."
    require(bool(code), "text", f"a report in {', '.join(languages())}", f"{len(text.split())} words", advice)
    return load_language(code)


def _unread(sections: Sequence["Section"]) -> tuple[str, str]:
    """Explain why no section of the report was labelled: the sections found instead."""
    if not sections:
        return "no word", "It is empty but for marks."
    found = ", ".join(
        f"{section.name} (the heading {section.heading!r})" if section.heading else section.name
        for section in sections
    )
    reason = "no blank line, line in upper case or sentence about findings ends the last one"
    return found, f"No heading of findings or impression was seen, and {reason}."


def _read(arguments: argparse.Namespace) -> str:
    """The report, from the command line, the standard input or a file."""
    given = [name for name in ("text", "file") if getattr(arguments, name)]
    ways = "given once: in quotation marks, as - for the standard input, or with --file"
    require(len(given) == 1, "text", ways, given, f'Say python -m {_COMMAND} "Enlarged heart."')
    content = sys.stdin.buffer.read() if arguments.text == "-" else arguments.text.encode()
    try:
        if arguments.file:
            content = pathlib.Path(arguments.file).read_bytes()
        text = content.decode()
    except OSError as error:
        reason = f"The system says: {error.strerror}."
        raise refusal("--file", "a file that can be read", arguments.file, reason) from None
    except UnicodeDecodeError:
        received = f"{len(content)} bytes in another encoding"
        raise refusal("text", "in UTF-8", received, "Convert it with iconv.") from None
    require(bool(text.strip()), "text", "a report", "", "It is empty.")
    return text


def _write(path: str, page: str) -> None:
    try:
        pathlib.Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        reason = f"The system says: {error.strerror}."
        raise refusal("--html", "a file that can be written", path, reason) from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(_COMMAND, (__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    add("text", nargs="?", default="", help="a report; - reads the standard input")
    add("--file", default="", metavar="REPORT.txt", help="file of a report, in UTF-8")
    concepts = "a shipped concept table, or a .jsonl file (default chest21)"
    add("--concepts", default="chest21", metavar="NAME or FILE", help=concepts)
    linking = (
        f"least similarity of a misspelled word to a word of the dictionary, as in label_reports (default "
        f"{THRESHOLD}; 0: off, and quicker)"
    )
    add("--link_threshold", type=float, default=THRESHOLD, metavar="T", help=linking)
    language = (
        "language of the report, as in label_reports: de, en, es or auto, which detects it (default auto)"
    )
    add("--language", default="auto", metavar="CODE", help=language)
    add("--html", default="", metavar="PAGE.html", help="also write the explanation as a page")
    add("--json", action="store_true", help="print findings and mentions, with cue and rule, as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
