"""Embedders of stored images and sentences, and the passes over a data set that use them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medclip_keras.errors import refusal
from medclip_keras.evaluation.arrays import Array, Batch, Bools, Floats, Ints, Strings

FACTS = ("study_id", "view_position", "sex", "age")  # what a batch may tell of each image
_TEXTS_AT_ONCE = 256


class TextEmbedder(Protocol):
    """The text tower of a model; embeddings have unit length."""

    @property
    def logit_scale(self) -> float:
        """Factor from cosines to logits, 1/tau."""

    def embed_texts(self, texts: list[str]) -> Floats:
        """Sentences (N,) to float32 (N, D)."""


class Embedder(TextEmbedder, Protocol):
    """A trained model, an untrained model or a SavedModel; embeddings have unit length.

    Only the linear probe calls `embed_features`.
    """

    def embed_images(self, images: Array) -> Floats:
        """Stored images uint8 (B, S, S, 1) to float32 (B, D)."""

    def embed_features(self, images: Array) -> Floats:
        """Stored images uint8 (B, S, S, 1) to float32 (B, F), the image tower's output before projection."""


@dataclass(frozen=True)
class ImageIndex:
    """Keys, patients and label states of a data set's images, in reading order, without pixels."""

    record_keys: Strings  # (num_images,)
    patient_ids: Strings  # (num_images,)
    label_states: Ints  # int8 (num_images, num_findings), of LabelState
    # of `FACTS`, as far as batches have them → (num_images,) as text, "" if unknown
    facts: Mapping[str, Strings] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.record_keys)


def read_index(batches: Iterable[Batch], num_findings: int) -> ImageIndex:
    """Read keys, patients and label states of batches {"record_key", "patient_id", "label_states", …}."""
    keys, patients = [np.empty(0, np.str_)], [np.empty(0, np.str_)]
    states = [np.empty((0, num_findings), np.int8)]
    facts: dict[str, list[Strings]] = {}
    for batch in batches:
        keys.append(strings(batch["record_key"]))
        patients.append(strings(batch["patient_id"]))
        states.append(np.asarray(batch["label_states"]))
        for name in FACTS:
            if name in batch:
                texts = strings(batch[name])
                facts.setdefault(name, []).append(np.where(texts == "-1", "", texts))  # an unknown age
    known = {name: np.concatenate(parts) for name, parts in facts.items()}
    return ImageIndex(np.concatenate(keys), np.concatenate(patients), np.concatenate(states), known)


def embed_rows(
    embed: Sequence[Callable[[Array], Floats]],
    batches: Iterable[Batch],
    index: ImageIndex,
    rows: Ints,
) -> list[Floats]:
    """Embed some of a data set's images in one pass over its pixels.

    Args:
        embed: functions of stored images uint8 (B, S, S, 1) to (B, D); each function sees every image once.
        batches: the batches that `index` was read from, in the same order.
        index: from `read_index`.
        rows: int (num_rows,), positions in the index; duplicates are allowed.

    Returns:
        One array float32 (num_rows, D) per function, in the order of `rows`.

    Raises:
        ValueError: the batches are not those of the index.
    """
    distinct, positions = np.unique(rows, return_inverse=True)
    wanted = np.zeros(len(index), bool)
    wanted[distinct] = True
    pieces: list[list[Floats]] = [[] for _ in embed]
    for images in _wanted_pixels(batches, index, wanted):
        for function, parts in zip(embed, pieces, strict=True):
            parts.append(function(images))
    return [np.concatenate(parts)[positions] for parts in pieces]


def _wanted_pixels(batches: Iterable[Batch], index: ImageIndex, wanted: Bools) -> Iterator[Array]:
    start = 0
    for batch in batches:
        keys = strings(batch["record_key"])
        stop = start + len(keys)
        if not np.array_equal(keys, index.record_keys[start:stop]):
            received = f"other record keys in rows {start} to {stop}"
            raise refusal("batches", "in the same order each time", received, "Read them without shuffling.")
        if wanted[start:stop].any():
            yield np.asarray(batch["images"])[wanted[start:stop]]
        start = stop


def embed_all_texts(embedder: TextEmbedder, texts: Sequence[str]) -> Floats:
    """Embed any number of sentences in chunks: float32 (num_texts, D).

    Equal sentences are embedded once, so that their embeddings are equal to the last bit.
    """
    positions = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    distinct = list(positions)
    chunks = [distinct[i : i + _TEXTS_AT_ONCE] for i in range(0, len(distinct), _TEXTS_AT_ONCE)]
    embedded = np.concatenate([embedder.embed_texts(chunk) for chunk in chunks])
    return embedded[[positions[text] for text in texts]]


def strings(values: npt.ArrayLike) -> Strings:
    """Decode an array of bytes or str, as tf.data yields it, to an array of str.

    >>> strings(np.array([b"a", b"bc"], object)).tolist()
    ['a', 'bc']
    """
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in np.asarray(values)], np.str_)
