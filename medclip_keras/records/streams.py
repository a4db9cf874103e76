"""The streams of records and sentences that batches are cut from: which, in what order, how often each.

    records  shards → kept ones → shuffled → copies of rare ones
    sentences               … → those of enough words, one by one → copies of rare ones

A stream is a function of a seed alone; what is skipped is not decoded.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from medclip_keras.config import DataConfig, RunConfig
from medclip_keras.errors import require
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.balance import num_copies, repeat_factors
from medclip_keras.records.reading import RecordFolder, count, shuffle, shuffled_records
from medclip_keras.records.schema import parse_batch, report_features

BLOCK = 128  # records parsed at a time
_SENTENCES_PER_RECORD = 8  # the sentences' shuffle buffer holds that many a record of the images' buffer
_SAMPLE = 4096  # records from which the share without a finding is estimated
_SHARES, _SHARE_KEY = 2**32, (0x6D656463, 0x6C6970)  # the key fixes which studies a share of them is
IMAGES, SENTENCES, AUGMENT, PAIRS = range(4)  # streams of random numbers


def endless(make_pass: Callable, seed: tf.Tensor, per_epoch: int, start: int) -> tf.data.Dataset:
    """Elements from `start` on: epochs of `per_epoch` elements, each made of as many passes as it needs."""
    first_epoch, num_skipped = divmod(start, per_epoch)
    numbers = np.iinfo(np.int64).max

    def epoch(number):
        epoch_seed = fold_in(seed, number)
        passes = tf.data.Dataset.range(numbers).flat_map(lambda n: make_pass(fold_in(epoch_seed, n)))
        skipped = tf.constant(num_skipped, tf.int64)
        return passes.take(per_epoch).skip(tf.where(number == first_epoch, skipped, 0))

    return tf.data.Dataset.range(first_epoch, numbers).flat_map(epoch)


def in_parallel(make_batch: Callable, start: int, *streams: tf.data.Dataset) -> tf.data.Dataset:
    """The batches of a run, in order, several made at a time.

    As many are made at a time as there are cores, at most 16, without tf.data's tuner: its thread sleeps for
    longer and longer, up to a minute, and an iterator does not end before it wakes.

    Args:
        make_batch: step int64 () and an element of each stream → a batch.
        start: the first step.
        *streams: endless, from that step on.
    """
    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    batches = tf.data.Dataset.zip(steps, *streams).map(
        make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(2).with_options(options)


def kept_images(config: RunConfig, split: str, num_findings: int) -> Callable | None:
    """Serialized image records (B,) → bool (B,): whether a run learns from each, and from its sentences.

    Images without a usable sentence of their own are left out where the run learns from pairs. Of the images
    with a report, training keeps those whose study's hash is under `data.paired_share`: the smaller share
    lies within the larger, and which studies they are depends on nothing else.

    Returns:
        The predicate, or None where all images are kept.
    """
    data, share = config.data, config.data.paired_share if split == "train" else 1.0
    if config.pairing != "pairs" and share == 1:
        return None
    features = report_features(num_findings)  # image records carry the same fields

    def keep(serialized):
        records = parse_batch(features, serialized, ("study_id", "sentences"))
        texts = records["sentences"]["text"]
        has_text = tf.reduce_any(texts.with_values(has_words(texts.values, data.min_words)), axis=1)
        bucket = tf.strings.to_hash_bucket_strong(records["study_id"], _SHARES, _SHARE_KEY)
        inside = bucket < round(share * _SHARES)
        return has_text & inside if config.pairing == "pairs" else inside | ~has_text

    return keep


def image_pass(
    data: DataConfig, folders: Sequence[RecordFolder], split: str, keep: Callable | None
) -> Callable:
    """Seed → one pass over the serialized image records, shuffled, rare ones several times."""
    features = folders[0].manifest.features

    def with_states(serialized):
        return {"record": serialized, **parse_batch(features, serialized, ("label_states",))}

    def blocks(records):
        return records.batch(BLOCK).map(with_states)

    factors = None
    if data.balance or keep is not None:  # else nothing can be missing
        factors = _factors(folders, split, "positives", "num_records", blocks, keep)

    def make_pass(seed):
        records = shuffled_records(folders, split, fold_in(seed, 0), keep)
        if data.balance:
            records = _draw_copies(blocks(records), factors, fold_in(seed, 1))
            records = records.map(lambda item: item["record"])
        return shuffle(records, data.shuffle_buffer, fold_in(seed, 2))

    return make_pass


def sentence_pass(
    data: DataConfig, folders: Sequence[RecordFolder], split: str, keep: Callable | None
) -> Callable:
    """Seed → one pass over the sentences with their states and study, shuffled, rare ones several times."""
    parse = sentence_parser(data, folders)

    def sentences_of(serialized):
        sentences = parse(serialized)
        return {name: sentences[name] for name in ("text", "label_states", "study_id")}

    def blocks(records):
        return records.batch(BLOCK).map(sentences_of)

    factors = _factors(folders, split, "sentence_positives", "num_sentences", blocks, keep)

    def make_pass(seed):
        sentences = blocks(shuffled_records(folders, split, fold_in(seed, 0), keep))
        if data.balance:
            sentences = _draw_copies(sentences, factors, fold_in(seed, 1))
        else:
            sentences = sentences.unbatch()
        return shuffle(sentences, _SENTENCES_PER_RECORD * data.shuffle_buffer, fold_in(seed, 2))

    return make_pass


def sentence_parser(data: DataConfig, folders: Sequence[RecordFolder]) -> Callable:
    """Serialized records (B,) → their sentences of `data.min_words` words and more, flat."""
    features = report_features(folders[0].manifest.num_findings)  # image records carry the same fields
    keys = ("record_key", "patient_id", "study_id")

    def parse(serialized):
        batch = parse_batch(features, serialized, (*keys, "sentences"))
        texts, states = batch["sentences"]["text"], batch["sentences"]["label_states"]
        flat = {
            **{key: tf.gather(batch[key], texts.value_rowids()) for key in keys},
            "text": texts.values,
            "label_states": states.values,
        }
        keep = has_words(texts.values, data.min_words)
        return {name: tf.boolean_mask(value, keep) for name, value in flat.items()}

    return parse


def has_words(texts: tf.Tensor, min_words: int) -> tf.Tensor:
    """Texts (N,) → bool (N,): whether each has so many words."""
    return tf.strings.split(texts).row_lengths() >= min_words


def _factors(
    folders, split: str, positives: str, total: str, blocks: Callable, keep: Callable | None
) -> np.ndarray:
    """Repeat factors from the manifests' counts; the share without a finding is that of some records.

    Where records are left out, the manifests count too many: then all counts are those of the sample.
    """
    sample = shuffled_records(folders, split, stream_seed(0, 0), keep).take(_SAMPLE)
    states = [block["label_states"] for block in blocks(sample)]
    states = tf.concat(states, axis=0).numpy() if states else np.zeros((0, 0), np.int8)
    argument, requirement = "data.min_words", "small enough to leave a sentence"
    if keep is not None:
        argument = "data.pairing, data.paired_share and data.min_words"
        requirement = "such that images with a report of their own are left"
    require(
        len(states) > 0,
        argument,
        requirement,
        f"none in {_SAMPLE} records",
        f"Folders: {', '.join(folder.directory for folder in folders)}.",
    )
    share_without = np.mean(~np.any(states == LabelState.POSITIVE, axis=1))
    if keep is not None:
        counts = np.sum(states == LabelState.POSITIVE, axis=0)
        return repeat_factors(counts, share_without * len(states), len(states))
    num_items = count(folders, split, total)
    counts = sum(
        np.array(folder.manifest.splits[split][positives]) for folder in folders if folder.count(split)
    )
    return repeat_factors(counts, share_without * num_items, num_items)


def _draw_copies(blocks: tf.data.Dataset, factors: np.ndarray, seed: tf.Tensor) -> tf.data.Dataset:
    def repeat(number, block):
        copies = num_copies(block["label_states"], factors, fold_in(seed, number))
        return {name: tf.repeat(value, copies, axis=0) for name, value in block.items()}

    return blocks.enumerate().map(repeat).unbatch()


def stream_seed(run_seed: int, stream: int) -> tf.Tensor:
    """The seed (2,) of a run's stream of random numbers."""
    return tf.constant([run_seed, stream], tf.int64)


def fold_in(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """A seed (2,) of its own for each number."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg="philox")


def seeds_of(seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """(2,) of a stream and (B,) positions in it → (B, 2) int32."""
    key = tf.random.stateless_uniform((), seed, None, None, tf.int32, alg="philox")
    return tf.stack([tf.fill(tf.shape(index), key), tf.cast(index, tf.int32)], axis=1)
