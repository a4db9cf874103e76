"""Loss and gradients of every objective against NumPy, in both precisions.

`tests/training/test_replicas.py` has those of two devices.
"""

import numpy as np
import pytest
import restated
import tensorflow as tf
from objective_cases import make_cases

CASES = make_cases()


def expected(case, batch):
    """The restatement's loss and its gradient by everything learned."""
    gradients = {
        name: restated.gradient(lambda x, name=name: case.restatement(**batch | {name: x}), batch[name])
        for name in case.learned
    }
    return float(np.real(case.restatement(**batch))), gradients


def assert_equal(found, wanted, tolerance):
    """Relative, element by element; what is small may differ by a tenth as much of the largest."""
    atol = 0.1 * tolerance * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=atol)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_the_restatement(name, dtype, tolerance):
    case = CASES[name]
    batch = {k: x if x.dtype == int else x.astype(dtype) for k, x in case.batch.items()}
    tensors = {k: tf.constant(x) for k, x in batch.items()}
    with tf.GradientTape() as tape:
        learned = {k: tensors[k] for k in case.learned}
        tape.watch(learned)
        loss = case.ours(**tensors)
    gradients = tape.gradient(loss, learned)
    assert loss.dtype == dtype
    doubles = {k: x if x.dtype == int else x.astype("float64") for k, x in batch.items()}
    wanted_loss, wanted = expected(case, doubles)
    assert_equal(loss.numpy(), wanted_loss, tolerance)
    for k in case.learned:
        assert np.abs(wanted[k]).max() > 1e-3, f"{k}: a gradient of nothing tests nothing"
        assert_equal(gradients[k].numpy(), wanted[k], tolerance)
