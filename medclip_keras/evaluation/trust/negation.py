"""Negation: whether "no X" fits an image with X less well than "X" does, and an image without X better.

`pairs` are MedCLIP's figure 5: Wang et al., EMNLP 2022.
"""

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


def pairs(task: Task, stated: Mapping[str, Floats], denied: Mapping[str, Floats]) -> dict[str, Floats]:
    """Cosines of three kinds of pairs of an image and a sentence, all findings together.

    >>> labels, one = np.array([[1.0], [0.0], [np.nan]]), np.array(["a", "b", "c"])
    >>> task = Task("multi_label", ("Mass",), np.arange(3), labels, one, one)
    >>> cosines = {"Mass": np.array([0.9, 0.1, 0.5])}
    >>> {kind: c.tolist() for kind, c in pairs(task, cosines, {"Mass": -cosines["Mass"]}).items()}
    {'matched': [0.9], 'unmatched': [0.1], 'contradicting': [-0.9]}

    Args:
        task: the images and their labels.
        stated: finding → float (num_images,), cosine with "There is X."
        denied: finding → the same with "There is no X."

    Returns:
        "matched": X stated, of images with X; "unmatched": X stated, of images without it; "contradicting":
        X denied, of images with X. Kinds without a pair are left out.
    """
    found: dict[str, list[Floats]] = {"matched": [], "unmatched": [], "contradicting": []}
    for name in stated:
        labels = task.labels[:, task.classes.index(name)]
        found["matched"].append(stated[name][labels == 1])
        found["unmatched"].append(stated[name][labels == 0])
        found["contradicting"].append(denied[name][labels == 1])
    together = {kind: np.concatenate(parts) for kind, parts in found.items() if parts}
    return {kind: cosines for kind, cosines in together.items() if len(cosines)}


def pair_statistics(cosines: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """Number, mean, standard deviation and quartiles of each kind of `pairs`, in JSON types."""
    return {
        kind: {
            "num_pairs": len(values),
            "mean": float(values.mean()),
            "std": float(values.std()),
            **dict(zip(("q25", "median", "q75"), np.percentile(values, (25, 50, 75)).tolist(), strict=True)),
        }
        for kind, values in cosines.items()
    }
