"""Resume after damage, a full disk and broken off work: to the bit, and with a sentence."""

import json
import os
import re
import resource
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from rich.console import Console

from medclip_keras.config import override
from medclip_keras.errors import NotSavedError
from medclip_keras.training import train as training
from medclip_keras.training.checkpoint_files import CheckpointFolder
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import load_model
from medclip_keras.training.run_log import BOARD, RunLog, drop_later_events, read_lines
from medclip_keras.training.train import train


def make_model(run, seed=0):
    keras.utils.set_random_seed(seed)
    model = MedCLIP(run, 50).build_towers()
    model.compile(optimizer=training.build_optimizer(run, 10), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def model(tiny_run):
    return make_model(tiny_run)


@pytest.fixture
def saved(model, tmp_path):
    """Checkpoints of steps 3 and 6, the best of step 4; every weight equals its step."""
    checkpoints = Checkpoints(tmp_path, model)
    for step in (3, 4, 6):
        for variable in model.trainable_variables:
            variable.assign(tf.fill(variable.shape, float(step)))
        if step == 4:
            assert checkpoints.save_if_best(4, 0.5)
        else:
            checkpoints.save(step)
    return tmp_path


def restored(model, folder):
    """The step that is restored, the value of the weights, the sentences."""
    said: list[str] = []
    step = Checkpoints(folder, model, say=said.append).restore_last()
    return step, float(np.unique(model.trainable_variables[0].numpy())[0]), said


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DATA = "weights.data-00000-of-00001"
DAMAGES = {
    "flipped": (lambda f: flip(f / DATA), "weights.data-00000-of-00001 differs from its checksum"),
    "index flipped": (lambda f: flip(f / "weights.index"), "weights.index differs from its checksum"),
    "cut": (lambda f: (f / DATA).write_bytes((f / DATA).read_bytes()[:100]), f"{DATA} has 100 of"),
    "empty": (lambda f: (f / DATA).write_bytes(b""), f"{DATA} has 0 of"),
    "deleted": (lambda f: (f / DATA).unlink(), f"{DATA} is missing"),
    "manifest deleted": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest garbage": (lambda f: (f / "manifest.json").write_bytes(b"\xff\x00{"), "is not readable"),
    "manifest a list": (lambda f: (f / "manifest.json").write_text("[1]"), "is not readable"),
    "manifest changed": (
        lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text().replace("0.5", "0.4")),
        "manifest.json was changed",
    ),
    "renamed": (lambda f: f.rename(f.with_name("step-9")), "manifest.json was changed"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(name, saved, model):
    damage, fault = DAMAGES[name]
    damage(saved / "last" / "step-6")
    step, value, said = restored(model, saved)
    number = 9 if name == "renamed" else 6
    assert (step, value) == (3, 3.0)
    [sentence] = said
    assert f"The checkpoint last/step-{number} is damaged: " in sentence
    assert fault in sentence
    assert f"last/step-3 is taken instead: {number - 3} steps are lost" in sentence
    # It is out of the way and not deleted, and the next resume is quiet.
    assert (saved / "damaged" / f"last-{number}-0" / f"step-{number}").exists()
    assert restored(model, saved) == (3, 3.0, [])


def test_a_sound_folder_is_restored_without_a_word_with_its_progress(saved, model):
    assert restored(model, saved) == (6, 6.0, [])
    checkpoints = Checkpoints(saved, model)
    checkpoints.restore_last()
    assert (checkpoints.progress.lowest, checkpoints.progress.best_step) == (0.5, 4)
    assert checkpoints.restore_weights("best") == ("best", 4)


def test_a_checkpoint_of_version_0_7_keeps_its_best(saved, model, monkeypatch):
    monkeypatch.setattr(
        "medclip_keras.training.checkpoints.as_state",
        lambda progress: {"best_kl": 0.5, "best_step": 4, "num_stale": 1},
    )
    Checkpoints(saved, model).save(8)
    checkpoints = Checkpoints(saved, model)
    assert checkpoints.restore_last() == 8
    assert (checkpoints.progress.lowest, checkpoints.progress.best_step) == (0.5, 4)
    assert not checkpoints.save_if_best(9, 0.6)


def test_damaged_checkpoints_alone_are_no_start_from_step_0(saved, model):
    for step in (3, 6):
        flip(saved / "last" / f"step-{step}" / DATA)
    with pytest.raises(ValueError, match=r"last` must be a folder with a whole checkpoint"):
        restored(model, saved)


def test_a_checkpoint_of_another_model_or_run_is_not_taken(saved, model, tiny_run, tmp_path_factory):
    for number, assignment in enumerate(("model.image.width=16", "seed=3")):
        other = override(tiny_run, [assignment])
        folder = tmp_path_factory.mktemp("other")
        Checkpoints(folder, make_model(other)).save(8 + number)
        shutil.copytree(folder / "last" / f"step-{8 + number}", saved / "last" / f"step-{8 + number}")
    step, _, said = restored(model, saved)
    assert step == 6
    assert "step-9 is damaged: it is of the run 'phantom_tiny', seed 3" in said[0]
    assert "step-8 is damaged: it holds another model" in said[1]


def test_a_file_that_must_not_be_read_is_no_damage(saved, model, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("medclip_keras.training.checkpoint_files.file_sha256", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        restored(model, saved)
    assert (saved / "last" / "step-6").exists()


def test_lost_best_weights_are_said_and_the_next_validation_is_the_best(saved, model):
    flip(saved / "best" / "step-4" / DATA)
    _, _, said = restored(model, saved)
    assert "The checkpoint best/step-4 is damaged" in said[0]
    assert "The best weights, of step 4, are lost" in said[1]
    flip(saved / "last" / "step-6" / DATA)
    checkpoints = Checkpoints(saved, model, say=said.append)
    assert checkpoints.restore_weights("best") == ("last", 3)


def test_the_last_n_and_the_best_are_kept_and_later_steps_are_deleted(tiny_run, tmp_path):
    model = make_model(override(tiny_run, ["train.keep_checkpoints=3"]))
    checkpoints = Checkpoints(tmp_path, model)
    for step in (1, 2, 3, 4, 9):
        checkpoints.save(step)
    checkpoints.save(5)
    assert [one.step for one in CheckpointFolder(epath.Path(tmp_path / "last")).find()] == [5, 4, 3]
    assert checkpoints.save_if_best(2, 0.9)
    assert checkpoints.save_if_best(5, 0.8)
    assert [one.step for one in CheckpointFolder(epath.Path(tmp_path / "best")).find()] == [5]


def save_as_version_0_4(model, folder, step):
    """Save as version 0.4 did: the last two, by TensorFlow's manager, counters among the variables."""
    numbers = {"step": step, "best_kl": 0.25, "num_stale": 1}
    variables = {name: tf.Variable(value, dtype=tf.float64) for name, value in numbers.items()}
    lists = {"weights": [v.value for v in model.variables]}
    lists["optimizer"] = [v.value for v in model.optimizer.variables]
    saver = tf.train.Checkpoint(**variables, **lists)
    manager = tf.train.CheckpointManager(saver, str(folder / "last"), max_to_keep=2)
    manager.save(checkpoint_number=step)


def test_checkpoints_of_version_0_4_are_resumed_checked_and_replaced(model, tmp_path):
    for step in (3, 6):
        for variable in model.trainable_variables:
            variable.assign(tf.fill(variable.shape, float(step)))
        save_as_version_0_4(model, tmp_path, step)
    (tmp_path / "last" / "checkpoint").write_text("garbage")
    assert restored(model, tmp_path) == (6, 6.0, [])
    checkpoints = Checkpoints(tmp_path, model)
    checkpoints.restore_last()
    assert (checkpoints.progress.lowest, checkpoints.progress.num_stale) == (0.25, 1)
    flip(tmp_path / "last" / "ckpt-6.data-00000-of-00001")
    step, value, said = restored(model, tmp_path)
    assert (step, value) == (3, 3.0)
    assert "The checkpoint last/ckpt-6 is damaged: cannot be read" in said[0]
    for step in (7, 8):
        checkpoints.save(step)
    assert sorted(p.name for p in (tmp_path / "last").iterdir()) == ["step-7", "step-8"]


def test_a_killed_writing_leaves_the_checkpoint_before(saved, model, monkeypatch):
    class KilledError(BaseException):
        pass

    def kill(*_):
        raise KilledError

    checkpoints = Checkpoints(saved, model)
    monkeypatch.setattr("medclip_keras.training.checkpoint_files.sync", kill)
    with pytest.raises(KilledError):
        checkpoints.save(9)
    assert restored(model, saved)[0] == 6
    monkeypatch.undo()
    checkpoints.save(9)
    assert sorted(p.name for p in (saved / "last").iterdir()) == ["step-6", "step-9"]


@pytest.mark.parametrize("largest", [100, 20_000])
def test_a_full_disk_is_a_sentence_and_the_checkpoint_before_is_kept(saved, model, largest):
    checkpoints = Checkpoints(saved, model)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        with pytest.raises(
            NotSavedError, match=r"checkpoint of step 9 was not saved in .*: File too large. "
        ) as e:
            checkpoints.save(9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "The checkpoint of step 6 is kept. Make room" in str(e.value)
    assert sorted(p.name for p in (saved / "last").iterdir()) == ["step-3", "step-6"]
    assert restored(model, saved) == (6, 6.0, [])


def test_a_log_has_no_point_twice_and_no_half_of_one(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (2, 4, 6):
            log.scalars("train", step, {"loss": step / 2, "gradient_norm": float("inf")})
        log.flush()
    with (tmp_path / "training.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    with RunLog(tmp_path, 4) as log:
        log.scalars("train", 6, {"loss": 9.0})
    assert read_lines(tmp_path / "training.jsonl") == [
        {"kind": "train", "step": 2, "loss": 1.0, "gradient_norm": None},
        {"kind": "train", "step": 4, "loss": 2.0, "gradient_norm": None},
        {"kind": "train", "step": 6, "loss": 9.0},
    ]
    assert sorted(losses(tmp_path)) == [(2, 1.0), (4, 2.0), (6, 9.0)]
    for path in (tmp_path / BOARD).iterdir():
        drop_later_events(epath.Path(path), 1)
    assert not list((tmp_path / BOARD).iterdir())


def losses(workdir):
    return [
        (event.step, float(tf.make_ndarray(value.tensor)))
        for path in (workdir / "tensorboard").rglob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "train/loss"
    ]


class Listener(keras.callbacks.Callback):
    """A tracker: remembers what it hears, and sends a signal during a validation."""

    def __init__(self, at=0, in_validation=False):
        super().__init__()
        self.at, self.steps, self.tests, self.in_validation = at, [], [], in_validation

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((batch, sorted(logs)))
        if batch + 1 == self.at and not self.in_validation:
            self.model.stop_training = True
        if batch + 1 == self.at and self.in_validation:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_test_end(self, logs=None):
        self.tests.append(logs)


def weights_of(workdir, which="last"):
    return [v.numpy() for v in load_model(workdir, which).model.variables]


@pytest.fixture(scope="module")
def switched(tiny_run, tmp_path_factory):
    """An unbroken run with averaged weights and zero-shot evaluations."""
    settings = ["train.ema=0.5", "train.evaluate_every=4", "train.steps=6", "train.checkpoint_every=2"]
    settings += ["train.validate_every=3", "train.learning_rate=0.01", "evaluation.task=multi_label"]
    run, workdir = override(tiny_run, settings), tmp_path_factory.mktemp("switched") / "run"
    listener, console = Listener(), Console(record=True, width=200)
    train(run, workdir, console, [listener])
    return run, workdir, listener, console.export_text()


def test_every_check_and_save_is_printed_logged_and_told_to_the_users_callbacks(switched):
    _, workdir, listener, said = switched
    lines = read_lines(workdir / "training.jsonl")
    kinds = [(line["kind"], line["step"]) for line in lines]
    assert kinds == [
        ("train", 2),
        ("valid", 3),
        ("train", 4),
        ("zero_shot", 4),
        ("train", 6),
        ("valid", 6),
        ("zero_shot", 6),
    ]
    for step in (2, 4, 6):
        assert f"step {step}/6  checkpoint saved" in said
    for line in lines:
        if line["kind"] == "valid":
            assert (
                f"step {line['step']}/6  validation loss {line['loss']:.4f}, KL {line['kl']:.4f}; the best"
                in said
            )
    assert f"zero-shot on validation images: auroc {lines[-1]['auroc']:.3f}" in said
    assert [batch for batch, _ in listener.steps] == list(range(6))
    assert listener.steps[0][1] == ["gradient_norm", "kl", "loss", "temperature"]
    told = [
        {k: v for k, v in line.items() if k not in ("kind", "step")}
        for line in lines
        if line["kind"] != "train"
    ]
    assert listener.tests == told


def test_the_best_weights_are_those_of_the_best_zero_shot_figure_if_asked(tiny_run, tmp_path):
    settings = [
        "train.best_by=zero_shot",
        "train.evaluate_every=1",
        "train.validate_every=2",
        "train.steps=6",
    ]
    settings += ["train.learning_rate=0.01", "evaluation.task=multi_label"]
    console = Console(record=True, width=200)
    train(override(tiny_run, settings), tmp_path / "run", console)
    lines, said = read_lines(tmp_path / "run" / "training.jsonl"), console.export_text()
    figures = {line["step"]: line["auroc"] for line in lines if line["kind"] == "zero_shot"}
    best = max(figures, key=lambda step: (figures[step], -step))
    _, step_of_lowest_kl = min((line["kl"], line["step"]) for line in lines if line["kind"] == "valid")
    assert step_of_lowest_kl != best < 6  # else the two ways to choose would not differ here
    best_saved, last_saved = (
        CheckpointFolder(epath.Path(tmp_path / "run" / "checkpoints" / which)).find()
        for which in ("best", "last")
    )
    assert [one.step for one in best_saved] == [best]
    state = last_saved[0].manifest()["state"]
    assert (state["lowest"], state["best_step"]) == (-figures[best], best)
    assert re.search(rf"step {best}/6  zero-shot .*auroc {figures[best]:.3f}.*; the best so far", said)
    assert f"; the best is {figures[best]:.4f} at step {best}" in said
    assert re.search(r"KL [0-9.]+\n", said)  # is told, and chooses nothing


def test_no_time_is_estimated_from_fewer_than_five_steps(switched):
    assert "s left" in switched[3]
    clock = training.Clock(0, 10, 4)
    clock.on_train_batch_begin(0)
    for step in range(1, 6):
        clock.on_train_batch_end(step - 1, {})
        assert clock.seconds_left is None
    clock.on_train_batch_end(5, {})
    assert clock.seconds_left is not None


def test_a_signal_breaks_the_checks_off_and_the_resumed_run_ends_as_the_unbroken_one(switched, tmp_path):
    run, workdir, _, _ = switched
    outcome = train(
        run, tmp_path / "run", callbacks=[Listener(3, in_validation=True)]
    )  # a validation is due at 3
    assert (outcome.step, outcome.finished) == (3, False)
    assert [line["kind"] for line in read_lines(tmp_path / "run" / "training.jsonl")] == ["train"]
    outcome = train(
        run, tmp_path / "run", callbacks=[Listener(3, in_validation=True)]
    )  # at 6, after the last step
    assert (outcome.step, outcome.finished) == (6, False)
    assert train(run, tmp_path / "run").finished
    for which in ("last", "best"):
        for one, other in zip(weights_of(tmp_path / "run", which), weights_of(workdir, which), strict=True):
            np.testing.assert_array_equal(one, other)
    timeless = [
        [
            {k: v for k, v in line.items() if k != "images_per_second"}
            for line in read_lines(d / "training.jsonl")
        ]
        for d in (workdir, tmp_path / "run")
    ]
    assert timeless[0] == timeless[1]


def test_averaged_weights_are_evaluated_and_those_of_the_equation(switched, tmp_path):
    run, workdir, _, _ = switched
    every = override(run, ["train.checkpoint_every=1", "train.keep_checkpoints=6", "train.evaluate_every=0"])
    train(every, tmp_path / "run")
    raw = []
    for step in range(1, 7):
        reader = tf.train.load_checkpoint(
            str(tmp_path / "run" / "checkpoints" / "last" / f"step-{step}" / "weights")
        )
        raw.append(reader.get_tensor("weights/0/.ATTRIBUTES/VARIABLE_VALUE"))
    average = raw[0]  # a <- (a + w) / 2 for a decay of 0.5, from the weights after the first step
    for value in raw[1:]:
        average = 0.5 * average + 0.5 * value
    loaded = load_model(workdir, "last").model.variables[0].numpy()
    np.testing.assert_allclose(loaded, average, rtol=1e-6)
    assert np.abs(loaded - raw[-1]).max() > 1e-6
    reader = tf.train.load_checkpoint(
        CheckpointFolder(epath.Path(workdir) / "checkpoints" / "best").find()[0].prefix
    )
    if CheckpointFolder(epath.Path(workdir) / "checkpoints" / "best").find()[0].step == 6:
        np.testing.assert_array_equal(reader.get_tensor("weights/0/.ATTRIBUTES/VARIABLE_VALUE"), loaded)


def test_patience_stops_early_with_a_checkpoint_and_the_run_is_finished(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Checkpoints, "save_if_best", only_first_is_best)
    run = override(tiny_run, ["train.patience=2", "train.validate_every=1", "train.steps=30"])
    console = Console(record=True, width=200)
    outcome = train(run, tmp_path, console)
    assert (outcome.step, outcome.stopped_early, outcome.finished) == (3, True, True)
    assert "step 3/30  no improvement for 2 validations: training stops" in console.export_text()
    assert train(run, tmp_path) == outcome
    assert train(override(run, ["train.patience=3"]), tmp_path).step == 4


SAVE_IF_BEST = Checkpoints.save_if_best


def only_first_is_best(self, step, kl):
    return SAVE_IF_BEST(self, step, float(step))


def test_a_run_starts_from_the_best_weights_and_the_vocabulary_of_another(switched, tiny_run, tmp_path):
    run, workdir, _, _ = switched
    later = override(run, [f"train.start_from={workdir}", "train.ema=0", "seed=5", "model.text.dropout=0.2"])
    console = Console(record=True, width=300)
    # Killed right after its weights were saved: the earlier workdir is not needed again.
    train(later, tmp_path / "run", console)
    assert f"Both encoders start from {workdir}: its best weights" in console.export_text()
    names = ("wordpieces.txt", "tokenizer.json")
    for name in names:
        assert (tmp_path / "run" / "vocabulary" / name).read_bytes() == (
            workdir / "vocabulary" / name
        ).read_bytes()
    start = CheckpointFolder(epath.Path(tmp_path) / "run" / "checkpoints" / "start").find()[0]
    best = CheckpointFolder(epath.Path(workdir) / "checkpoints" / "best").find()[0]
    readers = [tf.train.load_checkpoint(one.prefix) for one in (start, best)]
    name = "weights/0/.ATTRIBUTES/VARIABLE_VALUE"
    np.testing.assert_array_equal(readers[0].get_tensor(name), readers[1].get_tensor(name))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "last")
    gone = override(later, ["train.steps=6"])
    assert train(gone, tmp_path / "run").finished
    wrong = override(later, ["model.text.pooling=max", "train.start_from=" + str(workdir)])
    with pytest.raises(
        ValueError,
        match=r"`train.start_from` must be a workdir of the same towers; it differs in "
        r"model.text.pooling \(masked_mean there, max here\)",
    ):
        train(wrong, tmp_path / "wrong")
    nowhere = override(later, ["train.start_from=/nowhere"])
    with pytest.raises(ValueError, match=r"`train.start_from` must be the workdir of a trained dual encoder"):
        train(nowhere, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_run_json_is_written_whole(switched, monkeypatch, tmp_path):
    run, workdir, _, _ = switched
    shutil.copytree(workdir, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_text()
    monkeypatch.setattr("medclip_keras.files.sync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        train(override(run, ["train.steps=8"]), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_text() == before
    assert json.loads(before)["config"]["train"]["steps"] == 6
