"""Every published layout through the job itself: whole, and in each of five ways damaged.

The layouts are those that each source's own test writes, with the page that it cites. Tables are refused
before any work; images that are not there or not whole are bad rows, and more than one in a hundred fail the
job.
"""

import gzip
import importlib.util
import json
import pathlib
import shutil

import pytest

from beam_jobs import decode_images
from beam_jobs.dataset.job import TooManyBadRowsError
from medclip_keras.sources import SOURCES, phantom


def writer(source: str, name: str = "write_layout"):
    """The function of the source's test that writes its layout into a folder, and returns the job's input."""
    path = pathlib.Path(__file__).with_name(f"test_{source}.py")
    spec = importlib.util.spec_from_file_location(f"layout_of_{source}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def write_phantoms(folder, image_file):
    phantom.write_phantom(folder, seed=0, num_paired=2, num_image_only=2, num_text_only=2, image_size=32)
    return folder


# Layout → how it is written, its images, the one to be taken away, the one to be cut.
LAYOUTS = {
    "openi": (writer("openi"), 3, "NLMCXR_png/CXR1_1_IM-0001-3001.png", "NLMCXR_png/CXR2_IM-0652-2001.png"),
    "nih_chestxray14": (
        writer("nih_chestxray14"), 3, "images/00000001_000.png", "images/00000002_000.png",
    ),
    "kermany": (writer("kermany"), 2, "NORMAL/a.jpeg", "PNEUMONIA/b.jpeg"),
    "mimic_cxr": (
        writer("mimic_cxr"), 5,
        "files/p10/p10000001/s50000011/aaaa0001.jpg", "files/p19/p19999999/s50000031/cccc0001.jpg",
    ),
    "chexpert": (
        writer("chexpert"), 7,
        "train/patient00001/study1/view1_frontal.jpg", "test/patient64741/study1/view1_frontal.jpg",
    ),
    "rsna": (writer("rsna"), 3, "stage_2_train_images/a.dcm", "stage_2_train_images/c.dcm"),
    "covid": (writer("covid"), 3, "png/i1.png", "png/i3.png"),
    "covid of lists": (
        writer("covid", "write_lists_layout"), 5, "train/COVID(1).png", "test/MIDRC-46647-0.png",
    ),
    "mura": (
        writer("mura"), 4,
        "train/XR_SHOULDER/patient00001/study1_positive/image1.png",
        "valid/XR_HAND/patient11185/study1_negative/image1.png",
    ),
    "convirt_8x200": (
        writer("convirt_8x200"), 4,
        "CheXpert-v1.0-small/train/patient1/study1/view1_frontal.jpg",
        "CheXpert-v1.0-small/train/patient1/study3/view2_lateral.jpg",
    ),
    "csv": (writer("csv"), 3, "a.png", "c.png"),
    "phantom": (write_phantoms, 4, "images/ps00000.png", "images/is00000.png"),
}  # fmt: skip


def take_away(*names):
    def damage(root):
        for name in names:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def rewrite(name, change):
    def damage(root):
        path = root / name
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()).decode()).encode()))
        else:
            path.write_text(change(path.read_text()))

    return damage


def rename(name, column, other):
    """Calls a table's column by another name."""

    def change(text):
        header, newline, rows = text.partition("\n")
        assert column in header.split(",")
        return ",".join(other if one == column else one for one in header.split(",")) + newline + rows

    return rewrite(name, change)


def repeat(name):
    """Writes a table's last row twice."""
    return rewrite(name, lambda text: text.rstrip("\n") + "\n" + text.rstrip("\n").rpartition("\n")[2] + "\n")


METADATA, LABELS = "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-chexpert.csv.gz"
MISSING, COLUMN, TWICE = "missing table", "missing column", "row twice"
DAMAGES = [  # layout, kind, what is done to the folder, the sentence
    ("openi", MISSING, take_away("NLMCXR_png", "indiana_projections.csv"),
     r"`input` must be a folder with images such as .* Download NLMCXR_png\.tgz from .* and unpack it\."),
    ("openi", COLUMN, rename("indiana_projections.csv", "projection", "view"),
     r"`projection` must be a column of .*indiana_projections\.csv\. .*Columns: uid, filename, view\."),
    ("openi", TWICE, repeat("indiana_projections.csv"),
     r"`filename` must be different in every row of .*'row 4, which repeats row 3'\. Delete one of them\."),
    ("nih_chestxray14", MISSING, take_away("Data_Entry_2017_v2020.csv"),
     r"`input` must be a folder with Data_Entry_2017_v2020\.csv\. .* Download it from https://nihcc"),
    ("nih_chestxray14", COLUMN, rename("Data_Entry_2017_v2020.csv", "Finding Labels", "Labels"),
     r"`Finding Labels` must be a column of .* Near names: Labels\."),
    ("nih_chestxray14", TWICE, repeat("Data_Entry_2017_v2020.csv"),
     r"`Image Index` must be different .*'row 4, which repeats row 3'\. Delete one of them\."),
    # Without its manifest the folders are the table: one of them must be there.
    ("kermany", MISSING, take_away("NORMAL", "PNEUMONIA"),
     r"`input` must be a folder that holds NORMAL and PNEUMONIA, .* Download it from https://data\.mendeley"),
    ("kermany", COLUMN, rename("manifest.csv", "patient", "patient_id"),
     r"`patient` must be a column of .*manifest\.csv\. .* Near names: patient_id\."),
    ("kermany", TWICE, repeat("manifest.csv"), r"`file` must be different .*'row 3, which repeats row 2'"),
    ("mimic_cxr", MISSING, take_away(METADATA),
     r"`input` must be a folder with mimic-cxr-2\.0\.0-metadata\.csv\.gz, .* Download it from https://phys"),
    ("mimic_cxr", COLUMN, rename(LABELS, "Edema", "Oedema"),
     r"`Edema` must be a column of .*chexpert\.csv\.gz\. .* Near names: Oedema\."),
    ("mimic_cxr", TWICE, repeat(METADATA), r"`dicom_id` must be different .*'row 6, which repeats row 5'"),
    ("chexpert", MISSING, take_away("train.csv", "valid.csv", "test.csv"),
     r"`input` must be a folder, and one only, with train\.csv, .* Download it from https://stanford"),
    ("chexpert", COLUMN, rename("valid.csv", "Pneumonia", "Pneumonias"),
     r"`Pneumonia` must be a column of .*valid\.csv\. .* Near names: Pneumonias"),
    ("chexpert", TWICE, repeat("test.csv"), r"`Path` must be different .*'row 3, which repeats row 2'"),
    ("rsna", MISSING, take_away("stage_2_train_labels.csv"),
     r"`input` must be a folder with stage_2_train_labels\.csv\. .* Download it from https://www\.kaggle"),
    ("rsna", COLUMN, rename("stage_2_train_labels.csv", "patientId", "patient"),
     r"`patientId` must be a column of .* Near names: patient\."),
    ("rsna", TWICE, repeat("stage_2_train_labels.csv"),
     r"`patientId and box` must be different .*'row 5, which repeats row 4'"),
    ("covid", MISSING, take_away("data.csv"),
     r"`input` must be a folder with one of: .*which has none of them.* See the documentation"),
    ("covid", COLUMN, rename("data.csv", "image_id", "image"),
     r"`image_id` must be a column of .*data\.csv\. .* Near names: image, patient_id\."),
    ("covid", TWICE, repeat("data.csv"), r"`image_id` must be different .*'row 4, which repeats row 3'"),
    ("covid of lists", MISSING, take_away("test_COVIDx9A.txt"),
     r"`input` must be one test list\. Received: \[\]\. Keep the lists of one version in the folder\."),
    ("covid of lists", COLUMN, rewrite("test_COVIDx9A.txt", lambda text: "419639 MIDRC-46647-0.png\n"),
     r"`input` must be lines of patient, file, class .*, source\. Received: 'row 1 of .*test_COVIDx9A\.txt'"),
    ("covid of lists", TWICE, repeat("test_COVIDx9A.txt"),
     r"`filename` must be different .*'row 2, which repeats row 1'"),
    ("mura", MISSING, take_away("valid_labeled_studies.csv"),
     r"`input` must be a folder with valid_labeled_studies\.csv\. .* Download it from https://stanford"),
    ("mura", COLUMN, rewrite("valid_labeled_studies.csv", lambda text: text.replace(",0", "")),
     r"`study` must be a line such as .*study1_positive/,1\. Received: 'row 1 of .*valid_labeled_studies"),
    ("mura", TWICE, repeat("valid_image_paths.csv"), r"`image` must be .*'row 2, which repeats row 1'"),
    ("convirt_8x200", MISSING, take_away("image-retrieval/query.csv"),
     r"`input` must be a folder with image-retrieval/query\.csv\. .* Download it from https://github"),
    ("convirt_8x200", COLUMN, rename("image-retrieval/query.csv", "Variable", "Category"),
     r"`Variable` must be a column of .*query\.csv\. .* Columns: Category, Path\."),
    ("convirt_8x200", TWICE, repeat("image-retrieval/candidate.csv"),
     r"`Path` must be different .*'row 4, which repeats row 3'"),
    ("csv", MISSING, take_away("mine.csv"), r"`input` must be a file or folder that exists\. Received: '.*'"),
    ("csv", COLUMN, rename("mine.csv", "patient_id", "patient"),
     r"`patient_id` must be a column of .*mine\.csv\. .* Near names: patient\."),
    ("phantom", MISSING, take_away("images.csv"),
     r"`input` must be a table of comma-separated values\. Received: '.*images\.csv'\. There is no such"),
    ("phantom", COLUMN, rename("images.csv", "view", "views"),
     r"`view` must be a column of .*images\.csv\. .* Near names: views"),
    ("phantom", TWICE, repeat("images.csv"), r"`image_id` must be different .*'row 5, which repeats row 4'"),
]  # fmt: skip


@pytest.fixture
def write(tmp_path, image_file):
    """A function: layout → the job's options."""

    def make(layout):
        path = LAYOUTS[layout][0](tmp_path / "archive", image_file)
        source = layout.partition(" ")[0]
        return {"source": source, "input": str(path), "output": str(tmp_path / "records"), "image_size": 16}

    (tmp_path / "archive").mkdir()
    return make


def folder_of(options):
    path = pathlib.Path(options["input"])
    return path if path.is_dir() else path.parent


def test_every_source_is_here():
    damages = {(layout, kind) for layout, kind, *_ in DAMAGES} | {("csv", TWICE)}  # a test of its own
    assert {layout.partition(" ")[0] for layout in LAYOUTS} == set(SOURCES)
    assert damages == {(layout, kind) for layout in LAYOUTS for kind in (MISSING, COLUMN, TWICE)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_archive_is_recorded_to_the_last_image(layout, write):
    counts = decode_images.run(**write(layout)).counts
    assert (counts["rows"], counts["records"], counts["bad_rows"]) == (*2 * [LAYOUTS[layout][1]], 0)


@pytest.mark.parametrize(
    ("layout", "damage", "sentence"),
    [pytest.param(layout, *rest, id=f"{layout}, {kind}") for layout, kind, *rest in DAMAGES],
)
def test_a_damaged_table_is_refused_before_any_work(layout, damage, sentence, write, monkeypatch):
    options = write(layout)
    damage(folder_of(options))
    monkeypatch.setattr("beam_jobs.dataset.job.execute", None)  # no pipeline runs
    with pytest.raises(ValueError, match=f"^{sentence}"):
        decode_images.run(**options)
    assert [path.name for path in pathlib.Path(options["output"]).parent.iterdir()] == ["archive"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_and_a_truncated_image_fail_the_job_by_their_reasons(layout, write):
    options = write(layout)
    _, num_rows, missing, truncated = LAYOUTS[layout]
    folder, output = folder_of(options), pathlib.Path(options["output"])
    (folder / missing).unlink()
    (folder / truncated).write_bytes((folder / truncated).read_bytes()[:-80])
    bad = output.with_name("records.bad_records.jsonl")
    sentence = (
        "`max_bad_fraction` must be at least the share of bad rows. Received: 0.01 and "
        f"2 bad of {num_rows} rows. Keys and reasons are in {bad}."
    )
    with pytest.raises(TooManyBadRowsError) as failed:
        decode_images.run(**options)
    assert str(failed.value) == sentence
    reasons = {json.loads(line)["reason"] for line in bad.read_text().splitlines()}
    cut = "the pixels of the DICOM file cannot be decoded (ValueError)"
    assert reasons == {"the file does not exist", cut if layout == "rsna" else "not a whole JPEG or PNG file"}
    assert not output.exists()


def test_an_image_twice_in_ones_own_table_is_a_bad_row(write):
    options = write("csv")
    repeat("mine.csv")(folder_of(options))
    with pytest.raises(TooManyBadRowsError, match=r"Received: 0\.01 and 1 bad of 4 rows\."):
        decode_images.run(**options)
    counts = decode_images.run(**options, max_bad_fraction=0.25).counts
    assert (counts["records"], counts["bad_rows"]) == (3, 1)
    line = json.loads((pathlib.Path(options["output"]) / "bad_records.jsonl").read_text())
    assert line["reason"] == "another row has the same identifier"
