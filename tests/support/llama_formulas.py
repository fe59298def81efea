"""The logits of a whole LLaMA-shaped decoder from the formulas in reference/, in float64."""

from __future__ import annotations

from functools import partial

import numpy as np

import reference.layers.activation as ref_activation
import reference.layers.attention as ref_attention
import reference.layers.embedding as ref_embedding
import reference.layers.linear as ref_linear
import reference.layers.mlp as ref_mlp
import reference.layers.norm as ref_norm
import reference.layers.rope as ref_rope
from tests.laws import MODEL, relative_error


def by_the_formulas(model, ids, mask, window=lambda layer: None):
    """window(layer): how many keys a query in this layer sees; None for all preceding ones."""
    c, p = model.config, model.params
    T = ids.shape[1]
    frequencies, magnitude = c.rope.frequencies(c.head_width, T)
    turn = partial(ref_rope.rope, positions=np.arange(T), frequencies=frequencies, magnitude=magnitude)

    def seen(layer):
        """Query t sees key s if t - window < s <= t and s is not padding."""
        t, s = np.arange(T)[:, None], np.arange(T)
        return (s <= t) & (s > t - (window(layer) or T)) & (mask == 1)[:, None, None]

    def attend(p, x, mask):
        heads = {"q": c.heads, "k": c.kv_heads, "v": c.kv_heads}
        q, k, v = (
            ref_linear.linear(x, p[f"W{n}"], p.get(f"b{n}")).reshape(*x.shape[:2], H, -1).swapaxes(1, 2) for n, H in heads.items()
        )
        o = ref_attention.attention(turn(q), turn(k), v, mask=mask).swapaxes(1, 2)
        return ref_linear.linear(o.reshape(*x.shape[:2], -1), p["Wo"], p.get("bo"))

    def norm(p, x):
        return ref_norm.rmsnorm(x, p["gamma"], eps=c.rms_norm_eps)

    x = ref_embedding.embedding(p["body"]["tokens"], ids=ids)
    for i, layer in enumerate(p["body"]["layers"]):
        x = x + attend(layer["attention"], norm(layer["norm1"], x), seen(i))
        h = norm(layer["norm2"], x)
        x = x + ref_mlp.gated_mlp(layer["mlp"], h, activation=ref_activation.silu)
    W = p["body"]["tokens"].T if c.tie_word_embeddings else p["head"]["W"]
    return ref_linear.linear(norm(p["body"]["norm"], x), W)


def assert_formulas(model, ids, mask, window=lambda layer: None):
    ours = model(ids, attention_mask=mask, grad=False)[0]["logits"]
    assert relative_error(ours, by_the_formulas(model, ids, mask, window)) < MODEL
