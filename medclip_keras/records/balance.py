"""Repeat factors: draws of each item per pass over the data, such that all findings are equally frequent.

An archive is mostly normal: a finding of one image in a hundred would be in every third batch. With n_c items
positive for class c of num_classes that occur (the findings, and "none" for items without a positive), and N
items in all,

    r_c = min(max_repeats, N / (num_classes n_c)),     r_i = max of r_c over the classes of item i

item i is drawn floor(r_i) times per pass, and once more with the probability of the remainder.

Follows: repeat-factor sampling, Gupta, Dollár and Girshick, "LVIS", CVPR 2019, section 4.1.
Departs: the factor is the ratio of the equal share to the class' share, not its square root, and may be under
    1, so that common classes are drawn less; each pass is one sequential read of the data.
"""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from medclip_keras.knowledge.states import LabelState

MAX_REPEATS = 16.0  # a larger factor overfits to a handful of images


def repeat_factors(
    positives: npt.ArrayLike,
    num_none: float,
    num_items: int,
    max_repeats: float = MAX_REPEATS,
) -> npt.NDArray[np.float32]:
    """Compute the factor of each class.

    Args:
        positives: (num_findings,) items positive for each finding.
        num_none: items without a positive finding.
        num_items: all items.
        max_repeats: upper bound.

    Returns:
        (num_findings + 1,) float32; the last one for "none". 0 for a class that does not occur.

    60 items, 40 without a finding, 20 with the first, 5 of these with the second as well:

    >>> repeat_factors([20, 5, 0], num_none=40, num_items=60).tolist()
    [1.0, 4.0, 0.0, 0.5]
    """
    counts = np.append(np.asarray(positives, np.float64), num_none)
    num_classes = np.count_nonzero(counts)
    shares = np.divide(num_items, num_classes * counts, out=np.zeros_like(counts), where=counts > 0)
    return np.minimum(shares, max_repeats).astype(np.float32)


def num_copies(states: tf.Tensor, factors: npt.NDArray[np.float32], seed: tf.Tensor) -> tf.Tensor:
    """Draw the number of copies of each item of a block in this pass.

    Args:
        states: (N, num_findings) int8, `LabelState`.
        factors: (num_findings + 1,) of `repeat_factors`.
        seed: (2,) of this block in this pass.

    Returns:
        (N,) int32.
    """
    positive = states == LabelState.POSITIVE  # (N, num_findings)
    classes = tf.concat([positive, ~tf.reduce_any(positive, axis=1, keepdims=True)], axis=1)
    factor = tf.reduce_max(tf.where(classes, factors, 0.0), axis=1)  # (N,)
    dice = tf.random.stateless_uniform(tf.shape(factor), seed, alg="philox")
    return tf.cast(tf.floor(factor + dice), tf.int32)
