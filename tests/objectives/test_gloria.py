"""GLoRIA's losses against a plain loop over images, captions and words; gradients, padding, chunks."""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.objectives.gloria import gloria, local_similarity


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def local_restatement(regions, words, mask):
    """Z_ij, the context of every word formed; only the real words of a caption are looked at."""
    out = np.zeros((len(regions), len(words)))
    for i, r in enumerate(regions):
        for j, caption in enumerate(words):
            w = caption[mask[j] > 0]
            b = softmax(4 * softmax(r @ w.T, axis=1), axis=0)  # (regions, words)
            total = 0.0
            for word, attention in zip(w, b.T, strict=True):
                seen = attention @ r
                total += np.exp(5 * seen @ word / np.linalg.norm(seen) / np.linalg.norm(word))
            out[i, j] = np.log(total)
    return out


def both_directions(logits):
    log_p, log_q = np.log(softmax(logits, 1)), np.log(softmax(logits, 0))
    return -np.diag(log_p).mean() - np.diag(log_q).mean()


@pytest.fixture
def batch():
    """5 pairs, 7 regions, 6 words of which 2 to 6 are real, 3 features; two images are of one patient."""
    rng = np.random.default_rng(11)
    v, t = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    regions, words = rng.normal(size=(5, 7, 3)), rng.normal(size=(5, 6, 3))
    regions[4] = regions[3]
    mask = (np.arange(6)[None] < np.array([6, 2, 3, 5, 4])[:, None]).astype("float64")
    v, t = v / np.linalg.norm(v, axis=1, keepdims=True), t / np.linalg.norm(t, axis=1, keepdims=True)
    return v, t, regions, words, mask


@pytest.mark.parametrize("captions_at_once", [1, 2, 5, 9])
def test_local_similarity_equals_a_plain_loop_for_every_chunk(batch, captions_at_once):
    _, _, regions, words, mask = batch
    found = local_similarity(
        *(tf.constant(x) for x in (regions, words, mask)), captions_at_once=captions_at_once
    )
    np.testing.assert_allclose(found, local_restatement(regions, words, mask), rtol=1e-10)
    few = local_similarity(
        *(tf.constant(x) for x in (regions[:2], words, mask)), captions_at_once=captions_at_once
    )
    np.testing.assert_allclose(few, found[:2], rtol=1e-12)  # not square


def test_losses_equal_a_numpy_restatement(batch):
    v, t, regions, words, mask = batch
    out = gloria(*(tf.constant(x) for x in batch), global_weight=0.5, local_weight=2.0)
    global_loss = both_directions(10 * v @ t.T)
    local_loss = both_directions(10 * local_restatement(regions, words, mask))
    np.testing.assert_allclose(out.global_loss, global_loss, rtol=1e-10)
    np.testing.assert_allclose(out.local_loss, local_loss, rtol=1e-10)
    np.testing.assert_allclose(out.loss, 0.5 * global_loss + 2 * local_loss, rtol=1e-10)
    small = gloria(*(tf.constant(x, tf.float32) for x in batch))
    np.testing.assert_allclose(small.loss, global_loss + local_loss, rtol=1e-4)


def test_gradients_of_regions_and_words_are_those_of_the_plain_loop(batch):
    _, _, regions, words, mask = batch
    r, w = tf.Variable(regions), tf.Variable(words)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(local_similarity(r, w, mask, captions_at_once=2) ** 2)
        return tape.gradient(loss, [r, w])

    for_r, for_w = gradients()
    for of, values, found in (("regions", regions, for_r), ("words", words, for_w)):
        for k in [(0, 0, 0), (1, 1, 2), (3, 4, 1), (4, 5, 0)]:
            moved = [values.copy(), values.copy()]
            moved[0][k] += 1e-5
            moved[1][k] -= 1e-5
            up, down = (
                (local_restatement(*((m, words) if of == "regions" else (regions, m)), mask) ** 2).sum()
                for m in moved
            )
            np.testing.assert_allclose(found.numpy()[k], (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_padding_changes_nothing(batch):
    _, _, regions, words, mask = batch
    wider = np.concatenate([words, 100 * np.ones((5, 3, 3))], axis=1)
    longer = np.concatenate([mask, np.zeros((5, 3))], axis=1)
    before = local_similarity(*(tf.constant(x) for x in (regions, words, mask)))
    after = local_similarity(*(tf.constant(x) for x in (regions, wider, longer)))
    np.testing.assert_allclose(after, before, rtol=1e-10)
