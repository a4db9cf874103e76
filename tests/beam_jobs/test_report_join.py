import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as MemoryPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_jobs import report_join
from beam_jobs.options import pipeline_options
from beam_jobs.report_join import FetchReports, JoinReports, places_of
from beam_jobs.sharding import KeyedRow, Place
from medclip_keras.records.schema import encode, report_features
from medclip_keras.records.shards import write_shard
from medclip_keras.sources.rows import ImageRow


def keyed(name, study, reports=()):
    return KeyedRow(name, name, study, "p", "train", ImageRow(name, study, "p", ""), reports)


def report(key, study):
    record = {"record_key": key, "study_id": study, "patient_id": "p", "split": "train"}
    record |= {"label_states": np.zeros(2, np.int8), "sentences": []}
    return encode(report_features(2), record)


@pytest.fixture
def records(tmp_path):
    """The records of two shards."""
    made = {"a": [report("r1", "s1"), report("r2", "s2 of a longer name")], "b": [report("r3", "s1")]}
    for name, serialized in made.items():
        write_shard(tmp_path, name, serialized)
    return made


def test_places_are_found_and_fetched_again(tmp_path, records):
    places = [found for name in records for found in places_of(str(tmp_path / name))]
    assert [study for study, _ in places] == ["s1", "s2 of a longer name", "s1"]
    first, second, third = (place for _, place in places)
    rows = [keyed("i1", "s1", (third, first)), keyed("i2", "s3"), keyed("i3", "s2", (second,))]
    rows += [keyed("i4", "s1", (first, third))]  # two images of a study
    fetched = FetchReports(str(tmp_path))(rows)
    assert [row.record_key for row in fetched] == ["i1", "i2", "i3", "i4"]
    one, two, three = *records["a"], *records["b"]
    assert [row.reports for row in fetched] == [(three, one), (), (two,), (one, three)]


@pytest.mark.parametrize("num_groups", [1, 256])
def test_join_gives_each_row_the_places_of_its_own_study(monkeypatch, num_groups):
    monkeypatch.setattr(report_join, "_NUM_GROUPS", num_groups)
    rows = [keyed("i1", "s1"), keyed("i2", "s2"), keyed("i3", "s1")]
    places = [("s1", Place("a", 12, 5)), ("s0", Place("a", 33, 5)), ("s1", Place("b", 12, 7))]
    with MemoryPipeline(options=pipeline_options(())) as pipeline:
        inputs = {
            "rows": pipeline | "Rows" >> beam.Create(rows),
            "reports": pipeline | "Places" >> beam.Create(places),
        }
        found = inputs | JoinReports() | beam.Map(lambda row: (row.record_key, sorted(row.reports)))
        own = [Place("a", 12, 5), Place("b", 12, 7)]
        assert_that(found, equal_to([("i1", own), ("i2", []), ("i3", own)]))
