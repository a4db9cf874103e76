"""Two samples of one feature, compared: how far they lie apart, and how far chance alone may bring them.

What may differ is `threshold + chance`. The threshold is the schema's; chance is what two samples of so many
patients from one distribution stay below in all but very few cases:

- shares (L-infinity): 4.5 standard errors of the difference, `4.5 sqrt(p (1 - p) (1/n + 1/m))` with p the
  pooled share, once in 150,000 draws;
- histograms of k bins (Jensen-Shannon divergence in bits): `q / (8 ln 2) (1/n + 1/m)` with q the quantile
  1 - 1e-5 of chi-squared with k - 1 degrees of freedom, by which 8 ln 2 nm/(n+m) times the divergence of two
  large samples is distributed.

n and m are patients, not records: images of one patient are alike. With few patients hardly anything is
an anomaly, which is meant.

A share may also vanish: that nobody has what `VANISHED` patients were to have is an anomaly below the
threshold too. Between splits that holds for positive labels alone, and negative and not mentioned count as
one state: evaluation splits are often labelled in full by people, or hold frontal images alone.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

STANDARD_ERRORS = 4.5
TAIL = 1e-5
VANISHED = 20


@dataclass(frozen=True)
class Difference:
    """How two samples differ.

    Attributes:
        distance: between them.
        chance: what of it two samples of one distribution may show.
        value: the value that differs most, with its two shares; "" for histograms.
        share, other_share: of that value, in this and in the other sample.
        vanished: whether the value is missing where it was to be expected.
    """

    distance: float
    chance: float
    value: str = ""
    share: float = 0.0
    other_share: float = 0.0
    vanished: bool = False

    def exceeds(self, threshold: float) -> bool:
        """Whether the samples differ by more than the threshold and chance."""
        return self.vanished or self.distance > threshold + self.chance


def compare_shares(
    counts: Mapping[str, int],
    other: Mapping[str, int],
    num_patients: int,
    other_patients: int,
    may_not_vanish: Collection[str] | None = None,
) -> Difference | None:
    """The largest difference between the shares of a value, against what chance allows it.

    Args:
        counts: value → how often, in the sample that is looked at.
        other: the same in the sample that it is held against.
        num_patients: behind the first.
        other_patients: behind the second.
        may_not_vanish: values whose absence from the first sample is an anomaly where `VANISHED` patients
            were to have them; None: all values.

    Returns:
        The difference, or None where a sample is empty.

    >>> difference = compare_shares({"yes": 1, "no": 9}, {"yes": 5, "no": 5}, 10, 10)
    >>> difference.value, round(difference.distance, 6), difference.exceeds(0.1)
    ('no', 0.4, False)
    """
    total, other_total = sum(counts.values()), sum(other.values())
    if not (total and other_total and num_patients and other_patients):
        return None
    found = []
    for value in sorted({*counts, *other}):
        share, other_share = counts.get(value, 0) / total, other.get(value, 0) / other_total
        pooled = (share * num_patients + other_share * other_patients) / (num_patients + other_patients)
        spread = pooled * (1 - pooled) * (1 / num_patients + 1 / other_patients)
        watched = may_not_vanish is None or value in may_not_vanish
        vanished = watched and share == 0 and other_share * num_patients >= VANISHED
        chance = STANDARD_ERRORS * math.sqrt(max(spread, 0.0))
        found.append(Difference(abs(share - other_share), chance, value, share, other_share, vanished))
    return max(found, key=lambda difference: (difference.vanished, difference.distance - difference.chance))


def compare_histograms(
    counts: Sequence[float], other: Sequence[float], num_patients: int, other_patients: int
) -> Difference | None:
    """The Jensen-Shannon divergence of two histograms over the same bins, in bits.

    JSD(p, q) = H((p + q) / 2) - H(p) / 2 - H(q) / 2, in [0, 1].

    Args:
        counts: (k,) of the sample that is looked at.
        other: (k,) of the sample that it is held against.
        num_patients: behind the first.
        other_patients: behind the second.

    Returns:
        The difference, or None where a sample is empty.

    >>> round(compare_histograms([4, 0, 0], [0, 2, 2], 4, 4).distance, 6)
    1.0
    """
    p, q = np.asarray(counts, float), np.asarray(other, float)
    if not (p.sum() and q.sum() and num_patients and other_patients):
        return None
    p, q = p / p.sum(), q / q.sum()
    distance = _entropy((p + q) / 2) - _entropy(p) / 2 - _entropy(q) / 2
    freedom = max(int(((p + q) > 0).sum()) - 1, 1)
    quantile = float(stats.chi2.isf(TAIL, freedom))
    return Difference(distance, quantile / (8 * math.log(2)) * (1 / num_patients + 1 / other_patients))


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log2(positive)).sum())
