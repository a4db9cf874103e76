import numpy as np
import pytest

from beam_jobs.dataset.report_join import FetchReports, places_of
from beam_jobs.dataset.sharding import KeyedRow
from medclip_keras.records.schema import encode, report_features
from medclip_keras.records.shards import write_shard
from medclip_keras.sources.rows import ImageRow


def keyed(name, study):
    return KeyedRow(name, name, study, "p", "train", ImageRow(name, study, "p", ""))


def report(key, study):
    record = {"record_key": key, "study_id": study, "patient_id": "p", "split": "train"}
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
    assert [len(of_shard) for _, of_shard in places] == [2 * 20, 1 * 20, 0][::order]
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
