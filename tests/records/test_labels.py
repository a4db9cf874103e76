"""Policies by hand, and the closure in the graph against the one in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.knowledge.concepts import Concept, ConceptTable, close_over_parents, load_table
from medclip_keras.records.labels import close_states, code_labels, mark_unlabelled

STATES = np.int8([[0, 1], [2, 3], [1, 2]])  # silent, positive; negative, uncertain; positive, negative


@pytest.mark.parametrize(
    ("uncertain", "coding", "expected"),
    [
        ("positive", "multi_hot", [[0, 1], [0, 1], [1, 0]]),
        ("negative", "multi_hot", [[0, 1], [0, 0], [1, 0]]),
        ("half", "multi_hot", [[0, 1], [0, 0.5], [1, 0]]),
        ("ignored", "multi_hot", [[0, 1], [0, 0], [1, 0]]),
        ("positive", "signed", [[0, 1], [-1, 1], [1, -1]]),
        ("negative", "signed", [[0, 1], [-1, -1], [1, -1]]),
        ("half", "signed", [[0, 1], [-1, 0.5], [1, -1]]),
        ("ignored", "signed", [[0, 1], [-1, 0], [1, -1]]),
    ],
)
def test_codes_of_every_policy(uncertain, coding, expected):
    labels, known = code_labels(STATES, uncertain, coding)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(
        known, [[1, 1], [1, 0], [1, 1]] if uncertain == "ignored" else np.ones((3, 2))
    )
    assert labels.dtype == known.dtype == tf.float32


def test_closure_in_the_graph_equals_the_one_in_numpy():
    rng = np.random.default_rng(3)
    chain = ConceptTable(
        "chain",
        (
            Concept("C0000001", "grandchild", parents=("child", "aunt")),
            Concept("C0000002", "child", parents=("parent",)),
            Concept("C0000003", "parent"),
            Concept("C0000004", "aunt"),
            Concept("C0000005", "stranger"),
        ),
    )
    for table in (chain, load_table("chest21")):
        states = rng.choice(4, p=[0.6, 0.1, 0.2, 0.1], size=(50, 7, len(table))).astype(np.int8)
        closed = tf.function(lambda x, table=table: close_states(x, table))(states)
        expected = close_over_parents(states, table)
        np.testing.assert_array_equal(closed, expected)
        assert closed.dtype == tf.int8
        assert np.mean(expected != states) > 0.01


def test_closure_makes_the_parent_of_a_positive_positive(small_table):
    closed = close_states(np.int8([[0, 2, 1], [0, 2, 0], [0, 2, 3]]), small_table)
    np.testing.assert_array_equal(closed, [[0, 1, 1], [0, 2, 2], [0, 3, 3]])


def test_mark_unlabelled_needs_nothing_positive_or_uncertain(small_table):
    states = np.int8([[0, 0, 0], [2, 2, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]])
    expected = [[1, 0, 0], [1, 2, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]]
    np.testing.assert_array_equal(mark_unlabelled(states, small_table), expected)
    without = ConceptTable("without", small_table.concepts[1:])
    np.testing.assert_array_equal(mark_unlabelled(states[:, 1:], without), states[:, 1:])
