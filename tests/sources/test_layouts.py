"""Every published layout through the job: whole, with damaged images, with damaged tables; and how often it
is read.

Each source's own test writes its layout in its functions `write_…layout`. Its `DAMAGED` maps such a function
to the damages that the source refuses: (file, change of its text or None to delete it, sentence). No sentence
holds one of its `SECRETS`.
"""

import collections
import gzip
import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest

from beam_jobs import decode_images
from beam_jobs.dataset.job import TooManyBadRowsError
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.sources import SOURCES, get_source

HERE = pathlib.Path(__file__).parent
IMAGES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
TEXTS_IN_TABLES = ("csv", "table", "padchest", "chexpert_plus")


def load_test(source):
    """The module that tests a source."""
    (path,) = [*HERE.glob(f"test_{source}.py"), *HERE.glob(f"{source}/test_archive.py")]
    spec = importlib.util.spec_from_file_location(f"layout_of_{source}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def writers_in(module):
    """The functions that write a layout into a folder, and return the job's input."""
    return [value for name, value in vars(module).items() if name.startswith("write_") and "layout" in name]


TESTS = {source: load_test(source) for source in SOURCES}
LAYOUTS = {f"{source}, {w.__name__}": (source, w) for source in SOURCES for w in writers_in(TESTS[source])}
WITH_IMAGES = [layout for layout, (source, _) in LAYOUTS.items() if hasattr(get_source(source), "image_rows")]
# Whose images stand in a table: of others a missing one is not known.
WITH_TABLE = [layout for layout in WITH_IMAGES if not layout.startswith("dicom,")]
# Concepts that the images of an archive are labelled with, as its publication says; in some of them a part.
_CHEXPERT = frozenset(load_table("chexpert14").names)
_NIH = {"Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia"}
_NIH |= {"Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "Pneumonia"}
LABELLED = {
    "nih_chestxray14": _NIH | {"Pneumothorax", "No Finding"},
    "kermany": {"Pneumonia", "No Finding"},
    "siim_acr": {"Pneumothorax", "No Finding"},
    "mura": {"Abnormal"},
    "rsna": {"Pneumonia", "Lung Opacity", "No Finding"},
    "covid": {"COVID-19", "Pneumonia", "Viral Pneumonia", "Lung Opacity", "No Finding"},
    **dict.fromkeys(("chexpert", "chexpert_plus", "mimic_cxr", "mimic_cxr_test", "brax"), _CHEXPERT),
    **{name: set() for name in ("openi", "r2gen", "rexgradient", "dicom", "fhir")},
}
DAMAGES = [
    (source, writer, *damage)
    for source in SOURCES
    for writer, damages in getattr(TESTS[source], "DAMAGED", {}).items()
    for damage in damages
]


@pytest.fixture
def write(tmp_path, image_file):
    """A function: layout → the source's module, the job's options."""

    def make(layout):
        source, writer = LAYOUTS[layout]
        path = writer(tmp_path / "archive", image_file)
        options = {"source": source, "input": str(path), "output": str(tmp_path / "records")}
        return get_source(source), {**options, "image_size": 16}

    (tmp_path / "archive").mkdir()
    return make


@pytest.fixture(scope="module")
def opened():
    """Names of the tables and reports of an archive that the process has opened since the last `clear`."""
    names = []

    def hook(event, args):
        if event == "open" and "/archive/" in str(args[0]) and not str(args[0]).endswith(IMAGES):
            names.append(str(args[0]))

    sys.addaudithook(hook)
    return names


def test_every_source_has_a_layout():
    assert {source for source, _ in LAYOUTS.values()} == set(SOURCES)


@pytest.mark.parametrize("layout", WITH_IMAGES)
def test_a_whole_archive_is_recorded_to_the_last_image(layout, write):
    source, options = write(layout)
    num_images = sum(pathlib.Path(row.path).is_file() for row in source.image_rows(options["input"]))
    counts = decode_images.run(**options).counts
    assert num_images > 1
    assert (counts["rows"], counts["records"], counts["bad_rows"]) == (num_images, num_images, 0)


@pytest.mark.parametrize("layout", [name for name in WITH_IMAGES if LAYOUTS[name][0] in LABELLED])
def test_images_have_no_other_labels_than_their_archive_says(layout, write):
    source, options = write(layout)
    rows = list(source.image_rows(options["input"]))
    labelled = set().union(*(row.labels for row in rows))
    expected = LABELLED[options["source"]]
    assert labelled <= expected
    assert bool(labelled) == bool(expected)
    if options["source"] in ("nih_chestxray14", "kermany", "mura"):
        assert all(row.labels.keys() == expected for row in rows)
    assert not getattr(source, "LABELS_ALL", False)


@pytest.mark.parametrize("layout", WITH_TABLE)
def test_a_missing_and_a_truncated_image_fail_the_job_by_their_reasons(layout, write):
    source, options = write(layout)
    missing, *others, truncated = (pathlib.Path(row.path) for row in source.image_rows(options["input"]))
    missing.unlink()
    truncated.write_bytes(truncated.read_bytes()[:-80])
    output = pathlib.Path(options["output"])
    bad = output.with_name("records.bad_records.jsonl")
    sentence = (
        "`max_bad_fraction` must be at least the share of bad rows. Received: 0.01 and "
        f"2 bad of {len(others) + 2} rows. Keys and reasons are in {bad}."
    )
    with pytest.raises(TooManyBadRowsError) as failed:
        decode_images.run(**options)
    assert str(failed.value) == sentence
    reasons = {json.loads(line)["reason"] for line in bad.read_text().splitlines()}
    cut = "the pixels of the DICOM file cannot be decoded (ValueError)"
    broken = cut if truncated.suffix in (".dcm", ".dicom") else "not a whole JPEG or PNG file"
    assert reasons == {"the file does not exist", broken}
    assert not output.exists()


@pytest.mark.parametrize(("source", "writer", "name", "change", "sentence"), DAMAGES)
def test_a_damaged_table_is_refused_at_the_first_row(
    source, writer, name, change, sentence, tmp_path, image_file
):
    table = writer(tmp_path, image_file) / name
    unpack, pack = (gzip.decompress, gzip.compress) if name.endswith(".gz") else (bytes, bytes)
    if change is None:
        table.unlink()
    else:
        text = unpack(table.read_bytes()).decode() if table.is_file() else ""
        table.write_bytes(pack(change(text).encode()))
    with pytest.raises(ValueError, match=sentence) as error:
        next(get_source(source).image_rows(table.parents[name.count("/")]))
    assert not any(secret in str(error.value) for secret in getattr(TESTS[source], "SECRETS", ()))


@pytest.mark.parametrize("layout", WITH_TABLE)
def test_a_table_is_opened_once_for_all_its_rows(layout, write, opened):
    source, options = write(layout)
    for name in ("image_rows", "report_rows"):
        if name == "report_rows" and (options["source"] in TEXTS_IN_TABLES or not hasattr(source, name)):
            continue  # a table of texts is read twice: they are too large to be kept
        opened.clear()
        assert list(getattr(source, name)(options["input"]))
        assert set(collections.Counter(opened).values()) <= {1}
        tables = [name for name in opened if ".csv" in name or name.endswith(".json")]
        assert tables or source.__name__.endswith(("openi", "covid")), "no table was seen"


def test_a_job_opens_a_table_twice_before_its_pipeline_and_once_in_it(write, opened):
    _, options = write("csv, write_layout")
    opened.clear()
    decode_images.run(**options)
    assert opened == 3 * [options["input"]]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (pathlib.Path.unlink, r"`input` must be a file or folder that exists\."),
        (
            lambda table: table.write_text(table.read_text().replace("patient_id", "patient")),
            r"`patient_id` must be a column of .*mine\.csv\. .* Near names: patient\.",
        ),
    ],
)
def test_a_damaged_table_is_refused_before_any_work(damage, sentence, write, monkeypatch):
    _, options = write("csv, write_layout")
    damage(pathlib.Path(options["input"]))
    monkeypatch.setattr("beam_jobs.dataset.job.execute", None)  # no pipeline runs
    with pytest.raises(ValueError, match=f"^{sentence}"):
        decode_images.run(**options)
    assert [path.name for path in pathlib.Path(options["output"]).parent.iterdir()] == ["archive"]


def test_the_job_reads_burned_in_annotation_only_if_allowed(tmp_path, dicom_file):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28), np.uint8)
    (tmp_path / "1.dcm").write_bytes(dicom_file(pixels, BurnedInAnnotation="YES"))
    (tmp_path / "2.dcm").write_bytes(dicom_file(pixels))
    (tmp_path / "mine.csv").write_text("path,patient_id\n1.dcm,p1\n2.dcm,p2\n")
    options = {"source": "csv", "input": str(tmp_path / "mine.csv"), "output": str(tmp_path / "out/records")}
    options |= {"image_size": 16, "max_bad_fraction": 0.5}
    refused = decode_images.run(**options)
    assert (refused.counts["records"], refused.counts["bad_rows"]) == (1, 1)
    allowed = decode_images.run(**options, allow_annotation=True)  # made anew over the first
    assert (allowed.counts["records"], allowed.counts["bad_rows"]) == (2, 0)
    assert "burned into" not in (tmp_path / "out/records/bad_records.jsonl").read_text()
