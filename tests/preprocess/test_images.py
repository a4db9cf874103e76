"""Augmentation is a function of image and seed; without it an encoder sees the stored image."""

import dataclasses

import numpy as np
import tensorflow as tf
from PIL import Image

from medclip_keras.config import AugmentConfig
from medclip_keras.preprocess import images
from medclip_keras.preprocess.images import MEAN, STANDARD_DEVIATION, augment, for_evaluation

STILL = AugmentConfig(flip=0, brightness=0, contrast=0, rotation_degrees=0, translation=0, scale=(1, 1))


def picture(height, width, seed=0):
    """A smooth random picture: noise of a coarse grid, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def seeds_of(num_images, start=0):
    return tf.stack([tf.fill([num_images], 7), tf.range(start, start + num_images)], axis=1)


def test_evaluation_resizes_and_clips():
    images = np.stack([picture(32, 32, seed)[..., None] for seed in range(3)])
    small = for_evaluation(images, 28)
    assert small.shape == (3, 28, 28, 1)
    expected = np.asarray(Image.fromarray(images[1, ..., 0]).resize((28, 28), Image.BICUBIC)) / 255
    np.testing.assert_allclose(small[1, ..., 0] * STANDARD_DEVIATION + MEAN, expected, atol=1.5 / 255)
    edges = np.tile(np.uint8([0] * 8 + [255] * 8), (1, 16, 1))[..., None]
    values = for_evaluation(edges, 14) * STANDARD_DEVIATION + MEAN
    assert values.numpy().min() > -1e-6
    assert values.numpy().max() < 1 + 1e-6


def test_augment_without_ranges_is_evaluation():
    images = np.stack([picture(24, 24, seed)[..., None] for seed in range(3)])
    np.testing.assert_allclose(augment(images, 24, STILL, seeds_of(3)), for_evaluation(images, 24), atol=1e-5)
    resized = augment(images, 20, dataclasses.replace(STILL, crop=False), seeds_of(3))
    np.testing.assert_allclose(resized, for_evaluation(images, 20), atol=1e-5)


def test_flip_mirrors_left_and_right_with_its_probability():
    images = np.repeat(picture(20, 20)[None, ..., None], 200, axis=0)
    flipped = augment(images[:2], 20, dataclasses.replace(STILL, flip=1.0), seeds_of(2))
    np.testing.assert_allclose(flipped, for_evaluation(images[:2, :, ::-1], 20), atol=1e-5)
    some = augment(images, 20, dataclasses.replace(STILL, flip=0.25), seeds_of(200))
    share = np.mean([np.allclose(one, flipped[0], atol=1e-4) for one in some])
    assert 0.25 - 3 * 0.031 < share < 0.25 + 3 * 0.031  # three standard errors of 200 draws


def test_crop_is_a_window_of_the_stored_image_anywhere():
    image = np.arange(16 * 16, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = np.repeat(image, 300, axis=0)
    crops = augment(images, 14, STILL, seeds_of(300)).numpy()
    corners = set()
    for crop in crops:
        values = np.round(255 * (crop * STANDARD_DEVIATION + MEAN)).astype(int)[..., 0]
        row, column = divmod(values[0, 0], 16)
        np.testing.assert_array_equal(values, image[0, row : row + 14, column : column + 14, 0])
        corners.add((row, column))
    assert corners == {(row, column) for row in range(3) for column in range(3)}


def test_crop_of_a_much_larger_image_is_of_the_image_made_smaller():
    images = picture(128, 128)[None, ..., None]
    crops = augment(np.repeat(images, 40, axis=0), 28, STILL, seeds_of(40)).numpy()
    shrunk = for_evaluation(images, 32)[0].numpy()  # 28 of 32 is 224 of 256
    windows = [shrunk[y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
    for crop in crops:
        assert min(np.abs(crop - window).max() for window in windows) < 1e-4


def test_crop_share_enlarges_a_part_of_the_crop():
    """Half of a crop's side, at twice the size: a ramp rises half as steeply, from anywhere in the image."""
    side = 32
    ramp = np.tile(np.arange(side, dtype=np.uint8) * 8, (side, 1))
    images = np.repeat(ramp[None, ..., None], 200, axis=0)
    crops = augment(images, side, dataclasses.replace(STILL, crop_share=(0.5, 0.5)), seeds_of(200)).numpy()
    values = 255 * (crops * STANDARD_DEVIATION + MEAN)[..., 0]
    np.testing.assert_allclose(np.diff(values, axis=2), 4, atol=1e-3)  # 8 a stored pixel; nothing is outside
    starts = values[:, 0, 0] / 8
    assert set(np.round(starts).astype(int)) == set(range(16))  # 15.5 pixels from the first to the last
    assert len(set(np.round(starts, 3))) > 10


def test_blur_is_a_gaussian_of_a_width_drawn_for_each_image():
    side, stored = 56, 56
    spot = np.zeros((1, stored, stored, 1), np.uint8)
    spot[0, 28, 28] = 255
    images = np.repeat(spot, 30, axis=0)
    config = dataclasses.replace(
        STILL, blur_sigma=(4.0, 12.0)
    )  # 1 to 3 pixels of 56, which is a quarter of 224
    blurred = augment(images, side, config, seeds_of(30)).numpy()[..., 0] * STANDARD_DEVIATION + MEAN
    draws = np.stack([tf.random.stateless_uniform((11,), seed, alg="philox") for seed in seeds_of(30)])
    sigma = 1 + 2 * draws[:, 10].astype(float)
    squared = (np.arange(side) - 28.0) ** 2
    for image, width in zip(blurred, sigma, strict=True):
        kernel = np.where(squared <= 81, np.exp(-squared / (2 * width**2)), 0)  # 9 is three times the widest
        kernel /= kernel.sum()
        np.testing.assert_allclose(image, np.outer(kernel, kernel), atol=2e-5)
    assert sigma.std() > 0.3


def test_affine_map_turns_shifts_and_scales_about_the_centre():
    """A bright spot at (row, column) goes where the formula, inverted, sends it."""
    row, column, side = 30, 44, 64
    images = np.zeros((40, side, side, 1), np.uint8)
    images[:, row - 1 : row + 2, column - 1 : column + 2] = 255
    config = dataclasses.replace(STILL, rotation_degrees=20.0, translation=0.1, scale=(0.8, 1.2))
    seeds = seeds_of(40)
    results = augment(images, side, config, seeds).numpy()[..., 0] * STANDARD_DEVIATION + MEAN
    draws = np.stack([tf.random.stateless_uniform((9,), seed, alg="philox") for seed in seeds]).astype(float)
    angle = np.radians(20) * (2 * draws[:, 1] - 1)
    shift = 0.1 * side * (2 * draws[:, 2:4] - 1)
    scale = 0.8 + 0.4 * draws[:, 4]
    x, y = column - 31.5, row - 31.5
    expected_x = 31.5 + shift[:, 0] + scale * (np.cos(angle) * x - np.sin(angle) * y)
    expected_y = 31.5 + shift[:, 1] + scale * (np.sin(angle) * x + np.cos(angle) * y)
    weights = results / results.sum(axis=(1, 2), keepdims=True)
    rows, columns = np.mgrid[:side, :side]
    np.testing.assert_allclose((weights * columns).sum(axis=(1, 2)), expected_x, atol=0.15)
    np.testing.assert_allclose((weights * rows).sum(axis=(1, 2)), expected_y, atol=0.15)
    assert np.abs(expected_x - column).max() > 5  # the spot did move


def test_colours_change_about_the_mean_within_their_ranges():
    image = np.uint8([[100, 120], [130, 150]])[None, ..., None]  # mean 125
    images = np.repeat(image, 200, axis=0)
    config = dataclasses.replace(STILL, brightness=0.2, contrast=0.4)
    values = 255 * (augment(images, 2, config, seeds_of(200)).numpy() * STANDARD_DEVIATION + MEAN)[..., 0]
    shift = values.mean(axis=(1, 2)) - 125
    factor = (values[:, 1, 1] - values[:, 0, 0]) / 50
    np.testing.assert_allclose(values[:, 0, 1], 125 + shift - 5 * factor, atol=1e-3)
    for drawn, centre, width in ((shift, 0, 51), (factor, 1, 0.4)):
        assert centre - width <= drawn.min() < centre - 0.9 * width
        assert centre + 0.9 * width < drawn.max() <= centre + width


def changed_by(config, monkeypatch):
    """The random numbers, by their index among the eleven, of which each alone changes the result."""
    image = picture(24, 24)[None, ..., None]

    def augmented(draws):
        monkeypatch.setattr(images, "_uniform_per_image", lambda seeds, number: tf.constant([draws]))
        return augment(image, 20, config, seeds_of(1)).numpy()

    middle = augmented([0.5] * 11)
    moved = [augmented([0.5] * k + [0.1] + [0.5] * (10 - k)) for k in range(11)]
    return {k for k, result in enumerate(moved) if np.abs(result - middle).max() > 1e-3}


def test_no_two_augmentations_share_a_random_number(monkeypatch):
    whole = dataclasses.replace(STILL, crop=False)
    corners = changed_by(STILL, monkeypatch)
    numbers = {
        "flip": changed_by(dataclasses.replace(whole, flip=0.25), monkeypatch),
        "rotation": changed_by(dataclasses.replace(whole, rotation_degrees=20), monkeypatch),
        "translation": changed_by(dataclasses.replace(whole, translation=0.2), monkeypatch),
        "scale": changed_by(dataclasses.replace(whole, scale=(0.8, 1.1)), monkeypatch),
        "crop": corners,
        "share": changed_by(dataclasses.replace(whole, crop_share=(0.5, 1.0)), monkeypatch) - corners,
        "brightness": changed_by(dataclasses.replace(whole, brightness=0.2), monkeypatch),
        "contrast": changed_by(dataclasses.replace(whole, contrast=0.4), monkeypatch),
        "blur": changed_by(dataclasses.replace(whole, blur_sigma=(1.0, 30.0)), monkeypatch),
    }
    counts = {name: len(found) for name, found in numbers.items()}
    assert counts == {name: 2 if name in ("translation", "crop") else 1 for name in numbers}
    assert sorted(k for found in numbers.values() for k in found) == list(range(11)), numbers


def test_constant_images_stay_finite():
    assert np.isfinite(augment(np.zeros((2, 16, 16, 1), np.uint8), 14, AugmentConfig(), seeds_of(2))).all()


def test_augment_depends_on_image_and_seed_alone():
    images = np.stack([picture(32, 32, seed)[..., None] for seed in range(5)])
    together = augment(images, 28, AugmentConfig(), seeds_of(5))
    alone = [augment(images[i : i + 1], 28, AugmentConfig(), seeds_of(1, start=i))[0] for i in range(5)]
    np.testing.assert_array_equal(together, np.stack(alone))
    graph = tf.function(lambda batch, seeds: augment(batch, 28, AugmentConfig(), seeds))
    np.testing.assert_allclose(graph(images, seeds_of(5)), together, atol=1e-5)
    same_image = augment(np.repeat(images[:1], 2, axis=0), 28, AugmentConfig(), seeds_of(2))
    assert np.abs(same_image[0] - same_image[1]).max() > 0.1
