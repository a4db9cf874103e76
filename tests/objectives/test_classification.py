"""The losses of the supervised peers, against the same equations in NumPy, and their laws."""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.objectives.classification import sigmoid_cross_entropy, softmax_cross_entropy


@pytest.fixture
def batch():
    """5 images of 3 findings, one label in three not known."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (5, 3)) / 2
    return rng.normal(size=(5, 3)) * 3, labels, (rng.random((5, 3)) < 0.7).astype(float)


def test_softmax_equals_the_log_of_each_images_share(batch):
    logits = batch[0]
    classes = np.array([2, 0, 1, 1, 0])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.mean([np.log(shares[i, c]) for i, c in enumerate(classes)])
    found = softmax_cross_entropy(tf.constant(logits), tf.constant(np.eye(3)[classes]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_softmax_is_invariant_to_an_offset_of_an_images_logits(batch):
    labels = np.eye(3)[[2, 0, 1, 1, 0]]
    shifted = batch[0] + 7 * np.arange(5)[:, None]
    expected = softmax_cross_entropy(tf.constant(batch[0]), labels)
    np.testing.assert_allclose(softmax_cross_entropy(tf.constant(shifted), labels), expected, rtol=1e-12)


def test_sigmoid_equals_the_mean_over_the_known_labels(batch):
    logits, labels, known = batch
    p = 1 / (1 + np.exp(-logits))
    each = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    expected = np.mean([e for e, k in zip(each.ravel(), known.ravel(), strict=True) if k])
    np.testing.assert_allclose(sigmoid_cross_entropy(*map(tf.constant, batch)), expected, rtol=1e-12)
    in_float32 = sigmoid_cross_entropy(*(tf.constant(x, tf.float32) for x in batch))
    np.testing.assert_allclose(in_float32, expected, rtol=1e-5)


def test_the_gradient_is_the_error_of_each_known_label(batch):
    logits, labels, known = map(tf.constant, batch)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = sigmoid_cross_entropy(logits, labels, known)
    expected = batch[2] * (1 / (1 + np.exp(-batch[0])) - batch[1]) / batch[2].sum()
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-12)


def test_large_logits_and_unknown_labels_give_a_finite_loss(batch):
    logits, labels, known = batch
    assert np.isfinite(sigmoid_cross_entropy(tf.constant(1e4 * logits), labels, known))
    assert float(sigmoid_cross_entropy(tf.constant(logits), labels, np.zeros_like(known))) == 0
