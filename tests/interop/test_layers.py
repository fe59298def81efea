# ruff: noqa: E402 - imports follow importorskip
"""Layers against torch in float64: values, and every gradient by torch's autograd."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from tests.interop.autograd import compare, rng_for, without_last
from tinyplm.core import on_tree
from tinyplm.layers.activation import gelu, gelu_tanh, relu, silu
from tinyplm.layers.attention import attention, multi_head_attention
from tinyplm.layers.block import block, post_norm, pre_norm
from tinyplm.layers.embedding import embedding
from tinyplm.layers.linear import linear
from tinyplm.layers.mask import causal_mask
from tinyplm.layers.mlp import gated_mlp, mlp
from tinyplm.layers.norm import layernorm, rmsnorm
from tinyplm.layers.position import learned_positions
from tinyplm.layers.softmax import log_softmax, softmax

SHAPES = [(7,), (1, 5), (3, 1), (2, 3, 11), (2, 1, 3, 2)]


# ---------------------------------------------------------------------------------------- linear, embedding, activations


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    rng = rng_for(len(shape))
    x, W, b = rng.normal(size=shape), rng.normal(size=(shape[-1], 4)), rng.normal(size=4) if bias else None
    compare(linear, lambda x, W, b: F.linear(x, W.T, b), x, W, b)


@pytest.mark.parametrize("shape", [(1,), (9,), (3, 5), (2, 1, 7)])
def test_embedding(shape):
    """Repeated ids add up; rows never looked up get zero."""
    rng = rng_for(*shape)
    ids = rng.integers(0, 4, shape)
    compare(partial(embedding, ids=ids), lambda table: F.embedding(torch.from_numpy(ids), table), rng.normal(size=(6, 3)))


@pytest.mark.parametrize("positions", [np.arange(4), np.array([[3, 3, 0, 1], [0, 5, 2, 2]])], ids=["(T,)", "(B, T)"])
def test_learned_positions(positions):
    rng = rng_for(1)
    compare(partial(learned_positions, positions=positions), lambda x, table: x + F.embedding(torch.from_numpy(positions), table),
            rng.normal(size=(2, 4, 3)), rng.normal(size=(6, 3)))  # fmt: skip


ACTIVATIONS = {
    "relu": (relu, F.relu),
    "gelu": (gelu, F.gelu),
    "gelu_tanh": (gelu_tanh, partial(F.gelu, approximate="tanh")),
    "silu": (silu, F.silu),
}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations(name):
    """Around 0, where torch's ReLU also has the derivative 0 at 0; and far out, where exponentials could overflow."""
    x = np.concatenate([rng_for(2).normal(0, 2, 50), [0.0, -0.0, 1e-12, -1e-12, 6, -6, 6.1, -6.1, 40, -40]])
    compare(*ACTIVATIONS[name], x.reshape(4, 15))
    far = np.array([-1e4, -800.0, 800.0, 1e4])
    y, back = ACTIVATIONS[name][0](far)
    assert np.array_equal(y, np.maximum(far, 0)) and np.array_equal(back(np.ones(4)), far > 0)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
@pytest.mark.parametrize("bias", [True, False])
def test_feed_forward(name, bias):
    """Plain, and gated: SwiGLU with SiLU as in LLaMA, GeGLU with tanh GELU as in Gemma."""
    ours, theirs = ACTIVATIONS[name]
    rng = rng_for(3)
    shapes = {"W1": (5, 7), "W2": (7, 5)} | ({"b1": (7,), "b2": (5,)} if bias else {})
    p = {n: rng.normal(size=s) for n, s in shapes.items()}
    x = rng.normal(size=(2, 3, 5))

    def line(p, x, kind, name):
        return F.linear(x, p["W" + name].T, p.get("b" + name) if kind else None)

    compare(partial(mlp, activation=ours), lambda p, x: line(p, theirs(line(p, x, bias, "1")), bias, "2"), p, x)
    shapes = {"Wgate": (5, 7), "Wup": (5, 7), "Wdown": (7, 5)} | ({"bgate": (7,), "bup": (7,), "bdown": (5,)} if bias else {})
    p = {n: rng.normal(size=s) for n, s in shapes.items()}
    compare(partial(gated_mlp, activation=ours),
            lambda p, x: line(p, theirs(line(p, x, bias, "gate")) * line(p, x, bias, "up"), bias, "down"), p, x)  # fmt: skip


# --------------------------------------------------------------------------------------------------------- norms, softmax


@pytest.mark.parametrize("shape", [(7,), (1, 5), (2, 3, 11), (2, 1, 3, 3)])
@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.1])
def test_norms(shape, eps):
    """Including values far from zero mean, and small ones, where eps dominates."""
    for shift, spread in ((0, 1), (30, 3), (0, 0.02)):
        compare_norms(shape, eps, shift, spread)


@pytest.mark.parametrize("shape", [(3, 1), (2, 1, 3, 2)])
def test_norms_of_one_and_two_values(shape):
    """LayerNorm maps them to 0 and (nearly) +-1 whatever they are, so only a large eps leaves a gradient above rounding error."""
    compare_norms(shape, 0.1, 0, 1, constant=shape[-1] == 1)


def compare_norms(shape, eps, shift, spread, constant=False):
    rng = rng_for(*shape)
    D = shape[-1:]
    x, gamma, beta = rng.normal(shift, spread, shape), rng.normal(1, 1, D), rng.normal(size=D)
    zero = {"zero_gradients": (0, 1) if constant else ()}
    compare(partial(layernorm, eps=eps), lambda x, g, b: F.layer_norm(x, D, g, b, eps), x, gamma, beta, **zero)
    compare(lambda x, g: without_last(layernorm(x, g, eps=eps)), lambda x, g: F.layer_norm(x, D, g, None, eps), x, gamma, **zero)
    compare(partial(rmsnorm, eps=eps), lambda x, g: F.rms_norm(x, D, g, eps), x, gamma)


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[-1] > 1])
@pytest.mark.parametrize("spread", [1, 30, 1000])  # 1000: exp alone would overflow
def test_softmax_and_log_softmax(shape, spread):
    rng = rng_for(*shape)
    x = rng.normal(0, spread, shape)
    # with a spread of 1000 all mass is on one entry, and the exact gradient of softmax is 0
    compare(softmax, lambda x: x.softmax(-1), x, zero_gradients=(0,) if spread == 1000 else ())
    compare(log_softmax, lambda x: x.log_softmax(-1), x)


@pytest.mark.parametrize("mask_shape", [(3, 6), (6,), (4, 1, 6), (4, 3, 6)])
def test_masked_softmax(mask_shape):
    rng = rng_for(*mask_shape)
    mask = rng.random(mask_shape) < 0.6
    mask[..., 2] = True
    x = rng.normal(0, 3, (4, 3, 6))
    compare(partial(softmax, mask=mask), lambda x: x.masked_fill(~torch.from_numpy(mask), -torch.inf).softmax(-1), x)


# ------------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize(("B", "H", "K", "T", "S", "E", "E2"), [
    (1, 1, 1, 1, 2, 1, 1), (2, 3, 3, 5, 5, 4, 4), (2, 4, 2, 3, 7, 5, 5), (1, 6, 1, 4, 4, 3, 3), (3, 6, 3, 2, 5, 2, 7),
])  # fmt: skip
@pytest.mark.parametrize("mask_kind", ["none", "causal", "padding", "all"])
@pytest.mark.parametrize("bias_kind", ["none", "heads", "full"])
def test_attention(B, H, K, T, S, E, E2, mask_kind, bias_kind):
    """Multi-head, grouped- and multi-query, fewer queries than keys, values of a different width; a mask, a bias, or both."""
    rng = rng_for(B, H, T, S)
    q, k, v = rng.normal(size=(B, H, T, E)), rng.normal(size=(B, K, S, E)), rng.normal(size=(B, K, S, E2))
    bias = {"none": None, "heads": rng.normal(size=(1, H, 1, S)), "full": rng.normal(size=(B, H, T, S))}[bias_kind]
    padded = rng.random((B, 1, 1, S)) < 0.7
    padded[..., 0] = padded[..., 1] = True  # at least two keys, so that there is something to choose
    mask = {"none": None, "causal": causal_mask(T, S), "padding": padded, "all": causal_mask(T, S) & padded}[mask_kind]
    allowed = np.ones((T, S), dtype=bool) if mask is None else mask
    one_key = not (np.broadcast_to(allowed, (B, H, T, S)).sum(-1) > 1).any()  # its softmax is constant

    def theirs(q, k, v, bias):
        add = torch.zeros(B, H, T, S, dtype=torch.float64) if bias is None else bias.expand(B, H, T, S)
        return F.scaled_dot_product_attention(q, k, v, add.masked_fill(~torch.from_numpy(allowed), -torch.inf), enable_gqa=True)

    compare(partial(attention, mask=mask), theirs, q, k, v, bias, zero_gradients=(0, 1, 3) if one_key else ())


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_attention_with_a_given_scale_and_torch_s_own_causal_mask(scale):
    rng = rng_for(4)
    q, k, v = (rng.normal(size=(2, 2, 5, 3)) for _ in "qkv")
    compare(lambda q, k, v: without_last(attention(q, k, v, mask=causal_mask(5), scale=scale)),
            partial(F.scaled_dot_product_attention, is_causal=True, scale=scale), q, k, v)  # fmt: skip


def test_attention_of_rows_that_may_attend_to_nothing():
    """With a boolean mask torch also gives zeros there, and no gradient."""
    rng = rng_for(5)
    q, k, v = (rng.normal(size=(2, 2, 4, 3)) for _ in "qkv")
    mask = np.tril(np.ones((2, 1, 4, 4), dtype=bool))
    mask[1, :, :, :2] = False  # left padding: the first two queries of the second sample see nothing
    compare(lambda q, k, v: without_last(attention(q, k, v, mask=mask)),
            partial(F.scaled_dot_product_attention, attn_mask=torch.from_numpy(mask)), q, k, v)  # fmt: skip
    assert not attention(q, k, v, mask=mask)[0][1, :, :2].any()


def _torch_attention(p, x, context, *, heads, mask, width, context_width):
    """nn.MultiheadAttention with the weights of p: (out, in) instead of (in, out), and True = may not attend."""
    module = torch.nn.MultiheadAttention(width, heads, bias="bq" in p, kdim=context_width, vdim=context_width, batch_first=True,
                                         dtype=torch.float64)  # fmt: skip
    q, k, v = p["Wq"].T, p["Wk"].T, p["Wv"].T
    if module.in_proj_weight is None:
        weights = {"q_proj_weight": q, "k_proj_weight": k, "v_proj_weight": v}
    else:
        weights = {"in_proj_weight": torch.cat([q, k, v])}
    weights["out_proj.weight"] = p["Wo"].T
    if "bq" in p:
        weights |= {"in_proj_bias": torch.cat([p["bq"], p["bk"], p["bv"]]), "out_proj.bias": p["bo"]}
    context = x if context is None else context
    attn_mask = None if mask is None else ~torch.from_numpy(mask)
    return torch.func.functional_call(module, weights, (x, context, context), {"attn_mask": attn_mask, "need_weights": False})[0]


# A key bias adds the same number to all of a query's scores, which softmax cancels.
KEY_BIAS = ((0, "bk"),)


def _attention_parameters(rng, D, Dc, bias):
    p = {"Wq": (D, D), "Wk": (Dc, D), "Wv": (Dc, D), "Wo": (D, D)} | ({n: (D,) for n in ("bq", "bk", "bv", "bo")} if bias else {})
    return {name: rng.normal(size=shape) for name, shape in p.items()}


@pytest.mark.parametrize(("B", "T", "S", "D", "Dc", "heads"), [(2, 3, 5, 6, 4, 3), (1, 1, 4, 5, 5, 1), (3, 4, 2, 10, 7, 5)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_cross_attention(B, T, S, D, Dc, heads, bias, masked):
    """Queries from x, keys and values from another sequence of a different length and width."""
    rng = rng_for(B, T, S)
    p, x, context = _attention_parameters(rng, D, Dc, bias), rng.normal(size=(B, T, D)), rng.normal(size=(B, S, Dc))
    mask = rng.random((T, S)) < 0.5 if masked else None
    if masked:
        mask[:, -2:] = True
    theirs = partial(_torch_attention, heads=heads, mask=mask, width=D, context_width=Dc)
    compare(lambda p, x, c: without_last(multi_head_attention(p, x, c, heads=heads, mask=mask)), theirs, p, x, context,
            zero_gradients=KEY_BIAS)  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
def test_self_attention(bias):
    rng = rng_for(6)
    p, x = _attention_parameters(rng, 6, 6, bias), rng.normal(size=(2, 5, 6))
    theirs = partial(_torch_attention, context=None, heads=2, mask=causal_mask(5), width=6, context_width=6)

    def ours(p, x):
        return without_last(without_last(multi_head_attention(p, x, heads=2, mask=causal_mask(5))))

    compare(ours, theirs, p, x, zero_gradients=KEY_BIAS)


# ----------------------------------------------------------------------------------------------------------------- block


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_block(norm_first, activation):
    """The pre-norm and the post-norm block against nn.TransformerEncoderLayer."""
    rng = rng_for(7)
    D, FF, heads = 6, 11, 3
    mask = causal_mask(5)
    norms = {"gamma": (D,), "beta": (D,)}
    p = {name: {n: rng.normal(size=s) for n, s in shapes.items()} for name, shapes in (
        ("norm1", norms), ("norm2", norms), ("mlp", {"W1": (D, FF), "b1": (FF,), "W2": (FF, D), "b2": (D,)}))}  # fmt: skip
    p["attention"] = _attention_parameters(rng, D, D, True)
    flat = {f"{part}.{name}": a for part, branch in p.items() for name, a in branch.items()}

    def ours(flat, x):
        def self_attention(p, x):
            return without_last(without_last(multi_head_attention(p, x, heads=heads, mask=mask)))

        tree = {part: {n.split(".")[1]: a for n, a in flat.items() if n.startswith(part + ".")} for part in p}
        y, back = block(tree, x, residual=pre_norm if norm_first else post_norm, attention=self_attention,
                        norm=partial(on_tree(layernorm, "gamma", "beta"), eps=1e-4),
                        mlp=partial(mlp, activation=ACTIVATIONS[activation][0]))  # fmt: skip

        def backward(dy):
            dp, dx = back(dy)
            return {f"{part}.{name}": a for part, branch in dp.items() for name, a in branch.items()}, dx

        return y, backward

    def theirs(t, x):
        module = torch.nn.TransformerEncoderLayer(D, heads, FF, dropout=0.0, activation=activation, layer_norm_eps=1e-4,
                                                  batch_first=True, norm_first=norm_first, dtype=torch.float64)  # fmt: skip
        weights = {
            "self_attn.in_proj_weight": torch.cat([t[f"attention.W{n}"].T for n in "qkv"]),
            "self_attn.in_proj_bias": torch.cat([t[f"attention.b{n}"] for n in "qkv"]),
            "self_attn.out_proj.weight": t["attention.Wo"].T,
            "self_attn.out_proj.bias": t["attention.bo"],
            **{f"linear{i}.weight": t[f"mlp.W{i}"].T for i in (1, 2)},
            **{f"linear{i}.bias": t[f"mlp.b{i}"] for i in (1, 2)},
            **{f"norm{i}.weight": t[f"norm{i}.gamma"] for i in (1, 2)},
            **{f"norm{i}.bias": t[f"norm{i}.beta"] for i in (1, 2)},
        }
        return torch.func.functional_call(module, weights, (x,), {"src_mask": ~torch.from_numpy(mask)})

    compare(ours, theirs, flat, rng.normal(size=(2, 5, D)), zero_gradients=((0, "attention.bk"),))
