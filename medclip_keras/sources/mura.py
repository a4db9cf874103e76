"""MURA: X-rays of the upper limb, each study called normal or abnormal by radiologists.

Layout on disk, as published (https://stanfordmlgroup.github.io/competitions/mura), a folder `MURA-v1.1` with
    train_image_paths.csv        lines of MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png
    train_labeled_studies.csv    lines of MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/,1
    valid_image_paths.csv, valid_labeled_studies.csv
    train/XR_*/patient*/study*_{positive,negative}/image*.png, valid/…
None of the tables has a header; https://github.com/pyaf/DenseNet-MURA-PyTorch reads the same folders.

Counts of the release (train, valid): 36,808 and 3,197 images, 13,457 and 1,199 studies, 11,184 and 783
patients; of elbow, finger, forearm, hand, humerus, shoulder and wrist. The paper's test set (207 studies)
is not published.

Labels: `Abnormal`, positive or negative, of the study and so of all its images; nothing is uncertain. No
chest concept fits an arm, and `decode_images` leaves out labels that its concept table does not have: give
it a table of this one line, for example as `mura.jsonl`, with `--concepts mura.jsonl`.

    {"cui": "C0205161", "name": "Abnormal", "aliases": ["abnormal"], "parents": []}

The split is the release's, by patient: train and valid. ConVIRT tests on valid, having no other. A study is
identified as `XR_SHOULDER/patient00001/study1`: without its outcome, which the folder's name holds.

Refused before any work: a missing table; a line without its parts; a repeated line; an image whose study
has no label; a label that the folder's name contradicts."""

import re
from collections.abc import Iterator

from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import require_distinct

CITATION = (
    "Rajpurkar et al., MURA: large dataset for abnormality detection in musculoskeletal radiographs, "
    "MIDL 2018 (arXiv:1712.06957)"
)
LICENCE = "Stanford University School of Medicine MURA Dataset Research Use Agreement"

ABNORMAL = "Abnormal"
SPLITS = ("train", "valid")
_STATE = {"positive": LabelState.POSITIVE, "negative": LabelState.NEGATIVE}
_CODE = {"positive": "1", "negative": "0"}
_STUDY = re.compile(
    r"[^/]+/(?P<split>train|valid)/(?P<part>XR_[A-Z]+)/(?P<patient>patient\d+)/(?P<study>study\d+)"
    r"_(?P<outcome>positive|negative)/"
)
_EXAMPLE = "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/"


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of both splits, in the order of the tables, whether their files are there or not.

    Args:
        path: the folder that holds the tables.

    Raises:
        ValueError: a missing table, a line of another form, a repeated one, or labels that do not fit.
    """
    directory = epath.Path(path)
    for split in SPLITS:
        for name in (f"{split}_image_paths.csv", f"{split}_labeled_studies.csv"):
            advice = "Download it from https://stanfordmlgroup.github.io/competitions/mura."
            require((directory / name).is_file(), "input", f"a folder with {name}", str(path), advice)
    checked = [row for split in SPLITS for row in _rows(directory, split)]
    yield from checked


def read_image(row: ImageRow) -> bytes:
    """The PNG file."""
    return epath.Path(row.path).read_bytes()


def _rows(directory: epath.Path, split: str) -> Iterator[ImageRow]:
    labeled = _labeled_studies(directory / f"{split}_labeled_studies.csv")
    table = str(directory / f"{split}_image_paths.csv")
    root = str(directory)
    lines = epath.Path(table).read_text().split()
    require_distinct(lines, "image", table)
    for number, line in enumerate(lines, 1):
        match = _STUDY.match(line)
        is_image = match is not None and match["split"] == split and line.endswith(".png")
        require(is_image, "image", f"a line such as {_EXAMPLE}image1.png", f"row {number} of {table}")
        study, image = match.group(), line.removeprefix(match.group())
        has_label = study in labeled
        require(has_label, "image", f"of a study in {split}_labeled_studies.csv", f"row {number} of {table}")
        study_id = f"{match['part']}/{match['patient']}/{match['study']}"
        yield ImageRow(
            image_id=f"{study_id}/{image}",
            study_id=study_id,
            patient_id=match["patient"],
            path=f"{root}/{line.partition('/')[2]}",
            labels={ABNORMAL: _STATE[match["outcome"]]},
            split=split,
        )


def _labeled_studies(table: epath.Path) -> set[str]:
    """The studies of a table; their labels say what their folders' names say."""
    lines = [line.strip().partition(",") for line in table.read_text().splitlines() if line.strip()]
    require_distinct((study for study, _, _ in lines), "study", table)
    name = str(table)
    for number, (study, _, code) in enumerate(lines, 1):
        match = _STUDY.fullmatch(study)
        is_study = match is not None and code in _CODE.values()
        require(is_study, "study", f"a line such as {_EXAMPLE},1", f"row {number} of {name}")
        agrees = _CODE[match["outcome"]] == code
        require(agrees, "study", "labelled as its folder's name says", f"row {number} of {name}")
    return {study for study, _, _ in lines}
