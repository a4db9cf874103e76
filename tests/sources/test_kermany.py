"""Kermany's children: labels from folders, patients from the manifest or the file name."""

import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import kermany

PUBLISHED = {
    "train/NORMAL/IM-0115-0001.jpeg": "IM-0115",
    "train/PNEUMONIA/person7_bacteria_24.jpeg": "person7",
    "train/PNEUMONIA/person7_bacteria_25.jpeg": "person7",
    "test/NORMAL/NORMAL2-IM-0035-0001.jpeg": "NORMAL2-IM-0035",
    "test/PNEUMONIA/person78_virus_140.JPG": "person78",
}


def make(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


MANIFEST = "file,label,subtype,patient\na.jpeg,normal,normal,p1\nb.jpeg,pneumonia,virus,p2\n"


def write_layout(folder, image_file):
    """Both classes and their manifest."""
    root = make(folder / "kermany", ["NORMAL/a.jpeg", "PNEUMONIA/b.jpeg"])
    for seed, path in enumerate(sorted(root.rglob("*.jpeg"))):
        path.write_bytes(image_file(seed, "jpeg"))
    (root / kermany.MANIFEST).write_text(MANIFEST)
    return root


TABLE = kermany.MANIFEST
DAMAGED = {
    write_layout: [
        (TABLE, lambda t: t.replace(",normal", ",flu", 1), r"`label` must be normal.*'flu'.* row 1 of"),
        (TABLE, lambda t: t.replace("patient", "patient_id"), r"`patient` .*names: patient_id"),
        (TABLE, lambda t: t + t.split("\n")[2], r"`file` must be .*'row 3, which repeats row 2'"),
    ]
}


def test_published_folders_give_patients_from_file_names(tmp_path):
    with pytest.raises(ValueError, match="`input` must be a folder that holds NORMAL and PNEUMONIA"):
        next(kermany.image_rows(tmp_path))
    make(tmp_path, [*PUBLISHED, "train/NORMAL/.DS_Store", "train/PNEUMONIA/._person7_bacteria_24.jpeg"])
    rows = {row.image_id: row for row in kermany.image_rows(tmp_path)}
    assert {name: row.patient_id for name, row in rows.items()} == PUBLISHED
    assert {row.split for row in rows.values()} == {""}
    assert all(kermany.read_image(row) == name.encode() for name, row in rows.items())


def test_folders_inside_of_a_class_and_parts_of_other_names_are_read(tmp_path):
    names = ["NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/BACTERIA/person1_bacteria_1.jpeg"]
    names += ["PNEUMONIA/VIRUS/person2_virus_6.jpeg", "PNEUMONIA/person3_virus_1.jpeg"]
    make(
        tmp_path, [*names, "validation/NORMAL/IM-0002-0001.jpeg", "validation/PNEUMONIA/person4_virus_1.jpeg"]
    )
    make(tmp_path, ["__MACOSX/NORMAL/._IM-0001-0001.jpeg", "PNEUMONIA/VIRUS/._person2_virus_6.jpeg"])
    rows = {row.image_id: row for row in kermany.image_rows(tmp_path)}
    assert set(names) < set(rows)
    assert len(rows) == 6
    assert rows[names[1]].patient_id == "person1"
    assert kermany.read_image(rows[names[2]]) == names[2].encode()


@pytest.mark.parametrize(
    ("names", "received"),
    [
        (["NORMAL/a.jpeg", "BACTERIA/b.jpeg", "VIRUS/c.jpeg"], "with BACTERIA, NORMAL, VIRUS"),
        (["NORMAL/a.jpeg", "PNEUMONIA/b.jpeg", "VIRUS/c.jpeg"], "with NORMAL, PNEUMONIA, VIRUS"),
        (["test/NORMAL/a.jpeg"], "test with NORMAL"),
    ],
)
def test_a_class_alone_and_images_beside_the_classes_are_refused(tmp_path, names, received):
    with pytest.raises(ValueError, match=f"`input` must be the folders NORMAL and PNEUMONIA.*{received}"):
        next(kermany.image_rows(make(tmp_path, names)))


def test_labels_come_from_the_folder(tmp_path):
    make(tmp_path, ["NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/person1_virus_6.jpeg"])
    normal, sick = kermany.image_rows(tmp_path)
    assert normal.labels == {"Pneumonia": LabelState.NEGATIVE, "No Finding": LabelState.POSITIVE}
    assert sick.labels == {"Pneumonia": LabelState.POSITIVE, "No Finding": LabelState.NEGATIVE}
    assert (normal.view, sick.study_id) == ("frontal", "PNEUMONIA/person1_virus_6.jpeg")


def test_manifest_names_files_and_patients(tmp_path):
    make(tmp_path, ["NORMAL/a.jpeg", "PNEUMONIA/b.jpeg", "PNEUMONIA/not_listed.jpeg"])
    (tmp_path / kermany.MANIFEST).write_text(MANIFEST)
    rows = list(kermany.image_rows(tmp_path))
    found = [(row.image_id, row.patient_id) for row in rows]
    assert found == [("NORMAL/a.jpeg", "p1"), ("PNEUMONIA/b.jpeg", "p2")]
    assert kermany.read_image(rows[1]) == b"PNEUMONIA/b.jpeg"


def test_real_file_names_tell_the_patient_of_the_manifest(medclip_data):
    rows = list(kermany.image_rows(medclip_data / "kermany_pneumonia"))
    names = {row.image_id.partition("/")[2]: row.patient_id for row in rows}
    found = {name: kermany.patient_of(name) for name in names}
    assert found == names
