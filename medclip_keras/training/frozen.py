"""Features of frozen backbones, computed once: `train.frozen`.

    images, texts ── backbone, pooling ── cache ─┬─ batches of features ── projections ── loss
                                                 └─ kept for the next run of the same backbone and records

A folder of the cache is named by what decides its features: the weights, the tower's settings and precision,
and the records, or the texts and their word pieces. The model keeps its whole towers: it is saved, evaluated
and exported as every other.

Departs from a tower that learns: images are not augmented, and there is no dropout.
"""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from etils import epath
from rich.console import Console

from medclip_keras.config import RunConfig, frozen_towers
from medclip_keras.models.image_encoder import statistics_of
from medclip_keras.preprocess.images import for_evaluation
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.provenance import sha256_of
from medclip_keras.records.batches import drawable_texts
from medclip_keras.records.features import (
    Features,
    FeatureTable,
    Floats,
    Hashes,
    content_hash,
    read_features,
    write_features,
)
from medclip_keras.records.reading import RecordFolder, image_folders, read_records
from medclip_keras.records.schema import parse_batch
from medclip_keras.training.model import MedCLIP

_SPLITS = ("train", "valid")
_IMAGES, _TEXTS = 32, 128  # encoded at a time
_PIECES = 8  # the lengths of texts are rounded up to a multiple, so that few graphs are traced
_SECONDS_BETWEEN_LINES = 15
# Settings of a tower on which its pooled features depend, beside its weights.
_IMAGE_FIELDS = ("backbone", "image_size", "upsampled_size", "pooling")
_TEXT_FIELDS = ("hidden_states", "pooling")

Encode = Callable[..., tf.Tensor]
Batches = Iterator[tuple[Hashes, Floats]]


def frozen_features(
    model: MedCLIP, config: RunConfig, tokenizer: Tokenizer, workdir: epath.PathLike, console: Console
) -> dict[str, FeatureTable]:
    """Tables of the features of a run's frozen backbones, from the cache or computed now.

    Args:
        model: with the weights of the run; those of frozen backbones never change.
        config: the run.
        tokenizer: of the run.
        workdir: receives features/, unless `train.feature_cache` names another folder.
        console: prints what is computed, with the time left.

    Returns:
        For each frozen tower "image_features" or "text_features", as `records.batches.training_batches` takes
        them.

    Raises:
        ValueError: folders that cannot be used together, or a missing shard.
        OSError: the disk is full or must not be written.
    """
    cache = epath.Path(config.train.feature_cache or epath.Path(workdir) / "features")
    parts = {"image": _image_parts, "text": _text_parts}
    return {
        f"{name}_features": FeatureTable(list(parts[name](model, config, tokenizer, cache, console)))
        for name in frozen_towers(config.train)
    }


def _image_parts(
    model: MedCLIP, config: RunConfig, _: Tokenizer, cache: epath.Path, console: Console
) -> Iterator[Features]:
    encoder, side = model.image_encoder, config.data.stored_image_size
    tower = _tower_identity(encoder, config, "image", _IMAGE_FIELDS)
    tower["statistics"] = statistics_of(config.model.image)

    @tf.function(input_signature=[tf.TensorSpec((None, side, side, 1), tf.uint8)])
    def encode(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(encoder.features(for_evaluation(images, encoder.image_size)), tf.float32)

    for folder in image_folders(config.data, "train"):
        splits = [split for split in _SPLITS if folder.count(split)]
        made_from = {**tower, "records": folder.manifest.fingerprint, "splits": splits}
        total = sum(folder.count(split) for split in splits)
        batches = functools.partial(_encode_images, encode, folder, splits)
        yield _cached(cache, "image", made_from, batches, total, console)


def _text_parts(
    model: MedCLIP, config: RunConfig, tokenizer: Tokenizer, cache: epath.Path, console: Console
) -> Iterator[Features]:
    texts = sorted({text for split in _SPLITS for text in drawable_texts(config, split)})
    tower = _tower_identity(model.text_encoder, config, "text", _TEXT_FIELDS)
    pieces = [tokenizer.lower_case, tokenizer.max_tokens, list(tokenizer.vocabulary)]
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text + b"\0")
    made_from = {**tower, "pieces": sha256_of(pieces), "texts": digest.hexdigest()}
    batches = functools.partial(_encode_texts, model, tokenizer, texts)
    yield _cached(cache, "text", made_from, batches, len(texts), console)


def _tower_identity(encoder: Any, config: RunConfig, name: str, fields: Iterable[str]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for weight in encoder.backbone.weights:
        digest.update(str(weight.shape).encode() + np.ascontiguousarray(weight.numpy()).tobytes())
    settings = dataclasses.asdict(getattr(config.model, name))
    policy = keras.mixed_precision.dtype_policy().name
    return {
        "format": 1,
        "weights": digest.hexdigest(),
        "precision": policy,
        **{field: settings[field] for field in fields},
    }


def _cached(
    cache: epath.Path,
    name: str,
    made_from: dict[str, Any],
    batches: Callable[[], Batches],
    total: int,
    console: Console,
) -> Features:
    """The features of a folder of the cache, which is made if it is missing or damaged."""
    folder = cache / f"{name}-{sha256_of(made_from)[:16]}"
    try:
        found = read_features(folder)
    except ValueError as error:
        console.print(f"{error}. It is made again.", highlight=False, soft_wrap=True)
        folder.rmtree()
        found = None
    if found is None:
        write_features(folder, _timed(batches(), f"{name} features", total, console), made_from)
        found = read_features(folder)
        assert found is not None
    else:
        said = f"The features of {len(found.contents)} {name}s are those of {folder}."
        console.print(said, highlight=False, soft_wrap=True)
    return found


def _timed(batches: Batches, what: str, total: int, console: Console) -> Batches:
    """The batches; prints how many rows are done, and the time that is left."""
    began = said = time.monotonic()
    done = first = 0
    for batch in batches:
        yield batch
        done += len(batch[0])
        now = time.monotonic()
        if not first:
            first, began = done, now  # without the tracing of the graph
        if now - said > _SECONDS_BETWEEN_LINES or done == total:
            left = (now - began) * (total - done) / max(done - first, 1)
            console.print(f"{what}: {done}/{total}  {left:.0f} s left", highlight=False)
            said = now


def _encode_images(encode: Encode, folder: RecordFolder, splits: Iterable[str]) -> Batches:
    features = folder.manifest.features

    def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return content_hash(serialized), parse_batch(features, serialized, ("image",))["image"]

    for split in splits:
        for hashes, images in read_records([folder], split).batch(_IMAGES).map(parse).prefetch(1):
            yield hashes.numpy(), encode(images).numpy()


def _encode_texts(model: MedCLIP, tokenizer: Tokenizer, texts: list[bytes]) -> Batches:
    encoder = model.text_encoder
    shorten = encoder.pooling != "padded_mean"  # else the padding counts

    @tf.function
    def encode(token_ids: tf.Tensor, padding_mask: tf.Tensor) -> tf.Tensor:
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        return tf.cast(encoder.features(inputs), tf.float32)

    by_length = sorted(texts, key=len, reverse=True)  # the time left is over-estimated, not under-estimated
    for start in range(0, len(texts), _TEXTS):
        some = tf.constant(by_length[start : start + _TEXTS])
        tokens = tokenizer(some)
        ids, mask = tokens["token_ids"], tokens["padding_mask"]
        longest = int(tf.reduce_max(tf.reduce_sum(mask, axis=1)))
        width = min(-(-longest // _PIECES) * _PIECES, ids.shape[1]) if shorten else ids.shape[1]
        yield content_hash(some).numpy(), encode(ids[:, :width], mask[:, :width]).numpy()
