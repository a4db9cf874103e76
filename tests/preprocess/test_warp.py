"""The compiled changes equal TensorFlow's operations, one image at a time, to the byte."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import AugmentConfig
from medclip_keras.preprocess import images as module
from medclip_keras.preprocess.images import MEAN, STANDARD_DEVIATION, augment
from medclip_keras.preprocess.warp import change_colours, warp

NUM_IMAGES, SIDE = 7, 56


def pictures(dtype="uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, SIDE, SIDE, 1), np.uint8).astype(dtype)


def seeds() -> tf.Tensor:
    return tf.stack([tf.fill([NUM_IMAGES], 7), tf.range(NUM_IMAGES)], axis=1)


def read_by_tensorflow(image: tf.Tensor, transform: tf.Tensor, size: int) -> tf.Tensor:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32),
        transforms=transform,
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def augment_by_tensorflow(image: tf.Tensor, size: int, config: AugmentConfig, seed: tf.Tensor) -> tf.Tensor:
    """The documented equations of `augment` without a blur, of one image, in operations that round each."""
    numbers = tf.random.stateless_uniform((11,), seed, alg="philox")
    draws = {name: numbers[k, None] for k, name in enumerate(module._DRAWS)}
    transform = module._crop_transforms(draws, image.shape[0], size, config)
    values = read_by_tensorflow(image[None], transform, size)
    shift = 255.0 * config.brightness * (2.0 * draws["brightness"] - 1.0)
    factor = 1.0 + config.contrast * (2.0 * draws["contrast"] - 1.0)
    values = tf.clip_by_value(factor * values + ((1.0 - factor) * tf.reduce_mean(values) + shift), 0.0, 255.0)
    return values[0] * (1.0 / (255.0 * STANDARD_DEVIATION)) - MEAN / STANDARD_DEVIATION


@pytest.mark.parametrize(
    "changes",
    [{}, {"rotation_degrees": 180.0, "translation": 0.9, "contrast": 1.0, "crop_share": (0.2, 1.0)}],
)
def test_augmented_batches_equal_those_of_separate_operations_to_the_byte(changes):
    config, size = dataclasses.replace(AugmentConfig(), **changes), 49  # 49 of 56 is 224 of 256
    together = tf.function(lambda x, s: augment(x, size, config, s))(tf.constant(pictures()), seeds())
    pairs = zip(pictures(), seeds(), strict=True)
    apart = [augment_by_tensorflow(image, size, config, seed) for image, seed in pairs]
    assert together.numpy().tobytes() == np.stack(apart).tobytes()
    assert np.std(together) > 0.3


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [11, SIDE, 83])
def test_warp_equals_the_projective_transform_to_the_byte(dtype, size):
    rng = np.random.default_rng(size)
    scale = rng.uniform(0.3, 1.5, (NUM_IMAGES, 1)) * SIDE / size
    turned = rng.normal(size=(NUM_IMAGES, 4))  # mirrored, sheared, upside down
    turned *= scale / np.linalg.norm(turned, axis=1, keepdims=True)
    offsets = rng.uniform(-2 * SIDE, 3 * SIDE, (NUM_IMAGES, 2))
    offsets[:4] = rng.uniform(0, SIDE, (4, 2))
    offsets[4] = 1e6, -1e6  # far outside
    columns = (*turned[:, :2].T, offsets[:, 0], *turned[:, 2:].T, offsets[:, 1])
    transforms = np.pad(np.stack(columns, axis=1), [[0, 0], [0, 2]]).astype("float32")
    transforms[3] = [1, 0, -1, 0, 1, SIDE - 3, 0, 0]  # whole pixels, over two edges
    found = warp(tf.constant(pictures(dtype)), tf.constant(transforms), size)
    expected = read_by_tensorflow(tf.constant(pictures()), tf.constant(transforms), size)
    assert found.numpy().tobytes() == expected.numpy().tobytes()
    assert (expected[4].numpy() == 0).all()
    for k in range(4):
        assert np.ptp(expected[k]) > 100


def test_colours_are_clipped_before_they_are_scaled():
    values = tf.constant([[0.0, 100.0], [200.0, 250.0]])[None, :, :, None]
    found = change_colours(values, tf.constant([1.5]), tf.constant([-30.0]), 2.0, 7.0)
    np.testing.assert_array_equal(found[0, ..., 0], [[7.0, 247.0], [517.0, 517.0]])
