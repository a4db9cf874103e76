"""Mixed matching: its two ends, values by hand, items without partners. Gradients: test_restatements.py."""

import numpy as np
import pytest
import tensorflow as tf
from objective_cases import labelled_batch

from medclip_keras.objectives.info_nce import info_nce
from medclip_keras.objectives.mixed_matching import mixed_matching
from medclip_keras.objectives.semantic_matching import semantic_matching


@pytest.fixture
def batch():
    return labelled_batch(signed=False)


def arguments(batch):
    """Positional ones in float32, and the masks."""
    v, t, a, b, known_a, known_b = (
        tf.constant(batch[k], "float32") for k in ("v", "t", "a", "b", "known_a", "known_b")
    )
    return (v, t, 3.0, a, b), {"image_known": known_a, "text_known": known_b}


def studies(batch):
    return {name: batch[name] for name in ("image_study", "text_study")}


def test_no_weight_on_instances_gives_the_bytes_of_semantic_matching(batch):
    positional, masks = arguments(batch)
    options = {**masks, "target_temperature": 0.4}
    mixed = mixed_matching(*positional, **studies(batch), instance_weight=0, **options)
    for one, other in zip(mixed, semantic_matching(*positional, **options), strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_weight_on_one_text_an_image_gives_info_nce():
    rng = np.random.default_rng(4)
    v, t = (tf.constant(rng.normal(size=(4, 3))) for _ in range(2))
    labels = tf.constant(rng.integers(0, 2, (4, 6)).astype("float64"))
    own = {"image_study": np.arange(4), "text_study": np.arange(4)}
    out = mixed_matching(v, t, 2.0, labels, labels, **own, instance_weight=1)
    np.testing.assert_allclose(out.loss, info_nce(v, t, 2.0).loss, rtol=1e-12)
    np.testing.assert_allclose(out.kl, out.loss, rtol=1e-12)  # such targets have no entropy


def test_items_without_partners_keep_the_targets_of_their_labels(batch):
    positional, masks = arguments(batch)
    nobody = {"image_study": np.arange(5), "text_study": np.arange(10, 14)}
    mixed = mixed_matching(*positional, **nobody, instance_weight=0.7, **masks)
    np.testing.assert_array_equal(mixed.loss, semantic_matching(*positional, **masks).loss)


def test_loss_is_worked_out_by_hand():
    # Two images of one study and its text, a text of nobody; all labels equal: targets are uniform without d.
    v, t = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [0, 1]])
    labels, own = np.ones((2, 3)), {"image_study": np.array([7, 7]), "text_study": np.array([7, 8])}
    out = mixed_matching(v, t, 1.0, labels, labels, **own, instance_weight=0.5)
    near, far = -np.log(np.e / (np.e + 1)), -np.log(1 / (np.e + 1))
    image_to_text = (0.75 * near + 0.25 * far + 0.75 * far + 0.25 * near) / 2
    text_to_image = (near + far) / 2  # half of an image each: both partners share, and nobody's is uniform
    np.testing.assert_allclose(out.loss, (image_to_text + text_to_image) / 2, rtol=1e-6)


def test_own_text_is_pulled_closer_than_texts_with_the_same_findings(batch):
    a = tf.constant(batch["a"], "float32")
    with tf.GradientTape() as tape:
        logits = tf.Variable(tf.zeros((5, 4)))
        # Logits as an embedding product: one-hot images against the rows of the variable.
        out = mixed_matching(
            tf.eye(5), tf.transpose(logits), 1.0, a, tf.ones((4, 6)), **studies(batch), instance_weight=0.5
        )
    pull = -tape.gradient(out.loss, logits).numpy()
    assert pull[0, 0] > max(pull[0, 1:]) + 0.05  # labels alone call all four texts alike


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_instance_weight_outside_0_to_1_is_refused(batch, weight):
    positional, masks = arguments(batch)
    sentence = rf"`instance_weight` must be between 0 and 1\. Received: {weight}\."
    with pytest.raises(ValueError, match=sentence):
        mixed_matching(*positional, **studies(batch), instance_weight=weight, **masks)
