"""Features of frozen backbones on disk, found by the content that they are of.

A folder holds `features.bin`, float32 rows, `contents.bin`, the int64 hash of what each row is of, and
`manifest.json` with counts and checksums. It takes its name when it is complete.
"""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from etils import epath

from medclip_keras.files import WRITING, sync
from medclip_keras.provenance import file_sha256

_MANIFEST, _FEATURES, _CONTENTS = "manifest.json", "features.bin", "contents.bin"
_BUCKETS = 2**62

Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.int64]


def content_hash(contents: tf.Tensor) -> tf.Tensor:
    """Hash int64 (B,) of serialized records or of texts (B,)."""
    return tf.strings.to_hash_bucket_fast(contents, _BUCKETS)


@dataclass(frozen=True)
class Features:
    """Rows of features, with hashes of their inputs."""

    contents: Hashes  # (N,)
    rows: Floats  # (N, F), perhaps in a file


def write_features(folder: epath.PathLike, batches: Iterable[tuple[Hashes, Floats]], made_from: Any) -> None:
    """Write batches of hashes (B,) and features (B, F) as they come; the folder appears when all are there.

    Raises:
        OSError: the disk is full or must not be written; nothing is left.
    """
    folder = epath.Path(folder)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{WRITING}")
    beside.mkdir(parents=True)
    try:
        width = 0
        with (beside / _FEATURES).open("wb") as rows, (beside / _CONTENTS).open("wb") as contents:
            for hashes, features in batches:
                width = features.shape[1]
                rows.write(np.ascontiguousarray(features, "<f4").tobytes())
                contents.write(hashes.astype("<i8").tobytes())
        files = {name: file_sha256(beside / name) for name in (_FEATURES, _CONTENTS)}
        manifest = {"kind": "features", "width": width, "files": files, "made_from": made_from}
        (beside / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        sync(*beside.iterdir(), beside)
        if not folder.exists():  # else another process was faster
            beside.rename(folder)
    finally:
        if beside.exists():
            beside.rmtree()


def read_features(folder: epath.PathLike) -> Features | None:
    """Read a folder of `write_features`; None if there is none.

    Raises:
        ValueError: a file that is missing or not the manifest's.
    """
    folder = epath.Path(folder)
    if not folder.exists():
        return None
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        width, files = int(manifest["width"]), dict(manifest["files"])
        for name in (_FEATURES, _CONTENTS):
            if file_sha256(folder / name) != files[name]:
                raise ValueError(f"{name} differs from its checksum")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from None
    contents = np.frombuffer((folder / _CONTENTS).read_bytes(), "<i8")
    shape = (len(contents), width)
    if "://" in str(folder) or not contents.size:
        rows = np.frombuffer((folder / _FEATURES).read_bytes(), "<f4").reshape(shape)
    else:
        rows = np.memmap(folder / _FEATURES, "<f4", mode="r", shape=shape)
    return Features(contents, rows)


class FeatureTable:
    """Features by content, as an operation of a dataset: strings (B,) → float32 (B, F)."""

    def __init__(self, parts: Sequence[Features]):
        self._parts = [part.rows for part in parts if len(part.contents)]
        contents = np.concatenate([part.contents for part in parts])
        order = np.argsort(contents, kind="stable")
        self._contents = contents[order]
        sizes = [len(part) for part in self._parts]
        self._part = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._row = np.concatenate([np.arange(size) for size in sizes])[order]

    @property
    def width(self) -> int:
        """F."""
        return int(self._parts[0].shape[1])

    def __call__(self, contents: tf.Tensor) -> tf.Tensor:
        """Features (B, F) of serialized records or texts (B,)."""
        found = tf.numpy_function(self.take, [content_hash(contents)], tf.float32)
        return tf.ensure_shape(found, (contents.shape[0], self.width))

    def take(self, hashes: Hashes) -> Floats:
        """Features float32 (B, F) of content hashes (B,).

        Raises:
            ValueError: a content without features.
        """
        at = np.minimum(np.searchsorted(self._contents, hashes), len(self._contents) - 1)
        if not np.array_equal(self._contents[at], hashes):
            raise ValueError("`features` must hold every record and text of the batches.")
        taken = np.empty((len(hashes), self.width), np.float32)
        for number, rows in enumerate(self._parts):
            here = self._part[at] == number
            taken[here] = rows[self._row[at][here]]
        return taken
