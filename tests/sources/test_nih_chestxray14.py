"""ChestX-ray14: labels, folders and the official split."""

import collections

import numpy as np
import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import nih_chestxray14

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
ROWS = (
    "00000001_000.png,Cardiomegaly|Effusion,0,1,57,M,PA\n"
    "00000001_001.png,No Finding,1,1,58,M,PA\n"
    "00000002_000.png,Pleural_Thickening,0,2,80,M,AP\n"
)


def write_layout(folder, image_file):
    root = folder / "nih"
    (root / "images").mkdir(parents=True)
    (root / nih_chestxray14.TABLE).write_text(HEADER + ROWS)
    for seed, row in enumerate(ROWS.splitlines()):
        (root / "images" / row.partition(",")[0]).write_bytes(image_file(seed))
    return root


TABLE = nih_chestxray14.TABLE
DAMAGED = {
    write_layout: [
        (TABLE, None, r"`input` must be a folder with Data_Entry_2017_v2020.csv"),
        (TABLE, lambda t: t.replace("|Eff", "|Ef"), r"`Finding Labels` must be names of .*'Efusion'"),
        (TABLE, lambda t: t.replace("Patient ID", "Patient"), "`Patient ID` must be a column"),
        (TABLE, lambda t: t + t.splitlines()[2], r"`Image Index` .*row 4, which repeats row 2"),
    ]
}


def positives(row):
    return {name for name, state in row.labels.items() if state == LabelState.POSITIVE}


def test_rows_carry_labels_study_and_patient(archive):
    rows = list(nih_chestxray14.image_rows(archive))
    assert [positives(row) for row in rows] == [
        {"Cardiomegaly", "Pleural Effusion"},
        {"No Finding"},
        {"Pleural Thickening"},
    ]
    for row in rows:
        assert len(row.labels) == 15
        assert set(row.labels.values()) == {LabelState.POSITIVE, LabelState.NEGATIVE}
    assert [(row.image_id, row.study_id, row.patient_id) for row in rows] == [
        ("00000001_000.png", "00000001_000", "1"),
        ("00000001_001.png", "00000001_001", "1"),
        ("00000002_000.png", "00000002_000", "2"),
    ]
    assert rows[0].path == str(archive / "images" / "00000001_000.png")
    assert {row.view for row in rows} == {"frontal"}
    assert {row.split for row in rows} == {""}


def test_view_position_sex_and_age_are_the_tables(medclip_data):
    rows = list(nih_chestxray14.image_rows(medclip_data / "nih_chestxray14_256px"))
    assert {row.view_position for row in rows} == {"AP", "PA"}
    assert {row.sex for row in rows} == {"M", "F"}
    ages = [row.age for row in rows]
    assert min(ages) >= -1
    assert 40 < np.mean(ages) < 60
    assert max(ages) <= 90
    # The trap of this folder: AP is commoner among normals than among pneumonias.
    is_ap = np.array([row.view_position == "AP" for row in rows])
    normal = np.array([row.labels["No Finding"] == LabelState.POSITIVE for row in rows])
    of_normal, of_others = is_ap[normal].mean(), is_ap[~normal].mean()
    assert of_normal > of_others + 0.1


def test_images_are_found_in_the_twelve_parts(archive):
    for part, name in (("images_001", "00000001_000.png"), ("images_012", "00000002_000.png")):
        (archive / part / "images").mkdir(parents=True)
        (archive / part / "images" / name).write_bytes(name.encode())
    (archive / "images" / "00000001_001.png").unlink()
    first, absent, third = nih_chestxray14.image_rows(archive)
    assert nih_chestxray14.read_image(first) == b"00000001_000.png"
    assert nih_chestxray14.read_image(third) == b"00000002_000.png"
    with pytest.raises(OSError, match="00000001_001"):
        nih_chestxray14.read_image(absent)


def write_lists(archive, train, test):
    (archive / "train_val_list.txt").write_text("\r\n".join(train) + "\r\n")
    (archive / "test_list.txt").write_text("\n".join(test))


def test_official_lists_are_the_split(archive):
    first, second, third = (row.image_id for row in nih_chestxray14.image_rows(archive))
    write_lists(archive, [first, second, "of_another_part.png"], [third])
    assert [row.split for row in nih_chestxray14.image_rows(archive)] == ["train", "train", "test"]
    (archive / "test_list.txt").unlink()
    assert {row.split for row in nih_chestxray14.image_rows(archive)} == {""}  # one list alone is none


def test_lists_that_do_not_divide_the_images_are_refused(archive):
    first, second, third = (row.image_id for row in nih_chestxray14.image_rows(archive))
    neither = r"`image` must be in train_val_list\.txt or test_list\.txt.*'row 2 of .*\.csv'"
    for train, test, sentence in (
        ([first], [third], neither),
        ([first, second], [third, second], r"`image` must be in one list.*row 2 of test_list\.txt"),
        ([first, second, first], [third], r"`image` .*row 3, which repeats row 1"),
    ):
        write_lists(archive, train, test)
        with pytest.raises(ValueError, match=sentence):
            next(nih_chestxray14.image_rows(archive))


def test_first_edition_of_the_table_is_read(archive):
    expected = list(nih_chestxray14.image_rows(archive))
    (archive / nih_chestxray14.TABLE).rename(archive / nih_chestxray14.FIRST_TABLE)
    assert list(nih_chestxray14.image_rows(archive)) == expected


def test_real_images_have_the_counts_of_their_readme(medclip_data):
    rows = list(nih_chestxray14.image_rows(medclip_data / "nih_chestxray14"))
    counts = collections.Counter(name for row in rows for name in positives(row))
    assert len(rows) == len({row.image_id for row in rows}) == 723
    # Counted from the table's own words, cell by cell.
    assert (counts["No Finding"], counts["Pleural Effusion"], counts["Hernia"]) == (326, 141, 9)
    assert all(nih_chestxray14.read_image(row).startswith(b"\x89PNG") for row in rows[::100])
