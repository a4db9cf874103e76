"""Difference between two samples of a feature, and whether chance explains it.

The difference is the largest one between the shares of a value (L-infinity); numbers are binned. It is an
anomaly if it is larger than the schema's threshold and unlikely by chance: Pearson's chi-squared test of both
samples, with counts scaled to the number of patients, gives p < 1e-5. Images of one patient are alike, hence
patients. With few patients hardly any difference is an anomaly.

A value may also vanish: nobody has it where at least `VANISHED` patients were expected to. This is an anomaly
below the threshold too.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2_contingency

P_VALUE = 1e-5
VANISHED = 20


@dataclass(frozen=True)
class Difference:
    """Difference of two samples."""

    value: str  # the value that differs most
    share: float  # of that value, in this sample
    other_share: float  # and in the other one
    p_value: float  # of the test
    vanished: bool  # by the definition above

    @property
    def distance(self) -> float:
        """Difference of the shares, in [0, 1]."""
        return abs(self.share - self.other_share)

    def exceeds(self, threshold: float) -> bool:
        """Whether the difference is an anomaly."""
        return self.vanished or (self.distance > threshold and self.p_value < P_VALUE)


def compare(
    counts: Mapping[str, int],
    other: Mapping[str, int],
    patients: tuple[int, int],
    may_not_vanish: Collection[str] = (),
) -> Difference | None:
    """Largest difference between the shares of a value, vanished values first; None for an empty sample.

    `counts` and `other` map values to counts in the two samples, `patients` are theirs. A value of
    `may_not_vanish` that the first sample lacks is an anomaly.

    >>> difference = compare({"a": 4, "b": 5, "c": 1}, {"a": 1, "b": 6, "c": 3}, (400, 400))
    >>> difference.value, round(difference.distance, 3), difference.exceeds(0.1)
    ('a', 0.3, True)
    """
    values = sorted(value for value in {*counts, *other} if counts.get(value) or other.get(value))
    table = np.array([[one.get(value, 0) for value in values] for one in (counts, other)], float)
    if not (table.size and table.sum(axis=1).all() and all(patients)):
        return None
    both_shares = table / table.sum(axis=1, keepdims=True)  # (2, num_values)
    scaled = both_shares * np.array(patients, float)[:, None]
    p_value = float(chi2_contingency(scaled, correction=False).pvalue)
    found = [
        Difference(
            value, share, other_share, p_value,
            vanished=value in may_not_vanish and share == 0 and other_share * patients[0] >= VANISHED,
        )
        for value, share, other_share in zip(values, *both_shares.tolist(), strict=True)
    ]  # fmt: skip
    return max(found, key=lambda difference: (difference.vanished, difference.distance))
