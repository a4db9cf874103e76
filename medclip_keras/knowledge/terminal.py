"""A report on the terminal: mentions in colour, and signs for those who do without."""

import itertools

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from medclip_keras.knowledge.assertion import ASSERTIONS, HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.explain import SIGNS, Explained, Piece, pieces, scope_words
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, Section

_STYLES = {
    POSITIVE: "bold red",
    NEGATIVE: "bold cyan",
    UNCERTAIN: "bold yellow",
    HISTORICAL: "bold magenta",
}
_MAX_RULE = 80  # characters of a rule: some aliases list many alternatives


def render_terminal(report: Explained, console: Console) -> RenderableType:
    """The report, a legend, the mentions and the findings.

    Args:
        report: of `explain`.
        console: where it goes; without colours, quotation marks show where mentions begin and end.
    """
    by_number = {number: mention for number, _, mention in report.numbered}
    parts: list[RenderableType] = []
    quoted = console.color_system is None or console.no_color
    number = 1
    for section, mentions in zip(report.sections, report.mentions, strict=True):
        found = pieces(section.text, mentions, number)
        parts += [_section(section, found, by_number, quoted), ""]
        number += len(mentions)
    parts += [Text("   ").join(Text(f"[{SIGNS[a]}] {a}", _STYLES[a]) for a in ASSERTIONS), ""]
    if by_number:
        parts += [_table(report), ""]
    return Group(*parts, _findings(report))


def _section(section: Section, found: list[Piece], by_number: dict[int, Mention], quoted: bool) -> Text:
    if section.name not in CONTENT_SECTIONS:
        return Text(f"{section.name.upper()} (not read) {_printable(section.text)}", "dim")
    line = Text(f"{section.name.upper()} ", "bold")
    for numbers, group in itertools.groupby(found, key=lambda piece: piece.mentions):
        style = _STYLES[by_number[numbers[0]].assertion] if numbers else ""
        line.append("«" if numbers and quoted else "", "not bold")
        for piece in group:
            line.append(
                _printable(piece.text), f"{style or 'not bold'} underline" if numbers else _plain(piece)
            )
        line.append("»" if numbers and quoted else "", "not bold")
        if numbers:
            signs = ", ".join(f"{number} {SIGNS[by_number[number].assertion]}" for number in numbers)
            line.append(f"[{signs}]", style)
    return line


def _plain(piece: Piece) -> str:
    return "bold italic" if piece.cues else "not bold"


def _table(report: Explained) -> Table:
    table = Table("", "concept", "cue", "reaches", "rule", box=None, pad_edge=False, header_style="dim")
    for number, section, mention in report.numbered:
        rule = mention.rule if len(mention.rule) <= _MAX_RULE else f"{mention.rule[: _MAX_RULE - 1]}…"
        sign, style = f"[{SIGNS[mention.assertion]}]", _STYLES[mention.assertion]
        table.add_row(
            str(number),
            Text(mention.name).append(f" {mention.cui}", "dim"),
            Text(sign, style).append(f" {mention.cue}", "not bold default"),
            Text(_printable(" ".join(scope_words(section, mention).split()))),
            Text(rule.replace("|", " | ")),  # lines break at spaces
        )
    return table


def _findings(report: Explained) -> Text:
    text = Text(f"Findings ({report.concepts})", "bold")
    for state in (POSITIVE, UNCERTAIN, NEGATIVE):
        names = [name for name, said in report.findings.items() if said == state]
        if names:
            text.append(f"\n[{SIGNS[state]}] ", _STYLES[state]).append(", ".join(names), "not bold")
    return text if report.findings else text.append("\nnone", "not bold")


def _printable(text: str) -> str:
    """No control character of a report reaches the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
