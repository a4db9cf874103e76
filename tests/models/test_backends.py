"""The models and the objectives under Keras's other backends, a process each."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from . import on_backend

# PyTorch's wheel is ten times the size of all others together: tested only where it is installed already.
BACKENDS = ["jax", *(["torch"] if importlib.util.find_spec("torch") else [])]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_backends_give_the_embeddings_losses_and_gradients_of_tensorflow(backend, tmp_path):
    given, ours, theirs = (tmp_path / f"{name}.npz" for name in ("weights", "tensorflow", backend))
    on_backend.main(given, ours)  # writes the weights
    environment = os.environ | {"KERAS_BACKEND": backend}
    subprocess.run([sys.executable, on_backend.__file__, given, theirs], check=True, env=environment)
    expected, found = np.load(ours), np.load(theirs)
    assert set(found.files) == set(expected.files)
    assert len([n for n in found.files if n.endswith("gradient")]) == 11  # in tiles too, but for gloria
    for name in expected.files:
        tolerance = 1e-4 * max(1.0, float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(found[name], expected[name], atol=tolerance, err_msg=name)
