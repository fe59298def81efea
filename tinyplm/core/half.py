"""Half precision: a decorator lets components that are written for float32 take float16."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .types import Array

F = TypeVar("F", bound=Callable)

HALF = np.dtype("float16")


def in_float32(f: F) -> F:
    """A component that computes in float32 where it is given float16; results return to float16.

    y gets the dtype of the first argument; a scalar (a loss) and named outputs stay in float32.
    Each gradient gets the dtype of its argument.  float32 and float64 pass unchanged.
    """

    @functools.wraps(f)
    def component(*args: Array, **kwargs: Any) -> Any:
        half = False
        for a in args:  # a loop, not any(...): a norm of one token takes 10 microseconds
            if a is not None and a.dtype == HALF:
                half = True
        y, back = f(*map(_widened, args), **kwargs) if half else f(*args, **kwargs)
        loss = isinstance(y, dict) or not y.ndim
        if not half and not loss:
            return y, back

        def backward(dy: Any) -> Any:
            if isinstance(dy, dict):
                dy = {name: _widened(d) for name, d in dy.items()}
            gradients = back(_widened(dy))
            if isinstance(gradients, tuple):
                return tuple(map(_returned, gradients, args))
            return _returned(gradients, args[0])

        return y if loss else _returned(y, args[0]), backward

    return component  # type: ignore[return-value]


def _widened(x: Any) -> Any:
    return x.astype("float32") if getattr(x, "dtype", None) == HALF else x


def _returned(a: Array | None, like: Array | None) -> Array | None:
    return a if a is None or like is None else a.astype(like.dtype, copy=False)
