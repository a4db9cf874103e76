"""Whether a heat map points at the box that a radiologist drew.

Boxes are (left, top, right, bottom) in sides of the picture, 0 to 1. The point of a map is the centre of its
highest cell. The overlap is that of the boxes and of the cells over the middle of the map's range, on a grid
of `SIDE` cells a side.

Follows: Zhang et al., IJCV 2018 (pointing game; without a margin around the box); Boecking et al., ECCV 2022
    (overlap of phrase maps and boxes; there averaged over thresholds).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Bools, Floats, Strings
from medclip_keras.evaluation.metrics import Bootstrap, Estimate, Statistic, weighted_mean

SIDE = 64
ALL = "all findings"


@dataclass(frozen=True)
class Boxed:
    """Images with the boxes of one finding each."""

    findings: Strings  # (num_images,)
    patient_ids: Strings  # (num_images,)
    boxes: tuple[Floats, ...]  # (num_images,) of (num_boxes, 4)

    def __post_init__(self) -> None:
        for boxes in self.boxes:
            left, top, right, bottom = np.reshape(boxes, (-1, 4)).T
            fits = (
                len(left) and np.all((left < right) & (top < bottom)) and np.all((boxes >= 0) & (boxes <= 1))
            )
            require(bool(fits), "boxes", "within the picture, left < right, top < bottom", boxes.tolist())


def hits(heat: Floats, boxes: Floats) -> float:
    """Share of the map's highest cells whose centre is in a box: 0 or 1 unless several are highest.

    >>> hits(np.array([[0.0, 0.0, 1.0]]), np.array([[0.5, 0.0, 1.0, 1.0]]))
    1.0

    Args:
        heat: float (h, w), finite.
        boxes: float (num_boxes, 4).
    """
    require(bool(np.isfinite(heat).all()), "heat", "finite", "NaN or infinite values")
    rows, columns = np.nonzero(heat == heat.max())
    return float(_inside((columns + 0.5) / heat.shape[1], (rows + 0.5) / heat.shape[0], boxes).mean())


def overlap(heat: Floats, boxes: Floats) -> float:
    """Intersection over union of the boxes and the map above the middle of its range; 0 for a flat map."""
    factors = SIDE / np.array(heat.shape)
    fine = zoom(heat.astype(np.float64), factors, order=1, mode="nearest", grid_mode=True)
    hot = fine > (fine.min() + fine.max()) / 2
    inside = box_mask(boxes)
    return float((hot & inside).sum() / max((hot | inside).sum(), 1))


def box_mask(boxes: Floats, side: int = SIDE) -> Bools:
    """Whether the centre of each cell is in a box, bool (side, side)."""
    centres = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(centres, centres)
    return _inside(x, y, boxes)


def _inside(x: Floats, y: Floats, boxes: Floats) -> Bools:
    left, top, right, bottom = (side.reshape(-1, *[1] * np.ndim(x)) for side in np.reshape(boxes, (-1, 4)).T)
    inside: Bools = ((left <= x) & (x <= right) & (top <= y) & (y <= bottom)).any(axis=0)
    return inside


def estimate(boxed: Boxed, heat: Sequence[Floats], bootstrap: Bootstrap) -> dict[str, dict[str, Estimate]]:
    """Finding, and `ALL`, → {"pointing", "iou"} with intervals over patients; `heat` is a map an image."""
    pairs = list(zip(heat, boxed.boxes, strict=True))
    values = {"pointing": np.array([hits(*pair) for pair in pairs])}
    values["iou"] = np.array([overlap(*pair) for pair in pairs])
    statistics: dict[tuple[str, str], Statistic] = {}
    for name in (ALL, *np.unique(boxed.findings).tolist()):
        of_name = (boxed.findings == name) | (name == ALL)
        for metric, found in values.items():
            statistics[name, metric] = functools.partial(weighted_mean, np.where(of_name, found, np.nan))
    estimates = bootstrap.estimate(statistics, boxed.patient_ids)
    by_finding: dict[str, dict[str, Estimate]] = {}
    for (name, metric), value in estimates.items():
        by_finding.setdefault(name, {})[metric] = value
    return by_finding


def baseline(boxed: Boxed) -> dict[str, dict[str, float]]:
    """Finding, and `ALL`, → figures without a look at the image.

    "pointing" at random is the boxes' share of the picture, and so is the "iou" of the whole picture;
    "pointing_at_centre" is that of the picture's middle.
    """
    areas = np.array([box_mask(boxes).mean() for boxes in boxed.boxes])
    centre = np.array([_inside(np.array([0.5]), np.array([0.5]), b).mean() for b in boxed.boxes])
    found = {}
    for name in (ALL, *np.unique(boxed.findings).tolist()):
        rows = (boxed.findings == name) | (name == ALL)
        area = float(areas[rows].mean())
        found[name] = {"pointing": area, "iou": area, "pointing_at_centre": float(centre[rows].mean())}
    return found
