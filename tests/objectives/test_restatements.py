"""Loss and gradients of every objective against NumPy: both precisions, one device and two replicas."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import restated
import tensorflow as tf
from objective_cases import ON_REPLICAS, make_cases

CASES = make_cases()
SCRIPT = pathlib.Path(__file__).parent / "replica_gradients.py"


@pytest.fixture(scope="module", autouse=True)
def replica_process(tmp_path_factory):
    """The process of two replicas, started first: it traces while the other tests run."""
    output = tmp_path_factory.mktemp("replicas") / "gradients.npz"
    with output.with_suffix(".log").open("w") as log:
        process = subprocess.Popen([sys.executable, SCRIPT, output], stderr=log)
    yield process, output
    process.kill()


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


@pytest.fixture(scope="module")
def on_two_replicas(replica_process):
    """Images and texts are split unevenly between two logical CPU devices."""
    process, output = replica_process
    assert process.wait(timeout=500) == 0, output.with_suffix(".log").read_text()[-3000:]
    return np.load(output)


@pytest.mark.parametrize("name", ON_REPLICAS)
def test_two_replicas_give_the_loss_and_the_gradients_of_the_restatement(name, on_two_replicas):
    wanted_loss, wanted = expected(CASES[name], CASES[name].batch)
    for replica in range(2):
        assert_equal(on_two_replicas[f"{name}/{replica}/loss"], wanted_loss, 1e-6)
    for k in CASES[name].learned:
        shares = [on_two_replicas[f"{name}/{replica}/{k}"] for replica in range(2)]
        if wanted[k].ndim:
            assert [len(share) for share in shares] == [3, len(wanted[k]) - 3]
            assert_equal(np.concatenate(shares), wanted[k], 1e-6)
        else:
            assert_equal(sum(shares), wanted[k], 1e-6)
