"""InfoNCE: logits, the refusal of unpaired batches. Further values: test_restatements.py."""

import numpy as np
import pytest
import tensorflow as tf
from objective_cases import paired_batch

from medclip_keras.objectives.gloria import gloria
from medclip_keras.objectives.info_nce import info_nce


@pytest.fixture
def pairs():
    """5 pairs of 3 features; the last two are of one patient: equal images, other texts."""
    batch = paired_batch()
    return batch["v"], batch["t"]


def test_rows_of_the_logits_are_images_and_directions_are_not_mixed_up(pairs):
    v, t = (tf.constant(x) for x in pairs)
    out, swapped = info_nce(v, t, 2.0, image_weight=0.9), info_nce(t, v, 2.0, image_weight=0.1)
    np.testing.assert_allclose(out.logits, 2 * pairs[0] @ pairs[1].T, rtol=1e-12)
    np.testing.assert_allclose(out.loss, swapped.loss, rtol=1e-12)
    assert abs(float(out.loss) - float(info_nce(v, t, 2.0, image_weight=0.1).loss)) > 1e-3


def test_texts_that_are_not_one_an_image_are_refused(pairs):
    v, t = tf.constant(pairs[0]), tf.constant(pairs[1][:4])
    regions, words, mask = (tf.constant(paired_batch()[name]) for name in ("regions", "words", "mask"))
    for objective in (lambda: info_nce(v, t, 1.0), lambda: gloria(v, t, regions, words[:4], mask[:4])):
        with pytest.raises(ValueError, match=r"`text_embeddings` must be one for each image\. Received: 4 f"):
            objective()
