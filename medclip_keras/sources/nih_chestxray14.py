"""NIH ChestX-ray14: frontal chest X-rays with labels that a program took from their (unpublished) reports.

Layout on disk, as published (https://nihcc.app.box.com/v/ChestXray-NIHCC):
    Data_Entry_2017_v2020.csv              a row an image: Image Index, Finding Labels, Patient ID, …
                                           (or Data_Entry_2017.csv, its first edition)
    images/*.png                           or images_001/images/*.png to images_012/images/*.png
    train_val_list.txt, test_list.txt      the official split by patient; used where both are there
torchxrayvision's loader reads the same columns
(https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py, NIH_Dataset).

Counts of the release: 112,120 images of 1024x1024 pixels, 30,805 patients; train_val 86,524, test 25,596.

Labels: `Finding Labels` names the findings, joined by "|", or says "No Finding". A name of the fourteen that
is not listed is negative. `Effusion` is Pleural Effusion and `Pleural_Thickening` Pleural Thickening here;
Infiltration, Mass, Nodule, Emphysema, Fibrosis, Pleural Thickening and Hernia are chest21's further names.
Nothing is uncertain. View position, sex and age are the table's, where it has them; an age over 120 is an
error of the release, and unknown. An image counts as a study of its own, for the release says nothing else.

train_val is the split "train" here; the release has no validation split. Without the lists, or with one of
them, the split is by patient. With both, each image of the table stands in one of them.

Refused before any work: a missing table or column; a label that is not the release's; an image that is named
twice, in the table or in the lists; an image that neither list names.
"""

import functools
from collections.abc import Iterator

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom
from medclip_keras.sources.files import read_lines
from medclip_keras.sources.rows import ImageRow, age_of, position_of, sex_of
from medclip_keras.sources.tables import (
    Labels,
    TableRow,
    concepts_of,
    read_table,
    require_distinct,
    require_file,
)

CITATION = (
    "Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks on weakly-supervised "
    "classification and localization of common thorax diseases, CVPR 2017"
)
LICENCE = "NIH Clinical Center; free to use, attribution asked"

read_image = dicom.read_image  # PNG files

TABLE = "Data_Entry_2017_v2020.csv"
FIRST_TABLE = "Data_Entry_2017.csv"
SPLIT_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
CONCEPT_OF_LABEL = concepts_of("nih_chestxray14")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of the table; `path` is the folder that holds it."""
    directory = epath.Path(path)
    advice = "Download it from https://nihcc.app.box.com/v/ChestXray-NIHCC."
    table = require_file(directory, [TABLE, FIRST_TABLE], advice)
    folder_of, split_of = folders(directory), _official_split(directory)
    rows = []
    for row in read_table(table, ("Image Index", "Finding Labels", "Patient ID")):
        name = row["Image Index"]
        if split_of and name not in split_of:
            requirement = f"in {' or '.join(SPLIT_LISTS.values())}"
            row.refuse("image", requirement, "Download the lists again, or delete them to split by patient.")
        image = ImageRow(
            image_id=name,
            study_id=name.rpartition(".")[0],
            patient_id=row["Patient ID"],
            path=f"{folder_of.get(name, directory / 'images')}/{name}",
            view="frontal",
            labels=_states_in(row),
            split=split_of.get(name, ""),
            view_position=position_of(row.get("View Position", "")),
            sex=sex_of(row.get("Patient Gender") or row.get("Patient Sex", "")),
            age=age_of(row.get("Patient Age", "")),
        )
        rows.append(image)
    require_distinct((row.image_id for row in rows), "Image Index", table)
    yield from rows


def _states_in(row: TableRow) -> Labels:
    unknown = next((name for name in row["Finding Labels"].split("|") if name not in CONCEPT_OF_LABEL), None)
    if unknown is not None:
        requirement = "names of the release joined by |"
        raise refusal("Finding Labels", requirement, unknown, f"It is {row.place}.")
    return _states(row["Finding Labels"])


@functools.cache  # few combinations, many rows
def _states(finding_labels: str) -> Labels:
    listed = finding_labels.split("|")
    return {
        concept: LabelState.POSITIVE if label in listed else LabelState.NEGATIVE
        for label, concept in CONCEPT_OF_LABEL.items()
    }


def folders(directory: epath.Path) -> dict[str, str]:
    """File name → folder, if the images lie in the twelve published parts."""
    parts = sorted(directory.glob("images_*/images"))
    return {file.name: str(part) for part in parts for file in part.iterdir()}


def _official_split(directory: epath.Path) -> dict[str, str]:
    """Image → split by the two lists; empty unless both exist."""
    lists = {split: directory / name for split, name in SPLIT_LISTS.items()}
    if not all(file.is_file() for file in lists.values()):
        return {}
    split_of: dict[str, str] = {}
    for split, file in lists.items():
        listed = " ".join(read_lines(file)).split()
        require_distinct(listed, "image", file)
        for number, name in enumerate(listed, 1):
            received = f"row {number} of {file.name}, which {SPLIT_LISTS['train']} has too"
            require(name not in split_of, "image", "in one list", received, "Download the lists again.")
        split_of.update(dict.fromkeys(listed, split))
    return split_of
