"""Combining components: on a parameter tree, in a chain, in a stack, with checkpointing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..arguments import check_flag, check_functions, check_text, check_whole, is_whole, wrong
from ..backend import array_module
from .named import named
from .tree import Tree, add, tree_map
from .types import Backward


def on_tree(f: Callable, *names: str) -> Callable:
    """f(x, a, b, ...) as a component of a parameter tree: g(p, x) = f(x, p[names[0]], ...).

    A name missing from p is passed as None. backward gives (dp, dx); dp has the names that p has.
    """
    check_functions("on_tree", f=f)
    for name in names:
        check_text("on_tree: names", name)

    def component(p: Tree, x: Any, **kwargs: Any) -> tuple[Any, Callable]:
        if not isinstance(p, dict):
            raise wrong("on_tree: p", f"a dict of {', '.join(names)}", p)
        y, back = f(x, *[p.get(name) for name in names], **kwargs)

        def backward(dy: Any) -> tuple[Tree, Any]:
            dx, *dparameters = back(dy)
            return {name: d for name, d in zip(names, dparameters) if name in p}, dx

        return y, backward

    return component


def chain(x: Tree, *fs: Callable | None) -> tuple[Tree, Callable]:
    """fs[-1](... fs[1](fs[0](x))) for components of one argument; None is the identity."""
    backs: list[Callable] = []
    for f in fs:
        if f is not None:
            if not callable(f):
                check_functions("chain", f=f)
            x, back = f(x)
            backs.append(back)

    def backward(dx: Tree) -> Tree:
        for back in reversed(backs):
            dx = back(dx)
        return dx

    return x, backward


@dataclasses.dataclass(frozen=True)
class StackOptions:
    """How a stack of layers runs: what it keeps, recomputes, frees and reports.

    grad           False: each layer's closure is dropped at once, so only one layer's activations
                   are held, and calling backward raises RuntimeError.
    once           True: backward may be called only once; it frees each layer's closure as it
                   passes (training).
    checkpointing  k: keep only the input of each group of k layers and recompute the group in the
                   backward (Chen et al. 2016, sec. 3). Memory is least for k near sqrt(L / r), r
                   being the ratio of a layer's activations to its input (13 in GPT-2), so k = 1
                   except in very deep stacks. 0 or False: off; True: k = 1.
    frozen         n: no gradient for x or the first n of ps. Their layers run as without grad, and
                   the backward stops above them. Their dps are None, dx is zero, and gradients of
                   shared inputs come from the other layers.
    on_gradient    called as on_gradient(n, dp) once the gradient of ps[n] is complete, last one
                   first; backward then returns None in its place, so no full tree is built up.
    """

    grad: bool = True
    once: bool = False
    checkpointing: int = 0
    frozen: int = 0
    on_gradient: Callable[[int, Tree], None] | None = None

    def __post_init__(self) -> None:
        check_flag("stack: grad", self.grad)
        check_flag("stack: once", self.once)
        if not isinstance(self.checkpointing, bool):
            check_whole("stack: checkpointing", self.checkpointing)
        check_whole("stack: frozen", self.frozen)
        if self.on_gradient is not None:
            check_functions("stack", on_gradient=self.on_gradient)


def stack(
    layer: Callable,
    ps: Sequence[Tree],
    x: Tree,
    *shared: Tree,
    uses: Sequence[int] | None = None,
    each: Callable[[int], dict] | None = None,
    options: StackOptions = StackOptions(),
) -> tuple[Tree, Backward]:
    """x_{i+1} = layer(ps[uses[i]], x_i, *shared, **each(i)) for i = 0 ... L-1; returns x_L.

    uses: which of ps each layer uses, in ascending order, so that consecutive layers may share
    parameters (Lan et al. 2020, sec. 3.1); by default layer i uses ps[i].
    Gradients: layer i's backward at dx_{i+1} gives dx_i and its part of dps[uses[i]]. Parts of
    layers that share parameters are summed, last layer first, as are gradients of shared inputs.
    Only this function walks layers; its options say which gradients are needed.  A trace names them
    layers.0 ... layers.L-1.
    """
    check_functions("stack", layer=layer, **({} if each is None else {"each": each}))
    if not isinstance(ps, (list, tuple)):
        raise wrong("stack: ps", "a list of parameter trees", ps)
    if uses is None:
        uses = range(len(ps))
    numbers = isinstance(uses, (list, tuple, range)) and all(map(is_whole, uses))
    if not numbers or not all(0 <= n < len(ps) for n in uses):
        raise wrong("stack: uses", f"integers from 0 to {len(ps) - 1}", uses)
    if sorted(uses) != list(uses):
        raise wrong("stack: uses", "integers in ascending order", list(uses))
    if not isinstance(options, StackOptions):
        raise wrong("stack: options", "StackOptions", options)
    once, frozen, on_gradient = options.once, options.frozen, options.on_gradient
    check_whole("stack: frozen", frozen, 0, len(ps))
    L, size = len(uses), int(options.checkpointing)
    bottom = sum(n < frozen for n in uses)  # number of layers with frozen parameters

    def forward(first: int, last: int, x: Tree, keep: bool) -> tuple[Tree, list[Any]]:
        backs: list[Any] = []
        for i in range(first, last):
            step = named(f"layers.{i}", layer)
            x, back = step(ps[uses[i]], x, *shared, **(each(i) if each else {}))
            if keep:
                backs.append(back)
            del back
        return x, backs

    if not options.grad:
        return forward(0, L, x, False)[0], _no_backward
    x, _ = forward(0, bottom, x, False)
    inputs: list[Tree] = []  # of each group
    backs: list[Any] = []  # of each layer above the frozen ones
    if size:
        for first in range(bottom, L, size):
            inputs.append(x)
            x, _ = forward(first, min(first + size, L), x, False)
    else:
        x, backs = forward(bottom, L, x, True)
    calls: list[None] = []

    def backward(dx: Tree) -> tuple[Tree, ...]:
        if once and calls:
            expected = "expected one call of backward, which frees its closures"
            raise RuntimeError(f"stack(once=True): {expected}, got a second one")
        calls.append(None)
        dps: list[Tree] = [None] * len(ps)
        dshared: list[Tree] = [None] * len(shared)
        group: list[Any] = []
        for i in reversed(range(bottom, L)):
            if size and not group:
                number = (i - bottom) // size
                group = forward(bottom + number * size, i + 1, inputs[number], True)[1]
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


def _no_backward(*_: Any) -> Any:
    raise RuntimeError("stack: grad: expected True before a call of backward, got False")


def checkpoint(f: Callable) -> Callable:
    """f, keeping its inputs rather than its closure: backward recomputes the forward.

    Chen et al. 2016. Costs one extra forward; the result is bit-equal, since randomness comes from
    the key.
    """
    check_functions("checkpoint", f=f)

    def checkpointed(*args: Any, **kwargs: Any) -> tuple[Any, Callable]:
        y, _ = f(*args, **kwargs)

        def backward(dy: Any) -> Any:
            return f(*args, **kwargs)[1](dy)

        return y, backward

    return checkpointed
