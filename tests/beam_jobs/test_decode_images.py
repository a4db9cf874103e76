import csv
import functools
import hashlib
import io
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import apache_beam as beam
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from apache_beam.testing.test_pipeline import TestPipeline as MemoryPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_jobs import decode_images, label_reports
from beam_jobs.dataset.options import pipeline_options
from beam_jobs.dataset.sharding import KeyedRow, MakeShards
from beam_jobs.decode_images import DecodeImage, DecodeOptions
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.preprocess.images import decode_to_square
from medclip_keras.records.schema import encode, report_features
from medclip_keras.sources.rows import BadRowError, ImageRow


@pytest.fixture
def jobs(archive, source, concepts, monkeypatch, tmp_path):
    """Runs either job on the small archive."""
    monkeypatch.setattr(label_reports, "get_source", lambda name: source)
    monkeypatch.setattr(decode_images, "get_source", lambda name: source)

    def run(job, name, **options):
        options = {"concepts": concepts, **options}
        if job is decode_images:
            options = {"image_size": 16, **options}
        return job.run(source="small", input=str(archive.path), output=str(tmp_path / name), **options)

    return run


def key_of(kind, identifier):
    return hashlib.sha256(f"medclip_keras\0{kind}\0{identifier}".encode()).hexdigest()[:16]


def png_of(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def collect(shard, outcomes):
    made = []
    for outcome in outcomes:
        record = outcome.record
        sentences = [(s["section"], s["text"], s["label_states"].tolist()) for s in record["sentences"]]
        keys = tuple(record[name] for name in ("record_key", "study_id", "patient_id", "split", "view"))
        made.append((keys, record["image"].tolist(), record["label_states"].tolist(), sentences))
    return made


PIXELS = np.random.default_rng(3).integers(0, 256, (3, 16, 16), np.uint8)
FILES = {"a": png_of(PIXELS[0]), "b": png_of(PIXELS[1]), "c": png_of(PIXELS[2])[:-40], "d": b"a report"}
LABELS = {"Edema": LabelState.UNCERTAIN, "Unheard Of": LabelState.POSITIVE}
ROWS = [
    ImageRow("a", "1", "p", "a", "lateral", LABELS, "test"),
    ImageRow("b", "2", "p", "b", "", {}, "test"),
    ImageRow("c", "2", "p", "c", "", {}, "test"),
    ImageRow("d", "3", "p", "d", "", {}, "test"),
]


def read_file(row):
    return FILES[row.path]


def report(key, study, states, *texts):
    sentences = [
        {"text": text, "section": "findings", "label_states": np.array(states, np.int8)} for text in texts
    ]
    record = {"record_key": key, "study_id": key_of("study", study), "patient_id": "", "split": "test"}
    record |= {"label_states": np.array(states, np.int8), "sentences": sentences}
    return encode(report_features(5), record)


def expected(name, study, view, index, states, sentences):
    keys = (key_of("record", name), key_of("study", study), key_of("patient", "p"), "test", view)
    return keys, PIXELS[index][..., None].tolist(), states, sentences


@pytest.mark.parametrize("joined", [False, True], ids=["images", "images and reports"])
def test_decode_image_is_exact_on_rows_in_memory(concepts, tmp_path, joined):
    options = DecodeOptions(source="small", input=str(tmp_path), output=str(tmp_path) + "-out", image_size=16)
    table = load_table(concepts)
    # Two reports of study 2: sentences in the order of their keys; positive before uncertain before negative.
    reports = [report("k2", "2", [1, 2, 0, 2, 0], "Later."), report("k1", "2", [3, 3, 0, 2, 2], "First.", "")]
    reports += [report("k3", "other", [1, 1, 1, 1, 1], "Of no image here.")]
    places = [(key_of("study", study), number) for number, study in enumerate(("2", "2", "other"))]

    def fetch(keyed_rows, places):
        own = [[reports[number] for study, number in places if study == k.study_id] for k in keyed_rows]
        return [replace(k, reports=tuple(found)) for k, found in zip(keyed_rows, own, strict=True)]

    with MemoryPipeline(options=pipeline_options(())) as pipeline:
        rows = pipeline | "Rows" >> beam.Create(ROWS)
        index = pipeline | "Places" >> beam.Create(places) if joined else None
        start = functools.partial(DecodeImage, read_file, table, options.image_size)
        made = rows | MakeShards(options, start, collect, fetch, index)
        said = [("findings", "First.", [3, 3, 0, 2, 2]), ("findings", "", [3, 3, 0, 2, 2])]
        said += [("findings", "Later.", [1, 2, 0, 2, 0])]
        records = [
            expected("a", "1", "lateral", 0, [3, 4, 4, 4, 4], []),  # the archive labels Edema alone
            expected("b", "2", "", 1, [1, 3, 0, 2, 2] if joined else [4] * 5, said if joined else []),
        ]
        assert_that(made.shards, equal_to([sorted(records)]), "shards")
        reason = "not a whole JPEG or PNG file"
        bad = [{"key": key_of("record", name), "reason": reason} for name in "cd"]
        assert_that(made.bad, equal_to(bad), "bad")


def test_a_photograph_on_its_side_is_stored_upright(concepts, monkeypatch):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # its top is the right side of what it shows
    photograph = io.BytesIO()
    PIL.Image.fromarray(PIXELS[0]).save(photograph, "jpeg", quality=100, subsampling=0, exif=exif)
    monkeypatch.setitem(FILES, "e", photograph.getvalue())
    outcome = made_of(concepts, "e")
    difference = outcome.record["image"][..., 0].astype(int) - np.rot90(PIXELS[0], -1)
    assert np.abs(difference).max() <= 4


def made_of(concepts, name):
    row = ImageRow(name, "s", "p", name)
    return DecodeImage(read_file, load_table(concepts), 16)(KeyedRow(name, name, "s", "p", "test", row))


@pytest.mark.parametrize(("bits", "counted"), [(12, True), (14, True), (15, False), (16, False)])
def test_pictures_of_few_bits_keep_their_values_and_are_counted(bits, counted, concepts, monkeypatch):
    deep = np.linspace(0, 2**bits - 1, 256).astype(np.uint16).reshape(16, 16)
    monkeypatch.setitem(FILES, "e", png_of(deep))
    outcome = made_of(concepts, "e")
    np.testing.assert_array_equal(outcome.record["image"][..., 0], np.round(deep / 257))
    assert ("images_nearly_black" in outcome.tags) == counted


def test_a_picture_that_is_too_large_is_a_bad_row_by_its_header(concepts, monkeypatch):
    monkeypatch.setitem(FILES, "e", FILES["a"][:16] + (23000).to_bytes(4) * 2 + FILES["a"][24:])
    with pytest.raises(BadRowError, match="more than 67,108,864 pixels"):
        made_of(concepts, "e")


def test_run_stores_the_output_of_decode_to_square(archive, jobs, tmp_path, records_of):
    paths = [archive.add_image(patient, 1, edema=str(patient % 2)) for patient in range(12)]
    manifest = jobs(decode_images, "records", image_size=24)
    counts = {"rows": 12, "records": 12, "bad_rows": 0, "images_with_labels": 12, "images_with_sentences": 0}
    assert manifest.counts == counts
    assert sum(split["positives"][0] for split in manifest.splits.values()) == 6
    records = {record["record_key"].decode(): record for record in records_of(tmp_path / "records")}
    for patient, path in enumerate(paths):
        record = records[key_of("record", path.name)]
        image = decode_to_square(tf.constant(path.read_bytes()), 24)
        np.testing.assert_array_equal(record["image"], image)
        assert record["image"].std() > 10  # noise, not a black square
        state = LabelState.POSITIVE if patient % 2 else LabelState.NEGATIVE
        assert record["label_states"].tolist() == [state] + 4 * [LabelState.UNLABELLED]
        assert record["view"] == b"frontal"


def test_tfds_opens_the_shards_without_this_project(archive, jobs, tmp_path):
    for patient in range(9):
        archive.add_image(patient, 1, edema="1", split="train" if patient < 6 else "test")
    jobs(decode_images, "records")
    code = f"""
        import sys
        import tensorflow_datasets as tfds
        builder = tfds.builder_from_directory({str(tmp_path / "records")!r})
        rows = [row for split in ("train", "test") for row in tfds.as_numpy(builder.as_dataset(split=split))]
        assert not [name for name in sys.modules if name.startswith(("medclip_keras", "beam_jobs"))]
        shapes = {{(row["image"].shape, row["image"].dtype.name, len(row["label_states"])) for row in rows}}
        print([len(rows), builder.info.splits["test"].num_examples, shapes, builder.info.citation])
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = "[9, 3, {((16, 16, 1), 'uint8', 5)}, 'Small et al., 2026']"
    assert done.stdout.splitlines()[-1] == said


def test_run_joins_each_image_with_the_report_of_its_own_study(archive, jobs, tmp_path, capsys, records_of):
    for patient in range(8):
        archive.add_image(patient, 1)
        archive.add_image(patient, 2)
        archive.add_report(patient, 1, f"Mild edema, grade {patient}.")
    reports = jobs(label_reports, "reports", keep_ids=True)
    manifest = jobs(decode_images, "images", keep_ids=True, reports=str(tmp_path / "reports"))
    assert manifest.reports_sha256 == reports.fingerprint
    assert manifest.counts["images_with_sentences"] == manifest.counts["images_with_labels"] == 8
    splits = {record["patient_id"]: record["split"] for record in records_of(tmp_path / "reports")}
    for record in records_of(tmp_path / "images"):
        patient, study = record["study_id"].decode().split("-")
        texts = [text.decode() for text in record["sentences"]["text"]]
        assert texts == ([f"Mild edema, grade {patient}."] if study == "1" else [])
        assert record["label_states"][0] == (LabelState.POSITIVE if study == "1" else LabelState.UNLABELLED)
        assert record["split"] == splits[record["patient_id"]]
    # Other reports are another input.
    archive.add_report(0, 2, "Mild edema.")
    jobs(label_reports, "reports", keep_ids=True)
    capsys.readouterr()
    manifest = jobs(decode_images, "images", keep_ids=True, reports=str(tmp_path / "reports"))
    assert "nothing to do" not in capsys.readouterr().out
    assert manifest.counts["images_with_sentences"] == 9


@pytest.mark.parametrize(
    ("precedence", "heart", "others"),
    [("", LabelState.UNLABELLED, LabelState.UNLABELLED), ("table", LabelState.POSITIVE, 0)],
)
def test_the_table_of_a_published_archive_is_complete_by_default(
    archive, jobs, tmp_path, records_of, precedence, heart, others
):
    archive.add_image(1, 1, edema="0")
    archive.add_report(1, 1, "Mild edema. Cardiomegaly.")
    jobs(label_reports, "reports")
    reports = str(tmp_path / "reports")
    manifest = jobs(decode_images, "images", reports=reports, label_precedence=precedence)
    (record,) = records_of(tmp_path / "images")
    assert record["label_states"].tolist() == [LabelState.NEGATIVE, heart, others, others, others]
    says_more = heart == LabelState.POSITIVE
    assert manifest.counts["labels_of_report"] == says_more
    assert manifest.counts["labels_overruled"] == 1 + (not says_more)


def test_an_archive_that_labels_all_is_silent_about_the_rest(archive, jobs, tmp_path, source, records_of):
    source.LABELS_ALL = True
    archive.add_image(1, 1, edema="1")
    archive.add_image(2, 1)
    jobs(decode_images, "records")
    states = sorted(record["label_states"].tolist() for record in records_of(tmp_path / "records"))
    assert states == [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]


def test_reports_that_do_not_fit_get_the_sentence(archive, jobs, tmp_path):
    archive.add_image(1, 1)
    archive.add_report(1, 1, "Mild edema.")
    manifest = jobs(label_reports, "reports")
    reports = str(tmp_path / "reports")
    for options, sentence in (
        ({"key_salt": "2"}, "`reports` must be records made with the same key_salt"),
        ({"split_salt": "2"}, "`reports` must be records made with the same split_salt"),
        ({"split_fractions": (1.0, 0.0, 0.0)}, "same split_fractions"),
        ({"keep_ids": True}, "same keep_ids. Received: False. Label the reports again"),
        ({"concepts": "chexpert14"}, "`reports` must be records of the concepts chexpert14. Received: 'few'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            jobs(decode_images, "images", reports=reports, **options)
    with pytest.raises(ValueError, match=r"`directory` must be a folder of records"):
        jobs(decode_images, "images", reports=str(archive.path))
    jobs(decode_images, "images")
    with pytest.raises(ValueError, match=r"`reports` must be records of label_reports. Received: 'images'"):
        jobs(decode_images, "others", reports=str(tmp_path / "images"))
    (name,) = manifest.shard_names
    content = bytearray((tmp_path / "reports" / name).read_bytes())
    content[-9] ^= 4
    (tmp_path / "reports" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"`{name}` must be of the manifest's SHA-256"):
        jobs(decode_images, "others", reports=reports)
    assert not (tmp_path / "others").exists()


def test_real_images_of_nih_chestxray14(medclip_data, tmp_path, records_of):
    archive = str(medclip_data / "nih_chestxray14")
    output = str(tmp_path / "records")
    manifest = decode_images.run(source="nih_chestxray14", input=archive, output=output, image_size=64)
    assert manifest.counts["records"] == 723
    table = load_table("chest21")
    with open(medclip_data / "nih_chestxray14" / "Data_Entry_2017_v2020.csv") as file:
        effusions = sum("Effusion" in row["Finding Labels"].split("|") for row in csv.DictReader(file))
    found = sum(split["positives"][table.index("Pleural Effusion")] for split in manifest.splits.values())
    assert found == effusions > 0
    patients = {split: set() for split in manifest.splits}
    for record in records_of(output):
        patients[record["split"].decode()].add(record["patient_id"])
    assert all(patients.values())
    assert not patients["train"] & patients["test"] | patients["train"] & patients["valid"]
