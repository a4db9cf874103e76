"""A batch in chunks: the loss and gradients of the whole, with random draws replayed, and a whole run."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from medclip_keras.config import override
from medclip_keras.models.image_encoder import BACKBONES
from medclip_keras.objectives.catalogue import OBJECTIVES
from medclip_keras.records.labelled_images import labelled_images
from medclip_keras.supervised import classes_of, encoder_maker
from medclip_keras.training.accumulation import AccumulatedStep
from medclip_keras.training.classifier import Classifier
from medclip_keras.training.model import MedCLIP, loss_scale
from medclip_keras.training.train import train

from .replica_gradients import tiny_convolution, tiny_resnet
from .test_losses import VOCABULARY, make_batch
from .test_train import scalars_of

BACKBONES |= {"tiny_resnet": tiny_resnet, "tiny_convolution": tiny_convolution}


def make_model(run, *changes) -> MedCLIP:
    keras.utils.set_random_seed(4)
    model = MedCLIP(
        override(run, ["model.image.backbone=tiny_convolution", *changes]), VOCABULARY
    ).build_towers()
    model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    return model


def differences(model, batch, chunk_size, direct) -> dict[str, float]:
    """Loss and gradients in chunks less `direct`, of the largest in the direct gradient."""
    (loss, _), gradients = AccumulatedStep(model, chunk_size).gradients(batch)
    found = [loss, *(g / loss_scale(model.optimizer) for g in gradients)]
    names = ["loss", *(v.path for v in model.trainable_variables)]
    largest = max(float(np.abs(x).max()) for x in direct[1:])
    return {n: float(np.abs(a - b).max()) / largest for n, a, b in zip(names, found, direct, strict=True)}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_chunks_give_the_gradients_of_the_whole_batch(objective, tiny_run):
    model, batch = (
        make_model(tiny_run, f"objective.name={objective}", "model.text.dropout=0"),
        make_batch(tiny_run),
    )
    outcome, gradients = model.global_gradients(batch)
    found = differences(model, batch, 2, [outcome.loss, *gradients])  # of 2, 2 and 1 pairs
    assert max(found.values()) < 1e-5, found
    alone, _ = model.global_gradients({k: x[:2] for k, x in batch.items()})
    assert abs(float(alone.loss - outcome.loss)) > 1e-3  # a chunk's loss is another


def test_random_draws_are_the_same_in_both_passes(tiny_run):
    """Beside one pass over the chunks with the same seeds, from which the gradient is taken."""
    model, batch = make_model(tiny_run, "model.text.dropout=0.4"), make_batch(tiny_run)
    seeds = [v for v in model.non_trainable_variables if "seed" in v.path]
    before = [v.numpy() for v in seeds]
    with tf.GradientTape() as tape:
        chunks = [model({k: x[i : i + 2] for k, x in batch.items()}, training=True) for i in (0, 2, 4)]
        outcome = model.loss_of(batch, {k: tf.concat([c[k] for c in chunks], 0) for k in chunks[0]})
    expected = [outcome.loss, *tape.gradient(outcome.loss, [v.value for v in model.trainable_variables])]
    expected = [tf.convert_to_tensor(x) for x in expected]
    after = [v.numpy() for v in seeds]
    for variable, value in zip(seeds, before, strict=True):
        variable.assign(value)
    assert max(differences(model, batch, 2, expected).values()) < 1e-5
    for variable, value, first in zip(seeds, after, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
        assert np.any(value != first)


def test_loss_scaling_reaches_the_gradients_of_chunks(tiny_run):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = make_model(tiny_run, "train.precision=mixed_float16", "model.text.dropout=0")
        batch = make_batch(tiny_run)
        model.optimizer.build(model.trainable_variables)
        assert float(loss_scale(model.optimizer)) > 1000
        outcome, gradients = model.global_gradients(batch)
        assert max(differences(model, batch, 2, [outcome.loss, *gradients]).values()) < 5e-3  # float16
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_batch_normalisation_takes_a_chunk_and_moves_once_a_chunk(tiny_run):
    changes = "model.image.backbone=tiny_resnet", "model.text.dropout=0"
    model, expected, batch = (
        make_model(tiny_run, *changes),
        make_model(tiny_run, *changes),
        make_batch(tiny_run),
    )
    AccumulatedStep(model, 3).gradients(batch)
    for start in (0, 3):
        expected.encode({k: x[start : start + 3] for k, x in batch.items()}, training=True)
    pairs = list(zip(model.non_trainable_variables, expected.non_trainable_variables, strict=True))
    moving = [(a.numpy(), b.numpy()) for a, b in pairs if "moving" in a.path]
    assert len(moving) >= 4
    for got, wanted in moving:
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_validation_in_chunks_equals_that_at_once(tiny_run):
    batch = make_batch(tiny_run)
    for objective in ("semantic_matching", "gloria"):
        model = make_model(tiny_run, f"objective.name={objective}")
        whole = model.objective(batch, training=False)
        model.run = override(model.run, ["train.chunk_size=2"])
        for compute in (model.objective, tf.function(model.objective)):
            np.testing.assert_allclose(compute(batch, training=False).loss, whole.loss, rtol=1e-5)


def test_a_classifier_in_chunks_has_the_gradients_of_the_batch(tiny_run):
    run = override(tiny_run, ["train.batch_size=8"])
    classes = classes_of(run)
    model = Classifier(encoder_maker(run, "random")(), classes, run).create_weights()
    model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    batch = next(iter(labelled_images(run, classes, steps_per_epoch=4)))
    outcome, gradients = model.global_gradients(batch)
    assert max(differences(model, batch, 3, [outcome.loss, *gradients]).values()) < 1e-5


@pytest.mark.slow
def test_a_run_in_chunks_and_tiles_has_the_losses_of_the_plain_run(tiny_run, tmp_path):
    plain = override(tiny_run, ["model.text.dropout=0", "train.learning_rate=1e-3"])
    chunks = override(plain, ["train.chunk_size=4", "objective.tile_size=4"])
    for name, run in (("plain", plain), ("chunks", chunks)):
        train(run, tmp_path / name, Console(quiet=True))
    expected, found = (scalars_of(tmp_path / name) for name in ("plain", "chunks"))
    assert sorted(found["train/loss"]) == [2, 4, 6]
    for name in ("train/loss", "train/gradient_norm", "valid/kl", "train/temperature"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3), name
    longer = dataclasses.replace(chunks, train=dataclasses.replace(chunks.train, steps=8))
    assert train(longer, tmp_path / "chunks", Console(quiet=True)).step == 8  # resumes
