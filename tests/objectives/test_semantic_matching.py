"""The loss against an independent NumPy restatement, its laws, and its gradients."""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.objectives.semantic_matching import label_similarity, semantic_matching, soft_targets


def restatement(v, t, scale, a, b, known_a, known_b, temperature=1.0):
    """The paper's equations in plain loops, float64."""
    n, m = len(v), len(t)
    s = np.zeros((n, m))
    for i in range(n):
        for j in range(m):
            both = [c for c in range(a.shape[1]) if known_a[i, c] and known_b[j, c]]
            dot = sum(a[i, c] * b[j, c] for c in both)
            norms = np.sqrt(sum(a[i, c] ** 2 for c in both)) * np.sqrt(sum(b[j, c] ** 2 for c in both))
            s[i, j] = dot / norms if norms > 0 else 0.0
    y = np.array(
        [
            [np.exp(s[i, j] / temperature) / np.exp(s[i] / temperature).sum() for j in range(m)]
            for i in range(n)
        ]
    )
    z = np.array(
        [
            [np.exp(s[i, j] / temperature) / np.exp(s[:, j] / temperature).sum() for j in range(m)]
            for i in range(n)
        ]
    )
    logits = scale * v @ t.T
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    log_q = logits - np.log(np.exp(logits).sum(0, keepdims=True))
    loss = (-(y * log_p).sum(1).mean() - (z * log_q).sum(0).mean()) / 2
    kl = ((y * (np.log(y) - log_p)).sum(1).mean() + (z * (np.log(z) - log_q)).sum(0).mean()) / 2
    return s, y, z, loss, kl


@pytest.fixture(params=["multi_hot", "signed"])
def batch(request):
    """5 images, 3 texts, 6 findings; a label vector of zeros on each side; some concepts not known."""
    rng = np.random.default_rng(7)
    low = -1 if request.param == "signed" else 0
    a = rng.integers(low, 2, (5, 6)).astype("float64")
    b = rng.integers(low, 2, (3, 6)).astype("float64")
    a[1], b[2] = 0, 0
    v, t = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    v, t = v / np.linalg.norm(v, axis=1, keepdims=True), t / np.linalg.norm(t, axis=1, keepdims=True)
    known_a, known_b = rng.integers(0, 4, a.shape) > 0, rng.integers(0, 4, b.shape) > 0
    return v, t, a, b, known_a.astype("float64"), known_b.astype("float64")


def call(batch, scale=3.0, **options):
    v, t, a, b, known_a, known_b = map(tf.constant, batch)  # Keras makes float32 of NumPy's float64
    return semantic_matching(v, t, scale, a, b, image_known=known_a, text_known=known_b, **options)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_loss_kl_and_targets_equal_a_numpy_restatement(batch, temperature):
    s, y, z, loss, kl = restatement(*batch[:2], 3.0, *batch[2:], temperature)
    out = call(batch, target_temperature=temperature)
    targets = soft_targets(out.similarity, temperature)
    np.testing.assert_allclose(out.similarity, s, atol=1e-12)
    np.testing.assert_allclose(targets[0], y, rtol=1e-12)
    np.testing.assert_allclose(targets[1], z, rtol=1e-12)
    np.testing.assert_allclose([out.loss, out.kl], [loss, kl], rtol=1e-12)


def test_loss_in_float32_equals_the_restatement_to_1e_minus_6(batch):
    *_, loss, kl = restatement(*batch[:2], 3.0, *batch[2:])
    out = call([x.astype("float32") for x in batch])
    assert out.loss.dtype == "float32"
    np.testing.assert_allclose(out.loss, loss, rtol=1e-6)
    np.testing.assert_allclose(out.kl, kl, rtol=1e-5)


def test_loss_is_worked_out_by_hand():
    # One image with finding 0; texts with finding 0 and finding 1. s = [1, 0], logits = [2, 0].
    out = semantic_matching([[1.0, 0]], [[1.0, 0], [0, 1]], 2.0, [[1.0, 0]], [[1.0, 0], [0, 1]])
    y = np.e / (np.e + 1)
    log_normaliser = np.log(np.exp(2) + 1)
    # Text to image there is one candidate: probability 1, no loss.
    expected = -(y * (2 - log_normaliser) + (1 - y) * (0 - log_normaliser)) / 2
    np.testing.assert_allclose(out.loss, expected, rtol=1e-6)


def test_logits_have_images_in_their_rows(batch):
    np.testing.assert_allclose(call(batch).logits, 3.0 * batch[0] @ batch[1].T, rtol=1e-12)


def test_exchanging_images_and_texts_exchanges_the_directions_only(batch):
    v, t, a, b, known_a, known_b = batch
    np.testing.assert_allclose(call((t, v, b, a, known_b, known_a)).loss, call(batch).loss, rtol=1e-12)


def test_permuting_texts_leaves_the_loss(batch):
    v, t, a, b, known_a, known_b = batch
    order = [2, 0, 1]
    np.testing.assert_allclose(
        call((v, t[order], a, b[order], known_a, known_b[order])).loss, call(batch).loss, rtol=1e-12
    )


def test_cosine_does_not_see_the_length_of_label_vectors_and_dot_does(batch):
    a, b = map(tf.constant, batch[2:4])
    np.testing.assert_allclose(label_similarity(3 * a, b), label_similarity(a, b), rtol=1e-12)
    np.testing.assert_allclose(label_similarity(a, b, similarity="dot"), batch[2] @ batch[3].T)


def test_flipping_one_label_changes_the_loss(batch):
    v, t, a, b, known_a, known_b = batch
    flipped = a.copy()
    i, c = np.argwhere(known_a * np.abs(a) > 0)[0]
    flipped[i, c] = 0
    assert abs(float(call((v, t, flipped, b, known_a, known_b)).loss) - float(call(batch).loss)) > 1e-4


def test_prediction_equal_to_the_target_has_no_kl_left():
    a = np.eye(3)
    out = semantic_matching(np.eye(3), np.eye(3), 1 / 0.5, a, a, target_temperature=0.5)
    np.testing.assert_allclose(out.kl, 0, atol=1e-12)


def test_gradients_equal_finite_differences(batch):
    v, t, a, b, known_a, known_b = map(tf.constant, batch)
    variables = [tf.Variable(v), tf.Variable(t), tf.Variable(3.0, dtype="float64")]

    def loss():
        return semantic_matching(
            variables[0], variables[1], variables[2], a, b, image_known=known_a, text_known=known_b
        ).loss

    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        base = variable.numpy()
        for index in np.ndindex(base.shape):
            step = np.zeros(base.shape)
            step[index] = 1e-6
            variable.assign(base + step)
            up = loss()
            variable.assign(base - step)
            down = loss()
            variable.assign(base)
            np.testing.assert_allclose(gradient.numpy()[index], (up - down) / 2e-6, atol=1e-8)


def test_labels_of_zeros_give_finite_gradients():
    with tf.GradientTape() as tape:
        a, b = tf.Variable(np.zeros((2, 3))), tf.Variable(np.zeros((4, 3)))
        v, t = tf.eye(2, 5, dtype="float64"), tf.eye(4, 5, dtype="float64")
        out = semantic_matching(v, t, 2.0, a, b)
    assert all(np.isfinite(g).all() for g in tape.gradient(out.loss, [a, b]))
    np.testing.assert_array_equal(out.similarity, np.zeros((2, 4)))
