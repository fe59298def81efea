"""The logits of whole decoders by the formulas of reference/, each sample without its padding.

What a family computes is said here again, from its paper: not by its pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import reference.layers.activation as ref_activation
import reference.layers.mlp as ref_mlp
import reference.layers.norm as ref_norm
import reference.layers.rope as ref_rope
import reference.models.decoder as ref
from tests.laws import MODEL, relative_error


def rms(p, x, *, eps):
    return ref_norm.rmsnorm(x, p["gamma"] if isinstance(p, dict) else p, eps=eps)


def unit_rms(p, x, *, eps):
    """Gemma's: the gain is 1 + w."""
    return ref_norm.rmsnorm(x, 1 + (p["gamma"] if isinstance(p, dict) else p), eps=eps)


def layer_norm(p, x, *, eps):
    return ref_norm.layernorm(x, p["gamma"], p.get("beta"), eps=eps)


def turn(base: float, *, width: int | None = None, factor: float = 1.0, interleaved: bool = False) -> Callable:
    """RoPE of one head (T, E), of its first `width` components, by the angles of position t / factor."""

    def rotate(x):
        turned = width or x.shape[1]
        f = ref_rope.frequencies(turned, base=base) / factor
        head = ref_rope.rope(x[None, None, :, :turned], positions=np.arange(len(x)), frequencies=f, interleaved=interleaved)
        return np.concatenate([head[0, 0], x[:, turned:]], axis=1)

    return rotate


swiglu = partial(ref_mlp.gated_mlp, activation=ref_activation.silu)
geglu = partial(ref_mlp.gated_mlp, activation=ref_activation.gelu_tanh)
gelu_mlp = partial(ref_mlp.mlp, activation=ref_activation.gelu_tanh)


def assert_formula(
    model: Any,
    ids: np.ndarray,
    mask: np.ndarray,
    *,
    norm: Callable,
    attention: Callable[[int], dict[str, Any]],
    heads: tuple[int, int],
    mlp: Callable = swiglu,
    wiring: Callable = ref.pre_norm,
    embed: Callable = lambda p, x: x,
    final: bool = True,
    scale: float = 1.0,
    cap: float | None = None,
) -> None:
    """The model's logits at real tokens are `scale` times hidden W, capped.

    heads: of queries, of keys and values; attention: layer number -> other keywords of the reference's.
    embed: the body's parameters and the rows of the table (T, D) -> what the first block gets.
    """
    real = mask.astype(bool)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    logits = model(ids, attention_mask=mask, position_ids=positions, grad=False)[0]["logits"]
    p = model.params["body"]
    W = p["tokens"].T if model.config.tie_word_embeddings else model.params["head"]["W"]

    def attend(i, p, x):
        return ref.attention(p, x, heads=heads[0], kv_heads=heads[1], **attention(i))

    for row in range(len(ids)):
        x = embed(p, p["tokens"][ids[row, real[row]]])
        hidden = ref.decoder(p, x, wiring=wiring, norm=norm, attention=attend, mlp=mlp, final=final)
        expected = scale * hidden @ W
        if cap is not None:
            expected = np.vectorize(lambda z: cap * math.tanh(z / cap))(expected)
        error = relative_error(logits[row, real[row]], expected)
        assert error < MODEL, f"sample {row}: {error:.1e}"
