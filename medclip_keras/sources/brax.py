"""BRAX: chest X-rays of one hospital in Brazil, with labels that a program took from their (unpublished)
reports.

Layout on disk, as published (https://physionet.org/content/brax/1.1.0/)
    master_spreadsheet_update.csv    a row an image: DicomPath, PngPath, PatientID, AccessionNumber,
                                     ViewPosition, 14 label columns, …; or master_spreadsheet.csv
    images/id_<PatientID>/Study_<UID>/Series_<UID>/image-<UID>.png
    Anonymized_DICOMs/id_<PatientID>/Study_<UID>/Series_<UID>/image-<UID>.dcm
PNG files go first: DICOM files are read where the folder has no `images`. Both paths are relative to the
folder. The loader https://github.com/f10409/RadHarmony/blob/main/radharmony/harmonizer/brax.py reads the same
columns.

Counts of the release: 40,967 images of 24,959 studies of 19,351 patients. It publishes no split: the split is
by patient.

Labels are CheXpert's 14, of the study, coded 1 positive, 0 negative, -1 uncertain, blank not mentioned; by
CheXpert's labeller with rules for Portuguese.

A study is known by its patient and AccessionNumber. Views by ViewPosition: AP and PA are frontal, LL and RL
lateral, others (oblique, decubitus, blank) unknown.

Refused before any work: a missing table or column; a repeated image; a row without a patient, a study or a
path; a label that is no code."""

from collections.abc import Iterator

from etils import epath

from medclip_keras.sources import dicom, tables
from medclip_keras.sources.rows import ImageRow, age_of, position_of, sex_of

CITATION = "Reis et al., BRAX, Brazilian labeled chest X-ray dataset, Scientific Data 9, 2022"
LICENCE = "PhysioNet Credentialed Health Data License"

read_image = dicom.read_image  # PNG or DICOM files

TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
_CONCEPT_OF_LABEL = tables.concepts_of("brax")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of the table; `path` is the folder that holds it."""
    root = epath.Path(path)
    advice = "Download it from https://physionet.org/content/brax/1.1.0/."
    table = tables.require_file(root, TABLES, advice)
    file = "PngPath" if (root / "images").is_dir() else "DicomPath"
    ids = (file, "PatientID", "AccessionNumber")
    rows = []
    for row in tables.read_table(table, (*ids, "ViewPosition", *_CONCEPT_OF_LABEL)):
        for column in ids:
            if not row[column]:
                row.refuse(column, "filled", "Download the table again.")
        image = ImageRow(
            image_id=row[file],
            study_id=f"{row['PatientID']}/{row['AccessionNumber']}",
            patient_id=row["PatientID"],
            path=f"{root}/{row[file]}",
            view=dicom.view_of_position(row["ViewPosition"]),
            labels=tables.states_in(row, _CONCEPT_OF_LABEL),
            view_position=position_of(row["ViewPosition"]),
            sex=sex_of(row.get("PatientSex", "")),
            age=age_of(row.get("PatientAge", "")),
        )
        rows.append(image)
    tables.require_distinct((row.image_id for row in rows), file, table)
    yield from rows
