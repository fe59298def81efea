"""Devices: the array module of an array, moving trees between devices, and the few operations that
need different code in NumPy and CuPy. The only file that imports cupy.

Layers write `xp = array_module(x)` and use only functions that NumPy and CuPy share, so that one
source runs on both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .arguments import mismatch, wrong


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
            raise mismatch("device 'gpu'", "CuPy (pip install cupy-cuda12x)", "none") from error
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


def pool_memory(name: str) -> dict[str, int]:
    """Bytes of CuPy's memory pool: {"used", "reserved"}; empty for a device without a pool."""
    pool = getattr(device(name).xp, "get_default_memory_pool", None)
    if pool is None:
        return {}
    return {"used": int(pool().used_bytes()), "reserved": int(pool().total_bytes())}


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

    out (R, D), ids (N,) integers in [0, R), updates (N, D). On the host updates are sorted by id
    and summed run by run in the order of n: repeatable, and two to four times as fast as
    `np.add.at`. A GPU adds atomically, in no fixed order, so the last bits may vary.
    """
    xp = array_module(updates)
    if xp is not np:
        xp.add.at(out, ids, updates)
    elif len(ids):
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        out[ordered[starts]] += np.add.reduceat(at_least_float32(updates[order]), starts, axis=0)
