"""Two worker processes, started as a user starts them, do what one process does."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from etils import epath
from rich.console import Console

from medclip_keras.config import TrainConfig, override, to_dict
from medclip_keras.training import replicas
from medclip_keras.training.replicas import make_strategy
from medclip_keras.training.train import train

from .test_train import scalars_of


def free_addresses(number: int) -> list[str]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("localhost", 0))
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def start_workers(config, folder, workdir) -> list[subprocess.Popen]:
    """Starts `medclip_keras.fit` once a worker; the chief is the first."""
    file = folder / "workers.json"
    file.write_text(json.dumps(to_dict(override(config, ["train.strategy=multi_worker"]))))
    cluster = {"worker": free_addresses(2)}
    command = [sys.executable, "-m", "medclip_keras.fit", "--run", str(file), "--workdir", str(workdir)]
    processes = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = os.environ | {"TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": ""}
        environment["PYTHONUNBUFFERED"] = "1"
        processes.append(subprocess.Popen(command, env=environment, **options))
    return processes


def fit_with_workers(config, folder, workdir) -> list[str]:
    """Runs `medclip_keras.fit` once a worker; what each said."""
    processes = start_workers(config, folder, workdir)
    said = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][-3000:] + said[1][-3000:]
    return said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "signalled"), [(signal.SIGTERM, 1), (signal.SIGKILL, 0), (signal.SIGKILL, 1)]
)
def test_a_signal_to_one_worker_ends_both(number, signalled, tiny_run, tmp_path):
    """After SIGTERM both stop after one step with a checkpoint; a killed worker is said to be gone.

    SIGTERM takes the same way through all workers, whichever gets it.
    """
    changes = ["train.steps=100000", "train.checkpoint_every=2", "train.validate_every=100000"]
    processes = start_workers(override(tiny_run, changes), tmp_path, tmp_path / "run")
    for line in processes[0].stdout:
        if "checkpoint saved" in line:
            break
    processes[signalled].send_signal(number)
    said = [process.communicate(timeout=400)[0] for process in processes]
    statuses = [process.returncode for process in processes]
    assert "Traceback" not in said[0] + said[1], said
    if number == signal.SIGTERM:
        assert (statuses[signalled], statuses[1 - signalled]) == (143, 130), said[0][-3000:] + said[1][-3000:]
        sentences = [
            next(line for line in text.splitlines() if "stopped after step" in line) for text in said
        ]
        assert sentences[0] == sentences[1]
        assert sentences[0].endswith("the checkpoint is saved. The same command resumes the work.")
    else:
        assert (statuses[signalled], statuses[1 - signalled]) == (-9, 1), said
        assert "Another worker ended or cannot be reached." in said[1 - signalled]
    assert list((tmp_path / "run" / "checkpoints" / "last").iterdir())


@pytest.mark.slow
def test_two_workers_resume_and_end_a_run_as_one_process_does(tiny_run, tmp_path):
    changes = ["model.text.dropout=0", "train.learning_rate=1e-3", "evaluation.bootstrap=2"]
    changes += ["evaluation.task=multi_label", 'evaluation.tasks=["zero_shot"]', "train.chunk_size=2"]
    config = override(tiny_run, changes)
    train(override(config, ["train.steps=3"]), tmp_path / "alone", Console(quiet=True))
    shutil.copytree(tmp_path / "alone", tmp_path / "together")
    train(config, tmp_path / "alone", Console(quiet=True))

    chief, follower = fit_with_workers(config, tmp_path, tmp_path / "together")
    assert "on 2 device(s)" in chief
    assert "Resuming after step 3" in chief
    assert "step 7/7" in chief
    assert "step" not in follower  # it is silent, but for TensorFlow
    alone, together = scalars_of(tmp_path / "alone"), scalars_of(tmp_path / "together")
    assert sorted(together["valid/kl"]) == [3, 4, 7]
    for name in ("valid/kl", "train/loss", "train/gradient_norm"):
        assert together[name] == pytest.approx(alone[name], rel=1e-4), name
    assert (tmp_path / "together" / "evaluation" / "metrics.json").exists()


def test_a_follower_copies_all_that_a_resume_reads(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"task": {"type": "worker", "index": 1}}))
    monkeypatch.setattr(replicas, "_wait_for_workers", lambda: None)
    names = {"run.json", "vocabulary/wordpieces.txt", "architecture/text.json", "checkpoints/last/step-3/a"}
    for name in (*names, "tensorboard/events"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with replicas.own_workdir(TrainConfig(strategy="multi_worker"), epath.Path(tmp_path)) as copy:
        found = [path for path in pathlib.Path(copy).rglob("*") if path.is_file()]
        assert (
            {str(path.relative_to(copy)) for path in found} == {path.read_text() for path in found} == names
        )


def test_workers_without_addresses_are_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="`TF_CONFIG` must be the addresses of two or more workers"):
        make_strategy(TrainConfig(strategy="multi_worker"))
