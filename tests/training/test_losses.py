"""Every objective of the catalogue in training: its function on the right inputs, and steps that lower it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from medclip_keras.config import override
from medclip_keras.objectives.catalogue import OBJECTIVES
from medclip_keras.objectives.convirt import convirt
from medclip_keras.objectives.gloria import gloria
from medclip_keras.objectives.info_nce import info_nce
from medclip_keras.objectives.mixed_matching import mixed_matching
from medclip_keras.objectives.semantic_matching import semantic_matching
from medclip_keras.objectives.sigmoid_matching import sigmoid_matching
from medclip_keras.training import callbacks
from medclip_keras.training.model import MedCLIP, build_optimizer
from medclip_keras.training.restore import load_model
from medclip_keras.training.train import train

VOCABULARY = 30


def with_objective(run, name, *more):
    return override(run, [f"objective.name={name}", *more])


def make_batch(run, seed=0) -> dict:
    """Five images and five texts; texts 0, 1 and 3 are of the studies of images 0, 1 and 4."""
    rng = np.random.default_rng(seed)
    lengths = np.array([6, 4, 8, 5, 3])[:, None]
    mask = np.arange(9) < lengths
    words = np.where((np.arange(9) > 0) & (np.arange(9) < lengths - 1), np.arange(9) // 2, -1)
    labels = {side: rng.integers(0, 2, (5, 21)).astype("float32") for side in ("image", "text")}
    side = run.model.image.image_size
    batch = {
        "images": rng.normal(size=(5, side, side, 1)).astype("float32"),
        "token_ids": (rng.integers(4, VOCABULARY, (5, 9)) * mask).astype("int32"),
        "padding_mask": mask.astype("int32"),
        "word_ids": np.where(words > 0, words - 1, words).astype("int32"),
        "image_study": np.array([10, 11, 12, 13, 14]),
        "text_study": np.array([10, 11, 77, 14, 78]),
    }
    for side in labels:
        known = (rng.random((5, 21)) < 0.7).astype("float32")
        batch |= {f"{side}_labels": labels[side], f"{side}_known": known}
    return {name: tf.constant(value) for name, value in batch.items()}


def make_model(run) -> MedCLIP:
    keras.utils.set_random_seed(4)
    return MedCLIP(run, VOCABULARY).build_towers()


def expected_of(name, said, batch, config):
    """The objective called by hand."""
    v, t = said["image_embeddings"], said["text_embeddings"]
    labels = batch["image_labels"], batch["text_labels"]
    known = {side: batch[side] for side in ("image_known", "text_known")}
    scale = 1 / config.model.initial_temperature
    options = known | {"target_temperature": config.objective.target_temperature}
    studies = {"image_study": np.array([0, 1, 2, 3, 4]), "text_study": np.array([0, 1, 5, 4, 6])}
    return {
        "semantic_matching": lambda: semantic_matching(v, t, scale, *labels, **options),
        "sigmoid_matching": lambda: sigmoid_matching(v, t, 10.0, *labels, **known, logit_bias=-10.0),
        "mixed_matching": lambda: mixed_matching(v, t, scale, *labels, **studies, **options),
        "info_nce": lambda: info_nce(v, t, scale),
        "convirt": lambda: convirt(v, t),
        "gloria": lambda: gloria(v, t, said["regions"], said["words"], said["word_mask"]),
    }[name]().loss


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_objective_equals_its_function_on_the_encoders_outputs(name, tiny_run):
    run = with_objective(tiny_run, name)
    model, batch = make_model(run), make_batch(run)
    got = model.objective(batch, training=False)
    expected = expected_of(name, model(batch, training=False), batch, run)
    np.testing.assert_allclose(got.loss, expected, rtol=1e-5)
    assert float(got.kl) <= float(got.loss) + 1e-6
    assert got.logits.shape == got.similarity.shape == (5, 5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_lower_every_objective(name, tiny_run):
    run = with_objective(tiny_run, name, "train.warmup_fraction=0", "train.learning_rate=3e-3",
                         "model.text.dropout=0")  # fmt: skip
    model, batch = make_model(run), make_batch(run)
    model.compile(optimizer=build_optimizer(run, 40), jit_compile=False)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    step = tf.function(model.train_step)
    losses = [float(step(batch)["kl"]) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0], losses
    still = [v.path for v in model.trainable_variables if np.array_equal(v.numpy(), before[v.path])]
    # Nothing is left out of the gradient, but for the keys' biases, which cannot matter to a softmax.
    assert [p for p in still if "key/bias" not in p] == [], still


def test_objective_determines_logit_scale_bias_local_features_and_pairing(tiny_run):
    for name in OBJECTIVES:
        model = make_model(with_objective(tiny_run, name))
        learned = any(v is model.log_logit_scale for v in model.trainable_variables)
        assert learned == (name not in ("convirt", "gloria")), name
        start = {"convirt": 10, "gloria": 10, "sigmoid_matching": 10}.get(name, 1 / 0.07)
        np.testing.assert_allclose(model.logit_scale(), start, rtol=1e-5, err_msg=name)
        assert (model.logit_bias is not None) == (name == "sigmoid_matching")
        assert model.local_features == (name == "gloria")
        assert (OBJECTIVES[name].pairing == "pairs") == (name in ("info_nce", "convirt", "gloria"))


def stop_after(step):
    """A callback in place of `StopOnSignal`, as if a signal came in that step."""

    class Stop(callbacks.StopOnSignal):
        def on_step(self, number, logs):
            self._requested = number == step
            super().on_step(number, logs)

    return Stop


@pytest.mark.slow
def test_resumed_run_of_pairs_ends_with_the_weights_of_the_unbroken_run(tiny_run, tmp_path, monkeypatch):
    """Stopped after three of five steps."""
    run = with_objective(tiny_run, "gloria", "train.steps=5", "data.paired_share=0.9")
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, texts=()))
    train(run, tmp_path / "whole", Console(quiet=True))
    with monkeypatch.context() as patched:
        patched.setattr("medclip_keras.training.train.StopOnSignal", stop_after(3))
        assert train(run, tmp_path / "broken", Console(quiet=True)).step == 3
    assert train(run, tmp_path / "broken", Console(quiet=True)).finished
    whole, broken = (load_model(tmp_path / w, "last").model for w in ("whole", "broken"))
    for one, other in zip(whole.variables, broken.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


@pytest.mark.slow
def test_a_plateau_halves_the_rate_and_a_resumed_run_remembers(tiny_run, tmp_path, monkeypatch):
    """Validations at 2, 4, 6, 8 that never get better than the first: halved after two stale ones."""
    settings = ["train.schedule=plateau", "train.plateau_patience=2", "train.learning_rate=0.004",
                "train.validate_every=2", "train.checkpoint_every=2", "train.steps=8"]  # fmt: skip
    run = override(tiny_run, settings)
    rates = []

    class Spy(callbacks.ScalarLog):
        def on_step(self, step, logs):
            rates.append(float(self.model.optimizer.learning_rate))

    class Flat(MedCLIP):
        def objective(self, batch, training):
            found = super().objective(batch, training)
            return found if training else found._replace(kl=tf.constant(1.0))

    monkeypatch.setattr("medclip_keras.training.train.ScalarLog", Spy)
    monkeypatch.setattr("medclip_keras.training.train.MedCLIP", Flat)
    with monkeypatch.context() as patched:
        patched.setattr("medclip_keras.training.train.StopOnSignal", stop_after(4))
        assert train(run, tmp_path, Console(quiet=True)).step == 4
    train(run, tmp_path, Console(quiet=True))
    np.testing.assert_allclose(rates, [0.004] * 6 + [0.002] * 2, rtol=1e-6)
