"""Policies by hand, and the closure in the graph against a NumPy restatement along the parents."""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.knowledge.concepts import Concept, ConceptTable, load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.labels import close_states, code_labels, count_as_silent, mark_unlabelled

NONE, POS, NEG, UNC, UNLABELLED = LabelState

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


@pytest.mark.parametrize("coding", ["multi_hot", "signed"])
@pytest.mark.parametrize("uncertain", ["positive", "negative", "half", "ignored"])
def test_an_unlabelled_concept_is_zero_and_not_known_by_every_policy(uncertain, coding):
    labels, known = code_labels(np.int8([[UNLABELLED, POS, NONE]]), uncertain, coding)
    np.testing.assert_array_equal(labels, [[0, 1, 0]])
    np.testing.assert_array_equal(known, [[0, 1, 1]])
    _, known = code_labels(count_as_silent(np.int8([[UNLABELLED, POS, NONE]])), uncertain, coding)
    np.testing.assert_array_equal(known, [[1, 1, 1]])


def close_over_parents(states, table):
    """The closure, one parent at a time: (..., num_findings) int8."""
    closed, index = states.copy(), table.names.index
    pairs = [(child, index(parent)) for child in table.order for parent in table.concepts[child].parents]
    for child, parent in reversed(pairs):
        above, below = closed[..., parent], closed[..., child]  # views (...,)
        above[(below == UNC) & (above != POS)] = UNC
        above[below == POS] = POS
    for child, parent in pairs:
        silent = (closed[..., child] == NONE) | (closed[..., child] == UNLABELLED)
        closed[..., child][silent & (closed[..., parent] == NEG)] = NEG
    return closed


CHAIN = ConceptTable(
    "chain",
    (
        Concept("C0000001", "leaf", parents=("middle", "aunt")),
        Concept("C0000002", "middle", parents=("root",)),
        Concept("C0000003", "root"),
        Concept("C0000004", "aunt"),
        Concept("C0000005", "stranger"),
    ),
)


@pytest.mark.parametrize("table", [CHAIN, load_table("chest21")], ids=lambda table: table.name)
def test_closure_in_the_graph_equals_the_one_in_numpy(table):
    shape = (50, 7, len(table))
    shares = [0.4, 0.1, 0.2, 0.1, 0.2]
    states = np.random.default_rng(3).choice(5, p=shares, size=shape).astype(np.int8)
    closed = tf.function(lambda x: close_states(x, table))(states)
    expected = close_over_parents(states, table)
    np.testing.assert_array_equal(closed, expected)
    np.testing.assert_array_equal(close_states(closed, table), closed)
    assert closed.dtype == tf.int8
    assert np.mean(expected != states) > 0.01


def test_closure_lifts_children_and_denies_below():
    # leaf, middle, root, aunt, stranger
    states_and_closed = [
        ([POS, NONE, NEG, NONE, NEG], [POS, POS, POS, POS, NEG]),  # lifts all ancestors, even a denied one
        ([UNC, NONE, NONE, NONE, NONE], [UNC, UNC, UNC, UNC, NONE]),
        ([UNC, POS, NONE, POS, NONE], [UNC, POS, POS, POS, NONE]),
        ([NONE, NONE, NEG, NONE, POS], [NEG, NEG, NEG, NONE, POS]),  # a denied root denies what is below it
        ([NONE, POS, NONE, NONE, NONE], [NONE, POS, POS, NONE, NONE]),
        ([NEG, NONE, NONE, NONE, NONE], [NEG, NONE, NONE, NONE, NONE]),  # a denied leaf denies no parent
        # An archive that labels the leaf alone: its presence tells of the parents, its absence does not.
        ([POS, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED], [POS, POS, POS, POS, UNLABELLED]),
        ([NEG, UNLABELLED, UNLABELLED, UNLABELLED, NONE], [NEG, UNLABELLED, UNLABELLED, UNLABELLED, NONE]),
        # One that labels the root alone: its absence tells of all below.
        ([UNLABELLED, UNLABELLED, NEG, UNLABELLED, NONE], [NEG, NEG, NEG, UNLABELLED, NONE]),
    ]
    states, expected = np.array(states_and_closed, np.int8).transpose(1, 0, 2)
    np.testing.assert_array_equal(close_states(states, CHAIN), expected)
    np.testing.assert_array_equal(close_states(states[0], CHAIN), expected[0])  # (num_findings,)


def test_mark_unlabelled_needs_nothing_positive_or_uncertain(small_table):
    states = np.int8([[0, 0, 0], [2, 2, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]])
    expected = [[1, 0, 0], [1, 2, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]]
    np.testing.assert_array_equal(mark_unlabelled(states, small_table), expected)
    without = ConceptTable("without", small_table.concepts[1:])
    np.testing.assert_array_equal(mark_unlabelled(states[:, 1:], without), states[:, 1:])
