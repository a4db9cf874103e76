"""CheXpert: paths to patients and studies, codes, views, and the tables' split."""

import dataclasses
import gzip
import pathlib

import pytest

from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import chexpert

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
LABELS = labels_of("chexpert")
HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)
IMAGES = {  # image → its view columns, its codes
    "train/patient00001/study1/view1_frontal.jpg": (("Frontal", "AP"), {"Edema": "1.0", "Fracture": "0.0"}),
    "train/patient00002/study1/view1_frontal.jpg": (("Frontal", "PA"), {"No Finding": "1.0"}),
    "train/patient00002/study1/view2_lateral.jpg": (("Lateral", ""), {"No Finding": "1.0"}),
    "train/patient00002/study2/view1_frontal.jpg": (("Frontal", "AP"), {"Pneumonia": "-1.0"}),
    "valid/patient64541/study1/view1_frontal.jpg": (("Frontal", "AP"), dict.fromkeys(LABELS, "0.0")),
}
TESTED = "test/patient64741/study1/view1_frontal.jpg", "test/patient64741/study1/view2_lateral.jpg"


def table_of(split, folder):
    rows = [
        (f"{folder}/{image}", "Female", "68", *view, *(codes.get(label, "") for label in LABELS))
        for image, (view, codes) in IMAGES.items()
        if image.startswith(split)
    ]
    return "\n".join(",".join(row) for row in (HEADER, *rows)) + "\n"


def write_layout(folder, image_file, release="CheXpert-v1.0-small"):
    root = folder / release
    for seed, image in enumerate((*IMAGES, *TESTED)):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(image_file(seed, "jpeg"))
    for split in ("train", "valid"):
        (root / f"{split}.csv").write_text(table_of(split, release))
    tested = "".join(f"{release}/{image},1,0,0\n" for image in TESTED)
    (root / "test.csv").write_text("Path,Cardiomegaly,Edema,Pleural Effusion\n" + tested)
    return root


SECRETS = ("patient00002",)
DAMAGED = {
    write_layout: [
        ("train.csv", lambda t: t.replace("Path", "path"), r"`Path` must be a column .*names: path"),
        ("valid.csv", lambda t: t.replace("Edema", "Oedema"), r"`Edema` must be a column .*names: Oedema"),
        ("train.csv", lambda t: t.replace("AP/PA", "AP"), r"`AP/PA` must be a column"),
        ("test.csv", lambda t: t.replace(",1,0,0", "").partition(",")[0] + "\nx\n", "must be a column of"),
        ("train.csv", lambda t: t + t.split("\n")[2] + "\n", r"`Path` .*'row 5, which repeats row 2'"),
        ("train.csv", lambda t: t.replace("patient00001", "p1"), r"`Path` must be of the form .*'row 1 of"),
        ("train.csv", lambda t: t.replace("/train/", "/valid/"), "`Path` must be a path in the folder train"),
        ("train.csv", lambda t: t.replace("-1.0", "u"), r"`Pneumonia` must be 1, 0, -1 or blank.*'u'"),
        ("train.csv", lambda t: t.replace(",Lateral,", ",Oblique,"), r"`Frontal/Lateral` .*'Oblique'"),
        ("train.csv", lambda t: t.replace("Female", "Female,", 2), "as long as its header.*'row 1 of"),
        ("valid.csv", lambda t: t.replace("0.0,0.0", "0.0,,0.0", 1), "as long as its header.*'row 1 of"),
        (
            "train.csv",
            lambda t: t.replace("AP,", "AP,2", 1),
            "`.*` must be 1, 0, -1 or blank.* It is row 1 of",
        ),
    ]
}


@pytest.fixture(params=["CheXpert-v1.0", "CheXpert-v1.0-small"])
def archive(request, tmp_path, image_file):
    return write_layout(tmp_path, image_file, request.param)


def test_paths_tell_patient_and_study_and_tables_the_split(archive):
    rows = list(chexpert.image_rows(archive))
    assert [row.image_id for row in rows] == [*IMAGES, *TESTED]
    patients = ["patient00001", *3 * ["patient00002"], "patient64541", *2 * ["patient64741"]]
    assert [row.patient_id for row in rows] == patients
    studies = ["00001/study1", *2 * ["00002/study1"], "00002/study2"]
    assert [row.study_id for row in rows[:4]] == [f"patient{study}" for study in studies]
    assert [row.split for row in rows] == [*4 * ["train"], "valid", *2 * ["test"]]
    assert [row.path for row in rows] == [str(archive / row.image_id) for row in rows]


def test_views_are_the_columns_or_the_names(archive):
    views = ["frontal", "frontal", "lateral", "frontal", "frontal", "frontal", "lateral"]
    assert [row.view for row in chexpert.image_rows(archive)] == views
    text = (archive / "train.csv").read_text()
    (archive / "train.csv").write_text(text.replace("Lateral,,", ",LL,").replace("Frontal,AP", ","))
    assert [row.view for row in chexpert.image_rows(archive)] == views


def test_codes_are_states_and_blanks_are_silence(archive, decoded):
    expected = [
        {"Edema": POSITIVE, "Fracture": NEGATIVE},
        {"No Finding": POSITIVE},
        {"No Finding": POSITIVE},
        {"Pneumonia": UNCERTAIN},
        dict.fromkeys(LABELS, NEGATIVE),
        *2 * [{"Cardiomegaly": POSITIVE, "Edema": NEGATIVE, "Pleural Effusion": NEGATIVE}],
    ]
    assert decoded(chexpert, archive, "chexpert14") == dict(zip((*IMAGES, *TESTED), expected, strict=True))


def test_a_folder_above_and_compressed_tables_are_read(archive):
    rows = list(chexpert.image_rows(archive))
    assert list(chexpert.image_rows(archive.parent)) == rows
    (archive / "train.csv.gz").write_bytes(gzip.compress((archive / "train.csv").read_bytes()))
    (archive / "train.csv").unlink()
    (archive / "test.csv").rename(archive / "test_labels.csv")
    assert list(chexpert.image_rows(archive)) == rows
    (archive / "valid.csv").unlink()
    assert {row.split for row in chexpert.image_rows(archive)} == {"train", "test"}


def test_missing_tables_and_two_releases_are_refused(archive, tmp_path):
    (tmp_path / "CheXpert-v1.0-other").mkdir()
    (tmp_path / "CheXpert-v1.0-other" / "train.csv").write_text(table_of("train", "x"))
    with pytest.raises(ValueError, match=r"`input` must be a folder, and one only, .*'CheXpert-v1.0-other'"):
        next(chexpert.image_rows(tmp_path))
    for name in ("train.csv", "valid.csv", "test.csv"):
        (archive / name).unlink()
    with pytest.raises(ValueError, match=r"`input` must be a folder, .* with train.csv, valid.csv, test.csv"):
        next(chexpert.image_rows(archive))
    with pytest.raises(ValueError, match="`input` must be a folder"):
        next(chexpert.image_rows(tmp_path / "nowhere"))


@pytest.mark.parametrize("inside", ["", "train"])
def test_the_download_in_batches_is_read_as_it_is(archive, inside):
    """Of one folder with the batches, or of the batch with the tables; a merged one is read as ever."""
    merged = list(chexpert.image_rows(archive))
    tables = archive.parent / "CheXpert-v1.0 batch 1 (validate & csv)"
    archive.rename(tables)
    for number, patient in enumerate(("patient00001", "patient00002"), 1):
        batch = archive.parent / f"CheXpert-v1.0 batch {number + 1} (train {number})" / inside
        batch.mkdir(parents=True)
        (tables / "train" / patient).rename(batch / patient)
    (tables / "train").rmdir()
    for path in (archive.parent, tables):
        rows = list(chexpert.image_rows(path))
        assert all(pathlib.Path(row.path).is_file() for row in rows)
        assert [dataclasses.replace(row, path="") for row in rows] == [
            dataclasses.replace(row, path="") for row in merged
        ]
    assert rows[0].path.startswith(str(archive.parent / "CheXpert-v1.0 batch 2 (train 1)" / inside))
