"""A report on the terminal: mentions in colour, and signs that are readable without colours."""

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from medclip_keras.knowledge.assertion import ASSERTIONS, HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.explain import SIGNS, Explained, runs, scope_words
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
    """Report, legend, mentions and findings; quotation marks delimit mentions without colours."""
    quoted = console.color_system is None or console.no_color
    parts: list[RenderableType] = []
    for section, mentions in report.numbered:
        parts += [_section(section, mentions, quoted), ""]
    parts += [Text("   ").join(_sign(assertion).append(f" {assertion}") for assertion in ASSERTIONS), ""]
    if any(report.mentions):
        parts += [_table(report), ""]
    return Group(*parts, _findings(report))


def _section(section: Section, mentions: Mapping[int, Mention], quoted: bool) -> Text:
    if section.name not in CONTENT_SECTIONS:
        return Text(f"{section.name.upper()} (not read) {_printable(section.text)}", "dim")
    line = Text().append(f"{section.name.upper()} ", "bold")
    opening, closing = "«»" if quoted else ("", "")
    for numbers, group in runs(section.text, mentions):
        if not numbers:
            for piece in group:
                line.append(_printable(piece.text), "bold italic" if piece.cues else "")
            continue
        style = _STYLES[mentions[numbers[0]].assertion]
        signs = ", ".join(f"{number} {SIGNS[mentions[number].assertion]}" for number in numbers)
        line.append(opening).append(_printable("".join(piece.text for piece in group)), f"{style} underline")
        line.append(closing).append(f"[{signs}]", style)
    return line


def _sign(assertion: str) -> Text:
    return Text().append(f"[{SIGNS[assertion]}]", _STYLES[assertion])


def _table(report: Explained) -> Table:
    table = Table("", "concept", "cue", "reaches", "rule", box=None, pad_edge=False, header_style="dim")
    for section, mentions in report.numbered:
        for number, mention in mentions.items():
            rule = mention.rule if len(mention.rule) <= _MAX_RULE else f"{mention.rule[: _MAX_RULE - 1]}…"
            table.add_row(
                str(number),
                Text(mention.name).append(f" {mention.cui}", "dim"),
                _sign(mention.assertion).append(f" {mention.cue}"),
                Text(_printable(" ".join(scope_words(section, mention).split()))),
                Text(rule.replace("|", " | ")),  # lines break at spaces
            )
    return table


def _findings(report: Explained) -> Text:
    text = Text().append(f"Findings ({report.concepts})", "bold")
    for state, names in report.findings_by_state():
        text.append("\n").append(_sign(state)).append(f" {', '.join(names)}")
    return text if report.findings else text.append("\nnone")


def _printable(text: str) -> str:
    """The text without control characters, which would steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
