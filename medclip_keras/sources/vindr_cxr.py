"""VinDr-CXR: frontal chest X-rays of two hospitals in Vietnam, labelled by radiologists from the images.

Layout on disk, as published (https://physionet.org/content/vindr-cxr/1.0.0/)
    annotations/image_labels_train.csv    a row an image and radiologist: image_id, rad_id, 28 label columns
    annotations/image_labels_test.csv     a row an image: image_id, the same columns (`Other disease`)
    train/<image_id>.dicom    test/<image_id>.dicom
A table may lie beside `train` and `test` too. One of the two tables may be missing. Columns and folders are
those of the loader https://github.com/f10409/RadHarmony/tree/main/radharmony/harmonizer/vindr_cxr. The tables
of boxes (`annotations_train.csv`) are not read, nor is the Kaggle competition's `train.csv`.

Counts of the release: train 15,000 images, three radiologists each of 17; test 3,000, by consensus of five.
The split is the release's. It names no patients: an image counts as a patient of its own, and one person's
images may lie on both sides.

Labels, by the votes of an image's radiologists: all of them 1 positive, all of them 0 negative, else
uncertain; one row alone, as in test, is a vote of all. `Nodule/Mass` and `Lung tumor` stand for Lung Lesion,
`ILD` for Interstitial Pattern, `Enlarged PA` for Pulmonary Artery Enlargement; `Aortic enlargement`, `Other
lesion` and `Other disease` for no concept. A wider concept without a label, such as Fracture, is positive or
uncertain where a narrower one is. Ten of the concepts, such as Rib Fracture, are of `thorax` alone
(`--concepts thorax`).

Refused before any work: no table; a missing column; a code that is neither 1 nor 0; a radiologist who labels
an image twice, an image twice in test or in both tables."""

from collections.abc import Iterator, Sequence

from etils import epath

from medclip_keras.errors import refusal
from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom, tables
from medclip_keras.sources.rows import ImageRow

CITATION = (
    "Nguyen et al., VinDr-CXR: an open dataset of chest X-rays with radiologist's annotations, Scientific "
    "Data 9, 2022"
)
LICENCE = "PhysioNet Credentialed Health Data License"

read_image = dicom.read_image  # DICOM files

TABLES = {"train": "image_labels_train.csv", "test": "image_labels_test.csv"}
OTHER = ("Other diseases", "Other disease")  # in train, and in test
_LABELS = tuple(label for label in labels_of("vindr_cxr") if label not in OTHER)
_VOTES = {"1": True, "1.0": True, "0": False, "0.0": False}


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of train and test; `path` is the folder that holds them."""
    root = epath.Path(path)
    found = {split: tables.first_file(root, [f"annotations/{n}", n]) for split, n in TABLES.items()}
    if not any(found.values()):
        requirement = f"a folder with annotations/{' or annotations/'.join(TABLES.values())}"
        advice = "Download it from https://physionet.org/content/vindr-cxr/1.0.0/."
        raise refusal("input", requirement, str(root), advice)
    rows = [row for split, table in found.items() if table for row in _rows(root, split, table)]
    tables.require_distinct((row.image_id for row in rows), "image_id", f"the tables of {root}")
    yield from rows


def _rows(root: epath.Path, split: str, table: epath.Path) -> list[ImageRow]:
    return [
        ImageRow(image, image, image, f"{root}/{split}/{image}.dicom", "frontal", _states(votes), split)
        for image, votes in _votes(table, with_radiologists=split == "train").items()
    ]


def _votes(table: epath.Path, with_radiologists: bool) -> dict[str, list[tuple[bool, ...]]]:
    """Image → the votes of each of its radiologists, in the order of the labels."""
    votes: dict[str, list[tuple[bool, ...]]] = {}
    keys = []
    columns = ("image_id", *(("rad_id",) if with_radiologists else ()), *_LABELS)
    for row in tables.read_table(table, columns):
        keys.append((row["image_id"], row["rad_id"] if with_radiologists else ""))
        vote = tuple(row.choose(label, _VOTES, "1 or 0") for label in _LABELS)
        votes.setdefault(row["image_id"], []).append(vote)
    tables.require_distinct(keys, "image_id and rad_id" if with_radiologists else "image_id", table)
    return votes


def _states(votes: Sequence[tuple[bool, ...]]) -> tables.Labels:
    states = {}
    for label, cast in zip(_LABELS, zip(*votes, strict=True), strict=True):
        agreed = LabelState.POSITIVE if all(cast) else LabelState.NEGATIVE
        states[label] = agreed if len(set(cast)) == 1 else LabelState.UNCERTAIN
    return tables.concept_states("vindr_cxr", states)
