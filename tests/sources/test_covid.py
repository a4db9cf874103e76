"""COVID-19 archives: three layouts, one coding."""

import collections

import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import covid

POSITIVE, NEGATIVE = LabelState.POSITIVE, LabelState.NEGATIVE
COVID = {"COVID-19": POSITIVE}
OPACITY = {"COVID-19": NEGATIVE, "Lung Opacity": POSITIVE, "No Finding": NEGATIVE}
PNEUMONIA = {"COVID-19": NEGATIVE, "Pneumonia": POSITIVE, "No Finding": NEGATIVE}
VIRAL = {**PNEUMONIA, "Viral Pneumonia": POSITIVE}
DISEASES = ("COVID-19", "Pneumonia", "Viral Pneumonia", "Lung Opacity")
NORMAL = {**dict.fromkeys(DISEASES, NEGATIVE), "No Finding": POSITIVE}
TRAIN = (
    "COVID 1 COVID(1).png COVID-19 sirm\n3 SARS-Fig8a-day0.jpeg pneumonia cohen\n"
    "3 SARS-Fig8b-day5.jpeg pneumonia cohen\n00f08de1-2c 00f08de1-2c.png normal\n"
)
TEST = "419639 MIDRC-46647-0.png negative rsna\n"
HANNOVER = "patient_id,image_id,sex,projection\np1,i1,f,pa\np1,i2,f,lateral\np2,i3,m,ap\n"


def write_files(folder, image_file, files):
    """Files by name, bytes made where None → their folder."""
    for seed, (name, content) in enumerate(files.items()):
        path = folder / "covid" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "png" if name.endswith("png") else "jpeg"
        path.write_bytes(image_file(seed, kind) if content is None else content.encode())
    return folder / "covid"


def write_layout(folder, image_file):
    """Hannover's."""
    files = {"data.csv": HANNOVER} | {f"png/i{k}.png": None for k in (1, 2, 3)}
    return write_files(folder, image_file, files)


def write_lists_layout(folder, image_file):
    """COVIDx's."""
    names = ("COVID(1).png", "SARS-Fig8a-day0.jpeg", "SARS-Fig8b-day5.jpeg", "00f08de1-2c.png")
    files = {f"train/{name}": None for name in names} | {"test/MIDRC-46647-0.png": None}
    return write_files(folder, image_file, files | {"train_COVIDx9A.txt": TRAIN, "test_COVIDx9A.txt": TEST})


TRAINED, TESTED = "train_COVIDx9A.txt", "test_COVIDx9A.txt"
LINES = r"`input` must be lines of patient, .*row 1 of"
DAMAGED = {
    write_lists_layout: [
        (TRAINED, lambda t: t + t[:35] + "\n", "`filename` .*row 5, which repeats row 1"),
        (TESTED, lambda t: TRAIN, "`filename` must be in one list.*both the train and the test"),
        (TESTED, lambda t: "1 a.png\n", LINES),
        (TESTED, lambda t: "1 a.png flu x\n", LINES),
        (TESTED, None, r"`input` must be one test list\. Received: \[\]"),
        ("train_COVIDx8B.txt", lambda t: TRAIN, r"`input` must be one train list.*8B.*Keep the lists of one"),
    ],
    write_layout: [
        ("data.csv", lambda t: t + "p2,i1,m,ap\n", "`image_id` .*row 4, which repeats row 1"),
        ("data.csv", lambda t: t.replace("patient_id", "id"), "`patient_id` must be a column of"),
        ("data.csv", None, r"`input` must be a folder with one of: .*which has none of them"),
        ("train.txt", lambda t: TRAIN, "`input` must be a folder with one of: .*has the lists .* and Hann"),
    ],
}


@pytest.fixture
def write(tmp_path, image_file):
    """`write_files` of this test's folder."""
    return lambda files: write_files(tmp_path, image_file, files)


def test_radiography_folders_are_classes_and_masks_no_images(write, decoded):
    images = ("COVID/images/COVID-1", "COVID/masks/COVID-1", "Lung_Opacity/images/Lung_Opacity-1")
    images += ("Normal/images/Normal-1", "Normal/images/Normal-2", "Viral Pneumonia/images/Viral Pneumonia-1")
    radiography = write({f"{name}.png": None for name in images} | {"COVID.metadata.xlsx": "not read"})
    assert decoded(covid, radiography) == {
        "COVID/COVID-1.png": COVID,
        "Lung_Opacity/Lung_Opacity-1.png": OPACITY,
        "Normal/Normal-1.png": NORMAL,
        "Normal/Normal-2.png": NORMAL,
        "Viral Pneumonia/Viral Pneumonia-1.png": VIRAL,
    }
    rows = list(covid.image_rows(radiography))
    assert len({row.patient_id for row in rows}) == 5
    assert {row.split for row in rows} == {""}


def test_radiography_of_earlier_releases_has_no_folder_for_images(write):
    root = write({f"{folder}/{folder} (1).png": None for folder in covid.FOLDERS})
    assert len(list(covid.image_rows(root))) == 4


def test_covidx_lists_are_labels_patients_and_split(tmp_path, image_file, decoded):
    covidx = write_lists_layout(tmp_path, image_file)
    assert decoded(covid, covidx) == {
        "COVID(1).png": COVID,
        "SARS-Fig8a-day0.jpeg": PNEUMONIA,
        "SARS-Fig8b-day5.jpeg": PNEUMONIA,
        "00f08de1-2c.png": NORMAL,
        "MIDRC-46647-0.png": {"COVID-19": NEGATIVE},
    }
    found = [(row.patient_id, row.split) for row in covid.image_rows(covidx)]
    patients = ("COVID 1", "3", "3", "00f08de1-2c")
    assert found == [*((patient, "train") for patient in patients), ("419639", "test")]


def test_covidx_of_kaggle_has_a_validation_list(write):
    lists = {"train.txt": TRAIN, "test.txt": TEST, "val.txt": "9 nine.png positive ricord\n"}
    *_, row = covid.image_rows(write(lists))
    assert (row.split, row.labels) == ("valid", COVID)
    assert row.path.endswith("/val/nine.png")


def test_hannover_table_gives_patients_and_views(archive, decoded):
    assert decoded(covid, archive) == {"i1": COVID, "i2": COVID, "i3": COVID}
    found = [(row.patient_id, row.view) for row in covid.image_rows(archive)]
    assert found == [("p1", "frontal"), ("p1", "lateral"), ("p2", "frontal")]


def test_missing_class_folders_are_refused(write):
    root = write({"COVID/images/COVID-1.png": None})
    with pytest.raises(ValueError, match="`input` must be a folder with Lung_Opacity/images"):
        next(covid.image_rows(root))


def test_real_hannover_has_the_counts_of_its_readme(medclip_data):
    rows = list(covid.image_rows(medclip_data / "covid_hannover"))
    assert len(rows) == len({row.image_id for row in rows}) == 243
    assert len({row.patient_id for row in rows}) == 71
    assert collections.Counter(row.view for row in rows) == {"frontal": 243}
    assert all(row.labels == COVID for row in rows)
    assert all(covid.read_image(row).startswith(b"\xff\xd8") for row in rows[::60])
