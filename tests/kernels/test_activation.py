"""Blocked GELUs: the normal distribution, blocks that cover each row once, float32 against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

import reference.layers.activation as reference
from tests.laws import FEW
from tinyplm import backend
from tinyplm.backend import to_device, to_host
from tinyplm.kernels import activation, blocks
from tinyplm.kernels.activation import gelu, gelu_tanh


def normal_cdf(x):
    out = np.empty_like(x)
    activation.normal_cdf(x, out)
    return out


@pytest.mark.filterwarnings("ignore:overflow encountered")  # of x^2, on purpose
def test_normal_cdf_against_math():
    """In float32, the last sum rounds by at most 2^-24, and the 14 operations of the argument together by as much again."""
    x = np.concatenate([np.linspace(-9, 9, 200001), np.logspace(-30, 30, 2000), -np.logspace(-30, 30, 2000), [0.0]])
    for dtype, error, tail in (("float64", 4e-15, 12), ("float32", 2e-7, 6)):
        given = x.astype(dtype)
        expected = np.array([math.erfc(-v * math.sqrt(0.5)) / 2 for v in given.tolist()])
        got = normal_cdf(given)
        assert got.dtype == dtype and np.max(np.abs(got - expected)) < error
        assert np.all(got[given <= -tail] == 0) and np.all(got[given >= tail] == 1) and got[-1] == 0.5
        special = normal_cdf(np.array([np.inf, -np.inf, np.nan], dtype=dtype))
        assert np.array_equal(special, np.array([1, 0, np.nan], dtype=dtype), equal_nan=True)


def test_normal_cdf_of_large_numbers_gives_no_warning():
    with np.errstate(over="raise", invalid="raise"):
        assert normal_cdf(np.array([1e4, -1e4, 1e18], dtype=np.float32)).tolist() == [1, 0, 1]


def test_the_polynomial_of_normal_cdf_without_rounding():
    x = np.linspace(-6, 6, 20001)
    u = x * np.polyval(activation.NORMAL_CDF, x * x)
    expected = [math.erfc(-v * math.sqrt(0.5)) / 2 for v in x]
    assert np.max(np.abs((1 + np.tanh(u)) / 2 - expected)) < 3e-8  # the error printed by reference/fit_normal_cdf.py


@pytest.mark.parametrize("size", [1, 24, 25, 1000])
def test_by_blocks_covers_each_row_once(device, size, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", size)
    xp = backend.device(device).xp
    x = backend.to_device(np.arange(30.0).reshape(2, 5, 3), device)
    widths = backend.to_device(np.arange(10.0).reshape(2, 5, 1), device)
    out = xp.zeros((2, 5, 3))
    calls = []

    def f(x, w, out):
        calls.append(x.shape)
        out += x * w

    blocks.by_blocks(f, x, widths, out)
    expected = np.arange(30.0).reshape(2, 5, 3) * np.arange(10.0).reshape(2, 5, 1)
    assert np.array_equal(backend.to_host(out), expected)
    assert len(calls) == (-(-10 // max(1, size // 3)) if device == "cpu" else 1)


def test_gelu_in_float32_is_that_of_float64(device):
    """The form of Phi used here is accurate to 2e-7; x phi(x), at most 0.25, is rounded six times."""
    x = np.concatenate([np.linspace(-8, 8, 20001), np.logspace(-20, 0, 500)]).astype(np.float32)
    y, backward = gelu(to_device(x, device))
    dx = to_host(backward(to_device(np.ones_like(x), device)))
    exact, exact_backward = gelu(x.astype(np.float64))
    assert y.dtype == "float32" and dx.dtype == "float32"
    assert np.all(np.abs(to_host(y) - exact) <= 2e-7 * np.abs(x))
    assert np.max(np.abs(dx - exact_backward(np.ones(len(x))))) < 2e-7 + 6 * 0.25 * np.finfo(np.float32).eps


@pytest.mark.parametrize("f", [gelu, gelu_tanh])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_array_is_computed_as_its_parts_are(f, dtype, monkeypatch):
    """In blocks of 4 rows, the last one partial; x is not contiguous."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3, 5)).astype(dtype).T
    dy = rng.normal(size=(5, 3, 6)).astype(dtype)
    y, backward = f(x)
    dx = backward(dy)
    monkeypatch.setattr(blocks, "BLOCK", 4 * 6)
    y_in_blocks, backward = f(x)
    assert np.array_equal(y_in_blocks, y) and np.array_equal(backward(dy), dx)


def test_the_names_of_configs():
    """Each against the formula of that name in reference/."""
    x = np.linspace(-4, 4, 9)
    formulas = {
        "relu": reference.relu, "gelu": reference.gelu, "gelu_new": reference.gelu_tanh, "gelu_pytorch_tanh": reference.gelu_tanh,
        "silu": reference.silu, "swish": reference.silu, "tanh": reference.tanh,
    }  # fmt: skip
    assert formulas.keys() == activation.ACTIVATIONS.keys()
    for name, f in formulas.items():
        assert np.max(np.abs(activation.ACTIVATIONS[name](x)[0] - f(x))) < 4 * FEW, name
