"""Batch shards and worker threads, with BLAS held to one thread in each of them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ..arguments import check_functions, check_whole, shown, wrong
from .tree import Tree, flatten, tree_map


def shards(batch: Tree, count: int) -> list[Tree]:
    """A batch (a tree of arrays with the samples on the first axis) cut into `count` consecutive parts.

    Sizes differ by at most one.  ValueError when there are fewer samples than parts.
    """
    leaves = flatten(batch)
    for name, a in leaves.items():
        if not getattr(a, "shape", ()):
            raise wrong(f"batch: {name}", "an array with the samples on its first axis", a)
    check_whole("shards: count", count, 1)
    sizes = {len(a) for a in leaves.values()}
    if len(sizes) != 1:
        raise ValueError(
            f"arrays of a batch must have the same number of samples, got {sorted(sizes)}"
        )
    samples = sizes.pop()
    if count > samples:
        raise ValueError(
            f"count: cannot cut a batch of {samples} samples into {shown(count)} shards"
        )
    edges = [samples * i // count for i in range(count + 1)]
    return [tree_map(lambda a, lo=lo, hi=hi: a[lo:hi], batch) for lo, hi in zip(edges, edges[1:])]


def map_threads(f: Callable, items: Sequence, workers: int) -> list:
    """[f(item) for item in items] by `workers` threads, a run of items each, BLAS held to one thread in all of them.

    NumPy lets go of the interpreter lock in matmul and ufuncs, so this uses all cores also where BLAS alone would not.
    """

    check_whole("workers", workers, 1)
    check_functions("map_threads", f=f)
    if not isinstance(items, (list, tuple, range, str)):
        raise wrong("items", "a list", items)

    def run(part: Sequence) -> list:
        return [f(item) for item in part]

    count = min(workers, len(items))
    if count <= 1:
        return run(items)
    edges = [len(items) * i // count for i in range(count + 1)]
    with blas_threads(1), ThreadPoolExecutor(count) as pool:
        parts = pool.map(run, [items[lo:hi] for lo, hi in zip(edges, edges[1:])])
        return [result for part in parts for result in part]


def map_shards(f: Callable[[Tree], Tree], batch: Tree, workers: int) -> list[Tree]:
    """f(shard) for each of `workers` shards of the batch, in their order, one thread each (see map_threads)."""
    return map_threads(f, shards(batch, workers), workers)


def reduce_shards(
    f: Callable[[Tree, Callable], Any], batch: Tree, workers: int, add: Callable[[str, Tree], None]
) -> list:
    """f(shard, give) for each of `workers` shards of the batch, one thread each, where give(path, gradient) hands in one part
    of the shard's gradient, to be added by add(path, gradient) to the sum of all shards.

    Every shard must hand in the same parts in the same order, and no array in two of them.  A part is added at once, so that
    no shard holds its whole gradient, but not before the shard in front has added the same part: each array's sum is always
    formed in the order of the shards, and is therefore repeatable.  Only one thread adds at a time.
    """
    parts = shards(batch, workers)
    given = [0] * len(parts)  # how many parts each shard has handed in
    finished = [False] * len(parts)
    turn = threading.Condition()
    failures: list[BaseException] = []

    def run(number: int) -> Any:
        def give(path: str, gradient: Tree) -> None:
            with turn:
                turn.wait_for(
                    lambda: (
                        failures
                        or number == 0
                        or given[number - 1] > given[number]
                        or finished[number - 1]
                    )
                )
                if failures:
                    raise failures[
                        0
                    ]  # the cause, whichever shard's error map_threads comes to first
                if number > 0 and given[number - 1] == given[number]:
                    raise RuntimeError(
                        f"shard {number} of the batch hands in more parts than shard {number - 1}"
                    )
                add(path, gradient)
                given[number] += 1
                turn.notify_all()

        try:
            return f(parts[number], give)
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            with turn:  # nobody may wait for this shard any more
                finished[number] = True
                turn.notify_all()

    return map_threads(run, range(len(parts)), len(parts))


class _BlasThreads:
    """How many calls hold BLAS at the moment: the first one in sets the limit, the last one out lifts it."""

    def __init__(self) -> None:
        self.lock, self.holders, self.limit = threading.Lock(), 0, None


_blas = _BlasThreads()


@contextmanager
def blas_threads(count: int):
    """Hold BLAS to `count` threads inside; does nothing without threadpoolctl.

    The limit belongs to the whole process, so calls that overlap in several threads share the first one's.
    """
    check_whole("blas_threads: count", count, 1)
    controller = _thread_controller()
    if controller is None:
        yield
        return
    with _blas.lock:
        if _blas.holders == 0:
            _blas.limit = controller.limit(limits=count, user_api="blas")
        _blas.holders += 1
    try:
        yield
    finally:
        with _blas.lock:
            _blas.holders -= 1
            if _blas.holders == 0:
                _blas.limit.restore_original_limits()


@functools.cache
def _thread_controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:  # optional: everything runs without it, only slower
        return None
    return (
        ThreadpoolController()
    )  # finding the loaded libraries takes half a millisecond, so it is done once
