"""Leaks over folders of records: planted ones are found by validate_records and refused by fit."""

import io
import itertools

import numpy as np
import PIL.Image
import pytest

from beam_jobs import validate_records
from beam_jobs.validation import leaks
from beam_jobs.validation.marks import MARK, SIDE, reduce
from medclip_keras import fit
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.sources import patients_of
from medclip_keras.training import train as training

from . import validation_data as data

of = data.of


def anew(pixels, quality=95):
    """A picture saved anew as JPEG, a little brighter."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.clip(pixels[..., 0] * 1.05 + 3, 0, 255).astype(np.uint8)).save(
        file, "jpeg", quality=quality
    )
    return np.array(PIL.Image.open(file))[..., None]


def share_patient(rows, others):
    of(others, "test")[4]["patient_id"] = of(rows, "train")[2]["patient_id"]


def share_picture(rows, others):
    of(others, "test")[4]["image"] = of(rows, "train")[2]["image"]


def share_near_picture(rows, others):
    of(others, "train")[4]["image"] = anew(of(rows, "valid")[2]["image"])


LEAKS = {
    "patient": (share_patient, "patient_in_two_splits", "1 patient in train of {0} and test of {1}"),
    "picture": (share_picture, "image_in_two_splits", "1 image in train of {0} and test of {1}"),
    "near": (
        share_near_picture,
        "nearly_equal_image_in_two_splits",
        "1 nearly equal image in valid of {0} and",
    ),
}


@pytest.fixture(scope="module")
def table(concepts):
    return load_table(concepts)


def write(folder, table, change=None, seed=1):
    """Two folders of image records: other pictures and other patients in the second, unless changed."""
    rows = data.clean_rows("images", len(table), size=32)
    others = data.clean_rows("images", len(table), size=32, seed=seed)
    for row in others:
        row |= {"record_key": row["record_key"][::-1], "patient_id": f"other {row['patient_id']}"}
    if change:
        change(rows, others)
    return [str(data.write_records(folder / k, "images", r, table)) for k, r in (("a", rows), ("b", others))]


def test_folders_without_a_leak_pass(table, tmp_path, capsys):
    folders = write(tmp_path, table)
    assert validate_records.main(["--input", *folders]) == 0
    said = capsys.readouterr().out
    assert said.count("no anomaly in") == 2
    assert "no patient and no picture is in two splits of these folders" in said


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_found_and_refused(leak, table, tmp_path, capsys, monkeypatch):
    change, name, received = LEAKS[leak]
    a, b = write(tmp_path, table, change)
    assert validate_records.main(["--input", a, b]) == 1
    said = capsys.readouterr().err
    assert f"  {name}: " in said
    assert f"must be in one split only, in all folders. Received: {received.format(a, b)}" in said
    assert said.count("_in_two_splits") == 1
    trained = []
    monkeypatch.setattr(training, "train", lambda *_: trained.append(1) or training.Outcome(0, 1))
    reports = str(
        data.write_records(tmp_path / "c", "reports", data.clean_rows("reports", len(table)), table)
    )
    command = ["--workdir", str(tmp_path / "run"), "--images", a, b, "--texts", reports]
    command += ["--set", "data.stored_image_size=32", "model.image.image_size=32"]
    assert fit.main(command) == 1
    refused = capsys.readouterr().err
    assert f"{name}: " in refused
    assert "--set data.allow_anomalies=true" in refused
    assert not trained
    monkeypatch.setattr(leaks, "near_pairs", None)  # the comparison is kept
    assert fit.main([*command, "data.allow_anomalies=true"]) == 130  # as the stand-in for training says
    assert trained


def test_nearly_equal_pictures_in_one_folder_are_an_anomaly(table, tmp_path):
    rows = data.clean_rows("images", len(table), size=32)
    of(rows, "test")[4]["image"] = anew(of(rows, "train")[2]["image"])
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    (anomaly,) = validate_records.run(input=str(directory)).anomalies
    assert anomaly[0] == "nearly_equal_image_in_two_splits"
    assert f"(records {of(rows, 'train')[2]['record_key']})" in anomaly[1]


def test_folders_of_other_keys_are_compared_by_their_pictures_alone(table, tmp_path, monkeypatch):
    def change(rows, others):
        share_patient(rows, others)
        share_picture(rows, others)

    a, b = write(tmp_path, table, change)
    for folder in (a, b):
        validate_records.run(input=folder)
    outputs = {folder: f"{folder}.validation" for folder in (a, b)}
    names = [name for name, _ in validate_records.compare(outputs)]
    assert names == ["patient_in_two_splits", "image_in_two_splits"]
    namespaces = iter("xy")
    monkeypatch.setattr("beam_jobs.validation.marks.patients_of", lambda _: next(namespaces))
    assert [name for name, _ in validate_records.compare(outputs)] == ["image_in_two_splits"]


def test_all_sources_of_own_data_name_the_same_patients():
    assert patients_of("csv") == patients_of("table")
    assert patients_of("chexpert") == patients_of("chexpert_plus") != patients_of("mura")


def test_a_folder_with_a_pattern_for_a_name_is_read(table, tmp_path):
    rows = data.clean_rows("reports", len(table))
    directory = data.write_records(tmp_path / "run [1]*", "reports", rows, table)
    assert validate_records.run(input=str(directory)).anomalies == []


@pytest.mark.parametrize("side", [16, 20, 33, 64])
def test_a_picture_is_reduced_to_means_of_its_parts(side):
    pixels = np.random.default_rng(side).integers(0, 256, (side, side)).astype(np.uint8)
    edges = [k * side // SIDE for k in range(SIDE + 1)]
    spans = list(itertools.pairwise(edges))
    parts = [[pixels[a:b, c:d].mean() for c, d in spans] for a, b in spans]
    expected = 128 + 32 * (parts - np.mean(parts)) / np.std(parts)
    np.testing.assert_allclose(reduce(pixels), np.clip(expected, 0, 255), atol=0.51)
    np.testing.assert_allclose(reduce(pixels // 2 + 9), reduce(pixels), atol=6)  # contrast does not matter


def test_near_pairs_are_those_that_correlate(monkeypatch):
    monkeypatch.setattr(leaks, "_AT_ONCE", 7)  # several chunks
    rng = np.random.default_rng(0)
    marks = np.zeros(40, MARK)
    marks["key"], marks["picture"] = np.arange(40), rng.integers(1, 2**60, 40)
    base = rng.integers(0, 200, (20, SIDE, SIDE))
    noise = rng.integers(0, 40, (20, SIDE, SIDE)) * np.linspace(0, 1, 20)[:, None, None]
    marks["reduced"] = np.concatenate([base, base + noise])
    flat = marks["reduced"].reshape(40, -1).astype(float)
    expected = {
        (i, j) for i in range(20) for j in range(20, 40) if np.corrcoef(flat[i], flat[j])[0, 1] > 0.995
    }
    assert 3 < len(expected) < 18
    assert set(leaks.near_pairs(marks[:20], marks[20:])) == expected
    marks["picture"][20] = marks["picture"][0]
    assert set(leaks.near_pairs(marks[:20], marks[20:])) == expected - {(0, 20)}
