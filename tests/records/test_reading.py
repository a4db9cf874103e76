"""What is refused at the door, and the order of the records behind it."""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import DataConfig
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.records.reading import (
    count,
    image_folders,
    read_records,
    sentence_folders,
    shuffle,
    shuffled_records,
)
from medclip_keras.records.schema import parse_batch, report_features

A_SENTENCE = [("the lungs are clear", [1, 0, 0])]


@pytest.fixture
def folders(tmp_path, write_dataset, image_row, report_row):
    rows = [image_row(number, [0, 0, 0]) for number in range(40)]
    write_dataset(tmp_path / "images", "images", {"train": rows, "test": rows[:1]}, num_shards=4)
    reports = [report_row(f"r{number}", [1, 0, 0], A_SENTENCE) for number in range(5)]
    write_dataset(tmp_path / "reports", "reports", {"train": reports})
    return tmp_path


@pytest.fixture
def data(folders):
    return config_of(folders, images=["images"], texts=["reports"])


def config_of(directory, images=(), texts=()):
    return DataConfig(
        images=tuple(str(directory / name) for name in images),
        texts=tuple(str(directory / name) for name in texts),
        stored_image_size=16,
    )


def keys_of(serialized):
    parse = report_features(3).deserialize_example
    return [one["record_key"].numpy().decode() for one in map(parse, serialized)]


def test_records_come_in_the_order_of_the_shards(data):
    keys = keys_of(read_records(image_folders(data, "train"), "train"))
    assert keys == [f"i{number}" for first in range(4) for number in range(first, 40, 4)]
    assert count(image_folders(data, "train"), "train") == 40


def test_shuffled_records_are_all_records_in_an_order_of_the_seed(data):
    folders = image_folders(data, "train")

    def order(seed):
        seed = tf.constant([seed, 0], tf.int64)
        return keys_of(shuffle(shuffled_records(folders, "train", seed), 16, seed))

    first = order(1)
    assert sorted(first) == sorted(keys_of(read_records(folders, "train")))
    assert first == order(1)
    assert first != order(2)
    assert sum(a == b for a, b in zip(first, order(2), strict=True)) < 20


def test_shuffle_keeps_to_its_buffer():
    """Element k cannot come before the buffer has reached it: memory is the buffer, not the data."""
    order = [int(x) for x in shuffle(tf.data.Dataset.range(1000), 10, tf.constant([1, 2], tf.int64))]
    assert max(number - place for place, number in enumerate(order)) < 10


def test_shards_are_read_in_turn(data):
    keys = keys_of(shuffled_records(image_folders(data, "train"), "train", tf.constant([3, 4], tf.int64)))
    assert {int(key[1:]) % 4 for key in keys[:4]} == {0, 1, 2, 3}


def test_filter_keeps_the_order_of_the_other_records(data, folders, image_row, write_dataset):
    """Shards longer than the records that are asked for at once; report records are told from images."""
    rows = [image_row(number, [number % 3 == 0, 0, 0]) for number in range(150)]
    write_dataset(folders / "more", "images", {"train": rows}, num_shards=2)
    images = image_folders(config_of(folders, images=["more"]), "train")
    reports = sentence_folders(data, "train")
    asked = []

    def keep(serialized, of_images):
        tf.py_function(lambda some: asked.append(len(some)), [serialized], [])
        states = parse_batch(report_features(3), serialized, ["label_states"])["label_states"]
        return (states[:, 0] == 1) | ~of_images

    wanted = [f"i{number}" for first in range(2) for number in range(first, 150, 2) if number % 3 == 0]
    assert keys_of(read_records(images, "train", keep)) == wanted
    assert sum(asked) == 150
    assert 4 < len(asked) < 20
    seed = tf.constant([3, 4], tf.int64)
    everything = keys_of(shuffled_records((*images, *reports), "train", seed, keep))
    assert sorted(everything) == sorted([*wanted, *(f"r{number}" for number in range(5))])
    assert sum(asked) == 150 + 150 + 5


def test_parse_batch_equals_parse_of_each(folders, image_row, write_dataset):
    rows = [
        image_row(1, [0, 1, 2], [("one two three", [0, 1, 3]), ("né", [2, 0, 0])]),
        image_row(2, [3, 0, 0]),
        image_row(3, [0, 0, 1], [("four", [0, 0, 1]), ("five", [3, 0, 2])]),
    ]
    manifest = write_dataset(folders / "paired", "images", {"train": rows}, num_shards=1)
    data = config_of(folders, images=["paired"])
    serialized = list(read_records(image_folders(data, "train"), "train"))
    fields = ("record_key", "view", "image", "label_states", "sentences")
    batch = parse_batch(manifest.features, tf.stack(serialized), fields)
    for index, one in enumerate(serialized):
        expected = manifest.features.deserialize_example(one)
        for name in ("record_key", "view", "image", "label_states"):
            np.testing.assert_array_equal(batch[name][index], expected[name])
            assert batch[name].dtype == expected[name].dtype
        for name, value in expected["sentences"].items():
            np.testing.assert_array_equal(tf.convert_to_tensor(batch["sentences"][name][index]), value)
    assert set(parse_batch(manifest.features, tf.stack(serialized), ["label_states"])) == {"label_states"}


def test_sentences_of_a_joined_report_set_are_not_read_twice(folders, write_dataset, image_row, report_row):
    rows = {"train": [image_row(1, [0, 0, 0], A_SENTENCE)]}
    reports = [report_row("r", [1, 0, 0], A_SENTENCE)]
    joined = write_dataset(folders / "joined_reports", "reports", {"train": reports})
    write_dataset(folders / "joined", "images", rows, reports_sha256=joined.fingerprint)

    def names(images, texts):
        chosen = sentence_folders(config_of(folders, images, texts), "train")
        return [folder.directory.rpartition("/")[2] for folder in chosen]

    assert names(["joined", "images"], ["joined_reports"]) == ["joined_reports"]
    assert names(["joined", "images"], ["reports"]) == ["reports", "joined"]
    assert names(["joined", "images"], []) == ["joined"]


def test_folder_check_requires_images_and_sentences(folders):
    with pytest.raises(ValueError, match=r"`data.images` must be at least one folder of image records"):
        image_folders(config_of(folders), "train")
    with pytest.raises(ValueError, match=r"`data.texts` must be at least one folder of report records"):
        sentence_folders(config_of(folders, images=["images"]), "train")


def test_folder_check_refuses_reports_for_images(folders):
    sentence = r"`data.images` must be folders of images' records.*reports \(reports\)"
    with pytest.raises(ValueError, match=sentence):
        image_folders(config_of(folders, images=["reports"]), "train")


def test_folder_check_refuses_another_concept_table(folders, data, write_dataset, report_row, small_table):
    other = ConceptTable("other", small_table.concepts[::-1])
    write_dataset(
        folders / "other", "reports", {"train": [report_row("r", [0, 0, 1], A_SENTENCE)]}, table=other
    )
    mixed = config_of(folders, images=["images"], texts=["other"])
    for door in (image_folders, sentence_folders):
        with pytest.raises(ValueError, match=r"must be records of one concept table.*\(small\).*\(other\)"):
            door(mixed, "train")


def test_folder_check_refuses_another_stored_size(folders, write_dataset, image_row):
    write_dataset(
        folders / "large", "images", {"train": [image_row(1, [0, 0, 0], image_size=24)]}, image_size=24
    )
    mixed = config_of(folders, images=["images", "large"])
    with pytest.raises(ValueError, match=r"stored at data.stored_image_size \(16 px\).*large \(24 px\)"):
        image_folders(mixed, "train")


def test_folder_check_refuses_an_empty_split(data):
    sentence = r"`data.images` must be folders that have records in the split 'valid'"
    with pytest.raises(ValueError, match=sentence):
        image_folders(data, "valid")
    sentence = r"`data.texts` must be folders that have sentences in the split 'test'"
    with pytest.raises(ValueError, match=sentence):
        sentence_folders(data, "test")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_folder_check_names_a_missing_or_truncated_shard(folders, data, damage):
    damage(folders / "images" / "test-train.tfrecord-00002-of-00004")
    sentence = r"complete. Received: .*test-train.tfrecord-00002-of-00004 has [05] bytes"
    with pytest.raises(ValueError, match=sentence):
        image_folders(data, "train")
    assert image_folders(data, "test")
