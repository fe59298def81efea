"""Experts with gradients in place, beyond their twins: mixtures, both forms of dx, idle experts, repeated backwards."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from tests import laws
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten
from tinyplm.kernels import experts as kernel
from tinyplm.kernels.mlp import clamped_gated_mlp, gated_mlp
from tinyplm.layers import moe as plain
from tinyplm.layers.activation import silu
from tinyplm.layers.linear import linear_gradients
from tinyplm.layers.routing import sigmoid_choice, sigmoid_weights, softmax_weights, top_experts

B, T, D, F, X = 2, 7, 4, 3, 9
GATED = partial(gated_mlp, activation=silu)
ROUTING = {
    "softmax": {"choose": partial(top_experts, top_k=2), "weigh": partial(softmax_weights, renormalised=True)},
    "sigmoid": {"choose": partial(sigmoid_choice, top_k=3, groups=3, kept_groups=2), "weigh": sigmoid_weights},
}


def gated(rng, *lead):
    shapes = {"Wgate": (D, F), "Wup": (D, F), "Wdown": (F, D), "bgate": (F,), "bup": (F,), "bdown": (D,)}
    return {name: rng.normal(size=(*lead, *shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("routing", ROUTING)
@pytest.mark.parametrize("expert", [GATED, clamped_gated_mlp])
def test_a_mixture_equals_the_plain_one(device, routing, expert):
    rng = np.random.default_rng(0)
    p = {"router": {"W": rng.normal(size=(D, X))}, "experts": gated(rng, X), "shared": gated(rng)}
    args = [p, rng.normal(size=(B, T, D)), rng.normal(0, 0.1, X)]
    dy = to_device({"hidden": rng.normal(size=(B, T, D)), "logits": rng.normal(size=(B, T, X))}, device)
    p, x, bias = (to_device(a, device) for a in args)
    kwargs = {**ROUTING[routing], "expert": expert, "shared": GATED, "bias": bias if routing == "sigmoid" else None}
    (y, back), (expected, plain_back) = (f.moe_and_logits(p, x, **kwargs) for f in (kernel, plain))
    found, gradients = to_host(y), [to_host(d) for d in back(dy)]
    assert np.array_equal(found["choice"], to_host(expected["choice"]))
    again = [to_host(d) for d in back(dy)]
    near = laws.rounding(40, B * T, D, F, X, dtype="float64")
    pairs = [(found["hidden"], to_host(expected["hidden"])), (found["logits"], to_host(expected["logits"]))]
    for d, other, twice in zip(gradients, plain_back(dy), again, strict=True):
        leaves, others, repeated = (flatten(to_host(tree)) for tree in (d, other, twice))
        assert list(leaves) == list(others)
        assert all(np.array_equal(leaves[name], repeated[name]) for name in leaves)
        pairs += [(leaves[name], others[name]) for name in leaves]
    size = max(np.max(np.abs(b)) for _, b in pairs)
    for a, b in pairs:
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.max(np.abs(a - b)) <= near * size


@pytest.mark.parametrize("rows", [1, kernel.FEW, kernel.FEW + 1])
@pytest.mark.parametrize("biased", [True, False])
def test_factors_are_those_of_the_gradient(device, rows, biased):
    """For few rows dx is computed the other way round."""
    rng = np.random.default_rng(rows)
    x, W, dy = (to_device(rng.normal(size=shape), device) for shape in ((rows, D), (D, F), (rows, F)))
    b = to_device(rng.normal(size=F), device) if biased else None
    dx, dW, db = kernel.factors(x, W, b, dy)
    found = [dx, dW.a.T @ dW.b, db]
    near = laws.rounding(4, rows, F, dtype="float64")
    for a, other in zip(found, linear_gradients(x, W, b, dy), strict=True):
        if other is None:
            assert a is None
            continue
        a, other = to_host(a), to_host(other)
        assert a.shape == other.shape and np.max(np.abs(a - other)) <= near * np.max(np.abs(other))


def test_idle_experts_get_exactly_zero(device):
    """Also where freed memory held something else."""
    rng = np.random.default_rng(1)
    p, x, dy = (to_device(a, device) for a in (gated(rng, X), rng.normal(size=(5, D)), rng.normal(size=(5, D))))
    choice = to_device(np.array([[1], [7], [1], [4], [7]]), device)
    weights = to_device(rng.normal(size=(5, 1)), device)
    for _ in range(3):
        dp = to_host(kernel.experts(p, x, weights, choice=choice, expert=GATED)[1](dy)[0])
        for leaf in flatten(dp).values():
            assert [c for c in range(X) if np.any(leaf[c])] == [1, 4, 7]
