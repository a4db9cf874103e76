"""Records → statistics, schema and anomalies: are they fit to be trained on?

    python -m beam_jobs.validate_records --input DIR [--schema FILE] [--baseline DIR] [--output DIR2]
        [Beam options]

It leaves four files in DIR2 (DIR.validation where none is named):

- `statistics.pb`: tensorflow-metadata's DatasetFeatureStatisticsList, a dataset a split (`statistics_proto`);
- `schema.pbtxt`: its Schema, inferred or given with --schema. Edit it: from then on it is used, and it is
  inferred again where you remove it;
- `anomalies.pbtxt`: its Anomalies, against the schema, between splits and runs (`anomalies`, `comparison`);
- `report.html`: all of it for a person; no report text and no identifier is in any of them.

The exit status is 1 where there is an anomaly. A second run over the same records, schema and baseline reads
the result of the first.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from beam_jobs.dataset.options import lies_within, pipeline_options, require_known_options, run_or_exit
from beam_jobs.validation import anomalies, comparison, statistics_proto
from beam_jobs.validation import facts as record_facts
from beam_jobs.validation import page as validation_page
from beam_jobs.validation import schema as record_schema
from beam_jobs.validation import tallies as record_statistics
from medclip_keras.errors import require
from medclip_keras.provenance import code_sha256, sha256_of
from medclip_keras.records.manifest import Manifest, load_concepts, read_manifest, verify

STATISTICS_NAME, ANOMALIES_NAME, PAGE_NAME = "statistics.pb", "anomalies.pbtxt", "report.html"
RESULT_NAME = "validation.json"  # written last
_MODULES = (anomalies, comparison, record_facts, record_schema, record_statistics, statistics_proto)


_NUM_SAID = 20  # anomalies in a message


class AnomalousRecordsError(ValueError):
    """Records have anomalies; the sentences are the message."""


@dataclass(frozen=True)
class Validation:
    """What a validation found.

    Attributes:
        directory: of the records.
        output: folder of the four files.
        fingerprint: of the records, the schema, the baseline and the code.
        inferred_sha256: of schema.pbtxt as it was inferred; "" where it was given.
        num_records: of each split.
        anomalies: pairs of name and sentence.
    """

    directory: str
    output: str
    fingerprint: str
    inferred_sha256: str
    num_records: Mapping[str, int]
    anomalies: Sequence[tuple[str, str]]

    def require_valid(self, advice: str = "") -> None:
        """Raises unless there is no anomaly.

        Raises:
            AnomalousRecordsError: with a line an anomaly.
        """
        if self.anomalies:
            lines = "".join(f"\n  {name}: {sentence}" for name, sentence in self.anomalies[:_NUM_SAID])
            more = len(self.anomalies) - _NUM_SAID
            lines += f"\n  and {more} more" if more > 0 else ""
            noun = "anomaly" if len(self.anomalies) == 1 else "anomalies"
            raise AnomalousRecordsError(
                f"{self.directory} has {len(self.anomalies)} {noun}:{lines}\n"
                f"All of it: {epath.Path(self.output) / PAGE_NAME}. {advice}".rstrip()
            )


def run(
    *,
    input: str,
    schema: str = "",
    baseline: str = "",
    output: str = "",
    beam_options: Sequence[str] = (),
) -> Validation:
    """Validates a folder of records.

    Args:
        input: folder of records.
        schema: a schema.pbtxt, or "": the one in `output` where its owner edited it, else one is inferred.
        baseline: records of the last run, or the output of their validation; "": none.
        output: folder for the results; "": `input` and ".validation".
        beam_options: passed on to Apache Beam.

    Raises:
        ValueError: before any work, where an argument cannot be used or a shard is not as its manifest says.
    """
    require_known_options(beam_options, ("input", "schema", "baseline", "output"))
    output = output or default_output(input)
    require(not lies_within(output, input), "output", "a folder outside of the records", output)
    manifest = read_manifest(input)
    schema = schema or kept_schema(output)
    given = record_schema.read_schema(schema) if schema else None
    schema_text = epath.Path(schema).read_text() if schema else ""
    before = _read_baseline(baseline, manifest, beam_options) if baseline else None
    before_bytes = before.SerializeToString(deterministic=True) if before else b""
    fingerprint = sha256_of(
        {
            "records": manifest.fingerprint,
            "schema": schema_text,
            "baseline": hashlib.sha256(before_bytes).hexdigest(),
            "code": own_code_sha256(),
        }
    )
    found = _find_current(output, fingerprint)
    if found is not None:
        return found
    verify(input)
    _remove_result(output, schema)
    statistics = gather_statistics(input, manifest, output, beam_options)
    result = _compare_and_write(input, manifest, output, statistics, given, schema_text, before)
    return _finish(result, fingerprint)


def kept_schema(output: epath.PathLike) -> str:
    """The schema.pbtxt in an output that its owner gave or edited; "": none, or as it was inferred."""
    path, earlier = epath.Path(output) / record_schema.SCHEMA_NAME, _read_result(str(output))
    if not path.exists():
        return ""
    inferred = earlier.inferred_sha256 if earlier else ""
    return "" if hashlib.sha256(path.read_bytes()).hexdigest() == inferred else str(path)


def schema_in_force(directory: epath.PathLike, output: epath.PathLike) -> str:
    """The kept schema of records: beside them, where this command leaves it, or else in another output."""
    return kept_schema(default_output(directory)) or kept_schema(output)


def default_output(directory: epath.PathLike) -> str:
    """Where the result for a folder of records lies where nobody names a place."""
    return f"{str(directory).rstrip('/')}.validation"


def own_code_sha256() -> str:
    """SHA-256 of the code that decides a validation."""
    return code_sha256((*_MODULES, validation_page, sys.modules[__name__]))


def gather_statistics(
    directory: str, manifest: Manifest, output: str, beam_options: Sequence[str] = ()
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Runs the pipeline over a dataset; it leaves `statistics.pb` in the output."""
    path = epath.Path(output) / STATISTICS_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    concepts = load_concepts(directory).names
    with beam.Pipeline(options=pipeline_options(beam_options)) as pipeline:
        facts = record_statistics.read_facts(pipeline, str(directory), manifest)
        gathered = facts | "GatherStatistics" >> record_statistics.GatherStatistics(manifest.num_findings)
        _ = (
            pipeline
            | "Output" >> beam.Create([str(path)])
            | "WriteStatistics"
            >> beam.Map(
                _write_statistics,
                manifest.kind,
                concepts,
                beam.pvalue.AsDict(gathered["splits"]),
                beam.pvalue.AsSingleton(gathered["sightings"]),
            )
        )
    return read_statistics(path)


def read_statistics(path: epath.PathLike) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Reads a `statistics.pb`.

    Raises:
        ValueError: not one.
    """
    try:
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(epath.Path(path).read_bytes())
    except DecodeError:
        raise ValueError(
            f"`{STATISTICS_NAME}` must be a DatasetFeatureStatisticsList. Received: {str(path)!r}. "
            "Run beam_jobs.validate_records again."
        ) from None


def _write_statistics(path, kind, concepts, tallies, sightings) -> None:
    statistics = statistics_proto.to_proto(kind, concepts, tallies, sightings)
    path = epath.Path(path)
    unfinished = path.parent / f"{path.name}.unfinished"
    unfinished.write_bytes(statistics.SerializeToString(deterministic=True))
    unfinished.replace(path)


def _compare_and_write(
    directory: str,
    manifest: Manifest,
    output: str,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema | None,
    schema_text: str,
    before: statistics_pb2.DatasetFeatureStatisticsList | None,
) -> dict[str, Any]:
    folder, inferred_sha256 = epath.Path(output), ""
    if schema is None:
        schema = record_schema.infer_schema(manifest, statistics)
        schema_text = record_schema.as_text(schema, manifest.kind)
        inferred_sha256 = hashlib.sha256(schema_text.encode()).hexdigest()
    compared = anomalies.compare_splits(statistics, schema)
    if before is not None:
        compared += anomalies.compare_runs(statistics, before, schema)
    in_manifest = {name: split["num_records"] for name, split in manifest.splits.items()}
    found = anomalies.find_anomalies(statistics, schema, compared, in_manifest)
    (folder / record_schema.SCHEMA_NAME).write_text(schema_text)
    (folder / ANOMALIES_NAME).write_text(anomalies.as_text(anomalies.to_proto(found, compared)))
    page = validation_page.render_page(
        f"Records of {manifest.source}: {manifest.num_records:,} {manifest.kind}",
        _describe(manifest),
        statistics,
        found,
        compared,
    )
    (folder / PAGE_NAME).write_text(page)
    return {
        "directory": str(directory),
        "output": str(output),
        "inferred_sha256": inferred_sha256,
        "num_records": {split.name: split.num_examples for split in statistics.datasets},
        "anomalies": [(one.name, one.sentence) for one in found],
    }


def _describe(manifest: Manifest) -> str:
    side = f", {manifest.image_size} px" if manifest.kind == "images" else ""
    return (
        f"{manifest.num_findings} concepts of {manifest.concept_table}{side}; "
        f"records {manifest.fingerprint[:16]}"
    )


def _finish(result: dict[str, Any], fingerprint: str) -> Validation:
    validation = Validation(fingerprint=fingerprint, **result)
    text = json.dumps(dataclasses.asdict(validation), indent=1) + "\n"
    (epath.Path(validation.output) / RESULT_NAME).write_text(text)
    return validation


def _find_current(output: str, fingerprint: str) -> Validation | None:
    earlier = _read_result(output)
    complete = all((epath.Path(output) / name).exists() for name in (STATISTICS_NAME, PAGE_NAME))
    return earlier if earlier and complete and earlier.fingerprint == fingerprint else None


def _read_result(output: str) -> Validation | None:
    path = epath.Path(output) / RESULT_NAME
    if not path.exists():
        return None
    try:
        return Validation(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError):  # of another version
        return None


def _remove_result(output: str, schema: str) -> None:
    """Removes an earlier result, and its schema where that was inferred and is not asked for."""
    if not schema:
        (epath.Path(output) / record_schema.SCHEMA_NAME).unlink(missing_ok=True)
    (epath.Path(output) / RESULT_NAME).unlink(missing_ok=True)


def _read_baseline(
    baseline: str, manifest: Manifest, beam_options: Sequence[str]
) -> statistics_pb2.DatasetFeatureStatisticsList:
    path = epath.Path(baseline) / STATISTICS_NAME
    if path.exists():
        before = read_statistics(path)
    else:
        requirement = f"records, or a folder with the {STATISTICS_NAME} of their validation"
        has_manifest = (epath.Path(baseline) / "manifest.json").exists()
        require(has_manifest, "--baseline", requirement, baseline)
        run(input=baseline, beam_options=beam_options)
        before = read_statistics(epath.Path(default_output(baseline)) / STATISTICS_NAME)
    kinds = {bool("image" in statistics_proto.features_by_name(split)) for split in before.datasets}
    of_kind = kinds == {manifest.kind == "images"}
    require(of_kind, "--baseline", f"of {manifest.kind}, as the input is", baseline)
    return before


def validate(**arguments) -> None:
    """`run`, and a line on what it found.

    Raises:
        AnomalousRecordsError: there are anomalies.
    """
    result = run(**arguments)
    result.require_valid()
    counts = ", ".join(f"{split} {count}" for split, count in result.num_records.items())
    page = epath.Path(result.output) / PAGE_NAME
    print(f"validate_records: no anomaly in {arguments['input']} ({counts}). All of it: {page}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the job from a command line; an anomaly gives its sentence and exit status 1."""
    parser = argparse.ArgumentParser(
        "validate_records",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--input", required=True, help="folder of records")
    parser.add_argument("--schema", default="", help="a schema.pbtxt (default: one is inferred)")
    parser.add_argument("--baseline", default="", help="the last run's records, or their validation")
    parser.add_argument("--output", default="", help="folder for the results (default: INPUT.validation)")
    run_or_exit(validate, parser, argv)


if __name__ == "__main__":
    # Under its own name, so that other processes can import what they are sent.
    from beam_jobs import validate_records

    validate_records.main()
