import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medclip_keras.evaluation.evaluator import evaluate
from medclip_keras.evaluation.leaks import (
    NEARLY,
    find_leaks,
    leaks_section,
    nearest_hashes,
    perceptual_hashes,
    read_pictures,
)


def pictures(num_images, seed=0, side=64):
    """Smooth random pictures uint8 (num_images, side, side, 1)."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=(num_images, side, side)), (0, 3, 3))
    return np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)[..., None]


def batches(images, prefix, patients=None, size=7):
    names = [f"{prefix}{n}" for n in range(len(images))]
    patients = names if patients is None else patients
    return [
        {
            "record_key": np.array(names[i : i + size]),
            "patient_id": np.array(patients[i : i + size]),
            "images": images[i : i + size],
        }
        for i in range(0, len(images), size)
    ]


def recompressed(image):
    file = io.BytesIO()
    brighter = np.clip(image[..., 0] * 1.1 + 5, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).resize((50, 50)).resize((64, 64)).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))[..., None]


def test_equal_and_nearly_equal_pictures_are_counted_and_named():
    training, test = pictures(40), pictures(12, seed=1)
    test[3], test[5] = training[31], recompressed(training[17])
    found = find_leaks(read_pictures(batches(test, "t")), read_pictures(batches(training, "r"))).metrics
    assert (found["num_test_images"], found["num_training_images"]) == (12, 40)
    assert (found["equal_pictures"], found["nearly_equal_pictures"]) == (1, 1)
    assert [pair[:2] for pair in found["pairs"]] == [["t3", "r31"], ["t5", "r17"]]
    assert found["pairs"][0][2] == 0 < found["pairs"][1][2] <= NEARLY


def test_other_pictures_are_no_leak():
    found = find_leaks(
        read_pictures(batches(pictures(30), "t")), read_pictures(batches(pictures(60, 2), "r"))
    ).metrics
    assert (found["equal_pictures"], found["nearly_equal_pictures"], found["pairs"]) == (0, 0, [])
    assert found["least_distance"] > NEARLY


def test_nearest_hashes_equal_a_count_of_bits():
    rng = np.random.default_rng(0)
    ours, theirs = (
        rng.integers(0, 256, (9, 32)).astype(np.uint8),
        rng.integers(0, 256, (5000, 32)).astype(np.uint8),
    )
    theirs[4321] = ours[4]
    bits = np.array([[np.unpackbits(a ^ b).sum() for b in theirs] for a in ours])
    distances, rows = nearest_hashes(ours, theirs)
    np.testing.assert_array_equal(distances, bits.min(axis=1))
    np.testing.assert_array_equal(rows, bits.argmin(axis=1))
    assert rows[4] == 4321


@pytest.mark.parametrize("side", [8, 33, 64])
def test_hashes_exist_for_every_size_and_for_flat_pictures(side):
    hashes = perceptual_hashes(np.zeros((2, side, side), np.uint8))
    assert hashes.shape == (2, 32)
    assert not hashes.any()


def test_a_shared_patient_is_refused_without_a_name():
    training = read_pictures(batches(pictures(8), "r", [f"p{n}" for n in range(8)]))
    test = read_pictures(batches(pictures(4, 1), "t", ["q0", "p3", "p3", "q1"]))
    with pytest.raises(
        ValueError, match=r"1 of 3 patients in training too.*leave the task leaks out"
    ) as refused:
        find_leaks(test, training)
    assert "p3" not in str(refused.value)


def test_an_evaluation_refuses_a_planted_leak_before_any_work(world, config):
    config = dataclasses.replace(config, tasks=("zero_shot", "leaks"), bootstrap=20)
    test, training = world.image_batches(60), world.image_batches(90, seed=3)
    for batch in training:
        batch["patient_id"] = np.array([b"other " + p for p in batch["patient_id"]], object)
    result = evaluate(world.oracle, {"world": test}, (), config, world.names, training=training)["world"]
    found = result.metrics["leaks"]
    assert (found["num_test_images"], found["num_training_images"], found["equal_pictures"]) == (60, 90, 0)
    assert leaks_section(result.leaks).tables[0].rows[0] == ("patients in both", "0")
    training[1]["patient_id"][4] = test[0]["patient_id"][0]
    with pytest.raises(ValueError, match="1 of 30 patients in training too"):
        evaluate(None, {"world": test}, (), config, world.names, training=training)
    without = dataclasses.replace(config, tasks=("zero_shot",))
    assert (
        evaluate(world.oracle, {"world": test}, (), without, world.names, training=training)["world"].leaks
        is None
    )
