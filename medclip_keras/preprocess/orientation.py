"""The EXIF orientation of a JPEG or PNG file, read and applied in the graph.

Viewers turn a picture by this number; a photograph of a film is often stored on its side. It stands in the
first directory of a TIFF header (EXIF 3.0, 4.5.3 and table 4; https://www.cipa.jp/std/documents/download_e.html?DC-008-Translation-2023-E):
in JPEG within a segment APP1 that begins with "Exif" and two zeros, in PNG within the chunk eXIf
(https://www.w3.org/TR/png-3/#eXIf). Both stand before the pixels. A damaged one counts as none.
"""

import numpy as np
import tensorflow as tf

UPRIGHT = 1
_START_OF_JPEG, _START_OF_PNG = np.int64(2), np.int64(8)  # after their signatures
_SEARCHED = 2**17  # bytes from a file's start: a segment has at most 2**16
_ORIENTATION = 0x0112  # the tag
_ENTRY = 12  # bytes of a directory's entry: tag (2), type (2), count (4), value (4)


def jpeg_orientation(file_bytes: tf.Tensor) -> tf.Tensor:
    """The orientation of a JPEG file, () int32 in 1 … 8; 1 if it says none."""
    data = _first_bytes(file_bytes)

    def is_before_exif(at: tf.Tensor) -> tf.Tensor:
        marker = _integer_at(data, at, 2)
        is_exif = (marker == 0xFFE1) & (_integer_at(data, at + 4, 4) == int.from_bytes(b"Exif"))
        is_other = (marker >= 0xFFC0) & (marker != 0xFFDA) & (marker != 0xFFD9)  # SOS and EOI end the search
        return is_other & ~is_exif & (at < tf.size(data, tf.int64))

    at = tf.while_loop(is_before_exif, lambda at: (at + 2 + _integer_at(data, at + 2, 2),), (_START_OF_JPEG,))[0]
    return _orientation_if(_integer_at(data, at, 2) == 0xFFE1, data, at + 10)


def png_orientation(file_bytes: tf.Tensor) -> tf.Tensor:
    """The orientation of a PNG file, () int32 in 1 … 8; 1 if it says none before its pixels."""
    data = _first_bytes(file_bytes)
    exif, pixels = int.from_bytes(b"eXIf"), int.from_bytes(b"IDAT")

    def is_before_both(at: tf.Tensor) -> tf.Tensor:
        kind = _integer_at(data, at + 4, 4)
        return (kind != exif) & (kind != pixels) & (at < tf.size(data, tf.int64))

    at = tf.while_loop(is_before_both, lambda at: (at + 12 + _integer_at(data, at, 4),), (_START_OF_PNG,))[0]
    return _orientation_if(_integer_at(data, at + 4, 4) == exif, data, at + 8)


def upright(gray: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn and mirror a picture (height, width, 1) so that it stands as its orientation says."""

    def turned() -> tf.Tensor:
        swapped = tf.cond(orientation >= 5, lambda: tf.transpose(gray, (1, 0, 2)), lambda: gray)
        upside_down = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8]))
        mirrored = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7]))
        return tf.reverse(swapped, tf.boolean_mask([0, 1], [upside_down, mirrored]))

    return tf.cond(orientation == UPRIGHT, lambda: gray, turned)


def integer(numbers: tf.Tensor) -> tf.Tensor:
    """The unsigned integer of some bytes uint8 (N,), at most 7, the most significant first: () int64."""
    weights = 256 ** tf.range(tf.size(numbers, tf.int64) - 1, -1, -1)
    return tf.reduce_sum(tf.cast(numbers, tf.int64) * weights)


def _first_bytes(file_bytes: tf.Tensor) -> tf.Tensor:
    """The bytes to be searched and `_ENTRY` zeros, uint8 (N,)."""
    return tf.pad(tf.io.decode_raw(tf.strings.substr(file_bytes, 0, _SEARCHED), tf.uint8), [[0, _ENTRY]])


def _integer_at(data: tf.Tensor, at: tf.Tensor, length: int) -> tf.Tensor:
    """The integer of the bytes at a place; beyond the end, the zeros."""
    at = tf.minimum(at, tf.size(data, tf.int64) - _ENTRY)
    return integer(data[at : at + length])


def _orientation_if(found: tf.Tensor, data: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    return tf.cond(found, lambda: _orientation_of(data, tiff), lambda: tf.constant(UPRIGHT))


def _orientation_of(data: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of a TIFF header; 1 without it."""
    data = data[tf.minimum(tiff, tf.size(data, tf.int64)) :]
    is_little = _integer_at(data, tf.constant(0, tf.int64), 2) == int.from_bytes(b"II")

    def read(at: tf.Tensor, length: int) -> tf.Tensor:
        return integer(data[at : at + length][:: tf.where(is_little, -1, 1)])

    directory = tf.minimum(read(4, 4), tf.size(data, tf.int64))
    entries = data[directory + 2 :][: _ENTRY * read(directory, 2)]
    entries = tf.reshape(entries[: tf.size(entries) // _ENTRY * _ENTRY], (-1, _ENTRY // 2, 2))
    words = tf.reduce_sum(tf.cast(entries, tf.int32) * tf.where(is_little, [1, 256], [256, 1]), axis=2)
    tags, values = words[:, 0], words[:, 4]  # of (N, 6): tag, type, count twice, value twice
    known = (tags == _ORIENTATION) & (values <= 8)
    return tf.maximum(tf.reduce_max(tf.where(known, values, 0)), UPRIGHT)
