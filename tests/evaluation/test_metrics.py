import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from medclip_keras.evaluation.metrics import (
    Bootstrap,
    auroc,
    mean_of,
    precision_at_k,
    resample_weights,
    weighted_mean,
)


def unweighted(n):
    return np.ones((1, n))


def test_auroc_equals_the_share_of_pairs_in_order():
    # Positives 0.35 and 0.8, negatives 0.1 and 0.4: of four pairs three are in order.
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    assert auroc(scores, labels, unweighted(4))[0] == 0.75


def test_auroc_counts_a_tie_one_half():
    assert auroc(np.array([1.0, 1.0, 1.0]), np.array([0, 1, 0]), unweighted(3))[0] == 0.5


def test_auroc_equals_sklearn_with_ties_and_weights():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 7, 60) / 7
    labels = rng.integers(0, 2, 60)
    weights = rng.integers(0, 4, (5, 60)).astype(float)
    expected = [sklearn_metrics.roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auroc(scores, labels, weights), expected, atol=1e-12)


def test_auroc_is_undefined_with_one_class_and_ignores_unknown_labels():
    scores = np.array([0.1, 0.9, 0.5])
    assert np.isnan(auroc(scores, np.array([1, 1, 1]), unweighted(3))[0])
    assert auroc(scores, np.array([0, 1, np.nan]), unweighted(3))[0] == 1.0


@pytest.mark.parametrize("law", ["permutation", "monotone map"])
def test_auroc_does_not_change_under(law):
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=40), rng.integers(0, 2, 40)
    before = auroc(scores, labels, unweighted(40))
    if law == "permutation":
        order = rng.permutation(40)
        scores, labels = scores[order], labels[order]
    else:
        scores = np.exp(scores)
    np.testing.assert_allclose(auroc(scores, labels, unweighted(40)), before)


def test_auroc_of_opposite_scores_is_the_complement():
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=40), rng.integers(0, 2, 40)
    both = auroc(scores, labels, unweighted(40)) + auroc(-scores, labels, unweighted(40))
    np.testing.assert_allclose(both, 1.0)


def test_weighted_mean_leaves_nan_out():
    assert weighted_mean(np.array([1.0, np.nan, 0.0]), np.array([[3.0, 9.0, 1.0]]))[0] == 0.75


def test_precision_at_k_counts_the_relevant_among_the_nearest():
    similarities = np.array([[0.3, 0.9, 0.1, 0.8], [0.0, 0.1, 0.2, 0.3]])
    relevant = np.array([[True, True, False, False], [True, False, False, True]])
    assert precision_at_k(similarities, relevant, 1).tolist() == [1.0, 1.0]
    assert precision_at_k(similarities, relevant, 2).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(precision_at_k(similarities, relevant, 3), [2 / 3, 1 / 3])


def test_precision_at_k_does_not_depend_on_the_order_of_candidates():
    rng = np.random.default_rng(3)
    similarities, relevant = rng.normal(size=(5, 30)), rng.random((5, 30)) < 0.3
    order = rng.permutation(30)
    np.testing.assert_array_equal(
        precision_at_k(similarities, relevant, 10),
        precision_at_k(similarities[:, order], relevant[:, order], 10),
    )


def test_resamples_draw_as_many_patients_as_there_are_and_keep_their_samples_together():
    patients = ["b", "a", "b", "c", "b"]
    weights = resample_weights(patients, 200, np.random.default_rng(0))
    assert weights.shape == (200, 5)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 0], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert len(np.unique(weights, axis=0)) > 5


def test_interval_does_not_shrink_when_a_patient_is_copied():
    values = np.random.default_rng(4).integers(0, 2, 30).astype(float)
    patients = [f"patient {i:02}" for i in range(30)]
    once = Bootstrap(500, seed=0).estimate({"mean": lambda w: weighted_mean(values, w)}, patients)["mean"]
    copied = {"mean": lambda w: weighted_mean(np.repeat(values, 10), w)}
    tenfold = Bootstrap(500, seed=0).estimate(copied, np.repeat(patients, 10))["mean"]
    np.testing.assert_allclose(list(vars(once).values()), list(vars(tenfold).values()))
    assert once.low < once.value < once.high


def test_interval_is_that_of_the_normal_approximation():
    # 300 independent patients, half of them right: standard error sqrt(0.25 / 300) = 0.0289.
    values = np.tile([0.0, 1.0], 150)
    found = Bootstrap(4000, seed=1).estimate({"mean": lambda w: weighted_mean(values, w)}, range(300))["mean"]
    assert found.value == 0.5
    np.testing.assert_allclose(
        [found.low, found.high], [0.5 - 1.96 * 0.0289, 0.5 + 1.96 * 0.0289], atol=0.006
    )


def test_estimate_depends_on_the_seed_alone():
    values = np.random.default_rng(5).normal(size=50)
    statistic = {"mean": lambda w: weighted_mean(values, w)}
    first, again, other = (Bootstrap(200, seed).estimate(statistic, range(50))["mean"] for seed in (7, 7, 8))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == other.value


def test_estimate_is_the_same_when_memory_forces_chunks(monkeypatch):
    values = np.random.default_rng(6).normal(size=50)
    statistic = {"mean": lambda w: weighted_mean(values, w)}
    whole = Bootstrap(100, seed=0).estimate(statistic, range(50))
    monkeypatch.setattr("medclip_keras.evaluation.metrics._WEIGHTS_AT_ONCE", 350)
    chunked = Bootstrap(100, seed=0).estimate(statistic, range(50))
    assert vars(chunked["mean"]) == pytest.approx(vars(whole["mean"]))


def test_no_resamples_give_values_without_intervals():
    found = Bootstrap(0, seed=0).estimate({"mean": lambda w: weighted_mean(np.ones(3), w)}, ["a", "b", "c"])[
        "mean"
    ]
    assert found.to_dict() == {"value": 1.0, "low": None, "high": None}


def test_macro_mean_leaves_undefined_statistics_out():
    macro = mean_of([lambda w: np.array([0.5, np.nan]), lambda w: np.array([1.0, 0.25])])
    assert macro(np.ones((2, 1))).tolist() == [0.75, 0.25]
