"""MURA: headerless tables of paths and studies."""

import collections
import json

import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import mura

SHOULDER = "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/"
WRIST = "MURA-v1.1/train/XR_WRIST/patient00001/study2_negative/"
HAND = "MURA-v1.1/valid/XR_HAND/patient11185/study1_negative/"
TABLES = {
    "train_image_paths.csv": f"{SHOULDER}image1.png\n{SHOULDER}image2.png\n{WRIST}image1.png\n",
    "train_labeled_studies.csv": f"{SHOULDER},1\n{WRIST},0\n",
    "valid_image_paths.csv": f"{HAND}image1.png\n",
    "valid_labeled_studies.csv": f"{HAND},0\n",
}


def write_layout(folder, image_file):
    root = folder / "MURA"  # a user's own name for the folder
    images = (TABLES["train_image_paths.csv"] + TABLES["valid_image_paths.csv"]).split()
    for seed, line in enumerate(images):
        path = root / line.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_file(seed))
    for name, text in TABLES.items():
        (root / name).write_text(text)
    return root


IMAGES, STUDIES = "train_image_paths.csv", "train_labeled_studies.csv"
DAMAGED = {
    write_layout: [
        *((name, None, f"`input` must be a folder with {name}") for name in TABLES),
        (IMAGES, lambda t: t[: t.find("\n") + 1] * 2, "`image` .*row 2, which repeats row 1"),
        (IMAGES, lambda t: "Img_Path\n", r"`image` must be a line .*image1\.png.*row 1 of"),
        (IMAGES, lambda t: f"{HAND}image1.png\n", "`image` must be a line such as .*row 1 of"),
        ("valid_labeled_studies.csv", lambda t: "", "`image` must be of a study in valid_labeled.*row 1 of"),
        (STUDIES, lambda t: t.replace(",1", ""), "`study` must be a line such .*row 1 of"),
        (STUDIES, lambda t: t.replace(",0", ",1"), "`study` must be labelled as.*row 2 of"),
        (STUDIES, lambda t: f"{SHOULDER},1\n" * 2, "`study` .*row 2, which repeats row 1"),
    ]
}


@pytest.fixture
def concepts(tmp_path):
    """The concept table that the module's documentation offers."""
    (line,) = [line.strip() for line in mura.__doc__.splitlines() if line.strip().startswith("{")]
    assert json.loads(line)["name"] == mura.ABNORMAL
    (tmp_path / "mura.jsonl").write_text(line + "\n")
    return tmp_path / "mura.jsonl"


def test_images_have_studies_patients_splits_and_labels(archive, decoded, concepts):
    rows = list(mura.image_rows(archive))
    found = [(row.image_id, row.study_id, row.patient_id, row.split) for row in rows]
    shoulder, wrist = "XR_SHOULDER/patient00001/study1", "XR_WRIST/patient00001/study2"
    hand = "XR_HAND/patient11185/study1"
    assert found == [
        (f"{shoulder}/image1.png", shoulder, "patient00001", "train"),
        (f"{shoulder}/image2.png", shoulder, "patient00001", "train"),
        (f"{wrist}/image1.png", wrist, "patient00001", "train"),
        (f"{hand}/image1.png", hand, "patient11185", "valid"),
    ]
    positive, negative = {mura.ABNORMAL: LabelState.POSITIVE}, {mura.ABNORMAL: LabelState.NEGATIVE}
    assert list(decoded(mura, archive, str(concepts)).values()) == [positive, positive, negative, negative]
    assert collections.Counter(row.view for row in rows) == {"": 4}
