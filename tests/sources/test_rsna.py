"""RSNA's challenge: boxes to images, classes to states, NIH patients, and what is refused."""

import json
import zipfile

import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import rsna

HEADER = "patientId,x,y,width,height,Target\n"
ROWS = ("a,,,,,0", "b,264.0,152.0,213.0,379.0,1", "b,562.0,152.0,256.0,453.0,1", "c,,,,,0")
CLASSES = "patientId,class\na,Normal\nb,Lung Opacity\nb,Lung Opacity\nc,No Lung Opacity / Not Normal\n"
POSITIVE, NEGATIVE = LabelState.POSITIVE, LabelState.NEGATIVE


def write_layout(folder, image_file):
    root = folder / "rsna"
    (root / rsna.IMAGES).mkdir(parents=True)
    (root / rsna.TABLE).write_text(HEADER + "\n".join(ROWS) + "\n")
    (root / rsna.TABLE_OF_CLASSES).write_text(CLASSES)
    for seed, name in enumerate("abc"):
        (root / rsna.IMAGES / f"{name}.dcm").write_bytes(image_file(seed, "dicom"))
    return root


BOXES, CLASS = rsna.TABLE, rsna.TABLE_OF_CLASSES
DAMAGED = {
    write_layout: [
        (BOXES, None, r"`input` must be a folder with stage_2_train_labels\.csv"),
        (BOXES, lambda t: t.replace("Target", "target"), r"`Target` must be a column .*names: target"),
        (BOXES, lambda t: t + ROWS[2], r"`patientId and box` .*row 5, which repeats row 3"),
        (BOXES, lambda t: t + ROWS[3], r"`patientId and box` .*row 5, which repeats row 4"),
        (BOXES, lambda t: t + "a,1,2,3,4,1", r"`Target` must be the same in all rows .*'row 5 of"),
        (BOXES, lambda t: t.replace(",0", ",yes", 1), r"`Target` must be one of 0, 1. Received: 'yes'"),
        (CLASS, lambda t: t + "a,Lung Opacity\n", r"`class` must be the same in all .*'row 5 of"),
        (CLASS, lambda t: t.replace("a,Normal", "a,Lung Opacity"), r"`class` must be 'Lung Opac"),
        (CLASS, lambda t: t.replace("a,Normal\n", ""), r"`class` must be .*Received: 'None for"),
    ]
}


def test_several_boxes_are_one_row_and_classes_are_states(archive, decoded):
    rows = list(rsna.image_rows(archive))
    assert [row.image_id for row in rows] == ["a", "b", "c"]
    assert {row.view for row in rows} == {"frontal"}
    assert [row.patient_id for row in rows] == ["a", "b", "c"]
    assert decoded(rsna, archive, "chest21") == {
        "a": {"Pneumonia": NEGATIVE, "Lung Opacity": NEGATIVE, "No Finding": POSITIVE},
        "b": {"Pneumonia": POSITIVE, "Lung Opacity": POSITIVE, "No Finding": NEGATIVE},
        "c": {"Pneumonia": NEGATIVE, "No Finding": NEGATIVE},
    }


def test_without_classes_an_image_without_a_box_says_nothing_of_opacity(archive):
    (archive / rsna.TABLE_OF_CLASSES).unlink()
    a, b, _ = rsna.image_rows(archive)
    assert a.labels == {"Pneumonia": NEGATIVE}
    assert b.labels == {"Pneumonia": POSITIVE, "Lung Opacity": POSITIVE, "No Finding": NEGATIVE}


def test_mapping_gives_the_nih_patients(archive):
    entries = [("a", "00000013_005.png"), ("b", "00000013_017.png"), ("c", "00030805_000.png")]
    mapping = [{"subset_img_id": own, "img_id": nih} for own, nih in entries]
    (archive / rsna.MAPPING).write_text(json.dumps(mapping))
    assert [row.patient_id for row in rsna.image_rows(archive)] == ["13", "13", "30805"]
    (archive / rsna.MAPPING).write_text(json.dumps(mapping[:2]))
    with pytest.raises(ValueError, match=rf"`{rsna.MAPPING}` must be .* for every image .*'KeyError'"):
        list(rsna.image_rows(archive))


def test_zipped_tables_are_read(archive):
    expected = list(rsna.image_rows(archive))
    for name in (rsna.TABLE, rsna.TABLE_OF_CLASSES):
        with zipfile.ZipFile(archive / f"{name}.zip", "w") as file:
            file.write(archive / name, name)
        (archive / name).unlink()
    assert list(rsna.image_rows(archive)) == expected


def test_real_table_has_the_counts_of_its_readme(medclip_data):
    rows = list(rsna.image_rows(medclip_data / "rsna"))
    assert len(rows) == len({row.image_id for row in rows}) == 26684
    # Counted from the table's cells: 30,227 rows; 9,555 with Target 1, of 6,012 images.
    assert sum(row.labels["Pneumonia"] == POSITIVE for row in rows) == 6012
