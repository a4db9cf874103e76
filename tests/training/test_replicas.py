"""Two and four logical CPU devices must do what one does, for every objective, in chunks too."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from medclip_keras.objectives.catalogue import OBJECTIVES

SCRIPT = pathlib.Path(__file__).parent / "replica_gradients.py"
LAST = "tiny_resnet/semantic_matching"  # synchronises batch statistics; trained for two steps

COMPILED, COMPILED_CASE = "2 in chunks, by XLA", "tiny_convolution/gloria"


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, np.lib.npyio.NpzFile]:
    """What processes computed: two strategies in one process collide."""
    folder = tmp_path_factory.mktemp("replicas")
    cases = {
        "1": (1, 0), "2": (2, 0), "4": (4, 0), "2 in chunks": (2, 2), COMPILED: (2, 2),
    }  # fmt: skip
    processes = {}
    for name, (number, chunk_size) in cases.items():
        of = [f"tiny_convolution/{objective}/{chunk_size}" for objective in OBJECTIVES] + [f"{LAST}/0"]
        of = of if name != COMPILED else [f"{COMPILED_CASE}/2/xla"]
        command = [sys.executable, SCRIPT, str(number), folder / f"{name}.npz", *of]
        processes[name] = subprocess.Popen(command)
    assert {name: p.wait(timeout=500) for name, p in processes.items()} == dict.fromkeys(cases, 0)
    return {name: np.load(folder / f"{name}.npz") for name in cases}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["2", "4", "2 in chunks"])
def test_replicas_give_the_gradients_and_weights_of_one_device(which, found):
    one, several = found["1"], found[which]
    assert set(one.files) == set(several.files)
    wrong = {
        name: float(np.abs(one[name] - several[name]).max())
        for name in one.files
        if np.abs(one[name] - several[name]).max() > 1e-5 * max(1.0, np.abs(one[name]).max())
    }
    assert wrong == {}


@pytest.mark.slow
def test_replicas_with_towers_compiled_by_xla_give_the_gradients_of_one_device(found):
    names = [name for name in found["1"].files if name.startswith(f"{COMPILED_CASE}/")]
    assert set(names) <= set(found[COMPILED].files)
    for name in names:
        one, compiled = found["1"][name], found[COMPILED][name]
        np.testing.assert_allclose(compiled, one, atol=1e-5 * max(1.0, np.abs(one).max()), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradients_compared_are_not_zero(objective, found):
    sizes = {n: np.abs(found["1"][n]).max() for n in found["1"].files if f"/{objective}/" in n}
    assert len(sizes) > 20
    towers = [n for n in sizes if n.endswith("projection/kernel")]
    assert len(towers) >= 2
    assert min(sizes[n] for n in towers) > 1e-3
