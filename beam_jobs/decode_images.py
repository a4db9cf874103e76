"""Image files → records of decoded pixels.

    python -m beam_jobs.decode_images --source nih_chestxray14 --input PATH --output DIR --image_size 256
        [--concepts NAME or FILE] [--reports DIR] [--allow_annotation]
        [--evaluation_set NAME | --hold_out NAME[=PATH]] [Beam options]

A record an image: gray uint8 pixels on a black square of the given side, with the archive's labels
(`medclip_keras.records.schema`). `--reports` names records of label_reports; each image gets the sentences of
its own study, where there are any, and their labels where the archive has none for the image. Only rows are
grouped: the step that writes a shard decodes its pixels and reads its sentences.

`--evaluation_set` records the images of that set alone (`medclip_keras.sources.evaluation_sets`), in its own
splits, and all of them or none; `--hold_out` everything but the patients of the sets that it names.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf

from beam_jobs.dataset import report_join
from beam_jobs.dataset.job import Job, recorded_options, rows_of, run_job
from beam_jobs.dataset.options import JobOptions, new_parser, run_or_exit
from beam_jobs.dataset.report_join import FetchReports, read_places
from beam_jobs.dataset.selection import EVERYTHING, Selection, select
from beam_jobs.dataset.sharding import KeyedRow, MakeShards, Outcome
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.preprocess import images
from medclip_keras.records.manifest import Manifest, read_manifest, verify
from medclip_keras.records.schema import parse_report
from medclip_keras.sources import dicom, get_source
from medclip_keras.sources.rows import BadRowError, ImageContent, ImageRow

WITH_SENTENCES = "images_with_sentences"
WITH_LABELS = "images_with_labels"


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(JobOptions):
    """`JobOptions`, and the arguments of `main`; `reports` and `evaluation_set` may be ""."""

    image_size: int = 256
    reports: str = ""
    allow_annotation: bool = False
    evaluation_set: str = ""

    def __post_init__(self):
        super().__post_init__()
        require(self.image_size >= 16, "image_size", "at least 16 pixels", self.image_size)


class DecodeImage:
    """Decodes one image and brings its labels into the table's order."""

    def __init__(
        self,
        read_image: Callable[[ImageRow], ImageContent],
        table: ConceptTable,
        image_size: int,
        allow_annotation: bool = False,
    ):
        self._read_image, self._names = read_image, table.names
        os.environ[dicom.ALLOW_ANNOTATION] = str(int(allow_annotation))  # of this worker
        # Traced once a process: half the time of small images goes into calling one operation after another.
        self._decode = tf.function(
            functools.partial(images.decode_to_square, size=image_size),
            input_signature=[tf.TensorSpec((), tf.string)],
        )
        self._resize = tf.function(
            functools.partial(images.picture_to_square, size=image_size),
            input_signature=[tf.TensorSpec((None, None), tf.uint16)],
        )

    def __call__(self, keyed: KeyedRow) -> Outcome:
        """The record of an image.

        Raises:
            BadRowError: the file cannot be read or decoded.
        """
        content = self._read_image(keyed.row)
        try:
            image = self._resize(content) if isinstance(content, np.ndarray) else self._decode(content)
        except tf.errors.InvalidArgumentError:
            raise BadRowError("not a whole JPEG or PNG file") from None
        sentences, states = own_report(keyed.reports, len(self._names))
        labels = label_states(keyed.row.labels, self._names)
        if labels.any():
            states = labels
        record = {
            "record_key": keyed.record_key,
            "study_id": keyed.study_id,
            "patient_id": keyed.patient_id,
            "split": keyed.split,
            "view": keyed.row.view,
            "image": image.numpy(),
            "label_states": states,
            "sentences": sentences,
        }
        said = {WITH_SENTENCES: bool(sentences), WITH_LABELS: bool(states.any())}
        return Outcome(record, tuple(state for state, holds in said.items() if holds))


def label_states(labels: Mapping[str, LabelState], names: Sequence[str]) -> np.ndarray:
    """(num_findings,) int8 of an archive's labels; names that the table does not have are left out."""
    return np.array([labels.get(name, LabelState.NOT_MENTIONED) for name in names], np.int8)


def own_report(serialized: Iterable[bytes], num_findings: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The sentences and states of a study's report records together, in the order of their keys.

    Args:
        serialized: report records; mostly one, or none.
        num_findings: concepts in the table.

    Returns:
        Sentences as `schema.encode` takes them, and (num_findings,) int8: of several reports positive decides
        before uncertain before negative.
    """
    records = [parse_report(one, num_findings) for one in serialized]
    records.sort(key=lambda record: record["record_key"])
    states = np.zeros(num_findings, np.int8)
    for state in (LabelState.NEGATIVE, LabelState.UNCERTAIN, LabelState.POSITIVE):
        for record in records:
            states[record["label_states"] == state] = state
    return [sentence for record in records for sentence in record["sentences"]], states


class DecodeImages(beam.PTransform):
    """{"rows": image rows[, "places": of report records]} → `ShardsMade`.

    It reads and writes by the functions it is given.

    Args:
        options: of the job.
        table: the findings.
        read_image: a source's.
        write: see `MakeShards`.
        selection: which patients are held out.
        fetch: puts the report records at `places` into the rows of a shard; see `MakeShards`.
    """

    def __init__(
        self,
        options: DecodeOptions,
        table: ConceptTable,
        read_image: Callable,
        write: Callable,
        selection: Selection = EVERYTHING,
        fetch: Callable[[list[KeyedRow], list], list[KeyedRow]] | None = None,
    ):
        super().__init__()
        self._options, self._write, self._fetch = options, write, fetch
        start = functools.partial(
            DecodeImage, read_image, table, options.image_size, options.allow_annotation
        )
        self._start = selection.start(start)

    def expand(self, inputs):
        """Adds the steps."""
        make = MakeShards(self._options, self._start, self._write, self._fetch, inputs.get("places"))
        return inputs["rows"] | "MakeShards" >> make


def open_reports(options: DecodeOptions, table: ConceptTable) -> Manifest:
    """The manifest of the report records.

    Raises:
        ValueError: not report records, a damaged shard, or keys, splits or concepts that do not fit.
    """
    advice = "Label the reports again with the options of this job."
    reports = read_manifest(options.reports)
    require(reports.kind == "reports", "reports", "records of label_reports", reports.kind)
    of_table = reports.concepts_sha256 == table.fingerprint
    require(of_table, "reports", f"records of the concepts {table.name}", reports.concept_table, advice)
    mine, theirs = recorded_options(options), reports.made_from["options"]
    for name in ("key_salt", "keep_ids", "split_salt", "split_fractions"):
        require(
            mine[name] == theirs[name], "reports", f"records made with the same {name}", theirs[name], advice
        )
    verify(options.reports)
    return reports


def make_job(options: DecodeOptions) -> Job:
    """The job that some options describe.

    Raises:
        ValueError: an unknown source or concept table, a source without images, reports that do not fit, or
            an evaluation set that cannot be made of the source.
    """
    archive, table = get_source(options.source), load_table(options.concepts)
    rows = rows_of(archive, "images")
    selection = select(options.source, options.input, options.evaluation_set, options.hold_out)
    reports = open_reports(options, table) if options.reports else None

    def build(rows, write):
        inputs = {"rows": rows}
        if reports is not None:
            inputs["places"] = read_places(rows.pipeline, options.reports, reports)
        fetch, read_image = FetchReports(options.reports), archive.read_image
        return inputs | "DecodeImages" >> DecodeImages(options, table, read_image, write, selection, fetch)

    return Job(
        name="decode_images",
        kind="images",
        options=options,
        source=archive,
        table=table,
        rows=selection.rows(rows),
        build=build,
        modules=(images, dicom, report_join, sys.modules[__name__]),
        image_size=options.image_size,
        states=(WITH_LABELS, WITH_SENTENCES, *selection.states),
        selection=selection,
        reports_sha256=reports.fingerprint if reports else "",
    )


def run(*, source: str, input: str, output: str, **options) -> Manifest:
    """Decodes images; `options` are the fields of `DecodeOptions`.

    Returns:
        The manifest of the records at `output`.

    Raises:
        ValueError: before any work, where an option, the input or the reports cannot be used; after it, where
            more rows than `max_bad_fraction` were bad.
    """
    return run_job(make_job(DecodeOptions(source=source, input=input, output=output, **options)))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the job from a command line; a wrong argument gives its sentence and exit status 1."""
    parser = new_parser("decode_images", __doc__)
    parser.add_argument("--image_size", type=int, default=256, help="side of the stored images (default 256)")
    parser.add_argument("--reports", default="", help="records of label_reports, to be joined by study")
    parser.add_argument(
        "--allow_annotation",
        action="store_true",
        help="take DICOM files whose header says that words are burned into the picture",
    )
    parser.add_argument(
        "--evaluation_set", default="", help="record this set alone, for example chexpert_5x200"
    )
    run_or_exit(run, parser, argv)


if __name__ == "__main__":
    # Under its own name, so that other processes can import what they are sent.
    from beam_jobs import decode_images

    decode_images.main()
