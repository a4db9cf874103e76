"""The fused batch normalisation beside Keras's own: outputs, gradients and moving averages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.training.batch_normalization import (
    FusedBatchNormalization,
    prepare_batch_normalization,
    require_compilable,
)


def one_pass(fused: bool, dtype: str, **options) -> dict[str, np.ndarray]:
    """A training pass on 3 maps of 4 x 5 places and 6 channels, then one in inference."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(2, 3, (3, 4, 5, 6)).astype("float32"))
    layer = keras.layers.BatchNormalization(dtype=dtype, epsilon=1e-3, momentum=0.7, **options)
    model = keras.Sequential([keras.Input((4, 5, 6)), layer])
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    if fused:
        prepare_batch_normalization(model)
        assert type(layer) is FusedBatchNormalization
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = model(x, training=True)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, "float32")))
    gradients = tape.gradient(loss, [x, *(v.value for v in model.trainable_variables)])
    found = {"outputs": outputs, "later": model(x, training=False)}
    found |= {f"gradient {i}": g for i, g in enumerate(gradients)}
    found |= {v.path: v for v in model.non_trainable_variables}
    return {name.rpartition("/")[2]: tf.cast(value, "float32").numpy() for name, value in found.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("mixed_bfloat16", 3e-2)])
def test_fused_batch_normalisation_equals_that_of_keras(dtype, tolerance):
    expected, found = one_pass(False, dtype), one_pass(True, dtype)
    assert {"moving_mean", "moving_variance"} <= expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=tolerance * np.abs(value).max(), err_msg=name)


def test_other_forms_are_those_of_keras():
    for options in ({"axis": 1}, {"scale": False}, {"renorm": True}):
        expected, found = (one_pass(fused, "float32", **options) for fused in (False, True))
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=str(options))


def test_xla_is_refused_for_statistics_that_replicas_exchange():
    model = keras.Sequential([keras.Input((4, 5, 6)), keras.layers.BatchNormalization()])
    prepare_batch_normalization(model)
    require_compilable(model, jit_compile=True)  # on one device
    layer = model.layers[0]
    layer.__class__, layer.synchronized = keras.layers.BatchNormalization, True  # as on several
    require_compilable(model, jit_compile=False)
    with pytest.raises(ValueError, match=r"`train.jit_compile` must be false for batch normalisation on sev"):
        require_compilable(model, jit_compile=True)
    layer.trainable = False
    require_compilable(model, jit_compile=True)
