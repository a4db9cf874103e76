import math

import numpy as np
import pytest

from medclip_keras.config import EvaluationConfig, ExportConfig, RunConfig, Threshold
from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.comparison import check_thresholds, named_estimates, paired_differences
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.results import ClassificationResult, DatasetResult, RetrievalResult
from medclip_keras.evaluation.tasks import Task

PATIENTS = np.array(["a", "a", "b", "c", "d", "e"])
CLASSES = np.array([0, 0, 1, 1, 0, 1])


def task() -> Task:
    labels = np.eye(2)[CLASSES]
    return Task("single_finding", ("Edema", "Mass"), np.arange(6), labels, PATIENTS, np.arange(6).astype(str))


def scores(correct: list[int]) -> Floats:
    """Scores by which an image is classified correctly or not."""
    return np.where(np.array(correct)[:, None] == 1, np.eye(2)[CLASSES], 1 - np.eye(2)[CLASSES])


def result(ours, theirs) -> dict[str, DatasetResult]:
    by_model = {"ours": scores(ours), "theirs": scores(theirs)}
    probe = ClassificationResult(task(), {}, {"accuracy": 0.5, "auroc": 0.5}, {}, {"1": by_model})
    return {"own": DatasetResult(probe=probe)}


def test_a_paired_difference_is_that_of_the_values_and_its_interval_that_of_the_patients():
    ours, theirs = [1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]
    found = paired_differences(result(ours, theirs), "ours", "theirs", Bootstrap(4000, 0))
    assert set(found) == {
        f"own.probe.1.{group}{metric}"
        for group in ("", "by_class.Edema.", "by_class.Mass.")
        for metric in ("accuracy", "auroc", "auprc", "f1" if group else "macro_f1")
    } | {"own.probe.1.balanced_accuracy"}
    accuracy = found["own.probe.1.accuracy"]
    assert accuracy.value == pytest.approx(5 / 6 - 2 / 6)
    # Restated with patients as groups: a has two images that differ, d one, the others none.
    rng = np.random.default_rng(1)
    counts = rng.multinomial(5, [0.2] * 5, size=20_000)  # of a, b, c, d, e
    drawn = (2 * counts[:, 0] + counts[:, 3]) / (counts @ np.array([2, 1, 1, 1, 1]))
    expected = np.percentile(drawn, [2.5, 97.5])
    np.testing.assert_allclose([accuracy.low, accuracy.high], expected, atol=0.05)
    assert found["own.probe.1.by_class.Mass.accuracy"].value == 0


def test_equal_models_differ_by_nothing_though_each_alone_is_uncertain():
    same = [1, 0, 1, 1, 0, 1]
    for found in paired_differences(result(same, same), "ours", "theirs", Bootstrap(200, 0)).values():
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_retrieval_is_compared_too():
    candidates = np.array([0, 1])
    right = np.eye(2)[CLASSES]
    found = RetrievalResult(task(), {}, {}, {}, candidates, {"ours": right, "theirs": 1 - right})
    differences = paired_differences(
        {"own": DatasetResult(retrieval=found)}, "theirs", "ours", Bootstrap(9, 0)
    )
    assert {name: estimate.value for name, estimate in differences.items()} == {
        "own.retrieval.precision_at_1": -1,
        "own.retrieval.precision_at_2": 0,
    }


def test_names_of_metrics_json_leave_counts_and_other_models_out():
    estimate = {"value": 0.5, "low": None, "high": 0.6}
    trained = {"1": {"auroc": estimate, "strength": 0.1, "by_class": {"Mass": {"auroc": estimate}}}}
    probe = {"num_images": 3, "baseline": {"auroc": 0.5}, "trained": trained, "untrained": trained}
    retrieval = {"trained": {"precision_at_1": estimate}}
    found = named_estimates({"data": {"v1.2": {"probe": probe, "retrieval": retrieval}}})
    assert list(found) == [
        "v1.2.probe.1.auroc", "v1.2.probe.1.by_class.Mass.auroc", "v1.2.retrieval.precision_at_1",
    ]  # fmt: skip
    assert math.isnan(found["v1.2.probe.1.auroc"].low)
    assert found["v1.2.probe.1.auroc"].high == 0.6


def config(metric: str, **evaluation) -> RunConfig:
    export = ExportConfig(thresholds=(Threshold(metric, at_least=0.5),))
    return RunConfig("r", evaluation=EvaluationConfig(**evaluation), export=export)


@pytest.mark.parametrize(
    ("metric", "evaluation"),
    [
        ("zero_shot.ensemble.accuracy", {}),
        ("my data.v2.zero_shot.single.by_class.Pleural Effusion.auroc", {}),
        ("retrieval.precision_at_10", {}),
        ("probe.0.1.auroc", {"tasks": ("probe",), "probe_fractions": (0.1, 1.0)}),
    ],
)
def test_metrics_that_the_evaluation_will_give_are_accepted(metric, evaluation):
    check_thresholds(config(metric, **evaluation))


@pytest.mark.parametrize(
    ("metric", "evaluation", "advice"),
    [
        ("zero_shot.ensemble.acuracy", {}, "Near names: zero_shot.ensemble.accuracy"),
        ("zero_shot.ensemble.accuracy", {"task": "multi_label"}, "Near names: zero_shot.ensemble.auroc"),
        ("probe.1.auroc", {}, "must be metrics that the run's evaluation gives"),
        ("auroc", {}, "Near names|Known: zero_shot"),
    ],
)
def test_a_metric_that_no_evaluation_gives_is_refused_before_training(metric, evaluation, advice):
    with pytest.raises(ValueError, match=advice):
        check_thresholds(config(metric, **evaluation))
