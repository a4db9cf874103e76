import dataclasses

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from medclip_keras.config import EvaluationConfig
from medclip_keras.evaluation.classification import confusion, estimate_scores
from medclip_keras.evaluation.embedder import ImageIndex
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.results import ClassificationResult, DatasetResult
from medclip_keras.evaluation.spread import draws_tables, notes_of
from medclip_keras.evaluation.table import rows, sizes
from medclip_keras.evaluation.tasks import Task, first_of_each_class, make_task, single_finding_task
from medclip_keras.evaluation.zero_shot import class_scores, classify, draw_columns

NAMES = ("No Finding", "Edema", "Mass")


def index(states):
    n = len(states)
    keys = np.array([f"k{(7 * i) % n}" for i in range(n)])
    return ImageIndex(keys, np.array([f"p{i}" for i in range(n)]), np.array(states, np.int8))


def test_single_is_the_maximum_and_ensemble_the_mean_of_the_prompts():
    prompts = ClassPrompts.of({"Edema": ["a", "b", "c"], "Mass": ["d"]})
    logits = np.array([[1.0, 5.0, 0.0, 3.0], [2.0, 2.0, 5.0, 4.0]])
    np.testing.assert_array_equal(
        class_scores(logits, prompts, ["Edema", "Mass"], "single"), [[5, 3], [5, 4]]
    )
    np.testing.assert_array_equal(
        class_scores(logits, prompts, ["Mass", "Edema"], "ensemble"), [[3, 2], [4, 3]]
    )


def test_scores_are_the_distance_to_the_normal_prompts():
    prompts = ClassPrompts.of({"Edema": ["a", "b"], "Mass": ["c"], "No Finding": ["d", "e"]})
    logits = np.array([[1.0, 3.0, 6.0, 2.0, 1.0]])
    classes = ["Abnormal", "Edema", "Mass"]
    np.testing.assert_allclose(class_scores(logits, prompts, classes, "single"), [[6 - 2, 3 - 2, 6 - 2]])
    np.testing.assert_allclose(
        class_scores(logits, prompts, classes, "ensemble"), [[10 / 3 - 1.5, 2 - 1.5, 6 - 1.5]]
    )


def test_single_finding_task_takes_the_smallest_keys_of_each_class():
    states = [[2, 1, 0], [2, 1, 2], [2, 1, 1], [1, 2, 2], [2, 1, 3], [2, 0, 1]]
    task = single_finding_task(index(states), ("Mass", "Edema"), NAMES, per_class=2)
    # Keys are k0, k1, … in this order; rows 0, 1 and 4 have Edema alone, row 5 Mass alone.
    assert task.rows.tolist() == [5, 0, 1]
    assert task.class_index.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(task.labels, [[1, 0], [0, 1], [0, 1]])
    assert task.patient_ids.tolist() == ["p5", "p0", "p1"]


def test_first_of_each_class_orders_by_key_not_by_row():
    classes, keys = np.array([1, 0, 1, 1]), np.array(["d", "a", "c", "b"])
    assert first_of_each_class(classes, keys, 2).tolist() == [1, 3, 2]


def test_multi_label_task_does_not_know_what_is_unlabelled():
    unlabelled = [4, 4, 4]
    config = EvaluationConfig(task="multi_label", findings=("Abnormal", NAMES[1]))
    states = np.array([[1, 4, 4], [2, 1, 4], unlabelled, [2, 0, 4]])[:, : len(NAMES)]
    task = make_task(index(states), config, NAMES, per_class=1)
    np.testing.assert_array_equal(task.labels, [[0, np.nan], [1, 1], [np.nan, np.nan], [1, 0]])
    nobody = make_task(index(states[2:3]), config, NAMES, per_class=1)
    assert nobody.undefined == config.findings
    assert nobody.averaged_classes == ()


def test_multi_label_task_does_not_know_what_is_uncertain():
    states = [[1, 2, 0], [2, 1, 3], [3, 0, 2]]
    config = EvaluationConfig(task="multi_label", findings=("Abnormal", "Edema", "Mass"))
    task = make_task(index(states), config, NAMES, per_class=1)
    np.testing.assert_array_equal(task.labels, [[0, 0, 0], [1, 1, np.nan], [1, 0, 0]])
    assert task.rows.tolist() == [0, 1, 2]


def test_accuracy_and_confusion_are_counted_by_hand():
    states = [[2, 1, 0]] * 3 + [[2, 0, 1]] * 2
    task = single_finding_task(index(states), ("Edema", "Mass"), NAMES, per_class=10)
    scores = np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = estimate_scores(task, scores, Bootstrap(0, seed=0)).to_dict()
    assert found["accuracy"]["value"] == 3 / 5
    assert found["by_class"]["Edema"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["by_class"]["Mass"]["accuracy"]["value"] == 1 / 2
    assert confusion(task, scores).tolist() == [[2, 1], [1, 1]]
    # Differences Edema - Mass: positives 1, -1, 3, negatives -1, 1: 4 of 6 pairs, two ties counted half.
    assert found["auroc"]["value"] == pytest.approx(4 / 6)


def test_a_constant_added_to_an_image_changes_no_single_finding_figure():
    rng = np.random.default_rng(0)
    states = np.eye(3, dtype=np.int8)[rng.integers(1, 3, 30)]
    task = single_finding_task(index(states), ("Edema", "Mass"), NAMES, per_class=30)
    scores = rng.normal(size=(30, 2))
    shifted = scores + 10 * rng.normal(size=(30, 1))
    bootstrap = Bootstrap(50, seed=0)
    assert estimate_scores(task, scores, bootstrap) == estimate_scores(task, shifted, bootstrap)


def test_a_class_without_images_has_no_figure():
    task = single_finding_task(index([[2, 1, 0]] * 4), ("Edema", "Mass"), NAMES, per_class=10)
    found = estimate_scores(task, np.tile([1.0, 0.0], (4, 1)), Bootstrap(20, seed=0)).to_dict()
    assert found["by_class"]["Mass"] == {
        key: {"value": None, "low": None, "high": None} for key in ("accuracy", "auroc", "auprc", "f1")
    }


def test_a_class_without_images_is_no_choice():
    """Two of three classes have images: a baseline of 1/2, and the third class cannot be predicted."""
    states = [[2, 1, 0], [2, 0, 1], [2, 0, 1]]
    task = single_finding_task(index(states), ("No Finding", "Edema", "Mass"), NAMES, per_class=10)
    scores = np.array([[9.0, 2.0, 1.0], [9.0, 1.0, 2.0], [9.0, 2.0, 1.0]])
    found = estimate_scores(task, scores, Bootstrap(0, seed=0)).to_dict()
    assert task.undefined == ("No Finding",)
    # Always Mass: its F1 is 2 * 2/3 / (1 + 2/3) = .8, that of Edema 0; the positives are 1/3 and 2/3.
    expected = {"accuracy": 2 / 3, "balanced_accuracy": 1 / 2, "macro_f1": 0.4, "auroc": 0.5, "auprc": 1 / 2}
    without = {name: value for name, value in expected.items() if name != "auprc"}
    assert {name: task.baseline[name] for name in without} == pytest.approx(without)
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert confusion(task, scores).tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]
    result = ClassificationResult(task, task.counts(), task.baseline, {}, {})
    assert "for no image has them: No Finding" in sizes(DatasetResult(supervised=result))


def test_figures_of_accuracy_stand_beside_the_majority_class_and_equal_scikit_learn():
    rng = np.random.default_rng(4)
    truth = rng.choice([1, 2], size=40, p=[0.7, 0.3])
    states = np.where(np.eye(3, dtype=np.int8)[truth] == 1, 1, 2)
    task = single_finding_task(index(states), ("Edema", "Mass"), NAMES, per_class=40)
    scores = rng.normal(size=(40, 2)).round(1)  # with ties
    found = estimate_scores(task, scores, Bootstrap(0, seed=0)).overall
    predicted = scores.argmax(axis=1)
    assert found["accuracy"].value == pytest.approx(accuracy_score(task.class_index, predicted))
    balanced = balanced_accuracy_score(task.class_index, predicted)
    assert found["balanced_accuracy"].value == pytest.approx(balanced)
    guess = DummyClassifier(strategy="most_frequent").fit(scores, task.class_index)
    assert task.baseline["accuracy"] == guess.score(scores, task.class_index) > 0.5
    assert task.counts()["majority_class"] == "Edema"


@pytest.mark.parametrize("num_classes", [2, 4])
def test_macro_f1_and_auprc_of_one_choice_equal_scikit_learn(num_classes):
    rng = np.random.default_rng(num_classes)
    truth = np.append(np.arange(num_classes), rng.integers(0, num_classes, 60))
    names = tuple(f"class {k}" for k in range(num_classes))
    patients = np.arange(len(truth)).astype(str)
    labels = np.eye(num_classes)[truth]
    task = Task("single_finding", names, np.arange(len(truth)), labels, patients, patients)
    scores = rng.normal(size=labels.shape).round(1)  # with ties
    scores[:, 1] -= 1  # seldom predicted
    found = estimate_scores(dataclasses.replace(task), scores, Bootstrap(0, seed=0))
    predicted = scores.argmax(axis=1)
    assert found.overall["macro_f1"].value == pytest.approx(f1_score(truth, predicted, average="macro"))
    ranked = scores - scores.mean(axis=1, keepdims=True)
    enough = [name for name in names if name not in task.too_few]
    expected = [average_precision_score(labels[:, k], ranked[:, k]) for k in range(num_classes)]
    of_enough = [value for name, value in zip(names, expected, strict=True) if name in enough]
    assert found.overall["auprc"].value == pytest.approx(np.mean(of_enough))
    assert task.baseline["auprc"] == pytest.approx(labels.mean(axis=0)[[n in enough for n in names]].mean())
    guess = np.full(len(truth), labels.sum(axis=0).argmax())
    assert task.baseline["macro_f1"] == pytest.approx(
        f1_score(truth, guess, average="macro", labels=np.unique(truth), zero_division=0)
    )


def test_macro_f1_of_many_findings_is_at_validation_thresholds_or_absent():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (80, 2)).astype(float)
    scores = labels + rng.normal(size=labels.shape)
    patients = np.arange(80).astype(str)
    task = Task("multi_label", ("Edema", "Mass"), np.arange(80), labels, patients, patients)
    assert "macro_f1" not in estimate_scores(task, scores, Bootstrap(0, 0)).overall
    thresholds = np.array([0.5, 1.2])
    found = estimate_scores(task, scores, Bootstrap(0, 0), thresholds)
    assert found.overall["macro_f1"].value == pytest.approx(
        f1_score(labels, scores >= thresholds, average="macro")
    )
    called = f1_score(labels, np.ones_like(labels), average="macro")
    assert task.baseline_of_thresholds["macro_f1"] == pytest.approx(called)
    without = (
        estimate_scores(task, scores, Bootstrap(0, 0), np.array([0.5, np.nan])).overall["macro_f1"].value
    )
    assert without == pytest.approx(f1_score(labels[:, 0], scores[:, 0] >= 0.5))


def test_a_class_of_one_patient_has_no_figure_and_is_in_no_macro_mean():
    """Edema in two images of one patient, Mass in three patients, Hernia absent: one of three classes."""
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]], float)
    patients = np.array(["a", "a", "b", "c", "d", "e"])
    task = Task("multi_label", ("Edema", "Mass", "Hernia"), np.arange(6), labels, patients, patients)
    scores = np.arange(18.0).reshape(6, 3)
    estimates = {"ensemble": {"trained": estimate_scores(task, scores, Bootstrap(30, seed=0))}}
    by_class = estimates["ensemble"]["trained"].by_class
    assert np.isnan(by_class["Edema"]["auroc"].value)
    expected = roc_auc_score(labels[:, 1], scores[:, 1])
    assert by_class["Mass"]["auroc"].value == pytest.approx(expected)
    assert estimates["ensemble"]["trained"].overall["auroc"].value == pytest.approx(expected)
    result = DatasetResult(supervised=ClassificationResult(task, task.counts(), task.baseline, estimates, {}))
    assert result.metrics["supervised"]["too_few"] == ["Edema"]
    assert result.metrics["supervised"]["num_macro_classes"] == 1
    assert "one patient with or without the finding: Edema" in sizes(result)
    assert "positive: Edema 2, Mass 3, Hernia 0" in sizes(result)
    names = [row.name for row in rows(result)]
    assert "supervised macro AUROC of 1 of 3 classes, ensemble" in names
    of_classes = [name.split()[1] for name in names if name.startswith("  AUROC")]
    assert of_classes == ["Mass,"]  # the others would be rows of dashes


def test_a_single_patient_has_values_without_intervals():
    states = [[2, 1, 0], [2, 1, 0], [2, 0, 1]]
    of_one = dataclasses.replace(index(states), patient_ids=np.array(["p"] * 3))
    task = single_finding_task(of_one, ("Edema", "Mass"), NAMES, per_class=10)
    found = estimate_scores(task, np.eye(3)[:, :2], Bootstrap(50, seed=0)).overall
    # Rows (1, 0), (0, 1), (0, 0) are Edema, Edema, Mass: the first alone is right, and the tie goes to Edema.
    assert found["accuracy"].to_dict() == {"value": pytest.approx(1 / 3), "low": None, "high": None}
    assert found["auroc"].to_dict() == {"value": None, "low": None, "high": None}


def test_negated_contrast_subtracts_the_findings_own_negative_prompts():
    own = {"no Edema": ["e"], "no Mass": ["f"]}
    prompts = ClassPrompts.of({"Edema": ["a", "b"], "Mass": ["c"], "No Finding": ["d"]} | own)
    logits = np.array([[3.0, 5.0, 4.0, 1.0, 0.5, 7.0]])
    classes = ["Edema", "Mass", "Abnormal", "No Finding"]
    found = class_scores(logits, prompts, classes, "single", negated=True)
    np.testing.assert_allclose(found, [[5 - 0.5, 4 - 7, 5 - 1, 1 - 5]])


def test_draws_are_of_all_classes_and_differ():
    prompts = ClassPrompts.of({"Edema": [f"e{k}" for k in range(30)], "Mass": [f"m{k}" for k in range(6)]})
    first, *draws = draw_columns(prompts, num_prompts=10, num_draws=5, seed=0)
    assert first.tolist() == [*range(10), *range(30, 36)]
    for columns in draws:
        of_class = prompts.at(columns)
        assert [len(of_class.columns(name)) for name in of_class.classes] == [10, 3]
        assert len(set(of_class.texts)) == 13
    assert len({tuple(columns) for columns in draws}) == 5
    again = draw_columns(prompts, num_prompts=10, num_draws=5, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip([first, *draws], again, strict=True))


def test_the_spread_of_draws_is_that_of_evaluations_by_each_draw_alone():
    rng = np.random.default_rng(0)
    labels = np.eye(2)[rng.integers(0, 2, 40)]
    patients = np.arange(40).astype(str)
    task = Task("single_finding", ("Edema", "Mass"), np.arange(40), labels, patients, patients)
    prompts = ClassPrompts.of({"Edema": ["a", "b", "c", "d"], "Mass": ["e", "f", "g", "h"]})
    images, texts = rng.normal(size=(40, 6)), rng.normal(size=(8, 6))
    draws = draw_columns(prompts, 10, 3, seed=1)
    options = {"logit_scales": {"trained": 5.0}, "bootstrap": Bootstrap(0, 0)}
    found = classify(task, prompts, {"trained": images}, {"trained": texts}, draws=draws, **options)
    plain = classify(task, prompts, {"trained": images}, {"trained": texts}, **options)
    assert found.estimates == plain.estimates  # the figures beside the spread are of all prompts
    alone = [
        classify(task, prompts.at(columns), {"trained": images}, {"trained": texts[columns]}, **options)
        for columns in draws[1:]
    ]
    values = [one.estimates["single"]["trained"].overall["accuracy"].value for one in alone]
    spread = found.metrics["prompt_draws"]["single"]["trained"]["accuracy"]
    mean, std = pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1))
    assert spread == {"number": 3, "mean": mean, "std": std}
    assert spread["std"] > 0


def test_the_page_shows_draws_and_marks_unseen_classes():
    labels, patients = np.eye(2)[[0, 1, 0, 1]], np.array(list("abcd"))
    task = Task("single_finding", ("Edema", "COVID-19"), np.arange(4), labels, patients, patients)
    prompts = ClassPrompts.of({"Edema": ["a", "b"], "COVID-19": ["c", "d"]})
    rng = np.random.default_rng(0)
    images, texts = ({"trained": rng.normal(size=(4, 5))} for _ in range(2))
    options = {"logit_scales": {"trained": 1.0}, "bootstrap": Bootstrap(0, 0)}
    found = classify(task, prompts, images, texts, draws=draw_columns(prompts, 10, 5, 0), **options)
    found = dataclasses.replace(found, unseen=("COVID-19",))
    assert found.metrics["unseen"] == ["COVID-19"]
    (table,) = draws_tables(found)
    assert table.rows[0][0] == "single accuracy"
    assert " ± " in table.rows[0][1]
    assert notes_of(found) == ("Unseen in training, in images and sentences: COVID-19.",)
    assert notes_of(dataclasses.replace(found, unseen=())) == ()
    assert draws_tables(classify(task, prompts, images, texts, **options)) == ()
