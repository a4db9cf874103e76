"""Reports on a terminal: readable without colours, and none of the report's bytes steer the terminal."""

import io

from rich.console import Console

from medclip_keras.knowledge.explain import Explained, explain
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.terminal import render_terminal


def shown(report: Explained, width: int = 130, **options) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    console.print(render_terminal(report, console))
    return console.file.getvalue()


def test_uncoloured_output_has_quotation_marks_and_signs(labeller):
    text = "HISTORY: Edema. FINDINGS: No effusion or edema. Possible nodule. Pneumonia resolved. Large heart."
    lines = [line.rstrip() for line in shown(explain(labeller, split_sections(text))).splitlines()]
    assert lines[0] == "INDICATION (not read) Edema."
    assert lines[2] == (
        "FINDINGS No «effusion»[1 -] or «edema»[2 -]. Possible «nodule»[3 ?]. «Pneumonia»[4 past] resolved. "
        "«Large heart»[5 +]."
    )
    assert "[+] positive   [-] negative   [?] uncertain   [past] historical" in lines
    table = [line.split() for line in lines]
    assert ["2", "Edema", "C0034063", "[-]", "no", "effusion", "or", "edema", "Edema"] in table
    findings = lines[lines.index("Findings (chest21)") + 1 :]
    assert findings == ["[+] Cardiomegaly", "[?] Nodule", "[-] Edema, Pneumonia, Pleural Effusion"]


def test_coloured_output_has_no_quotation_marks(labeller):
    report = explain(labeller, split_sections("No effusion."))
    coloured = shown(report, force_terminal=True, color_system="truecolor", no_color=False)
    assert "\x1b[1;4;36meffusion\x1b[0m" in coloured
    assert "«" not in coloured
    # NO_COLOR keeps bold and underline.
    uncoloured = shown(report, force_terminal=True, color_system="truecolor", no_color=True)
    assert "«\x1b[1;4meffusion\x1b[0m»" in uncoloured


def test_overlapping_mentions_show_both_numbers():
    text = "left effusion mass"
    mentions = (
        Mention("C0000001", "One", "findings", 0, 13, "negative", "", "one"),
        Mention("C0000002", "Two", "findings", 5, 18, "uncertain", "", "two"),
    )
    report = Explained("made", (Section("findings", text),), (mentions,), {})
    assert shown(report).startswith("FINDINGS «left »[1 -]«effusion»[1 -, 2 ?]« mass»[2 ?]")


def test_control_characters_and_markup_are_neutralised(labeller):
    text = "No \x1b[31meffusion\x07, [bold]edema[/bold]."
    output = shown(explain(labeller, split_sections(text)), force_terminal=True, color_system="truecolor")
    assert "\x1b[31meff" not in output
    assert "\x07" not in output
    assert "[bold]" in output


def test_a_report_without_findings_says_so(labeller):
    output = shown(explain(labeller, split_sections("Film of good quality.")))
    assert output.rstrip().endswith("Findings (chest21)\nnone")
