"""Planted truth: a fact that is written into embeddings and pictures, and one that is not."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medclip_keras.config import ImageEncoderConfig
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.shortcuts import (
    Shortcuts,
    archive_readability,
    equal_strata_weights,
    readability,
    readable_facts,
    shortcuts_section,
    stratified,
)
from medclip_keras.evaluation.subgroups import Subgroups, groups_of, subgroups, subgroups_section
from medclip_keras.evaluation.tasks import Task
from medclip_keras.models.image_encoder import ImageEncoder
from medclip_keras.sources.phantom.cohort import draw_studies
from medclip_keras.sources.phantom.drawing import draw_radiograph

BOOTSTRAP = Bootstrap(100, seed=0)


def planted(num_images=400, seed=0):
    """Embeddings with the view in one direction, labels that go with the view, a score that is the view."""
    rng = np.random.default_rng(seed)
    patients = np.array([f"p{n // 2}" for n in range(num_images)])
    view = np.repeat(rng.choice(["AP", "PA"], num_images // 2), 2)  # of the patient
    labels = (rng.random(num_images) < np.where(view == "AP", 0.8, 0.2)).astype(float)
    embeddings = rng.normal(size=(num_images, 12))
    embeddings[:, 3] += np.where(view == "AP", 2.0, -2.0)
    return embeddings, view, labels, patients


def task_of(labels, patients):
    rows = np.arange(len(labels))
    return Task("multi_label", ("Pneumonia",), rows, labels[:, None], patients, rows.astype(str))


def test_a_planted_shortcut_is_found_and_after_shuffling_it_is_not():
    embeddings, view, _, patients = planted()
    found = readability(embeddings, view, patients, BOOTSTRAP)
    assert found.value >= 0.95
    rng = np.random.default_rng(1)
    shuffled = np.repeat(rng.permutation(view[::2]), 2)
    absent = readability(embeddings, shuffled, patients, BOOTSTRAP)
    assert absent.low < 0.5 < absent.high


def test_images_of_one_patient_do_not_tell_a_fact_of_the_other_ones():
    """The embedding names the patient, who has the fact by chance. Read within patients it would be 1."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(60), 6).astype(str)
    embeddings = np.repeat(rng.normal(size=(60, 40)), 6, axis=0)
    sex = np.repeat(rng.choice(["F", "M"], 60), 6)
    found = readability(embeddings, sex, patients, BOOTSTRAP)
    assert found.low < 0.5 < found.high


def test_unknown_and_rare_groups_are_not_read():
    embeddings, view, _, patients = planted(100)
    assert readability(embeddings, np.full(100, "AP"), patients, BOOTSTRAP) is None
    rare = np.where(np.arange(100) < 10, "PA", "")  # five patients of one group
    assert readability(embeddings, rare, patients, BOOTSTRAP) is None
    with pytest.raises(ValueError, match="finite"):
        readability(np.full((100, 2), np.nan), view, patients, BOOTSTRAP)


def test_three_groups_are_read_one_against_the_rest():
    rng = np.random.default_rng(3)
    decade = rng.choice(["20-29", "50-59", "80-89"], 300)
    embeddings = rng.normal(size=(300, 5))
    embeddings[:, 0] += 6 * (decade == "80-89")
    row = readable_facts(embeddings, {"age": decade}, np.arange(300), BOOTSTRAP)["age"]
    assert (row["num_images"], row["num_groups"]) == (300, 3)
    assert 0.6 < row["auroc"]["value"] < 0.9  # one of three is read


def test_the_archive_is_read_where_it_is_written_into_the_embeddings():
    rng = np.random.default_rng(4)
    ids = np.arange(80).astype(str)
    here, there = rng.normal(size=(2, 80, 6))
    alike = archive_readability({"a": (here, ids), "b": (there, ids)}, BOOTSTRAP)
    assert alike["auroc"]["low"] < 0.5 < alike["auroc"]["high"]
    marked = archive_readability({"a": (here, ids), "b": (there + 4 * np.eye(6)[0], ids)}, BOOTSTRAP)
    assert marked["auroc"]["value"] >= 0.95
    assert archive_readability({"a": (here, ids)}, BOOTSTRAP) is None


@pytest.fixture(scope="module")
def phantoms():
    """Radiographs uint8 (240, 32, 32, 1), and their patients."""
    rng = np.random.default_rng(6)
    studies = list(itertools.islice(draw_studies(rng, 240, "x"), 240))
    images = np.stack([draw_radiograph(study.findings, rng, 32) for study in studies])[..., None]
    return images, np.array([study.patient_id for study in studies])


def embed_pictures(images):
    """Embeddings of a convolutional network with random weights."""
    keras.utils.set_random_seed(0)
    config = ImageEncoderConfig(backbone="small_resnet", width=32, image_size=32)
    encoder = ImageEncoder(config, projection_dim=128)
    return keras.ops.convert_to_numpy(encoder(images / 127.5 - 1).embeddings_unnormalized)


def test_an_archive_written_into_pictures_is_read_and_after_shuffling_it_is_not(phantoms):
    """One archive's images bear its marker: a bright plate of 6 x 9 pixels in the upper corner."""
    images, patients = phantoms
    rng = np.random.default_rng(7)
    of_patient = dict(zip(np.unique(patients), rng.permutation(len({*patients})) % 2, strict=True))
    second = np.array([of_patient[p] for p in patients]) == 1
    marked = images.copy()
    marked[second, 1:7, 1:10] = 255

    def read(pictures, archive):
        embeddings = embed_pictures(pictures)
        sets = {str(k): (embeddings[archive == k], patients[archive == k]) for k in (False, True)}
        return archive_readability(sets, BOOTSTRAP)["auroc"]

    assert read(marked, second)["value"] >= 0.95
    for pictures, archive in ((images, second), (marked, rng.permutation(second))):
        absent = read(pictures, archive)
        assert absent["low"] < 0.5 < absent["high"]


def test_equal_strata_take_a_shortcut_away_and_leave_a_true_finding():
    _, view, labels, patients = planted(2000)
    rng = np.random.default_rng(5)
    by_view = np.where(view == "AP", 1.0, 0.0) + 0.1 * rng.normal(size=2000)
    by_finding = labels + rng.normal(size=2000)
    for scores, true in ((by_view, False), (by_finding, True)):
        table = stratified(task_of(labels, patients), scores[:, None], {"view_position": view}, BOOTSTRAP)
        row = table["view_position"]["Pneumonia"]
        assert row["all"]["value"] == pytest.approx(roc_auc_score(labels, scores))
        for stratum, estimate in row["within"].items():
            inside = view == stratum
            assert estimate["value"] == pytest.approx(roc_auc_score(labels[inside], scores[inside]))
        if true:
            assert row["reweighted"]["value"] == pytest.approx(row["all"]["value"], abs=0.05)
        else:
            assert row["all"]["value"] > 0.75
            assert row["reweighted"]["low"] < 0.5 < row["reweighted"]["high"]


def test_weights_make_strata_equal_and_keep_the_number_of_images():
    _, view, labels, _ = planted(300)
    view = view.copy()
    view[:20], labels[20:25] = "", np.nan
    view[25:30], labels[25:30] = "LATERAL", 1.0  # a stratum without negatives
    weights = equal_strata_weights(labels, view)
    assert not weights[:30].any()
    shares = [
        weights[(view == "AP") & (labels == label)].sum() / weights[labels == label].sum() for label in (0, 1)
    ]
    assert shares[0] == pytest.approx(shares[1])
    assert weights.sum() == pytest.approx(270)


def test_subgroups_are_those_of_the_group_alone_and_few_positives_claim_nothing():
    _, view, labels, patients = planted(400)
    scores = labels + np.random.default_rng(6).normal(size=400)
    facts = {
        "view_position": view,
        "age": np.where(np.arange(400) < 380, "63", "91"),
        "sex": np.full(400, ""),
    }
    groups = groups_of(facts)
    assert list(groups) == ["age", "view_position"]
    found = subgroups(task_of(labels, patients), scores[:, None], groups, BOOTSTRAP).metrics
    inside = view == "PA"
    row = found["view_position"]["PA"]
    assert (row["num_images"], row["num_patients"]) == (inside.sum(), len(set(patients[inside])))
    estimate = row["findings"]["Pneumonia"]["auroc"]
    assert estimate["value"] == pytest.approx(roc_auc_score(labels[inside], scores[inside]))
    assert estimate["low"] < estimate["value"] < estimate["high"]
    oldest = found["age"]["90+"]
    assert oldest["num_patients"] == 10
    assert oldest["findings"]["Pneumonia"]["auroc"] is None
    assert sum(oldest["findings"]["Pneumonia"][key] for key in ("num_positive", "num_negative")) == 20
    section = subgroups_section(Subgroups(found))
    assert [row[0] for row in section.tables[0].rows] == ["60-69", "90+"]
    assert section.tables[0].rows[1][-1] == "–"


def test_sections_show_both_tables():
    embeddings, view, labels, patients = planted()
    facts = {"view_position": view}
    readable = readable_facts(embeddings, facts, patients, BOOTSTRAP)
    strata = stratified(task_of(labels, patients), embeddings[:, [3]], facts, BOOTSTRAP)
    section = shortcuts_section(Shortcuts({"readable": readable, "strata": strata}))
    assert [table.title for table in section.tables] == ["What the embeddings tell", "Findings by view"]
    assert section.tables[1].header == ("View", "all", "equal strata", "within AP", "within PA")


def with_facts(batches, seed=0):
    """Batches whose first pixel row tells the view, and the view of each image."""
    rng = np.random.default_rng(seed)
    for batch in batches:
        view = rng.choice(["AP", "PA"], len(batch["images"]))
        sex, age = rng.choice(["F", "M"], len(view)), rng.integers(20, 90, len(view))
        batch |= {"view_position": view, "sex": sex, "age": age}
    return batches


def test_an_evaluation_has_subgroups_and_shortcuts(world, config):
    tasks = ("zero_shot", "subgroups", "shortcuts")
    config = dataclasses.replace(config, tasks=tasks, task="multi_label", bootstrap=20)
    found = world.evaluate(config, with_facts(world.image_batches(400))).metrics
    assert set(found["subgroups"]) == {"sex", "age", "view_position"}
    assert set(found["shortcuts"]["readable"]) == {"sex", "age", "view_position"}
    assert set(found["shortcuts"]["strata"]["sex"]) == set(world.findings)
    plain = world.evaluate(config, world.image_batches(400)).metrics
    assert set(plain) == {"zero_shot"}  # records without these facts
