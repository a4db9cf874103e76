"""SIIM-ACR Pneumothorax Segmentation: frontal chest X-rays with or without an outlined pneumothorax.

Layout on disk, as published (https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation)
    train-rle.csv    a row an outline: ImageId, EncodedPixels, which is -1 without a pneumothorax
    dicom-images-train/<StudyInstanceUID>/<SeriesInstanceUID>/<ImageId>.dcm
The table may also be called siim-pneumothorax-train-rle.csv.gz, as in torchxrayvision, whose loader reads the
same columns (https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py,
SIIM_Pneumothorax_Dataset). The images of dicom-images-test have no labels and are not read.

Counts of the release: 12,954 rows of 12,047 images. It publishes no split: the split is by patient.

Several outlines of an image are one row here; the outlines themselves are not recorded.

    EncodedPixels         Pneumothorax    No Finding
    an outline            positive        negative
    -1                    negative        –

A dash is not mentioned: nothing is said of other findings. Nothing is uncertain.

All images are from ChestX-ray14 (Filice et al., see CITATION), without a public list of their names there:
training on one of the two, or on RSNA's, and testing on another leaks. `ImageId` names an image, and an image
counts as a patient of its own.

Refused before any work: a missing table or column; an outline that is no list of numbers; a row that repeats
another; an image with and without an outline."""

import re
from collections.abc import Iterator

from etils import epath

from medclip_keras.sources import dicom, tables
from medclip_keras.sources.rows import ImageRow

CITATION = (
    "Filice et al., Crowdsourcing pneumothorax annotations using machine learning annotations on the NIH "
    "chest X-ray dataset, Journal of Digital Imaging 33, 2020"
)
LICENCE = "Terms of the SIIM-ACR Pneumothorax Segmentation challenge: non-commercial research and education"

read_image = dicom.read_image  # DICOM files

TABLES = ("train-rle.csv", "siim-pneumothorax-train-rle.csv.gz", "siim-pneumothorax-train-rle.csv")
IMAGES = "dicom-images-train"
_OUTLINE = re.compile(r"-1|\d+ \d+(?: \d+ \d+)*")
_PNEUMOTHORAX = tables.concept_states("siim_acr", {"EncodedPixels": tables.STATE_OF_CODE["1"]}) | {
    "No Finding": tables.STATE_OF_CODE["0"]
}
_NONE = tables.concept_states("siim_acr", {"EncodedPixels": tables.STATE_OF_CODE["0"]})


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The training images; `path` is the folder that holds the table."""
    root = epath.Path(path)
    advice = "Download it from https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation."
    table = tables.require_file(root, TABLES, advice)
    outlined: dict[str, bool] = {}
    keys = []
    for row in tables.read_table(table, ("ImageId", "EncodedPixels")):
        outline = row.match("EncodedPixels", _OUTLINE, "-1 or pairs of numbers")[0]
        keys.append((row["ImageId"], outline))
        if outlined.setdefault(row["ImageId"], outline != "-1") != (outline != "-1"):
            row.refuse("EncodedPixels", "-1 in all rows of an image, or in none")
    tables.require_distinct(keys, "ImageId and EncodedPixels", table)
    file_of = {file.stem: str(file) for file in (root / IMAGES).glob("*/*/*.dcm")}
    for image, has_outline in outlined.items():
        file = file_of.get(image, f"{root}/{IMAGES}/{image}.dcm")
        yield ImageRow(image, image, image, file, "frontal", _PNEUMOTHORAX if has_outline else _NONE)
