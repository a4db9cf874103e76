"""AUROC within folds, and its bootstrap over patients, paired between methods."""

from collections.abc import Sequence

import numpy as np


class Folds:
    """Images of one folder with their classes, folds and patients.

    An AUROC counts pairs of images of one fold only: scores of different models are not comparable.

    >>> folds = Folds(np.array([[1], [0], [1], [0]], bool), np.array([0, 0, 1, 1]), np.array(list("abcd")))
    >>> folds.auroc(np.array([[0.9], [0.1], [0.2], [0.3]]), np.ones(4)).tolist()
    [0.5]
    """

    def __init__(self, labels: np.ndarray, folds: np.ndarray, patients: np.ndarray):
        self.labels, self.folds = labels, folds
        self.unique, self.index = np.unique(patients, return_inverse=True)

    def order(self, scores: np.ndarray) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """Class → fold → rows of positives, rows of negatives, right order of each pair (0, .5 or 1)."""
        found = []
        for column, of_class in zip(scores.T, self.labels.T, strict=True):
            pairs = []
            for fold in np.unique(self.folds):
                at = self.folds == fold
                positive, negative = np.flatnonzero(at & of_class), np.flatnonzero(at & ~of_class)
                difference = column[positive][:, None] - column[negative][None, :]
                pairs.append((positive, negative, np.sign(difference) / 2 + 0.5))
            found.append(pairs)
        return found

    def auroc(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """AUROC of each class, images weighted; ties count a half."""
        return self.auroc_of_order(self.order(scores), weights)

    @staticmethod
    def auroc_of_order(order, weights: np.ndarray) -> np.ndarray:
        """`auroc` of scores whose pairs were ordered before."""
        found = []
        for pairs in order:
            right = sum(weights[p] @ o @ weights[n] for p, n, o in pairs)
            found.append(right / sum(weights[p].sum() * weights[n].sum() for p, n, _ in pairs))
        return np.array(found)

    def draws(self, num_resamples: int) -> list[np.ndarray]:
        """The weights of all images, then those of each resample of the patients; equal at every call."""
        rng = np.random.default_rng(0)
        size = len(self.unique)
        drawn = [
            np.bincount(rng.integers(0, size, size), minlength=size)[self.index] for _ in range(num_resamples)
        ]
        return [np.ones(len(self.index)), *(weights.astype(float) for weights in drawn)]

    def measure(self, scores_of_seeds: Sequence[np.ndarray], num_resamples: int) -> np.ndarray:
        """(1 + num_resamples, num_classes + 1): AUROC by class and their mean, each the mean over seeds."""
        orders = [self.order(scores) for scores in scores_of_seeds]
        rows = [
            np.mean([self.auroc_of_order(order, weights) for order in orders], axis=0)
            for weights in self.draws(num_resamples)
        ]
        return np.array([[*row, row.mean()] for row in rows])


def interval(draws: np.ndarray) -> tuple[float, float, float]:
    """Value of all images, and the 95 % interval of the resamples."""
    low, high = np.percentile(draws[1:], [2.5, 97.5])
    return float(draws[0]), float(low), float(high)
