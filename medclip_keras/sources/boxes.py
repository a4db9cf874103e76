"""Boxes that radiologists drew around findings: NIH ChestX-ray14's and RSNA's.

| archive | table | columns |
|---|---|---|
| nih_chestxray14 | BBox_List_2017.csv, 984 boxes of 880 images | Image Index, Finding Label, Bbox [x,y,w,h] |
| rsna | stage_2_train_labels.csv, 9,555 boxes of 6,012 images | patientId, x, y, width, height, Target |

Both count pixels of pictures of 1024x1024, whatever the size of the files beside them; here boxes are in
sides of the picture. RSNA's boxes are of opacities that suggest pneumonia: Pneumonia.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.sources import nih_chestxray14, rsna

NIH_TABLE = "BBox_List_2017.csv"
_SIDE = 1024.0  # pixels
_NIH_NAMES = nih_chestxray14.CONCEPT_OF_LABEL | {"Infiltrate": "Infiltration"}


@dataclass(frozen=True)
class BoxedImage:
    """An image with the boxes of one finding."""

    path: str
    finding: str
    patient_id: str
    boxes: np.ndarray  # float (num_boxes, 4) of left, top, right, bottom, 0 to 1


def read_boxes(directory: epath.PathLike) -> tuple[str, list[BoxedImage]]:
    """The archive's name, and one row for each boxed image and finding with a file in the folder.

    Raises:
        ValueError: no table of boxes, a row that is none, or no image of the table.
    """
    directory = epath.Path(directory)
    if (directory / NIH_TABLE).exists():
        name, rows = "nih_chestxray14", _nih_rows(directory)
    else:
        name, rows = "rsna", _rsna_rows(directory)
    found: dict[tuple[str, str], tuple[str, list[list[float]]]] = {}
    for path, finding, patient_id, box in rows:
        found.setdefault((path, finding), (patient_id, []))[1].append(box)
    images = [
        BoxedImage(path, finding, patient, np.array(boxes))
        for (path, finding), (patient, boxes) in found.items()
        if epath.Path(path).exists()
    ]
    require(bool(images), "--boxes", "a folder with images of its table", f"{directory}: 0 of {len(found)}")
    return name, images


def _nih_rows(directory: epath.Path) -> Iterator[tuple[str, str, str, list[float]]]:
    folder_of = nih_chestxray14.folders(directory)
    lines = csv.reader((directory / NIH_TABLE).read_text(encoding="utf-8-sig").splitlines()[1:])
    for number, row in enumerate((row for row in lines if any(row)), 1):
        form = f"a known finding and four numbers in row {number} of {NIH_TABLE}"
        require(len(row) >= 6 and row[1] in _NIH_NAMES, "boxes", form, row[1:6])
        patient = row[0].partition("_")[0].lstrip("0") or "0"  # as Data_Entry_2017 has it
        path = f"{folder_of.get(row[0], directory / 'images')}/{row[0]}"
        yield path, _NIH_NAMES[row[1]], patient, _box(row[2:6], form)


def _rsna_rows(directory: epath.Path) -> Iterator[tuple[str, str, str, list[float]]]:
    table, images = rsna.read_box_table(directory)
    for number, row in enumerate(table, 1):
        if row["Target"] == "1":
            form = f"four numbers in row {number} of {rsna.TABLE}"
            box = _box([row[name] for name in ("x", "y", "width", "height")], form)
            yield f"{images}/{row['patientId']}.dcm", "Pneumonia", row["patientId"], box


def _box(cells: list[str], form: str) -> list[float]:
    try:
        x, y, width, height = (float(cell) / _SIDE for cell in cells)
    except ValueError:
        raise refusal("boxes", form, cells) from None
    box = np.clip([x, y, x + width, y + height], 0, 1).tolist()
    require(box[0] < box[2] and box[1] < box[3], "boxes", form, cells)
    return box
