"""Sigmoid matching: values by hand, laws, extremes. Its gradients are in test_restatements.py."""

import numpy as np
import pytest
import tensorflow as tf
from objective_cases import labelled_batch

from medclip_keras.objectives.catalogue import OBJECTIVES
from medclip_keras.objectives.sigmoid_matching import sigmoid_matching


@pytest.fixture(params=[False, True], ids=["multi-hot", "signed"])
def batch(request):
    return labelled_batch(signed=request.param)


def call(batch, scale=3.0, bias=-2.0, **options):
    v, t, a, b, known_a, known_b = (tf.constant(batch[k]) for k in ("v", "t", "a", "b", "known_a", "known_b"))
    options |= {"logit_bias": bias, "image_known": known_a, "text_known": known_b}
    return sigmoid_matching(v, t, scale, a, b, **options)


def test_loss_is_worked_out_by_hand():
    # One image with findings 0 and 1; texts with 0 and with 2: s = [1/sqrt(2), 0], x = [1, -1].
    a, b = [[1.0, 1, 0]], [[1.0, 0, 0], [0, 0, 1]]
    out = sigmoid_matching([[1.0, 0]], [[1.0, 0], [0, 1]], 2.0, a, b, logit_bias=-1.0)
    low, high = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))
    errors = np.sqrt(0.5) * low + (1 - np.sqrt(0.5)) * high + low
    np.testing.assert_allclose(out.loss, (errors / 1 + errors / 2) / 2, rtol=1e-6)
    entropy = -np.sqrt(0.5) * np.log(np.sqrt(0.5)) - (1 - np.sqrt(0.5)) * np.log(1 - np.sqrt(0.5))
    np.testing.assert_allclose(out.kl, (errors - entropy) * 3 / 4, rtol=1e-6)


def test_pairs_of_a_diagonal_give_the_loss_of_siglip():
    # Their algorithm 1: n texts for n images, labels 2 eye - 1, -sum(log_sigmoid(labels * logits)) / n.
    rng = np.random.default_rng(2)
    v, t = rng.normal(size=(2, 4, 3))
    row = OBJECTIVES["sigmoid_matching"]
    logits = row.initial_logit_scale * v @ t.T + row.initial_logit_bias
    theirs = np.log(1 + np.exp(-(2 * np.eye(4) - 1) * logits)).sum() / 4
    labels = tf.eye(4, dtype="float64")
    out = sigmoid_matching(tf.constant(v), tf.constant(t), 10.0, labels, labels, logit_bias=-10.0)
    np.testing.assert_allclose(out.loss, theirs, rtol=1e-12)
    np.testing.assert_allclose(out.logits, logits, rtol=1e-12)


def test_exchanging_images_and_texts_changes_nothing(batch):
    names = {"v": "t", "a": "b", "known_a": "known_b"}
    swapped = batch | {k: batch[names[k]] for k in names} | {names[k]: batch[k] for k in names}
    np.testing.assert_allclose(call(swapped).loss, call(batch).loss, rtol=1e-12)
    np.testing.assert_allclose(call(swapped).logits, tf.transpose(call(batch).logits), rtol=1e-12)


def test_contradicting_labels_have_target_0_like_unrelated_ones():
    v = [[1.0, 0]]
    against, silent = (
        sigmoid_matching(v, v, 2.0, [[1.0, 0]], [b], logit_bias=0.0).loss for b in ([-1.0, 0], [0.0, 0])
    )
    np.testing.assert_allclose([against, silent], np.log(1 + np.exp(2)), rtol=1e-6)


def test_similarities_above_one_are_a_match():
    v = [[1.0, 0]]
    out = sigmoid_matching(v, v, 2.0, [[1.0, 1]], [[1.0, 1]], logit_bias=0.0, similarity="dot")
    np.testing.assert_allclose([out.loss, out.kl], np.log(1 + np.exp(-2)), rtol=1e-6)
    np.testing.assert_allclose(out.similarity, [[2]])


def test_predictions_equal_to_the_targets_have_kl_0():
    # s = 1/sqrt(2), so the logit of a perfect prediction is log(s / (1 - s)).
    share = np.sqrt(0.5)
    bias = np.log(share / (1 - share)) - 1
    out = sigmoid_matching([[1.0, 0]], [[1.0, 0]], 1.0, [[1.0, 1]], [[1.0, 0]], logit_bias=bias)
    np.testing.assert_allclose(out.kl, 0, atol=1e-6)
    assert float(out.loss) > 0.1


def test_large_logits_overflow_neither_loss_nor_gradient():
    v, labels = tf.constant([[1.0, 0], [-1, 0]]), np.eye(2, dtype="float32")
    with tf.GradientTape() as tape:
        tape.watch(v)
        out = sigmoid_matching(v, v, 500.0, labels, labels, logit_bias=0.0)
    # Every pair is right; then every logit is wrong by 500.
    np.testing.assert_allclose(out.loss, 0, atol=1e-6)
    assert np.isfinite(tape.gradient(out.loss, v)).all()
    wrong = sigmoid_matching(v, -v, 500.0, labels, labels, logit_bias=0.0)
    np.testing.assert_allclose(wrong.loss, 2 * 500, rtol=1e-6)
