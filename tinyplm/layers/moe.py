"""Mixtures of experts: a router, the experts it chooses, and a shared expert.

`moe` takes the place of an `mlp`.  A balance loss also needs the routers' logits of all layers, and
sends gradients back through them.  For that a walk makes its stream a tree,

    {"hidden": x, "logits": [z of layer 0, z of layer 1, ...], "choice": [...]}

to which each layer, a `routed_block`, adds its z and choice, and from whose gradient it takes its
dz: core.stack walks such a stream as any other (models/routed.py).  The logits are small: X numbers
a token and layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..backend import array_module, sum_float32
from ..core import Array, Backward, Component, Tree, named
from ..random import fold
from ..shapes import expects
from .activation import sigmoid
from .block import pre_norm
from .dropout import dropout
from .experts import experts
from .linear import linear

_OPTIONS = (
    "bias (X,) or None; function choose, function weigh, function expert, function shared or None"
)


@expects("p {router experts shared?}, x (..., D), " + _OPTIONS + ", function experts")
def moe_and_logits(
    p: Tree,
    x: Array,
    *,
    choose: Callable[..., Array],
    weigh: Component,
    expert: Component,
    shared: Component | None = None,
    bias: Array | None = None,
    experts: Component = experts,
) -> tuple[dict[str, Array], Backward]:
    """hidden = experts(x, w) + shared(x),   w = weigh(z, choice),   z = x W + b.

    choice = choose(z).   Shazeer et al. 2017, eq. 1; DeepSeek team 2024b, eq. 12.
    x (..., D) -> {"hidden" (..., D), "logits" z (..., X), "choice" (..., k) integers}.
    p: router {W (D, X), b? (X,)}, experts as in `experts`, shared for `shared`.
    choose, weigh: of routing.py; bias (X,) or None: passed to choose, so it has no gradient.
    expert, shared: components (p, rows) -> rows, such as `gated_mlp`.   experts: as `experts`.
    backward takes dhidden and dlogits, of a balance loss; a missing one is 0.  The choice is a
    constant.   dz = dlogits + dw taken back through weigh;   dx is the sum of the gradients of the
    experts, the router and the shared expert.   backward returns (dp, dx).
    """
    router = p["router"]
    z, z_back = named("router", linear)(x, router["W"], router.get("b"))
    choice = choose(z, bias=bias)
    w, w_back = named("weights", weigh)(z, choice=choice)
    y, y_back = named("experts", experts)(p["experts"], x, w, choice=choice, expert=expert)
    if shared is not None:
        s, s_back = named("shared", shared)(p["shared"], x)
        y = y + s

    def backward(dy: dict[str, Array]) -> tuple[Tree, Array]:
        dhidden, dlogits = dy.get("hidden"), dy.get("logits")
        if dhidden is None:
            dhidden = array_module(x).zeros_like(x)
        dp = {}
        dp["experts"], dx, dw = y_back(dhidden)
        dz = w_back(dw)
        dx_router, dW, db = z_back(dz if dlogits is None else dz + dlogits)
        dp["router"] = {"W": dW, "b": db}
        dp["router"] = {name: dp["router"][name] for name in router}
        dx = dx + dx_router
        if shared is not None:
            dp["shared"], dx_shared = s_back(dhidden)
            dx = dx + dx_shared
        return {name: dp[name] for name in p}, dx

    return {"hidden": y, "logits": z, "choice": choice}, backward


@expects("p {router experts shared?}, x (..., D), " + _OPTIONS)
def moe(
    p: Tree,
    x: Array,
    *,
    choose: Callable[..., Array],
    weigh: Component,
    expert: Component,
    shared: Component | None = None,
    bias: Array | None = None,
) -> tuple[Array, Backward]:
    """moe_and_logits without the logits: x (..., D) -> y (..., D), in the place of an `mlp`."""
    f = partial(moe_and_logits, choose=choose, weigh=weigh, expert=expert, shared=shared, bias=bias)
    y, back = f(p, x)

    def backward(dy: Array) -> tuple[Tree, Array]:
        return back({"hidden": dy})

    return y["hidden"], backward


@expects("p {w mlp}, x (..., D); function f")
def sigmoid_gated(p: Tree, x: Array, *, f: Component) -> tuple[Array, Backward]:
    """y = s f(p[mlp], x),   s = sigmoid(x w): the shared expert of Qwen-MoE.

    Yang et al. 2024, sec. 2.2.2; the gate is in the released models alone.
    x (..., D), w (D, 1) -> y (..., D).   Keeps x, s and o = f(x).
    do = s dy,   ds = <dy, o>,   dx = ds s (1 - s) w^T + do taken back through f.
    backward returns (dp, dx).
    """
    z, z_back = linear(x, p["w"])
    s = sigmoid(z)
    o, o_back = named("mlp", f)(p["mlp"], x)

    def backward(dy: Array) -> tuple[Tree, Array]:
        ds = sum_float32(dy * o, axis=-1, keepdims=True)
        dx_gate, dw, _ = z_back(ds * s * (1 - s))
        dmlp, dx = o_back(s * dy)
        return {"w": dw, "mlp": dmlp}, dx + dx_gate

    return s * o, backward


def unrouted(mlp: Component) -> Component:
    """An `mlp` as `routed_block` wants it, for layers without experts: (p, x) -> {"hidden": y}."""

    def component(p: Tree, x: Array) -> tuple[dict[str, Array], Backward]:
        y, back = mlp(p, x)
        return {"hidden": y}, lambda dy: back(dy["hidden"])

    return component


def routed_block(
    p: Tree,
    stream: dict[str, Any],
    *,
    norm: Component,
    attention: Component,
    mlp: Component,
    rate: float = 0.0,
    key: Array | None = None,
) -> tuple[dict[str, Any], Backward]:
    """h = pre_norm(x, attention),   y = h + dropout(m),   m, z, choice = mlp(norm2(h)).

    As layers.block.block with pre_norm, on a stream {"hidden": x, "logits": [...], "choice": [...]}
    whose lists z and choice are added to.   mlp: `moe_and_logits` with its options, or one that is
    `unrouted` and adds nothing.
    p = {"norm1", "attention", "norm2", "mlp"}; x (B, T, D), z (B, T, X), choice (B, T, k).
    backward takes {"hidden": dy, "logits": [dz of each layer so far] or None} and returns
    (dp, dstream): dm and dz go back through mlp, its dn through norm2, and
    dh = dy + that, which goes back through attention; the dz of earlier layers are left.
    """
    mlp, norm2 = named("mlp", mlp), named("norm2", norm)
    first = named("residual", pre_norm, scope=False)
    h, attention_back = first(
        *(p["norm1"], p["attention"], stream["hidden"]),
        norm=named("norm1", norm),
        f=named("attention", attention),
        rate=rate,
        key=fold(key, 1),
    )
    n, norm_back = norm2(p["norm2"], h)
    m, mlp_back = mlp(p["mlp"], n)
    d, drop_back = dropout(m["hidden"], rate=rate, key=fold(key, 2))
    routed = {name: [*stream[name], m[name]] for name in ("logits", "choice") if name in m}

    def backward(dstream: dict[str, Any]) -> tuple[Tree, dict[str, Any]]:
        dy, dlogits = dstream["hidden"], dstream.get("logits")
        dm = {"hidden": drop_back(dy)}
        if routed and dlogits:
            *dlogits, dm["logits"] = dlogits
        dmlp, dn = mlp_back(dm)
        dnorm2, dh = norm_back(dn)
        dnorm1, dattention, dx = attention_back(dy + dh)
        dp = {"norm1": dnorm1, "attention": dattention, "norm2": dnorm2, "mlp": dmlp}
        return dp, {"hidden": dx, "logits": dlogits}

    return {**stream, "hidden": h + d, **routed}, backward
