"""Operating points: thresholds that reach a sensitivity or a specificity on validation images."""

import numpy as np

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Floats


def threshold_at_specificity(scores: Floats, labels: Floats, least: float) -> float:
    """The lowest threshold with at least this specificity; a score at or above it is called positive.

    >>> threshold_at_specificity(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 0, 0, 1]), least=0.6)
    0.3

    Args:
        scores: float (num_images,).
        labels: (num_images,) of 0, 1 and NaN (left out).
        least: in (0, 1].

    Returns:
        A score among those given, infinity if only that has the specificity, NaN without a negative image.
    """
    require(not np.isnan(scores).any(), "scores", "numbers", "NaN")
    negative = np.sort(scores[labels == 0])
    if not len(negative):
        return float("nan")
    candidates = np.append(np.unique(scores[~np.isnan(labels)]), np.inf)
    below = np.searchsorted(negative, candidates) / len(negative)  # specificity, rising
    return float(candidates[np.argmax(below >= least - 1e-12)])


def threshold_at_sensitivity(scores: Floats, labels: Floats, least: float) -> float:
    """The highest threshold with at least this sensitivity; NaN without a positive image.

    >>> threshold_at_sensitivity(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 1, 1, 1]), least=0.6)
    0.3
    """
    require(not np.isnan(scores).any(), "scores", "numbers", "NaN")
    positive = np.sort(scores[labels == 1])
    if not len(positive):
        return float("nan")
    kept = int(np.ceil(least * len(positive) - 1e-9))
    return float(positive[len(positive) - kept])
