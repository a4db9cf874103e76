"""Image records to batches for supervised learning: images and labels of some classes, no sentences.

The draws are those of `records.batches` (same order, balance and augmentation; batch k is a pure function of
the seed and k), restricted to the images that count for the classes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from medclip_keras.config import DataConfig, RunConfig
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records import batches, streams
from medclip_keras.records.manifest import load_concepts
from medclip_keras.records.reading import Keep, RecordFolder, image_folders, read_records
from medclip_keras.records.schema import parse_batch
from medclip_keras.records.streams import Features

_BUCKETS, _SHARE_KEY = 2**32, (0x6C6162656C, 0x7368617265)  # the key fixes which images a share of them is


@dataclasses.dataclass(frozen=True)
class Classes:
    """Classes to learn."""

    names: tuple[str, ...]  # of concepts, in the order of the labels' columns
    # single-label classification of the images that are positive for exactly one class, as in single_finding;
    # False: independent binary classification of all images
    one_each: bool
    # of the training images; by hash of the record key, so that a smaller share is part of a larger one
    share: float = 1.0
    share_seed: int = 0  # draws other images for a share


def labelled_images(
    config: RunConfig,
    classes: Classes,
    *,
    steps_per_epoch: int,
    split: str = "train",
    start_step: int = 0,
) -> tf.data.Dataset:
    """Endless batches of labelled images, from step `start_step` on.

    `config` and steps count as in `training_batches`.

    Returns:
        A dataset of dicts: images (B, s, s, 1), labels, known (B, num_classes) float32. With `one_each` the
        labels are one-hot, and a finding that is uncertain is not the image's; else `data.uncertain` and
        `data.closure` decide, and known is 0 where a finding is ignored.

    Raises:
        ValueError: folders that cannot be used together, an empty split, no image with exactly one class.
    """
    folders, batch_size = image_folders(config.data, split), config.train.batch_size
    keep = kept(config.data, classes, split)
    features = folders[0].manifest.features
    records = streams.endless(
        streams.image_pass(config, folders, split, keep),
        streams.stream_seed(config.seed, streams.IMAGES),
        steps_per_epoch * batch_size,
        start_step * batch_size,
    ).batch(batch_size, drop_remainder=True)
    targets = _targets(config.data, folders[0], classes)

    def make_batch(step: tf.Tensor, serialized: tf.Tensor) -> Features:
        parsed = parse_batch(features, serialized, ("image", "label_states"))
        labels, known = targets(parsed["label_states"])
        images = batches.augmented(config, parsed["image"], step)
        return {"images": images, "labels": labels, "known": known}

    return streams.in_parallel(make_batch, start_step, records)


def count_labelled(config: RunConfig, classes: Classes, split: str) -> int:
    """Number of images that `labelled_images` draws from; a filter makes it read the split once."""
    folders, keep = image_folders(config.data, split), kept(config.data, classes, split)
    if keep is None:
        return sum(folder.count(split) for folder in folders)
    return int(read_records(folders, split, keep).reduce(np.int64(0), lambda n, _: n + 1))


def kept(data: DataConfig, classes: Classes, split: str) -> Keep | None:
    """Filter of the images that count for the classes; None keeps all."""
    share = classes.share if split == "train" else 1.0
    if share == 1 and not classes.one_each:
        return None
    folder = image_folders(data, split)[0]
    columns = _columns(folder, classes.names)

    def keep(serialized: tf.Tensor, of_images: tf.Tensor) -> tf.Tensor:
        records = parse_batch(folder.manifest.features, serialized, ("record_key", "label_states"))
        key = (_SHARE_KEY[0], _SHARE_KEY[1] + classes.share_seed)
        bucket = tf.strings.to_hash_bucket_strong(records["record_key"], _BUCKETS, key)
        inside = bucket < round(share * _BUCKETS)
        positive = tf.gather(records["label_states"], columns, axis=1) == LabelState.POSITIVE
        one_each = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1) == 1
        return inside & one_each if classes.one_each else inside

    return keep


def _targets(
    data: DataConfig, folder: RecordFolder, classes: Classes
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Function from label states (B, num_findings) to labels and known (B, num_classes)."""
    table, columns = load_concepts(folder.directory), _columns(folder, classes.names)

    def targets(states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if classes.one_each:
            labels = tf.cast(tf.gather(states, columns, axis=1) == LabelState.POSITIVE, tf.float32)
            return labels, tf.ones_like(labels)
        labels, known = batches.label_vectors(states, dataclasses.replace(data, coding="multi_hot"), table)
        return tf.gather(labels, columns, axis=1), tf.gather(known, columns, axis=1)

    return targets


def _columns(folder: RecordFolder, names: Sequence[str]) -> list[int]:
    table = load_concepts(folder.directory)
    return [table.names.index(name) for name in names]
