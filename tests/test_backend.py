"""What layers compute element by element: erf, the normal distribution, and large arrays by blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.laws import FEW, SINGLE
from tinyplm import backend


def test_erf_against_math():
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-200, 0.8, 500), [0.0]])
    expected = np.array([math.erf(v) for v in x])
    got = backend.erf(x)
    assert np.max(np.abs(got - expected)) < FEW
    assert np.max(np.abs(got[x > 0] / expected[x > 0] - 1)) < FEW  # small arguments keep their digits
    got32 = backend.erf(x.astype(np.float32))
    assert got32.dtype == np.float32 and np.max(np.abs(got32 - expected)) < SINGLE
    assert np.isnan(backend.erf(np.array([np.nan]))[0]) and backend.erf(np.array([np.inf, -np.inf])).tolist() == [1, -1]


def normal_cdf(x):
    out = np.empty_like(x)
    backend.normal_cdf(x, out)
    return out


@pytest.mark.filterwarnings("ignore:overflow encountered")  # of x^2, which is meant
def test_normal_cdf_against_math():
    x = np.concatenate([np.linspace(-9, 9, 200001), np.logspace(-30, 30, 2000), -np.logspace(-30, 30, 2000), [0.0]])
    for dtype, error, tail in (("float64", FEW, 12), ("float32", SINGLE, 6)):
        given = x.astype(dtype)
        expected = np.array([math.erfc(-v * math.sqrt(0.5)) / 2 for v in given.tolist()])
        got = normal_cdf(given)
        assert got.dtype == dtype and np.max(np.abs(got - expected)) < error
        assert np.all(got[given <= -tail] == 0) and np.all(got[given >= tail] == 1) and got[-1] == 0.5
        special = normal_cdf(np.array([np.inf, -np.inf, np.nan], dtype=dtype))
        assert np.array_equal(special, np.array([1, 0, np.nan], dtype=dtype), equal_nan=True)
    half = np.array([-60000, -3, 0.5, 60000], dtype=np.float16)
    expected = np.array([math.erfc(-float(v) * math.sqrt(0.5)) / 2 for v in half])
    assert normal_cdf(half).dtype == np.float16 and np.allclose(normal_cdf(half), expected, rtol=2**-11, atol=SINGLE)


def test_normal_cdf_of_large_numbers_gives_no_warning():
    with np.errstate(over="raise", invalid="raise"):
        assert normal_cdf(np.array([1e4, -1e4, 1e18], dtype=np.float32)).tolist() == [1, 0, 1]


def test_the_polynomial_of_normal_cdf_without_rounding():
    x = np.linspace(-6, 6, 20001)
    u = x * np.polyval(backend._NORMAL_CDF, x * x)
    expected = [math.erfc(-v * math.sqrt(0.5)) / 2 for v in x]
    assert np.max(np.abs((1 + np.tanh(u)) / 2 - expected)) < 3e-8  # what reference/fit_normal_cdf.py prints


@pytest.mark.parametrize("size", [1, 24, 25, 1000])
def test_by_blocks_covers_each_row_once(device, size, monkeypatch):
    monkeypatch.setattr(backend, "BLOCK", size)
    xp = backend.device(device).xp
    x = backend.to_device(np.arange(30.0).reshape(2, 5, 3), device)
    widths = backend.to_device(np.arange(10.0).reshape(2, 5, 1), device)
    out = xp.zeros((2, 5, 3))
    calls = []

    def f(x, w, out):
        calls.append(x.shape)
        out += x * w

    backend.by_blocks(f, x, widths, out)
    expected = np.arange(30.0).reshape(2, 5, 3) * np.arange(10.0).reshape(2, 5, 1)
    assert np.array_equal(backend.to_host(out), expected)
    assert len(calls) == (-(-10 // max(1, size // 3)) if device == "cpu" else 1)
