"""Metrics of a classification from its scores, of prompts or of a trained classifier."""

import functools

import numpy as np
from sklearn.metrics import confusion_matrix

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Floats, Ints
from medclip_keras.evaluation.metrics import Bootstrap, Statistic, auroc, mean_of, weighted_mean
from medclip_keras.evaluation.results import Estimates
from medclip_keras.evaluation.tasks import Task


def estimate_scores(task: Task, scores: Floats, bootstrap: Bootstrap) -> Estimates:
    """Accuracy (single_finding only) and AUROC, overall and by class, with intervals over patients.

    A class's accuracy is that among its own images, and balanced accuracy the mean of these; its AUROC is one
    against the rest, of `ranked_scores`. The overall AUROC is the macro mean of `task.averaged_classes`. A
    class whose figure would rest on one patient has none. Scores are float (num_images, num_classes).

    Raises:
        ValueError: scores that are not finite.
    """
    estimates = bootstrap.estimate(score_statistics(task, scores), task.patient_ids)
    overall, *by_class = (
        {metric: estimate for (name, metric), estimate in estimates.items() if name == of_class}
        for of_class in (None, *task.classes)
    )
    return Estimates(overall, dict(zip(task.classes, by_class, strict=True)))


def score_statistics(task: Task, scores: Floats) -> dict[tuple[str | None, str], Statistic]:
    """Map (class or None, metric) to the statistic that `estimate_scores` estimates; raises as it does."""
    require(bool(np.isfinite(scores).all()), "scores", "finite", "NaN or infinite embeddings")
    statistics: dict[tuple[str | None, str], Statistic] = {}
    if task.is_single:
        correct = (predicted_class(task, scores) == task.class_index).astype(np.float64)
        statistics[None, "accuracy"] = functools.partial(weighted_mean, correct)
        own = np.where(task.labels == 1, correct[:, None], np.nan)  # (num_images, num_classes)
        recalls = [functools.partial(weighted_mean, column) for column in own.T]
        statistics[None, "balanced_accuracy"] = mean_of(recalls)
        enough = task.is_known_of_patients(1)
        for k, name in enumerate(task.classes):
            statistics[name, "accuracy"] = recalls[k] if enough[k] else _undefined
    ranked = ranked_scores(task, scores)
    for k, name in enumerate(task.classes):
        area = functools.partial(auroc, ranked[:, k], task.labels[:, k])
        statistics[name, "auroc"] = _undefined if name in task.too_few else area
    statistics[None, "auroc"] = mean_of([statistics[name, "auroc"] for name in task.macro_classes])
    return statistics


def _undefined(weights: Floats) -> Floats:
    return np.full(len(weights), np.nan)


def predicted_class(task: Task, scores: Floats) -> Ints:
    """The class of the highest score among those with images, int (num_images,)."""
    predicted: Ints = np.where(task.has_images, scores, -np.inf).argmax(axis=1)
    return predicted


def ranked_scores(task: Task, scores: Floats) -> Floats:
    """Scores (num_images, num_classes) comparable across images: for single_finding less their mean."""
    return scores - scores.mean(axis=1, keepdims=True) if task.is_single else scores


def confusion(task: Task, scores: Floats) -> Ints:
    """Counts int (num_classes, num_classes): rows are the true class, columns the highest score."""
    counts: Ints = confusion_matrix(
        task.class_index, predicted_class(task, scores), labels=range(len(task.classes))
    )
    return counts
