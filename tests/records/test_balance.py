"""Repeat factors by hand, and the shares that they bring about."""

import numpy as np
import tensorflow as tf

from medclip_keras.records.balance import num_copies, repeat_factors


def test_factor_is_the_equal_share_over_the_class_share():
    # 100 items, 4 classes: 80 none, 10, 5, 5. The equal share is 25.
    np.testing.assert_allclose(repeat_factors([10, 5, 5], 80, 100), [2.5, 5, 5, 25 / 80])


def test_factor_is_bounded_and_zero_where_a_class_is_absent():
    np.testing.assert_allclose(
        repeat_factors([1, 0], 999, 1000, max_repeats=16), [16, 0, 1000 / 999 / 2], rtol=1e-6
    )


def test_num_copies_takes_the_largest_factor_of_an_item():
    states = np.int8([[1, 1], [1, 0], [2, 3], [0, 0]])  # a negative or uncertain finding is no positive
    copies = num_copies(states, np.float32([2, 5, 1]), tf.constant([1, 2]))
    np.testing.assert_array_equal(copies, [5, 2, 1, 1])


def test_num_copies_has_the_factor_as_its_mean():
    states = np.repeat(np.int8([[1], [0]]), 4000, axis=0)
    factors = np.float32([2.3, 0.4])
    copies = num_copies(states, factors, tf.constant([5, 6])).numpy()
    assert set(copies[:4000]) == {2, 3}
    assert set(copies[4000:]) == {0, 1}
    np.testing.assert_allclose([copies[:4000].mean(), copies[4000:].mean()], factors, atol=0.03)
    assert not np.array_equal(copies, num_copies(states, factors, tf.constant([5, 7])))
