import hashlib

import pytest
import tensorflow as tf

from medclip_keras.records.shards import (
    Shard,
    num_shards_of,
    read_records,
    salted_hash,
    shard_index,
    shard_of_file,
    write_shard,
)


def test_write_shard_is_a_tfrecord_file_that_tensorflow_reads(tmp_path):
    records = [b"first", b"", bytes(range(256)) * 40]
    written = write_shard(tmp_path, "some-train.tfrecord-00000-of-00001", iter(records))
    (path,) = tmp_path.iterdir()  # nothing unfinished stays
    content = path.read_bytes()
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(path))] == records  # checks its checksums
    assert path.name == written.name
    assert written.num_records == 3
    assert written.num_bytes == len(content) == sum(map(len, records)) + 3 * 16
    assert written.sha256 == hashlib.sha256(content).hexdigest()


def test_failed_write_leaves_no_shard(tmp_path):
    def broken():
        yield b"one"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_shard(tmp_path, "name", broken())
    assert not (tmp_path / "name").exists()


def test_salted_hash_distinguishes_kinds_and_salts():
    expected = hashlib.sha256(b"salt\0study\x0017").hexdigest()[:16]
    assert salted_hash("salt", "study", "17") == expected
    assert len({salted_hash(s, k, "17") for s in ("salt", "") for k in ("study", "patient", "record")}) == 6


def test_shard_index_keeps_the_order_of_keys_and_fills_all_shards():
    keys = sorted(salted_hash("", "record", str(number)) for number in range(3000))
    indices = [shard_index(key, 7) for key in keys]
    assert indices == sorted(indices)
    counts = [indices.count(index) for index in range(7)]
    assert sum(counts) == 3000
    assert min(counts) > 3000 / 7 - 5 * (3000 / 7) ** 0.5
    assert shard_index("f" * 16, 7) == 6
    assert shard_index("0" * 16, 7) == 0


def test_num_shards_grows_with_the_records():
    assert num_shards_of(377_000, 2000) == 189  # ceil(188.5)
    assert num_shards_of(100, 10) == 10
    assert num_shards_of(1) == 1


def test_shard_names_are_those_of_tfds():
    assert Shard("valid", 3, 12).file_name("csv_images") == "csv_images-valid.tfrecord-00003-of-00012"
    assert shard_of_file("csv_images-valid.tfrecord-00003-of-00012") == Shard("valid", 3, 12)
    others = (
        "csv_images-valid.tfrecord-00003-of-00012.0123abcd",
        "csv-all.tfrecord-00003-of-00012",
        "x.json",
    )
    assert [shard_of_file(name) for name in others] == [None] * 3


def test_read_records_finds_each_record_at_its_offset(tmp_path):
    records = [b"first", b"", bytes(range(256)) * 300]
    write_shard(tmp_path, "shard", records)
    found = list(read_records(tmp_path / "shard"))
    assert [record for _, record in found] == records
    content = (tmp_path / "shard").read_bytes()
    # A frame is 8 + 4 bytes before a record and 4 behind it.
    assert [offset for offset, _ in found] == [12, 12 + 5 + 4 + 12, 12 + 5 + 4 + 12 + 4 + 12]
    assert [content[offset : offset + len(record)] for offset, record in found] == records
