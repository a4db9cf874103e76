"""Records → statistics, schema and anomalies: checks that records are fit for training.

    python -m beam_jobs.validate_records --input DIR [DIR …] [--schema FILE] [--baseline DIR] [--output DIR2]
        [Beam options]

Several folders are validated one by one and then compared: no patient, no picture and no nearly equal picture
may be in two splits of them (`beam_jobs.validation.leaks`). Give all that a model trains and is tested on.

It leaves five files in DIR2 (default: DIR.validation; of several folders, DIR2/NAME of the folder):

- `statistics.json`: counts and distributions of each split;
- `schema.json`: inferred, or given with --schema. Edit it, and it is used from then on; remove it, and it is
  inferred again;
- `validation.json`: the anomalies, against the schema, between splits and against the baseline;
- `report.html`: all of it as a page;
- `marks.npz`: each record's digests of patient and picture, and the picture in 16 x 16 gray values, for the
  comparison with other folders. Keep it with the records: it traces their keys.

No report text and no identifier is in any of them.

The exit status is 1 if there is an anomaly. A second run over the same records, schema and baseline reads
the result of the first.
"""

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from etils import epath

from beam_jobs import validation
from beam_jobs.dataset import options as jobs
from beam_jobs.validation import anomalies, leaks, marks, page
from beam_jobs.validation import schema as schemas
from beam_jobs.validation import statistics as gathered
from beam_jobs.validation.marks import MARKS_NAME
from beam_jobs.validation.statistics import STATISTICS_NAME, Statistics, read_statistics
from medclip_keras.errors import require
from medclip_keras.files import write_whole
from medclip_keras.locks import sole_writer
from medclip_keras.provenance import code_sha256, file_sha256, sha256_of
from medclip_keras.records import schema as record_schema
from medclip_keras.records import shards
from medclip_keras.records.manifest import (
    MANIFEST_NAME,
    Manifest,
    load_concepts,
    read_manifest,
    verify,
)

PAGE_NAME, RESULT_NAME = "report.html", "validation.json"  # the second is written last
COMPARISON_NAME = "comparison.json"  # of folders with each other
_OLD_NAMES = ("statistics.pb", schemas.OLD_SCHEMA_NAME, "anomalies.pbtxt")  # of the last version
_NUM_SHOWN = 20  # anomalies in a message


class AnomalousRecordsError(ValueError):
    """Records have anomalies; the message has a line for each."""


@dataclass(frozen=True)
class Validation:
    """Result of a validation."""

    directory: str  # of the records
    output: str  # folder of the four files
    fingerprint: str  # of the records, the schema, the baseline and the code
    inferred_sha256: str  # of the schema file as it was inferred; "" if it was given
    num_records: Mapping[str, int]  # of each split
    anomalies: Sequence[Sequence[str]]  # pairs of name and sentence

    def require_valid(self, advice: str = "") -> None:
        """Raise unless there is no anomaly.

        Raises:
            AnomalousRecordsError: with a line for each anomaly.
        """
        if not self.anomalies:
            return
        lines = "".join(f"\n  {name}: {sentence}" for name, sentence in self.anomalies[:_NUM_SHOWN])
        more = len(self.anomalies) - _NUM_SHOWN
        lines += f"\n  and {more} more" if more > 0 else ""
        noun = "anomaly" if len(self.anomalies) == 1 else "anomalies"
        raise AnomalousRecordsError(
            f"{self.directory} has {len(self.anomalies)} {noun}:{lines}\n"
            f"Details: {epath.Path(self.output) / PAGE_NAME}. {advice}".rstrip()
        )


def run(
    *,
    input: str,
    schema: str = "",
    baseline: str = "",
    output: str = "",
    beam_options: Sequence[str] = (),
) -> Validation:
    """Validate a folder of records.

    Args:
        input: folder of records.
        schema: a schema.json; "": the edited one in `output`, else an inferred one.
        baseline: records of the last run, or the output of their validation; "": none.
        output: folder for the results; "": `input` and ".validation".
        beam_options: passed on to Apache Beam.

    Raises:
        ValueError: before any work, if an argument cannot be used or a shard differs from its manifest.
    """
    jobs.require_known_options(beam_options, ("input", "schema", "baseline", "output"))
    output = output or default_output(input)
    require(not jobs.lies_within(output, input), "output", "a folder outside of the records", output)
    manifest, folder = read_manifest(input), epath.Path(output)
    schema = schema or kept_schema(output)
    rules = schemas.read_schema(schema) if schema else {}
    before = _read_baseline(baseline, manifest, beam_options) if baseline else {}
    schema_text = epath.Path(schema).read_text() if schema else ""
    made_from = [manifest.fingerprint, schema_text, gathered.to_json(before), own_code_sha256()]
    earlier = _read_result(output)
    complete = all(
        (folder / name).exists() for name in (STATISTICS_NAME, PAGE_NAME, MARKS_NAME, schemas.SCHEMA_NAME)
    )
    if earlier is not None and complete and earlier.fingerprint == sha256_of(made_from):
        return earlier
    with sole_writer(output):
        verify(input)
        for name in (*([] if schema else [schemas.SCHEMA_NAME]), RESULT_NAME, *_OLD_NAMES):
            (folder / name).unlink(missing_ok=True)
        statistics = gather_statistics(input, manifest, output, beam_options)
        if not schema:
            rules = schemas.infer_schema(manifest, load_concepts(input).names, statistics)
            schema_text = schemas.to_json(rules)
        found = _find_and_show(manifest, folder, statistics, rules, before)
        result = Validation(
            directory=str(input),
            output=str(output),
            fingerprint=sha256_of(made_from),
            inferred_sha256="" if schema else hashlib.sha256(schema_text.encode()).hexdigest(),
            num_records={name: split.totals["records"] for name, split in statistics.items()},
            anomalies=[[one.name, one.sentence] for one in found],
        )
        # The schema last: one without the result that made it would pass for the owner's.
        write_whole(folder / RESULT_NAME, json.dumps(dataclasses.asdict(result), indent=1) + "\n")
        write_whole(folder / schemas.SCHEMA_NAME, schema_text)
        return result


def kept_schema(output: epath.PathLike) -> str:
    """Path of the given or edited schema in an output; "" if it has none, or the inferred one."""
    earlier = _read_result(output)
    inferred = earlier.inferred_sha256 if earlier else ""
    paths = [epath.Path(output) / name for name in (schemas.SCHEMA_NAME, schemas.OLD_SCHEMA_NAME)]
    return next((str(path) for path in paths if path.exists() and file_sha256(path) != inferred), "")


def schema_in_force(directory: epath.PathLike, output: epath.PathLike) -> str:
    """Kept schema of records: the one beside them first, else the one in another output."""
    return kept_schema(default_output(directory)) or kept_schema(output)


def default_output(directory: epath.PathLike) -> str:
    """Default folder for the result of a folder of records."""
    return f"{str(directory).rstrip('/')}.validation"


def own_code_sha256() -> str:
    """SHA-256 of the code that decides a validation."""
    return code_sha256((validation, record_schema, shards, sys.modules[__name__]))


def gather_statistics(
    directory: str, manifest: Manifest, output: str, beam_options: Sequence[str] = ()
) -> Statistics:
    """Run the pipeline over a dataset; it leaves `statistics.json` and `marks.npz` in the output."""
    folder = epath.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: str(folder / name) for name in (STATISTICS_NAME, MARKS_NAME)}
    with jobs.running_pipeline(beam_options) as pipeline:
        concepts = load_concepts(directory).names
        read = gathered.read_facts(pipeline, str(directory), manifest, concepts)
        tallies = read.facts | "GatherTallies" >> gathered.GatherTallies(concepts)
        write = beam.Map(gathered.write_statistics, beam.pvalue.AsDict(tallies))
        _ = pipeline | "Output" >> beam.Create([paths[STATISTICS_NAME]]) | "WriteStatistics" >> write
        write = beam.Map(marks.write_marks, beam.pvalue.AsList(read.marks))
        _ = pipeline | "OutputOfMarks" >> beam.Create([paths[MARKS_NAME]]) | "WriteMarks" >> write
    return read_statistics(paths[STATISTICS_NAME])


def _find_and_show(
    manifest: Manifest,
    folder: epath.Path,
    statistics: Statistics,
    schema: schemas.Schema,
    before: Statistics,
) -> list[anomalies.Anomaly]:
    """Find the anomalies, and write the page."""
    compared = [
        *anomalies.compare_splits(statistics, statistics, schema, "skew"),
        *anomalies.compare_splits(statistics, before, schema, "drift"),
    ]
    in_manifest = {name: split["num_records"] for name, split in manifest.splits.items()}
    found = anomalies.find_anomalies(statistics, schema, compared, in_manifest)
    found += leaks.find_leaks([marks.read_marks("these records", manifest, folder / MARKS_NAME)])
    title = f"Records of {manifest.source}: {manifest.num_records:,} {manifest.kind}"
    side = f", {manifest.image_size} px" if manifest.kind == "images" else ""
    concepts = f"{manifest.num_findings} concepts of {manifest.concept_table}"
    note = f"{concepts}{side}; records {manifest.fingerprint[:16]}"
    (folder / PAGE_NAME).write_text(page.render_page(title, note, statistics, found, compared))
    return found


def _read_result(output: epath.PathLike) -> Validation | None:
    """Earlier result in an output; None without one, or if it is of another version."""
    path = epath.Path(output) / RESULT_NAME
    try:
        return Validation(**json.loads(path.read_text())) if path.exists() else None
    except (json.JSONDecodeError, TypeError):
        return None


def _read_baseline(baseline: str, manifest: Manifest, beam_options: Sequence[str]) -> Statistics:
    path = epath.Path(baseline) / STATISTICS_NAME
    if not path.exists():
        requirement = f"records, or a folder with the {STATISTICS_NAME} of their validation"
        advice = "Name the folder of the baseline's records."
        require((epath.Path(baseline) / MANIFEST_NAME).exists(), "--baseline", requirement, baseline, advice)
        path = epath.Path(run(input=baseline, beam_options=beam_options).output) / STATISTICS_NAME
    before = read_statistics(path)
    of_kind = all(("image" in split.lengths) == (manifest.kind == "images") for split in before.values())
    require(of_kind, "--baseline", f"of {manifest.kind}, as the input is", baseline)
    return before


def compare(outputs: Mapping[str, epath.PathLike], kept_in: epath.PathLike = "") -> list[list[str]]:
    """Compare validated folders with each other.

    Args:
        outputs: folder of records → output of its validation.
        kept_in: folder that keeps the result, which is read there for the same records; "": none.

    Returns:
        Names and sentences of the leaks between the folders' splits.
    """
    manifests = {directory: read_manifest(directory) for directory in outputs}
    made_from = [[directory, manifest.fingerprint] for directory, manifest in manifests.items()]
    fingerprint = sha256_of([made_from, own_code_sha256()])
    path = epath.Path(kept_in) / COMPARISON_NAME if kept_in else None
    if path and path.exists():
        with contextlib.suppress(json.JSONDecodeError):  # half a file, of a killed process
            earlier = json.loads(path.read_text())
            if earlier["fingerprint"] == fingerprint:
                return earlier["leaks"]
    own = [
        marks.read_marks(directory, manifest, epath.Path(outputs[directory]) / MARKS_NAME)
        for directory, manifest in manifests.items()
    ]
    found = [[one.name, one.sentence] for one in leaks.find_leaks(own, within=False)]
    if path:
        path.write_text(json.dumps({"fingerprint": fingerprint, "leaks": found}, indent=1) + "\n")
    return found


def require_no_leak(leaks_found: Sequence[Sequence[str]], advice: str = "") -> None:
    """Raise `AnomalousRecordsError` with a line for each leak between folders."""
    if leaks_found:
        lines = "".join(f"\n  {name}: {sentence}" for name, sentence in leaks_found[:_NUM_SHOWN])
        raise AnomalousRecordsError(f"The folders have leaks between their splits:{lines}\n{advice}".rstrip())


def validate(*, input: Sequence[str], output: str = "", **arguments: Any) -> None:
    """Validate folders, compare them, and print a line on each result.

    Raises:
        AnomalousRecordsError: there are anomalies, or leaks between the folders.
    """
    alone = len(input) == 1
    for name in ("schema", "baseline"):
        given = arguments.get(name)
        require(alone or not given, f"--{name}", "left out for several folders", given)
    names = [epath.Path(directory).name for directory in input]
    distinct = len(set(names)) == len(names) or not output
    require(distinct, "--input", "folders of different names with one --output", list(input))
    outputs = [output if alone or not output else str(epath.Path(output) / name) for name in names]
    results = [
        run(input=directory, output=own, **arguments) for directory, own in zip(input, outputs, strict=True)
    ]
    failures = []
    for result in results:
        try:
            result.require_valid()
        except AnomalousRecordsError as error:
            failures.append(str(error))
            continue
        counts = ", ".join(f"{split} {count}" for split, count in result.num_records.items())
        details = epath.Path(result.output) / PAGE_NAME
        print(f"validate_records: no anomaly in {result.directory} ({counts}). Details: {details}")
    try:
        require_no_leak(compare({one.directory: one.output for one in results}))
    except AnomalousRecordsError as error:
        failures.append(str(error))
    if failures:
        raise AnomalousRecordsError("\n".join(failures))
    if not alone:
        print("validate_records: no patient and no picture is in two splits of these folders.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line; the exit status is 1 for an anomaly."""
    parser = jobs.new_parser("beam_jobs.validate_records", __doc__)
    add = parser.add_argument
    add("--input", required=True, nargs="+", metavar="DIR", help="folders of records")
    add("--schema", default="", help="a schema.json (default: one is inferred)")
    add("--baseline", default="", help="the last run's records, or their validation")
    add("--output", default="", help="folder for the results (default: INPUT.validation)")
    return jobs.run_job_command(validate, parser, argv)


if __name__ == "__main__":
    # Under its own name, so that other processes can import what is pickled.
    from beam_jobs import validate_records

    sys.exit(validate_records.main())
