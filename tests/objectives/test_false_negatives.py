"""Studies that share a finding: InfoNCE always drives them apart, matching by labels does not.

tests/benchmarks/false_negatives.py measures what comes of it.
"""

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.objectives.info_nce import info_nce
from medclip_keras.objectives.mixed_matching import mixed_matching
from medclip_keras.objectives.semantic_matching import semantic_matching
from medclip_keras.objectives.sigmoid_matching import sigmoid_matching

FINDINGS = np.array([0, 0, 0, 1, 1, 2])  # six studies; three share a finding, two another
LABELS = np.eye(3, 4)[FINDINGS]
SAME = FINDINGS[:, None] == FINDINGS[None]
OWN_STUDY = {"image_study": np.arange(6), "text_study": np.arange(6)}
FALSE_NEGATIVES = SAME & ~np.eye(6, dtype=bool)


def slopes(objective, logits):
    """dL/dlogits, where the logits are whatever is asked for: products of these with unit vectors."""
    with tf.GradientTape() as tape:
        x = tf.constant(logits)
        tape.watch(x)
        loss = objective(x, tf.eye(6, dtype="float64")).loss
    return tape.gradient(loss, x).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_info_nce_pushes_studies_with_the_same_finding_apart(seed):
    logits = np.random.default_rng(seed).normal(size=(6, 6)) * 3
    found = slopes(lambda v, t: info_nce(v, t, 1.0), logits)
    assert (found[FALSE_NEGATIVES] > 0).all()


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        (semantic_matching, {}),
        (sigmoid_matching, {"logit_bias": 0.0}),
        (mixed_matching, OWN_STUDY | {"instance_weight": 0.1, "target_temperature": 0.1}),
    ],
)
def test_matching_by_labels_pulls_studies_with_the_same_finding_together(objective, options):
    found = slopes(lambda v, t: objective(v, t, 1.0, LABELS, LABELS, **options), np.zeros((6, 6)))
    assert (found[FALSE_NEGATIVES] < 0).all()
    assert (found[~SAME] > 0).all()
    assert (slopes(lambda v, t: info_nce(v, t, 1.0), np.zeros((6, 6)))[FALSE_NEGATIVES] > 0).all()


def test_at_predictions_equal_to_the_labels_only_info_nce_has_a_gradient():
    # Logits of s / T are the optimum; there a study with k of its kind has 1/k of the mass for itself.
    temperature = 0.05
    logits = SAME / temperature
    options = {"target_temperature": temperature}
    rests = slopes(lambda v, t: semantic_matching(v, t, 1.0, LABELS, LABELS, **options), logits)
    np.testing.assert_allclose(rests, 0, atol=1e-12)
    pushes = slopes(lambda v, t: info_nce(v, t, 1.0), logits)
    # Row 0: 1/3 on each of the three; both directions alike, a sixth of the batch each.
    np.testing.assert_allclose(pushes[0, :3] * 6, [1 / 3 - 1, 1 / 3, 1 / 3], rtol=1e-6)
    assert pushes[FALSE_NEGATIVES].sum() / pushes[pushes > 0].sum() > 0.999
