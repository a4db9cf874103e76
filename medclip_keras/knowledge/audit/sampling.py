"""Stratified sample of reports, with the weight of each.

Report i of N is in several strata, such as "Edema positive". With N_h reports in stratum h its probability is

    p_i = min(1, max(b, c / min_h N_h)),      sum_i p_i = the size of the sample

so that each stratum expects at least c reports, and b, a quarter of the sample over N, leaves no report out.
The draw is systematic in the order of the rarest stratum (Madow, "On the theory of systematic sampling, II",
Annals of Mathematical Statistics 1949): its size is exact, and so are the probabilities. Each drawn report
stands for 1 / p_i reports (Horvitz and Thompson, JASA 1952).
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BASE_SHARE = 0.25  # of the sample, drawn from all reports alike: it finds what no stratum names
_HALVINGS = 60


def draw(strata: Sequence[Collection[str]], size: int, seed: int = 0) -> tuple[list[int], Floats]:
    """Positions of the drawn reports, in random order, and the weight 1 / p_i of each.

    Args:
        strata: of each report, the names of its strata.
        size: of the sample; all reports if there are fewer.
        seed: of the draw.

    >>> drawn, weights = draw([["rare"]] * 2 + [["common"]] * 98, 20)
    >>> len(drawn), sum(k < 2 for k in drawn), bool(abs(weights.sum() - 100) < 10)
    (20, 2, True)
    """
    rng = np.random.default_rng(seed)
    sizes = Counter(name for own in strata for name in own)
    rarest = [min(((sizes[name], name) for name in own), default=(len(strata), "")) for own in strata]
    probabilities = inclusion(np.array([number for number, _ in rarest], np.float64), size)
    shuffled = rng.permutation(len(strata))
    order = np.array(sorted(shuffled.tolist(), key=lambda k: rarest[k]), np.int64)
    steps = rng.random() + np.arange(min(size, len(strata)))
    picks = np.searchsorted(np.cumsum(probabilities[order]), steps)
    drawn = rng.permutation(order[np.minimum(picks, len(strata) - 1)])
    return drawn.tolist(), 1 / probabilities[drawn]


def inclusion(rarest: Floats, size: int) -> Floats:
    """p_i of each report, from the size of its rarest stratum (num_reports,); their sum is `size`."""
    num_reports = len(rarest)
    if size >= num_reports:
        return np.ones(num_reports)
    low, high = 0.0, float(num_reports)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _probabilities(rarest, size, middle).sum() < size
        low, high = (middle, high) if below else (low, middle)
    return _probabilities(rarest, size, high)


def _probabilities(rarest: Floats, size: int, expected: float) -> Floats:
    return np.minimum(1, np.maximum(BASE_SHARE * size / len(rarest), expected / rarest))
