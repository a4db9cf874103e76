"""Schema of image and report records: their fields, encoder and parsers.

| field | image record | report record |
|---|---|---|
| record_key, study_id, patient_id | text; salted hashes unless the job kept the identifiers | the same |
| split | "train", "valid" or "test" | the same |
| view | "frontal", "lateral" or "" | – |
| view_position, sex | "AP", "PA", "LATERAL"; "F", "M"; or "" | – |
| age | years, 90 of the older, -1 unknown | – |
| image | uint8 (S, S, 1) in [0, 255], gray, black 0 | – |
| label_states | int8 (num_findings,), `LabelState` | the same, without unlabelled concepts |
| sentences | its study's, in order, possibly none: {text, section, label_states} | the report's |

The features are TFDS', so that `tfds.builder_from_directory` reads the shards without this project, and
`features.deserialize_example` parses a record: `sentences` is a dict of text (N,), section (N,), label_states
(N, num_findings). Of a table of more than 512 concepts a label vector is stored compressed, by TFDS' encoding
"zlib": 10,000 states with a few that are not zero take 40 bytes instead of 10,000.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_datasets as tfds

from medclip_keras.errors import require

WIDE = 512  # concepts; label vectors of wider tables are compressed
NEARLY_BLACK = 64  # of 255: a picture of 14 bits in 16 is no brighter

# Fields of an image record that records of earlier versions lack, with their values where nothing is known.
OPTIONAL: dict[str, Any] = {"view_position": "", "sex": "", "age": -1}


def is_nearly_black(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether no pixel of a stored image is brighter than a quarter of white."""
    return bool(pixels.max() <= NEARLY_BLACK)


def image_features(image_size: int, num_findings: int) -> tfds.features.FeaturesDict:
    """Features of an image record, stored at a side of `image_size` pixels."""
    image = tfds.features.Tensor(shape=(image_size, image_size, 1), dtype=np.uint8, encoding="bytes")
    return tfds.features.FeaturesDict(
        {
            **_shared_features(num_findings),
            "view": tfds.features.Text(),
            "view_position": tfds.features.Text(),
            "sex": tfds.features.Text(),
            "age": tfds.features.Scalar(np.int64),
            "image": image,
        }
    )


def report_features(num_findings: int) -> tfds.features.FeaturesDict:
    """Features of a report record."""
    return tfds.features.FeaturesDict(_shared_features(num_findings))


def features_of(kind: str, image_size: int, num_findings: int) -> tfds.features.FeaturesDict:
    """Features of the records of a manifest's kind, "images" or "reports"."""
    return image_features(image_size, num_findings) if kind == "images" else report_features(num_findings)


def encode(features: tfds.features.FeaturesDict, row: dict[str, Any]) -> bytes:
    """Serialize one record as a `tf.train.Example`; equal rows give equal bytes, in every process.

    Ten times as fast as TFDS' `features.serialize_example`, and with the fields in one order: TFDS' order
    changes from process to process.

    Args:
        features: of `image_features` or `report_features`.
        row: a value for each field but those of `OPTIONAL`; sentences are a list of dicts.

    Raises:
        KeyError: a field is missing.
        ValueError: an image or a label vector of another shape.
    """
    fields: dict[str, tf.train.Feature] = {}
    for name in features:
        if name == "sentences":
            fields |= _encode_sentences(row[name], features["label_states"].shape)
        elif name == "label_states":
            fields[name] = _states([_of_shape(name, row[name], features[name].shape)], *features[name].shape)
        elif name == "image":
            fields[name] = _strings([_of_shape(name, row[name], features[name].shape).tobytes()])
        elif name == "age":
            fields[name] = _integers([row.get(name, OPTIONAL[name])])
        else:
            text = row.get(name, OPTIONAL[name]) if name in OPTIONAL else row[name]
            fields[name] = _strings([text.encode()])
    example = tf.train.Example(features=tf.train.Features(feature=fields))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _encode_sentences(sentences: Sequence[dict[str, Any]], shape: tuple[int]) -> dict[str, tf.train.Feature]:
    states = [_of_shape("sentences", sentence["label_states"], shape) for sentence in sentences]
    return {
        "sentences/text": _strings([sentence["text"].encode() for sentence in sentences]),
        "sentences/section": _strings([sentence["section"].encode() for sentence in sentences]),
        "sentences/label_states": _states(states, *shape),
    }


def _of_shape(name: str, value: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    array = np.asarray(value)
    require(array.shape == shape, name, f"of shape {shape}", array.shape)
    return array


def _strings(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _states(vectors: list[npt.NDArray[Any]], num_findings: int) -> tf.train.Feature:
    """Label vectors, one after the other: numbers, or of a wide table compressed bytes."""
    if num_findings > WIDE:
        return _strings([zlib.compress(vector.astype(np.int8).tobytes()) for vector in vectors])
    values = [state for vector in vectors for state in vector.tolist()]
    return _integers(values)


def _integers(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def states_of(values: Sequence[Any], num_findings: int) -> npt.NDArray[np.int64]:
    """Label states of a field's values, flat; inverse of `encode`.

    Raises:
        zlib.error: bytes that are not compressed.
    """
    if num_findings > WIDE:
        return np.frombuffer(b"".join(map(zlib.decompress, values)), np.int8).astype(np.int64)
    return np.array(values, np.int64)


def parse_report(serialized: bytes, num_findings: int) -> dict[str, Any]:
    """Inverse of `encode` for a report record, in Python: it takes 40 µs, TFDS' own parser 3 ms."""
    fields = tf.train.Example.FromString(serialized).features.feature
    names = ("record_key", "study_id", "patient_id", "split")
    texts = [text.decode() for text in fields["sentences/text"].bytes_list.value]
    sections = [section.decode() for section in fields["sentences/section"].bytes_list.value]
    kind = "bytes_list" if num_findings > WIDE else "int64_list"
    said, states = (
        states_of(getattr(fields[name], kind).value, num_findings).astype(np.int8)
        for name in ("label_states", "sentences/label_states")
    )
    return {
        **{name: fields[name].bytes_list.value[0].decode() for name in names},
        "label_states": said,
        "sentences": [
            {"text": text, "section": section, "label_states": own}
            for text, section, own in zip(texts, sections, states.reshape(-1, num_findings), strict=True)
        ],
    }


def parse_batch(
    features: tfds.features.FeaturesDict, serialized: tf.Tensor, fields: Sequence[str]
) -> dict[str, Any]:
    """Parse some fields of a batch of records in the graph.

    Args:
        features: those they were encoded with; for `sentences` and `label_states` those of a report serve
            image records too.
        serialized: (B,) string.
        fields: names of the fields to parse.

    Returns:
        A tensor (B, …) for each field; `sentences` is a dict of ragged text (B, N), section (B, N) and
        label_states (B, N, num_findings).
    """
    num_findings = features["label_states"].shape[0]
    stored = tf.string if num_findings > WIDE else tf.int64
    wanted = {}
    for name in fields:
        if name == "sentences":
            for part, dtype in (("text", tf.string), ("section", tf.string), ("label_states", stored)):
                wanted[f"sentences/{part}"] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        elif name == "label_states":
            shape = () if num_findings > WIDE else (num_findings,)
            wanted[name] = tf.io.FixedLenFeature(shape, stored)
        else:
            dtype = tf.int64 if name == "age" else tf.string
            wanted[name] = tf.io.FixedLenFeature((), dtype, OPTIONAL.get(name))
    batch: dict[str, Any] = tf.io.parse_example(serialized, wanted)
    if "label_states" in batch:
        batch["label_states"] = _decode_states(batch["label_states"], num_findings)
    if "image" in batch:
        pixels = tf.io.decode_raw(batch["image"], tf.uint8)
        batch["image"] = tf.reshape(pixels, (-1, *features["image"].shape))  # (B, S, S, 1)
    if "sentences" in fields:
        texts = batch.pop("sentences/text")
        states = _decode_states(batch.pop("sentences/label_states").values, num_findings)
        batch["sentences"] = {
            "text": texts,
            "section": batch.pop("sentences/section"),
            "label_states": texts.with_values(states),
        }
    return batch


def _decode_states(values: tf.Tensor, num_findings: int) -> tf.Tensor:
    """Stored label vectors → (N, num_findings) int8."""
    if num_findings > WIDE:
        values = tf.io.decode_raw(tf.io.decode_compressed(values, "ZLIB"), tf.int8)
    return tf.reshape(tf.cast(values, tf.int8), (-1, num_findings))


def _shared_features(num_findings: int) -> dict[str, Any]:
    encoding = "zlib" if num_findings > WIDE else "none"
    label_states = tfds.features.Tensor(shape=(num_findings,), dtype=np.int8, encoding=encoding)
    return {
        "record_key": tfds.features.Text(),
        "study_id": tfds.features.Text(),
        "patient_id": tfds.features.Text(),
        "split": tfds.features.Text(),
        "label_states": label_states,
        "sentences": tfds.features.Sequence(
            {"text": tfds.features.Text(), "section": tfds.features.Text(), "label_states": label_states}
        ),
    }
