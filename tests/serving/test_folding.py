import keras
import keras_hub
import numpy as np
import pytest
from keras import layers

from medclip_keras.models.sizes import EFFICIENTNET_LITE0, efficientnet, resnet_sizes
from medclip_keras.serving.folding import FoldedNormalization, fold, foldable

SHAPE = (32, 32, 3)


def resnet(block_type):
    return keras_hub.models.ResNetBackbone(image_shape=SHAPE, **resnet_sizes(block_type, [2, 1]))


def normalisations(model):
    found = [one for one in model._flatten_layers() if isinstance(one, layers.BatchNormalization)]
    rng = np.random.default_rng(0)
    for layer in found:
        size = layer.moving_mean.shape
        layer.gamma.assign(rng.uniform(0.5, 2, size))
        layer.beta.assign(rng.normal(size=size))
        layer.moving_mean.assign(rng.normal(size=size))
        layer.moving_variance.assign(rng.uniform(0.2, 3, size))
    return found


@pytest.mark.parametrize(
    ("build", "num_folded"),
    [
        (lambda: resnet("basic_block"), 8),  # stem, two a block, two of shortcuts
        (lambda: resnet("bottleneck_block"), 12),
        (
            lambda: efficientnet(SHAPE, **EFFICIENTNET_LITE0),
            4,
        ),  # stem, first block, top; other blocks are layers
    ],
)
def test_a_folded_backbone_answers_as_before(build, num_folded):
    keras.utils.set_random_seed(0)
    model = build()
    found = normalisations(model)
    images = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    expected = np.array(model(images, training=False))
    fold(model)
    assert sum(isinstance(layer, FoldedNormalization) for layer in found) == num_folded
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(model(images, training=False), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["bias", "activation", "read twice", "called twice", "pooled"])
def test_a_normalisation_that_is_not_of_one_plain_convolution_stays(case):
    inputs = keras.Input(SHAPE)
    convolution = layers.Conv2D(
        3, 3, padding="same", use_bias=case == "bias", activation="relu" if case == "activation" else None
    )
    x = convolution(inputs)
    if case == "called twice":
        x = convolution(x)
    normal = layers.BatchNormalization()(layers.MaxPooling2D(2)(x) if case == "pooled" else x)
    model = keras.Model(inputs, [normal, x] if case == "read twice" else normal)
    if case == "read twice":
        model = keras.Model(inputs, [normal, layers.ReLU()(x)])
    (layer,) = normalisations(model)
    assert foldable(model) == []
    fold(model)
    assert type(layer) is layers.BatchNormalization
