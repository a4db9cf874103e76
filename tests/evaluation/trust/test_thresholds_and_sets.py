"""Operating points and conformal sets."""

import numpy as np
import pytest

from medclip_keras.evaluation.trust.conformal import conformal_limit, conformal_sets, patient_mean
from medclip_keras.evaluation.trust.operating import threshold_at_sensitivity, threshold_at_specificity


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [0.5, 0.9, 1.0])
def test_thresholds_are_the_best_of_all_scores(seed, least):
    """By trying each score; with ties and unknown labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan], size=40)
    scores = (rng.normal(size=40) + np.nan_to_num(labels)).round(1)
    known = ~np.isnan(labels)
    candidates = [*np.unique(scores[known]), np.inf]
    specificity = {t: (scores[labels == 0] < t).mean() for t in candidates}
    sensitivity = {t: (scores[labels == 1] >= t).mean() for t in candidates}
    expected = min(t for t in candidates if specificity[t] >= least)
    assert threshold_at_specificity(scores, labels, least) == expected
    expected = max(t for t in candidates if sensitivity[t] >= least)
    assert threshold_at_sensitivity(scores, labels, least) == expected


def test_thresholds_of_constant_scores_and_absent_classes():
    constant, labels = np.zeros(4), np.array([0.0, 1, 0, 1])
    assert threshold_at_specificity(constant, labels, 0.9) == np.inf  # all or none
    assert threshold_at_sensitivity(constant, labels, 0.9) == 0
    assert np.isnan(threshold_at_specificity(constant, np.ones(4), 0.9))
    assert np.isnan(threshold_at_sensitivity(constant, np.zeros(4), 0.9))
    for threshold_of in (threshold_at_specificity, threshold_at_sensitivity):
        with pytest.raises(ValueError, match="`scores` must be numbers"):
            threshold_of(np.array([np.nan, 0]), np.array([0.0, 1]), 0.9)


def patients_of_many_easy_images(rng, num_images=2000):
    """Half of the patients have one hard image, half nine easy ones: nonconformities and patients."""
    num_patients = num_images // 5
    many = np.arange(num_patients) % 2 == 1
    patient = np.repeat(np.arange(num_patients), np.where(many, 9, 1))
    level = rng.normal(size=num_patients)[patient]  # shared by a patient's images
    noise = 0.3 * rng.normal(size=len(patient))
    return level + noise + np.where(many, 0.0, 3.0)[patient], patient.astype(str)


def test_conformal_sets_cover_nine_patients_of_ten():
    covered, of_images = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (values, patients), (unseen, others) = (patients_of_many_easy_images(rng) for _ in range(2))
        assert len(values) == 2000
        limit = conformal_limit(values, patients, coverage=0.9)
        covered.append(patient_mean((unseen <= limit).astype(float), others))
        of_images.append(patient_mean((unseen <= np.quantile(values, 0.9)).astype(float), others))
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)
    assert np.mean(of_images) < 0.7  # as if images were exchangeable: few hard ones, of many patients


def test_conformal_sets_of_classes_cover_the_truth_on_2000_images():
    rng = np.random.default_rng(1)

    def draw():
        probabilities = rng.dirichlet(np.full(4, 0.5), size=2000)
        wrong = rng.dirichlet(np.full(4, 0.5), size=2000)  # the model is not calibrated
        return (probabilities.cumsum(1) < rng.random((2000, 1))).sum(1), (probabilities + wrong) / 2

    (truth, model), (unseen, model_of_unseen) = draw(), draw()
    rows, ids = np.arange(2000), np.arange(2000).astype(str)
    limit = conformal_limit(1 - model[rows, truth], ids, 0.9)
    sets = conformal_sets(model_of_unseen, limit)
    assert sets[rows, unseen].mean() == pytest.approx(0.9, abs=0.02)
    assert 1 < sets.sum(axis=1).mean() < 4


def test_limit_is_the_quantile_of_patients_and_the_one_to_come():
    # Patients a (two images, each 1/2 of 1/4), b and c: shares 1/8, 2/8, 2/4, 3/4.
    values, patients = np.array([4.0, 1.0, 2.0, 3.0]), np.array(["a", "a", "b", "c"])
    limits = [conformal_limit(values, patients, c) for c in (0.125, 0.126, 0.375, 0.376, 0.625, 0.75)]
    assert limits == [1, 2, 2, 3, 3, 4]
    assert conformal_limit(values, patients, 0.76) == np.inf  # three patients cannot promise more
    assert conformal_limit(np.empty(0), np.empty(0, str)) == np.inf
    assert conformal_sets(np.array([[0.7, 0.3]]), np.inf).all()
    with pytest.raises(ValueError, match="`nonconformity` must be numbers"):
        conformal_limit(np.array([np.nan]), np.array(["a"]))


def test_means_over_patients_of_none_and_of_one():
    assert np.isnan(patient_mean(np.empty(0), np.empty(0, str)))
    assert patient_mean(np.array([1.0, 0, 0]), np.array(["a"] * 3)) == pytest.approx(1 / 3)
