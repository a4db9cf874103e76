"""The jobs on the real archives, to the counts of their readme; NIH: in the tests of the jobs."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from beam_jobs import decode_images, label_reports
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.records.manifest import read_manifest


def records_of(directory):
    manifest = read_manifest(directory)
    records = tf.data.TFRecordDataset([str(directory / name) for name in manifest.shard_names])
    return [tfds.as_numpy(manifest.features.deserialize_example(record)) for record in records]


@pytest.mark.parametrize(
    ("source", "folder", "num_images", "num_patients", "concept", "num_positives"),
    [
        ("kermany", "kermany_pneumonia", 1200, 1200, "Pneumonia", 600),
        ("covid", "covid_hannover", 243, 71, "COVID-19", 243),
    ],
)
def test_images_are_all_recorded(
    medclip_data, tmp_path, source, folder, num_images, num_patients, concept, num_positives
):
    options = {"input": str(medclip_data / folder), "output": str(tmp_path / "records"), "image_size": 32}
    manifest = decode_images.run(source=source, concepts="thorax", **options)
    assert manifest.counts["rows"] == manifest.counts["records"] == num_images
    index = load_table("thorax").index(concept)
    assert sum(split["positives"][index] for split in manifest.splits.values()) == num_positives
    records = records_of(tmp_path / "records")
    assert len({record["patient_id"] for record in records}) == num_patients
    assert len({record["image"].tobytes() for record in records}) > 0.97 * num_images


def test_query_sentences_are_all_recorded(medclip_data, tmp_path):
    options = {"input": str(medclip_data / "convirt_8x200"), "output": str(tmp_path / "records")}
    manifest = label_reports.run(source="convirt_8x200", concepts="chexpert14", **options)
    counts = {name: manifest.counts[name] for name in ("rows", "bad_rows", "unusable_reports")}
    assert counts == {"rows": 40, "bad_rows": 0, "unusable_reports": 0}
    assert {name: split["num_records"] for name, split in manifest.splits.items()}["test"] == 40


def test_openi_from_the_command_line(medclip_data, tmp_path):
    command = [sys.executable, "-m", "beam_jobs.label_reports", "--source=openi"]
    command += [f"--input={medclip_data}/openi/NLMCXR_reports_dev.tgz", f"--output={tmp_path}/records"]
    done = subprocess.run(
        [*command, f"--mentions={tmp_path}/mentions"], capture_output=True, text=True, check=True
    )
    assert "of 3184 rows" in done.stdout
    manifest = read_manifest(tmp_path / "records")
    assert manifest.counts["rows"] == 3184
    assert manifest.counts["records"] + manifest.counts["unusable_reports"] == 3184
    lines = [line for path in (tmp_path / "mentions").iterdir() for line in path.read_text().splitlines()]
    assert len({json.loads(line)["report_id"] for line in lines}) == len(lines) == 3184
    assert not any("XXXX" in text for text in (done.stdout, done.stderr))  # how the reports mask names
