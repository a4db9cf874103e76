"""`fit` to its end on two devices, resumed on another number of devices, in full and in mixed precision."""

import json
import pathlib
import subprocess
import sys

import keras
import pytest

from medclip_keras.config import override, to_dict
from medclip_keras.release import export_workdir
from medclip_keras.training.train import train

from .test_train import scalars_of

SCRIPT = pathlib.Path(__file__).parent / "fit_on_devices.py"


@pytest.fixture(autouse=True)
def policy():
    """The export sets the precision of its run for the whole process."""
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """The tiny run and its validation KL on one device; no dropout, its masks differ between replicas."""
    changes = ["model.text.dropout=0", "evaluation.bootstrap=20", "evaluation.task=multi_label"]
    changes.append('evaluation.tasks=["zero_shot"]')
    config = override(tiny_run, changes)
    workdir = tmp_path_factory.mktemp("one_device")
    train(config, workdir)
    return config, scalars_of(workdir)["valid/kl"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "devices", "tolerance"), [("float32", (1, 2), 1e-3), ("mixed_float16", (2, 1), 3e-2)]
)
def test_fit_resumes_on_another_number_of_devices_and_ends(run, precision, devices, tolerance, tmp_path):
    config, expected = run
    file, workdir = tmp_path / "run.json", tmp_path / "run"
    for number, stop_after, status in ((devices[0], 5, 130), (devices[1], 0, 0)):
        strategy = "mirrored" if number > 1 else "one_device"
        changes = [f"train.precision={precision}", f"train.strategy={strategy}"]
        file.write_text(json.dumps(to_dict(override(config, changes))))
        command = [sys.executable, SCRIPT, str(number), str(stop_after), "--run", file, "--workdir", workdir]
        process = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert process.returncode == status, process.stdout[-2000:] + process.stderr[-3000:]
    assert f"on {devices[1]} device(s)" in process.stdout
    found = scalars_of(workdir)["valid/kl"]
    assert sorted(found) == [4, 7]
    assert found == pytest.approx(expected, rel=tolerance)
    assert (workdir / "evaluation" / "metrics.json").exists()
    if precision == "mixed_float16":  # other tests export weights of float32
        assert export_workdir(workdir, tmp_path / "models").name == "1"
