"""Records to batches: independent draws of images and sentences, in an order that a seed and a step decide.

    images     shards → shuffled records → copies of rare ones ─┐ skip to the step → augment ──┐
    sentences  shards → shuffled records → sentences → copies ──┘ skip to the step → tokens ───┴─ batch

Batch k is a pure function of (seed, k): nothing of the pipeline needs saving to go on with a run. Memory is
the shuffle buffers and a few batches, whatever the size of the data.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from medclip_keras.config import DataConfig, RunConfig, require
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.knowledge.states import LabelState
from medclip_keras.preprocess.images import augment
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.records.balance import num_copies, repeat_factors
from medclip_keras.records.labels import close_states, code_labels, mark_unlabelled
from medclip_keras.records.manifest import load_concepts
from medclip_keras.records.reading import (
    RecordFolder,
    count,
    image_folders,
    read_records,
    sentence_folders,
    shuffle,
    shuffled_records,
)
from medclip_keras.records.schema import parse_batch, report_features

_BLOCK = 128  # records parsed at a time
_SENTENCES_PER_RECORD = 8  # the sentences' shuffle buffer holds that many a record of the images' buffer
_SAMPLE = 4096  # records from which the share without a finding is estimated
_IMAGES, _SENTENCES, _AUGMENT, _PAIRS = range(4)  # streams of random numbers


def training_batches(
    config: RunConfig,
    tokenizer: Tokenizer,
    *,
    steps_per_epoch: int,
    split: str = "train",
    start_step: int = 0,
) -> tf.data.Dataset:
    """Endless batches for training, from step `start_step` on.

    An epoch draws `steps_per_epoch` batches; it starts with a pass over the images in a new order, another
    follows where it needs more, and sentences likewise, so without `data.balance` no image comes twice
    before each has come once.

    Args:
        config: its `data`, `augment`, `seed`, `train.batch_size` and `model.image.image_size` count.
        tokenizer: cuts sentences into word pieces.
        steps_per_epoch: batches an epoch.
        split: which records.
        start_step: the first batch that is wanted; what comes before is skipped without being decoded.

    Returns:
        A dataset of dicts: images (B, s, s, 1) float32, image_labels, image_known (B, num_findings) float32,
        token_ids, padding_mask (B, T) int32, text_labels, text_known (B, num_findings) float32. Images and
        sentences are drawn independently, but for `data.pairing` "own_report": there sentence i is a random
        one of image i's own report, where it has one.

    Raises:
        ValueError: folders that cannot be used together, an empty split, a missing shard, no usable sentence.
    """
    require(steps_per_epoch >= 1, "steps_per_epoch", "at least 1", steps_per_epoch)
    batch_size = config.train.batch_size
    images, texts = image_folders(config.data, split), sentence_folders(config.data, split)
    table = load_concepts(images[0].directory)

    def stream(name: int, make_pass) -> tf.data.Dataset:
        seed = _seed(config.seed, name)
        items = _endless(make_pass, seed, steps_per_epoch * batch_size, start_step * batch_size)
        return items.batch(batch_size, drop_remainder=True)  # nothing remains; the shape is static

    image_records = stream(_IMAGES, _image_pass(config.data, images, split))
    sentences = stream(_SENTENCES, _sentence_pass(config.data, texts, split))
    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    batches = tf.data.Dataset.zip(steps, image_records, sentences).map(
        lambda step, records, drawn: _make_batch(config, tokenizer, table, images[0], step, records, drawn),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(2).with_options(options)


def evaluation_images(config: RunConfig, split: str, batch_size: int = 64) -> tf.data.Dataset:
    """Stored images with their label states, in the order of the shards.

    Returns:
        A dataset of dicts: record_key, study_id, patient_id (B,) string, images (B, S, S, 1) uint8,
        label_states (B, num_findings) int8.

    Raises:
        ValueError: folders that cannot be used together, an empty split, a missing shard.
    """
    folders = image_folders(config.data, split)
    features = folders[0].manifest.features
    fields = ("record_key", "study_id", "patient_id", "image", "label_states")

    def parse(serialized):
        batch = parse_batch(features, serialized, fields)
        return {"images": batch.pop("image"), **batch}

    return read_records(folders, split).batch(batch_size).map(parse).prefetch(1)


def evaluation_sentences(config: RunConfig, split: str, batch_size: int = 256) -> tf.data.Dataset:
    """The sentences that training would draw from, in the order of the shards.

    Returns:
        A dataset of dicts: record_key, patient_id (B,) string, text (B,) string, label_states
        (B, num_findings) int8.

    Raises:
        ValueError: folders that cannot be used together, an empty split, a missing shard.
    """
    folders = sentence_folders(config.data, split)
    sentences = read_records(folders, split).batch(_BLOCK).map(_sentence_parser(config.data, folders))
    return sentences.unbatch().batch(batch_size).prefetch(1)


def _make_batch(config, tokenizer, table, folder: RecordFolder, step, records, drawn) -> dict[str, tf.Tensor]:
    batch_size = config.train.batch_size
    own_report = config.data.pairing == "own_report"
    fields = ("image", "label_states", "sentences") if own_report else ("image", "label_states")
    parsed = parse_batch(folder.manifest.features, records, fields)
    texts, text_states = drawn["text"], drawn["label_states"]
    if own_report:
        dice = tf.random.stateless_uniform((batch_size,), _fold_in(_seed(config.seed, _PAIRS), step))
        texts, text_states = _own_sentences(parsed["sentences"], config.data.min_words, dice, drawn)
    if config.data.unlabelled_sentence == "no_finding":
        text_states = mark_unlabelled(text_states, table)
    image_labels, image_known = _labels(parsed["label_states"], config.data, table)
    text_labels, text_known = _labels(text_states, config.data, table)
    index = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    seeds = _seeds_of(_seed(config.seed, _AUGMENT), index)  # (B, 2)
    images = tf.ensure_shape(parsed["image"], (batch_size, *folder.manifest.features["image"].shape))
    return {
        "images": augment(images, config.model.image.image_size, config.augment, seeds),
        "image_labels": image_labels,
        "image_known": image_known,
        **tokenizer(texts),
        "text_labels": text_labels,
        "text_known": text_known,
    }


def _labels(states: tf.Tensor, data: DataConfig, table: ConceptTable) -> tuple[tf.Tensor, tf.Tensor]:
    return code_labels(close_states(states, table) if data.closure else states, data.uncertain, data.coding)


def _endless(make_pass: Callable, seed: tf.Tensor, per_epoch: int, start: int) -> tf.data.Dataset:
    """Elements from `start` on: epochs of `per_epoch` elements, each made of as many passes as it needs."""
    first_epoch, num_skipped = divmod(start, per_epoch)
    numbers = np.iinfo(np.int64).max

    def epoch(number):
        epoch_seed = _fold_in(seed, number)
        passes = tf.data.Dataset.range(numbers).flat_map(lambda n: make_pass(_fold_in(epoch_seed, n)))
        skipped = tf.constant(num_skipped, tf.int64)
        return passes.take(per_epoch).skip(tf.where(number == first_epoch, skipped, 0))

    return tf.data.Dataset.range(first_epoch, numbers).flat_map(epoch)


def _image_pass(data: DataConfig, folders: Sequence[RecordFolder], split: str) -> Callable:
    """Seed → one pass over the serialized image records, shuffled, rare ones several times."""
    features = folders[0].manifest.features

    def with_states(serialized):
        return {"record": serialized, **parse_batch(features, serialized, ("label_states",))}

    def blocks(records):
        return records.batch(_BLOCK).map(with_states)

    factors = None
    if data.balance:
        factors = _factors(folders, split, "positives", "num_records", blocks)

    def make_pass(seed):
        records = shuffled_records(folders, split, _fold_in(seed, 0))
        if data.balance:
            records = _draw_copies(blocks(records), factors, _fold_in(seed, 1))
            records = records.map(lambda item: item["record"])
        return shuffle(records, data.shuffle_buffer, _fold_in(seed, 2))

    return make_pass


def _sentence_pass(data: DataConfig, folders: Sequence[RecordFolder], split: str) -> Callable:
    """Seed → one pass over the sentences, {"text", "label_states"}, shuffled, rare ones several times."""
    parse = _sentence_parser(data, folders)

    def sentences_of(serialized):
        sentences = parse(serialized)
        return {name: sentences[name] for name in ("text", "label_states")}

    def blocks(records):
        return records.batch(_BLOCK).map(sentences_of)

    factors = _factors(folders, split, "sentence_positives", "num_sentences", blocks)

    def make_pass(seed):
        sentences = blocks(shuffled_records(folders, split, _fold_in(seed, 0)))
        if data.balance:
            sentences = _draw_copies(sentences, factors, _fold_in(seed, 1))
        else:
            sentences = sentences.unbatch()
        return shuffle(sentences, _SENTENCES_PER_RECORD * data.shuffle_buffer, _fold_in(seed, 2))

    return make_pass


def _sentence_parser(data: DataConfig, folders: Sequence[RecordFolder]) -> Callable:
    """Serialized records (B,) → their sentences of `data.min_words` words and more, flat."""
    features = report_features(folders[0].manifest.num_findings)  # image records carry the same fields

    def parse(serialized):
        batch = parse_batch(features, serialized, ("record_key", "patient_id", "sentences"))
        texts, states = batch["sentences"]["text"], batch["sentences"]["label_states"]
        flat = {
            "record_key": tf.gather(batch["record_key"], texts.value_rowids()),
            "patient_id": tf.gather(batch["patient_id"], texts.value_rowids()),
            "text": texts.values,
            "label_states": states.values,
        }
        keep = _has_words(texts.values, data.min_words)
        return {name: tf.boolean_mask(value, keep) for name, value in flat.items()}

    return parse


def _has_words(texts: tf.Tensor, min_words: int) -> tf.Tensor:
    return tf.strings.split(texts).row_lengths() >= min_words


def _own_sentences(
    sentences: dict, min_words: int, dice: tf.Tensor, drawn: dict
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random sentence of each image's own report, the drawn one where there is none."""
    texts, states = sentences["text"], sentences["label_states"]
    keep = texts.with_values(_has_words(texts.values, min_words))  # (B, N) ragged
    texts, states = tf.ragged.boolean_mask(texts, keep), tf.ragged.boolean_mask(states, keep)
    lengths = texts.row_lengths()  # (B,)
    chosen = tf.cast(tf.floor(dice * tf.cast(lengths, tf.float32)), tf.int64)
    positions = tf.where(lengths > 0, texts.row_starts() + chosen, tf.size(texts.values, tf.int64))
    # One more row behind the last, for images without a sentence to point at.
    own_texts = tf.gather(tf.concat([texts.values, [""]], axis=0), positions)  # (B,)
    own_states = tf.gather(tf.pad(states.values, [[0, 1], [0, 0]]), positions)  # (B, num_findings)
    has_own = lengths > 0
    return (
        tf.where(has_own, own_texts, drawn["text"]),
        tf.where(has_own[:, None], own_states, drawn["label_states"]),
    )


def _factors(folders, split: str, positives: str, total: str, blocks: Callable) -> np.ndarray:
    """Repeat factors from the manifests' counts; the share without a finding is that of some records."""
    sample = shuffled_records(folders, split, _seed(0, 0)).take(_SAMPLE)
    states = [block["label_states"] for block in blocks(sample)]
    states = tf.concat(states, axis=0).numpy()
    require(
        len(states) > 0,
        "data.min_words",
        "small enough to leave a sentence",
        f"none in {_SAMPLE} records",
        f"Folders: {', '.join(folder.directory for folder in folders)}.",
    )
    num_items = count(folders, split, total)
    share_without = np.mean(~np.any(states == LabelState.POSITIVE, axis=1))
    counts = sum(
        np.array(folder.manifest.splits[split][positives]) for folder in folders if folder.count(split)
    )
    return repeat_factors(counts, share_without * num_items, num_items)


def _draw_copies(blocks: tf.data.Dataset, factors: np.ndarray, seed: tf.Tensor) -> tf.data.Dataset:
    def repeat(number, block):
        copies = num_copies(block["label_states"], factors, _fold_in(seed, number))
        return {name: tf.repeat(value, copies, axis=0) for name, value in block.items()}

    return blocks.enumerate().map(repeat).unbatch()


def _seed(run_seed: int, stream: int) -> tf.Tensor:
    return tf.constant([run_seed, stream], tf.int64)


def _fold_in(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg="philox")


def _seeds_of(seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """(2,) of a stream and (B,) positions in it → (B, 2) int32."""
    key = tf.random.stateless_uniform((), seed, None, None, tf.int32, alg="philox")
    return tf.stack([tf.fill(tf.shape(index), key), tf.cast(index, tf.int32)], axis=1)
