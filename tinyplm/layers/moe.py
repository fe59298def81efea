"""Mixtures of experts: a router, the experts it chooses, and a shared expert.

`moe` takes the place of an `mlp`.  A balance loss also needs the routers' logits of all layers, and
sends gradients back through them.  For that a walk makes its stream a tree,

    {"hidden": x, "logits": [z of layer 0, z of layer 1, ...]}

to which each layer, with `moe_and_logits`, adds its z, and from whose gradient it takes its dz:
core.stack walks such a stream as any other (tests/layers/test_moe.py has one).  The logits are
small: X numbers a token and layer.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backend import array_module, sum_float32
from ..core import Array, Backward, Component, Tree, named
from ..shapes import expects
from .activation import sigmoid
from .experts import experts
from .linear import linear

_FUNCTIONS = "function choose, function weigh, function expert, function shared or None"


@expects("p {router experts shared?}, x (..., D); " + _FUNCTIONS)
def moe_and_logits(
    p: Tree,
    x: Array,
    *,
    choose: Callable[..., Array],
    weigh: Component,
    expert: Component,
    shared: Component | None = None,
) -> tuple[dict[str, Array], Backward]:
    """hidden = experts(x, w) + shared(x),   w = weigh(z, choice),   z = x W + b.

    choice = choose(z).   Shazeer et al. 2017, eq. 1; DeepSeek team 2024b, eq. 12.
    x (..., D) -> {"hidden" (..., D), "logits" z (..., X), "choice" (..., k) integers}.
    p: router {W (D, X), b? (X,), correction? (X,)}, experts as in `experts`, shared for `shared`.
    choose, weigh: of routing.py.  correction, the bias that only chooses, is passed to choose, and
    its gradient is 0.   expert, shared: components (p, rows) -> rows, such as `gated_mlp`.
    backward takes dhidden and dlogits, of a balance loss; a missing one is 0.  The choice is a
    constant.   dz = dlogits + dw taken back through weigh;   dx is the sum of the gradients of the
    experts, the router and the shared expert.   backward returns (dp, dx).
    """
    router = p["router"]
    z, z_back = named("router", linear)(x, router["W"], router.get("b"))
    choice = choose(z, bias=router.get("correction"))
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
        if "correction" in router:
            dp["router"]["correction"] = array_module(x).zeros_like(router["correction"])
        dp["router"] = {name: dp["router"][name] for name in router}
        dx = dx + dx_router
        if shared is not None:
            dp["shared"], dx_shared = s_back(dhidden)
            dx = dx + dx_shared
        return {name: dp[name] for name in p}, dx

    return {"hidden": y, "logits": z, "choice": choice}, backward


@expects("p {router experts shared?}, x (..., D); " + _FUNCTIONS)
def moe(
    p: Tree,
    x: Array,
    *,
    choose: Callable[..., Array],
    weigh: Component,
    expert: Component,
    shared: Component | None = None,
) -> tuple[Array, Backward]:
    """moe_and_logits without the logits: x (..., D) -> y (..., D), in the place of an `mlp`."""
    y, back = moe_and_logits(p, x, choose=choose, weigh=weigh, expert=expert, shared=shared)

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
    o, o_back = f(p["mlp"], x)

    def backward(dy: Array) -> tuple[Tree, Array]:
        ds = sum_float32(dy * o, axis=-1, keepdims=True)
        dx_gate, dw, _ = z_back(ds * s * (1 - s))
        dmlp, dx = o_back(s * dy)
        return {"w": dw, "mlp": dmlp}, dx + dx_gate

    return s * o, backward
