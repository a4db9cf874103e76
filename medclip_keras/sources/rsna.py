"""RSNA Pneumonia Detection Challenge: frontal chest X-rays with boxes around
opacities that suggest pneumonia.

Layout on disk, as published (https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data, stage 2)
    stage_2_train_labels.csv           a row a box: patientId, x, y, width, height, Target
    stage_2_detailed_class_info.csv    patientId, class; used where it is there
    stage_2_train_images/<patientId>.dcm
and, where it is there, https://www.rsna.org/artificial-intelligence/ai-image-challenge's
    pneumonia-challenge-dataset-mappings_2018.json    subset_img_id → img_id, the file's name at the NIH

The tables may be zipped (`.csv.zip`), and may be called `kaggle_stage_2_train_labels.csv.zip` as in
torchxrayvision, whose loader reads the same columns
(https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py, RSNA_Pneumonia_Dataset). The
3,000 images of stage_2_test_images have no labels and are not read.

Counts of the release: 30,227 rows of 26,684 images; 6,012 images with 9,555 boxes. Classes: 6,012 Lung
Opacity, 11,821 No Lung Opacity / Not Normal, 8,851 Normal.

Several boxes of an image are one row here; boxes themselves are not recorded.

    Target, class                        Pneumonia    Lung Opacity    No Finding
    1, Lung Opacity                      positive     positive        negative
    0, No Lung Opacity / Not Normal      negative     –               negative
    0, Normal                            negative     negative        positive
    0, without the table of classes      negative     –               –

A dash is not mentioned: a box marks an opacity that suggests pneumonia, so an image without one may show
another opacity. The release states no uncertainty.

`patientId` names an image, not a patient. All images are from ChestX-ray14: with the mapping, patients are
the NIH's, under the same identifiers as in `nih_chestxray14`; without it an image counts as a patient of
its own, and one person's images may lie in training and test. Training on one of the two archives and
testing on the other leaks in the same way.

Refused before any work: a table or column that is missing; a row that repeats another's image and box; an
image with two targets, or two classes, or a class that contradicts its target."""

import json
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.sources import dicom
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import (
    TableRow,
    first_file,
    read_table,
    require_distinct,
    require_file,
    states_of,
)

CITATION = (
    "Shih et al., Augmenting the National Institutes of Health chest radiograph dataset with expert "
    "annotations of possible pneumonia, Radiology: Artificial Intelligence 1(1), 2019"
)
LICENCE = "Terms of the RSNA Pneumonia Detection Challenge: non-commercial research and education"

PATIENTS_OF = "nih_chestxray14"

read_image = dicom.read_image  # DICOM files

TABLE = "stage_2_train_labels.csv"
TABLE_OF_CLASSES = "stage_2_detailed_class_info.csv"
IMAGES = "stage_2_train_images"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
OPACITY, NORMAL, NOT_NORMAL = "Lung Opacity", "Normal", "No Lung Opacity / Not Normal"

_STATES = {  # Target, class → states; `Target` is the label of Pneumonia
    ("1", OPACITY): states_of("rsna", ["Target", OPACITY], [NORMAL]),
    ("0", NOT_NORMAL): states_of("rsna", [], ["Target", NORMAL]),
    ("0", NORMAL): states_of("rsna", [NORMAL], ["Target", OPACITY]),
    ("0", ""): states_of("rsna", [], ["Target"]),
}


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The training images; `path` is the folder that holds the table."""
    directory = epath.Path(path)
    advice = "Download it from https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data."
    table = require_file(directory, _names(TABLE), advice)
    targets = _read_once(table, ("patientId", "x", "y", "width", "height", "Target"), "Target", ("0", "1"))
    classes = _classes(directory, targets)
    patients = _patients(directory, targets)
    for image_id, target in targets.items():
        yield ImageRow(
            image_id=image_id,
            study_id=image_id,
            patient_id=patients[image_id],
            path=f"{directory}/{IMAGES}/{image_id}.dcm",
            view="frontal",
            labels=_STATES[target, classes[image_id]],
        )


def read_box_table(directory: epath.Path) -> tuple[list[TableRow], str]:
    """The rows of the table of boxes, and the folder of its images."""
    table = require_file(directory, _names(TABLE), "Name a folder with boxes, of NIH ChestX-ray14 or RSNA.")
    rows = list(read_table(table, ("patientId", "x", "y", "width", "height", "Target")))
    return rows, f"{directory}/{IMAGES}"


def _names(table: str) -> list[str]:
    return [f"{prefix}{table}{suffix}" for suffix in ("", ".zip") for prefix in ("", "kaggle_")]


def _read_once(
    table: epath.Path, columns: Sequence[str], column: str, known: Sequence[str]
) -> dict[str, str]:
    """patientId → the value of a column, equal in all rows of the image."""
    rows = list(read_table(table, columns))
    if TABLE in table.name:  # a row a box; the table of classes repeats its rows, box by box, as published
        require_distinct((tuple(row[name] for name in columns) for row in rows), "patientId and box", table)
    values: dict[str, str] = {}
    for row in rows:
        value = row.choose(column, {name: name for name in known})
        if values.setdefault(row["patientId"], value) != value:
            row.refuse(column, "the same in all rows of an image")
    return values


def _classes(directory: epath.Path, targets: Mapping[str, str]) -> dict[str, str]:
    """patientId → class; without the table of classes, the class that the target implies."""
    table = first_file(directory, _names(TABLE_OF_CLASSES))
    if table is None:
        return {image_id: OPACITY if target == "1" else "" for image_id, target in targets.items()}
    classes = _read_once(table, ("patientId", "class"), "class", (OPACITY, NORMAL, NOT_NORMAL))
    advice = f"{TABLE} and {TABLE_OF_CLASSES} must be of the same stage."
    for number, (image_id, target) in enumerate(targets.items(), 1):
        requirement = f"{OPACITY!r} where Target is 1, and only there"
        found = classes.get(image_id)
        received = f"{found} for Target {target}, image {number} of {TABLE}"
        require((target, found) in _STATES, "class", requirement, received, advice)
    return classes


def _patients(directory: epath.Path, targets: Mapping[str, str]) -> Mapping[str, str]:
    """patientId → patient: the NIH's number by the mapping; without it, the image itself."""
    mapping = directory / MAPPING
    if not mapping.is_file():
        return {image_id: image_id for image_id in targets}
    try:
        names = {entry["subset_img_id"]: entry["img_id"] for entry in json.loads(mapping.read_text())}
        return {image_id: str(int(names[image_id].partition("_")[0])) for image_id in targets}
    except (KeyError, TypeError, ValueError) as error:
        requirement = "a list of subset_img_id and img_id for every image of the table"
        advice = "Download it again, or delete it."
        raise refusal(MAPPING, requirement, type(error).__name__, advice) from None
