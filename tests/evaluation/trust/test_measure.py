"""Negation, prompts, and all tables of trust of one data set."""

import dataclasses

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.report import figures_of, write
from medclip_keras.evaluation.tasks import Task
from medclip_keras.evaluation.trust.measure import Scored, measure_trust
from medclip_keras.evaluation.trust.negation import negation, negation_texts
from medclip_keras.evaluation.trust.prompt_spread import prompt_areas, spread

CLASSES = ("Edema", "Mass")


def task_of(labels, per_patient=1, name="multi_label"):
    rows = np.arange(len(labels))
    patients = (rows // per_patient).astype(str)
    return Task(name, CLASSES, rows, np.asarray(labels, float), patients, rows.astype(str))


def test_negation_is_counted_on_each_side_by_hand():
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 0], [0, 0], [np.nan, 0]])
    margins = {"Edema": np.array([0.2, -0.1, 0.0, -0.3, 0.1, 9.0]), "Mass": np.zeros(6)}
    found = negation(task_of(labels), margins, Bootstrap(0, seed=0))
    values = {key: estimate.value for key, estimate in found["Edema"].items()}
    assert values["stated_where_present"] == pytest.approx(1 / 3)  # a tie is no answer
    assert values["denied_where_absent"] == pytest.approx(1 / 2)
    assert values["auroc"] == pytest.approx(roc_auc_score(labels[:5, 0], margins["Edema"][:5]))
    assert np.isnan(found["Mass"]["stated_where_present"].value)  # no image has it
    assert found["Mass"]["denied_where_absent"].value == 0  # a model that does not read "no"


def test_a_model_that_reads_no_and_one_that_does_not():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 2)) < 0.4).astype(float)
    reads = 2 * labels[:, 0] - 1 + 0.1 * rng.normal(size=300)
    found = negation(
        task_of(labels), {"Edema": reads, "Mass": 1 + rng.normal(size=300) / 9}, Bootstrap(99, 0)
    )
    assert all(estimate.value == 1 for estimate in found["Edema"].values())
    assert found["Mass"]["stated_where_present"].value == 1
    assert found["Mass"]["denied_where_absent"].value == 0
    assert found["Mass"]["auroc"].low < 0.5 < found["Mass"]["auroc"].high


def test_sentences_of_negation_keep_capitals_of_abbreviations():
    assert negation_texts("COVID Pneumonia") == (
        "There is COVID pneumonia.",
        "There is no COVID pneumonia.",
    )


def planted_prompts(rng, num_images=400):
    """Edema's second prompt knows the truth, its first does not; logits without normal prompts."""
    labels = (rng.random((num_images, 2)) < 0.5).astype(float)
    logits = rng.normal(size=(num_images, 3))
    logits[:, 1] += 3 * labels[:, 0]
    prompts = ClassPrompts.of({"Edema": ["a", "b"], "Mass": ["c"]})
    scores = np.stack([logits[:, :2].mean(1), logits[:, 2]], axis=1)
    return Scored(task_of(labels), logits, scores), prompts


def test_validation_chooses_the_prompt_that_knows():
    rng = np.random.default_rng(1)
    (test, prompts), (valid, _) = planted_prompts(rng), planted_prompts(rng)
    areas = prompt_areas(test.task, test.logits, test.scores, prompts, "Edema")
    expected = [roc_auc_score(test.task.labels[:, 0], test.logits[:, k]) for k in (0, 1)]
    np.testing.assert_allclose(areas, expected)
    found = measure_trust(test, valid, prompts, {}, Bootstrap(0, 0)).metrics["prompts"]["Edema"]
    assert (found["worst"], found["best"]) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert (found["chosen"], found["chosen_number"]) == (found["best"], 2)
    assert found["std"] == pytest.approx(abs(expected[1] - expected[0]) / 2)


def test_a_prompt_of_a_single_finding_competes_with_the_other_classes():
    """The score is the prompt less the mean of both classes: half the difference of the two."""
    rng = np.random.default_rng(2)
    test, prompts = planted_prompts(rng)
    labels = np.eye(2)[rng.integers(0, 2, len(test.scores))]
    single = task_of(labels, name="single_finding")
    areas = prompt_areas(single, test.logits, test.scores, prompts, "Edema")
    expected = [roc_auc_score(labels[:, 0], test.logits[:, k] - test.scores[:, 1]) for k in (0, 1)]
    np.testing.assert_allclose(areas, expected)


def test_an_undefined_spread_has_no_figure():
    found = spread(np.full(3, np.nan), np.ones(3))
    assert found == {"num_prompts": 3} | dict.fromkeys(
        ("mean", "std", "worst", "best", "chosen", "chosen_number")
    )


def overconfident_findings(rng, num_images=3000):
    """Two findings with true probability sigmoid(z) and score 3 z + 1, two images a patient."""
    z = 2 * rng.normal(size=(num_images, 2))
    labels = (rng.random(z.shape) < expit(z)).astype(float)
    return Scored(task_of(labels, per_patient=2), 3 * z + 1, 3 * z + 1)


def test_tables_of_planted_scores_have_the_known_answers():
    rng = np.random.default_rng(3)
    test, valid = overconfident_findings(rng), overconfident_findings(rng)
    prompts = ClassPrompts.of({"Edema": ["a"], "Mass": ["b"]})
    result = measure_trust(test, valid, prompts, {}, Bootstrap(50, 0))
    calibrated = result.metrics["calibration"]
    assert list(calibrated) == ["all classes", *CLASSES]
    assert calibrated["Edema"]["slope"] == pytest.approx(1 / 3, rel=0.1)
    assert all(row["error_after"] < 0.03 < row["error_before"] for row in calibrated.values())
    assert set(result.reliability) == {"before", "after"}
    for name in CLASSES:
        points = result.metrics["operating_points"][name]
        at = {point: found["threshold"] for point, found in points.items()}
        k = CLASSES.index(name)
        negative = test.scores[test.task.labels[:, k] == 0, k]
        specificity = points["specificity_90"]["specificity"]
        assert specificity["value"] == pytest.approx((negative < at["specificity_90"]).mean())
        assert specificity["low"] < specificity["value"] < specificity["high"]
        assert specificity["value"] == pytest.approx(0.9, abs=0.03)
        assert points["sensitivity_90"]["sensitivity"]["value"] == pytest.approx(0.9, abs=0.03)
        row = result.metrics["conformal"][name]
        assert row["coverage"] == pytest.approx(0.9, abs=0.02)
        assert 0 < row["decided"] < 1
        assert row["num_patients"] == 1500


@pytest.mark.parametrize("task", ["single_finding", "multi_label"])
def test_an_evaluation_has_every_table_and_its_page_shows_them(world, config, tmp_path, task):
    config = dataclasses.replace(config, task=task, tasks=("zero_shot", "trust"), bootstrap=20)
    labelled = {"world": ((), world.image_batches(120, seed=7))}
    result = world.evaluate(config, labelled=labelled)
    assert set(result.metrics) == {"zero_shot", "trust"}
    found = result.metrics["trust"]
    assert 0 < found["num_validation_images"] <= 120
    assert list(found["negation"]) == list(world.findings)
    # The oracle's text tower does not read "no": both sentences are the same to it.
    assert {row["auroc"]["value"] for row in found["negation"].values()} == {0.5}
    assert {row["best"] for row in found["prompts"].values()} == {1.0}
    points = found["operating_points"]["Edema"]["specificity_90"]
    assert points["sensitivity"]["value"] == 1.0
    assert points["specificity"]["value"] >= 0.9
    conformal = found["conformal"]["all classes" if task == "single_finding" else "Edema"]
    assert conformal["coverage"] > 0.8
    assert "reliability" in figures_of(result)
    write({"world": result}, tmp_path, {"run": "r"})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for title in ("Calibration", "Operating points", "Conformal sets", "Negation", "Choice of the prompt"):
        assert f"<h4>{title}</h4>" in page
    assert "Edema, 90 % specificity" in page
    assert "Without labelled validation images" not in page


def test_without_validation_images_what_needs_them_is_missing_and_the_page_says_so(world, config, tmp_path):
    config = dataclasses.replace(config, tasks=("zero_shot", "trust"), bootstrap=20)
    result = world.evaluate(config)
    found = result.metrics["trust"]
    assert (found["conformal"], found["operating_points"]) == ({}, {})
    assert set(found["calibration"]["all classes"]) == {"error_before"}
    assert found["prompts"]["Edema"]["chosen"] is None
    write({"world": result}, tmp_path, {"run": "r"})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Without labelled validation images" in page
    assert "<h3>Conformal sets</h3>" not in page


def test_validation_images_change_no_figure_of_the_test_images(world, config):
    config = dataclasses.replace(config, tasks=("zero_shot", "trust"), bootstrap=20)
    one, other = (
        world.evaluate(config, labelled={"world": ((), world.image_batches(120, seed=seed))}).metrics
        for seed in (7, 8)
    )
    assert one["zero_shot"] == other["zero_shot"]
    assert one["trust"]["negation"] == other["trust"]["negation"]
    before = [found["trust"]["calibration"]["all classes"]["error_before"] for found in (one, other)]
    assert before[0] == before[1]


def test_calibration_is_fitted_on_validation_images_alone():
    """The validation's scores are right as they are, the test's three times too large: slope 1, no help."""
    rng = np.random.default_rng(5)
    test, valid = overconfident_findings(rng), overconfident_findings(rng)
    valid = Scored(valid.task, valid.logits, (valid.scores - 1) / 3)
    prompts = ClassPrompts.of({"Edema": ["a"], "Mass": ["b"]})
    found = measure_trust(test, valid, prompts, {}, Bootstrap(0, 0)).metrics["calibration"]["Edema"]
    assert found["slope"] == pytest.approx(1, rel=0.1)
    assert found["error_after"] == pytest.approx(found["error_before"], abs=0.03)
