"""The archive on disk: deterministic bytes, and rows that say what was drawn and written."""

import io

import numpy as np
import pytest
from PIL import Image

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import phantom
from medclip_keras.sources.rows import BadRowError, ReportRow

COUNTS = {"num_paired": 7, "num_image_only": 5, "num_text_only": 6}


def write_layout(folder, image_file):
    phantom.write_phantom(folder, seed=0, num_paired=2, num_image_only=2, num_text_only=2, image_size=32)
    return folder


TABLE = "images.csv"
DAMAGED = {
    write_layout: [
        (TABLE, lambda t: t.replace("view", "views", 1), r"`view` .*images\.csv\. .*names: views"),
        (TABLE, lambda t: t + t.splitlines()[-1], r"`image_id` must be .*'row 5, which repeats row 4'"),
    ]
}


def contents(directory):
    files = (file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    directory = tmp_path_factory.mktemp("phantom")
    phantom.write_phantom(directory, seed=3, image_size=48, **COUNTS)
    return directory


def test_write_phantom_gives_equal_bytes_for_an_equal_seed(archive, tmp_path):
    phantom.write_phantom(tmp_path / "again", seed=3, image_size=48, **COUNTS)
    phantom.write_phantom(tmp_path / "other", seed=4, image_size=48, **COUNTS)
    assert contents(archive) == contents(tmp_path / "again")
    assert not set(contents(archive).values()) & set(contents(tmp_path / "other").values())


def test_one_part_does_not_change_with_the_size_of_another(archive, tmp_path):
    phantom.write_phantom(tmp_path, seed=3, image_size=48, num_paired=7, num_image_only=0, num_text_only=0)
    before, after = contents(archive), contents(tmp_path)
    kept = [name for name in after if not name.endswith(".csv")]
    assert len(kept) == 14
    assert all(before[name] == after[name] for name in kept)


def test_rows_are_the_paired_and_the_single_studies(archive):
    images, reports = list(phantom.image_rows(archive)), list(phantom.report_rows(archive))
    image_studies, report_studies = ({row.study_id for row in rows} for rows in (images, reports))
    assert (len(images), len(reports)) == (12, 13)
    assert len(image_studies & report_studies) == 7
    image_only = {row.patient_id for row in images if row.study_id not in report_studies}
    text_only = {row.patient_id for row in reports if row.study_id not in image_studies}
    assert not image_only & text_only


def test_images_are_gray_png_of_the_asked_size(archive):
    for row in phantom.image_rows(archive):
        image = Image.open(io.BytesIO(phantom.read_image(row)))
        assert (image.format, image.mode, image.size) == ("PNG", "L", (48, 48))
        assert np.asarray(image).std() > 15


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """An archive that is large enough for shares to be counted."""
    directory = tmp_path_factory.mktemp("cohort")
    counts = {"num_paired": 200, "num_image_only": 100, "num_text_only": 100}
    phantom.write_phantom(directory, seed=5, image_size=32, **counts)
    return directory


def test_training_images_with_a_report_have_no_labels_and_all_others_what_was_drawn(cohort):
    written = {row.study_id for row in phantom.report_rows(cohort)}
    kinds = {"blank": 0, "normal": 0, "abnormal": 0}
    for row in phantom.image_rows(cohort):
        states = dict(row.labels)
        assert set(states) == {*phantom.FINDINGS, "No Finding"}
        if row.split == "train" and row.study_id in written:
            assert set(states.values()) == {LabelState.NOT_MENTIONED}
            kinds["blank"] += 1
            continue
        assert set(states.values()) <= {LabelState.POSITIVE, LabelState.NEGATIVE}
        present = {name for name, state in states.items() if state == LabelState.POSITIVE}
        abnormal = present - {"No Finding", "Support Devices"}
        assert ("No Finding" in present) == (not abnormal)
        kinds["abnormal" if abnormal else "normal"] += 1
    assert kinds["blank"] > 100
    assert min(kinds["normal"], kinds["abnormal"]) > 20


def test_splits_are_the_patients_and_about_70_10_20(cohort):
    rows = [*phantom.image_rows(cohort), *phantom.report_rows(cohort)]
    splits = {row.patient_id: row.split for row in rows}
    assert all(splits[row.patient_id] == row.split for row in rows)
    shares = [list(splits.values()).count(name) / len(splits) for name in ("train", "valid", "test")]
    sigmas = [(p * (1 - p) / len(splits)) ** 0.5 for p in (0.7, 0.1, 0.2)]
    assert np.all(np.abs(np.subtract(shares, (0.7, 0.1, 0.2))) < 3 * np.array(sigmas))


def test_reports_are_read_as_sections_with_their_truth(archive):
    truth = phantom.report_truth(archive)
    for row in phantom.report_rows(archive):
        sections = phantom.read_report(row)
        assert sum(len(section.text) for section in sections) > 10
        assert set(truth[row.report_id]) == {*phantom.FINDINGS, "No Finding"}


def test_what_a_report_asserts_was_drawn(cohort):
    drawn = {row.study_id: row.labels for row in phantom.image_rows(cohort) if row.split != "train"}
    truth = phantom.report_truth(cohort)
    asserted = [
        drawn[row.study_id][name]
        for row in phantom.report_rows(cohort)
        for name in phantom.FINDINGS
        if row.study_id in drawn and truth[row.report_id][name] == LabelState.POSITIVE
    ]
    assert len(asserted) > 30
    assert set(asserted) == {LabelState.POSITIVE}


def test_unreadable_report_is_a_bad_row_without_its_name(tmp_path):
    row = ReportRow("secret-report", "s", "p", str(tmp_path / "secret-report.txt"))
    with pytest.raises(BadRowError, match="FileNotFoundError") as error:
        phantom.read_report(row)
    assert "secret" not in str(error.value)


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`num_paired` must be 0 or more\. Received: -1"):
        phantom.write_phantom(tmp_path, seed=0, num_paired=-1, num_image_only=0, num_text_only=0)
    with pytest.raises(ValueError, match=r"`image_size` must be at least 32\. Received: 8"):
        phantom.write_phantom(tmp_path, seed=0, num_paired=1, num_image_only=0, num_text_only=0, image_size=8)
    with pytest.raises(ValueError, match="`input` must be a table"):
        next(phantom.image_rows(tmp_path / "nothing"))
