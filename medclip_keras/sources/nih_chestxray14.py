"""NIH ChestX-ray14: frontal chest X-rays with labels that a program took from their (unpublished) reports.

Layout on disk, as published (https://nihcc.app.box.com/v/ChestXray-NIHCC):
    Data_Entry_2017_v2020.csv              a row an image: Image Index, Finding Labels, Patient ID, …
                                           (or Data_Entry_2017.csv, its first edition)
    images/*.png                           or images_001/images/*.png to images_012/images/*.png
    train_val_list.txt, test_list.txt      the official split by patient; used where both are there
torchxrayvision's loader reads the same columns
(https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py, NIH_Dataset).

Counts of the release: 112,120 images of 1024x1024 pixels, 30,805 patients; train_val 86,524, test 25,596.

Labels: `Finding Labels` names what is there, joined by "|", or says "No Finding". A name of the fourteen that
is not listed is negative. `Effusion` is Pleural Effusion and `Pleural_Thickening` Pleural Thickening here;
Infiltration, Mass, Nodule, Emphysema, Fibrosis, Pleural Thickening and Hernia are chest21's further names.
Nothing is uncertain. An image counts as a study of its own, for the release says nothing else.

train_val is the split "train" here; the release has no validation split. Without the lists, or with one of
them, the split is by patient. With both, each image of the table stands in one of them.

Refused before any work: a missing table or column; a label that is not the release's; an image that is named
twice, in the table or in the lists; an image that neither list names.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.label_names import concept_of_label, labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import read_table, require_distinct

CITATION = (
    "Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks on weakly-supervised "
    "classification and localization of common thorax diseases, CVPR 2017"
)
LICENCE = "NIH Clinical Center; free to use, attribution asked"

TABLE = "Data_Entry_2017_v2020.csv"
FIRST_TABLE = "Data_Entry_2017.csv"
SPLIT_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
CONCEPT_OF_LABEL = {  # the release's word → the concept's name
    label: concept_of_label("nih_chestxray14", label) for label in labels_of("nih_chestxray14")
}


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images that the table names, whether their files are there or not.

    Args:
        path: the folder that holds the table.

    Raises:
        ValueError: no table, a missing column, or a label that is not the release's.
    """
    directory = epath.Path(path)
    advice = "Download it from https://nihcc.app.box.com/v/ChestXray-NIHCC."
    tables = [directory / name for name in (TABLE, FIRST_TABLE) if (directory / name).is_file()]
    require(bool(tables), "input", f"a folder with {TABLE}", str(path), advice)
    rows = list(read_table(tables[0], ("Image Index", "Finding Labels", "Patient ID")))
    require_distinct((row["Image Index"] for row in rows), "Image Index", tables[0])
    states = [_states(row["Finding Labels"]) for row in rows]
    split_of = _official_split(directory, [row["Image Index"] for row in rows])
    folder_of, elsewhere = _folders(directory), str(directory / "images")
    for row, labels in zip(rows, states, strict=True):
        name = row["Image Index"]
        yield ImageRow(
            image_id=name,
            study_id=name.rpartition(".")[0],
            patient_id=row["Patient ID"],
            path=f"{folder_of.get(name, elsewhere)}/{name}",
            view="frontal",
            labels=labels,
            split=split_of.get(name, ""),
        )


def read_image(row: ImageRow) -> bytes:
    """The PNG file."""
    return epath.Path(row.path).read_bytes()


@functools.cache  # few combinations, many rows
def _states(finding_labels: str) -> dict[str, LabelState]:
    listed = finding_labels.split("|")
    for label in listed:
        require(label in CONCEPT_OF_LABEL, "Finding Labels", "names of the release joined by |", label)
    return {
        concept: LabelState.POSITIVE if label in listed else LabelState.NEGATIVE
        for label, concept in CONCEPT_OF_LABEL.items()
    }


def _folders(directory: epath.Path) -> dict[str, str]:
    """File name → folder, where the images lie in the twelve parts they are published in."""
    parts = sorted(directory.glob("images_*/images"))
    return {file.name: str(part) for part in parts for file in part.iterdir()}


def _official_split(directory: epath.Path, names: Sequence[str]) -> Mapping[str, str]:
    """Image → split; empty where the two lists are not there.

    Raises:
        ValueError: a list names an image twice, or both lists do, or neither does.
    """
    lists = {split: directory / name for split, name in SPLIT_LISTS.items()}
    if not all(file.is_file() for file in lists.values()):
        return {}
    split_of: dict[str, str] = {}
    for split, file in lists.items():
        listed = file.read_text().split()
        require_distinct(listed, "image", file)
        for number, name in enumerate(listed, 1):
            received = f"row {number} of {file.name}, which {SPLIT_LISTS['train']} has too"
            require(name not in split_of, "image", "in one list", received, "Download the lists again.")
        split_of.update(dict.fromkeys(listed, split))
    for number, name in enumerate(names, 1):
        requirement = f"in {' or '.join(SPLIT_LISTS.values())}"
        advice = "Download the lists again, or take them away: the split is by patient then."
        require(name in split_of, "image", requirement, f"row {number} of the table", advice)
    return split_of
