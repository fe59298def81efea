"""Batch shards on worker threads, with BLAS limited to one thread in each."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ..arguments import check_functions, check_whole, shown, wrong
from .tree import Tree, flatten, tree_map


def shards(batch: Tree, count: int) -> list[Tree]:
    """A batch, a tree of arrays with samples on the first axis, cut into `count` consecutive parts.

    Sizes differ by at most one. ValueError if there are fewer samples than parts.
    """
    leaves = flatten(batch)
    for name, a in leaves.items():
        if not getattr(a, "shape", ()):
            raise wrong(f"batch: {name}", "an array with the samples on its first axis", a)
    check_whole("shards: count", count, 1)
    sizes = {len(a) for a in leaves.values()}
    if len(sizes) != 1:
        raise wrong("batch", "arrays with the same number of samples", sorted(sizes))
    samples = sizes.pop()
    if count > samples:
        given = f"{samples} and {shown(count)}"
        raise ValueError(f"batch, count: expected as many samples as shards or more, got {given}")
    edges = [samples * i // count for i in range(count + 1)]
    return [tree_map(lambda a, lo=lo, hi=hi: a[lo:hi], batch) for lo, hi in zip(edges, edges[1:])]


def map_threads(f: Callable, items: Sequence, workers: int) -> list:
    """[f(item) for item in items] on `workers` threads, each with a run of consecutive items.

    BLAS is limited to one thread in each. NumPy releases the interpreter lock in matmul and ufuncs,
    so all cores are used even where BLAS alone would not use them.
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
    """f(shard) for each of `workers` shards of the batch, in order, one thread each."""
    return map_threads(f, shards(batch, workers), workers)


def reduce_shards(
    f: Callable[[Tree, Callable], Any],
    batch: Tree,
    workers: int,
    accumulate: Callable[[str, Tree], None],
) -> list:
    """f(shard, emit) for each of `workers` shards of the batch, one thread each.

    f calls emit(path, gradient) for each part of the shard's gradient; accumulate(path, gradient)
    adds the part to the sum over all shards. Every shard must emit the same parts in the same
    order, and each array only once. A part is added as soon as the preceding shard has added its
    own. So no shard holds its whole gradient, and each sum is formed in the order of the shards,
    which makes it repeatable. Only one thread accumulates at a time.
    """
    check_functions("reduce_shards", f=f, accumulate=accumulate)
    parts = shards(batch, workers)
    emitted = [0] * len(parts)  # parts emitted by each shard
    finished = [False] * len(parts)
    turn = threading.Condition()
    failures: list[BaseException] = []

    def run(number: int) -> Any:
        def my_turn() -> bool:
            ahead = number == 0 or emitted[number - 1] > emitted[number] or finished[number - 1]
            return bool(failures) or ahead

        def emit(path: str, gradient: Tree) -> None:
            with turn:
                turn.wait_for(my_turn)
                if failures:
                    raise failures[0]  # the cause, whichever error map_threads sees first
                if number > 0 and emitted[number - 1] == emitted[number]:
                    raise RuntimeError(
                        f"shard {number}: expected {emitted[number]} parts of the gradient, "
                        f"as from shard {number - 1}, got more"
                    )
                accumulate(path, gradient)
                emitted[number] += 1
                turn.notify_all()

        try:
            return f(parts[number], emit)
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            with turn:  # release threads that wait for this shard
                finished[number] = True
                turn.notify_all()

    return map_threads(run, range(len(parts)), len(parts))


class _BlasThreads:
    """The number of active blas_threads calls: the first sets the limit, the last lifts it."""

    def __init__(self) -> None:
        self.lock, self.holders = threading.Lock(), 0
        self.limit: Any = None


_blas = _BlasThreads()


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Limit BLAS to `count` threads inside the block; no effect without threadpoolctl.

    The limit is process-wide: overlapping calls from several threads share the first one's.
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
    except ImportError:  # optional: without it everything runs, but slower
        return None
    return ThreadpoolController()  # finding the loaded libraries takes 0.5 ms, so do it once
