"""Batches of images whose pixels are their number, and of sentences whose word is theirs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import (
    AugmentConfig,
    DataConfig,
    ImageEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from medclip_keras.preprocess.images import MEAN, STANDARD_DEVIATION
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.records import streams
from medclip_keras.records.batches import (
    _sharing_a_finding,
    evaluation_images,
    evaluation_sentences,
    training_batches,
)
from medclip_keras.records.reading import image_folders
from medclip_keras.records.streams import kept_images

NUM_IMAGES, NUM_SENTENCES, BATCH = 24, 40, 4
STILL = AugmentConfig(flip=0, brightness=0, contrast=0, rotation_degrees=0, translation=0, scale=(1, 1))
SILENT, NORMAL, OPACITY, PNEUMONIA = [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 2, 1]


def sentence(number, states=SILENT):
    return (f"w{number} w{number} w{number}", states)


@pytest.fixture(scope="module")
def tokenizer():
    words = [f"w{number}" for number in range(100)]
    return Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words], lower_case=True, max_tokens=6)


@pytest.fixture(scope="module")
def directory(tmp_path_factory, write_dataset, image_row, report_row):
    """24 images, two of them with pneumonia, six opaque; 20 reports of two sentences, and some short ones."""
    directory = tmp_path_factory.mktemp("records")
    states = [PNEUMONIA] * 2 + [OPACITY] * 6 + [SILENT] * 16
    images = [image_row(number, states[number]) for number in range(NUM_IMAGES)]
    write_dataset(directory / "images", "images", {"train": images, "test": images[:5]}, num_shards=3)
    paired = [image_row(n, SILENT, [sentence(50 + 2 * n), sentence(51 + 2 * n)]) for n in range(3)]
    paired += [image_row(n, SILENT, [("w99", SILENT)] if n == 3 else []) for n in range(3, 8)]
    write_dataset(directory / "paired", "images", {"train": paired}, reports_sha256="another")
    said = [PNEUMONIA] * 2 + [NORMAL] * 6 + [SILENT] * 32
    parallel = [report_row(f"r{n}", SILENT, [sentence(n)]) for n in range(NUM_IMAGES)]
    write_dataset(directory / "parallel", "reports", {"train": parallel}, num_shards=3)
    reports = [
        report_row(f"r{n}", SILENT, [sentence(k, said[k]) for k in (n, n + 20)] + [("w98 w98", PNEUMONIA)])
        for n in range(20)
    ]
    write_dataset(directory / "reports", "reports", {"train": reports, "test": reports[:3]}, num_shards=3)
    return directory


@pytest.fixture(scope="module")
def config(directory):
    return RunConfig(
        "test",
        seed=5,
        data=DataConfig(
            images=(str(directory / "images"),),
            texts=(str(directory / "reports"),),
            stored_image_size=16,
            balance=False,
            shuffle_buffer=16,
        ),
        augment=STILL,
        model=ModelConfig(image=ImageEncoderConfig(image_size=16)),
        train=TrainConfig(batch_size=BATCH),
    )


@pytest.fixture(scope="module")
def two_epochs(config, tokenizer):
    """12 batches, six an epoch."""
    return take(config, tokenizer, 12)


@pytest.fixture(scope="module")
def long_epoch(config, tokenizer):
    """150 batches of one epoch."""
    return take(config, tokenizer, 150, steps_per_epoch=150)


def with_data(config, **values):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **values))


def take(config, tokenizer, num_steps, start_step=0, steps_per_epoch=6):
    stream = training_batches(config, tokenizer, steps_per_epoch=steps_per_epoch, start_step=start_step)
    return list(stream.take(num_steps).as_numpy_iterator())


def numbers(batches):
    """The image numbers, read off the pixels."""
    pixels = np.concatenate([batch["images"] for batch in batches])[:, 0, 0, 0]
    return np.round(255 * (pixels * STANDARD_DEVIATION + MEAN)).astype(int).tolist()


def words(batches):
    """The sentence numbers, read off the first word piece after [CLS]."""
    return (np.concatenate([batch["token_ids"] for batch in batches])[:, 1] - 4).tolist()


def assert_equal(one, two):
    tf.nest.map_structure(np.testing.assert_array_equal, one, two)


def test_batch_has_the_documented_shapes(config, tokenizer):
    spec = training_batches(config, tokenizer, steps_per_epoch=6).element_spec
    shapes = {name: (tuple(value.shape), value.dtype.name) for name, value in spec.items()}
    assert shapes == {
        "images": ((4, 16, 16, 1), "float32"),
        "image_labels": ((4, 3), "float32"),
        "image_known": ((4, 3), "float32"),
        "token_ids": ((4, 6), "int32"),
        "padding_mask": ((4, 6), "int32"),
        "text_labels": ((4, 3), "float32"),
        "text_known": ((4, 3), "float32"),
        "image_study": ((4,), "int64"),
        "text_study": ((4,), "int64"),
    }


def test_every_record_is_seen_once_an_epoch(two_epochs):
    first, second = numbers(two_epochs[:6]), numbers(two_epochs[6:])
    assert sorted(first) == sorted(second) == list(range(NUM_IMAGES))
    assert first != second != list(range(NUM_IMAGES))


def test_every_sentence_is_seen_once_a_pass_without_the_short_ones(long_epoch):
    seen = words(long_epoch)
    assert sorted(seen[:NUM_SENTENCES]) == list(range(NUM_SENTENCES))
    assert sorted(seen[NUM_SENTENCES : 2 * NUM_SENTENCES]) == list(range(NUM_SENTENCES))
    assert seen[:NUM_SENTENCES] != seen[NUM_SENTENCES : 2 * NUM_SENTENCES]


def test_labels_belong_to_their_images_and_sentences(config, tokenizer):
    config = with_data(config, coding="signed")
    batches = take(config, tokenizer, 10, steps_per_epoch=10)
    codes = {tuple(PNEUMONIA): [0, -1, 1], tuple(OPACITY): [0, 1, 0], tuple(NORMAL): [1, 0, 0]}
    images = [PNEUMONIA] * 2 + [OPACITY] * 6 + [SILENT] * 16
    texts = [PNEUMONIA] * 2 + [NORMAL] * 6 + [SILENT] * 32
    for found, states, name in ((numbers, images, "image_labels"), (words, texts, "text_labels")):
        expected = [codes.get(tuple(states[number]), SILENT) for number in found(batches)]
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), expected)


@pytest.mark.parametrize("balance", [False, True])
def test_resumed_batches_equal_the_unbroken_ones(config, tokenizer, balance):
    config = dataclasses.replace(with_data(config, balance=balance), augment=AugmentConfig())
    whole = take(config, tokenizer, 10, steps_per_epoch=5)
    for start in (2, 5, 8):  # in the middle of an epoch, at its end, in the middle of the next
        resumed = take(config, tokenizer, 10 - start, start_step=start, steps_per_epoch=5)
        assert_equal(whole[start:], resumed)


def test_batches_are_a_function_of_the_seed_alone(config, tokenizer):
    config = dataclasses.replace(config, augment=AugmentConfig())
    first = take(config, tokenizer, 4)
    tf.random.set_seed(99)
    assert_equal(first, take(from_dict(to_dict(config)), tokenizer, 4))
    other = take(dataclasses.replace(config, seed=6), tokenizer, 4)
    assert words(first) != words(other)
    assert not np.array_equal(first[0]["images"], other[0]["images"])


def test_every_draw_has_its_own_augmentation(config, tokenizer, two_epochs):
    config = dataclasses.replace(config, augment=dataclasses.replace(STILL, brightness=0.05))
    pixels = [batch["images"][:, 0, 0, 0] for batch in take(config, tokenizer, 12)]
    values = 255 * (np.concatenate(pixels) * STANDARD_DEVIATION + MEAN)
    plain = np.array(numbers(two_epochs))
    shifts = (values - plain)[plain >= 13]  # up to 12.75 either way: none of these meets black
    assert len(shifts) == 22
    assert len(set(np.round(shifts, 4))) == 22


def test_order_of_sentences_is_not_that_of_images(config, tokenizer, directory):
    """As many sentences as images, in the same places of as many shards: one shared seed would pair them."""
    config = with_data(config, texts=(str(directory / "parallel"),), shuffle_buffer=64)
    batches = take(config, tokenizer, 12)
    assert np.mean(np.array(numbers(batches)) == words(batches)) < 0.3


def test_balance_draws_findings_equally_often(config, tokenizer, long_epoch):
    batches = take(with_data(config, balance=True), tokenizer, 150, steps_per_epoch=150)
    # Images: 2 with pneumonia, 6 opaque, 16 of neither, 24 in all: each class a third.
    drawn = np.array(numbers(batches))
    shares = [np.mean(drawn < 2), np.mean((drawn >= 2) & (drawn < 8)), np.mean(drawn >= 8)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.06)
    assert set(drawn) == set(range(NUM_IMAGES))
    # Sentences: the manifest counts the 20 short ones with pneumonia too, 22 of 60; 6 normal; 32 of neither,
    # 80 % of the 40 long ones. So factors 20/22, 20/6 and 60/(3 * .8 * 60), and draws 2 * .91, 20, 13.
    said = np.array(words(batches))
    assert 0.5 < np.mean((said >= 2) & (said < 8)) < 0.65
    unbalanced = np.array(words(long_epoch))
    assert 0.1 < np.mean((unbalanced >= 2) & (unbalanced < 8)) < 0.2


def test_a_finding_that_the_sample_of_records_misses_is_drawn(config, tokenizer, monkeypatch):
    monkeypatch.setattr(streams, "_SAMPLE", 1)
    config = with_data(config, balance=True, patient_share=0.9999)  # a filter: no count of the manifests
    batches = take(config, tokenizer, 60, steps_per_epoch=60)
    assert set(numbers(batches)) == set(range(NUM_IMAGES))
    assert {0, 1, *range(2, 8)} <= set(words(batches))


@pytest.mark.parametrize("keep", [None, lambda records, of_images: tf.fill(tf.shape(records), True)])
def test_a_class_has_no_factor_only_if_all_records_were_read(keep, config, monkeypatch):
    folders, counts = image_folders(config.data, "train"), ("positives", "num_records")
    of_opacities = (np.int8([OPACITY]), folders, "train", counts, keep)
    assert streams._factors(*of_opacities)[-1] == 0
    monkeypatch.setattr(streams, "_SAMPLE", 1)
    assert (streams._factors(*of_opacities) > 0).tolist() == [False, True, True, True]


def test_own_report_pairs_an_image_with_its_own_sentence(config, tokenizer, directory):
    config = with_data(config, images=(str(directory / "paired"),), pairing="own_report")
    batches = take(config, tokenizer, 40)
    own = {0: {50, 51}, 1: {52, 53}, 2: {54, 55}}
    met = {}
    for number, word in zip(numbers(batches), words(batches), strict=True):
        met.setdefault(number, set()).add(word)
    assert {number: met[number] for number in own} == own
    for number in range(3, 8):  # no own sentence, or one of a single word
        assert len(met[number]) > 5
        assert 99 not in met[number]


def test_streams_run_without_the_tuner(config, tokenizer):
    """Its thread sleeps for up to a minute, and the end of a training would wait for it."""
    options = training_batches(config, tokenizer, steps_per_epoch=6).options()
    assert options.autotune.enabled is False
    assert options.experimental_distribute.auto_shard_policy == tf.data.experimental.AutoShardPolicy.OFF


def test_label_overlap_finds_a_sentence_that_shares_a_finding(config, tokenizer):
    """Sentences 0 and 1 of 40 name pneumonia, so 16 of them miss both with 24/40 * 23/39, 35 %."""
    config = with_data(config, pairing="label_overlap")
    batches = take(config, tokenizer, 120, steps_per_epoch=60)
    met = {True: [], False: []}
    for number, word in zip(numbers(batches), words(batches), strict=True):
        met[number < 2].append(word < 2)
    assert len(met[True]) == 40  # two images with pneumonia, 20 passes
    assert 0.5 < np.mean(met[True]) < 0.8  # by independent draws .05
    assert np.mean(met[False]) < 0.1  # opaque images and silent ones share a finding with none
    assert_equal(batches[7:9], take(config, tokenizer, 2, start_step=7, steps_per_epoch=60))


def test_label_overlap_takes_the_own_report_first(config, tokenizer, directory):
    config = with_data(config, images=(str(directory / "paired"),), pairing="label_overlap")
    batches = take(config, tokenizer, 40)
    met = {pair for pair in zip(numbers(batches), words(batches), strict=True) if pair[0] < 3}
    assert met == {(0, 50), (0, 51), (1, 52), (1, 53), (2, 54), (2, 55)}


def test_label_overlap_takes_the_first_that_shares():
    labels = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    texts = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]], np.float32)
    chosen = _sharing_a_finding(tf.constant(labels), tf.constant(texts), {"text": tf.range(6)})
    assert chosen["text"].numpy().tolist() == [1, 5]
    signed = _sharing_a_finding(tf.constant(-labels), tf.constant(texts), {"text": tf.range(6)})
    assert signed["text"].numpy().tolist() == [0, 3]  # absent here, present there: nothing in common


def test_paired_sentences_are_drawn_unless_their_reports_are(config, tokenizer, directory):
    paired = with_data(config, images=(str(directory / "paired"),))
    seen = set(words(take(paired, tokenizer, 30, steps_per_epoch=30)))
    assert seen == {*range(NUM_SENTENCES), *range(50, 56)}
    alone = with_data(paired, texts=())
    assert set(words(take(alone, tokenizer, 6))) == set(range(50, 56))


def with_pairs(config, directory, *, objective="info_nce", **values):
    """The folder `paired`: images 0, 1, 2 have two sentences each, 3 one of a single word, the rest none."""
    config = dataclasses.replace(config, objective=ObjectiveConfig(name=objective))
    return with_data(config, images=(str(directory / "paired"),), texts=(), **values)


def test_pairs_leave_out_images_without_a_sentence_of_their_own(config, tokenizer, directory):
    batches = take(with_pairs(config, directory), tokenizer, 30)
    met = {}
    for number, word in zip(numbers(batches), words(batches), strict=True):
        met.setdefault(number, set()).add(word)
    assert met == {0: {50, 51}, 1: {52, 53}, 2: {54, 55}}


def test_pairs_are_resumed_where_they_stopped(config, tokenizer, directory):
    config = with_pairs(config, directory, paired_share=0.7, balance=True)
    whole = take(config, tokenizer, 8, steps_per_epoch=3)
    assert_equal(whole[4:], take(config, tokenizer, 4, start_step=4, steps_per_epoch=3))


def test_whole_report_is_one_text_with_the_findings_of_all_sentences(
    config, write_dataset, image_row, tokenizer, tmp_path
):
    """Positive decides before uncertain before negative; the sentence of one word is left out."""
    positive, negative, uncertain = 1, 2, 3
    said = [
        ("w1 w2 w3", [positive, negative, 0]),
        ("w98", [0, positive, positive]),
        ("w4 w5 w6", [negative, uncertain, negative]),
    ]
    rows = {"train": [image_row(0, SILENT, said)]}
    write_dataset(tmp_path / "paired", "images", rows, num_shards=1, reports_sha256="another")
    options = {"text_unit": "report", "coding": "signed", "uncertain": "half"}
    config = dataclasses.replace(config, train=TrainConfig(batch_size=2))
    config = with_pairs(config, tmp_path, objective="gloria", **options)
    long = Tokenizer(tokenizer.vocabulary, lower_case=True, max_tokens=12)
    [batch] = take(config, long, 1)
    assert batch["token_ids"][0].tolist() == [2, *(4 + n for n in range(1, 7)), 3, 0, 0, 0, 0]
    assert batch["word_ids"][0].tolist() == [-1, 0, 1, 2, 3, 4, 5, *[-1] * 5]
    assert batch["text_labels"].tolist() == [[1, 0.5, -1]] * 2
    assert batch["image_study"].tolist() == batch["text_study"].tolist()


@pytest.mark.slow
def test_smaller_shares_of_the_pairs_lie_within_larger_ones(
    config, tokenizer, write_dataset, image_row, tmp_path
):
    rows = [image_row(n, SILENT, [sentence(n % 90)]) for n in range(200)]
    rows += [image_row(n, SILENT) for n in range(200, 210)]  # without a report
    write_dataset(tmp_path / "many", "images", {"train": rows}, reports_sha256="another")
    kept = {}
    for share in (0.2, 0.6, 1.0):
        own = with_data(config, images=(str(tmp_path / "many"),), texts=(), paired_share=share)
        drawn = take(own, tokenizer, 60, steps_per_epoch=60)
        kept[share] = set(numbers(drawn))
        assert kept[share] >= set(range(200, 210))  # images alone always stay
        others = dataclasses.replace(own, objective=ObjectiveConfig(name="info_nce"))
        pairs = set(numbers(take(others, tokenizer, 60, steps_per_epoch=60)))
        assert pairs == kept[share] - set(range(200, 210))
        assert set(words(drawn)) <= {number % 90 for number in pairs}  # nor are their sentences drawn
    assert kept[0.2] < kept[0.6] < kept[1.0] == set(range(210))
    assert 20 <= len(kept[0.2]) - 10 <= 60  # 40 expected of 200, standard deviation 5.7
    assert 85 <= len(kept[0.6]) - 10 <= 155  # 120, 6.9


def test_share_of_pairs_restricts_training_only(config, directory):
    config = with_data(config, paired_share=0.01)
    assert kept_images(config, "test", 3) is None
    assert kept_images(config, "train", 3) is not None


def test_share_of_pairs_refuses_their_reports_in_the_texts(
    config, tokenizer, write_dataset, image_row, report_row, tmp_path
):
    manifest = write_dataset(
        tmp_path / "reports", "reports", {"train": [report_row("r0", SILENT, [sentence(1)])]}
    )
    rows = [image_row(0, SILENT, [sentence(1)])]
    write_dataset(tmp_path / "images", "images", {"train": rows}, reports_sha256=manifest.fingerprint)
    folders = {"images": (str(tmp_path / "images"),), "texts": (str(tmp_path / "reports"),)}
    with pytest.raises(ValueError, match=r"`data.texts` must be without the reports of the images"):
        take(with_data(config, **folders, paired_share=0.5), tokenizer, 1)


def test_data_without_pairs_is_refused(config, tokenizer, directory):
    config = dataclasses.replace(config, objective=ObjectiveConfig(name="convirt"))
    sentence = (
        r"`data.min_words, data.pairing` must be such that an image with a report of its own is left. "
        r"Received: '3, pairs: none in 24 records'"
    )
    with pytest.raises(ValueError, match=sentence):
        take(config, tokenizer, 1)


def test_a_share_without_patients_is_refused_by_its_name(config, tokenizer):
    sentence = (
        r"`data.min_words, data.patient_share` must be such that an image is left. Received: '3, 1e-09: "
    )
    with pytest.raises(ValueError, match=sentence):
        take(with_data(config, patient_share=1e-9), tokenizer, 1)


def test_study_hashes_match_images_with_their_texts(config, tokenizer, directory):
    config = with_pairs(config, directory, objective="mixed_matching")
    for batch in take(config, tokenizer, 12):
        same = batch["image_study"][:, None] == batch["text_study"][None]
        image, word = np.array(numbers([batch])), np.array(words([batch]))
        np.testing.assert_array_equal(same, image[:, None] == ((word - 50) // 2)[None])


def test_closure_and_uncertainty_reach_the_labels(config, tokenizer):
    config = with_data(config, closure=True, unlabelled_sentence="no_finding")
    batches = take(config, tokenizer, 10, steps_per_epoch=10)
    labels = np.concatenate([batch["image_labels"] for batch in batches]).tolist()
    labels = dict(zip(numbers(batches), labels, strict=True))
    assert labels[0] == [0, 1, 1]  # pneumonia makes the opacity that the states deny
    said = np.concatenate([batch["text_labels"] for batch in batches]).tolist()
    said = dict(zip(words(batches), said, strict=True))
    assert said[30] == [1, 0, 0]
    assert said[1] == [0, 1, 1]


def test_data_with_only_short_sentences_is_refused(config, tokenizer):
    with pytest.raises(
        ValueError, match=r"`data.min_words` must be such that a sentence is left. Received: '4:"
    ):
        take(with_data(config, min_words=4), tokenizer, 1)


def test_evaluation_images_come_in_order_with_their_keys(config):
    batches = list(evaluation_images(config, "test", batch_size=2).as_numpy_iterator())
    assert [len(batch["images"]) for batch in batches] == [2, 2, 1]
    keys = [key.decode() for batch in batches for key in batch["record_key"]]
    assert keys == ["i0", "i3", "i1", "i4", "i2"]
    images = np.concatenate([batch["images"] for batch in batches])
    assert images.dtype == np.uint8
    assert images[:, 5, 5, 0].tolist() == [0, 3, 1, 4, 2]
    assert batches[0]["label_states"].tolist() == [PNEUMONIA, OPACITY]
    assert batches[0]["patient_id"].tolist() == [b"p-i0", b"p-i3"]


def test_evaluation_sentences_are_the_long_ones_in_order(config):
    [batch] = evaluation_sentences(config, "test").as_numpy_iterator()
    assert batch["text"].tolist() == [sentence(n)[0].encode() for n in (0, 20, 1, 21, 2, 22)]
    assert batch["record_key"].tolist() == [b"r0", b"r0", b"r1", b"r1", b"r2", b"r2"]
    assert batch["label_states"].tolist() == [PNEUMONIA, SILENT, PNEUMONIA, SILENT, NORMAL, SILENT]
