"""MIMIC-CXR: chest X-rays of one hospital with their reports, and labels that programs took from the reports.

Layout on disk, as published on PhysioNet; tables end in .csv.gz, or in .csv where they were unpacked
    mimic-cxr-2.0.0-metadata.csv.gz    a row an image: dicom_id, subject_id, study_id, …, ViewPosition, …
    mimic-cxr-2.0.0-split.csv.gz       dicom_id, study_id, subject_id, split
    mimic-cxr-2.0.0-chexpert.csv.gz    a row a study: subject_id, study_id, then 14 label columns
    mimic-cxr-2.0.0-negbio.csv.gz      the same; read where the one above is not there
    files/p10/p10000032/s50414267/<dicom_id>.jpg    (MIMIC-CXR-JPG) or .dcm (MIMIC-CXR); a JPG goes first
    mimic-cxr-reports/files/p10/p10000032/s50414267.txt    or files/… beside the images
    cxr-study-list.csv.gz              subject_id, study_id, path; names the reports where it is there

The tables are those of https://physionet.org/content/mimic-cxr-jpg/2.1.0/ (which still calls them 2.0.0),
the reports, the DICOM files and the study list those of https://physionet.org/content/mimic-cxr/2.1.0/.
MIMIC_Dataset of https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py reads the same
columns. Images and reports may lie in two folders: `mimic-cxr-2.0.0-split.csv.gz` is needed in both, for a
report must not train where its image tests. In a bucket keep the study list beside the reports, or every
folder is listed.

Counts of the release: 377,110 images and 227,835 reports of 65,379 patients; images by split: train 368,960,
validate 2,991, test 5,159; studies with labels: 227,827.

Labels are CheXpert's 14, of the study and so of all its images, coded 1 positive, 0 negative, -1 uncertain,
blank not mentioned; a study without a row has none. What becomes of the uncertain is decided when batches are
made. Labels join by study, splits by patient, never by the order of rows. The split is the release's,
by patient; `validate` is valid here.

Views by ViewPosition: AP and PA are frontal, LATERAL and LL lateral, others (oblique, blank) unknown.

Reports are text under headings; more than 9,000 have neither findings nor impression. Where text stands under
no heading it is read as the body; a report without any of these is counted as unusable by `label_reports`.

Refused before any work: a missing table or column; a repeated image or study; a patient in two splits, or in
none; a label that is no code; tables of labels and images without a common study."""

import functools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom
from medclip_keras.sources.files import report_text
from medclip_keras.sources.rows import ImageContent, ImageRow, ReportRow, position_of
from medclip_keras.sources.tables import (
    Labels,
    concepts_of,
    first_file,
    read_table,
    require_distinct,
    require_file,
    states_in,
)

CITATION = (
    "Johnson et al., MIMIC-CXR, a de-identified publicly available database of chest radiographs with "
    "free-text reports, Scientific Data 6, 2019; Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042"
)
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"

TABLES = "mimic-cxr-2.0.0-{}.csv"
STUDY_LIST = "cxr-study-list.csv"
REPORTS = "mimic-cxr-reports"
LABEL_TABLES = ("chexpert", "negbio")  # the first one that is there

_SPLITS = {"train": "train", "validate": "valid", "test": "test"}
_CONCEPT_OF_LABEL = concepts_of("mimic_cxr")
_ADVICE = "Download it from https://physionet.org/content/mimic-cxr-jpg/2.1.0/."
_GROUP, _PATIENT, _REPORT = re.compile(r"p\d\d"), re.compile(r"p(\d{3,})"), re.compile(r"s(\d+)\.txt")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of the metadata table; `path` is the folder that holds the tables and `files`."""
    root = epath.Path(path)
    metadata = _require_table(root, TABLES.format("metadata"))
    splits, labels_of = _splits(root), _labels(root)
    images = []  # tuples, as 377,110 rows of all columns need too much memory
    for row in read_table(metadata, ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        patient, study = sys.intern(row["subject_id"]), sys.intern(row["study_id"])
        position, split = sys.intern(row["ViewPosition"]), _split_of(splits, patient, row.place)
        images.append((row["dicom_id"], study, patient, position, split))
    require_distinct((image_id for image_id, *_ in images), "dicom_id", metadata)
    images.reverse()
    joined = any(study in labels_of for _, study, *_ in images)
    requirement = "tables of images and labels with at least one study in common"
    require(joined, "input", requirement, str(root), f"Take all tables of one release. {_ADVICE}")
    folder = f"{root}/files"
    while images:  # frees each row as it is yielded
        image_id, study, patient, position, split = images.pop()
        view, labels = dicom.view_of_position(position), _states(labels_of.get(study, b""))
        path = f"{folder}/p{patient[:2]}/p{patient}/s{study}/{image_id}.jpg"
        position = position_of(position)
        yield ImageRow(image_id, study, patient, path, view, labels, split, view_position=position)


def read_image(row: ImageRow) -> ImageContent:
    """The JPG file; the pixels of the DICOM file if there is no JPG file."""
    try:
        return dicom.read_image(row)
    except FileNotFoundError:
        return dicom.read_image(replace(row, path=row.path.removesuffix(".jpg") + ".dcm"))


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports of the study list, or else of the folder, which holds the table of the split too."""
    root = epath.Path(path)
    splits = _splits(root)
    folder = root / REPORTS if (root / REPORTS).is_dir() else root
    study_list = first_file(root, _files_of(STUDY_LIST)) or first_file(folder, _files_of(STUDY_LIST))
    reports = _listed_reports(study_list, splits) if study_list else _walk(folder, splits)
    empty = True
    for patient, study, file in reports:
        empty = False
        yield ReportRow(f"s{study}", study, patient, f"{folder}/{file}", split=splits[patient])
    requirement = f"a folder with reports such as {REPORTS}/files/p10/p10000032/s50414267.txt"
    advice = "Unpack mimic-cxr-reports.zip of https://physionet.org/content/mimic-cxr/2.1.0/ there."
    require(not empty, "input", requirement, str(path), advice)


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections; BadRowError if the file is empty or no text."""
    return split_sections(report_text(epath.Path(row.path).read_bytes()))


def _files_of(*tables: str) -> list[str]:
    return [f"{table}{end}" for table in tables for end in (".gz", "")]


def _require_table(root: epath.Path, *tables: str) -> epath.Path:
    """The first of these tables that exists."""
    wanted = f"{' or '.join(f'{table}.gz' for table in tables)}, or unpacked .csv"
    return require_file(root, _files_of(*tables), _ADVICE, wanted)


def _splits(root: epath.Path) -> dict[str, str]:
    """subject_id → split."""
    splits: dict[str, str] = {}
    for row in read_table(_require_table(root, TABLES.format("split")), ("subject_id", "split")):
        split = row.choose("split", _SPLITS)
        if splits.setdefault(row["subject_id"], split) != split:
            row.refuse("split", "the same for all images of a patient")
    return splits


def _split_of(splits: Mapping[str, str], patient: str, place: str) -> str:
    requirement = f"known from {TABLES.format('split')} for every patient"
    require(patient in splits, "split", requirement, place, f"Take all tables of one release. {_ADVICE}")
    return splits[patient]


def _labels(root: epath.Path) -> dict[str, bytes]:
    """study_id → its states, a byte each, by the first table of labels that exists."""
    table = _require_table(root, *map(TABLES.format, LABEL_TABLES))
    labels: dict[str, bytes] = {}
    for row in read_table(table, ("study_id", *_CONCEPT_OF_LABEL)):
        if row["study_id"] in labels:
            row.refuse("study_id", f"different in every row of {table}", "Download it again.")
        labels[row["study_id"]] = bytes(states_in(row, _CONCEPT_OF_LABEL).values())
    return labels


@functools.lru_cache(maxsize=4096)
def _states(packed: bytes) -> Labels:
    """Labels of a study; of a study without a row, none."""
    pairs = zip(_CONCEPT_OF_LABEL.values(), packed, strict=bool(packed))
    return {concept: LabelState(state) for concept, state in pairs}


def _listed_reports(study_list: epath.Path, splits: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Patient, study and file, relative to the folder of reports."""
    reports = []
    for row in read_table(study_list, ("subject_id", "study_id", "path")):
        _split_of(splits, row["subject_id"], row.place)
        reports.append((sys.intern(row["subject_id"]), row["study_id"], row["path"]))
    require_distinct((study for _, study, _ in reports), "study_id", study_list)
    yield from reports


def _walk(folder: epath.Path, splits: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Patient, study and file of the report files by name; one patient's folder is held at a time."""
    files = folder / "files"
    groups = sorted(filter(_GROUP.fullmatch, _names(files))) if files.is_dir() else []
    patients = [
        (group, patient)
        for group in groups
        for patient in sorted(filter(_PATIENT.fullmatch, _names(files / group)))
    ]
    for number, (_, patient) in enumerate(patients, 1):
        _split_of(splits, patient[1:], f"patient {number} of {files}")
    for group, patient in patients:
        for report in filter(None, map(_REPORT.fullmatch, sorted(_names(files / group / patient)))):
            yield patient[1:], report[1], f"files/{group}/{patient}/{report[0]}"


def _names(folder: epath.Path) -> list[str]:
    return [file.name for file in folder.iterdir()]
