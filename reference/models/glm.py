"""The original GLM from its paper, with the norms where the released code has them."""

from __future__ import annotations

import numpy as np

from reference.layers.activation import gelu_tanh
from reference.layers.attention import attention
from reference.layers.embedding import embedding
from reference.layers.linear import linear
from reference.layers.mask import prefix_mask
from reference.layers.mlp import mlp
from reference.layers.norm import layernorm

EPS = 1e-5


def glm(
    w: dict, ids: np.ndarray, positions: np.ndarray, prefix: np.ndarray, *, layers: int, heads: int
) -> np.ndarray:
    """The logits (B, T, V).                                             Du et al. 2022, sec. 2.3

    w: the tensors of a file by name.  ids (B, T), positions (B, 2, T), prefix (B,): the length of
    part A.  x = E[id] + P[place] + Q[place within the span]; then, for each layer,
    h = x + attention(norm1(x)),   x' = h + mlp(norm2(h)), and logits = norm(x) E^T.
    The rows of query_key_value are all queries, all keys, all values.
    """
    B, T = ids.shape
    seen = prefix_mask(prefix, T)

    def norm(name, x):
        return layernorm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps=EPS)

    def projected(name, x):
        return linear(x, w[f"{name}.weight"].T, w[f"{name}.bias"])

    x = embedding(w["word_embeddings.weight"], ids=ids)
    x = x + embedding(w["transformer.position_embeddings.weight"], ids=positions[:, 0])
    x = x + embedding(w["transformer.block_position_embeddings.weight"], ids=positions[:, 1])
    for i in range(layers):
        at = f"transformer.layers.{i}"
        qkv = projected(f"{at}.attention.query_key_value", norm(f"{at}.input_layernorm", x))
        q, k, v = (
            part.reshape(B, T, heads, -1).swapaxes(1, 2) for part in np.split(qkv, 3, axis=2)
        )
        o = attention(q, k, v, mask=seen).swapaxes(1, 2).reshape(B, T, -1)
        h = x + projected(f"{at}.attention.dense", o)
        names = {"1": "dense_h_to_4h", "2": "dense_4h_to_h"}
        p = {f"W{n}": w[f"{at}.mlp.{name}.weight"].T for n, name in names.items()}
        p |= {f"b{n}": w[f"{at}.mlp.{name}.bias"] for n, name in names.items()}
        x = h + mlp(p, norm(f"{at}.post_attention_layernorm", h), activation=gelu_tanh)
    return linear(norm("transformer.final_layernorm", x), w["word_embeddings.weight"].T)
