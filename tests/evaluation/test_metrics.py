import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from medclip_keras.evaluation.metrics import (
    Bootstrap,
    auprc,
    auroc,
    best_f1_threshold,
    f1,
    mean_of,
    resample_weights,
    weighted_mean,
)


def unweighted(n):
    return np.ones((1, n))


def estimated_mean(values, patients, num_resamples, seed=0):
    statistic = {"mean": lambda weights: weighted_mean(values, weights)}
    return Bootstrap(num_resamples, seed).estimate(statistic, patients)["mean"]


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        # Positives 0.35 and 0.8, negatives 0.1 and 0.4: three of four pairs are in order.
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([1.0, 1.0, 1.0], [0, 1, 0], 0.5),  # a tie counts one half
        ([0.1, 0.9, 0.5], [1, 1, 1], np.nan),  # one class
        ([0.1, 0.9, 0.5], [0, 1, np.nan], 1.0),  # an unknown label
    ],
)
def test_auroc_is_the_share_of_pairs_in_order(scores, labels, expected):
    found = auroc(np.array(scores), np.array(labels), unweighted(len(scores)))
    np.testing.assert_array_equal(found, [expected])


def test_auroc_equals_sklearn_with_ties_and_weights():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 7, 60) / 7
    labels = rng.integers(0, 2, 60)
    weights = rng.integers(0, 4, (5, 60)).astype(float)
    expected = [sklearn_metrics.roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auroc(scores, labels, weights), expected, atol=1e-12)


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


def test_weighted_mean_ignores_nan():
    assert weighted_mean(np.array([1.0, np.nan, 0.0]), np.array([[3.0, 9.0, 1.0]]))[0] == 0.75


def test_resamples_draw_every_sample_of_a_patient_and_keep_the_number_of_patients():
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
    once = estimated_mean(values, patients, 500)
    tenfold = estimated_mean(np.repeat(values, 10), np.repeat(patients, 10), 500)
    np.testing.assert_allclose(list(vars(once).values()), list(vars(tenfold).values()))
    assert once.low < once.value < once.high


def test_interval_equals_the_normal_approximation():
    # 300 independent patients, half of them right: standard error sqrt(0.25 / 300) = 0.0289.
    found = estimated_mean(np.tile([0.0, 1.0], 150), range(300), 4000, seed=1)
    assert found.value == 0.5
    expected = [0.5 - 1.96 * 0.0289, 0.5 + 1.96 * 0.0289]
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.006)


def test_estimate_depends_on_the_seed_alone():
    values = np.random.default_rng(5).normal(size=50)
    first, again, other = (estimated_mean(values, range(50), 200, seed) for seed in (7, 7, 8))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == other.value


def test_estimate_does_not_depend_on_the_size_of_chunks(monkeypatch):
    values = np.random.default_rng(6).normal(size=50)
    whole = estimated_mean(values, range(50), 100)
    monkeypatch.setattr("medclip_keras.evaluation.metrics._WEIGHTS_AT_ONCE", 350)
    assert vars(estimated_mean(values, range(50), 100)) == pytest.approx(vars(whole))


def test_without_resamples_there_is_no_interval():
    found = estimated_mean(np.ones(3), ["a", "b", "c"], 0)
    assert found.to_dict() == {"value": 1.0, "low": None, "high": None}


def test_macro_mean_ignores_undefined_statistics():
    macro = mean_of([lambda w: np.array([0.5, np.nan]), lambda w: np.array([1.0, 0.25])])
    assert macro(np.ones((2, 1))).tolist() == [0.75, 0.25]


DEGENERATE = {
    "random": (np.random.default_rng(7).normal(size=50), np.random.default_rng(8).integers(0, 2, 50)),
    "ties": (np.random.default_rng(9).integers(0, 4, 60) / 4, np.random.default_rng(10).integers(0, 2, 60)),
    "constant scores": (np.full(9, 0.3), np.array([0, 1, 0, 0, 1, 0, 0, 0, 0])),
    "one positive, the lowest": (np.arange(6.0), np.eye(6)[0].astype(int)),
    "all positive": (np.arange(5.0), np.ones(5, int)),
    "huge scores": (np.array([-1e300, 0.0, 0.0, 1e300]), np.array([0, 1, 1, 0])),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_auprc_equals_average_precision_of_scikit_learn(case):
    scores, labels = DEGENERATE[case]
    weights = np.random.default_rng(0).integers(0, 4, (5, len(scores))).astype(float)
    weights[:, np.argmax(labels)] += 1  # a positive in each resample
    expected = [sklearn_metrics.average_precision_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(auprc(scores, labels, weights), expected, atol=1e-12)


@pytest.mark.parametrize("case", DEGENERATE)
def test_f1_equals_scikit_learn(case):
    scores, labels = DEGENERATE[case]
    weights = np.random.default_rng(1).integers(0, 4, (5, len(scores))).astype(float)
    weights[:, np.argmax(labels)] += 1
    for threshold in np.unique(scores):
        called = scores >= threshold
        expected = [sklearn_metrics.f1_score(labels, called, sample_weight=w) for w in weights]
        np.testing.assert_allclose(f1(called, labels, weights), expected, atol=1e-12)


def test_areas_without_a_positive_are_undefined_and_nan_scores_refused():
    labels, once = np.zeros(3), unweighted(3)
    assert np.isnan([area(np.arange(3.0), labels, once)[0] for area in (auroc, auprc)]).all()
    assert np.isnan(f1(np.zeros(3, bool), labels, once)[0])
    for area in (auroc, auprc):
        with pytest.raises(ValueError, match="must be numbers"):
            area(np.array([0.1, np.nan, 0.3]), np.array([0, 1, 1]), once)


def test_an_unknown_label_counts_in_no_metric():
    scores, labels = np.array([0.9, 0.8, 0.1]), np.array([1, np.nan, 0])
    assert auprc(scores, labels, unweighted(3))[0] == 1.0
    assert f1(scores > 0.5, labels, unweighted(3))[0] == 1.0


@pytest.mark.parametrize("case", DEGENERATE)
def test_the_best_threshold_of_f1_is_the_best_of_all_scores(case):
    scores, labels = DEGENERATE[case]
    best = max(f1(scores >= t, labels, unweighted(len(scores)))[0] for t in scores)
    found = best_f1_threshold(scores, labels.astype(float))
    assert f1(scores >= found, labels, unweighted(len(scores)))[0] == best
    assert np.isnan(best_f1_threshold(scores, np.zeros(len(scores))))
