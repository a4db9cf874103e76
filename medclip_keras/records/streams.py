"""Streams of records and sentences for batches: selection, order, copies of rare ones.

    records    shards → filter → shuffle → copies of rare ones
    sentences                          … → filter by words → copies of rare ones

A stream is a function of a seed alone; skipped records are not decoded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from medclip_keras.config import DataConfig, RunConfig
from medclip_keras.errors import require
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.balance import num_copies, repeat_factors
from medclip_keras.records.reading import Keep, RecordFolder, count, shuffle, shuffled_records
from medclip_keras.records.schema import parse_batch, report_features

Features = dict[str, Any]  # tensors by name
Pass = Callable[[tf.Tensor], tf.data.Dataset]  # seed (2,) → one pass over the data

BLOCK = 128  # records parsed at a time
_SENTENCES_PER_RECORD = 8  # ratio of the sentences' shuffle buffer to the images'
_SAMPLE = 4096  # records from which the share without a finding is estimated
_SHARES, _SHARE_KEY = 2**32, (0x6D656463, 0x6C6970)  # the key fixes which studies a share of them is
IMAGES, SENTENCES, AUGMENT, PAIRS = range(4)  # streams of random numbers


def endless(make_pass: Pass, seed: tf.Tensor, per_epoch: int, start: int) -> tf.data.Dataset:
    """Elements from `start` on, in epochs of `per_epoch` elements and as many passes as they need."""
    first_epoch, num_skipped = divmod(start, per_epoch)
    numbers = np.iinfo(np.int64).max

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = fold_in(seed, number)
        passes = tf.data.Dataset.range(numbers).flat_map(lambda n: make_pass(fold_in(epoch_seed, n)))
        skipped = tf.constant(num_skipped, tf.int64)
        return passes.take(per_epoch).skip(tf.where(number == first_epoch, skipped, 0))

    return tf.data.Dataset.range(first_epoch, numbers).flat_map(epoch)


def in_parallel(
    make_batch: Callable[..., Features], start: int, *streams: tf.data.Dataset
) -> tf.data.Dataset:
    """Batches of a run, in order, made in parallel.

    The parallelism is the number of cores, at most 16, without tf.data's tuner: its thread sleeps up to a
    minute, and an iterator does not end before the thread wakes.

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


def kept_images(config: RunConfig, split: str, num_findings: int) -> Keep | None:
    """Filter of the image and report records that a run learns from; None keeps all.

    Training keeps the patients whose hash is under `data.patient_share`, with all that is theirs.
    A run on pairs leaves out images without a usable sentence of their own. Of the images with a report,
    training keeps those whose study's hash is under `data.paired_share`: a smaller share is part of a larger
    one, and the studies depend on nothing else.
    """
    data = config.data
    share, patients = (data.paired_share, data.patient_share) if split == "train" else (1.0, 1.0)
    if config.pairing != "pairs" and share == 1 and patients == 1:
        return None
    features = report_features(num_findings)  # image records carry the same fields

    def keep(serialized: tf.Tensor, of_images: tf.Tensor) -> tf.Tensor:
        records = parse_batch(features, serialized, ("patient_id", "study_id", "sentences"))
        return _is_under(records["patient_id"], patients) & (~of_images | is_wanted_image(records))

    def is_wanted_image(records: Features) -> tf.Tensor:
        texts = records["sentences"]["text"]
        has_text = tf.reduce_any(texts.with_values(has_words(texts.values, data.min_words)), axis=1)
        inside = _is_under(records["study_id"], share)
        return has_text & inside if config.pairing == "pairs" else inside | ~has_text

    return keep


def _is_under(names: tf.Tensor, share: float) -> tf.Tensor:
    """Whether the hash of each name is under a share: a smaller share is part of a larger one."""
    return tf.strings.to_hash_bucket_strong(names, _SHARES, _SHARE_KEY) < round(share * _SHARES)


def image_pass(config: RunConfig, folders: Sequence[RecordFolder], split: str, keep: Keep | None) -> Pass:
    """One pass over the serialized image records, shuffled, with copies of rare ones."""
    data, features = config.data, folders[0].manifest.features

    def with_states(serialized: tf.Tensor) -> Features:
        return {"record": serialized, **parse_batch(features, serialized, ("label_states",))}

    def blocks(records: tf.data.Dataset) -> tf.data.Dataset:
        return records.batch(BLOCK).map(with_states)

    factors = np.zeros(0, np.float32)
    if data.balance or keep is not None:  # a filter may leave no image: refused here
        states = _sampled_states(folders, split, blocks, keep)
        _require_items(states, config, folders, split, "an image")
        factors = _factors(states, folders, split, ("positives", "num_records"), keep)

    def make_pass(seed: tf.Tensor) -> tf.data.Dataset:
        records = shuffled_records(folders, split, fold_in(seed, 0), keep)
        if data.balance:
            copies = _draw_copies(blocks(records), factors, fold_in(seed, 1))
            records = copies.map(lambda block: block["record"]).unbatch()
        return shuffle(records, data.shuffle_buffer, fold_in(seed, 2))

    return make_pass


def sentence_pass(config: RunConfig, folders: Sequence[RecordFolder], split: str, keep: Keep | None) -> Pass:
    """One pass over the sentences with their states and study, shuffled, with copies of rare ones."""
    data, parse = config.data, sentence_parser(config.data, folders)

    def sentences_of(serialized: tf.Tensor) -> Features:
        sentences = parse(serialized)
        return {name: sentences[name] for name in ("text", "label_states", "study_id")}

    def blocks(records: tf.data.Dataset) -> tf.data.Dataset:
        return records.batch(BLOCK).map(sentences_of)

    states = _sampled_states(folders, split, blocks, keep)
    _require_items(states, config, folders, split, "a sentence")
    factors = _factors(states, folders, split, ("sentence_positives", "num_sentences"), keep)

    def make_pass(seed: tf.Tensor) -> tf.data.Dataset:
        sentences = blocks(shuffled_records(folders, split, fold_in(seed, 0), keep))
        if data.balance:
            sentences = _draw_copies(sentences, factors, fold_in(seed, 1))
        return shuffle(sentences.unbatch(), _SENTENCES_PER_RECORD * data.shuffle_buffer, fold_in(seed, 2))

    return make_pass


def sentence_parser(data: DataConfig, folders: Sequence[RecordFolder]) -> Callable[[tf.Tensor], Features]:
    """Parser of serialized records (B,) to their sentences of at least `data.min_words` words, flat."""
    features = report_features(folders[0].manifest.num_findings)  # image records carry the same fields
    keys = ("record_key", "patient_id", "study_id")

    def parse(serialized: tf.Tensor) -> Features:
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
    """Whether each text (N,) has at least `min_words` words, bool (N,)."""
    return tf.strings.split(texts).row_lengths() >= min_words


def _sampled_states(
    folders: Sequence[RecordFolder],
    split: str,
    blocks: Callable[[tf.data.Dataset], tf.data.Dataset],
    keep: Keep | None,
) -> npt.NDArray[np.int8]:
    """Label states (N, num_findings) of a sample; `blocks` makes batches with "label_states" of records."""
    sample = blocks(shuffled_records(folders, split, stream_seed(0, 0), keep).take(_SAMPLE))
    no_item = np.zeros((0, folders[0].manifest.num_findings), np.int8)
    return np.concatenate([no_item, *(block["label_states"].numpy() for block in sample)])


def _factors(
    states: npt.NDArray[np.int8],
    folders: Sequence[RecordFolder],
    split: str,
    counts: tuple[str, str],
    keep: Keep | None,
) -> npt.NDArray[np.float32]:
    """Repeat factors from the manifests' counts; a sample of records gives the share without a finding.

    With a filter the manifests count too many, and the sample gives all counts. A class that a partial sample
    misses counts as half an item, for a factor of 0 would exclude its items.

    Args:
        states: of the sample, `_sampled_states`.
        folders, split, keep: of the records.
        counts: names of the manifest's counts of positive and of all items.
    """
    positive = states == LabelState.POSITIVE  # (N, num_findings)
    fewest = 0.5 if count(folders, split) > _SAMPLE else 0.0
    num_without = max(np.sum(~np.any(positive, axis=1)), fewest)
    own = [folder.manifest.splits[split][counts[0]] for folder in folders if folder.count(split)]
    num_positive = np.sum(own, axis=0)  # (num_findings,)
    if keep is not None:
        sampled = np.maximum(np.sum(positive, axis=0), np.where(num_positive > 0, fewest, 0))
        return repeat_factors(sampled, num_without, len(states))
    num_items = count(folders, split, counts[1])
    return repeat_factors(num_positive, num_without / len(states) * num_items, num_items)


def _require_items(
    states: npt.NDArray[np.int8], config: RunConfig, folders: Sequence[RecordFolder], split: str, noun: str
) -> None:
    """Refuse records of which the run's settings leave nothing, naming those settings."""
    in_force: dict[str, Any] = {"min_words": config.data.min_words}
    if config.pairing == "pairs":
        noun, in_force["pairing"] = "an image with a report of its own", "pairs"
    for name in ("patient_share", "paired_share") if split == "train" else ():
        if getattr(config.data, name) < 1:
            in_force[name] = getattr(config.data, name)
    num_read = count(folders, split)  # to the end, by a filter that keeps nothing
    num_read = num_read if len(in_force) > 1 else min(num_read, _SAMPLE)
    argument = ", ".join(f"data.{name}" for name in in_force)
    received = f"{', '.join(map(str, in_force.values()))}: none in {num_read} records"
    advice = f"Folders: {', '.join(folder.directory for folder in folders)}."
    require(len(states) > 0, argument, f"such that {noun} is left", received, advice)


def _draw_copies(
    blocks: tf.data.Dataset, factors: npt.NDArray[np.float32], seed: tf.Tensor
) -> tf.data.Dataset:
    def repeat(number: tf.Tensor, block: Features) -> Features:
        copies = num_copies(block["label_states"], factors, fold_in(seed, number))
        return {name: tf.repeat(value, copies, axis=0) for name, value in block.items()}

    return blocks.enumerate().map(repeat)


def stream_seed(run_seed: int, stream: int) -> tf.Tensor:
    """The seed (2,) of a run's stream of random numbers."""
    return tf.constant([run_seed, stream], tf.int64)


def fold_in(seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Derive a seed (2,) from a number."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg="philox")


def seeds_of(seed: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """(2,) of a stream and (B,) positions in it → (B, 2) int32."""
    key = tf.random.stateless_uniform((), seed, None, None, tf.int32, alg="philox")
    return tf.stack([tf.fill(tf.shape(index), key), tf.cast(index, tf.int32)], axis=1)
