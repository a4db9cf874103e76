"""Image files → records of decoded pixels.

    python -m beam_jobs.decode_images --source nih_chestxray14 --input PATH --output DIR --image_size 256
        [--concepts NAME or FILE] [--reports DIR] [--allow_annotation]
        [--evaluation_set NAME | --hold_out NAME[=PATH]] [Beam options]

A record per image: gray uint8 pixels on a black square of the given side, with the archive's labels
(`medclip_keras.records.schema`). JPEG and PNG files are turned upright by their EXIF orientation. A file of
more than 2**26 pixels is a bad row. 16-bit PNG files keep their values; the pictures of those that hold 14
bits or fewer are nearly black, and the manifest counts them (`images_nearly_black`). `--reports` names
records of label_reports; each image gets the sentences of its own study, if any. Only rows are grouped: the
step that writes a shard decodes its pixels and reads its sentences.

`--label_precedence` combines an image's labels in the archive's table with those of its study's report:

table         finding by finding, first the table's state: default for your own table
report        finding by finding, first the report's state
table_alone   the report's states only for images without any in the table: default for published archives

The second adds no finding to the first's No Finding, and no No Finding to its findings. A concept that
neither the archive nor a report labels is unlabelled in the record (`LabelState`). Of images with a report,
the manifest counts the states from either (`labels_of_table`, `labels_of_report`) and those that lost
(`labels_overruled`).

`--evaluation_set` records the images of that set alone (`medclip_keras.sources.evaluation_sets`), in its own
splits, and all of them or none; `--hold_out` leaves out the patients of the named sets.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from beam_jobs.dataset import report_join
from beam_jobs.dataset.job import WITH_SENTENCES, Job, recorded_options, require_rows, run_job
from beam_jobs.dataset.key_salts import is_private, with_key_salt
from beam_jobs.dataset.options import JobOptions, new_parser, option, run_job_command
from beam_jobs.dataset.selection import select
from beam_jobs.dataset.sharding import KeyedRow, Outcome
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import NO_FINDING, ConceptTable, load_table
from medclip_keras.knowledge.states import LabelState, StateVector, is_stated
from medclip_keras.preprocess import images, orientation
from medclip_keras.records.manifest import Manifest, read_manifest, verify
from medclip_keras.records.schema import OPTIONAL, is_nearly_black, parse_report
from medclip_keras.sources import codestreams, dicom, dicom_jpeg, dicom_picture, get_source
from medclip_keras.sources.rows import BadRowError, ImageContent, ImageRow

WITH_LABELS = "images_with_labels"
NEARLY_BLACK = "images_nearly_black"  # counted in the manifest if there are any
PRECEDENCES = ("table", "report", "table_alone")
_DECODING = (images, orientation, dicom, dicom_picture, dicom_jpeg, codestreams)  # these decide the pixels
LABEL_TAGS = ("labels_of_table", "labels_of_report", "labels_overruled")


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(JobOptions):
    """`JobOptions`, the stored size, the joined reports and the evaluation set."""

    image_size: int = option("side of the stored images (default %(default)s)", 256)
    reports: str = option("records of label_reports, to be joined by study", "")
    allow_annotation: bool = option(
        "accept DICOM files whose header says that words are burned into the image", False
    )
    label_precedence: str = option(
        "which labels count: table, report or table_alone (see above; the default depends on the source)", ""
    )
    evaluation_set: str = option("record this set alone, for example chexpert_5x200", "")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.image_size >= 16, "image_size", "at least 16 pixels", self.image_size)
        known = self.label_precedence in ("", *PRECEDENCES)
        require(known, "label_precedence", f"one of {', '.join(PRECEDENCES)}", self.label_precedence)


class DecodeImage:
    """Decode one image, and order its labels by the concept table."""

    def __init__(
        self,
        read_image: Callable[[ImageRow], ImageContent],
        table: ConceptTable,
        image_size: int,
        allow_annotation: bool = False,
        precedence: str = "table_alone",
        silence: LabelState = LabelState.UNLABELLED,
    ):
        self._read_image, self._table = read_image, table
        self._precedence, self._silence = precedence, silence
        os.environ[dicom.ALLOW_ANNOTATION] = str(int(allow_annotation))  # of this worker
        # Traced once per process: half the time of small images is the overhead of single operations.
        self._decode = tf.function(
            functools.partial(images.decode_to_square, size=image_size),
            input_signature=[tf.TensorSpec((), tf.string)],
        )
        self._resize = tf.function(
            functools.partial(images.picture_to_square, size=image_size),
            input_signature=[tf.TensorSpec((None, None), tf.uint16)],
        )

    def __call__(self, keyed: KeyedRow[ImageRow]) -> Outcome:
        """Make the record of an image.

        Raises:
            BadRowError: the file cannot be read or decoded.
        """
        content = self._read_image(keyed.row)
        try:
            image = self._resize(content) if isinstance(content, np.ndarray) else self._decode(content)
        except tf.errors.InvalidArgumentError as error:
            raise BadRowError(images.why_undecoded(error)) from None
        sentences, said = own_report(keyed.reports, len(self._table))
        labels = label_states(keyed.row.labels, self._table.names, self._silence)
        states = combine_labels(labels, said, self._table, self._precedence)
        record = {
            **keyed.keys,
            "view": keyed.row.view,
            **{name: getattr(keyed.row, name) for name in OPTIONAL},
            "image": image.numpy(),
            "label_states": states,
            "sentences": sentences,
        }
        tags = {WITH_SENTENCES: int(bool(sentences)), WITH_LABELS: int(is_stated(states).any())}
        tags[NEARLY_BLACK] = int(is_nearly_black(record["image"]))
        if keyed.reports:
            tags |= count_labels(labels, said, states)
        return Outcome(record, tuple(tag for tag, count in tags.items() for _ in range(count)))


def label_states(
    labels: Mapping[str, LabelState], names: Sequence[str], silence: LabelState = LabelState.UNLABELLED
) -> np.ndarray:
    """(num_findings,) int8 of an archive's labels; names that the table does not have are left out.

    Concepts of the table without a label get the state `silence`.
    """
    return np.array([labels.get(name, silence) for name in names], np.int8)


def combine_labels(
    labels: StateVector, said: StateVector, table: ConceptTable, precedence: str
) -> StateVector:
    """Combine the table's states of an image and its report's, (num_findings,) each; see the module.

    A concept is unlabelled if both leave it so; a report labels every concept.
    """
    first, second = (said, labels) if precedence == "report" else (labels, said)
    if precedence == "table_alone" and is_stated(labels).any():
        return labels
    taken = ~is_stated(first) & (second != LabelState.UNLABELLED)
    if NO_FINDING in table.names:
        normal, abnormal = table.index(NO_FINDING), list(table.abnormal)
        present = (LabelState.POSITIVE, LabelState.UNCERTAIN)
        if first[normal] == LabelState.POSITIVE:
            taken[abnormal] &= ~np.isin(second[abnormal], present)
        if np.isin(first[abnormal], present).any():
            taken[normal] &= second[normal] != LabelState.POSITIVE
    return np.where(taken, second, first)


def count_labels(labels: StateVector, said: StateVector, states: StateVector) -> dict[str, int]:
    """States of an image by the tags of `LABEL_TAGS`; equal states of both count as the table's."""
    in_table, in_report = is_stated(labels), is_stated(said)
    of_table = in_table & (labels == states)
    of_report = in_report & (said == states) & ~of_table
    overruled = in_table & (labels != states) | in_report & (said != states)
    return dict(zip(LABEL_TAGS, (int(x.sum()) for x in (of_table, of_report, overruled)), strict=True))


def own_report(serialized: Iterable[bytes], num_findings: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Join the sentences and states of a study's report records, in the order of their keys.

    Returns:
        Sentences as `schema.encode` takes them, and (num_findings,) int8: of several reports positive decides
        before uncertain before negative; without a report every concept is unlabelled.
    """
    records = [parse_report(one, num_findings) for one in serialized]
    records.sort(key=lambda record: record["record_key"])
    states = np.full(num_findings, LabelState.NOT_MENTIONED if records else LabelState.UNLABELLED, np.int8)
    for state in (LabelState.NEGATIVE, LabelState.UNCERTAIN, LabelState.POSITIVE):
        for record in records:
            states[record["label_states"] == state] = state
    return [sentence for record in records for sentence in record["sentences"]], states


def open_reports(options: DecodeOptions, table: ConceptTable) -> Manifest:
    """Read and check the manifest of the report records.

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
    """Make the job for some options.

    Raises:
        ValueError: an unknown source or concept table, a source without images, reports that do not fit, or
            an evaluation set that cannot be made of the source.
    """
    archive, table = get_source(options.source), load_table(options.concepts)
    require_rows(archive, "images")
    options = with_key_salt(options, archive)
    selection = select(options.source, options.input, options.evaluation_set, options.hold_out)
    reports = open_reports(options, table) if options.reports else None

    return Job(
        name="decode_images",
        kind="images",
        options=options,
        source=archive,
        table=table,
        start=functools.partial(
            DecodeImage,
            archive.read_image,
            table,
            options.image_size,
            options.allow_annotation,
            options.label_precedence or ("table" if is_private(archive) else "table_alone"),
            LabelState.NOT_MENTIONED if getattr(archive, "LABELS_ALL", False) else LabelState.UNLABELLED,
        ),
        modules=(*_DECODING, report_join, sys.modules[__name__]),
        tags=(WITH_LABELS, WITH_SENTENCES, *(LABEL_TAGS if reports else ()), *selection.tags),
        selection=selection,
        reports=reports,
    )


def run(*, source: str, input: str, output: str, **options) -> Manifest:
    """Decode images; `options` are the fields of `DecodeOptions`. Returns the manifest of the records.

    Raises:
        ValueError: before any work, if an option, the input or the reports cannot be used; after it, if
            more rows than `max_bad_fraction` were bad.
    """
    return run_job(make_job(DecodeOptions(source=source, input=input, output=output, **options)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line, and return the exit status."""
    return run_job_command(run, new_parser("beam_jobs.decode_images", __doc__, DecodeOptions), argv)


if __name__ == "__main__":
    # Under its own name, so that other processes can import what is pickled.
    from beam_jobs import decode_images

    sys.exit(decode_images.main())
