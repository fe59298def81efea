"""Cases of mixtures of experts: routing, experts, shared experts, and the losses of balance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...backend import array_module
from ...core import Backward, on_tree
from ...layers import activation, experts, mlp, moe, routing, softmax
from ...layers.linear import linear
from ...layers.norm import rmsnorm
from ...losses import balance
from ..case import Case, Entry, Sizes

LIMIT = 1.5  # of the clamps: below and above many values
APART = 0.1  # a change of logits that must not change a choice: there the value jumps


def _choice(rng: np.random.Generator, *shape: int, X: int, k: int) -> np.ndarray:
    """Different experts in each row."""
    return rng.random((*shape, X)).argsort(axis=-1)[..., :k]


def _routed(s: Sizes) -> Case:
    rng = s.rng()
    choice = _choice(rng, s.B, s.T, X=s.V, k=min(s.V, s.G + 1))
    kwargs = {"choice": choice, "renormalised": s.flags[0], "scale": 2.5 if s.flags[1] else 0.4}
    return Case([rng.normal(0, 2.0, (s.B, s.T, s.V))], kwargs)


def off(x: np.ndarray, *kinks: float) -> np.ndarray:
    """x, moved up where it is within 0.05 of a kink."""
    for kink in kinks:
        x = np.where(np.abs(x - kink) < 0.05, kink + 0.1, x)
    return x


def _clamped_swiglu(s: Sizes) -> Case:
    rng = s.rng()
    z, u = (rng.normal(0, 2.0, (s.B, s.T, s.D)) for _ in "zu")
    return Case([off(z, LIMIT), off(u, -LIMIT, LIMIT)], {"alpha": 1.702, "limit": LIMIT})


def _gated(s: Sizes, rng: np.random.Generator, *X: int, bias: bool) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {n: (s.D, s.F) for n in ("Wgate", "Wup")}
    shapes["Wdown"] = (s.F, s.D)
    if bias:
        shapes |= {"bgate": (s.F,), "bup": (s.F,), "bdown": (s.D,)}
    return {name: rng.normal(size=(*X, *shape)) for name, shape in shapes.items()}


def _clear(
    x: np.ndarray, clear: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """x (..., D) with rows drawn again until clear(x) (...) is True for all."""
    while not (good := clear(x)).all():
        x = np.where(good[..., None], x, rng.normal(size=x.shape))
    return x


def _clamped_gated_mlp(s: Sizes) -> Case:
    rng = s.rng()
    p = _gated(s, rng, bias=s.flags[0])

    def clear(x: np.ndarray) -> np.ndarray:
        z, u = (x @ p[f"W{n}"] + p.get(f"b{n}", 0.0) for n in ("gate", "up"))
        return ((np.abs(z - LIMIT) > 0.02) & (np.abs(np.abs(u) - LIMIT) > 0.02)).all(axis=-1)

    return Case([p, _clear(rng.normal(size=(s.B, s.T, s.D)), clear, rng)], {"limit": LIMIT})


def _experts(s: Sizes) -> Case:
    """Several experts have no tokens where there are few."""
    rng = s.rng()
    k = min(s.V, s.G)
    args = [_gated(s, rng, s.V, bias=s.flags[0]), rng.normal(size=(s.B, s.T, s.D))]
    choice = _choice(rng, s.B, s.T, X=s.V, k=k)
    expert = partial(mlp.gated_mlp, activation=activation.silu)
    return Case([*args, rng.normal(size=(s.B, s.T, k))], {"choice": choice, "expert": expert})


def _sigmoid_gated(s: Sizes) -> Case:
    rng = s.rng()
    p = {"w": rng.normal(size=(s.D, 1)), "mlp": _gated(s, rng, bias=s.flags[0])}
    f = partial(mlp.gated_mlp, activation=activation.silu)
    return Case([p, rng.normal(size=(s.B, s.T, s.D))], {"f": f})


def _settings(s: Sizes, X: int, groups: int) -> dict[str, Any]:
    """The routing of Mixtral, Qwen-MoE, DeepSeek-V2 or DeepSeek-V3, by the seed."""
    kept = max(1, groups - 1)
    limits = {"top_k": min(s.G, X // groups * kept), "groups": groups, "kept_groups": kept}
    kind = s.seed % 4
    if kind < 2:
        return {
            "choose": partial(routing.top_experts, top_k=limits["top_k"]),
            "weigh": partial(routing.softmax_weights, renormalised=kind == 0),
        }
    if kind == 2:
        return {
            "choose": partial(routing.top_experts, **limits),
            "weigh": partial(routing.softmax_weights, scale=2.5),
        }
    return {
        "choose": partial(routing.sigmoid_choice, **limits),
        "weigh": partial(routing.sigmoid_weights, scale=2.5),
    }


def _moe(s: Sizes) -> Case:
    rng = s.rng()
    groups, kind = s.K + 1, s.seed % 4
    X = groups * (2 if s.V < 5 else 3)
    p: dict[str, Any] = {"router": {"W": rng.normal(size=(s.D, X))}}
    if s.flags[0]:
        p["router"]["b"] = rng.normal(size=X)
    p["experts"] = _gated(s, rng, X, bias=s.flags[1])
    bias = rng.normal(0, 0.1, X) if kind == 3 else None
    f = partial(mlp.gated_mlp, activation=activation.silu)
    kwargs = {**_settings(s, X, groups), "expert": f, "bias": bias}
    if s.flags[2]:
        p["shared"] = {"w": rng.normal(size=(s.D, 1)), "mlp": _gated(s, rng, bias=False)}
        kwargs["shared"] = partial(moe.sigmoid_gated, f=f)

    def clear(x: np.ndarray) -> np.ndarray:
        logits = x @ p["router"]["W"] + p["router"].get("b", 0.0)
        return _settled(partial(kwargs["choose"], bias=bias), logits, rng)

    return Case([p, _clear(rng.normal(size=(s.B, s.T, s.D)), clear, rng)], kwargs)


def _settled(
    choose: Callable[..., np.ndarray], logits: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Where a choice stays the same if the logits change a little."""
    chosen = np.sort(choose(logits), axis=-1)
    same = np.ones(logits.shape[:-1], dtype=bool)
    for _ in range(20):
        moved = logits + rng.uniform(-APART, APART, logits.shape)
        same &= (np.sort(choose(moved), axis=-1) == chosen).all(axis=-1)
    return same


rmsnorm_on_tree, linear_on_tree = on_tree(rmsnorm, "gamma"), on_tree(linear, "W")


def _routed_block(s: Sizes) -> Case:
    """With a linear layer in the place of attention, so that a place can be drawn by itself."""
    made, rng = _moe(s), np.random.default_rng(s.seed + 1)
    mlp, _ = made.args
    p = {"norm1": {"gamma": rng.normal(size=s.D)}, "attention": {"W": rng.normal(size=(s.D, s.D))}}
    p |= {"norm2": {"gamma": rng.normal(size=s.D)}, "mlp": mlp}
    parts = {"norm": rmsnorm_on_tree, "attention": linear_on_tree}
    bias = made.kwargs.pop("bias")  # which moves to a device, as arrays within `mlp` do not
    kwargs = {**parts, "mlp": partial(moe.moe_and_logits, **made.kwargs), "bias": bias}
    X = mlp["router"]["W"].shape[1]
    before = rng.normal(size=(s.B, s.T, X))
    choose = partial(made.kwargs["choose"], bias=bias)

    def clear(x: np.ndarray) -> np.ndarray:
        y, _ = joined_block(p, x, before, **kwargs)
        return _settled(choose, y[..., -X:], rng)

    return Case([p, _clear(rng.normal(size=(s.B, s.T, s.D)), clear, rng), before], kwargs)


def joined_moe(p: Any, x: Any, **kwargs: Any) -> tuple[Any, Backward]:
    """The hidden states and the logits side by side."""
    y, back = moe.moe_and_logits(p, x, **kwargs)
    D = x.shape[-1]
    joined = array_module(x).concatenate([y["hidden"], y["logits"]], axis=-1)
    return joined, lambda dy: back({"hidden": dy[..., :D], "logits": dy[..., D:]})


def joined_block(
    p: Any, x: Any, before: Any, *, mlp: Any, bias: Any, **kwargs: Any
) -> tuple[Any, Backward]:
    """The hidden states, the logits of an earlier layer and this one's, side by side."""
    stream = {"hidden": x, "logits": [before], "choice": [None]}
    y, back = moe.routed_block(p, stream, mlp=partial(mlp, bias=bias), **kwargs)
    D, X = x.shape[-1], before.shape[-1]
    joined = array_module(x).concatenate([y["hidden"], *y["logits"]], axis=-1)

    def backward(dy: Any) -> tuple:
        dlogits = [dy[..., D : D + X], dy[..., D + X :]]
        dp, dstream = back({"hidden": dy[..., :D], "logits": dlogits})
        return dp, dstream["hidden"], dstream["logits"][0]

    return joined, backward


# ------------------------------------------------------------------------------------------ losses


def _weighted(s: Sizes, rng: np.random.Generator) -> dict[str, Any]:
    """Padding, sometimes of a whole sequence."""
    real = rng.random((s.B, s.T)) < 0.7
    return {"weights": real * 1.0 if s.flags[0] else None, "total": 7.5 if s.flags[1] else None}


def _load_balancing(s: Sizes) -> Case:
    rng = s.rng()
    kwargs = _weighted(s, rng)
    if s.flags[2]:
        kwargs["fractions"] = rng.random(s.V)
    else:
        kwargs["choice"] = _choice(rng, s.B, s.T, X=s.V, k=min(s.V, s.G))
    return Case([rng.normal(0, 2.0, (s.B, s.T, s.V))], kwargs)


def _sequence_balance(s: Sizes) -> Case:
    rng = s.rng()
    kwargs = {**_weighted(s, rng), "choice": _choice(rng, s.B, s.T, X=s.V, k=min(s.V, s.G))}
    if s.flags[2]:
        kwargs["affinities"] = softmax.softmax
    return Case([rng.normal(0, 2.0, (s.B, s.T, s.V))], kwargs)


def _router_z(s: Sizes) -> Case:
    rng = s.rng()
    return Case([rng.normal(0, 2.0, (s.B, s.T, s.V))], _weighted(s, rng))


COMPONENTS = {
    "softmax_weights": Entry(
        routing.softmax_weights,
        _routed,
        "weights of chosen experts by a softmax (Mixtral, Qwen-MoE, gpt-oss)",
    ),
    "sigmoid_weights": Entry(
        routing.sigmoid_weights,
        _routed,
        "weights of chosen experts by sigmoids (DeepSeek-V3)",
    ),
    "clamped_swiglu": Entry(
        activation.clamped_swiglu, _clamped_swiglu, "SwiGLU with clamps (gpt-oss)"
    ),
    "clamped_gated_mlp": Entry(
        mlp.clamped_gated_mlp, _clamped_gated_mlp, "feed-forward layer with a clamped SwiGLU"
    ),
    "experts": Entry(experts.experts, _experts, "the chosen experts of each token, weighted"),
    "sigmoid_gated": Entry(moe.sigmoid_gated, _sigmoid_gated, "a shared expert behind a gate"),
    "moe": Entry(joined_moe, _moe, "router, experts and shared expert; outputs and logits"),
    "routed_block": Entry(
        joined_block, _routed_block, "a pre-norm block with experts; outputs and all logits"
    ),
    "load_balancing_loss": Entry(
        balance.load_balancing_loss, _load_balancing, "load-balancing loss (Switch, Mixtral)"
    ),
    "normalised_sigmoid": Entry(
        balance.normalised_sigmoid,
        lambda s: Case([s.rng().normal(0, 2.0, (s.B, s.T, s.V))]),
        "sigmoids divided by their sum",
    ),
    "sequence_balance_loss": Entry(
        balance.sequence_balance_loss, _sequence_balance, "balance in each sequence (DeepSeek-V3)"
    ),
    "router_z_loss": Entry(balance.router_z_loss, _router_z, "router z-loss (ST-MoE)"),
}
