"""What is evaluated: anything that embeds stored images and sentences into one space."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Batch = Mapping[str, np.ndarray]

_TEXTS_AT_ONCE = 256


class Embedder(Protocol):
    """A trained model, an untrained one or a SavedModel; embeddings have unit length.

    Only the linear probe asks for features.
    """

    logit_scale: float

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Stored images uint8 (B, S, S, 1) to float32 (B, D)."""

    def embed_features(self, images: np.ndarray) -> np.ndarray:
        """Stored images uint8 (B, S, S, 1) to float32 (B, F), what the image tower projects."""

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Sentences (N,) to float32 (N, D)."""


@dataclass(frozen=True)
class ImageTable:
    """What is known of a data set's images, without their pixels; a row an image, in reading order."""

    record_keys: np.ndarray  # str (num_images,)
    patient_ids: np.ndarray  # str (num_images,)
    label_states: np.ndarray  # int8 (num_images, num_findings), of LabelState

    def __len__(self) -> int:
        return len(self.record_keys)


def read_table(batches: Iterable[Batch]) -> ImageTable:
    """Reads keys, patients and label states of batches {"record_key", "patient_id", "label_states", …}."""
    rows = [
        (strings(b["record_key"]), strings(b["patient_id"]), np.asarray(b["label_states"])) for b in batches
    ]
    if not rows:
        return ImageTable(np.empty(0, str), np.empty(0, str), np.empty((0, 0), np.int8))
    return ImageTable(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def embed_rows(
    embed: Sequence[Callable[[np.ndarray], np.ndarray]],
    batches: Iterable[Batch],
    table: ImageTable,
    rows: np.ndarray,
) -> list[np.ndarray]:
    """Embeds some of a data set's images, in one pass over its pixels.

    Args:
        embed: functions of stored images uint8 (B, S, S, 1) to (B, D); each of them sees every image.
        batches: the batches that `table` was read from, in the same order.
        table: from `read_table`.
        rows: int (num_rows,), positions in the table, ascending.

    Returns:
        An array float32 (num_rows, D) a function, in the order of `rows`.

    Raises:
        ValueError: the batches are not those of the table.
    """
    wanted = np.zeros(len(table), bool)
    wanted[rows] = True
    pieces = [[] for _ in embed]
    for images in _wanted_pixels(batches, table, wanted):
        for function, parts in zip(embed, pieces, strict=True):
            parts.append(function(images))
    return [np.concatenate(parts) for parts in pieces]


def _wanted_pixels(batches: Iterable[Batch], table: ImageTable, wanted: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for batch in batches:
        keys = strings(batch["record_key"])
        stop = start + len(keys)
        if not np.array_equal(keys, table.record_keys[start:stop]):
            raise ValueError(
                "`batches` must come in the same order each time they are read. Received: other record keys "
                f"in rows {start} to {stop}. Read them without shuffling."
            )
        mask = wanted[start:stop]
        if mask.any():
            yield np.asarray(batch["images"])[mask]
        start = stop


def embed_all_texts(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Embeds any number of sentences, some hundred at a time: float32 (num_texts, D)."""
    chunks = [list(texts[i : i + _TEXTS_AT_ONCE]) for i in range(0, len(texts), _TEXTS_AT_ONCE)]
    return np.concatenate([embedder.embed_texts(chunk) for chunk in chunks])


def strings(values) -> np.ndarray:
    """Bytes or str, as tf.data yields them, to an array of str.

    >>> strings(np.array([b"a", b"bc"], object)).tolist()
    ['a', 'bc']
    """
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in np.asarray(values)], dtype=str)
