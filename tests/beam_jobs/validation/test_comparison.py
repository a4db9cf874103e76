"""Comparisons: what chance does is no anomaly at any size, what lies beyond threshold and chance is one."""

import math

import numpy as np
import pytest

from beam_jobs.validation.comparison import P_VALUE, compare


def test_samples_of_one_distribution_do_not_differ_at_any_size():
    rng = np.random.default_rng(0)
    distances = {}
    for n, m in ((20, 30), (200, 40), (2000, 300)):
        for _ in range(300):
            p = rng.dirichlet(np.ones(4))
            x, y = (dict(zip("abcd", rng.multinomial(k, p), strict=True)) for k in (n, m))
            difference = compare(x, y, (n, m))
            assert not difference.exceeds(0.1)
            distances.setdefault(n, []).append(difference.distance)
    assert max(distances[20]) > 0.3  # without an allowance for chance these were anomalies


@pytest.mark.parametrize(("num_patients", "exceeds"), [(20, False), (400, True)])
def test_the_same_shares_are_an_anomaly_once_enough_patients_have_them(num_patients, exceeds):
    here, there = {"yes": 4, "no": 6}, {"yes": 1, "no": 9}
    difference = compare(here, there, (num_patients, num_patients))
    # Of a 2 x 2 table chi-squared is z squared, with z = .3 / sqrt(.25 * .75 * 2 / n): 2.19 for 20 patients,
    # 9.80 for 400; P(|Z| > z) = erfc(z / sqrt(2)).
    z = 0.3 / np.sqrt(0.25 * 0.75 * 2 / num_patients)
    assert difference.p_value == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert (difference.p_value < P_VALUE) == exceeds
    assert difference.exceeds(0.1) == exceeds
    assert not difference.exceeds(0.31)  # a difference within the threshold, however sure it is


def test_value_vanishes_if_twenty_patients_were_expected_to_have_it():
    there = {"positive": 5, "no": 95}
    for num_patients, vanished in ((399, False), (400, True)):
        difference = compare({"no": 300}, there, (num_patients, 5000), ("positive",))
        assert difference.vanished == vanished
        assert difference.exceeds(0.1) == vanished
    assert not compare({"no": 300}, there, (400, 5000)).vanished


def test_an_empty_sample_is_not_compared():
    assert compare({"a": 0}, {"a": 1}, (3, 3)) is None
    assert compare({"a": 1}, {"a": 1}, (0, 3)) is None
