import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from sklearn.calibration import calibration_curve

from medclip_keras.evaluation.trust.calibration import (
    Platt,
    apply_temperature,
    fit_platt,
    fit_temperature,
    reliability,
)


def overconfident(rng, num_images=4000, num_classes=5, factor=3.0):
    """Scores of a model whose probabilities are right after a division by the factor."""
    calibrated = 1.5 * rng.normal(size=(num_images, num_classes))
    cumulative = softmax(calibrated, axis=1).cumsum(axis=1)
    class_index = (cumulative < rng.random((num_images, 1))).sum(axis=1)
    return factor * calibrated, np.minimum(class_index, num_classes - 1)


def top_label_error(scores, class_index, temperature):
    probabilities = apply_temperature(scores, temperature)
    return reliability(probabilities.max(1), (probabilities.argmax(1) == class_index).astype(float)).error


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_planted_temperature_is_found_and_taken_out(factor):
    rng = np.random.default_rng(0)
    temperature = fit_temperature(*overconfident(rng, factor=factor))
    assert temperature == pytest.approx(factor, rel=0.1)
    test = overconfident(rng, factor=factor)
    assert top_label_error(*test, 1.0) > 0.15
    assert top_label_error(*test, temperature) < 0.03


def test_the_temperature_has_the_smallest_cross_entropy():
    scores, class_index = overconfident(np.random.default_rng(1), num_images=200)

    def loss(temperature):
        return -log_softmax(scores / temperature, axis=1)[np.arange(200), class_index].mean()

    best = fit_temperature(scores, class_index)
    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_a_planted_slope_and_offset_are_found_and_taken_out():
    """True probability sigmoid(z), score 3 z + 2: slope 1/3, offset -2/3. A rare and a frequent finding."""
    rng = np.random.default_rng(2)
    for shift in (-2.0, 1.0):
        z = 2 * rng.normal(size=8000) + shift
        labels, scores = (rng.random(8000) < expit(z)).astype(float), 3 * z + 2
        labels[::50] = np.nan
        half = slice(0, 4000)
        platt = fit_platt(scores[half], labels[half])
        assert platt.slope == pytest.approx(1 / 3, rel=0.1)
        assert platt.offset == pytest.approx(-2 / 3, abs=0.15)
        assert reliability(Platt()(scores[4000:]), labels[4000:]).error > 0.05
        assert reliability(platt(scores[4000:]), labels[4000:]).error < 0.03


def test_platt_of_separated_and_of_constant_scores_is_finite():
    """Smoothed targets: of constant scores it is the share of positives, (2/3 + ... ) by Platt's targets."""
    separated = fit_platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0.0, 0, 1, 1]))
    assert 0 < separated.slope < 10
    constant = fit_platt(np.full(3, 7.0), np.array([1.0, 0, 0]))
    # Targets 2/3 for the positive, 1/4 for the negatives: their mean is 7/18.
    np.testing.assert_allclose(constant(np.array([7.0])), 7 / 18, atol=1e-6)
    assert fit_platt(np.zeros(3), np.array([1.0, 1, np.nan])) is None


def test_reliability_by_hand():
    """Two bins: {.1, .3} with one true, {.5, 1} with both true; the unknown one counts nowhere."""
    found = reliability(np.array([0.1, 0.3, 0.5, 1.0, 0.7]), np.array([0.0, 1, 1, 1, np.nan]), num_bins=2)
    np.testing.assert_allclose(found.confidence, [0.2, 0.75])
    np.testing.assert_allclose(found.accuracy, [0.5, 1.0])
    assert found.counts.tolist() == [2, 2]
    assert found.error == pytest.approx((0.3 + 0.25) / 2)


def test_reliability_equals_scikit_learns_curve():
    rng = np.random.default_rng(3)
    probabilities = rng.beta(0.5, 0.8, size=700)
    outcomes = (rng.random(700) < probabilities**2).astype(float)
    found = reliability(probabilities, outcomes, num_bins=10)
    accuracy, confidence = calibration_curve(outcomes, probabilities, n_bins=10)
    np.testing.assert_allclose(found.accuracy, accuracy)
    np.testing.assert_allclose(found.confidence, confidence)
    weights = np.histogram(probabilities, np.linspace(0, 1, 11))[0] / 700
    assert found.error == pytest.approx(weights @ np.abs(accuracy - confidence))


def test_reliability_of_nothing_is_undefined():
    assert np.isnan(reliability(np.array([0.5]), np.array([np.nan])).error)


def test_what_is_no_probability_or_score_is_refused():
    for bad in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"`probabilities` must be in \[0, 1\]"):
            reliability(np.array([0.5, bad]), np.zeros(2))
    with pytest.raises(ValueError, match="`scores` must be finite"):
        fit_temperature(np.array([[np.nan, 1.0]]), np.array([0]))
    with pytest.raises(ValueError, match="`scores` must be finite"):
        fit_platt(np.array([np.inf, 1.0]), np.array([0, 1.0]))
