import numpy as np
import pytest

from beam_jobs.dataset.report_join import FetchReports, places_of
from beam_jobs.dataset.sharding import KeyedRow
from medclip_keras.records.schema import encode, report_features
from medclip_keras.records.shards import Shard, write_shard
from medclip_keras.sources.rows import ImageRow


def keyed(name, study, patient="p", split="train"):
    return KeyedRow(name, name, study, patient, split, ImageRow(name, study, patient, ""))


def report(key, study, patient="p"):
    record = {"record_key": key, "study_id": study, "patient_id": patient, "split": "train"}
    record |= {"label_states": np.zeros(2, np.int8), "sentences": []}
    return encode(report_features(2), record)


@pytest.fixture
def records(tmp_path):
    """The records of two shards, and an empty one."""
    made = {
        "a": [report("r1", "s1"), report("r2", "s2 of a longer name")],
        "b": [report("r3", "s1")],
        "c": [],
    }
    for name, serialized in made.items():
        write_shard(tmp_path, name, serialized)
    return made


@pytest.mark.parametrize("order", [1, -1])
def test_rows_get_the_reports_of_their_own_study(tmp_path, records, order):
    places = [(name, places_of(str(tmp_path / name))) for name in records][::order]
    assert [len(of_shard) for _, of_shard in places] == [2 * 28, 1 * 28, 0][::order]
    rows = [keyed("i1", "s1"), keyed("i2", "s3"), keyed("i3", "s2 of a longer name"), keyed("i4", "s1")]
    fetched = FetchReports(str(tmp_path))(rows, places)
    assert [row.record_key for row in fetched] == ["i1", "i2", "i3", "i4"]
    one, two, three = *records["a"], *records["b"]
    assert [row.reports for row in fetched] == [(one, three), (), (two,), (one, three)]


def test_shards_without_a_wanted_report_are_not_opened(tmp_path, records):
    places = [(name, places_of(str(tmp_path / name))) for name in records]
    (tmp_path / "b").unlink()
    (row,) = FetchReports(str(tmp_path))([keyed("i", "s2 of a longer name")], places)
    assert row.reports == (records["a"][1],)
    assert FetchReports(str(tmp_path))([], places) == []


def test_a_study_number_of_another_patient_is_another_study(tmp_path):
    own, others = report("r1", "1", "p"), report("r2", "1", "q")
    write_shard(tmp_path, "a", [own, others])
    rows = [keyed("i1", "1", "p"), keyed("i2", "1", "q"), keyed("i3", "1", "other")]
    fetched = FetchReports(str(tmp_path))(rows, [("a", places_of(str(tmp_path / "a")))])
    assert [row.reports for row in fetched] == [(own,), (others,), ()]


def test_a_patients_reports_in_another_split_stop_the_job(tmp_path):
    name = Shard("train", 0, 1).file_name("x")
    write_shard(tmp_path, name, [report("r", "s1")])
    places = [(name, places_of(str(tmp_path / name)))]
    rows = [keyed("i", "another study", split="test")]
    sentence = "1 patients with images in test and reports in train"
    with pytest.raises(ValueError, match=f"`split` must be the same for all images and .*{sentence}"):
        FetchReports(str(tmp_path))(rows, places)
    (row,) = FetchReports(str(tmp_path), own_splits=True)([keyed("i", "s1", split="test")], places)
    assert len(row.reports) == 1  # of an evaluation set
    assert FetchReports(str(tmp_path))([keyed("i", "s1", "q", "test")], places)[0].reports == ()
