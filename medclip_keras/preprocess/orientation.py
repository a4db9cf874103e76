"""The EXIF orientation of a JPEG or PNG file, read and applied in the graph.

Viewers turn a picture by this number; a photograph of a film is often stored on its side. It stands in the
first directory of a TIFF header: in JPEG within a segment APP1 that begins with "Exif" and two zeros, in PNG
within the chunk eXIf (https://www.w3.org/TR/png-3/#eXIf). Both stand before the pixels, in the first 64 KiB.
A damaged one counts as none.
"""

import numpy as np
import tensorflow as tf

UPRIGHT = 1
_START_OF_JPEG, _START_OF_PNG = np.int64(2), np.int64(8)  # after their signatures
_SEARCHED = 2**16  # bytes from a file's start
_ORIENTATION, _SHORT = 0x0112, 3  # the tag, and the type that it should have
_ENTRY = 12  # bytes of a directory's entry: tag (2), type (2), count (4), value (4)


def names_orientation(file_bytes: tf.Tensor) -> tf.Tensor:
    """Whether a file may say its orientation, () bool: few files do, and the search itself is slow."""
    return tf.strings.regex_full_match(_start_of(file_bytes), r"\C*(Exif|eXIf)\C*")


def orientation_of(file_bytes: tf.Tensor, is_named: tf.Tensor) -> tf.Tensor:
    """The orientation of a JPEG or PNG file, () int32 in 1 … 8; 1 if it says none before its pixels."""

    def search() -> tf.Tensor:
        data = tf.pad(tf.io.decode_raw(_start_of(file_bytes), tf.uint8), [[0, _ENTRY]])
        at = tf.cond(tf.io.is_jpeg(file_bytes), lambda: _in_jpeg(data), lambda: _in_png(data))
        return _in_directory(data[at:])

    return tf.cond(is_named, search, lambda: tf.constant(UPRIGHT))


def upright(gray: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn and mirror a picture (height, width, 1) so that it stands as its orientation says."""

    def turned() -> tf.Tensor:
        swapped = tf.cond(orientation >= 5, lambda: tf.transpose(gray, (1, 0, 2)), lambda: gray)
        upside_down = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8]))
        mirrored = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7]))
        return tf.reverse(swapped, tf.boolean_mask([0, 1], [upside_down, mirrored]))

    return tf.cond(orientation == UPRIGHT, lambda: gray, turned)


def _start_of(file_bytes: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(file_bytes, 0, _SEARCHED)


def _in_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Where the TIFF header of a JPEG file begins; the end of the data if it has none."""

    def is_before(at: tf.Tensor) -> tf.Tensor:
        marker = _integer_at(data, at, 2)
        is_exif = (marker == 0xFFE1) & (_integer_at(data, at + 4, 4) == int.from_bytes(b"Exif"))
        return (marker >= 0xFFC0) & (marker != 0xFFDA) & ~is_exif  # SOS: the pixels

    at = tf.while_loop(is_before, lambda at: (at + 2 + _integer_at(data, at + 2, 2),), (_START_OF_JPEG,))[0]
    return tf.where(_integer_at(data, at, 2) == 0xFFE1, at + 10, tf.size(data, tf.int64))


def _in_png(data: tf.Tensor) -> tf.Tensor:
    """Where the TIFF header of a PNG file begins; the end of the data if it has none."""
    exif, pixels = int.from_bytes(b"eXIf"), int.from_bytes(b"IDAT")

    def is_before(at: tf.Tensor) -> tf.Tensor:
        kind = _integer_at(data, at + 4, 4)
        return (kind != exif) & (kind != pixels) & (kind != 0)

    at = tf.while_loop(is_before, lambda at: (at + 12 + _integer_at(data, at, 4),), (_START_OF_PNG,))[0]
    return tf.where(_integer_at(data, at + 4, 4) == exif, at + 8, tf.size(data, tf.int64))


def _integer_at(data: tf.Tensor, at: tf.Tensor, length: int) -> tf.Tensor:
    """The integer of the bytes at a place; 0, of the zeros at its end, beyond the data."""
    at = tf.minimum(at, tf.size(data, tf.int64) - length)
    return _integer(data[at : at + length])


def _integer(numbers: tf.Tensor) -> tf.Tensor:
    """The unsigned integer of some bytes uint8 (N,), at most 7, the most significant first: () int64."""
    weights = 256 ** tf.range(tf.size(numbers, tf.int64) - 1, -1, -1)
    return tf.reduce_sum(tf.cast(numbers, tf.int64) * weights)


def _in_directory(data: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of a TIFF header; 1 without it."""
    data = tf.pad(data, [[0, _ENTRY]])
    is_little = _integer(data[:2]) == int.from_bytes(b"II")

    def read(at: tf.Tensor, length: int) -> tf.Tensor:
        return _integer(data[at : at + length][:: tf.where(is_little, -1, 1)])

    directory = tf.minimum(read(4, 4), tf.size(data, tf.int64))
    entries = data[directory + 2 :][: _ENTRY * read(directory, 2)]
    entries = tf.reshape(entries[: tf.size(entries) // _ENTRY * _ENTRY], (-1, _ENTRY // 2, 2))
    words = tf.reduce_sum(tf.cast(entries, tf.int32) * tf.where(is_little, [1, 256], [256, 1]), axis=2)
    tags, is_short = words[:, 0], words[:, 1] == _SHORT  # of (N, 6): tag, type, count twice, value twice
    values = tf.where(is_short, words[:, 4], words[:, 4] + words[:, 5])
    known = (tags == _ORIENTATION) & (values <= 8)
    return tf.maximum(tf.reduce_max(tf.where(known, values, 0)), UPRIGHT)
