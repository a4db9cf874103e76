"""The archive on disk: deterministic bytes, and rows that say what was drawn and written."""

import io

import numpy as np
import pytest
from PIL import Image

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import phantom
from medclip_keras.sources.rows import BadRowError, ReportRow

COUNTS = {"num_paired": 7, "num_image_only": 5, "num_text_only": 6}


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


def test_image_labels_are_positive_or_negative_and_no_finding_excludes_the_rest(archive):
    normal = 0
    for row in phantom.image_rows(archive):
        states = dict(row.labels)
        assert set(states.values()) <= {LabelState.POSITIVE, LabelState.NEGATIVE}
        abnormal = {n for n, s in states.items() if s == LabelState.POSITIVE} - {
            "No Finding",
            "Support Devices",
        }
        assert (states["No Finding"] == LabelState.POSITIVE) == (not abnormal)
        normal += not abnormal
    assert 0 < normal < 12


def test_reports_are_read_as_sections_with_their_truth(archive):
    truth = phantom.report_truth(archive)
    for row in phantom.report_rows(archive):
        sections = phantom.read_report(row)
        assert sum(len(section.text) for section in sections) > 10
        assert set(truth[row.report_id]) == {*phantom.FINDINGS, "No Finding"}


def test_report_truth_agrees_with_the_image_of_the_study(archive):
    labels = {row.study_id: row.labels for row in phantom.image_rows(archive)}
    truth = phantom.report_truth(archive)
    compared = 0
    for row in phantom.report_rows(archive):
        for name in phantom.FINDINGS if row.study_id in labels else ():
            if truth[row.report_id][name] == LabelState.POSITIVE:
                assert labels[row.study_id][name] == LabelState.POSITIVE
                compared += 1
    assert compared >= 3


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
