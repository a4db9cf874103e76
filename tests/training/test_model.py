"""One training step: clipping, loss scaling, precision; and which checkpoint is kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import override
from medclip_keras.training import callbacks
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.model import MedCLIP, build_optimizer, loss_scale

NUM_FINDINGS = 5


@pytest.fixture
def policy():
    """Sets Keras's precision; float32 again afterwards."""
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def make_batch(seed: int = 0) -> dict[str, tf.Tensor]:
    """6 random images and sentences whose labels they show: finding k is a bright row k and word k."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (2, 6, NUM_FINDINGS)).astype("float32")
    images = rng.normal(size=(6, 32, 32, 1)).astype("float32")
    images[:, : 6 * NUM_FINDINGS] += 2 * np.repeat(labels[0], 6, axis=1)[:, :, None, None]
    words = np.where(labels[1] > 0, 10 + np.arange(NUM_FINDINGS), 9).astype("int32")
    tokens = np.pad(words, ((0, 0), (1, 26)), constant_values=1)
    known = np.ones_like(labels)
    batch = {
        "images": images, "token_ids": tokens, "padding_mask": np.ones_like(tokens),
        "image_labels": labels[0], "text_labels": labels[1], "image_known": known[0], "text_known": known[1],
    }  # fmt: skip
    return {name: tf.constant(value) for name, value in batch.items()}


def make_model(run, optimizer=None) -> MedCLIP:
    keras.utils.set_random_seed(3)
    model = MedCLIP(run, 50).build_towers()
    model.compile(optimizer=optimizer or build_optimizer(run, 60), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_step_is_as_long_as_the_clipped_gradient(tiny_run, policy, precision):
    policy(precision)
    run = override(tiny_run, ["train.clip_norm=0.01", f"train.precision={precision}"])
    model = make_model(run, keras.optimizers.SGD(1.0))
    before = [v.numpy() for v in model.trainable_variables]
    logs = model.train_step(make_batch())
    moved = [np.sum((v.numpy() - b) ** 2) for v, b in zip(model.trainable_variables, before, strict=True)]
    assert float(logs["gradient_norm"]) > 0.1
    assert np.sqrt(np.sum(moved)) == pytest.approx(0.01, rel=1e-3)


def train_some(run, precision: str, policy, steps: int = 60) -> float:
    """The mean KL of the last ten steps, of which two batches take turns."""
    policy(precision)
    changes = [f"train.precision={precision}", "model.text.dropout=0", "train.learning_rate=3e-3"]
    model, batches = make_model(override(run, changes)), [make_batch(0), make_batch(1)]
    step = tf.function(model.train_step)
    return float(np.mean([step(batches[k % 2])["kl"] for k in range(steps)][-10:]))


@pytest.mark.slow
def test_every_precision_learns_as_float32_does(tiny_run, policy):
    found = {p: train_some(tiny_run, p, policy) for p in ("float32", "mixed_bfloat16", "mixed_float16")}
    untrained = train_some(tiny_run, "float32", policy, steps=1)
    learned = untrained - found["float32"]
    assert learned > 0.3
    for precision, kl in found.items():
        assert abs(kl - found["float32"]) < 0.1 * learned, (precision, found)


def test_an_overflowing_scaled_step_is_skipped_and_no_failure(tiny_run, policy):
    policy("mixed_float16")
    model = make_model(override(tiny_run, ["train.precision=mixed_float16"]))
    watch = callbacks.StopOnNaN(0)
    watch.set_model(model)
    model.optimizer.dynamic_scale.assign(2.0**40)
    before = [v.numpy() for v in model.trainable_variables]
    logs = model.train_step(make_batch())
    assert not np.isfinite(float(logs["gradient_norm"]))
    watch.on_step(1, logs)
    assert float(loss_scale(model.optimizer)) == 2.0**39
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    model.optimizer.dynamic_scale.assign(1.0)
    with pytest.raises(FloatingPointError, match="at step 2"):
        watch.on_step(2, logs)
    with pytest.raises(FloatingPointError, match="at step 3"):
        watch.on_step(3, logs | {"loss": float("nan"), "gradient_norm": 1.0})


def test_the_best_checkpoint_keeps_the_weights_of_the_lowest_kl(tiny_run, tmp_path):
    model = make_model(tiny_run)
    checkpoints, weight = Checkpoints(tmp_path, model), model.trainable_variables[0]
    for step, kl, kept in ((1, 0.5, True), (2, 0.7, False), (3, 0.5, False), (4, 0.4, True), (5, 0.6, False)):
        weight.assign(tf.fill(weight.shape, float(step)))
        assert checkpoints.save_if_best(step, kl) is kept, step
        assert checkpoints.progress.num_stale == {2: 1, 3: 2, 5: 1}.get(step, 0)
    assert checkpoints.restore_weights("best") == ("best", 4)
    np.testing.assert_array_equal(weight.numpy(), np.full(weight.shape, 4.0))
