"""Planted truth: embeddings with a known answer."""

import numpy as np
import pytest

from medclip_keras.evaluation.cross_retrieval import (
    CrossRetrieval,
    chance_of_ranks,
    cross_retrieval_section,
    image_to_image,
    pair_rows,
    paired,
    study_texts,
    text_to_image,
)
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.tasks import Task

BOOTSTRAP = Bootstrap(50, seed=0)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def task(classes, patients=None):
    rows = np.arange(len(classes))
    patients = rows.astype(str) if patients is None else np.array(patients)
    return Task("single_finding", ("Edema", "Mass"), rows, np.eye(2)[classes], patients, rows.astype(str))


def planted(classes, noise, seed=0):
    rng = np.random.default_rng(seed)
    return unit(np.eye(12)[classes] + noise * rng.normal(size=(len(classes), 12)))


def test_planted_classes_are_found_and_random_embeddings_are_at_chance():
    classes = np.repeat([0, 1], [120, 40])
    images = {"trained": planted(classes, 0.01), "untrained": planted(classes * 0, 9)}
    texts = {"trained": planted([0, 1, 1], 0.01, 1), "untrained": planted([0, 0, 0], 9, 1)}
    of_images = image_to_image(task(classes), images, BOOTSTRAP)
    of_texts = text_to_image(task(classes), images, texts, np.array([0, 1, 1]), BOOTSTRAP)
    for found in (of_images, of_texts):
        # Of the 40 of one class, 39 others or 40 are relevant for K = 50.
        assert (
            found["trained"]["precision_at_5"]["value"] == found["trained"]["precision_at_10"]["value"] == 1
        )
        assert found["untrained"]["precision_at_50"]["value"] == pytest.approx(
            found["baseline"]["precision_at_50"], abs=0.2
        )
    assert of_images["trained"]["precision_at_50"]["value"] == pytest.approx((120 + 40 * 39 / 50) / 160)
    assert of_images["baseline"]["precision_at_5"] == pytest.approx((120 * 119 + 40 * 39) / 159 / 160)
    assert of_texts["trained"]["precision_at_50"]["value"] == pytest.approx((1 + 2 * 40 / 50) / 3)
    assert of_texts["baseline"]["precision_at_5"] == pytest.approx((0.75 + 2 * 0.25) / 3)


def test_images_of_the_own_patient_are_no_candidates():
    """Each patient has two equal images, of which the other one would be nearest."""
    classes = np.array([0, 1] * 8)
    patients = np.repeat(np.arange(8), 2).astype(str)
    twins = unit(np.repeat(np.random.default_rng(0).normal(size=(8, 6)), 2, axis=0))
    found = image_to_image(task(classes, patients), {"trained": twins}, BOOTSTRAP)
    # Every other pair of twins is a tie of one relevant and one other image: an even K has exactly a half.
    assert found["trained"]["precision_at_10"]["value"] == 0.5
    assert found["baseline"]["precision_at_10"] == 0.5  # 7 of 14, not of 15
    assert found["num_candidates"] == 16
    assert "precision_at_50" not in found["baseline"]


def test_chance_of_a_rank_is_that_of_random_orders():
    rng, own, candidates = np.random.default_rng(0), np.array([1, 2, 2, 5]), 12
    ranks = np.array([[1 + rng.permutation(candidates)[:m].min() for m in own] for _ in range(4000)])
    for k, chance in enumerate(chance_of_ranks(own, candidates), 1):
        assert chance == pytest.approx((ranks <= k).mean(), abs=4 * 0.5 / np.sqrt(ranks.size))
    np.testing.assert_allclose(chance_of_ranks(np.ones(3, int), 10), np.arange(1, 11) / 10)


def test_a_random_model_is_at_the_chance_of_studies_with_several_images():
    rng, studies = np.random.default_rng(1), np.repeat(np.arange(300), 3)
    texts, images = unit(rng.normal(size=(300, 32))), unit(rng.normal(size=(900, 32)))
    patients = studies.astype(str)
    found = paired({"trained": images}, studies, patients, {"trained": texts}, BOOTSTRAP)
    for direction in ("pair_image_to_text", "pair_text_to_image"):
        table = found[direction]
        for name, chance in table["baseline"].items():
            estimate = table["trained"][name]
            width = estimate["high"] - estimate["low"]  # four standard errors
            assert abs(estimate["value"] - chance) <= max(width, 1e-3), (direction, name)
    assert found["pair_text_to_image"]["baseline"]["recall_at_1"] == pytest.approx(3 / 900)
    assert found["pair_image_to_text"]["baseline"]["median_rank"] == 150.5


def test_pairs_are_found_in_both_directions_and_equal_reports_share_their_rank():
    rng = np.random.default_rng(0)
    studies = np.array([0, 0, 1, 2, 3, 4])
    texts = unit(rng.normal(size=(5, 16)))
    images = unit(texts[studies] + 0.01 * rng.normal(size=(6, 16)))
    patients = np.array(["a", "a", "b", "c", "d", "e"])
    found = paired({"trained": images}, studies, patients, {"trained": texts}, BOOTSTRAP)
    for direction, queries in (("pair_image_to_text", 6), ("pair_text_to_image", 5)):
        assert found[direction]["num_queries"] == queries
        assert found[direction]["trained"]["recall_at_1"]["value"] == 1.0
        assert found[direction]["trained"]["median_rank"]["value"] == 1.0
    assert found["pair_image_to_text"]["baseline"]["recall_at_1"] == pytest.approx(1 / 5)
    equal = np.tile(texts[:1], (5, 1))
    tied = paired({"trained": images}, studies, patients, {"trained": equal}, BOOTSTRAP)["pair_image_to_text"]
    assert tied["trained"]["recall_at_1"]["value"] == pytest.approx(1 / 5)
    assert tied["trained"]["median_rank"]["value"] == 3.0 == tied["baseline"]["median_rank"]


def test_the_evaluation_pairs_images_with_their_studies(world, config):
    images, sentences = world.image_batches(60), world.sentence_batches(4)
    number = 0
    for batch in images:
        batch["study_id"] = np.array([f"s{number + k}" for k in range(len(batch["images"]))])
        number += len(batch["images"])
    for batch in sentences:
        batch["study_id"] = np.array([f"s{k // 2}" for k in range(len(batch["text"]))])
    result = world.evaluate(config, images, sentences)
    found = result.metrics["cross_retrieval"]
    assert list(found) == ["image_to_image", "text_to_image", "pair_image_to_text", "pair_text_to_image"]
    assert found["pair_text_to_image"]["num_queries"] == 20
    # Of images with further findings the nearest are not always of the class.
    assert found["image_to_image"]["trained"]["precision_at_5"]["low"] > 0.8
    section = cross_retrieval_section(CrossRetrieval(found))
    assert [table.title for table in section.tables][2] == "image → its own report"
    assert section.tables[0].rows[0][0] == "precision@5"


def test_reports_are_their_sentences_in_order_and_pairs_need_studies():
    batches = [{"study_id": np.array(["s", "t", "s"]), "text": np.array(["One.", "Other.", "Two."])}]
    assert study_texts(batches) == {"s": "One. Two.", "t": "Other."}
    assert study_texts([{"text": np.array(["One."])}]) == {}
    assert pair_rows(np.array(["t", "u", "t"]), {"t": "Other.", "x": ""}).tolist() == [0, 2]
    assert pair_rows(np.empty(0, np.str_), {"t": "x"}).tolist() == []
