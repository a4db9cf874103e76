"""Bounds of the endpoints' inputs, checked in the graph.

A server feeds whatever its clients send: neither TensorFlow nor TensorFlow Serving compares it with the
signature, and some operations (tensorflow-text's normaliser among them) end the process on another rank.
"""

from collections.abc import Sequence

import tensorflow as tf

MAX_ROWS = 256  # of a call: the memory of an encoder grows with them
MAX_PER_IMAGE = 256  # prompts or texts beside one image
MAX_PAIRS = 8192  # rows times texts a row: 32 rows of MAX_PER_IMAGE, the largest batch of batching.config
MAX_TEXT_BYTES = 2**14  # of a text, which is cut there; the encoder reads max_tokens word pieces of it


def checked(value: tf.Tensor, argument: str, *shape: int | None) -> tf.Tensor:
    """Refuse another shape, or more than `MAX_ROWS` rows; None is a free dimension.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs.
    """
    value = tf.ensure_shape(value, shape, name=f"{argument}_must_have_the_shape_of_its_signature")
    return refuse_unless(value, argument, f"at most {MAX_ROWS} rows", tf.shape(value)[0] <= MAX_ROWS)


def checked_lists(value: tf.Tensor, argument: str, like: tf.Tensor) -> tf.Tensor:
    """Refuse lists (B, N) unless B is that of `like`, N in 1 … MAX_PER_IMAGE, B N at most MAX_PAIRS."""
    value = checked(value, argument, None, None)
    rows, width = tf.unstack(tf.shape(value))
    value = refuse_unless(value, argument, "one list an image", rows == tf.shape(like)[0])
    form = f"1 to {MAX_PER_IMAGE} a row, and at most {MAX_PAIRS} in all"
    return refuse_unless(
        value, argument, form, (width >= 1) & (width <= MAX_PER_IMAGE) & (rows * width <= MAX_PAIRS)
    )


def refuse_unless(value: tf.Tensor, argument: str, requirement: str, *conditions: tf.Tensor) -> tf.Tensor:
    """The same value, if all conditions hold.

    The message does not quote the value: a text may be a patient's.

    Raises:
        tf.errors.InvalidArgumentError: "`argument` must be requirement."
    """
    holds = tf.reduce_all([tf.reduce_all(condition) for condition in conditions])
    with tf.control_dependencies([tf.debugging.Assert(holds, [f"`{argument}` must be {requirement}."])]):
        return tf.identity(value)


def within(value: tf.Tensor, argument: str, least: float, largest: float, unit: str = "") -> tf.Tensor:
    """Refuse values outside least … largest; NaN is outside."""
    requirement = f"values from {least:,} to {largest:,}{unit}"
    return refuse_unless(value, argument, requirement, value >= least, value <= largest)


def cut_texts(texts: tf.Tensor) -> tf.Tensor:
    """The first `MAX_TEXT_BYTES` bytes of each text."""
    return tf.strings.substr(texts, 0, MAX_TEXT_BYTES)


def names_of(rows: Sequence[str], like: tf.Tensor) -> tf.Tensor:
    """The same strings for each row of `like`: (B, len(rows))."""
    return tf.tile(tf.constant([list(rows)]), [tf.shape(like)[0], 1])
