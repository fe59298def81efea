"""Calls that NumPy would run without error but with a meaningless result: each is rejected, also after valid ones."""

from __future__ import annotations

import numpy as np
import pytest

from tinyplm.kernels import block_attention
from tinyplm.layers import activation, attention, heads, linear, mask, mlp, norm
from tinyplm.layers.activation import gelu
from tinyplm.layers.attention_parts import cached
from tinyplm.optim.adamw import AdamW
from tinyplm.tokenizers import Tokenizer

X, G, W = np.ones((2, 3, 4), "f4"), np.ones(4, "f4"), np.ones((4, 4), "f4")
Q = np.ones((2, 4, 3, 4), "f4")
K = np.ones((2, 2, 3, 4), "f4")
P = {name: W for name in ("Wq", "Wk", "Wv", "Wo")}
MLP = {"W1": W, "W2": W}
GATED = {"Wgate": W, "Wup": W, "Wdown": W}


class Like:
    """From another library: it has a shape and NumPy's dtype, but is not an array."""

    shape, dtype, ndim = X.shape, X.dtype, X.ndim


def refused(f, *args, match="expected", **kwargs):
    with pytest.raises(ValueError, match=match) as caught:
        f(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("f", [activation.relu, activation.tanh, activation.gelu, activation.gelu_tanh, activation.silu])
def test_activations_take_floating_point_arrays_alone(f):
    f(X)
    for bad in (np.arange(3), np.array([True]), np.array([1j]), np.ma.array(X, mask=X > 0), Like()):
        refused(f, bad, match=f"{f.__name__}: x: expected")


def test_wrong_dtypes_and_numbers_in_what_is_called_often():
    for f in (norm.layernorm, norm.rmsnorm):
        f(X, G)
        refused(f, X, np.arange(4), match="gamma: expected")
        for eps in (float("inf"), True, np.array([1e-5]), float("nan")):
            refused(f, X, G, eps=eps, match="eps: expected")
        refused(f, X[..., :0], G[:0], match="norm: x")
    refused(norm.layernorm, X, G, np.arange(4), match="beta: expected")
    linear.linear(X, W, G)
    for bad in ((X.astype(int), W), (X, W.astype(int)), (X, W, G.astype(int)), (X > 0, W), (X * 1j, W)):
        refused(linear.linear, *bad)


def test_attention():
    for f in (attention.attention, block_attention.block_attention):
        f(Q, K, K, np.zeros((3, 3), "f4"))
        for bias in (np.ones((3, 3), bool), np.ones((3, 3), int)):  # a mask passed as the bias
            refused(f, Q, K, K, bias, match="bias: expected")
        refused(f, Q, K, K, scale=float("nan"), match="scale: expected")
        refused(f, Q, K, K, scale=np.ones((4, 1, 1)), match="scale: expected")
        refused(f, Q, K.astype(int), K, match="k: expected")
        refused(f, Q, K, K, mask=np.ones((2, 2, 3, 3), bool), match="mask")  # per key head instead of per head
    attention.multi_head_attention(P, X, heads=2)
    for p in ({**P, "bQ": G}, {n: w for n, w in P.items() if n != "Wk"}):
        refused(attention.multi_head_attention, p, X, heads=2, match="p: expected")
    refused(cached, 5, match="cache: expected")
    for bad in (0, -2, 3, 2.0, "2", None):
        refused(attention.split_heads, X, bad)
    refused(attention.merge_heads, [1])


def test_feed_forward_layers():
    for f, p in ((mlp.mlp, MLP), (mlp.gated_mlp, GATED)):
        f(p, X, activation=gelu)
        refused(f, p, X, activation=np.tanh, match="activation: expected a component")  # two rows are not (y, backward)
        refused(f, {**p, "b": G}, X, activation=gelu, match="alone, got 'b'")
    for name in ("Wgate", "Wup"):
        refused(mlp.gated_mlp, {**GATED, name: W[:, :1]}, X, activation=gelu, match="Wgate: expected the shape of Wup")
    refused(heads.pooler, {"W": W, "b": G}, X, activation=np.tanh, match="pooler: activation: expected a component")


def test_masks():
    for bad in ([[0.5, 1.0]], [[2, 1]], [[0.0, -1e9]]):
        refused(mask.padding_mask, np.array(bad), match="attention_mask: expected 0 or 1")
    assert mask.padding_mask(np.array([[1.0, 0.0]])).tolist() == [[[[True, False]]]]
    for bad in ([4], [-1]):
        refused(mask.prefix_mask, np.array(bad), 3, match="lengths: expected integers from 0 to 3")
    assert mask.prefix_mask(np.array([0, 3]), 3)[1].all()


@pytest.mark.parametrize("params", [5, "x", {"W": [1.0]}, {"W": "x"}, {"W": np.arange(3)}, {"W": np.ones(3) * 1j}])
def test_an_optimiser_takes_trees_of_floating_point_arrays(params):
    refused(AdamW, params, match="params.*: expected a(n array of floating-point numbers| tree of arrays)")


def test_tokenizers_take_paths_and_components():
    tokenizer = Tokenizer.train(["low lower"], 300)
    for path in ("", b"x", "a\0b", 5):
        refused(tokenizer.save, path, match="path: expected a path")
        refused(Tokenizer.load, path, match="path: expected a path")
    with pytest.raises(TypeError, match="post_processor: expected a component"):
        tokenizer.post_processor = 5
