"""GLoRIA's losses against a plain loop; chunks, padding. Their gradients are in test_restatements.py."""

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


@pytest.mark.parametrize("captions_at_once", [1, 2, 5, 9])
def test_local_similarity_equals_a_plain_loop_for_every_chunk(batch, captions_at_once):
    _, _, regions, words, mask = batch
    found = local_similarity(
        *(tf.constant(x) for x in (regions, words, mask)), captions_at_once=captions_at_once
    )
    np.testing.assert_allclose(found, restated.local_similarity(regions, words, mask), rtol=1e-10)
    few = local_similarity(
        *(tf.constant(x) for x in (regions[:2], words, mask)), captions_at_once=captions_at_once
    )
    np.testing.assert_allclose(few, found[:2], rtol=1e-12)  # not square


def test_both_losses_and_their_weights_equal_the_restatement(batch):
    out = gloria(*(tf.constant(x) for x in batch), global_weight=0.5, local_weight=2.0)
    global_loss, local_loss = (np.real(restated.gloria(*batch, *weights)) for weights in ((1, 0), (0, 1)))
    np.testing.assert_allclose(out.global_loss, global_loss, rtol=1e-10)
    np.testing.assert_allclose(out.local_loss, local_loss, rtol=1e-10)
    np.testing.assert_allclose(out.loss, 0.5 * global_loss + 2 * local_loss, rtol=1e-10)


def test_logits_have_images_in_their_rows(batch):
    v, t, regions, words, mask = batch
    out = gloria(*(tf.constant(x) for x in batch))
    np.testing.assert_allclose(out.logits, 10 * v @ t.T, rtol=1e-10)
    local = np.real(restated.local_similarity(regions, words, mask))
    np.testing.assert_allclose(out.local_logits, 10 * local, rtol=1e-10)


def test_texts_that_are_not_one_an_image_are_refused(batch):
    v, t, regions, words, mask = (tf.constant(x) for x in batch)
    with pytest.raises(ValueError, match=r"`text_embeddings` must be one for each image\. Received: 4 for 5"):
        gloria(v, t[:4], regions, words[:4], mask[:4])


def test_padding_changes_nothing(batch):
    _, _, regions, words, mask = batch
    wider = np.concatenate([words, 100 * np.ones((5, 3, 3))], axis=1)
    longer = np.concatenate([mask, np.zeros((5, 3))], axis=1)
    before = local_similarity(*(tf.constant(x) for x in (regions, words, mask)))
    after = local_similarity(*(tf.constant(x) for x in (regions, wider, longer)))
    np.testing.assert_allclose(after, before, rtol=1e-10)
