"""Lower rates for the lower stages: factors by hand, a step by hand, and the same step on two devices."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import override
from medclip_keras.training.layer_rates import layer_rates
from medclip_keras.training.model import MedCLIP, build_optimizer

from . import rates_on_devices
from .test_losses import VOCABULARY, make_batch

SCRIPT = pathlib.Path(__file__).parent / "rates_on_devices.py"
# Weight w, factor f: decay first, w - 0.1 f 0.5 w, then less 0.1 f, for Adam's first step has length 1.
STEPPED = [2 - 0.1 - 0.1, 4 - 0.5 * (0.2 + 0.1), 8 - 0.25 * (0.4 + 0.1)]


def test_a_step_of_adamw_has_the_factor_in_rate_and_decay():
    found = rates_on_devices.step(tf.distribute.get_strategy())
    np.testing.assert_allclose(found, STEPPED, rtol=1e-6)


def test_a_step_on_two_devices_is_that_of_one(tmp_path):
    subprocess.run([sys.executable, SCRIPT, "2", tmp_path / "found.npz"], check=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "found.npz")["weights"], STEPPED, rtol=1e-6)


def make_model(run, *changes) -> MedCLIP:
    keras.utils.set_random_seed(4)
    model = MedCLIP(override(run, list(changes)), VOCABULARY).build_towers()
    model.compile(optimizer=build_optimizer(model.run, 10, model), jit_compile=False)
    return model


def test_factors_fall_by_the_stage_and_projections_have_the_full_rate(tiny_run):
    model = make_model(tiny_run, "train.layer_decay=0.5", "model.text.num_layers=2")
    rates = layer_rates(model, 0.5)
    found = {v.path: rates[id(v)] for v in model.trainable_variables if id(v) in rates}
    by_stage = {path.partition("/")[0].partition("_conv")[0]: rate for path, rate in found.items()}
    assert (by_stage["stage3"], by_stage["stage2"], by_stage["stem"]) == (0.5, 0.25, 0.0625)
    assert (by_stage["transformer_layer_1"], by_stage["transformer_layer_0"]) == (0.5, 0.25)
    assert by_stage["token_embedding"] == 0.125
    others = {v.path.split("/")[-2] for v in model.trainable_variables if id(v) not in rates}
    assert others >= {"projection"}
    assert not [path for path in found if "projection" in path or "logit_scale" in path]
    assert layer_rates(model, 1.0) == {}


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_training_moves_each_stage_by_its_rate(precision, tiny_run):
    keras.mixed_precision.set_global_policy(precision)
    try:
        run = override(tiny_run, ["model.text.dropout=0", "train.weight_decay=0", "train.warmup_fraction=0"])
        moved = {}
        for decay in (1.0, 0.5):
            model = make_model(run, f"train.layer_decay={decay}")
            before = [v.numpy() for v in model.trainable_variables]
            model.train_step(make_batch(tiny_run))
            after = [v.numpy() for v in model.trainable_variables]
            moved[decay] = [np.abs(a - b).max() for a, b in zip(after, before, strict=True)]
    finally:
        keras.mixed_precision.set_global_policy("float32")
    rates = layer_rates(model, 0.5)
    factors = [rates.get(id(v), 1.0) for v in model.trainable_variables]
    clear = np.array(moved[1.0]) > 1e-4  # in Adam's first step a weight with a gradient moves by the rate
    assert {*np.array(factors)[clear]} >= {1.0, 0.5, 0.25, 0.125, 0.0625}
    ratio = np.array(moved[0.5])[clear] / np.array(moved[1.0])[clear]
    np.testing.assert_allclose(ratio, np.array(factors)[clear], rtol=1e-2)
