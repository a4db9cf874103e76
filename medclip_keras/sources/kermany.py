"""Kermany et al.: chest X-rays of children of one to five years, with and without pneumonia.

Layout on disk, either as published (https://data.mendeley.com/datasets/rscbjbr9sj, folder `chest_xray`)
    train/NORMAL/IM-0115-0001.jpeg            test/NORMAL/NORMAL2-IM-0035-0001.jpeg, …
    train/PNEUMONIA/person1_bacteria_1.jpeg   test/PNEUMONIA/person1_virus_6.jpeg, … (some copies add val/)
or a part of it
    NORMAL/*.jpeg  PNEUMONIA/*.jpeg           and perhaps manifest.csv: file, label, subtype, patient
Images of folders inside of a class are the class's: some copies have PNEUMONIA/BACTERIA and PNEUMONIA/VIRUS.

Counts of the release: 5,856 images, 1,583 normal and 4,273 with pneumonia (2,780 bacterial, 1,493 viral).

Labels come from the folder: Pneumonia positive or negative, No Finding the other way round; nothing is said
of other findings. The patient is the manifest's, else what stands before the last parts of the file name
(`person1`, `IM-0115`, `NORMAL2-IM-0035`). The same numbers recur in train/ and test/, and the release does
not say whether they are the same child: so the folders are not taken as a split, patients stay together.
Never mix these children with adults of another archive as two classes: a model tells the archives apart.

Refused before any work: other folders; one class alone; images in other folders beside the classes; a
manifest that lacks a column, has another label, or names a file twice.
"""

import re
from collections.abc import Iterator, Sequence

from etils import epath

from medclip_keras.errors import require
from medclip_keras.sources import dicom
from medclip_keras.sources.files import image_files, is_hidden
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import read_table, require_distinct, states_of

CITATION = (
    "Kermany et al., Identifying medical diagnoses and treatable diseases by image-based deep learning, "
    "Cell 172(5), 2018"
)
LICENCE = "CC BY 4.0"

read_image = dicom.read_image  # JPEG files

FOLDERS = ("NORMAL", "PNEUMONIA")
STATES = {
    "NORMAL": states_of("kermany", ["NORMAL"], ["PNEUMONIA"]),
    "PNEUMONIA": states_of("kermany", ["PNEUMONIA"], ["NORMAL"]),
}
MANIFEST = "manifest.csv"
_PATIENT = re.compile(r"person\d+|(?:[A-Z]+\d*-)?IM-\d+", re.IGNORECASE)


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of both classes; `path` is the folder that holds NORMAL and PNEUMONIA, or train and test."""
    root = epath.Path(path)
    below = sorted(folder for folder in root.iterdir() if not is_hidden(folder.name)) if root.is_dir() else []
    parts = [part for part in (root, *below) if any((part / folder).is_dir() for folder in FOLDERS)]
    requirement = "a folder that holds NORMAL and PNEUMONIA, or train/ and test/ with them"
    advice = "Download it from https://data.mendeley.com/datasets/rscbjbr9sj."
    require(bool(parts), "input", requirement, str(path), advice)
    for part in parts:
        _require_classes(part, parts)
    yield from [row for part in parts for row in _part_rows(root, part)]


def _require_classes(part: epath.Path, parts: Sequence[epath.Path]) -> None:
    """Refuse a part with one class alone, and images in folders beside both: they would be lost."""
    found = [folder.name for folder in part.iterdir() if folder.is_dir() and folder not in parts]
    others = [name for name in found if name not in FOLDERS and image_files(part / name)]
    received = f"{part} with {', '.join(sorted(found))}"
    advice = "Move the images of all kinds of pneumonia to PNEUMONIA."
    require(
        not others and set(FOLDERS) <= {*found}, "input", "the folders NORMAL and PNEUMONIA", received, advice
    )


def _part_rows(root: epath.Path, part: epath.Path) -> list[ImageRow]:
    if (part / MANIFEST).is_file():
        return _manifest_rows(part)
    prefix = "" if part == root else f"{part.name}/"
    return [
        _row(file, f"{prefix}{folder}/{file.relative_to(part / folder)}", folder, patient_of(file.name))
        for folder in FOLDERS
        for file in image_files(part / folder)
    ]


def _manifest_rows(part: epath.Path) -> list[ImageRow]:
    rows = []
    for row in read_table(part / MANIFEST, ("file", "label", "patient")):
        folder = row["label"].upper()
        require(folder in FOLDERS, "label", "normal or pneumonia", row["label"], f"It is {row.place}.")
        file = part / folder / row["file"]
        rows.append(_row(file, f"{folder}/{row['file']}", folder, row["patient"]))
    require_distinct((row.image_id for row in rows), "file", part / MANIFEST)
    return rows


def patient_of(file_name: str) -> str:
    """The patient in a file's name; the name without its suffix if it has another form.

    >>> patient_of("person7_bacteria_24.jpeg"), patient_of("NORMAL2-IM-0035-0001.jpeg")
    ('person7', 'NORMAL2-IM-0035')
    """
    match = _PATIENT.match(file_name)
    return match.group(0) if match else file_name.rpartition(".")[0]


def _row(file: epath.Path, image_id: str, folder: str, patient: str) -> ImageRow:
    return ImageRow(
        image_id=image_id,
        study_id=image_id,
        patient_id=patient,
        path=str(file),
        view="frontal",
        labels=STATES[folder],
    )
