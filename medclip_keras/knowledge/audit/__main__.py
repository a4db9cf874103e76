"""Measure the labels of your reports on a sample that a person corrects.

    python -m medclip_keras.knowledge.audit --records DIR --sample 200 --output audit [--show_text]
    python -m medclip_keras.knowledge.audit --read audit/audit.csv [--records DIR]

The first command draws reports from the records of beam_jobs.label_reports: of each finding in each state,
and of those in which linking or a rare rule decided. It writes audit.html, to read, and audit.csv, to
correct: mark a report as checked, overwrite `truth` where `said` is wrong, add a row (report, finding,
truth) for a finding that was missed. The second command prints precision, recall and F1 with 95 % intervals,
by finding and state. Rare strata are drawn more often than common ones, so each report counts as the number
of reports that it stands for (inverse probability). Files hold report text only with --show_text.
"""

import argparse
import pathlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from medclip_keras.command import new_parser, run_command
from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.audit.estimates import Rate, scores
from medclip_keras.knowledge.audit.page import render_audit
from medclip_keras.knowledge.audit.population import LabelledReport, Strata, lines_of, stratify
from medclip_keras.knowledge.audit.sampling import draw
from medclip_keras.knowledge.audit.sheet import SILENT, STATES, Checked, Line, read_sheet, write_sheet
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import Section

_COMMAND = "medclip_keras.knowledge.audit"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parse(argv)
    return run_command(_COMMAND, lambda: _score(arguments) if arguments.read else _draw(arguments))


def _draw(arguments: argparse.Namespace) -> None:
    require(bool(arguments.records), "--records", "a folder of report records, or --read a sheet", "")
    require(arguments.sample > 0, "--sample", "at least 1", arguments.sample)
    table, threshold = _table_and_threshold(arguments.records)
    labeller = ReportLabeller(table, Linking(threshold) if threshold else None)
    strata = stratify(labeller, _reports(arguments.records, arguments.split))
    require(bool(strata.of_report), "--records", f"records of the split {arguments.split!r}", "none")
    positions, weights = draw(strata.of_report, arguments.sample, arguments.seed)
    reports = _picked(arguments, positions)
    rows = [
        (report.key, float(weight), lines_of(labeller, report, arguments.show_text))
        for report, weight in zip(reports, weights, strict=True)
    ]
    texts = [report.sentences if arguments.show_text else () for report in reports]
    _write_files(arguments.output, rows, texts, strata, positions)


def _picked(arguments: argparse.Namespace, positions: Sequence[int]) -> list[LabelledReport]:
    """The reports at some positions: reading twice keeps only these in memory."""
    wanted, read = set(positions), enumerate(_reports(arguments.records, arguments.split))
    found = {position: report for position, report in read if position in wanted}
    return [found[position] for position in positions]


def _write_files(
    output: str,
    rows: Sequence[tuple[str, float, Sequence[Line]]],
    texts: Sequence[Sequence[Section]],
    strata: Strata,
    positions: Sequence[int],
) -> None:
    sizes = Counter(name for own in strata.of_report for name in own)
    drawn = Counter(name for position in positions for name in strata.of_report[position])
    counts = [(name, size, drawn[name]) for name, size in sorted(sizes.items())]
    folder = pathlib.Path(output)
    _write(folder / "audit.csv", "\ufeff" + write_sheet(rows))  # the mark tells spreadsheets the encoding
    _write(folder / "audit.html", render_audit(rows, texts, counts, len(strata.of_report)))
    num_reports = len(strata.of_report)
    print(f"{len(positions)} of {num_reports:,} reports, {len(sizes)} strata: {folder}/audit.csv, audit.html")
    if strata.num_differing:
        print(f"{strata.num_differing:,} reports have other labels in the records than this version gives.")


def _score(arguments: argparse.Namespace) -> None:
    names = _table_and_threshold(arguments.records)[0].names if arguments.records else ()
    try:
        text = pathlib.Path(arguments.read).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(
            "--read", "a sheet in UTF-8 that exists", arguments.read, type(error).__name__
        ) from None
    reports, number = read_sheet(text, names)
    advice = "Mark the reports that you have read in the column checked."
    require(bool(reports), "--read", "a sheet with checked reports", f"none of {number}", advice)
    print(f"{len(reports)} of {number} reports are checked; each counts as the reports that it stands for.\n")
    print(describe(reports))


def describe(reports: Sequence[Checked]) -> str:
    """A row a finding and state: cells said and true, precision, recall and F1 with their intervals."""
    findings = sorted({name for report in reports for name in report.cells})
    weights = np.array([report.weight for report in reports])
    cells = [[report.cells.get(name, (SILENT, SILENT)) for name in findings] for report in reports]
    said, true = np.array(cells).reshape(len(reports), len(findings), 2).transpose(2, 0, 1)
    lines = [f"{'':44}{'said':>5}{'true':>5}{'precision':^19}{'recall':^19}{'F1':^19}"]
    for state in [state for state in STATES if state != SILENT]:
        columns = [(name, [k]) for k, name in enumerate(findings)]
        for name, chosen in [*columns, ("all findings", list(range(len(findings))))]:
            found = scores(weights, said[:, chosen] == state, true[:, chosen] == state)
            if found.said or found.true:
                rates = "".join(map(_cell, found[:3]))
                lines.append(f"{name[:33]:34}{state:10}{found.said:5}{found.true:5}{rates}")
    return "\n".join(lines)


def _cell(rate: Rate) -> str:
    return f"{'–':^19}" if np.isnan(rate.value) else f"  {rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def _table_and_threshold(directory: str) -> tuple[ConceptTable, float]:
    """Concept table and threshold of the linking of report records."""
    from medclip_keras.records.manifest import load_concepts, read_manifest

    manifest = read_manifest(directory)
    require(manifest.kind == "reports", "--records", "a folder of report records", manifest.kind)
    options = manifest.made_from.get("options", {})
    return load_concepts(directory), float(options.get("link_threshold", 0))


def _reports(directory: str, split: str) -> Iterator[LabelledReport]:
    """The reports of a split, in the order of the shards."""
    from medclip_keras.records.manifest import read_manifest
    from medclip_keras.records.reading import RecordFolder, read_records
    from medclip_keras.records.schema import parse_report

    manifest = read_manifest(directory)
    for serialized in read_records([RecordFolder(directory, manifest)], split).as_numpy_iterator():
        record = parse_report(serialized, manifest.num_findings)
        sentences = tuple(Section(one["section"], one["text"]) for one in record["sentences"])
        yield LabelledReport(record["record_key"], sentences, record["label_states"])


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = f"The system says: {error.strerror}."
        raise refusal("--output", "a folder that can be written", str(path.parent), reason) from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(_COMMAND, __doc__ or "")
    add = parser.add_argument
    add("--records", default="", metavar="DIR", help="records of beam_jobs.label_reports")
    add("--split", default="all", choices=("all", "train", "valid", "test"), help="of the records")
    add("--sample", type=int, default=200, metavar="N", help="reports to draw (default %(default)s)")
    add("--seed", type=int, default=0, help="of the draw (default %(default)s)")
    add("--output", default="audit", metavar="DIR", help="folder for page and sheet (default %(default)s)")
    add("--show_text", action="store_true", help="write sentences of the reports into page and sheet")
    add("--read", default="", metavar="CSV", help="a corrected sheet: print its scores")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
