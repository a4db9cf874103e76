"""MURA: X-rays of the upper limb, each study labelled normal or abnormal by radiologists.

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

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import read_lines, require_distinct, require_file

CITATION = (
    "Rajpurkar et al., MURA: large dataset for abnormality detection in musculoskeletal radiographs, "
    "MIDL 2018 (arXiv:1712.06957)"
)
LICENCE = "Stanford University School of Medicine MURA Dataset Research Use Agreement"

read_image = dicom.read_image  # PNG files

ABNORMAL = "Abnormal"
SPLITS = ("train", "valid")
_STATE_AND_CODE = {"positive": (LabelState.POSITIVE, "1"), "negative": (LabelState.NEGATIVE, "0")}
_FOLDER = (
    r"(?P<folder>[^/]+/(?P<split>train|valid)/(?P<part>XR_[A-Z]+)/(?P<patient>patient\d+)/(?P<study>study\d+)"
    r"_(?P<outcome>positive|negative)/)"
)
_IMAGE = re.compile(_FOLDER + r"(?P<image>.*\.png)")
_STUDY = re.compile(_FOLDER + r",(?P<code>[01])")
_EXAMPLE = "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/"


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of both splits; `path` is the folder that holds the tables."""
    yield from [row for split in SPLITS for row in _rows(epath.Path(path), split)]


def _rows(directory: epath.Path, split: str) -> list[ImageRow]:
    advice = "Download it from https://stanfordmlgroup.github.io/competitions/mura."
    labelled = _labelled_folders(require_file(directory, [f"{split}_labeled_studies.csv"], advice))
    table = require_file(directory, [f"{split}_image_paths.csv"], advice)
    lines = read_lines(table, _IMAGE, "image", f"a line such as {_EXAMPLE}image1.png")
    require_distinct((line["line"] for line in lines), "image", table)
    rows = []
    for line in lines:
        if line["split"] != split:
            line.refuse("image", f"a line such as {_EXAMPLE}image1.png of {split}")
        if line["folder"] not in labelled:
            line.refuse("image", f"of a study in {split}_labeled_studies.csv")
        study_id = f"{line['part']}/{line['patient']}/{line['study']}"
        row = ImageRow(
            image_id=f"{study_id}/{line['image']}",
            study_id=study_id,
            patient_id=line["patient"],
            path=f"{directory}/{line['line'].partition('/')[2]}",
            labels={ABNORMAL: _STATE_AND_CODE[line["outcome"]][0]},
            split=split,
        )
        rows.append(row)
    return rows


def _labelled_folders(table: epath.Path) -> set[str]:
    """The folders of a table's studies, whose labels agree with their names."""
    lines = read_lines(table, _STUDY, "study", f"a line such as {_EXAMPLE},1")
    require_distinct((line["folder"] for line in lines), "study", table)
    for line in lines:
        if line["code"] != _STATE_AND_CODE[line["outcome"]][1]:
            line.refuse("study", "labelled as its folder's name says")
    return {line["folder"] for line in lines}
