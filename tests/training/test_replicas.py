"""Two logical CPU devices must do what one does: same gradients, same weights, same batch statistics."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parent / "two_replicas.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "objective"),
    [
        ("tiny_resnet", "semantic_matching"),  # synchronises batch statistics
        ("small_resnet", "gloria"),  # gathers regions and words
        ("small_resnet", "mixed_matching"),  # gathers studies
    ],
)
def test_two_replicas_give_the_gradients_and_weights_of_one(backbone, objective, tmp_path):
    # A process each: two strategies in one process collide.
    processes = [
        subprocess.Popen([sys.executable, SCRIPT, str(n), backbone, objective, tmp_path / f"{n}.npz"])
        for n in (1, 2)
    ]
    assert [p.wait(timeout=500) for p in processes] == [0, 0]
    one, two = (np.load(tmp_path / f"{n}.npz") for n in (1, 2))
    assert sum(name.startswith("gradient/") for name in one.files) > 30
    assert set(one.files) == set(two.files)
    for name in one.files:
        largest = np.abs(one[name]).max()
        assert np.abs(one[name] - two[name]).max() <= 1e-5 * max(1.0, largest), name
    # The loss moved, so the comparison above is not one of weights that never changed.
    assert float(one["gradient/text_encoder/projection/kernel"].std()) > 0
