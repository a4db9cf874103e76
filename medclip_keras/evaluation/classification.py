"""Metrics of a classification from its scores, of prompts or of a trained classifier."""

import functools

import numpy as np
from sklearn.metrics import confusion_matrix

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Floats, Ints
from medclip_keras.evaluation.metrics import (
    Bootstrap,
    Statistic,
    auprc,
    auroc,
    best_f1_threshold,
    f1,
    mean_of,
    weighted_mean,
)
from medclip_keras.evaluation.results import Estimates
from medclip_keras.evaluation.tasks import Task


def estimate_scores(
    task: Task, scores: Floats, bootstrap: Bootstrap, thresholds: Floats | None = None
) -> Estimates:
    """Accuracy, F1, AUROC and AUPRC, overall and by class, with intervals over patients.

    A class's accuracy is that among its own images, and balanced accuracy the mean of these; its AUROC and
    AUPRC are one against the rest, of `ranked_scores`. Overall they are macro means over
    `task.averaged_classes`. F1 is of the highest score in single_finding; in multi_label of the scores from
    the threshold on, and absent without thresholds. A class whose figure would rest on one patient has none.

    Args:
        task: the images and their labels.
        scores: float (num_images, num_classes).
        bootstrap: of the intervals.
        thresholds: float (num_classes,), of `f1_thresholds` on validation images; of multi_label only.

    Raises:
        ValueError: scores that are not finite.
    """
    estimates = bootstrap.estimate(score_statistics(task, scores, thresholds), task.patient_ids)
    overall, *by_class = (
        {metric: estimate for (name, metric), estimate in estimates.items() if name == of_class}
        for of_class in (None, *task.classes)
    )
    return Estimates(overall, dict(zip(task.classes, by_class, strict=True)))


def score_statistics(
    task: Task, scores: Floats, thresholds: Floats | None = None
) -> dict[tuple[str | None, str], Statistic]:
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
    for metric, area_of in (("auroc", auroc), ("auprc", auprc)):
        for k, name in enumerate(task.classes):
            area = functools.partial(area_of, ranked[:, k], task.labels[:, k])
            defined = name not in (*task.too_few, *task.undefined)
            statistics[name, metric] = area if defined else _undefined
        statistics[None, metric] = mean_of([statistics[name, metric] for name in task.macro_classes])
    return statistics | _f1_statistics(task, scores, thresholds)


def _f1_statistics(
    task: Task, scores: Floats, thresholds: Floats | None
) -> dict[tuple[str | None, str], Statistic]:
    """F1 by class, and their mean over the classes with images; {} in multi_label without thresholds."""
    if task.is_single:
        called = np.eye(len(task.classes), dtype=bool)[predicted_class(task, scores)]
    elif thresholds is not None:
        called = scores >= thresholds  # never, where the threshold is NaN
    else:
        return {}
    scores_of = {}
    for k, name in enumerate(task.classes):
        known = task.has_images[k] and (thresholds is None or not np.isnan(thresholds[k]))
        scores_of[name] = functools.partial(f1, called[:, k], task.labels[:, k]) if known else _undefined
    hidden = {*task.too_few, *(() if task.is_single else task.undefined)}
    found: dict[tuple[str | None, str], Statistic] = {
        (name, "f1"): _undefined if name in hidden else score for name, score in scores_of.items()
    }
    averaged = task.macro_classes if task.is_single else task.averaged_classes
    return found | {(None, "macro_f1"): mean_of([scores_of[name] for name in averaged] or [_undefined])}


def f1_thresholds(scores: Floats, labels: Floats) -> Floats:
    """The threshold of each class with the highest F1 on validation images; NaN without positives.

    Scores and labels are float (num_images, num_classes), thresholds (num_classes,).
    """
    return np.array([best_f1_threshold(*columns) for columns in zip(scores.T, labels.T, strict=True)])


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
