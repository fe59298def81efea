"""The error function."""

from __future__ import annotations

import math

import numpy as np

from tinyplm.special import erf


def test_erf_against_math():
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-200, 0.8, 500), [0.0]])
    expected = np.array([math.erf(v) for v in x])
    got = erf(x)
    assert np.max(np.abs(got - expected)) < 4e-15
    assert np.max(np.abs(got[x > 0] / expected[x > 0] - 1)) < 4e-15  # small arguments keep their relative accuracy
    got32 = erf(x.astype(np.float32))
    assert got32.dtype == np.float32 and np.max(np.abs(got32 - expected)) < 2e-7
    assert np.isnan(erf(np.array([np.nan]))[0]) and erf(np.array([np.inf, -np.inf])).tolist() == [1, -1]
