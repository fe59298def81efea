"""GLM-130B from its paper: DeepNorm on normed embeddings."""

from __future__ import annotations

import numpy as np

from reference.layers.activation import gelu
from reference.layers.attention import attention
from reference.layers.embedding import embedding
from reference.layers.linear import linear
from reference.layers.mlp import gated_mlp
from reference.layers.norm import layernorm
from reference.layers.rope import frequencies, rope

EPS = 1e-5


def glm_130b(
    w: dict, ids: np.ndarray, *, start: int, masks: list, counting: int, layers: int, heads: int
) -> np.ndarray:
    """The logits (B, T, V).                                       Zeng et al. 2023, sec. 2.1

    w: the tensors of the release by name.  y = norm(E[id]); then, for each layer, with a =
    sqrt(2 L), h = norm(a y + attention(y)),   y' = norm(a h + mlp(h)), and logits = y E^T.  The
    norms are in turn each layer's input_layernorm and post_attention_layernorm, and
    final_layernorm.
    Rows of query_key_value: for each head its query, key and value; of dense_h_to_4h: the linear
    half, then the one that the GELU takes.
    Each text has one of the ids `masks`, of which the first in the list counts, and the id `start`.
    Tokens before `start` see each other.  From `start` on all stand at the place of the mask, but
    with the mask `counting` at their own.
    """
    B, T = ids.shape
    E = w["transformer.word_embeddings.weight"].shape[1] // heads
    f = frequencies(E).astype(np.float16).astype(np.float64)
    places, seen = np.zeros((B, T), int), np.zeros((B, 1, T, T), bool)
    for b in range(B):
        text = ids[b].tolist()
        mask, begin = next(id for id in masks if id in text), text.index(start)
        for t in range(T):
            places[b, t] = text.index(mask) if t >= begin and mask != counting else t
            for s in range(T):
                seen[b, 0, t, s] = s <= t or s < begin

    def norm(name, x):
        return layernorm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps=EPS)

    def dense(name, x):
        return linear(x, w[f"{name}.weight"].T, w[f"{name}.bias"])

    def self_attention(at, y):
        by_head = dense(f"{at}.query_key_value", y).reshape(B, T, heads, 3, E)
        q, k, v = (by_head[:, :, :, j].swapaxes(1, 2) for j in range(3))
        q, k = (_turned(a, places, f) for a in (q, k))
        return dense(f"{at}.dense", attention(q, k, v, mask=seen).swapaxes(1, 2).reshape(B, T, -1))

    def mlp(at, y):
        W, b = w[f"{at}.dense_h_to_4h.weight"], w[f"{at}.dense_h_to_4h.bias"]
        F, down = len(b) // 2, f"{at}.dense_4h_to_h"
        p = {"Wup": W[:F].T, "bup": b[:F], "Wgate": W[F:].T, "bgate": b[F:]}
        p |= {"Wdown": w[f"{down}.weight"].T, "bdown": w[f"{down}.bias"]}
        return gated_mlp(p, y, activation=gelu)

    a = (2 * layers) ** 0.5
    names = [f"transformer.layers.{i}" for i in range(layers)]
    after = [f"{at}.input_layernorm" for at in names[1:]] + ["transformer.final_layernorm"]
    table = w["transformer.word_embeddings.weight"]
    y = norm(f"{names[0]}.input_layernorm", embedding(table, ids=ids))
    for at, last in zip(names, after):
        h = norm(f"{at}.post_attention_layernorm", a * y + self_attention(f"{at}.attention", y))
        y = norm(last, a * h + mlp(f"{at}.mlp", h))
    return linear(y, table.T)


def _turned(heads, places, f):
    """Each sample (1, H, T, E) at its own places."""
    rows = [rope(heads[b : b + 1], positions=places[b], frequencies=f) for b in range(len(heads))]
    return np.concatenate(rows)
