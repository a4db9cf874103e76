"""Negation: whether "no X" fits an image with X less well than "X" does, and an image without X better."""

import functools
from collections.abc import Mapping

import numpy as np

from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.metrics import Bootstrap, Estimate, Statistic, auroc, weighted_mean
from medclip_keras.evaluation.prompts import denials
from medclip_keras.evaluation.tasks import Task


def negation_texts(name: str) -> tuple[str, str]:
    """The finding stated and denied.

    >>> negation_texts("Pleural Effusion")
    ('There is pleural effusion.', 'There is no pleural effusion.')
    """
    denied = denials(name)[0]
    return denied.replace(" no ", " ", 1), denied


def negation(
    task: Task, margins: Mapping[str, Floats], bootstrap: Bootstrap
) -> dict[str, dict[str, Estimate]]:
    """A row a finding, with intervals over patients.

    Args:
        task: the images and their labels.
        margins: finding → float (num_images,), cosine with the finding stated less that with it denied.
        bootstrap: of the intervals.

    Returns:
        finding → {"stated_where_present": share of the images with the finding whose margin is over 0,
        "denied_where_absent": share of the images without it whose margin is under 0, "auroc": of the
        margin}. A margin of 0 counts as neither. NaN where fewer than two patients are.
    """
    statistics: dict[tuple[str, str], Statistic] = {}
    present, absent = task.is_known_of_patients(1), task.is_known_of_patients(0)
    for name, margin in margins.items():
        k = task.classes.index(name)
        labels = task.labels[:, k]
        for key, label, right, enough in (
            ("stated_where_present", 1, margin > 0, present[k]),
            ("denied_where_absent", 0, margin < 0, absent[k]),
        ):
            of_label = np.where((labels == label) & enough, right.astype(np.float64), np.nan)
            statistics[name, key] = functools.partial(weighted_mean, of_label)
        known = labels if present[k] and absent[k] else np.full_like(labels, np.nan)
        statistics[name, "auroc"] = functools.partial(auroc, margin, known)
    estimates = bootstrap.estimate(statistics, task.patient_ids)
    return {
        name: {key: estimate for (of, key), estimate in estimates.items() if of == name} for name in margins
    }
