"""Experts whose gradients are written where they belong, and mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..backend import array_module, is_host, sum_float32
from ..core import Array, Backward, Component, Product, Tree, named, tree_map
from ..layers import moe as plain
from ..layers.embedding import check_ids
from ..layers.experts import by_expert, count
from ..shapes import expects

FEW = 128  # rows up to which dx^T = W dy^T is faster than dx = dy W^T, whose W^T has to be packed


@expects("p {...}, x (..., D), weights (..., k), choice (..., k) integers; function expert")
def experts(
    p: Tree, x: Array, weights: Array, *, choice: Array, expert: Component
) -> tuple[Array, Backward]:
    """layers.experts.experts, each matrix's gradient multiplied out in its place.

    expert: as there, and it takes `gradients`, as kernels.mlp.gated_mlp does; it gets `factors`.
    The plain form clears the gradients of all experts and copies each one's into them.
    A forward and backward of X 64, k 2, D 256, F 512 takes with the plain form 16% longer with
    1,024 tokens (an expert has 32), 12% with 2,048, and 3 to 4% with 4,096.
    """
    xp, (D, k) = array_module(x), (x.shape[-1], choice.shape[-1])
    X = count(p)
    if is_host(choice):
        check_ids(choice, X, "choice of expert")
    order, place, segments = by_expert(choice, X)
    token, w = order // k, weights.reshape(-1, k)
    rows = x.reshape(-1, D)[token]
    o, backs = xp.empty_like(rows), []
    for c, part in segments:
        run = named(str(c), expert)
        o[part], back = run(tree_map(lambda a, c=c: a[c], p), rows[part], gradients=factors)
        backs.append(back)
    y = sum_float32(w[..., None] * o[place].reshape(-1, k, D), axis=1)

    def backward(dy: Array) -> tuple[Tree, Array, Array]:
        dtokens = dy.reshape(-1, D)
        dw = sum_float32(dtokens[:, None] * o[place].reshape(-1, k, D), axis=2)
        do = dtokens[token] * w.reshape(-1)[order][:, None]
        drows, dp = xp.empty_like(rows), tree_map(xp.empty_like, p)
        idle = set(range(X)) - {c for c, _ in segments}
        for c in sorted(idle):
            tree_map(lambda d, c=c: _put(0, d, c), dp)
        for (c, part), back in zip(segments, backs):
            dp_c, drows[part] = back(do[part])
            tree_map(lambda d, d_c, c=c: _put(d_c, d, c), dp, dp_c)
        dx = sum_float32(drows[place].reshape(-1, k, D), axis=1)
        return dp, dx.reshape(x.shape), dw.reshape(weights.shape)

    return y.reshape(x.shape), backward


def moe_and_logits(
    p: Tree,
    x: Array,
    *,
    choose: Callable[..., Array],
    weigh: Component,
    expert: Component,
    shared: Component | None = None,
    bias: Array | None = None,
) -> tuple[dict[str, Array], Backward]:
    """layers.moe.moe_and_logits with `experts` from here, which see for its gain."""
    f = partial(plain.moe_and_logits, choose=choose, weigh=weigh, expert=expert, shared=shared)
    return f(p, x, bias=bias, experts=experts)


def factors(
    x: Array, W: Array, b: Array | None, dy: Array
) -> tuple[Array, Array | Product, Array | None]:
    """layers.linear.linear_gradients with dW as its factors, and dx^T = W dy^T for few rows."""
    db = None if b is None else sum_float32(dy, axis=0)
    dx = (W @ dy.T).T if dy.shape[0] <= FEW else dy @ W.T
    return dx, Product(x, dy), db


def _put(value: Any, out: Array, c: int) -> None:
    """out[c] = value."""
    if isinstance(value, Product):
        array_module(out).matmul(value.a.T, value.b, out=out[c])
    else:
        out[c] = value
