"""The loss against an independent NumPy restatement, and its laws; test_restatements.py has its gradients."""

import numpy as np
import pytest
import restated
import tensorflow as tf
from objective_cases import RELATED

from medclip_keras.objectives.semantic_matching import label_similarity, semantic_matching, soft_targets


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


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("kernel", [None, RELATED], ids=["multi-hot", "related"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_loss_kl_and_targets_equal_a_numpy_restatement(batch, temperature, kernel, dtype, tolerance):
    s, y, z, loss, kl = restated.semantic_matching(*batch[:2], 3.0, *batch[2:], temperature, kernel)
    out = call([x.astype(dtype) for x in batch], target_temperature=temperature, concept_kernel=kernel)
    targets = soft_targets(out.similarity, temperature)
    assert out.loss.dtype == dtype
    np.testing.assert_allclose(out.similarity, s, atol=tolerance)
    np.testing.assert_allclose(targets[0], y, rtol=10 * tolerance)
    np.testing.assert_allclose(targets[1], z, rtol=10 * tolerance)
    np.testing.assert_allclose(out.loss, loss, rtol=tolerance)
    np.testing.assert_allclose(out.kl, kl, rtol=10 * tolerance)


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
    permuted = call((v, t[order], a, b[order], known_a, known_b[order]))
    np.testing.assert_allclose(permuted.loss, call(batch).loss, rtol=1e-12)


def test_cosine_does_not_see_the_length_of_label_vectors_and_dot_does(batch):
    a, b = map(tf.constant, batch[2:4])
    np.testing.assert_allclose(label_similarity(3 * a, b), label_similarity(a, b), rtol=1e-12)
    np.testing.assert_allclose(label_similarity(a, b, similarity="dot"), batch[2] @ batch[3].T)


def test_weights_and_related_concepts_are_worked_out_by_hand():
    # Concepts: opacity, edema (half an opacity), fracture; weights 1, 2, 3 on both sides.
    kernel = np.outer([1, 2, 3], [1, 2, 3]) * [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
    a, b = tf.constant([[0.0, 1, 1], [1, 0, 0]]), tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    # |(edema, fracture)|² = 4 + 9; with opacity 2 * .5 in common, with edema 4.
    expected = [[1 / np.sqrt(13), 4 / np.sqrt(13 * 4), 0], [1, 1 / np.sqrt(4), 0]]
    np.testing.assert_allclose(label_similarity(a, b, concept_kernel=kernel), expected, rtol=1e-6)
    dot = label_similarity(a, b, similarity="dot", concept_kernel=kernel)
    np.testing.assert_allclose(dot, [[1, 4, 0], [1, 1, 0]], rtol=1e-6)


@pytest.mark.parametrize("tile_size", [0, 1])
def test_two_archives_that_label_different_findings_mask_each_pair_alone(tile_size):
    # Archive 0 labels finding A, archive 1 finding B; both images have what their archive labels. Texts say
    # A and B, A, B. With unlabelled findings masked, each image is like every text that says its finding.
    labels, known = tf.constant([[1.0, 0], [0, 1]]), tf.constant([[1.0, 0], [0, 1]])
    texts = tf.constant([[1.0, 1], [1, 0], [0, 1]])
    masked = np.array([[1.0, 1, 0], [1, 0, 1]])
    silent = np.array([[np.sqrt(0.5), 1, 0], [np.sqrt(0.5), 0, 1]])
    v, t = tf.constant([[1.0, 0], [0, 1]]), tf.constant([[0.6, 0.8], [1, 0], [0, 1]])
    for image_known, s in ((known, masked), (None, silent)):
        np.testing.assert_allclose(label_similarity(labels, texts, image_known), s, rtol=1e-6)
        out = semantic_matching(v, t, 2.0, labels, texts, image_known=image_known, tile_size=tile_size)
        logits = 2 * np.array([[0.6, 1, 0], [0.8, 0, 1]])
        y, z = (np.exp(s) / np.exp(s).sum(axis=axis, keepdims=True) for axis in (1, 0))
        log_p, log_q = (logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True)) for axis in (1, 0))
        expected = -((y * log_p).sum() / 2 + (z * log_q).sum() / 3) / 2
        np.testing.assert_allclose(out.loss, expected, rtol=1e-6)


def test_a_diagonal_kernel_is_the_cosine_of_weighted_labels(batch):
    weights = np.array([1.0, 2, 3, 1, 5, 0.5])
    a, b = map(tf.constant, batch[2:4])
    for kernel in (np.diag(weights**2), weights**2):
        found = label_similarity(a, b, concept_kernel=kernel)
        np.testing.assert_allclose(found, label_similarity(a * weights, b * weights), rtol=1e-12)


def test_the_identity_as_kernel_gives_the_same_bytes_as_none(batch):
    single = [x.astype("float32") for x in batch]
    for one, other in zip(call(single, concept_kernel=np.eye(6)), call(single), strict=True):
        np.testing.assert_array_equal(one, other)


def test_unknown_related_concept_does_not_count():
    # Both are positive for finding 0; the image's finding 1, which the text has, is not known.
    a, b = tf.constant([[1.0, 0, 0, 0, 0, 0]]), tf.constant([[1.0, 1, 0, 0, 0, 0]])
    known = tf.constant([[1.0, 0, 1, 1, 1, 1]])
    np.testing.assert_allclose(label_similarity(a, b, known, concept_kernel=RELATED), [[1]], rtol=1e-6)
    # |b|² = 1 + 4 + 2 * .6, and a has 1 + .6 in common with it.
    all_known = label_similarity(a, b, concept_kernel=RELATED)
    np.testing.assert_allclose(all_known, [[1.6 / np.sqrt(6.2)]], rtol=1e-6)


@pytest.mark.parametrize(
    "kernel", [np.eye(5), np.zeros(6), np.ones((6, 6)), np.triu(RELATED)], ids=["5", "1-d", "flat", "upper"]
)
def test_kernel_that_is_not_positive_definite_is_refused(batch, kernel):
    sentence = r"`concept_kernel` must be symmetric positive definite, of shape \(6, 6\)"
    with pytest.raises(ValueError, match=sentence):
        call(batch, concept_kernel=kernel)


def test_targets_that_round_to_zero_leave_the_kl_finite():
    a = np.eye(3, dtype="float32")
    out = semantic_matching(a, a, 1.0, 40 * a, 40 * a, similarity="dot")
    assert float(tf.reduce_min(soft_targets(out.similarity)[0])) == 0
    # The target is the diagonal, the prediction e / (e + 2) there.
    np.testing.assert_allclose(out.kl, np.log(np.e + 2) - 1, rtol=1e-6)


def test_flipping_one_label_changes_the_loss(batch):
    v, t, a, b, known_a, known_b = batch
    flipped = a.copy()
    i, c = np.argwhere(known_a * np.abs(a) > 0)[0]
    flipped[i, c] = 0
    assert abs(float(call((v, t, flipped, b, known_a, known_b)).loss) - float(call(batch).loss)) > 1e-4


def test_prediction_equal_to_the_target_has_kl_0():
    a = np.eye(3)
    out = semantic_matching(np.eye(3), np.eye(3), 1 / 0.5, a, a, target_temperature=0.5)
    np.testing.assert_allclose(out.kl, 0, atol=1e-12)


@pytest.mark.parametrize("kernel", [None, np.eye(3) + 0.5])
def test_labels_of_zeros_give_finite_gradients(kernel):
    with tf.GradientTape() as tape:
        a, b = tf.Variable(np.zeros((2, 3))), tf.Variable(np.zeros((4, 3)))
        v, t = tf.eye(2, 5, dtype="float64"), tf.eye(4, 5, dtype="float64")
        out = semantic_matching(v, t, 2.0, a, b, concept_kernel=kernel)
    assert all(np.isfinite(g).all() for g in tape.gradient(out.loss, [a, b]))
    np.testing.assert_array_equal(out.similarity, np.zeros((2, 4)))
