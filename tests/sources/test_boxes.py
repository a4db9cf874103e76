"""Boxes of radiologists: pixels of 1024 to sides of the picture, and what is refused."""

import numpy as np
import pytest

from medclip_keras.sources import rsna
from medclip_keras.sources.boxes import NIH_TABLE, read_boxes

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
ROWS = (
    "00000013_004.png,Effusion,512,256,256,512,,,\n00000013_004.png,Effusion,0,0,128,64,,,\n"
    "00000013_004.png,Infiltrate,1000,0,128,64,,,\n00000099_000.png,Mass,1,1,2,2,,,\n"
)


@pytest.fixture
def nih(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00000013_004.png").touch()
    (tmp_path / NIH_TABLE).write_text(HEADER + ROWS)
    return tmp_path


def test_boxes_of_an_image_and_finding_are_one_row_in_sides_of_the_picture(nih):
    name, (effusion, infiltration) = read_boxes(nih)  # the third image's file is not there
    assert name == "nih_chestxray14"
    assert (effusion.finding, effusion.patient_id) == ("Pleural Effusion", "13")
    np.testing.assert_array_equal(effusion.boxes, [[0.5, 0.25, 0.75, 0.75], [0, 0, 0.125, 0.0625]])
    assert infiltration.finding == "Infiltration"
    assert infiltration.boxes[0, 2] == 1  # cut at the picture's edge


@pytest.mark.parametrize(
    "row",
    ["a.png,Effusion,1,2,x,4", "a.png,Effusion,1,2,3", "a.png,Elephant,1,2,3,4", "a.png,Mass,1,2,-3,4"],
)
def test_a_row_that_is_no_box_is_refused(nih, row):
    (nih / NIH_TABLE).write_text(HEADER + row + "\n")
    with pytest.raises(ValueError, match=f"row 1 of {NIH_TABLE}"):
        read_boxes(nih)


def test_a_folder_without_boxes_or_images_is_refused(nih):
    (nih / "images" / "00000013_004.png").unlink()
    with pytest.raises(ValueError, match="`--boxes` must be a folder with images of its table"):
        read_boxes(nih)
    with pytest.raises(ValueError, match=r"stage_2_train_labels\.csv"):
        read_boxes(nih / "images")


def test_rsna_marks_pneumonia(tmp_path):
    (tmp_path / rsna.IMAGES).mkdir()
    for name in "ab":
        (tmp_path / rsna.IMAGES / f"{name}.dcm").touch()
    rows = ("a,,,,,0", "b,256,512,256,128,1", "b,0,0,1024,1024,1")
    (tmp_path / rsna.TABLE).write_text("patientId,x,y,width,height,Target\n" + "\n".join(rows) + "\n")
    name, (image,) = read_boxes(tmp_path)
    assert (name, image.finding) == ("rsna", "Pneumonia")
    np.testing.assert_array_equal(image.boxes, [[0.25, 0.5, 0.5, 0.625], [0, 0, 1, 1]])


def test_the_published_table_is_read(medclip_data):
    name, images = read_boxes(medclip_data / "nih_chestxray14_256px")
    assert name == "nih_chestxray14"
    assert sum(len(image.boxes) for image in images) == 31
    assert all((image.boxes >= 0).all() and (image.boxes <= 1).all() for image in images)
