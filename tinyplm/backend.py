"""Devices: the array module of an array, moving trees between devices, and the few operations that
need different code in NumPy and CuPy. The only file that imports cupy.

Layers write `xp = array_module(x)` and use only functions that NumPy and CuPy share, so that one
source runs on both.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .arguments import wrong


class Device(NamedTuple):
    """How to recognise and move the arrays of one device."""

    xp: Any  # the module with NumPy's interface
    array_type: type
    to_device: Callable[[np.ndarray], Any]
    to_host: Callable[[Any], np.ndarray]


_DEVICES: dict[str, Device] = {"cpu": Device(np, np.ndarray, lambda a: a, lambda a: a)}


def register_device(
    name: str, *, xp: Any, array_type: type, to_device: Callable, to_host: Callable
) -> None:
    """Register or replace a device by its array type, such as the stand-in of tests/gpu."""
    _DEVICES[name] = Device(xp, array_type, to_device, to_host)


def device(name: str) -> Device:
    """The device called `name` ("cpu", "gpu" or a registered one); ValueError if not available."""
    if not isinstance(name, str):
        raise wrong("device", "the name of a device", name)
    if name == "gpu" and "gpu" not in _DEVICES:
        try:
            import cupy
        except ImportError as error:
            install = "pip install cupy-cuda12x"
            raise ValueError(f"device 'gpu': expected CuPy ({install}), got none") from error
        if not cupy.is_available():
            raise ValueError("device 'gpu': expected a CUDA device, got none from CuPy")
        register_device(
            "gpu", xp=cupy, array_type=cupy.ndarray, to_device=cupy.asarray, to_host=cupy.asnumpy
        )
    if name not in _DEVICES:
        raise wrong("device", f"one of {', '.join(sorted({*_DEVICES, 'gpu'}))}", name)
    return _DEVICES[name]


def _device_of(array: Any) -> Device:
    for candidate in _DEVICES.values():
        if isinstance(array, candidate.array_type):
            return candidate
    if "cupy" in sys.modules and isinstance(array, sys.modules["cupy"].ndarray):
        return device("gpu")
    expected = f"an array of {' or '.join(_DEVICES)}"
    raise TypeError(f"array: expected {expected}, got {type(array).__name__}")


def array_module(array: Any) -> Any:
    """numpy for a NumPy array, cupy for a CuPy array, the registered module for other types."""
    if type(array) is np.ndarray:
        return np
    if isinstance(array, np.generic):  # reductions to a scalar
        return np
    return _device_of(array).xp


def is_host(array: Any) -> bool:
    """Whether reading a value from `array` needs no synchronisation with a device."""
    return array_module(array) is np


def to_device(tree: Any, name: str) -> Any:
    """A tree (nested dicts and lists) with every array moved from the host to the device `name`."""
    target = device(name)
    return _walk(lambda a: target.to_device(to_host(a)), tree)


def to_host(tree: Any) -> Any:
    """A tree with every array as a NumPy array (the same object if it is one already)."""

    def moved(a: Any) -> Any:
        return a if isinstance(a, (np.ndarray, np.generic)) else _device_of(a).to_host(a)

    return _walk(moved, tree)


def _walk(f: Callable, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _walk(f, branch) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [_walk(f, branch) for branch in tree]
    return tree if tree is None else f(tree)


def at_least_float32(x: Any) -> Any:
    """x for statistics: float16 becomes float32; float32 and float64 are not copied."""
    return x.astype("float32") if x.dtype == "float16" else x


def sum_float32(a: Any, axis: int | tuple[int, ...], keepdims: bool = False) -> Any:
    """a summed over `axis` in at least float32, the result in a's dtype.

    In float16 a running sum of ones stops at 2048, because the next number is 2050.
    """
    dtype = "float32" if a.dtype == "float16" else a.dtype
    return a.sum(axis=axis, dtype=dtype, keepdims=keepdims).astype(a.dtype, copy=False)


def scatter_add(rows: int, ids: Any, updates: Any) -> Any:
    """out[i] = sum of updates[n] over all n with ids[n] = i.

    ids (N,) integers in [0, rows), updates (N, D) -> (rows, D). Summed in at least float32.
    """
    xp = array_module(updates)
    dtype, updates = updates.dtype, at_least_float32(updates)
    out = xp.zeros((rows, updates.shape[1]), dtype=updates.dtype)
    add_rows(out, ids, updates)
    return out.astype(dtype, copy=False)


def add_rows(out: Any, ids: Any, updates: Any) -> None:
    """out[ids[n]] += updates[n] for all n, in place.

    out (R, D), ids (N,) integers in [0, R), updates (N, D). On the host updates are sorted by id and
    summed run by run in the order of n: repeatable, and two to four times as fast as `np.add.at`. On
    a GPU atomic additions are used; their order is not fixed, so the last bits may vary.
    """
    xp = array_module(updates)
    if xp is not np:
        xp.add.at(out, ids, updates)
    elif len(ids):
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        out[ordered[starts]] += np.add.reduceat(at_least_float32(updates[order]), starts, axis=0)


BLOCK = 1 << 17  # elements at a time on the host: half a megabyte of float32, of which several fit a large L2 cache


def by_blocks(f: Callable, *arrays: Any) -> None:
    """f(*arrays), on the host some rows of them at a time, so that what f allocates in between stays in the cache.

    The arrays (..., n), with n their own, share the leading axes; f gets them as matrices (rows, n), works row by row, and writes
    its results into some of them, which are contiguous.  With smaller blocks, threads would wait for the interpreter.
    """
    rows = [a.reshape(-1, a.shape[-1]) for a in arrays]
    count, width = rows[0].shape[0], max(a.shape[1] for a in rows)
    step = max(1, BLOCK // max(width, 1)) if is_host(arrays[0]) else max(count, 1)
    for start in range(0, count, step):
        f(*(a[start : start + step] for a in rows))


@functools.cache
def _erf_polynomials(dtype: str) -> tuple[list[float], list[float]]:
    """Coefficients, highest power first, of the two polynomials in `erf`, in u in [-1, 1].

    Found by interpolation at Chebyshev points from math.erf and math.erfc, so that no table has to be believed.
    """
    near_degree, far_degree = (6, 9) if dtype == "float32" else (12, 22)

    def interpolate(f: Callable[[float], float], degree: int) -> list[float]:
        chebyshev = np.polynomial.chebyshev.chebinterpolate(np.vectorize(f), degree)
        return np.polynomial.chebyshev.cheb2poly(chebyshev)[::-1].tolist()

    def near(u: float) -> float:  # erf(x) / x with x^2 = (u + 1) / 2
        x = math.sqrt((u + 1) / 2)
        return math.erf(x) / x if x > 0 else 2 / math.sqrt(math.pi)

    def far(u: float) -> float:  # exp(x^2) erfc(x), smooth in t = 1 / (1 + x); u = -1 is x = 6, u = 1 is x = 1
        t = _T6 + (u + 1) / 2 * (0.5 - _T6)
        x = 1 / t - 1
        return math.exp(x * x) * math.erfc(x)

    return interpolate(near, near_degree), interpolate(far, far_degree)


_T6 = 1 / 7  # 1 / (1 + x) at x = 6, beyond which erf(x) is 1 in float64


def _horner(coefficients: list[float], u: Any) -> Any:
    total = u * coefficients[0]
    for c in coefficients[1:-1]:
        total += c
        total *= u
    total += coefficients[-1]
    return total


def erf(x: Any) -> Any:
    """erf(x) = 2/sqrt(pi) * integral of exp(-t^2) from 0 to x, elementwise, in x's dtype.

    |x| <= 1: x times a polynomial in x^2.  Beyond: sign(x) (1 - exp(-x^2) P(1 / (1 + |x|))).
    Error against math.erf below 4e-15 in float64, 2e-7 in float32.
    """
    xp = array_module(x)
    near_p, far_p = _erf_polynomials("float32" if x.dtype != "float64" else "float64")
    values = at_least_float32(x)
    a = xp.minimum(xp.abs(values), 6)
    inside = xp.minimum(a, 1)
    near = inside * _horner(near_p, 2 * inside * inside - 1)
    outside = xp.maximum(a, 1)
    t = 1 / (1 + outside)
    far = 1 - xp.exp(-outside * outside) * _horner(far_p, (t - _T6) * (2 / (0.5 - _T6)) - 1)
    return xp.copysign(xp.where(a <= 1, near, far), values).astype(x.dtype, copy=False)


# Phi(x) = (1 + tanh(x P(x^2))) / 2 within 2.9e-8 for |x| <= 6: reference/fit_normal_cdf.py.  Highest power first.
_NORMAL_CDF = (1.75627849e-09, -1.32266323e-07, 3.96477379e-06, -5.53063207e-05, -3.25947336e-05, 0.0363330844, 0.797884942)


def normal_cdf(x: Any, out: Any) -> None:
    """out[...] = Phi(x) = (1 + erf(x / sqrt 2)) / 2, elementwise, out of x's dtype and shape.

    In float32 the tanh of a polynomial, a fifth of the work of erf: NumPy's tanh costs as much as two multiplications.
    Error below 2e-7 in float32, of which rounding is the larger part, and 4e-15 in float64; 0 and 1 from |x| = 6 on in float32.
    """
    xp = array_module(x)
    if x.dtype == "float64":
        out[...] = erf(x * math.sqrt(0.5))
    elif x.dtype == "float32":
        s = x * x
        xp.minimum(s, 36, out=s)  # beyond, P(36) x has the tanh +-1; and s^6 cannot overflow
        xp.multiply(s, _NORMAL_CDF[0], out=out)
        for c in _NORMAL_CDF[1:-1]:
            out += c
            out *= s
        out += _NORMAL_CDF[-1]
        out *= x
        xp.tanh(out, out=out)
    else:
        exact = xp.empty(x.shape, dtype="float32")
        normal_cdf(x.astype("float32"), exact)
        out[...] = exact
        return
    out += 1
    out *= 0.5
