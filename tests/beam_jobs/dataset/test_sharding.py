import collections
import hashlib
from dataclasses import replace

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as MemoryPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_jobs.dataset import sharding
from beam_jobs.dataset.options import JobOptions, pipeline_options
from beam_jobs.dataset.sharding import MakeShards, Outcome, key_row, pack, reason_of, unpack
from medclip_keras.records.splits import split_of
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow

STARTS = collections.Counter()


@pytest.fixture
def options(tmp_path):
    return JobOptions(source="csv", input=str(tmp_path), output=str(tmp_path) + "-out", key_salt="s")


def hash_of(kind, identifier):
    return hashlib.sha256(f"s\0{kind}\0{identifier}".encode()).hexdigest()[:16]


def test_key_row_hides_identifiers(options):
    keyed = key_row(ImageRow("scan 7", "study 5", "Jane Doe", "Jane_Doe.png"), options)
    assert keyed.record_key == hash_of("record", "scan 7")
    assert keyed.study_id == hash_of("study", "study 5")
    assert keyed.patient_id == hash_of("patient", "Jane Doe")
    assert "Doe" not in repr(keyed)


def test_key_row_keeps_identifiers_when_asked_at_the_same_place(options):
    row = ReportRow("report 1", "study 5", "Jane Doe", "reports.csv")
    kept = key_row(row, JobOptions(**{**vars(options), "keep_ids": True}))
    assert (kept.record_key, kept.study_id, kept.patient_id) == ("report 1", "study 5", "Jane Doe")
    assert kept.position == key_row(row, options).position


def test_key_row_gives_image_and_report_of_a_patient_one_split(options):
    for patient in map(str, range(50)):
        image = key_row(ImageRow(f"i{patient}", "a", patient, ""), options)
        report = key_row(ReportRow(f"r{patient}", "b", patient, ""), options)
        assert image.split == report.split == split_of(patient)


def test_key_row_takes_the_split_of_the_archive_first(options):
    patient = next(str(p) for p in range(99) if split_of(str(p)) == "train")
    assert key_row(ImageRow("i", "a", patient, "", split="test"), options).split == "test"
    with pytest.raises(ValueError, match="`split` must be one of"):
        key_row(ImageRow("i", "a", patient, "", split="Train"), options)


def start():
    STARTS["maker"] += 1
    return Maker()


class Maker:
    def __call__(self, keyed):
        if "bad" in keyed.row.path:
            raise BadRowError("the file is bad")
        if "broken" in keyed.row.path:
            raise UnicodeDecodeError("utf-8", b"Jane Doe", 0, 1, "Jane Doe")
        return Outcome({"key": keyed.record_key})


def collect(shard, outcomes):
    return shard.split, shard.index, shard.num_shards, [outcome.record["key"] for outcome in outcomes]


ROWS = [
    ImageRow(f"image {n}", "s", f"patient {n // 2}", path, split="train" if n < 7 else "test")
    for n, path in enumerate(["a", "bad", "a", "a", "a", "broken", "a", "a", "a"])
]


def expected_shards(rows, sizes):
    """An independent restatement: sort by key, cut the range of keys into equal parts."""
    shards = []
    for split, num_shards in sizes.items():
        parts = collections.defaultdict(list)
        for row in rows:
            key = hash_of("record", row.image_id)
            if row.split == split:
                parts[int(int(key, 16) / 2**64 * num_shards)].append((key, row))
        for index in range(num_shards):
            keys = [key for key, row in sorted(parts[index], key=lambda pair: pair[0]) if row.path == "a"]
            shards.append((split, index, num_shards, keys))
    return shards


def test_unpack_is_the_inverse_of_pack_over_several_packs():
    assert list(unpack([pack(ROWS[:3]), pack([]), pack(ROWS[3:])])) == ROWS


def test_packs_of_similar_rows_are_small():
    path = "/archive/files/p10/p10000032/s{:08d}/image.jpg"
    rows = [ImageRow(f"image{n:08d}", f"s{n:08d}", "p10000032", path.format(n)) for n in range(1000)]
    assert len(pack(rows)) < 100 * len(rows)


@pytest.mark.parametrize("rows_per_pack", [1, 4, 10_000])
@pytest.mark.parametrize("order", [1, -1])
def test_make_shards_is_exact_and_does_not_depend_on_the_order(options, order, rows_per_pack, monkeypatch):
    monkeypatch.setattr(sharding, "ROWS_PER_PACK", rows_per_pack)
    options = JobOptions(**{**vars(options), "records_per_shard": 3})
    with MemoryPipeline(options=pipeline_options(())) as pipeline:
        rows = pipeline | beam.Create(ROWS[::order], reshuffle=False)
        made = rows | MakeShards(options, start, collect)
        # 7 train rows at 3 a shard are 3 shards, 2 test rows are one.
        assert_that(made.shards, equal_to(expected_shards(ROWS, {"train": 3, "test": 1})), "shards")
        bad = [
            {"key": hash_of("record", "image 1"), "reason": "the file is bad"},
            {"key": hash_of("record", "image 5"), "reason": "cannot be read (UnicodeDecodeError)"},
        ]
        assert_that(made.bad, equal_to(bad), "bad")


def test_make_shards_makes_the_shards_that_no_key_falls_into(options):
    rows = [ImageRow(str(n), "s", "p", "a", split="train") for n in range(12)]
    expected = expected_shards(rows, {"train": 12})
    assert any(not keys for *_, keys in expected)  # 12 keys in 12 shards: some stay empty
    with MemoryPipeline(options=pipeline_options(())) as pipeline:
        made = (
            pipeline | beam.Create(rows) | MakeShards(replace(options, records_per_shard=1), start, collect)
        )
        assert_that(made.shards, equal_to(expected))


def test_make_shards_takes_an_identifier_once(options):
    twice = [ROWS[0], ROWS[2], ImageRow("image 0", "s", "patient 0", "a second", split="train")]
    with MemoryPipeline(options=pipeline_options(())) as pipeline:
        rows = pipeline | beam.Create(twice[::-1], reshuffle=False)
        made = rows | MakeShards(options, start, collect)
        keys = sorted(hash_of("record", name) for name in ("image 0", "image 2"))
        assert_that(made.shards, equal_to([("train", 0, 1, keys)]), "shards")
        reason = "another row has the same identifier"
        assert_that(made.bad, equal_to([{"key": hash_of("record", "image 0"), "reason": reason}]), "bad")


def test_make_shards_starts_one_maker_a_process(options):
    STARTS.clear()
    rows = [ImageRow(str(n), "s", "p", "a", split="train") for n in range(40)]
    threads = ("--direct_num_workers=3", "--direct_running_mode=multi_threading")
    with MemoryPipeline(options=pipeline_options(threads)) as pipeline:
        made = (
            pipeline | beam.Create(rows) | MakeShards(replace(options, records_per_shard=5), start, collect)
        )
        assert_that(made.shards | beam.combiners.Count.Globally(), equal_to([8]))
    assert STARTS["maker"] == 1


def test_reason_of_an_error_omits_its_text():
    assert reason_of(FileNotFoundError(2, "No such file", "/data/Jane Doe.png")) == "the file does not exist"
    assert reason_of(ValueError("Jane Doe")) == "cannot be read (ValueError)"
