"""Conformal sets: the classes that cannot be excluded, such that the truth is among them in 90 % of patients.

Images of a patient are not exchangeable, patients are: each calibration patient weighs 1, shared by their
images, and so does the patient to come, whose nonconformity is unknown.

Follows: Lee, Barber and Willett, 2023, "Distribution-free inference with hierarchical data" (HCP), with
    nonconformity 1 - probability of the true class (Sadinle et al., JASA 2019).
"""

import numpy as np

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Bools, Floats, Strings


def conformal_limit(nonconformity: Floats, patient_ids: Strings, coverage: float = 0.9) -> float:
    """The nonconformity up to which a class belongs to the set.

    >>> values = np.arange(1.0, 10.0)  # nine patients: with the one to come, 90 % of ten
    >>> conformal_limit(values, values.astype(str), coverage=0.9)
    9.0

    Args:
        nonconformity: float (num_images,), of the true class of validation images.
        patient_ids: (num_images,).
        coverage: in (0, 1).

    Returns:
        Infinity if there are too few patients for this coverage: then every class belongs to the set.
    """
    require(not np.isnan(nonconformity).any(), "nonconformity", "numbers", "NaN")
    if not len(nonconformity):
        return float("inf")
    _, patient, counts = np.unique(patient_ids, return_inverse=True, return_counts=True)
    order = np.argsort(nonconformity)
    share = np.cumsum(1 / counts[patient][order]) / (len(counts) + 1)
    reached = share >= coverage - 1e-12
    return float(nonconformity[order][np.argmax(reached)]) if reached.any() else float("inf")


def conformal_sets(probabilities: Floats, limit: float) -> Bools:
    """Whether each class belongs to the set, bool (num_images, num_classes)."""
    sets: Bools = 1 - probabilities <= limit
    return sets


def patient_mean(values: Floats, patient_ids: Strings) -> float:
    """Mean over patients of the mean over their images; NaN without an image.

    >>> patient_mean(np.array([1.0, 0.0, 0.0]), np.array(["a", "a", "b"]))
    0.25
    """
    if not len(values):
        return float("nan")
    _, patient, counts = np.unique(patient_ids, return_inverse=True, return_counts=True)
    return float(np.average(values, weights=1 / counts[patient]))
