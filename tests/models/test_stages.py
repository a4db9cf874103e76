"""Stages of backbones from the input to the output: which layers they hold, freezing and depths."""

import keras
import numpy as np
import pytest

from medclip_keras.config import ImageEncoderConfig, TextEncoderConfig
from medclip_keras.models.image_encoder import BACKBONES, ImageEncoder, build_backbone
from medclip_keras.models.stages import image_stages
from medclip_keras.models.text_encoder import TextEncoder

SMALL = ImageEncoderConfig(backbone="small_resnet", image_size=32, width=8)
TEXT = TextEncoderConfig(num_layers=3, num_heads=2, hidden_dim=8, intermediate_dim=8)


def test_stages_of_a_feature_pyramid_are_its_levels_and_hold_every_layer_once():
    backbone = build_backbone(SMALL)
    stages = [[layer.name for layer in stage] for stage in image_stages(backbone)]
    assert [{name.partition("_")[0] for name in stage} for stage in stages] == [
        {"stem", "stage0"}, {"stage1"}, {"stage2"}, {"stage3"},
    ]  # fmt: skip
    held = [name for stage in stages for name in stage]
    assert held == [layer.name for layer in backbone.layers if layer.weights]


@pytest.mark.parametrize(("name", "number"), [("efficientnet_lite0", 5), ("resnet18", 4), ("swin_tiny", 6)])
def test_published_backbones_have_stages(name, number):
    backbone = build_backbone(ImageEncoderConfig(backbone=name, image_size=224))
    stages = image_stages(backbone)
    assert len(stages) == number
    held = [v.path for stage in stages for layer in stage for v in layer.weights]
    assert sorted(held) == sorted(v.path for v in backbone.weights)
    assert len(set(held)) == len(held)


def test_frozen_stages_are_the_first_ones():
    config = ImageEncoderConfig(backbone="small_resnet", image_size=32, width=8, frozen_stages=3)
    encoder = ImageEncoder(config, 4)
    encoder(np.zeros((1, 32, 32, 1), np.float32))
    learning = {v.path.partition("_")[0] for v in encoder.backbone.trainable_variables}
    assert learning == {"stage3"}
    with pytest.raises(
        ValueError, match=r"`model.image.frozen_stages` must be at most 4 stages\. Received: 5"
    ):
        ImageEncoder(ImageEncoderConfig(backbone="small_resnet", image_size=32, frozen_stages=5), 4)


def test_depth_counts_from_the_last_stage():
    image, text = ImageEncoder(SMALL, 4), TextEncoder(TEXT, 4, 20, 8)
    by_stage = {path.split("/")[0].split("_")[0]: depth for path, depth in image.depths.items()}
    assert by_stage == {"stage3": 1, "stage2": 2, "stage1": 3, "stage0": 4, "stem": 4}
    by_layer = {path.partition("/")[0]: depth for path, depth in text.depths.items()}
    assert by_layer == {
        "transformer_layer_2": 1, "transformer_layer_1": 2, "transformer_layer_0": 3,
        "token_embedding": 4, "position_embedding": 4, "segment_embedding": 4, "embeddings_layer_norm": 4,
    }  # fmt: skip
    assert {v.path for v in image.backbone.weights} == image.depths.keys()
    assert {v.path for v in text.backbone.weights} == text.depths.keys()


def tokens_of(config):
    """A backbone of tokens (B, 4, 3 * 16 * 16), the quarters of the image."""
    images = keras.Input((config.image_size, config.image_size, 3))
    return keras.Model(images, keras.layers.Reshape((4, -1))(images))


@pytest.mark.parametrize("backbone", ["small_resnet", "tokens"])
def test_mean_and_maximum_over_space_are_projected_together(backbone, monkeypatch):
    monkeypatch.setitem(BACKBONES, "tokens", tokens_of)
    config = ImageEncoderConfig(backbone=backbone, image_size=32, width=8, pooling="mean_max")
    encoder = ImageEncoder(config, 4, projection="mlp")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    last = np.array(encoder.backbone(encoder.prepare(images)))
    places = last.reshape(2, -1, last.shape[-1])
    expected = np.concatenate([places.mean(1), places.max(1)], axis=1)
    features = encoder(images)
    np.testing.assert_allclose(features.pooled, expected, atol=1e-6)
    np.testing.assert_allclose(encoder.features(images), expected, atol=1e-6)
    hidden, projection = encoder.hidden.get_weights(), encoder.projection.get_weights()[0]
    by_hand = np.maximum(expected @ hidden[0] + hidden[1], 0) @ projection
    np.testing.assert_allclose(features.embeddings_unnormalized, by_hand, atol=1e-5)
