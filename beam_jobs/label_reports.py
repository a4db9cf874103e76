"""Reports → records of labelled sentences.

    python -m beam_jobs.label_reports --source openi --input PATH --output DIR [--concepts NAME or FILE]
        [--mentions DIR2] [--link_threshold T] [--scispacy_model NAME] [--umls FILE or umls]
        [--hold_out NAME[=PATH]] [Beam options]

A record a report, with its sentences and their label states (`medclip_keras.records.schema`). A report
without text under findings, impression or no heading is counted as `unusable_reports` and gives no record;
one that cannot be read goes to `bad_records.jsonl`.

`--mentions` also writes JSON lines, one a readable report, by the source's own report identifiers.

Misspelled words are linked to those of the dictionary (`medclip_keras.knowledge.linking`), unless
`--link_threshold=0`. `--scispacy_model` and `--umls` add what an installed scispaCy model and knowledge base
know.

`--hold_out` leaves out the patients of evaluation sets, whose reports must not train either.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from beam_jobs.dataset.inputs import input_sha256
from beam_jobs.dataset.job import Job, rows_of, run_job
from beam_jobs.dataset.options import JobOptions, lies_within, new_parser, run_or_exit
from beam_jobs.dataset.selection import EVERYTHING, Selection, select
from beam_jobs.dataset.sharding import KeyedRow, MakeShards, Outcome
from medclip_keras import knowledge
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.knowledge.labeller import ReportLabeller, ReportLabels
from medclip_keras.knowledge.linking import THRESHOLD, Linking
from medclip_keras.knowledge.mentions import mentions_line
from medclip_keras.knowledge.sections import Section
from medclip_keras.provenance import sha256_of
from medclip_keras.records.manifest import Manifest
from medclip_keras.sources import get_source
from medclip_keras.sources.rows import ReportRow

UNUSABLE = "unusable_reports"


@dataclass(frozen=True, kw_only=True)
class LabelOptions(JobOptions):
    """`JobOptions`, where to write the mentions ("": nowhere), and how spellings are linked (0: not)."""

    mentions: str = ""
    link_threshold: float = THRESHOLD
    scispacy_model: str = ""
    umls: str = ""

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.link_threshold <= 1, "link_threshold", "in [0, 1]", self.link_threshold)
        for name in ("scispacy_model", "umls"):
            given = getattr(self, name)
            advice = f"Leave --{name} out, or --link_threshold=0."
            require(
                not given or self.link_threshold > 0, name, "empty where nothing is linked", given, advice
            )
        for name in ("input", "output"):
            apart = not self.mentions or not lies_within(self.mentions, getattr(self, name))
            require(apart, "mentions", f"a folder outside of the {name}", self.mentions)

    @property
    def linking(self) -> Linking | None:
        """How the labeller links; None where the threshold is 0."""
        return Linking(self.link_threshold, self.scispacy_model, self.umls) if self.link_threshold else None


class LabelReport:
    """Labels one report; it holds the labeller, which is made once a worker process."""

    def __init__(
        self,
        read_report: Callable[[ReportRow], tuple[Section, ...]],
        table: ConceptTable,
        linking: Linking | None = None,
        with_mentions: bool = False,
    ):
        self._read_report, self._with_mentions = read_report, with_mentions
        self._labeller = ReportLabeller(table, linking)
        self._names = table.names

    def __call__(self, keyed: KeyedRow) -> Outcome:
        """The record of a report, or the state "unusable_reports".

        Raises:
            BadRowError: the report cannot be read.
        """
        labels = self._labeller.label(self._read_report(keyed.row))
        mentions = mentions_line(keyed.row.report_id, labels, self._names) if self._with_mentions else None
        if not labels.usable:
            return Outcome(None, (UNUSABLE,), mentions)
        return Outcome(report_record(keyed, labels), (), mentions)


def report_record(keyed: KeyedRow, labels: ReportLabels) -> dict[str, Any]:
    """The fields of `schema.report_features`."""
    return {
        "record_key": keyed.record_key,
        "study_id": keyed.study_id,
        "patient_id": keyed.patient_id,
        "split": keyed.split,
        "label_states": labels.states,
        "sentences": [
            {"text": sentence.text, "section": sentence.section, "label_states": sentence.states}
            for sentence in labels.sentences
        ],
    }


class LabelReports(beam.PTransform):
    """Report rows → labelled shards, and "bad"; reads and writes by the functions it is given.

    Args:
        options: of the job.
        table: the findings.
        read_report: a source's.
        write: see `MakeShards`.
        selection: which patients are held out.
    """

    def __init__(
        self,
        options: LabelOptions,
        table: ConceptTable,
        read_report: Callable,
        write: Callable,
        selection: Selection = EVERYTHING,
    ):
        super().__init__()
        self._options, self._write = options, write
        start = functools.partial(LabelReport, read_report, table, options.linking, bool(options.mentions))
        self._start = selection.start(start)

    def expand(self, rows):
        """Adds the steps."""
        return rows | "MakeShards" >> MakeShards(self._options, self._start, self._write)


def make_job(options: LabelOptions) -> Job:
    """The job that some options describe.

    Raises:
        ValueError: an unknown source or concept table, a source without reports, a model or knowledge base
            that is not there, or an evaluation set that cannot be held out.
    """
    archive, table = get_source(options.source), load_table(options.concepts)
    rows, read_report = rows_of(archive, "reports"), getattr(archive, "read_report", None)
    selection = select(options.source, options.input, hold_out=options.hold_out)

    def build(rows, write):
        return rows | "LabelReports" >> LabelReports(options, table, read_report, write, selection)

    return Job(
        name="label_reports",
        kind="reports",
        options=options,
        source=archive,
        table=table,
        rows=rows,
        build=build,
        modules=(knowledge, sys.modules[__name__]),
        states=(UNUSABLE, *selection.states),
        selection=selection,
        mentions=options.mentions,
        resources_sha256=_resources_sha256(options),
    )


def _resources_sha256(options: LabelOptions) -> str:
    """Fingerprint of the installed model and the knowledge base; "" where none is used."""
    resources = options.linking.resources() if options.linking else {}
    if not any(resources.values()):
        return ""
    content = input_sha256(resources["umls"], ()) if resources["umls"] else ""
    return sha256_of([resources["scispacy_model"], content])


def run(*, source: str, input: str, output: str, **options) -> Manifest:
    """Labels reports; `options` are the fields of `LabelOptions`.

    Returns:
        The manifest of the records at `output`.

    Raises:
        ValueError: before any work, where an option or the input cannot be used; after it, where more rows
            than `max_bad_fraction` were bad.
    """
    return run_job(make_job(LabelOptions(source=source, input=input, output=output, **options)))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the job from a command line; a wrong argument gives its sentence and exit status 1."""
    parser = new_parser("label_reports", __doc__)
    parser.add_argument("--mentions", default="", help="folder for mentions, as JSON lines")
    parser.add_argument(
        "--link_threshold",
        type=float,
        default=THRESHOLD,
        help=f"least similarity of a misspelled word to one of the dictionary; 0: none is linked "
        f"(default {THRESHOLD})",
    )
    parser.add_argument(
        "--scispacy_model", default="", help="an installed model such as en_core_sci_sm, or its folder"
    )
    parser.add_argument(
        "--umls",
        default="",
        help="more aliases of the table's concepts: a .jsonl file in the form of scispaCy's knowledge "
        "bases, or umls for the one that scispaCy downloads",
    )
    run_or_exit(run, parser, argv)


if __name__ == "__main__":
    # Under its own name, so that other processes can import what they are sent.
    from beam_jobs import label_reports

    label_reports.main()
