"""Comparisons: what chance does is no anomaly at any size, what lies beyond threshold and chance is one."""

import numpy as np
import pytest

from beam_jobs.validation.comparison import compare_histograms, compare_shares


def test_samples_of_one_distribution_do_not_differ_at_any_size():
    rng = np.random.default_rng(0)
    distances = {}
    for n, m in ((20, 30), (200, 40), (2000, 300)):
        for _ in range(300):
            p = rng.dirichlet(np.ones(4))
            x, y = (dict(zip("abcd", rng.multinomial(k, p), strict=True)) for k in (n, m))
            shares = compare_shares(x, y, n, m)
            histograms = compare_histograms([*x.values()], [*y.values()], n, m)
            assert not shares.exceeds(0.1)
            assert not histograms.exceeds(0.1)
            distances.setdefault(n, []).append(shares.distance)
    assert max(distances[20]) > 0.3  # without an allowance for chance these were anomalies


@pytest.mark.parametrize(("num_patients", "exceeds"), [(20, False), (400, True)])
def test_the_same_shares_are_an_anomaly_once_enough_patients_have_them(num_patients, exceeds):
    here, there = {"yes": 4, "no": 6}, {"yes": 1, "no": 9}
    difference = compare_shares(here, there, num_patients, num_patients)
    # 4.5 sqrt(.25 * .75 * 2 / n) is .616 for 20 patients and .138 for 400; the shares differ by .3.
    assert difference.chance == pytest.approx(4.5 * np.sqrt(0.25 * 0.75 * 2 / num_patients))
    assert difference.exceeds(0.1) == exceeds


def test_a_value_vanishes_where_twenty_patients_were_to_have_it():
    there = {"positive": 5, "no": 95}
    for num_patients, vanished in ((399, False), (400, True)):
        difference = compare_shares({"no": 300}, there, num_patients, 5000, may_not_vanish=("positive",))
        assert difference.vanished == vanished
        assert difference.exceeds(0.1) == vanished
    assert not compare_shares({"no": 300}, there, 400, 5000, may_not_vanish=()).vanished


def test_divergence_is_that_of_the_formula():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    m = (p + q) / 2
    expected = 0.5 * (p[:2] * np.log2(p[:2] / m[:2])).sum() + 0.5 * (q * np.log2(q / m)).sum()
    assert compare_histograms(p * 40, q * 80, 7, 9).distance == pytest.approx(expected)
    assert compare_histograms(q * 80, p * 40, 9, 7).distance == pytest.approx(expected)
    assert compare_histograms([0, 0], [1, 2], 3, 3) is None
