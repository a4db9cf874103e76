"""Side: whether "X on the left" fits an image with X on the patient's left better than "X on the right" does.

The truth is the radiologist's boxes. A picture's left half shows the patient's right side.
"""

import functools
from collections.abc import Mapping

import numpy as np

from medclip_keras.evaluation.arrays import Bools, Floats, Strings
from medclip_keras.evaluation.metrics import Bootstrap, Estimate, Statistic, auroc, weighted_mean
from medclip_keras.evaluation.where.pointing import ALL, Boxed

LEFT, RIGHT = "left", "right"  # of the patient
_FEWEST = 2  # patients of a side, below which no AUROC is given


def side_texts(name: str) -> tuple[str, str]:
    """The finding on the left and on the right.

    >>> side_texts("Pleural Effusion")
    ('There is pleural effusion on the left.', 'There is pleural effusion on the right.')
    """
    return f"There is {name.lower()} on the left.", f"There is {name.lower()} on the right."


def side_of(boxes: Floats) -> str:
    """The patient's side that holds all boxes; "" if a box crosses the midline or both sides have one.

    >>> side_of(np.array([[0.1, 0.5, 0.4, 0.9]])), side_of(np.array([[0.4, 0.5, 0.6, 0.9]]))
    ('right', '')

    Args:
        boxes: float (num_boxes, 4) of left, top, right, bottom in sides of the picture.
    """
    left, _, right, _ = np.reshape(boxes, (-1, 4)).T
    if (right <= 0.5).all():
        return RIGHT
    return LEFT if (left >= 0.5).all() else ""


def sides(boxed: Boxed, margins: Floats, bootstrap: Bootstrap) -> dict[str, dict[str, Estimate]]:
    """A row a finding that has boxes on one side, and `ALL`, with intervals over patients.

    Args:
        boxed: the images and their boxes.
        margins: float (num_images,), cosine with the finding on the left less that on the right.
        bootstrap: of the intervals.

    Returns:
        finding → {"own_side": share of one-sided images whose own side fits better, a tie counts half;
        "auroc": of the margin, left against right; NaN with fewer than two patients of a side}.
    """
    of_image = np.array([side_of(boxes) for boxes in boxed.boxes])
    correct = np.where(of_image == LEFT, margins > 0, margins < 0) + (margins == 0) / 2
    statistics: dict[tuple[str, str], Statistic] = {}
    for name in (ALL, *np.unique(boxed.findings[of_image != ""]).tolist()):
        used = (of_image != "") & ((boxed.findings == name) | (name == ALL))
        if used.any():
            statistics[name, "own_side"] = functools.partial(weighted_mean, np.where(used, correct, np.nan))
            known = used & _enough(of_image, used, boxed.patient_ids)
            labels = np.where(known, (of_image == LEFT).astype(np.float64), np.nan)
            statistics[name, "auroc"] = functools.partial(auroc, margins, labels)
    table: dict[str, dict[str, Estimate]] = {}
    for (name, metric), estimate in bootstrap.estimate(statistics, boxed.patient_ids).items():
        table.setdefault(name, {})[metric] = estimate
    return table


def side_counts(boxed: Boxed) -> Mapping[str, dict[str, int]]:
    """Finding, and `ALL`, → number of images by the side of their boxes."""
    of_image = np.array([side_of(boxes) for boxes in boxed.boxes])
    return {
        name: {
            side: int(((of_image == side) & ((boxed.findings == name) | (name == ALL))).sum())
            for side in (LEFT, RIGHT)
        }
        for name in (ALL, *np.unique(boxed.findings).tolist())
    }


def _enough(of_image: Strings, used: Bools, patients: Strings) -> bool:
    return all(len(np.unique(patients[used & (of_image == side)])) >= _FEWEST for side in (LEFT, RIGHT))
