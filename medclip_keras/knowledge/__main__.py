"""What a report says: python -m medclip_keras.knowledge "Enlarged heart. No pleural effusion."

Shows the report with its mentions in colour, every mention with concept, assertion, cue, what the cue reaches
and the alias that matched, and the findings that come of it.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from medclip_keras.errors import require


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parse(argv)
    try:
        text = _read(arguments)
        _show(text, arguments)
    except (ValueError, OSError) as error:
        print(f"medclip_keras.knowledge: {error}", file=sys.stderr)
        return 1
    return 0


def _show(text: str, arguments: argparse.Namespace) -> None:
    # spaCy takes a second to import: not before the arguments are known to be good.
    from rich.console import Console

    from medclip_keras.knowledge.aliases import words_of
    from medclip_keras.knowledge.concepts import load_table
    from medclip_keras.knowledge.explain import explain
    from medclip_keras.knowledge.labeller import ReportLabeller
    from medclip_keras.knowledge.linking import Linking
    from medclip_keras.knowledge.mentions import mentions_line
    from medclip_keras.knowledge.render import render_page
    from medclip_keras.knowledge.sections import CONTENT_SECTIONS, split_sections
    from medclip_keras.knowledge.terminal import render_terminal

    sections = split_sections(text)
    require(
        any(section.name in CONTENT_SECTIONS for section in sections),
        "text",
        "a report that says something under findings, impression, addendum, or under no heading",
        [section.name for section in sections],
    )
    if arguments.link_threshold:  # needs the whole dictionary, which takes some three seconds
        labeller = ReportLabeller(load_table(arguments.concepts), Linking(arguments.link_threshold))
    else:
        words = {word for section in sections for word in words_of(section.text)[0]}
        labeller = ReportLabeller(load_table(arguments.concepts), words=words)
    report = explain(labeller, sections)
    if arguments.html:
        _write(arguments.html, render_page(report))
    if arguments.json:
        name = pathlib.Path(arguments.file).stem
        line = mentions_line(name, labeller.label(sections), labeller.table.names)
        print(json.dumps(line, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(render_terminal(report, console))
    if arguments.html:
        console.print(f"\nPage: {arguments.html}", soft_wrap=True)


def _read(arguments: argparse.Namespace) -> str:
    """The report, from where it is said to be."""
    given = [name for name in ("text", "file") if getattr(arguments, name)]
    require(
        len(given) == 1,
        "text",
        "given once: in quotation marks, as - for the standard input, or with --file",
        given,
        'Say python -m medclip_keras.knowledge "Enlarged heart."',
    )
    if arguments.file:
        path = pathlib.Path(arguments.file)
        require(path.is_file(), "--file", "a file that is there", arguments.file)
        content = path.read_bytes()
    else:
        content = sys.stdin.buffer.read() if arguments.text == "-" else arguments.text.encode()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError(
            f"`text` must be in UTF-8. Received: {len(content)} bytes that are not. Convert it with iconv."
        ) from None
    require(bool(text.strip()), "text", "a report", text[:0], "It is empty.")
    return text


def _write(path: str, page: str) -> None:
    try:
        pathlib.Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"`--html` must be a file that can be written. Received: {path!r} ({error.strerror})."
        ) from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m medclip_keras.knowledge", description=__doc__.split("\n\n")[1].replace("\n", " ")
    )
    parser.add_argument("text", nargs="?", default="", help="a report; - reads the standard input")
    parser.add_argument("--file", default="", metavar="REPORT.txt", help="a report's file, in UTF-8")
    parser.add_argument(
        "--concepts",
        default="chest21",
        metavar="NAME or FILE",
        help="a shipped concept table, or a .jsonl file (default chest21)",
    )
    parser.add_argument(
        "--link_threshold",
        type=float,
        default=0.0,
        metavar="T",
        help="also reads misspelled words that are so like one of the dictionary; label_reports does so at "
        "0.8 unless told otherwise (default 0: not, and quicker)",
    )
    parser.add_argument("--html", default="", metavar="PAGE.html", help="also writes the same as a page")
    parser.add_argument("--json", action="store_true", help="prints findings and mentions as JSON instead")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
