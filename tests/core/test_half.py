"""in_float32: what a component gets, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest

from tinyplm.core import in_float32

x16, x32, x64 = (np.arange(3).astype(dtype) for dtype in ("float16", "float32", "float64"))


def noted(outputs, got):
    """A component of x and w with this many outputs (0: a loss), which notes the dtypes that it computes with."""

    @in_float32
    def f(x, w=None):
        got.append([a if a is None else a.dtype.name for a in (x, w)])
        y = x.sum() if outputs == 0 else x * 2 if outputs == 1 else {"y": x * 2}

        def backward(dy):
            dy = dy["y"] if outputs == 2 else dy
            got.append(dy.dtype.name)
            return dy * np.ones_like(x), None if w is None else dy * np.ones_like(w)

        return y, backward

    return f


@pytest.mark.parametrize("outputs", [0, 1, 2])
@pytest.mark.parametrize(
    ("x", "w", "inside", "y_dtype"),
    [
        (x16, x16, ["float32", "float32"], "float16"),
        (x16, None, ["float32", None], "float16"),
        (x16, x32, ["float32", "float32"], "float16"),
        (x32, x16, ["float32", "float32"], "float32"),
        (x64, x64, ["float64", "float64"], "float64"),
    ],
)
def test_dtypes(outputs, x, w, inside, y_dtype):
    got = []
    y, back = noted(outputs, got)(x, w)
    y = y["y"] if outputs == 2 else y
    assert y.dtype == (y_dtype if outputs == 1 else inside[0])  # a loss and named outputs are not narrowed
    dy = np.ones_like(y, dtype=np.float16 if inside[0] == "float32" else y.dtype)
    dx, dw = back({"y": dy} if outputs == 2 else dy)
    assert got == [inside, inside[0]]
    assert dx.dtype == x.dtype and (dw is None if w is None else dw.dtype == w.dtype)


def test_a_single_gradient_is_bare():
    y, back = in_float32(lambda x: (x * 2, lambda dy: dy * 2))(x16)
    dx = back(y)
    assert (y.dtype, dx.dtype) == ("float16", "float16") and dx.tolist() == [0, 4, 8]


def test_a_loss_takes_a_number_of_any_dtype():
    """One of float64 would promote float32 arrays."""
    _, back = noted(0, [])(x32, x32)
    for dtype in ("float16", "float32", "float64"):
        assert [d.dtype for d in back(np.dtype(dtype).type(2))] == ["float32", "float32"]
