"""A job that makes a dataset: fingerprint of its inputs, pipeline, counts, publication."""

import collections
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import apache_beam as beam
from etils import epath

from beam_jobs.dataset import selection, sharding, writing
from beam_jobs.dataset.inputs import input_sha256
from beam_jobs.dataset.key_salts import keep_key_salt
from beam_jobs.dataset.local_workers import tied_workers
from beam_jobs.dataset.notices import print_bad_rows, print_passed_over, print_unused_columns
from beam_jobs.dataset.options import JobOptions, running_pipeline
from beam_jobs.dataset.progress import Progress
from beam_jobs.dataset.report_join import FetchReports, read_places
from beam_jobs.dataset.selection import Selection
from medclip_keras import sources
from medclip_keras.errors import refusal, require
from medclip_keras.files import is_local
from medclip_keras.knowledge import concepts, label_names, states
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.locks import sole_writer
from medclip_keras.provenance import code_sha256, file_sha256, modules_behind, sha256_of, versions
from medclip_keras.records import schema, shards, splits
from medclip_keras.records.manifest import (
    CONCEPTS_NAME,
    MANIFEST_NAME,
    Manifest,
    find_damaged_shard,
    read_manifest,
    write_manifest,
    write_tfds_metadata,
)
from medclip_keras.sources import rows, tables

_SUMMARY_NAME = "summary.json"
# Options that do not change the records, or whose effect is recorded elsewhere.
_NOT_RECORDED = (
    "source", "input", "output", "concepts", "mentions", "reports", "beam_options", "max_bad_fraction",
    "evaluation_set", "hold_out", "new_salt_path",
)  # fmt: skip
WITH_SENTENCES = "images_with_sentences"  # tag of images that are joined with a report
_ROW_FUNCTIONS = {"images": "image_rows", "reports": "report_rows"}
_MODULES = (  # of every job; these decide a record's bytes
    rows, tables, schema, shards, splits, sharding, selection, writing, states, concepts, label_names,
)  # fmt: skip


class TooManyBadRowsError(ValueError):
    """More rows than allowed could not be read."""


@dataclass(frozen=True)
class Job:
    """A job, ready to run."""

    name: str  # of the command
    kind: str  # "images" or "reports"
    options: JobOptions
    source: ModuleType  # the archive's
    table: ConceptTable  # concepts of the label vectors
    start: Callable[[], sharding.MakeRecord]  # called once per worker process
    modules: tuple[ModuleType, ...]  # these decide a record's bytes, besides the source and the schema
    tags: tuple[str, ...]  # to count rows under; see `Outcome`
    selection: Selection  # of the source's rows
    reports: Manifest | None = None  # the joined ones'
    resources_sha256: str = ""  # fingerprint of a model and a knowledge base outside of the package, or ""

    @property
    def rows(self) -> Callable[[str], Iterator[sharding.Row]]:
        """Selected rows of the source, by path."""
        return self.selection.rows(getattr(self.source, _ROW_FUNCTIONS[self.kind]))

    @property
    def dataset(self) -> str:
        """Prefix of the shards' names; for an evaluation set the name of its TFDS builder."""
        name = self.selection.evaluation_set
        return f"medclip_{name}" if name else f"{self.options.source}_{self.kind}"


def require_rows(source: ModuleType, kind: str) -> None:
    """Raise the error sentence for a source without image or report rows."""
    name = source.__name__.rpartition(".")[2]
    require(hasattr(source, _ROW_FUNCTIONS[kind]), "source", f"an archive with {kind}", name)


def run_job(job: Job) -> Manifest:
    """Run a job, unless its output is current.

    Raises:
        ValueError: an input or option that cannot be used; before any work.
        TooManyBadRowsError: more bad rows than `max_bad_fraction`.
    """
    started = time.monotonic()
    options = job.options
    writing.require_replaceable(options.output)
    made_from = describe_making(job)
    manifest = find_current(job, made_from["fingerprint"])
    if manifest is not None:
        print(
            f"{job.name}: nothing to do, {options.output} holds these records already ({counted(manifest)})."
        )
        return manifest
    print_unused_columns(job.source, options.input, job.table)
    print_passed_over(job.source, options.input)
    with sole_writer(options.output):
        keep_key_salt(job.name, options)
        print(f"{job.name}: {options.source} at {options.input} → {options.output}", flush=True)
        bad_records_path(options).unlink(missing_ok=True)
        workplace = writing.start_workplace(options.output)
        try:
            execute(job, workplace)
            manifest = finish(job, workplace, made_from)
        finally:
            workplace.rmtree(missing_ok=True)
    seconds = time.monotonic() - started
    rate = manifest.counts["rows"] / seconds
    print(f"{job.name}: {counted(manifest)} in {seconds:.1f} s, {rate:.0f} rows/s. Records: {options.output}")
    return manifest


def counted(manifest: Manifest) -> str:
    """Counts of a dataset in words."""
    by_split = ", ".join(f"{name} {split['num_records']}" for name, split in manifest.splits.items())
    others = [f"{name.replace('_', ' ')} {count}" for name, count in manifest.counts.items()][2:]
    rows_of_splits = f"{manifest.num_records} records of {manifest.counts['rows']} rows ({by_split})"
    return ", ".join([rows_of_splits, *others])


def describe_making(job: Job) -> dict[str, Any]:
    """Inputs, options and code of the records, with one fingerprint over all that decides their bytes.

    Raises:
        ValueError: an empty source, a missing table or column.
    """
    options = job.options
    found = iter(job.rows(options.input))
    first = next(found, None)
    if first is None:
        raise refusal("input", f"an archive with at least one of its {job.kind}", options.input)
    # All rows are read here only if they name files elsewhere than in the input, as those of a table may.
    is_table = hasattr(job.source, "unused_columns") or not epath.Path(options.input).is_dir()
    elsewhere = first.path != options.input and is_table and is_local(options.input)
    row_paths = (row.path for row in itertools.chain((first,), found)) if elsewhere else ()
    of_source = modules_behind(job.source, sources.__name__)
    modules = dict.fromkeys((*of_source, *_MODULES, *job.modules))
    # The sources' own label names, and CheXpert's, which `tables` reads.
    archives = {"chexpert", *(module.__name__.rpartition(".")[2] for module in of_source)}
    labels = [label_names.meanings(name) for name in sorted(archives)]
    making = {
        "job": job.name,
        "source": options.source,
        "input_sha256": input_sha256(options.input, row_paths),
        "concepts_sha256": job.table.fingerprint,
        "labels_sha256": sha256_of(labels),
        "reports_sha256": job.reports.fingerprint if job.reports else "",
        "resources_sha256": job.resources_sha256,
        "options": recorded_options(options),
        "code_sha256": code_sha256(modules),
        "with_mentions": bool(options.mentions),
        "selection": job.selection.describe(),
    }
    return {**making, "input": options.input, "versions": versions(), "fingerprint": sha256_of(making)}


def recorded_options(options: JobOptions) -> dict[str, Any]:
    """Options that decide a record; salts are secrets, and recorded as hashes."""
    values = {k: v for k, v in dataclasses.asdict(options).items() if k not in _NOT_RECORDED}
    for name, salt in (("key_salt", options.salt), ("split_salt", options.split_salt)):
        values[name] = shards.salted_hash("medclip_keras", name, salt)
    return json.loads(json.dumps(values))


def find_current(job: Job, fingerprint: str) -> Manifest | None:
    """Manifest of the output if a run would write the same output, else None."""
    output = epath.Path(job.options.output)
    if not (output / MANIFEST_NAME).exists():
        return None
    try:
        manifest = read_manifest(output)
    except ValueError:  # of another version
        return None
    if manifest.made_from.get("fingerprint") != fingerprint or find_damaged_shard(output, manifest):
        return None
    if not all((output / name).exists() for name in writing.METADATA_NAMES):
        return None
    for name, sha256 in manifest.made_from["mentions"].items():
        path = epath.Path(job.options.mentions) / name
        if not path.exists() or file_sha256(path) != sha256:
            return None
    return manifest


def execute(job: Job, workplace: epath.Path) -> None:
    """Run the pipeline; it leaves shards and a summary in the workplace."""
    options = job.options
    write = writing.WriteShard(
        directory=str(workplace / "dataset"),
        dataset=job.dataset,
        kind=job.kind,
        image_size=options.image_size,
        num_findings=len(job.table),
        mentions_directory=str(workplace / "mentions") if options.mentions else "",
    )
    fetch, places = None, None
    progress = Progress(job.name, workplace / "dataset")
    with tied_workers(), progress, running_pipeline(options.beam_options) as pipeline:
        if job.reports is not None:
            fetch = FetchReports(options.reports, own_splits=bool(job.selection.evaluation_set))
            places = read_places(pipeline, options.reports, job.reports.shard_names)
        start = job.selection.start(job.start)
        made = (
            pipeline
            | "Input" >> beam.Create([options.input])
            | "ExpandRows" >> beam.FlatMap(job.rows)
            | "MakeShards" >> sharding.MakeShards(options, start, write, fetch, places)
        )
        summary = pipeline | "Summary" >> beam.Create([str(workplace / _SUMMARY_NAME)])
        results = beam.pvalue.AsList(made.shards), beam.pvalue.AsList(made.bad)
        _ = summary | "WriteSummary" >> beam.Map(_write_summary, *results)


def _write_summary(path: str, made: list[writing.ShardSummary], bad: list[sharding.BadRow]) -> None:
    shards_made = [dataclasses.asdict(one) for one in made]
    epath.Path(path).write_text(json.dumps({"shards": shards_made, "bad": bad}))


def finish(job: Job, workplace: epath.Path, made_from: Mapping[str, Any]) -> Manifest:
    """Complete the dataset in the workplace, and move it to the output.

    Raises:
        TooManyBadRowsError: the keys and reasons are then beside the output.
        ValueError: no row gave a record.
    """
    summary = json.loads((workplace / _SUMMARY_NAME).read_text())
    made = [writing.ShardSummary(**shard) for shard in summary["shards"]]
    made.sort(key=lambda shard: (shard.split, shard.index))
    dataset = workplace / "dataset"
    counts = count_rows(made, summary["bad"], job.tags)
    if summary["bad"]:
        print_bad_rows(job.rows(job.options.input), job.options, summary["bad"])
    refuse_bad_rows(job, counts, summary["bad"])
    require_joined(job, counts)
    mentions = {name: sha256 for one in made for name, sha256 in one.mentions.items()}
    manifest = Manifest(
        kind=job.kind,
        source=job.options.source,
        image_size=job.options.image_size,
        concept_table=job.table.name,
        concepts_sha256=job.table.fingerprint,
        num_findings=len(job.table),
        splits={split: describe_split(split, made, len(job.table)) for split in splits.SPLITS},
        counts=counts,
        reports_sha256=made_from["reports_sha256"],
        made_from={**made_from, "mentions": mentions},
    )
    for name in {one.shard["name"] for one in made}.difference(manifest.shard_names):
        (dataset / name).unlink()
    (dataset / CONCEPTS_NAME).write_text(job.table.to_jsonl())
    writing.write_bad_records(dataset / writing.BAD_RECORDS_NAME, summary["bad"])
    citation, licence = getattr(job.source, "CITATION", ""), getattr(job.source, "LICENCE", "")
    write_tfds_metadata(dataset, manifest, citation=citation, licence=licence)
    write_manifest(dataset, manifest)
    writing.publish(workplace, job.options.output, job.options.mentions)
    return manifest


def count_rows(
    made: Sequence[writing.ShardSummary], bad: Sequence[sharding.BadRow], tags: Sequence[str]
) -> dict[str, int]:
    """Counts of rows, records, bad rows, and rows with each tag."""
    tagged = collections.Counter(dict.fromkeys(tags, 0))
    for one in made:
        tagged.update(one.tags)
    return {
        "rows": sum(one.num_rows for one in made) + len(bad),
        "records": sum(one.shard["num_records"] for one in made),
        "bad_rows": len(bad),
        **tagged,
    }


def describe_split(split: str, made: Sequence[writing.ShardSummary], num_findings: int) -> dict[str, Any]:
    """Manifest entry of a split; one without records has no shards."""
    own = [one for one in made if one.split == split]
    num_records = sum(one.shard["num_records"] for one in own)

    def total(lists: list[list[int]]) -> list[int]:
        return [sum(values) for values in zip([0] * num_findings, *lists, strict=True)]

    return {
        "num_records": num_records,
        "shards": [one.shard for one in own] if num_records else [],
        "positives": total([one.positives for one in own]),
        "num_sentences": sum(one.num_sentences for one in own),
        "sentence_positives": total([one.sentence_positives for one in own]),
    }


def refuse_bad_rows(job: Job, counts: Mapping[str, int], bad: Sequence[sharding.BadRow]) -> None:
    """Fail the job if too many rows were bad, or no row gave a record."""
    path, evaluation_set = bad_records_path(job.options), job.selection.evaluation_set
    allowed = 0 if evaluation_set else job.options.max_bad_fraction
    if counts["bad_rows"] > allowed * counts["rows"]:
        writing.write_bad_records(path, bad)
        received = f"{counts['bad_rows']} bad of {counts['rows']} rows"
        advice = f"Keys and reasons are in {path}."
        if evaluation_set:
            raise refusal("input", f"an archive with every image of {evaluation_set}", received, advice)
        raise TooManyBadRowsError(
            "`max_bad_fraction` must be at least the share of bad rows. "
            f"Received: {allowed} and {received}. {advice}"
        )
    advice = f"Counts: {dict(counts)}."
    require(counts["records"] > 0, "input", "an archive with something to record", job.options.input, advice)


def require_joined(job: Job, counts: Mapping[str, int]) -> None:
    """Fail a job that joins reports if no image has any."""
    joined = job.reports is None or counts[WITH_SENTENCES] > 0
    requirement = "records with a report of at least one image, of the same patient and study"
    advice = "Give both tables the same patient_id and study_id, or leave --reports out."
    require(joined, "reports", requirement, job.options.reports, advice)


def bad_records_path(options: JobOptions) -> epath.Path:
    """Path of a failed job's bad records, beside the output."""
    output = epath.Path(options.output)
    return output.parent / f"{output.name}.{writing.BAD_RECORDS_NAME}"
