"""Calibration: whether a probability of .8 is right in 80 % of the images.

For `single_finding` one temperature T is fitted, softmax(scores / T); for `multi_label` Platt's two numbers a
class, sigmoid(slope score + offset). Both are fitted on validation images alone.

Follows: Guo et al., ICML 2017 (temperature, expected calibration error of equal bins); Platt, 1999 (smoothed
    targets, which keep the slope finite where the scores separate the classes).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Floats, Ints

NUM_BINS = 15
_LOG_TEMPERATURES = (-7.0, 7.0)


@dataclass(frozen=True)
class Reliability:
    """Mean probability and share of true outcomes of each bin with samples."""

    confidence: Floats  # (num_filled_bins,)
    accuracy: Floats  # (num_filled_bins,)
    counts: Ints  # (num_filled_bins,)

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, weighed by the counts."""
        if not len(self.counts):
            return float("nan")
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.counts))


def reliability(probabilities: Floats, outcomes: Floats, num_bins: int = NUM_BINS) -> Reliability:
    """Sort probabilities into bins of equal width; the last bin holds 1.

    >>> reliability(np.array([0.9, 0.9, 0.1]), np.array([1.0, 0.0, 0.0]), num_bins=2).error
    0.3

    Args:
        probabilities: float (num_samples,) in [0, 1].
        outcomes: (num_samples,) of 0 and 1; a NaN excludes its sample.

    Raises:
        ValueError: a probability that is NaN or outside of [0, 1].
    """
    within = bool(((probabilities >= 0) & (probabilities <= 1)).all())
    require(within, "probabilities", "in [0, 1]", "NaN, or a value outside")
    known = ~np.isnan(outcomes)
    probabilities, outcomes = probabilities[known], outcomes[known]
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    filled = counts > 0
    confidence, accuracy = (
        np.bincount(bins, values, num_bins)[filled] / counts[filled] for values in (probabilities, outcomes)
    )
    return Reliability(confidence, accuracy, counts[filled])


def fit_temperature(scores: Floats, class_index: Ints) -> float:
    """The temperature T with the smallest mean cross-entropy of softmax(scores / T).

    Args:
        scores: float (num_images, num_classes), finite.
        class_index: int (num_images,).
    """
    require(bool(np.isfinite(scores).all()), "scores", "finite", "NaN or infinite scores")
    rows = np.arange(len(scores))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(scores / np.exp(log_temperature), axis=1)[rows, class_index].mean())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def apply_temperature(scores: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities softmax(scores / temperature), (num_images, num_classes)."""
    probabilities: Floats = softmax(scores / temperature, axis=1)
    return probabilities


@dataclass(frozen=True)
class Platt:
    """sigmoid(slope score + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities of scores (num_images,)."""
        probabilities: Floats = expit(self.slope * scores + self.offset)
        return probabilities


def fit_platt(scores: Floats, labels: Floats) -> Platt | None:
    """Fit Platt's sigmoid to scores (num_images,) and labels of 0, 1 and NaN; None without both labels."""
    require(bool(np.isfinite(scores).all()), "scores", "finite", "NaN or infinite scores")
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not (len(positive) and len(negative)):
        return None
    targets = (len(positive) + 1) / (len(positive) + 2), 1 / (len(negative) + 2)
    both = np.concatenate([positive, negative])
    target = np.repeat(targets, [len(positive), len(negative)])
    middle, scale = both.mean(), both.std() or 1.0
    x = ((both - middle) / scale)[:, None]
    model = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8).fit(
        np.concatenate([x, x]), np.repeat([1, 0], len(x)), np.concatenate([target, 1 - target])
    )
    slope = float(model.coef_[0, 0] / scale)
    return Platt(slope, float(model.intercept_[0] - slope * middle))
