"""Gemma's RMSNorm: one row, whose statistic is a scalar, is computed as it is among others."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import rounding
from tinyplm.backend import to_device, to_host
from tinyplm.kernels.norm import unit_rmsnorm


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("shape", [(1, 1, 7), (1, 7), (7,), (1, 1, 1)])
def test_one_row_is_computed_as_it_is_among_others(device, dtype, shape):
    """Two sums of D terms and some 20 operations, relative to the largest value; in float16 the result is rounded."""
    rng = np.random.default_rng(0)
    D = shape[-1]
    x, dy = (rng.normal(size=(3, D)).astype(dtype) for _ in range(2))
    dy[1:] = 0  # the other rows add nothing to dw
    w = rng.normal(size=D).astype(dtype)
    y, back = unit_rmsnorm(*to_device([x, w], device), eps=0.1)
    one, one_back = unit_rmsnorm(*to_device([x[0].reshape(shape), w], device), eps=0.1)
    assert (one.shape, one.dtype) == (shape, dtype)
    dx, dw = back(to_device(dy, device))
    one_dx, one_dw = one_back(to_device(dy[0].reshape(shape), device))
    near = rounding(20, D, D, dtype=dtype)
    for a, b in ((one, y[0]), (one_dx, dx[0]), (one_dw, dw)):
        a, b = to_host(a).ravel(), to_host(b)
        assert a.dtype == dtype and np.max(np.abs(a - b)) <= near * np.max(np.abs(b))


def test_no_rows(device):
    x, w = to_device([np.ones((2, 0, 5)), np.ones(5)], device)
    y, backward = unit_rmsnorm(x, w)
    dx, dw = backward(y)
    assert y.shape == dx.shape == (2, 0, 5) and not to_host(dw).any()
