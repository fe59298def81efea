"""Random keys: reproducible, independent of sharding and device, and statistically sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.layers.dropout as ref
from tinyplm import random
from tinyplm.backend import to_device, to_host
from tinyplm.layers.dropout import dropout

numbers = st.integers(0, 2**63)


@given(seed=numbers, a=numbers, b=numbers)
def test_folding_is_the_same_on_ints_and_arrays(seed, a, b):
    key = random.key(seed)
    assert random.fold(key, a, b) == random.fold(random.fold(key, a), b)
    assert int(random.fold(key, np.array([a], dtype=np.uint64))[0]) == random.fold(key, a)
    assert int(random.fold(np.array([key], dtype=np.uint64), b)[0]) == random.fold(key, b)
    assert random.fold(None, a) is None


def test_folding_gives_distinct_keys():
    keys = {random.fold(random.key(s), step, layer) for s in range(3) for step in range(50) for layer in range(50)}
    assert len(keys) == 3 * 50 * 50
    assert random.fold(random.key(0), 1, 2) != random.fold(random.key(0), 2, 1)


@given(key=st.integers(0, 2**64 - 1), count=st.integers(1, 40))
def test_bits_equal_the_scalar_hash(key, count):
    bits = random.uniform_bits(np.array([key], dtype=np.uint64), (1, count))
    assert bits.dtype == np.uint32
    assert bits[0].tolist() == [ref.element_bits(key, j) for j in range(count)]


def test_bits_on_every_device(device):
    keys = random.sample_keys(random.key(3), np.arange(4))
    expected = random.uniform_bits(keys, (4, 2, 5))
    assert np.array_equal(to_host(random.uniform_bits(to_device(keys, device), (4, 2, 5))), expected)


def test_masks_do_not_depend_on_the_sharding():
    x = np.ones((6, 3, 5))
    keys = random.sample_keys(random.key(1), np.arange(6))
    whole, _ = dropout(x, rate=0.5, key=keys)
    parts = [dropout(x[i : i + 2], rate=0.5, key=keys[i : i + 2])[0] for i in (0, 2, 4)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_rate_is_met_within_binomial_bounds_and_samples_differ():
    n, rate = 200_000, 0.1
    keys = random.sample_keys(random.key(7), np.arange(2))
    y, _ = dropout(np.ones((2, n)), rate=rate, key=keys)
    for row in y:  # five standard deviations
        assert abs((row == 0).sum() - rate * n) < 5 * (n * rate * (1 - rate)) ** 0.5
    both = ((y[0] == 0) & (y[1] == 0)).sum()  # independent: rate^2
    assert abs(both - rate**2 * n) < 5 * (n * rate**2 * (1 - rate**2)) ** 0.5
    assert set(np.unique(y)) == {0.0, 1 / (1 - rate)}


def test_bits_of_neighbours_and_neighbouring_keys_are_uncorrelated():
    n = 1 << 16
    keys = random.sample_keys(random.key(0), np.arange(3))
    u = random.uniform_bits(keys, (3, n)) / 2**32 - 0.5
    bound = 5 / 12 / n**0.5  # five standard deviations of the mean of a product of two uniforms
    for a, b in ((u[0, 1:], u[0, :-1]), (u[0], u[1]), (u[1], u[2]), (u[0, 64:], u[0, :-64])):
        assert abs((a * b).mean()) < bound


def test_wrong_keys_and_rates_are_refused():
    with pytest.raises(
        ValueError, match=r"^dropout: key: expected an array of keys of shape \(2,\), got uint64 array of shape \(3,\)"
    ):
        dropout(np.ones((2, 3)), rate=0.5, key=np.zeros(3, dtype=np.uint64))
    with pytest.raises(ValueError, match="rate: expected a finite number >= 0 and < 1, got 1"):
        dropout(np.ones((2, 3)), rate=1, key=None)


def test_no_key_no_dropout():
    x = np.ones((2, 3))
    assert dropout(x, rate=0.5, key=None)[0] is x
