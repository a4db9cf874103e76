"""The sheet that a person corrects: a row a report, then a row a finding that it mentions.

    report  record_key  weight  checked  finding           said      truth     rule       cue  text
    1       04ab…       81.2    x
    1                                    Pleural Effusion  positive  negative  effusion

The person reads the report, overwrites `truth` where `said` is wrong, adds a row (report, finding, truth) for
what was missed, and marks the report as `checked`. Reports without the mark do not count.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from medclip_keras.errors import near_names, refusal, require
from medclip_keras.knowledge.states import LabelState

COLUMNS = ("report", "record_key", "weight", "checked", "finding", "said", "truth", "rule", "cue", "text")
STATES = tuple(state.name.lower() for state in LabelState if state != LabelState.UNLABELLED)
SILENT = STATES[LabelState.NOT_MENTIONED]


@dataclass(frozen=True)
class Line:
    """One finding of a report: its label state, and the rule that decided it."""

    finding: str
    said: str
    rule: str = ""
    cue: str = ""
    text: str = ""


@dataclass
class Checked:
    """A report that a person has checked: findings → (said, truth); findings that are silent are left out."""

    weight: float
    cells: dict[str, tuple[str, str]] = field(default_factory=dict)


def write_sheet(reports: Iterable[tuple[str, float, Sequence[Line]]]) -> str:
    """The text of the sheet, from key, weight and lines of each report."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, (key, weight, lines) in enumerate(reports, start=1):
        writer.writerow([number, key, f"{weight:.6g}", "", "", "", "", "", "", ""])
        for line in lines:
            quoted = f"“{line.text}”" if line.text else ""  # a leading - or = is a formula to spreadsheets
            row = [number, "", "", "", line.finding, line.said, line.said, line.rule, line.cue, quoted]
            writer.writerow(row)
    return file.getvalue()


def read_sheet(text: str, names: Sequence[str] = ()) -> tuple[list[Checked], int]:
    """The checked reports of a corrected sheet, and the number of all; columns may be cut by `;`.

    Args:
        text: of the sheet.
        names: the findings that may be added; () takes any.

    Raises:
        ValueError: a missing column, or a row with an unknown report, finding or state; the row is named.
    """
    head = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ",")
    missing = [name for name in COLUMNS[:7] if name not in (rows.fieldnames or ())]
    require(not missing, "--read", f"a sheet with the columns {', '.join(COLUMNS[:7])}", missing)
    reports: dict[str, Checked] = {}
    checked = set()
    for number, row in enumerate(rows, start=2):
        row = {name: (value or "").strip() for name, value in row.items() if name in COLUMNS}
        if row["weight"]:
            reports[row["report"]] = Checked(_weight(row["weight"], number))
        if row["checked"]:
            checked.add(row["report"])
        if row["finding"]:
            _add_cell(reports, row, number, names)
    return [report for key, report in reports.items() if key in checked], len(reports)


def _weight(text: str, number: int) -> float:
    try:
        return float(text.replace(",", "."))  # of a spreadsheet with decimal commas
    except ValueError:
        raise refusal("--read", "a sheet whose weights are as written", f"row {number}: {text!r}") from None


def _add_cell(reports: dict[str, Checked], row: dict[str, str], number: int, names: Sequence[str]) -> None:
    finding, where = row["finding"], f"row {number}"
    require(row["report"] in reports, "--read", "a sheet whose rows name their report", where)
    known = not names or finding in names
    require(
        known,
        "--read",
        "a sheet of the table's findings",
        f"{where}: {finding!r}",
        near_names(finding, names),
    )
    said, truth = (row[name].lower().replace(" ", "_") or SILENT for name in ("said", "truth"))
    for state in (said, truth):
        require(state in STATES, "--read", f"a sheet of states ({', '.join(STATES)})", f"{where}: {state!r}")
    cells = reports[row["report"]].cells
    require(finding not in cells, "--read", "a sheet with a finding once a report", f"{where}: {finding!r}")
    cells[finding] = said, truth
