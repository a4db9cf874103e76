"""GLoRIA's losses against a plain loop, and padding. Their gradients are in test_restatements.py."""

import numpy as np
import pytest
import restated
import tensorflow as tf
from objective_cases import paired_batch

from medclip_keras.objectives.gloria import gloria, local_similarity


@pytest.fixture
def batch():
    """5 pairs, 7 regions, 6 words of which 2 to 6 are real, 3 features; an image twice, a report twice."""
    return [paired_batch()[name] for name in ("v", "t", "regions", "words", "mask")]


@pytest.mark.parametrize(("num_images", "num_captions"), [(5, 5), (2, 5), (5, 3), (1, 1)])
def test_local_similarity_equals_a_plain_loop_with_images_in_its_rows(batch, num_images, num_captions):
    regions, words, mask = batch[2][:num_images], batch[3][:num_captions], batch[4][:num_captions]
    found = local_similarity(*(tf.constant(x) for x in (regions, words, mask)))
    np.testing.assert_allclose(found, restated.local_similarity(regions, words, mask), rtol=1e-10)


def test_logits_have_images_in_their_rows(batch):
    out = gloria(*(tf.constant(x) for x in batch))
    np.testing.assert_allclose(out.logits, 10 * batch[0] @ batch[1].T, rtol=1e-10)
    np.testing.assert_array_equal(out.similarity, np.eye(5))
    np.testing.assert_array_equal(out.kl, out.loss)


def test_padding_of_the_words_changes_nothing(batch):
    _, _, regions, words, mask = batch
    wider = np.concatenate([words, 100 * np.ones((5, 3, 3))], axis=1)
    longer = np.concatenate([mask, np.zeros((5, 3))], axis=1)
    before = local_similarity(*(tf.constant(x) for x in (regions, words, mask)))
    after = local_similarity(*(tf.constant(x) for x in (regions, wider, longer)))
    np.testing.assert_allclose(after, before, rtol=1e-10)
