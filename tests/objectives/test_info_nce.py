"""The losses over pairs against an independent NumPy restatement, their gradients and laws."""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.objectives.info_nce import convirt, info_nce


def restatement(v, t, scale, weight):
    """CLIP's loss in plain loops, float64."""
    n = len(v)
    total = 0.0
    for i in range(n):
        rows = [np.exp(scale * v[i] @ t[j]) for j in range(n)]
        columns = [np.exp(scale * v[j] @ t[i]) for j in range(n)]
        total -= weight * np.log(rows[i] / sum(rows)) + (1 - weight) * np.log(columns[i] / sum(columns))
    return total / n


def slopes(function, x, step=1e-6):
    """Central differences."""
    out = np.zeros_like(x)
    for k in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[k] = step
        out[k] = (function(x + moved) - function(x - moved)) / (2 * step)
    return out


@pytest.fixture
def pairs():
    """5 pairs of 3 features; the last two are of one patient: equal images, other texts."""
    rng = np.random.default_rng(3)
    v, t = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    v[4] = v[3]
    return v / np.linalg.norm(v, axis=1, keepdims=True), t / np.linalg.norm(t, axis=1, keepdims=True)


@pytest.mark.parametrize("weight", [0.5, 0.75, 1.0])
def test_info_nce_and_its_gradients_equal_a_numpy_restatement(pairs, weight):
    v, t = (tf.Variable(x) for x in pairs)
    scale = tf.Variable(np.float64(3.0))
    with tf.GradientTape() as tape:
        out = info_nce(v, t, scale, image_weight=weight)
    np.testing.assert_allclose(out.loss, restatement(*pairs, 3.0, weight), rtol=1e-12)
    for_v, for_t, for_scale = tape.gradient(out.loss, [v, t, scale])
    np.testing.assert_allclose(
        for_v, slopes(lambda x: restatement(x, pairs[1], 3.0, weight), pairs[0]), atol=1e-8
    )
    np.testing.assert_allclose(
        for_t, slopes(lambda x: restatement(pairs[0], x, 3.0, weight), pairs[1]), atol=1e-8
    )
    numeric = slopes(lambda s: restatement(*pairs, s[0], weight), np.array([3.0]))
    np.testing.assert_allclose(for_scale, numeric[0], atol=1e-8)
    small = [tf.constant(x, tf.float32) for x in pairs]
    np.testing.assert_allclose(info_nce(*small, 3.0, image_weight=weight).loss, out.loss, rtol=1e-4)


def test_convirt_is_a_tenth_as_warm_and_three_quarters_of_the_images(pairs):
    v, t = (tf.constant(x) for x in pairs)
    np.testing.assert_allclose(convirt(v, t).loss, restatement(*pairs, 10.0, 0.75), rtol=1e-12)


def test_rows_of_the_logits_are_images_and_directions_are_not_mixed_up(pairs):
    v, t = (tf.constant(x) for x in pairs)
    out, swapped = info_nce(v, t, 2.0, image_weight=0.9), info_nce(t, v, 2.0, image_weight=0.1)
    np.testing.assert_allclose(out.logits, 2 * pairs[0] @ pairs[1].T, rtol=1e-12)
    np.testing.assert_allclose(out.loss, swapped.loss, rtol=1e-12)
    assert abs(float(out.loss) - float(info_nce(v, t, 2.0, image_weight=0.1).loss)) > 1e-3


def test_texts_that_are_not_one_an_image_are_refused(pairs):
    with pytest.raises(ValueError, match=r"`text_embeddings` must be one for each image\. Received: 4 for 5"):
        info_nce(tf.constant(pairs[0]), tf.constant(pairs[1][:4]), 1.0)
