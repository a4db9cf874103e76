"""Figures of merit, each as a function of sample weights, and their bootstrap intervals over patients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]  # weights (num_resamples, num_samples) → (num_resamples,)

_WEIGHTS_AT_ONCE = 4_000_000  # bounds the bootstrap's memory


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def to_dict(self) -> dict[str, float | None]:
        """JSON types: None instead of NaN."""
        return {k: None if np.isnan(v) else float(v) for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, float | None]) -> "Estimate":
        """The inverse of `to_dict`."""
        return cls(**{k: float("nan") if v is None else v for k, v in values.items()})


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of values over samples; of correctness (0 or 1) it is the accuracy.

    >>> weighted_mean(np.array([1.0, 0.0, 1.0]), np.array([[1, 1, 1], [0, 2, 2]])).round(3).tolist()
    [0.667, 0.5]

    Args:
        values: float (num_samples,); NaN leaves its sample out.
        weights: (num_resamples, num_samples), how often each sample counts.

    Returns:
        float (num_resamples,); NaN where all weights are zero.
    """
    known = ~np.isnan(values)
    total = weights[:, known].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights[:, known] @ values[known] / total


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: P(score of a positive > score of a negative), a tie counting one half.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 1, 0, 1]), np.ones((1, 4))).tolist()
    [0.875]

    Args:
        scores: float (num_samples,).
        labels: (num_samples,) of 0 and 1; NaN leaves its sample out.
        weights: (num_resamples, num_samples), how often each sample counts.

    Returns:
        float (num_resamples,); NaN where one of the two classes is absent.
    """
    known = ~np.isnan(np.asarray(labels, np.float64))
    scores, labels, weights = scores[known], labels[known], weights[:, known]
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # (num_distinct,)
    positives = np.add.reduceat(weights[:, order] * (labels[order] == 1), starts, axis=1)
    negatives = np.add.reduceat(weights[:, order] * (labels[order] != 1), starts, axis=1)
    negatives_below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (negatives_below + negatives / 2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return wins / (positives.sum(axis=1) * negatives.sum(axis=1))


def precision_at_k(similarities: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Share of relevant candidates among the k most similar ones; ties keep the candidates' order.

    >>> similarities = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.1]])
    >>> precision_at_k(similarities, np.array([[True, True, False], [False, True, False]]), k=2).tolist()
    [0.5, 0.5]

    Args:
        similarities: float (num_queries, num_candidates).
        relevant: bool (num_queries, num_candidates).
        k: at most num_candidates.

    Returns:
        float (num_queries,).
    """
    top = np.argsort(-similarities, axis=1, kind="stable")[:, :k]  # (num_queries, k)
    return np.take_along_axis(relevant, top, axis=1).mean(axis=1)


def resample_weights(patient_ids: Sequence[str], num_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draws patients with replacement: how often each sample counts in each resample.

    Samples of one patient share their weight, for they are not independent.

    Returns:
        float (num_resamples, num_samples).
    """
    _, patient_index = np.unique(np.asarray(patient_ids), return_inverse=True)
    num_patients = int(patient_index.max()) + 1
    draws = rng.integers(num_patients, size=(num_resamples, num_patients))
    draws += num_patients * np.arange(num_resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=num_resamples * num_patients)
    return counts.reshape(num_resamples, num_patients)[:, patient_index].astype(np.float64)


def estimate(
    statistics: Mapping[str, Statistic], patient_ids: Sequence[str], num_resamples: int, seed: int
) -> dict[str, Estimate]:
    """Each statistic's value and its 95 % percentile bootstrap interval, on the same resamples of patients.

    Follows: Efron and Tibshirani (1993), the percentile interval, with patients as the units drawn.

    Args:
        statistics: name → function of weights (num_resamples, num_samples).
        patient_ids: (num_samples,).
        num_resamples: 0 gives values without intervals.
        seed: of the draws.

    Returns:
        name → estimate; resamples in which the statistic is not defined are left out of its interval.
    """
    num_samples = len(patient_ids)
    values = {name: float(f(np.ones((1, num_samples)))[0]) for name, f in statistics.items()}
    rng = np.random.default_rng(seed)
    drawn = {name: [] for name in statistics}
    chunk = max(1, _WEIGHTS_AT_ONCE // num_samples)
    for start in range(0, num_resamples, chunk):
        weights = resample_weights(patient_ids, min(chunk, num_resamples - start), rng)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    return {name: Estimate(values[name], *_interval(drawn[name])) for name in statistics}


def _interval(chunks: list[np.ndarray]) -> tuple[float, float]:
    resampled = np.concatenate(chunks) if chunks else np.empty(0)
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics on the same resample (a macro mean), over those that are defined."""

    def macro(weights: np.ndarray) -> np.ndarray:
        values = np.stack([statistic(weights) for statistic in statistics])  # (num_statistics, num_resamples)
        defined = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            return np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)

    return macro
