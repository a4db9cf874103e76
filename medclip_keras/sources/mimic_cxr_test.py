"""MIMIC-CXR's test studies with labels by a radiologist, which MIMIC-CXR-JPG 2.1.0 adds.

Layout on disk, as published (https://physionet.org/content/mimic-cxr-jpg/2.1.0/), the folder of `mimic_cxr`
with
    mimic-cxr-2.1.0-test-set-labeled.csv    a row a study: study_id, then label columns; or .csv.gz
The loader
https://github.com/f10409/RadHarmony/blob/main/radharmony/harmonizer/mimic_cxr/mimic_cxr_jpg_test.py reads the
same columns: 14, as CheXpert's, but `Airspace Opacity` for Lung Opacity.

Counts of the release: 687 studies of the test split.

A source of its own, so that records of `mimic_cxr` have the same labels with and without that table. Images
and reports are those of `mimic_cxr` of the table's studies, in the release's split, under the same
identifiers. Labels: 1 positive, 0 negative, -1 uncertain, blank not mentioned. They are of the reports, not
of the images: with `label_reports` the same reports measure a labeller.

Refused before any work: what `mimic_cxr` refuses; a missing table; a column that is no label's; a repeated
study; a study without images."""

from collections.abc import Iterator
from dataclasses import replace

from etils import epath

from medclip_keras.errors import near_names, require
from medclip_keras.sources import mimic_cxr, tables
from medclip_keras.sources.rows import ImageRow, ReportRow

CITATION = mimic_cxr.CITATION
LICENCE = mimic_cxr.LICENCE
PATIENTS_OF = "mimic_cxr"

read_image, read_report = mimic_cxr.read_image, mimic_cxr.read_report

TABLE = "mimic-cxr-2.1.0-test-set-labeled.csv"
_CONCEPT_OF_LABEL = tables.concepts_of("mimic_cxr_test")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of the table's studies; `path` is the folder of `mimic_cxr`."""
    labels_of = _labels(path)
    rows = [row for row in mimic_cxr.image_rows(path) if row.study_id in labels_of]
    missing = labels_of.keys() - {row.study_id for row in rows}
    received = f"{len(missing)} of {len(labels_of)} studies of {TABLE} without any"
    advice = "Take all tables of one release."
    require(not missing, "study_id", "that of images of the metadata", received, advice)
    yield from (replace(row, labels=labels_of[row.study_id]) for row in rows)


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports of the table's studies."""
    labels_of = _labels(path)
    yield from (row for row in mimic_cxr.report_rows(path) if row.study_id in labels_of)


def _labels(path: epath.PathLike) -> dict[str, tables.Labels]:
    """study_id → labels."""
    advice = "Download it from https://physionet.org/content/mimic-cxr-jpg/2.1.0/."
    table = tables.require_file(epath.Path(path), [TABLE, f"{TABLE}.gz"], advice)
    labels: dict[str, tables.Labels] = {}
    for row in tables.read_table(table, ("study_id", "Airspace Opacity")):
        for column in row.keys() - {"study_id", "subject_id"}:
            known = near_names(column, _CONCEPT_OF_LABEL)
            require(column in _CONCEPT_OF_LABEL, "column", f"a label's, in {table}", column, known)
        if row["study_id"] in labels:
            row.refuse("study_id", f"different in every row of {table}", "Download it again.")
        labels[row["study_id"]] = tables.states_in(row, _CONCEPT_OF_LABEL)
    return labels
