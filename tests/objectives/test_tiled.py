"""Losses in tiles beside the plain ones: value, divergence and every gradient, whatever the tile."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from objective_cases import RELATED, labelled_batch, paired_batch

from medclip_keras.objectives.convirt import convirt
from medclip_keras.objectives.info_nce import info_nce
from medclip_keras.objectives.mixed_matching import mixed_matching
from medclip_keras.objectives.semantic_matching import semantic_matching
from medclip_keras.objectives.sigmoid_matching import sigmoid_matching

NAMES = {
    "v": "image_embeddings", "t": "text_embeddings", "scale": "logit_scale", "bias": "logit_bias",
    "a": "image_labels", "b": "text_labels", "known_a": "image_known", "known_b": "text_known",
}  # fmt: skip
CASES = {
    "semantic_matching": (semantic_matching, labelled_batch(False), {}),
    "semantic_matching, sharp": (semantic_matching, labelled_batch(True), {"target_temperature": 0.05}),
    "semantic_matching, related": (semantic_matching, labelled_batch(False), {"concept_kernel": RELATED}),
    "semantic_matching, dot": (semantic_matching, labelled_batch(True), {"similarity": "dot"}),
    "mixed_matching": (mixed_matching, labelled_batch(False), {"instance_weight": 0.3}),
    "mixed_matching, instances": (mixed_matching, labelled_batch(False), {"instance_weight": 1.0}),
    "sigmoid_matching": (sigmoid_matching, labelled_batch(True), {}),
    "info_nce": (info_nce, paired_batch(), {}),
    "convirt": (convirt, paired_batch(), {}),
}


def outcome(name: str, tile_size: int, dtype: str = "float64", in_graph: bool = False):
    """Loss, divergence and gradients, by name."""
    objective, batch, options = CASES[name]
    given = {NAMES.get(k, k): x for k, x in batch.items()}
    given = {k: x for k, x in given.items() if k in inspect.signature(objective).parameters}
    learned = [k for k in ("image_embeddings", "text_embeddings", "logit_scale", "logit_bias") if k in given]
    given = {k: tf.constant(x, None if x.dtype.kind == "i" else dtype) for k, x in given.items()}

    def compute(given):
        with tf.GradientTape() as tape:
            tape.watch([given[k] for k in learned])
            found = objective(**given, **options, tile_size=tile_size)
            three = 3 * found.loss  # the gradient follows what is done with the loss
        return found.loss, found.kl, *tape.gradient(three, [given[k] for k in learned])

    if in_graph:  # of unknown sizes, as under a strategy
        signature = {
            k: tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype) for k, x in given.items()
        }
        compute = tf.function(compute, input_signature=[signature])
    return dict(zip(["loss", "kl", *learned], [x.numpy() for x in compute(given)], strict=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("tile_size", [1, 2, 3, 5, 9])  # of 5 images
def test_tiled_loss_equals_the_plain_one(name, tile_size):
    expected, got = outcome(name, 0), outcome(name, tile_size)
    for key in expected:
        np.testing.assert_allclose(got[key], expected[key], rtol=1e-12, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_tiled_loss_in_a_graph_of_unknown_sizes_and_float32(name):
    expected, got = outcome(name, 0), outcome(name, 2, "float32", in_graph=True)
    for key in expected:
        largest = max(1, np.abs(expected[key]).max())
        np.testing.assert_allclose(got[key], expected[key], atol=1e-6 * largest, rtol=1e-6, err_msg=key)


def test_the_matrices_shown_are_those_of_the_first_tile():
    batch = labelled_batch(False)
    arguments = [tf.constant(batch[k]) for k in ("v", "t", "scale", "a", "b")]
    plain, tiled = (semantic_matching(*arguments, tile_size=size) for size in (0, 2))
    np.testing.assert_allclose(tiled.logits, plain.logits[:2])
    np.testing.assert_allclose(tiled.similarity, plain.similarity[:2])
