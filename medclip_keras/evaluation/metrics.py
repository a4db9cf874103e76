"""Metrics as functions of sample weights, and their bootstrap intervals over patients."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Array, Bools, Floats, Ints

Statistic = Callable[[Floats], Floats]  # weights (num_resamples, num_samples) → (num_resamples,)
Key = TypeVar("Key", bound=Hashable)

_WEIGHTS_AT_ONCE = 4_000_000  # bounds the bootstrap's memory


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN if undefined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def to_dict(self) -> dict[str, float | None]:
        """JSON types: None instead of NaN."""
        return {k: None if np.isnan(v) else float(v) for k, v in vars(self).items()}


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Mean of values over samples; of correctness (0 or 1) it is the accuracy.

    >>> weighted_mean(np.array([1.0, 0.0, 1.0]), np.array([[1, 1, 1], [0, 2, 2]])).round(3).tolist()
    [0.667, 0.5]

    Args:
        values: float (num_samples,); a NaN excludes its sample.
        weights: (num_resamples, num_samples), how often each sample counts.

    Returns:
        float (num_resamples,); NaN if all weights are zero.
    """
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = weights[:, known] @ values[known] / weights[:, known].sum(axis=1)
    return mean


def auroc(scores: Floats, labels: Floats | Ints, weights: Floats) -> Floats:
    """Area under the ROC curve: P(score of a positive > score of a negative), a tie counts one half.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 1, 0, 1]), np.ones((1, 4))).tolist()
    [0.875]

    Args:
        scores: float (num_samples,).
        labels: (num_samples,) of 0 and 1; a NaN excludes its sample.
        weights: (num_resamples, num_samples), how often each sample counts.

    Returns:
        float (num_resamples,); NaN if one of the two classes is absent.

    Raises:
        ValueError: a score that is NaN.
    """
    positives, negatives = _by_score(scores, labels, weights)
    negatives_below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (negatives_below + negatives / 2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = wins / (positives.sum(axis=1) * negatives.sum(axis=1))
    return area


def auprc(scores: Floats, labels: Floats | Ints, weights: Floats) -> Floats:
    """Area under the precision-recall curve as average precision, the sum over thresholds of

        (recall at the threshold - recall at the next higher threshold) precision at the threshold

    Equal scores share a threshold. Without a look at the images it is the share of positives.

    >>> auprc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 1, 0, 1]), np.ones((1, 4))).round(3).tolist()
    [0.833]

    Args:
        scores: float (num_samples,).
        labels: (num_samples,) of 0 and 1; a NaN excludes its sample.
        weights: (num_resamples, num_samples), how often each sample counts.

    Returns:
        float (num_resamples,); NaN without a positive.

    Raises:
        ValueError: a score that is NaN.
    """
    positives, negatives = _by_score(scores, labels, weights)
    above = np.cumsum(positives[:, ::-1], axis=1)  # true positives, from the highest threshold down
    called = above + np.cumsum(negatives[:, ::-1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0, above / called, 0.0)
        area: Floats = (positives[:, ::-1] * precision).sum(axis=1) / positives.sum(axis=1)
    return area


def _by_score(scores: Floats, labels: Floats | Ints, weights: Floats) -> tuple[Floats, Floats]:
    """Weights of positives and negatives of each distinct score, ascending: (num_resamples, num_distinct)."""
    require(not np.isnan(scores).any(), "scores", "numbers", "NaN", "Exclude these samples.")
    known = ~np.isnan(labels.astype(np.float64))
    scores, labels, weights = scores[known], labels[known], weights[:, known]
    if not len(scores):
        return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))  # (num_distinct,)
    positives = np.add.reduceat(weights[:, order] * (labels[order] == 1), starts, axis=1)
    negatives = np.add.reduceat(weights[:, order] * (labels[order] != 1), starts, axis=1)
    return positives, negatives


def f1(predicted: Bools, labels: Floats | Ints, weights: Floats) -> Floats:
    """F1 score of a class, 2 TP / (2 TP + FP + FN).

    >>> f1(np.array([True, True, False]), np.array([1, 0, 1]), np.ones((1, 3))).tolist()
    [0.5]

    Args:
        predicted: bool (num_samples,).
        labels: (num_samples,) of 0 and 1; a NaN excludes its sample.
        weights: (num_resamples, num_samples), how often each sample counts.

    Returns:
        float (num_resamples,); NaN if the class is neither predicted nor true.
    """
    positive = labels == 1
    true_positives = 2 * weights @ (predicted & positive)
    errors = weights @ ((predicted & (labels == 0)) | (~predicted & positive))
    with np.errstate(invalid="ignore", divide="ignore"):
        score: Floats = true_positives / (true_positives + errors)
    return score


def best_f1_threshold(scores: Floats, labels: Floats) -> float:
    """The score from which on a sample is called positive such that F1 is highest; NaN without a positive.

    It lies halfway between the lowest score called positive and the next one. Of equal F1 the highest.

    >>> best_f1_threshold(np.array([0.1, 0.2, 0.6, 0.9]), np.array([0, 0, 1, 1]))
    0.4
    """
    positives, negatives = _by_score(scores, labels, np.ones((1, len(scores))))
    if not positives.sum():
        return float("nan")
    above, called = (np.cumsum(counts[0, ::-1]) for counts in (positives, positives + negatives))
    best = int(np.argmax(2 * above / (called + positives.sum())))
    distinct = np.unique(scores[~np.isnan(labels)]).astype(np.float64)[::-1]  # halfway, not rounded to an end
    return float(distinct[best : best + 2].mean())


def mean_and_std(values: Sequence[float]) -> dict[str, float | int | None]:
    """Number, mean and standard deviation of a sample in JSON types; None where undefined.

    >>> mean_and_std([0.25, 0.5, 0.75])
    {'number': 3, 'mean': 0.5, 'std': 0.25}
    """
    array = np.array(values)
    defined = len(array) > 0 and not np.isnan(array).any()
    return {
        "number": len(array),
        "mean": float(array.mean()) if defined else None,
        "std": float(array.std(ddof=1)) if defined and len(array) > 1 else None,
    }


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Macro mean of statistics on the same resample, over the defined ones."""

    def macro(weights: Floats) -> Floats:
        values = np.stack([statistic(weights) for statistic in statistics])  # (num_statistics, num_resamples)
        defined = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            mean: Floats = np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)
        return mean

    return macro


def resample_weights(
    patient_ids: Sequence[Hashable] | Array, num_resamples: int, rng: np.random.Generator
) -> Floats:
    """Draw patients with replacement and count how often each sample is drawn in each resample.

    Samples of one patient are not independent, so they share their weight.

    Returns:
        float (num_resamples, num_samples).
    """
    _, patient_index = np.unique(np.asarray(patient_ids), return_inverse=True)
    num_patients = int(patient_index.max()) + 1
    draws = rng.integers(num_patients, size=(num_resamples, num_patients))
    draws += num_patients * np.arange(num_resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=num_resamples * num_patients)
    return counts.reshape(num_resamples, num_patients)[:, patient_index].astype(np.float64)


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap over patients.

    Follows: Efron and Tibshirani (1993), the percentile interval; the units drawn are patients.
    """

    num_resamples: int  # 0 gives values without intervals
    seed: int

    def estimate(
        self, statistics: Mapping[Key, Statistic], patient_ids: Sequence[Hashable] | Array
    ) -> dict[Key, Estimate]:
        """Estimate each statistic and its 95 % interval, all on the same resamples.

        Args:
            statistics: key → function of weights (num_resamples, num_samples).
            patient_ids: (num_samples,).

        Returns:
            key → estimate; the interval skips resamples in which the statistic is undefined. There is none
            for a single patient, of whom all resamples are equal.
        """
        num_samples = len(patient_ids)
        num_resamples = self.num_resamples if len(np.unique(np.asarray(patient_ids))) > 1 else 0
        rng = np.random.default_rng(self.seed)
        drawn: dict[Key, list[Floats]] = {key: [] for key in statistics}
        chunk = max(1, _WEIGHTS_AT_ONCE // num_samples)
        for start in range(0, num_resamples, chunk):
            weights = resample_weights(patient_ids, min(chunk, num_resamples - start), rng)
            for key, statistic in statistics.items():
                drawn[key].append(statistic(weights))
        once = np.ones((1, num_samples))
        return {key: Estimate(float(f(once)[0]), *_interval(drawn[key])) for key, f in statistics.items()}


def _interval(chunks: list[Floats]) -> list[float]:
    """The 2.5th and 97.5th percentile of the defined values; [] if there is none."""
    resampled = np.concatenate([np.empty(0), *chunks])
    defined = resampled[~np.isnan(resampled)]
    return [float(limit) for limit in np.percentile(defined, [2.5, 97.5])] if len(defined) else []
