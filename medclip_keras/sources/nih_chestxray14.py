"""NIH ChestX-ray14: frontal chest X-rays with labels that a program took from their (unpublished) reports.

Layout on disk, as published (https://nihcc.app.box.com/v/ChestXray-NIHCC):
    Data_Entry_2017_v2020.csv              a row an image: Image Index, Finding Labels, Patient ID, …
    images/*.png                           or images_001/images/*.png to images_012/images/*.png
    train_val_list.txt, test_list.txt      the official split by patient; used where both are there

Counts of the release: 112,120 images of 1024x1024 pixels, 30,805 patients; train_val 86,524, test 25,596.

Labels: `Finding Labels` names what is there, joined by "|", or says "No Finding". A name of the fourteen that
is not listed is negative. `Effusion` is Pleural Effusion and `Pleural_Thickening` Pleural Thickening here;
Infiltration, Mass, Nodule, Emphysema, Fibrosis, Pleural Thickening and Hernia are chest21's further names.
An image counts as a study of its own, for the release says nothing else.
"""

from collections.abc import Iterator

from etils import epath

from medclip_keras.config import require
from medclip_keras.knowledge.label_names import concept_of_label, labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import read_table

CITATION = (
    "Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks on weakly-supervised "
    "classification and localization of common thorax diseases, CVPR 2017"
)
LICENCE = "NIH Clinical Center; free to use, attribution asked"

TABLE = "Data_Entry_2017_v2020.csv"
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
    require((directory / TABLE).is_file(), "input", f"a folder with {TABLE}", str(path), advice)
    folder_of = _folders(directory)
    split_of = _official_split(directory)
    for row in read_table(directory / TABLE, ("Image Index", "Finding Labels", "Patient ID")):
        name = row["Image Index"]
        yield ImageRow(
            image_id=name,
            study_id=name.rpartition(".")[0],
            patient_id=row["Patient ID"],
            path=str(folder_of.get(name, directory / "images") / name),
            view="frontal",
            labels=_states(row["Finding Labels"]),
            split=split_of.get(name, ""),
        )


def read_image(row: ImageRow) -> bytes:
    """The PNG file."""
    return epath.Path(row.path).read_bytes()


def _states(finding_labels: str) -> dict[str, LabelState]:
    listed = finding_labels.split("|")
    for label in listed:
        require(label in CONCEPT_OF_LABEL, "Finding Labels", "names of the release joined by |", label)
    return {
        concept: LabelState.POSITIVE if label in listed else LabelState.NEGATIVE
        for label, concept in CONCEPT_OF_LABEL.items()
    }


def _folders(directory: epath.Path) -> dict[str, epath.Path]:
    """File name → folder, where the images lie in the twelve parts they are published in."""
    parts = sorted(directory.glob("images_*/images"))
    return {file.name: part for part in parts for file in part.iterdir()}


def _official_split(directory: epath.Path) -> dict[str, str]:
    lists = {split: directory / name for split, name in SPLIT_LISTS.items()}
    if not all(file.is_file() for file in lists.values()):
        return {}
    return {name: split for split, file in lists.items() for name in file.read_text().split()}
