"""Reports → records of labelled sentences.

    python -m beam_jobs.label_reports --source openi --input PATH --output DIR [--concepts NAME or FILE]
        [--language auto|en|es|de] [--mentions DIR2] [--link_threshold T] [--scispacy_model NAME]
        [--umls FILE or umls] [--hold_out NAME[=PATH]] [Beam options]

A record per report, with its sentences and their label states (`medclip_keras.records.schema`). A report
without text under findings, impression or no heading counts as `unusable_reports` and gives no record; an
unreadable one goes to `bad_records.jsonl`.

Each report is read in its own language, which is detected (`medclip_keras.knowledge.detection`); `--language`
reads all in one. A report in a language without cues gives no record and counts under
`other_language_reports`; those in Spanish or German count under `es_reports` and `de_reports` too.

`--mentions` also writes JSON lines, one per readable report, with the source's own report identifiers.

Misspelled words are linked to those of the dictionary (`medclip_keras.knowledge.linking`), unless
`--link_threshold=0`. `--scispacy_model` and `--umls` add an installed scispaCy model and a knowledge base.

`--hold_out` leaves out the patients of evaluation sets, whose reports must not train either.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from beam_jobs.dataset.inputs import input_sha256
from beam_jobs.dataset.job import Job, require_rows, run_job
from beam_jobs.dataset.key_salts import with_key_salt
from beam_jobs.dataset.options import JobOptions, lies_within, new_parser, option, run_job_command
from beam_jobs.dataset.selection import select
from beam_jobs.dataset.sharding import KeyedRow, Outcome
from medclip_keras import knowledge
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.knowledge.detection import UNKNOWN
from medclip_keras.knowledge.labeller import ReportLabels
from medclip_keras.knowledge.labellers import AUTO, Labellers, require_language
from medclip_keras.knowledge.language import ENGLISH, languages
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.mentions import mentions_line
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.spelling import THRESHOLD
from medclip_keras.provenance import sha256_of
from medclip_keras.records.manifest import Manifest
from medclip_keras.sources import get_source
from medclip_keras.sources.rows import ReportRow

UNUSABLE = "unusable_reports"
OTHER_LANGUAGE = "other_language_reports"


@dataclass(frozen=True, kw_only=True)
class LabelOptions(JobOptions):
    """`JobOptions`, mentions and linking."""

    mentions: str = option("folder for mentions, as JSON lines", "")
    language: str = option(
        f"language of the reports: {', '.join(languages())}, or {AUTO} to detect each report's "
        "(default %(default)s)",
        AUTO,
    )
    link_threshold: float = option(
        "least similarity of a misspelled word to one of the dictionary; 0 links none (default %(default)s)",
        THRESHOLD,
    )
    scispacy_model: str = option("an installed model such as en_core_sci_sm, or its folder", "")
    umls: str = option(
        "more aliases of the table's concepts: a .jsonl file in the form of scispaCy's knowledge bases, or "
        "umls for the one that scispaCy downloads",
        "",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_language(self.language)
        require(0 <= self.link_threshold <= 1, "link_threshold", "in [0, 1]", self.link_threshold)
        for name, given in (("scispacy_model", self.scispacy_model), ("umls", self.umls)):
            usable = not given or self.link_threshold > 0
            require(
                usable, name, "empty without linking", given, f"Leave --{name} out, or --link_threshold=0."
            )
        for name, folder in (("input", self.input), ("output", self.output)):
            apart = not self.mentions or not lies_within(self.mentions, folder)
            require(apart, "mentions", f"a folder outside of the {name}", self.mentions)

    @property
    def linking(self) -> Linking | None:
        """Settings of the linking, or None without linking."""
        return Linking(self.link_threshold, self.scispacy_model, self.umls) if self.link_threshold else None


class LabelReport:
    """Label one report; holds the labellers, which are made once per worker process."""

    def __init__(
        self,
        read_report: Callable[[ReportRow], tuple[Section, ...]],
        table: ConceptTable,
        linking: Linking | None = None,
        with_mentions: bool = False,
        language: str = AUTO,
    ):
        self._read_report, self._with_mentions = read_report, with_mentions
        self._labellers = Labellers(table, linking, language)
        self._names = table.names

    def __call__(self, keyed: KeyedRow[ReportRow]) -> Outcome:
        """Record of a report, or the tag "unusable_reports" or "other_language_reports".

        Raises:
            BadRowError: the report cannot be read.
        """
        labels = self._labellers.label(self._read_report(keyed.row))
        mentions = mentions_line(keyed.row.report_id, labels, self._names) if self._with_mentions else None
        if labels.language == UNKNOWN:
            return Outcome(None, (OTHER_LANGUAGE,), mentions)
        if not labels.usable:
            return Outcome(None, (UNUSABLE,), mentions)
        tags = () if labels.language == ENGLISH.code else (f"{labels.language}_reports",)
        return Outcome(report_record(keyed, labels), tags, mentions)


def report_record(keyed: KeyedRow[ReportRow], labels: ReportLabels) -> dict[str, Any]:
    """Fields of `schema.report_features`."""
    sentences = [
        {"text": one.text, "section": one.section, "label_states": one.states} for one in labels.sentences
    ]
    return {**keyed.keys, "label_states": labels.states, "sentences": sentences}


def make_job(options: LabelOptions) -> Job:
    """Make the job for some options.

    Raises:
        ValueError: an unknown source or concept table, a missing model or knowledge base, or an evaluation
            set that cannot be held out.
    """
    archive, table = get_source(options.source), load_table(options.concepts)
    require_rows(archive, "reports")
    options = with_key_salt(options, archive)
    selection = select(options.source, options.input, hold_out=options.hold_out)
    return Job(
        name="label_reports",
        kind="reports",
        options=options,
        source=archive,
        table=table,
        start=functools.partial(
            LabelReport,
            archive.read_report,
            table,
            options.linking,
            bool(options.mentions),
            options.language,
        ),
        modules=(knowledge, sys.modules[__name__]),
        tags=(UNUSABLE, *selection.tags),
        selection=selection,
        resources_sha256=_resources_sha256(options),
    )


def _resources_sha256(options: LabelOptions) -> str:
    """Fingerprint of the installed model and the knowledge base; "" without both."""
    resources = options.linking.resources() if options.linking else {}
    if not any(resources.values()):
        return ""
    content = input_sha256(resources["umls"], ()) if resources["umls"] else ""
    return sha256_of([resources["scispacy_model"], content])


def run(*, source: str, input: str, output: str, **options: Any) -> Manifest:
    """Label reports; `options` are the fields of `LabelOptions`.

    Returns:
        The manifest of the records at `output`.

    Raises:
        ValueError: before any work, if an option or the input cannot be used; after it, if more rows than
            `max_bad_fraction` were bad.
    """
    return run_job(make_job(LabelOptions(source=source, input=input, output=output, **options)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line, and return the exit status."""
    return run_job_command(run, new_parser("beam_jobs.label_reports", __doc__, LabelOptions), argv)


if __name__ == "__main__":
    # Under its own name, so that other processes can import what is pickled.
    from beam_jobs import label_reports

    sys.exit(label_reports.main())
