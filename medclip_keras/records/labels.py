"""Label states to label vectors, in the graph: the policies of a run."""

import numpy as np
import tensorflow as tf

from medclip_keras.knowledge.concepts import NO_FINDING, ConceptTable
from medclip_keras.knowledge.states import LabelState

_CODES = {"multi_hot": {"positive": 1.0, "negative": 0.0}, "signed": {"positive": 1.0, "negative": -1.0}}


def code_labels(states: tf.Tensor, uncertain: str, coding: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Code label states as numbers.

    | state | multi_hot | signed |
    |---|---|---|
    | positive | 1 | 1 |
    | negative | 0 | -1 |
    | not mentioned | 0 | 0 |
    | uncertain: positive, negative | as that state | as that state |
    | uncertain: half | 0.5 | 0.5 |
    | uncertain: ignored | 0, not known | 0, not known |
    | unlabelled | 0, not known | 0, not known |

    Args:
        states: (..., num_findings) int8, `LabelState`.
        uncertain: "positive", "negative", "half" or "ignored".
        coding: "multi_hot" as in the paper, or "signed", which distinguishes negative from not mentioned.

    Returns:
        labels (..., num_findings) float32, and known (..., num_findings) float32: 0 for an ignored or
        unlabelled finding, else 1.

    >>> labels, known = code_labels(tf.constant([[0, 1], [2, 3], [3, 3]], tf.int8), "half", "signed")
    >>> labels.numpy().tolist()
    [[0.0, 1.0], [-1.0, 0.5], [0.5, 0.5]]
    """
    codes = _CODES[coding]
    values = np.zeros(len(LabelState), np.float32)
    values[LabelState.POSITIVE] = codes["positive"]
    values[LabelState.NEGATIVE] = codes["negative"]
    values[LabelState.UNCERTAIN] = {**codes, "half": 0.5, "ignored": 0.0}[uncertain]
    known = np.ones(len(LabelState), np.float32)
    known[LabelState.UNCERTAIN] = uncertain != "ignored"
    known[LabelState.UNLABELLED] = 0.0
    positions = tf.cast(states, tf.int32)
    return tf.gather(values, positions), tf.gather(known, positions)


def count_as_silent(states: tf.Tensor) -> tf.Tensor:
    """Make unlabelled concepts not mentioned: silence about them counts as that of a report.

    >>> count_as_silent(tf.constant([0, 1, 2, 3, 4], tf.int8)).numpy().tolist()
    [0, 1, 2, 3, 0]
    """
    unlabelled = states == LabelState.UNLABELLED
    return tf.where(unlabelled, tf.cast(LabelState.NOT_MENTIONED, states.dtype), states)


def close_states(states: tf.Tensor, table: ConceptTable) -> tf.Tensor:
    """Close label states over the table's parents.

    A positive child makes its parent positive; an uncertain child makes a parent uncertain that is not
    positive; then a negative parent makes its children negative that were not mentioned or unlabelled.
    States are int8 (..., num_findings).
    """
    pairs, size = table.implications, len(table)
    below = tf.SparseTensor(pairs, np.ones(len(pairs), np.float32), (size, size))  # [k, l]: l implies k

    def among(marked: tf.Tensor, ancestors: bool = False) -> tf.Tensor:
        """Whether a descendant of each concept is marked, or an ancestor; (..., num_findings) bool."""
        rows = tf.reshape(tf.cast(marked, tf.float32), (-1, size))
        counts = tf.sparse.sparse_dense_matmul(below, rows, adjoint_a=ancestors, adjoint_b=True)
        return tf.ensure_shape(tf.reshape(tf.transpose(counts) > 0, tf.shape(marked)), marked.shape)

    positive = among(states == LabelState.POSITIVE)
    uncertain = among(states == LabelState.UNCERTAIN) & ~positive
    # The descendants of a concept that stays negative are neither positive nor uncertain.
    negative_before = (states == LabelState.NEGATIVE) & ~positive & ~uncertain
    negative = among(negative_before, ancestors=True) & ~positive & ~uncertain
    unlabelled = (states == LabelState.UNLABELLED) & ~positive & ~uncertain & ~negative
    return (
        LabelState.POSITIVE * tf.cast(positive, tf.int8)
        + LabelState.UNCERTAIN * tf.cast(uncertain, tf.int8)
        + LabelState.NEGATIVE * tf.cast(negative, tf.int8)
        + LabelState.UNLABELLED * tf.cast(unlabelled, tf.int8)
    )


def mark_unlabelled(states: tf.Tensor, table: ConceptTable) -> tf.Tensor:
    """Make No Finding positive if no finding is positive or uncertain, as MedCLIP's released code does.

    States are int8 (..., num_findings); of a table without No Finding they stay the same.
    """
    if NO_FINDING not in table.names:
        return states
    present = (states == LabelState.POSITIVE) | (states == LabelState.UNCERTAIN)
    nothing = ~tf.reduce_any(present, axis=-1, keepdims=True)  # (..., 1)
    is_no_finding = np.array(table.names) == NO_FINDING  # (num_findings,)
    return tf.where(nothing & is_no_finding, np.int8(LabelState.POSITIVE), states)
