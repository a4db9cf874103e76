"""Precision, recall and F1 of a weighted sample, with 95 % intervals.

With w_i the reports that report i stands for, and h_i of t_i trials of it hits, a rate is the ratio
sum w_i h_i / sum w_i t_i (Hájek). Trials are the cells said to be positive for precision, truly positive for
recall, either for the Jaccard index J; and F1 = 2 J / (1 + J). The interval is Wilson's (JASA 1927) with the
number of trials that Kish's design effect leaves, (sum w_i t_i)^2 / sum (w_i t_i)^2: several cells of a
report count as one, so the interval of a micro average is wide rather than narrow. F1's is J's, transformed.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medclip_keras.knowledge.audit.sampling import Floats

_Z = 1.959964  # of the normal distribution, 97.5 %


class Rate(NamedTuple):
    """A rate with its 95 % interval; all are NaN without a trial."""

    value: float
    low: float
    high: float


class Scores(NamedTuple):
    """Agreement of labels with the truth, and the number of cells that were compared."""

    precision: Rate
    recall: Rate
    f1: Rate
    said: int
    true: int


def scores(weights: Floats, said: npt.ArrayLike, true: npt.ArrayLike) -> Scores:
    """Scores of one state of one or more findings.

    Args:
        weights: (num_reports,).
        said: bool (num_reports, num_findings), the cells that are labelled with the state.
        true: bool of the same shape, those that have it.

    >>> found = scores(np.array([1.0, 1.0, 2.0]), [[1], [1], [0]], [[1], [0], [1]])
    >>> [round(rate.value, 2) for rate in found[:3]]
    [0.5, 0.33, 0.4]
    """
    said, true = np.asarray(said, bool), np.asarray(true, bool)
    hits, either = (said & true).sum(1), (said | true).sum(1)
    jaccard = rate(weights, hits, either)
    return Scores(
        rate(weights, hits, said.sum(1)),
        rate(weights, hits, true.sum(1)),
        Rate(*(2 * j / (1 + j) for j in jaccard)),
        int(said.sum()),
        int(true.sum()),
    )


def rate(weights: Floats, hits: npt.ArrayLike, trials: npt.ArrayLike) -> Rate:
    """Weighted share of hits (num_reports,) among trials (num_reports,), with Wilson's interval.

    >>> rate(np.ones(10), np.ones(10), np.ones(10)).low.__round__(3)  # 10 / (10 + 1.96^2)
    0.722
    """
    weighted = weights * np.asarray(trials, np.float64)
    total = weighted.sum()
    if not total:
        return Rate(*[float("nan")] * 3)
    share = float((weights * np.asarray(hits)).sum() / total)
    number = total**2 / (weighted**2).sum()  # Kish's effective number of trials
    middle = (share + _Z**2 / (2 * number)) / (1 + _Z**2 / number)
    half = _Z / (1 + _Z**2 / number) * np.sqrt(share * (1 - share) / number + (_Z / (2 * number)) ** 2)
    return Rate(share, float(max(0, middle - half)), float(min(1, middle + half)))
