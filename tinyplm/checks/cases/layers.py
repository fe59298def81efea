"""Cases of linear layers, embeddings, norms, activations, softmax, feed-forward layers, blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...backend import array_module
from ...core import Backward, on_tree
from ...layers import (
    activation,
    attention,
    block,
    dropout,
    embedding,
    linear,
    mlp,
    norm,
    position,
    softmax,
)
from ..case import Case, Entry, Sizes
from .attention import attention_parameters


def _linear(s: Sizes) -> Case:
    rng = s.rng()
    x = rng.normal(size=(s.B, s.T, s.D) if s.flags[0] else (s.B, s.D))
    return Case([x, rng.normal(size=(s.D, s.F)), rng.normal(size=s.F) if s.flags[1] else None])


def _embedding(s: Sizes) -> Case:
    rng = s.rng()
    return Case([rng.normal(size=(s.V, s.D))], {"ids": rng.integers(0, s.V, (s.B, s.T))})


def _embedding_bag(s: Sizes) -> Case:
    rng = s.rng()
    weights = rng.normal(size=(s.B, s.T))
    weights[rng.random(weights.shape) < 0.3] = 0.0  # padding
    table, ids = rng.normal(size=(s.V, s.D)), rng.integers(0, s.V, (s.B, s.T))
    return Case([table], {"ids": ids, "weights": weights})


def _layernorm(s: Sizes) -> Case:
    rng = s.rng()
    beta = rng.normal(size=s.D) if s.flags[0] else None
    args = [rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=s.D), beta]
    return Case(args, {"eps": 1e-5 if s.flags[1] else 0.1})


def _rmsnorm(s: Sizes) -> Case:
    rng = s.rng()
    args = [rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=s.D)]
    return Case(args, {"eps": 1e-6 if s.flags[1] else 0.1})


def _elementwise(s: Sizes) -> Case:
    return Case([s.rng().normal(0, 2.0, (s.B, s.T, s.D))])


def _relu(s: Sizes) -> Case:
    x = _elementwise(s).args[0]
    return Case([np.where(np.abs(x) < 0.01, 0.5, x)])  # no derivative at 0


def _dropout(s: Sizes) -> Case:
    rng = s.rng()
    x = rng.normal(size=(s.B, s.T, s.D))
    key = rng.integers(0, 2**64, s.B, dtype=np.uint64) if s.flags[0] else None
    return Case([x], {"rate": 0.4, "key": key})


def _softmax(s: Sizes) -> Case:
    rng = s.rng()
    mask = None
    if s.flags[0]:  # some rows see nothing
        mask = rng.random((s.B, 1, s.S) if s.flags[1] else (s.B, s.T, s.S)) < 0.6
    return Case([rng.normal(0, 3.0, (s.B, s.T, s.S))], {"mask": mask})


def _log_softmax(s: Sizes) -> Case:
    return Case([s.rng().normal(0, 3.0, (s.B, s.T, s.V))])


def _learned_positions(s: Sizes) -> Case:
    rng = s.rng()
    shape = (s.B, s.T) if s.flags[0] else (s.T,)
    args = [rng.normal(size=(s.B, s.T, s.D)), rng.normal(size=(s.V, s.D))]
    return Case(args, {"positions": rng.integers(0, s.V, shape)})


_ACTIVATIONS = [activation.gelu_tanh, activation.silu, activation.gelu]


def _mlp_parameters(s: Sizes, rng: np.random.Generator, bias: bool) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {"W1": (s.D, s.F), "W2": (s.F, s.D)}
    if bias:
        shapes |= {"b1": (s.F,), "b2": (s.D,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def _mlp(s: Sizes) -> Case:
    rng = s.rng()
    p = _mlp_parameters(s, rng, s.flags[0])
    x = rng.normal(size=(s.B, s.T, s.D))
    return Case([p, x], {"activation": _ACTIVATIONS[s.seed % 3]})


def _gated_mlp(s: Sizes) -> Case:
    rng = s.rng()
    shapes: dict[str, tuple[int, ...]] = {
        "Wgate": (s.D, s.F),
        "Wup": (s.D, s.F),
        "Wdown": (s.F, s.D),
    }
    if s.flags[0]:
        shapes |= {"bgate": (s.F,), "bup": (s.F,), "bdown": (s.D,)}
    p = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    x = rng.normal(size=(s.B, s.T, s.D))
    return Case([p, x], {"activation": _ACTIVATIONS[s.seed % 3]})


def attend(
    p: Any, x: Any, bias: Any, *, heads: int, kv_heads: int, mask: np.ndarray
) -> tuple[Any, Backward]:
    """Self-attention as a part of a block: the mask is moved to the device of x."""
    mask = array_module(x).asarray(mask)
    y, back = attention.multi_head_attention(
        p, x, None, bias, heads=heads, kv_heads=kv_heads, mask=mask
    )

    def backward(dy: Any) -> tuple[Any, Any, Any]:
        dp, dx, _, dbias = back(dy)
        return dp, dx, dbias

    return y, backward


norm_on_tree = on_tree(norm.layernorm, "gamma", "beta")


def block_case(s: Sizes, residual: Any) -> Case:
    """A block whose attention takes a shared input, the additive bias, as in T5; without a residual
    its parts are parallel."""
    rng = s.rng()

    def norm_parameters() -> dict[str, Any]:
        return {"gamma": rng.normal(size=s.D), "beta": rng.normal(size=s.D)}

    def norms() -> dict[str, Any]:
        if residual is block.both_norms:
            return {"before": norm_parameters(), "after": norm_parameters()}
        return norm_parameters()

    p = {
        "norm1": norms(),
        "attention": attention_parameters(s, rng, s.D, True),
        "norm2": norms(),
        "mlp": _mlp_parameters(s, rng, True),
    }
    if residual is None:
        p = {"norm": p["norm1"], "attention": p["attention"], "mlp": p["mlp"]}
    mask = np.tril(np.ones((s.T, s.T), dtype=bool))
    kwargs = {
        **({} if residual is None else {"residual": residual}),
        "norm": partial(norm_on_tree, eps=0.1),  # keeps the norm's curvature moderate when D is 2
        "attention": partial(attend, heads=s.H, kv_heads=s.K, mask=mask),
        "mlp": partial(mlp.mlp, activation=activation.gelu_tanh),
    }
    bias = rng.normal(size=(1, s.H, s.T, s.T))
    return Case([p, rng.normal(size=(s.B, s.T, s.D)), bias], kwargs)


COMPONENTS = {
    "linear": Entry(linear.linear, _linear, "linear layer, with or without a bias"),
    "embedding": Entry(embedding.embedding, _embedding, "rows of a table, by token ids"),
    "embedding_bag": Entry(embedding.embedding_bag, _embedding_bag, "weighted sums of rows"),
    "layernorm": Entry(norm.layernorm, _layernorm, "LayerNorm, with or without a shift"),
    "rmsnorm": Entry(norm.rmsnorm, _rmsnorm, "RMSNorm"),
    "relu": Entry(activation.relu, _relu, "ReLU"),
    "gelu": Entry(activation.gelu, _elementwise, "GELU, exact"),
    "gelu_tanh": Entry(activation.gelu_tanh, _elementwise, "GELU, tanh approximation"),
    "silu": Entry(activation.silu, _elementwise, "SiLU (Swish)"),
    "dropout": Entry(dropout.dropout, _dropout, "dropout, its mask a hash of key and element"),
    "softmax": Entry(softmax.softmax, _softmax, "softmax with a mask; a row without entries is 0"),
    "log_softmax": Entry(softmax.log_softmax, _log_softmax, "log-softmax"),
    "learned_positions": Entry(
        position.learned_positions, _learned_positions, "learned positions, added to x"
    ),
    "mlp": Entry(mlp.mlp, _mlp, "feed-forward layer"),
    "gated_mlp": Entry(mlp.gated_mlp, _gated_mlp, "gated feed-forward layer (SwiGLU, GeGLU)"),
    "pre_norm_block": Entry(
        block.block,
        partial(block_case, residual=block.pre_norm),
        "block with norms before its parts",
    ),
    "post_norm_block": Entry(
        block.block,
        partial(block_case, residual=block.post_norm),
        "block with norms after the sums",
    ),
    "log_sigmoid": Entry(activation.log_sigmoid, _elementwise, "log-sigmoid"),
}
