"""Where arrays live: the array module of an array, moving trees between devices, and the few operations for which
NumPy and CuPy need different code.  The only file that imports cupy.

Layer code says `xp = array_module(x)` and then uses only what NumPy and CuPy share, so one source runs on both.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .arguments import wrong


class Device(NamedTuple):
    """How to recognise and to move the arrays of one device."""

    xp: Any  # the module with NumPy's interface
    array_type: type
    to_device: Callable[[np.ndarray], Any]
    to_host: Callable[[Any], np.ndarray]


_DEVICES: dict[str, Device] = {"cpu": Device(np, np.ndarray, lambda a: a, lambda a: a)}


def register_device(name: str, *, xp: Any, array_type: type, to_device: Callable, to_host: Callable) -> None:
    """Make arrays of another type known, e.g. the stand-in of tests/gpu.  Registering a name again replaces it."""
    _DEVICES[name] = Device(xp, array_type, to_device, to_host)


def device(name: str) -> Device:
    """The device called `name` ("cpu", "gpu", or a registered one); ValueError if there is no such one here."""
    if not isinstance(name, str):
        raise wrong("device", "the name of a device", name)
    if name == "gpu" and "gpu" not in _DEVICES:
        try:
            import cupy
        except ImportError as error:
            raise ValueError("device 'gpu' needs CuPy: pip install cupy-cuda12x") from error
        if not cupy.is_available():
            raise ValueError("device 'gpu': CuPy is installed but finds no CUDA device")
        register_device("gpu", xp=cupy, array_type=cupy.ndarray, to_device=cupy.asarray, to_host=cupy.asnumpy)
    if name not in _DEVICES:
        raise wrong("device", f"one of {', '.join(sorted({*_DEVICES, 'gpu'}))}", name)
    return _DEVICES[name]


def _device_of(array: Any) -> Device:
    for candidate in _DEVICES.values():
        if isinstance(array, candidate.array_type):
            return candidate
    if "cupy" in sys.modules and isinstance(array, sys.modules["cupy"].ndarray):
        return device("gpu")
    raise TypeError(f"expected an array of {' or '.join(_DEVICES)}, got {type(array).__name__}")


def array_module(array: Any) -> Any:
    """numpy for a NumPy array, cupy for a CuPy array, the stand-in module for a registered array type."""
    if type(array) is np.ndarray:
        return np
    if isinstance(array, np.generic):  # NumPy's reductions to a scalar
        return np
    return _device_of(array).xp


def is_host(array: Any) -> bool:
    """Whether reading a value out of `array` is free (NumPy), not a wait for the device."""
    return array_module(array) is np


def to_device(tree: Any, name: str) -> Any:
    """Every array of a tree (nested dicts and lists) moved from the host to the device `name`."""
    target = device(name)
    return _walk(lambda a: target.to_device(to_host(a)), tree)


def to_host(tree: Any) -> Any:
    """Every array of a tree as a NumPy array (the same object if it is one already)."""
    return _walk(lambda a: a if isinstance(a, (np.ndarray, np.generic)) else _device_of(a).to_host(a), tree)


def _walk(f: Callable, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _walk(f, branch) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [_walk(f, branch) for branch in tree]
    return tree if tree is None else f(tree)


def at_least_float32(x: Any) -> Any:
    """x for statistics: float16 becomes float32, float32 and float64 stay what they are (no copy)."""
    return x.astype("float32") if x.dtype == "float16" else x


def sum_float32(a: Any, axis: int | tuple[int, ...], keepdims: bool = False) -> Any:
    """a summed over `axis` in at least float32, the result in a's dtype.

    In float16 a running sum of ones stops at 2048, where the next number is 2050.
    """
    dtype = "float32" if a.dtype == "float16" else a.dtype
    return a.sum(axis=axis, dtype=dtype, keepdims=keepdims).astype(a.dtype, copy=False)


def scatter_add(rows: int, ids: Any, updates: Any) -> Any:
    """out[i] = sum of updates[n] over all n with ids[n] = i.

    ids (N,) integers in [0, rows), updates (N, D) -> (rows, D), zero where no id points.  Summed in at least float32.
    """
    xp = array_module(updates)
    dtype, updates = updates.dtype, at_least_float32(updates)
    out = xp.zeros((rows, updates.shape[1]), dtype=updates.dtype)
    add_rows(out, ids, updates)
    return out.astype(dtype, copy=False)


def add_rows(out: Any, ids: Any, updates: Any) -> None:
    """out[ids[n]] += updates[n] for all n, in place: out (R, D), ids (N,) integers in [0, R), updates (N, D).

    On the host the updates are sorted by id and summed run by run, always in the order of n, so the result is
    repeatable; `np.add.at` takes two to four times as long.  On a GPU atomic additions are used, whose order is not
    fixed, so the last bits may differ from run to run.
    """
    xp = array_module(updates)
    if xp is not np:
        xp.add.at(out, ids, updates)
    elif len(ids):
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        out[ordered[starts]] += np.add.reduceat(at_least_float32(updates[order]), starts, axis=0)


def available_memory() -> int | None:
    """Bytes that can be allocated on the host without swapping, within the limits of the container; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # not Linux
        return None
    return min([available, *_container_memory(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _container_memory(own: Path, root: Path) -> list[int]:
    """What each limited control group of this process, or above it, has left: cgroup 2 and, under memory/, cgroup 1."""
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    left = []
    for number, controllers, path in entries:
        if number == "0":
            base, limit, used, cached = root, "memory.max", "memory.current", ("file", "shmem")
        elif "memory" in controllers.split(","):
            base, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = ("total_cache", "total_shmem")
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder != base and base not in folder.parents:
                break
            try:
                most, now = (int((folder / name).read_text()) for name in (limit, used))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines() if line)
                cache = int(stat.get(cached[0], 0)) - int(stat.get(cached[1], 0))  # is given back when memory is needed
            except (OSError, ValueError):  # no such group to be seen here, or "max": no limit
                continue
            left.append(most - now + cache)
    return left


def check_memory(needed: int, what: str) -> None:
    """MemoryError, naming both, when fewer bytes are available on the host than `what` needs: better than being killed."""
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(f"{what} need {needed} bytes ({needed / 2**30:.1f} GiB) of memory, "
                          f"but {available} bytes ({available / 2**30:.1f} GiB) are available")  # fmt: skip


def keep_freed_memory() -> bool:
    """Let glibc keep memory that was freed, instead of giving it back to the system and faulting it in again.

    A training step allocates the same large arrays over and over; by default each comes as fresh pages, and clearing them
    costs more than much of the arithmetic on them.  All threads share one arena: in one of its own a thread would keep what
    it has freed from the others, and whatever is larger than 64 MB would still come as fresh pages.  Set once at the start of
    a run, before there are threads, for the whole process; does nothing without glibc, or with TINYPLM_KEEP_MEMORY=0 in the
    environment.  Returns whether it was done.
    """
    if not sys.platform.startswith("linux") or os.environ.get("TINYPLM_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = {-3: 1 << 30, -1: (1 << 31) - 1, -8: 1}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of mallopt(3)
    return all([mallopt(name, value) for name, value in settings.items()])


def give_back_freed_memory() -> None:
    """Give what has been freed so far back to the system, where glibc keeps it: once, after something large is gone for good."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
