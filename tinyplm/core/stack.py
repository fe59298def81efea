"""The helpers of the contract `y, backward = f(...)`: trees of arrays, the stack of layers, checkpointing, batch shards.

A component is a pure function.  Its positional arguments are differentiable (trees of arrays, or None for "not given"),
everything else is keyword-only.  It returns its value and `backward`, which maps the gradient of the value to one
gradient per positional argument, in order (bare if there is only one).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ..arguments import check_flag, check_functions, check_text, check_whole, is_whole, shown, wrong
from ..backend import array_module
from .tree import Product, Rows, Tree, add, complete, flatten, tree_map, unbroadcast, unflatten

__all__ = ["Product", "Rows", "Tree", "add", "blas_threads", "chain", "checkpoint", "complete", "flatten", "map_shards",
           "map_threads", "on_tree", "reduce_shards", "shards", "stack", "tree_map", "unbroadcast", "unflatten"]  # fmt: skip


def on_tree(f: Callable, *names: str) -> Callable:
    """f(x, a, b, ...) as a component of a parameter tree: g(p, x) = f(x, p[names[0]], p[names[1]], ...).

    A name that p lacks is passed as None.  backward gives (dp, dx), with exactly the names that p has.
    """

    check_functions("on_tree", f=f)
    for name in names:
        check_text("on_tree: names", name)

    def component(p, x, **kwargs):
        if not isinstance(p, dict):
            raise wrong("on_tree: p", f"a dict of {', '.join(names)}", p)
        y, back = f(x, *(p.get(name) for name in names), **kwargs)

        def backward(dy):
            dx, *dparameters = back(dy)
            return {name: d for name, d in zip(names, dparameters) if name in p}, dx

        return y, backward

    return component


def chain(x: Tree, *fs: Callable | None) -> tuple[Tree, Callable]:
    """fs[-1](... fs[1](fs[0](x))) for components of one argument; None stands for the identity."""
    backs = []
    for f in fs:
        if f is not None:
            if not callable(f):
                check_functions("chain", f=f)
            x, back = f(x)
            backs.append(back)

    def backward(dx):
        for back in reversed(backs):
            dx = back(dx)
        return dx

    return x, backward


# ------------------------------------------------------------------------------------------------- the stack


def stack(
    layer: Callable,
    ps: Sequence[Tree],
    x: Tree,
    *shared: Tree,
    uses: Sequence[int] | None = None,
    each: Callable[[int], dict] | None = None,
    grad: bool = True,
    once: bool = False,
    checkpointing: int = 0,
    frozen: int = 0,
    on_gradient: Callable[[int, Tree], None] | None = None,
) -> tuple[Tree, Callable | None]:
    """x_{i+1} = layer(ps[uses[i]], x_i, *shared, **each(i)) for i = 0 .. L-1; returns x_L.

    uses: which of ps each layer has, in ascending order, so that layers in a row may share one (Lan et al. 2020, sec. 3.1); by
    default ps[i], as many layers as ps.
    Gradients: layer i's backward at dx_{i+1} gives dx_i and its part of dps[uses[i]]; the parts of all layers with the same
    parameters are added up, last layer first, and so is every layer's gradient of a shared input.
    This is the one place that walks layers, and the one that knows whether gradients are wanted:

    grad           False: each layer's closure is dropped at once, so one layer's activations are held; backward is None.
    once           backward may be called one time only and frees each layer's closure as it passes (training).
    checkpointing  k: of each group of k layers only the input is kept, and the group is computed again in the backward
                   (Chen et al. 2016, sec. 3).  Memory is least for k near sqrt(L / r), where r is how much more a layer holds
                   than its input, 13 in GPT-2: that is 1 for all but very deep stacks.  0 or False: off, True: k = 1.
    frozen         of so many of ps at the bottom, and of x, no gradient is wanted: their layers run as without grad, and the
                   backward stops above them.  Their dps are None, dx is zero, and shared inputs get what the others give.
    on_gradient    called as on_gradient(n, dp) as soon as the gradient of ps[n] is complete, the last one first; the list of
                   gradients that backward returns then holds None, so that no full tree is built up.
    """
    optional = {name: f for name, f in (("each", each), ("on_gradient", on_gradient)) if f is not None}
    check_functions("stack", layer=layer, **optional)
    if not isinstance(ps, (list, tuple)):
        raise wrong("stack: ps", "a list of parameter trees", ps)
    for name, flag in (("grad", grad), ("once", once)):
        check_flag(f"stack: {name}", flag)
    if uses is None:
        uses = range(len(ps))
    elif not isinstance(uses, (list, tuple, range)) or not all(is_whole(n) and 0 <= n < len(ps) for n in uses):
        raise wrong("stack: uses", f"integers from 0 to {len(ps) - 1}", uses)
    elif sorted(uses) != list(uses):
        raise ValueError(f"stack: expected uses in ascending order, got {list(uses)}")
    if not isinstance(checkpointing, bool):
        check_whole("stack: checkpointing", checkpointing)
    check_whole("stack: frozen", frozen, 0, len(ps))
    L, size = len(uses), int(checkpointing)
    bottom = sum(n < frozen for n in uses)  # how many layers have these

    def forward(first: int, last: int, x: Tree, keep: bool) -> tuple[Tree, list[Callable | None]]:
        backs = []
        for i in range(first, last):
            x, back = layer(ps[uses[i]], x, *shared, **(each(i) if each else {}))
            if keep:
                backs.append(back)
            del back
        return x, backs

    if not grad:
        return forward(0, L, x, False)[0], None
    x, _ = forward(0, bottom, x, False)
    inputs: list[Tree] = []  # of each group
    backs: list[Callable | None] = []  # of each layer above the frozen ones
    if size:
        for first in range(bottom, L, size):
            inputs.append(x)
            x, _ = forward(first, min(first + size, L), x, False)
    else:
        x, backs = forward(bottom, L, x, True)
    calls: list[None] = []

    def backward(dx):
        if once and calls:
            raise RuntimeError("stack(once=True): backward was called a second time, but its closures are freed")
        calls.append(None)
        dps: list[Tree] = [None] * len(ps)
        dshared: list[Tree] = [None] * len(shared)
        group: list[Callable | None] = []
        for i in reversed(range(bottom, L)):
            if size and not group:
                number = (i - bottom) // size
                _, group = forward(bottom + number * size, i + 1, inputs[number], True)
                if once:
                    inputs[number] = None
            back = group.pop() if size else backs[i - bottom]
            if once and not size:
                backs[i - bottom] = None
            dp, dx, *ds = back(dx)
            del back
            dshared = [add(total, d) for total, d in zip(dshared, ds)]
            n = uses[i]
            dps[n] = add(dps[n], dp)
            del dp, ds
            if on_gradient is not None and (i == 0 or uses[i - 1] != n):
                on_gradient(n, dps[n])
                dps[n] = None
        if bottom:
            dx = tree_map(lambda d: array_module(d).zeros_like(d), dx)
        return dps, dx, *dshared

    return x, backward


def checkpoint(f: Callable) -> Callable:
    """The component f, keeping its inputs instead of its closure: backward computes the forward again.

    Chen et al. 2016.  Costs one more forward; the result is bit-equal, since the randomness is in the key.
    """

    check_functions("checkpoint", f=f)

    def checkpointed(*args, **kwargs):
        y, _ = f(*args, **kwargs)

        def backward(dy):
            return f(*args, **kwargs)[1](dy)

        return y, backward

    return checkpointed


# ------------------------------------------------------------------------------------------------- batch shards


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
        raise ValueError(f"arrays of a batch must have the same number of samples, got {sorted(sizes)}")
    samples = sizes.pop()
    if count > samples:
        raise ValueError(f"count: cannot cut a batch of {samples} samples into {shown(count)} shards")
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


def reduce_shards(f: Callable[[Tree, Callable], Any], batch: Tree, workers: int, add: Callable[[str, Tree], None]) -> list:
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
                turn.wait_for(lambda: failures or number == 0 or given[number - 1] > given[number] or finished[number - 1])
                if failures:
                    raise failures[0]  # the cause, whichever shard's error map_threads comes to first
                if number > 0 and given[number - 1] == given[number]:
                    raise RuntimeError(f"shard {number} of the batch hands in more parts than shard {number - 1}")
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
    return ThreadpoolController()  # finding the loaded libraries takes half a millisecond, so it is done once
