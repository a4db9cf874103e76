"""Grad-CAM and the similarity of regions, against their definitions."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import ObjectiveConfig
from medclip_keras.localize import methods_of
from medclip_keras.preprocess.images import for_evaluation
from medclip_keras.serving.heat_maps import heat_maps, method_of
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import load_model


@pytest.fixture(scope="module")
def trained(models):
    return load_model(models["workdir"]).model


@pytest.fixture(scope="module")
def pairs(trained):
    """Five images and five texts of unit length."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 40, 40, 1), np.uint8)
    texts = rng.normal(size=(5, trained.run.model.projection_dim)).astype(np.float32)
    return images, texts / np.linalg.norm(texts, axis=1, keepdims=True)


def test_grad_cam_weighs_channels_by_their_effect_on_the_cosine(trained, pairs):
    """The weight of a channel is the change of the cosine when all its places rise by a little."""
    images, texts = pairs
    backbone, encoder = trained.image_encoder.backbone, trained.image_encoder
    names = list(backbone.pyramid_outputs)
    sides = {name: backbone.pyramid_outputs[name].shape[1] for name in names}
    level = max(names, key=sides.get)  # no map has seven places at 32 pixels, but the finest
    assert sides[level] >= 7
    features = keras.Model(backbone.inputs, backbone.pyramid_outputs[level])
    rest = keras.Model(backbone.pyramid_outputs[level], backbone.output)
    inputs = encoder.prepare(for_evaluation(images, 32))
    found = features(inputs).numpy()

    def cosine(maps):
        embeddings = encoder.embed_map(rest(tf.constant(maps)))[0].numpy()
        return (embeddings * texts).sum(1) / np.linalg.norm(embeddings, axis=1)

    weights = np.empty((5, found.shape[-1]))
    step = 1e-3
    for c in range(found.shape[-1]):
        rise = np.zeros(found.shape[-1], np.float32)
        rise[c] = step
        weights[:, c] = (cosine(found + rise) - cosine(found - rise)) / (2 * step * found.shape[1] ** 2)
    expected = np.maximum(np.einsum("bhwc,bc->bhw", found, weights), 0)
    heat = heat_maps(trained, images, texts)
    assert method_of(trained) == "grad_cam"
    assert heat.shape == expected.shape
    assert np.abs(heat - expected).max() < 0.02 * expected.max()
    assert expected.max() > 0


def test_maps_of_frozen_towers_and_of_single_images_are_the_same(trained, pairs):
    images, texts = pairs
    together = heat_maps(trained, images, texts)
    one = heat_maps(trained, images[2:3], texts[2:3])
    np.testing.assert_allclose(one[0], together[2], atol=1e-6)
    trained.image_encoder.trainable = False
    np.testing.assert_allclose(heat_maps(trained, images, texts), together, atol=1e-6)
    trained.image_encoder.trainable = True


def test_regions_are_compared_with_the_text_itself(trained, pairs):
    images, texts = pairs
    run = dataclasses.replace(trained.run, objective=ObjectiveConfig("gloria"))
    keras.utils.set_random_seed(1)
    model = MedCLIP(run, 30).build_towers()
    heat = heat_maps(model, images, texts)
    regions = model.image_encoder(for_evaluation(images, 32)).regions.numpy()
    expected = np.einsum("bpd,bd->bp", regions / np.linalg.norm(regions, axis=2, keepdims=True), texts)
    assert method_of(model) == "regions"
    np.testing.assert_allclose(heat.reshape(5, -1), expected, atol=1e-5)
    assert heat.shape[1] == heat.shape[2]


def test_a_saved_model_has_occlusion_alone(trained):
    assert list(methods_of(None)) == ["occlusion"]
    assert list(methods_of(None, trained)) == ["grad_cam", "occlusion"]
