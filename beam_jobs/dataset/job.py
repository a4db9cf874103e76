"""What both jobs do around their own step: look at the input, run the pipeline, finish the dataset."""

import collections
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import apache_beam as beam
from etils import epath

from beam_jobs.dataset import sharding
from beam_jobs.dataset.inputs import input_sha256
from beam_jobs.dataset.local_workers import tied_workers
from beam_jobs.dataset.options import JobOptions, pipeline_options
from beam_jobs.dataset.progress import NUM_ROWS_NAME, Progress
from beam_jobs.dataset.selection import EVERYTHING, Selection
from beam_jobs.dataset.writing import (
    BAD_RECORDS_NAME,
    WriteShard,
    publish,
    require_replaceable,
    start_workplace,
    write_bad_records,
)
from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.provenance import code_sha256, sha256_of, versions
from medclip_keras.records import schema, shards, splits
from medclip_keras.records.manifest import (
    CONCEPTS_NAME,
    MANIFEST_NAME,
    Manifest,
    file_sha256,
    read_manifest,
    write_manifest,
    write_tfds_metadata,
)
from medclip_keras.sources import rows, tables

_SUMMARY_NAME = "summary.json"
# Options that do not change the records, or whose effect is recorded; the salts are secrets and are compared
# by their hashes.
_NOT_RECORDED = (
    "source",
    "input",
    "output",
    "concepts",
    "mentions",
    "reports",
    "beam_options",
    "max_bad_fraction",
    "evaluation_set",
    "hold_out",
)


class TooManyBadRowsError(ValueError):
    """More rows than allowed could not be read."""


@dataclass(frozen=True)
class Job:
    """A job, ready to run.

    Attributes:
        name: of the job.
        kind: "images" or "reports".
        options: what it was told.
        source: module of the archive.
        table: concepts of the label vectors.
        rows: the source's rows of this kind, by path.
        build: adds the job's steps to a pipeline: rows and a `WriteShard` → `ShardsMade`.
        modules: what, besides the source and the schema, decides a record's bytes.
        image_size: side of the stored images; 0 for reports.
        states: the counted states of its rows.
        mentions: folder for the mentions, or "".
        reports_sha256: fingerprint of the joined reports, or "".
        resources_sha256: fingerprint of a model and a knowledge base outside of the package, or "".
        selection: which of the rows it records.
    """

    name: str
    kind: str
    options: JobOptions
    source: ModuleType
    table: ConceptTable
    rows: Callable[[str], Iterator]
    build: Callable[[beam.PCollection, WriteShard], sharding.ShardsMade]
    modules: tuple[ModuleType, ...]
    image_size: int = 0
    states: tuple[str, ...] = ()
    mentions: str = ""
    reports_sha256: str = ""
    resources_sha256: str = ""
    selection: Selection = EVERYTHING

    @property
    def dataset(self) -> str:
        """What the names of its shards begin with: those of an evaluation set are its TFDS builder's."""
        name = self.selection.evaluation_set
        return f"medclip_{name}" if name else f"{self.options.source}_{self.kind}"


def rows_of(source: ModuleType, kind: str) -> Callable[[str], Iterator]:
    """The source's function for its image or report rows.

    Raises:
        ValueError: the source has none.
    """
    name = {"images": "image_rows", "reports": "report_rows"}[kind]
    require(hasattr(source, name), "source", f"an archive with {kind}", source.__name__.rpartition(".")[2])
    return getattr(source, name)


def run_job(job: Job) -> Manifest:
    """Runs a job unless its output is there already.

    Raises:
        ValueError: an input or option that cannot be used; before any work.
        TooManyBadRowsError: more bad rows than `max_bad_fraction`.
    """
    started = time.monotonic()
    options = job.options
    require_replaceable(options.output)
    made_from = describe_making(job)
    manifest = find_current(job, made_from["fingerprint"])
    if manifest is not None:
        print(
            f"{job.name}: nothing to do, {options.output} holds these records already ({counted(manifest)})."
        )
        return manifest
    print(f"{job.name}: {options.source} at {options.input} → {options.output}", flush=True)
    bad_records_path(options).unlink(missing_ok=True)
    workplace = start_workplace(options.output)
    try:
        execute(job, workplace)
        manifest = finish(job, workplace, made_from)
    except BaseException:
        workplace.rmtree(missing_ok=True)
        raise
    seconds = time.monotonic() - started
    rate = manifest.counts["rows"] / seconds
    print(f"{job.name}: {counted(manifest)} in {seconds:.1f} s, {rate:.0f} rows/s. Records: {options.output}")
    return manifest


def counted(manifest: Manifest) -> str:
    """The counts of a dataset in words."""
    by_split = ", ".join(f"{name} {split['num_records']}" for name, split in manifest.splits.items())
    states = {name: count for name, count in manifest.counts.items() if name not in ("rows", "records")}
    others = "".join(f", {name.replace('_', ' ')} {count}" for name, count in states.items())
    return f"{manifest.num_records} records of {manifest.counts['rows']} rows ({by_split}){others}"


def describe_making(job: Job) -> dict[str, Any]:
    """What the records are made from, with one fingerprint over all that decides their bytes.

    Raises:
        ValueError: an empty source, a missing table or column.
    """
    options = job.options
    found = job.rows(options.input)
    first = next(found, None)
    if first is None:
        raise refusal("input", f"an archive with at least one of its {job.kind}", options.input)
    # Rows are walked through here only where they name files beside the table that they stand in.
    elsewhere = first.path != options.input and not epath.Path(options.input).is_dir()
    row_paths = (row.path for row in itertools.chain((first,), found)) if elsewhere else ()
    modules = (job.source, rows, tables, schema, shards, splits, sharding, *job.modules)
    making = {
        "job": job.name,
        "source": options.source,
        "input_sha256": input_sha256(options.input, row_paths),
        "concepts_sha256": job.table.fingerprint,
        "reports_sha256": job.reports_sha256,
        "resources_sha256": job.resources_sha256,
        "options": recorded_options(options),
        "code_sha256": code_sha256(modules),
        "with_mentions": bool(job.mentions),
        "selection": job.selection.describe(),
    }
    return {**making, "input": options.input, "versions": versions(), "fingerprint": sha256_of(making)}


def recorded_options(options: JobOptions) -> dict[str, Any]:
    """The options that decide a record, salts as hashes."""
    values = {k: v for k, v in dataclasses.asdict(options).items() if k not in _NOT_RECORDED}
    for salt in ("key_salt", "split_salt"):
        values[salt] = shards.salted_hash("medclip_keras", salt, values[salt])
    return json.loads(json.dumps(values))


def find_current(job: Job, fingerprint: str) -> Manifest | None:
    """The output's manifest where the output is what this job would write; else None."""
    output = epath.Path(job.options.output)
    if not (output / MANIFEST_NAME).exists():
        return None
    try:
        manifest = read_manifest(output)
    except ValueError:  # of another version
        return None
    if manifest.made_from.get("fingerprint") != fingerprint:
        return None
    for split in manifest.splits.values():
        for shard in split["shards"]:
            path = output / shard["name"]
            if not path.exists() or path.stat().length != shard["num_bytes"]:
                return None
    for name, sha256 in manifest.made_from["mentions"].items():
        path = epath.Path(job.mentions) / name
        if not path.exists() or file_sha256(path) != sha256:
            return None
    return manifest


def execute(job: Job, workplace: epath.Path) -> None:
    """Runs the pipeline; it leaves shards and a summary in the workplace."""
    options = job.options
    write = WriteShard(
        directory=str(workplace / "dataset"),
        dataset=job.dataset,
        kind=job.kind,
        image_size=job.image_size,
        num_findings=len(job.table),
        mentions_directory=str(workplace / "mentions") if job.mentions else "",
    )
    told = pipeline_options(options.beam_options)
    with tied_workers(), Progress(job.name, workplace), beam.Pipeline(options=told) as pipeline:
        rows_read = (
            pipeline | "Input" >> beam.Create([options.input]) | "ExpandRows" >> beam.FlatMap(job.rows)
        )
        made = job.build(rows_read, write)
        _ = (
            pipeline
            | "NumRows" >> beam.Create([str(workplace / NUM_ROWS_NAME)])
            | "WriteNumRows" >> beam.Map(_write_num_rows, beam.pvalue.AsDict(made.num_rows))
        )
        _ = (
            pipeline
            | "Summary" >> beam.Create([str(workplace / _SUMMARY_NAME)])
            | "WriteSummary"
            >> beam.Map(_write_summary, beam.pvalue.AsList(made.shards), beam.pvalue.AsList(made.bad))
        )


def _write_num_rows(path: str, num_rows: dict) -> None:
    epath.Path(path).write_text(json.dumps(num_rows))


def _write_summary(path: str, made: list, bad: list) -> None:
    epath.Path(path).write_text(json.dumps({"shards": made, "bad": bad}))


def finish(job: Job, workplace: epath.Path, made_from: Mapping[str, Any]) -> Manifest:
    """Makes a dataset of what the pipeline left, and moves it to the output.

    Raises:
        TooManyBadRowsError: the keys and reasons are then beside the output.
        ValueError: no row gave a record.
    """
    summary = json.loads((workplace / _SUMMARY_NAME).read_text())
    made = sorted(summary["shards"], key=lambda shard: (shard["split"], shard["index"]))
    dataset = workplace / "dataset"
    counts = count_rows(made, summary["bad"], job.states)
    refuse_bad_rows(job, counts, summary["bad"])
    manifest = Manifest(
        kind=job.kind,
        source=job.options.source,
        image_size=job.image_size,
        concept_table=job.table.name,
        concepts_sha256=job.table.fingerprint,
        num_findings=len(job.table),
        splits={split: describe_split(split, made, len(job.table)) for split in splits.SPLITS},
        counts=counts,
        reports_sha256=job.reports_sha256,
        made_from={**made_from, "mentions": {k: v for one in made for k, v in one["mentions"].items()}},
    )
    for name in {one["shard"]["name"] for one in made}.difference(manifest.shard_names):
        (dataset / name).unlink()
    (dataset / CONCEPTS_NAME).write_text(job.table.to_jsonl())
    write_bad_records(dataset / BAD_RECORDS_NAME, summary["bad"])
    citation, licence = getattr(job.source, "CITATION", ""), getattr(job.source, "LICENCE", "")
    write_tfds_metadata(dataset, manifest, citation=citation, licence=licence)
    write_manifest(dataset, manifest)
    publish(workplace, job.options.output, job.mentions)
    return manifest


def count_rows(made: list[Mapping[str, Any]], bad: list, states: tuple[str, ...]) -> dict[str, int]:
    """Rows, records, bad rows, and rows in each of the counted states."""
    counted_states = collections.Counter(dict.fromkeys(states, 0))
    for one in made:
        counted_states.update(one["states"])
    return {
        "rows": sum(one["num_rows"] for one in made) + len(bad),
        "records": sum(one["shard"]["num_records"] for one in made),
        "bad_rows": len(bad),
        **counted_states,
    }


def describe_split(split: str, made: list[Mapping[str, Any]], num_findings: int) -> dict[str, Any]:
    """A split's entry in the manifest; one without records has no shards."""
    own = [one for one in made if one["split"] == split]
    num_records = sum(one["shard"]["num_records"] for one in own)

    def total(name: str) -> list[int]:
        return [sum(values) for values in zip([0] * num_findings, *(one[name] for one in own), strict=True)]

    return {
        "num_records": num_records,
        "shards": [one["shard"] for one in own] if num_records else [],
        "positives": total("positives"),
        "num_sentences": sum(one["num_sentences"] for one in own),
        "sentence_positives": total("sentence_positives"),
    }


def refuse_bad_rows(job: Job, counts: Mapping[str, int], bad: list[Mapping[str, str]]) -> None:
    """Fails the job where too many rows were bad, or no row gave a record."""
    path = bad_records_path(job.options)
    name = job.selection.evaluation_set
    if name and counts["bad_rows"]:
        write_bad_records(path, bad)
        received = f"{counts['bad_rows']} bad of {counts['rows']} rows"
        advice = f"Keys and reasons are in {path}."
        require(False, "input", f"an archive with every image of {name}", received, advice)
    allowed = job.options.max_bad_fraction
    if counts["bad_rows"] > allowed * counts["rows"]:
        write_bad_records(path, bad)
        raise TooManyBadRowsError(
            f"`max_bad_fraction` must be at least the share of bad rows. Received: {allowed} and "
            f"{counts['bad_rows']} bad of {counts['rows']} rows. Keys and reasons are in {path}."
        )
    advice = f"Counts: {dict(counts)}."
    require(counts["records"] > 0, "input", "an archive with something to record", job.options.input, advice)


def bad_records_path(options: JobOptions) -> epath.Path:
    """Where a job that fails leaves its bad records: beside the output."""
    output = epath.Path(options.output)
    return output.parent / f"{output.name}.{BAD_RECORDS_NAME}"
