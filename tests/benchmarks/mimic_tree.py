"""Generate a synthetic MIMIC-CXR tree of any size in the published layout.

A patient has three studies; a study has a report and zero to three small images, one on average. Reports
hardly repeat; one in twenty-five has neither findings nor impression, as in the release.
"""

import csv
import gzip
import io
import itertools
import pathlib
import random

import numpy as np
import PIL.Image
from label_speed import write_reports

from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.sources.mimic_cxr import REPORTS, STUDY_LIST, TABLES

NUM_PICTURES = 400
_IMAGES_OF_STUDY = (2, 1, 0, 2, 1, 0, 3, 0, 0, 1)  # at least one in every three: each patient has an image
_VIEWS = ("PA", "LATERAL", "AP", "LL", "")
_INDICATION = "FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  Cough.\n"


class _Tables:
    """The rows of the published tables, column by column as published as far as they are read."""

    def __init__(self):
        labels = sorted(labels_of("mimic_cxr"))
        self._rows = {
            TABLES.format("metadata"): [("dicom_id", "subject_id", "study_id", "ViewPosition")],
            TABLES.format("split"): [("dicom_id", "study_id", "subject_id", "split")],
            TABLES.format("chexpert"): [("subject_id", "study_id", *labels)],
            STUDY_LIST: [("subject_id", "study_id", "path")],
        }
        self._metadata, self._split, self._chexpert, self._studies = self._rows.values()
        self._num_labels = len(labels)

    def add_study(self, patient: str, study: str, path: str, rng: random.Random) -> None:
        codes = rng.choices(("", "1.0", "0.0", "-1.0"), (8, 2, 1, 1), k=self._num_labels)
        self._chexpert.append((patient, study, *codes))
        self._studies.append((patient, study, path))

    def add_image(self, image: str, patient: str, study: str, view: str, split: str) -> None:
        self._metadata.append((image, patient, study, view))
        self._split.append((image, study, patient, split))

    def write(self, root: pathlib.Path) -> None:
        for name, rows in self._rows.items():
            with gzip.open(root / f"{name}.gz", "wt", compresslevel=1, newline="") as file:
                csv.writer(file).writerows(rows)


def write_tree(root: pathlib.Path, num_studies: int, seed: int = 0) -> None:
    """Write `num_studies` reports, and equally many images for multiples of ten."""
    rng, tables, pictures = random.Random(seed), _Tables(), _pictures(seed)
    texts = write_reports(load_table("chest21"), num_studies, repeated=0.6, seed=seed)
    for number, (text, num_images) in enumerate(zip(texts, itertools.cycle(_IMAGES_OF_STUDY), strict=False)):
        patient, study = str(10_000_032 + 53 * (number // 3)), str(50_000_000 + 41 * number)
        split = {1: "validate", 2: "test"}.get(number // 3 % 50, "train")
        folder = f"files/p{patient[:2]}/p{patient}"
        report = root / REPORTS / folder / f"s{study}.txt"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(_report(text, headed=number % 25 != 6))
        tables.add_study(patient, study, f"{folder}/s{study}.txt", rng)
        if num_images:
            (root / folder / f"s{study}").mkdir(parents=True)
        for position in range(num_images):
            image = "-".join(f"{rng.getrandbits(32):08x}" for _ in range(5))
            (root / folder / f"s{study}" / f"{image}.jpg").write_bytes(rng.choice(pictures))
            tables.add_image(image, patient, study, _VIEWS[(number + position) % 5], split)
    tables.write(root)


def _report(text: str, headed: bool) -> str:
    """Put a text under headings; without `headed`, no findings and impression."""
    if not headed:
        return f"{_INDICATION} \n COMPARISON:  {text[:20]}\n"
    findings, _, impression = text.rpartition(". ")
    return f"{_INDICATION} \n FINDINGS:  {findings}.\n \n IMPRESSION:  {impression}\n"


def _pictures(seed: int) -> list[bytes]:
    """JPEG files of 60 by 64 pixels: smooth shades with noise."""
    generator, pictures = np.random.default_rng(seed), []
    for _ in range(NUM_PICTURES):
        shades = PIL.Image.fromarray(generator.integers(0, 256, (5, 5), np.uint8)).resize((60, 64))
        pixels = np.asarray(shades, int) + generator.integers(-20, 20, (64, 60))
        file = io.BytesIO()
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg")
        pictures.append(file.getvalue())
    return pictures
