"""Multi-head latent attention, and the input of DeepSeek-V3's multi-token modules."""

from collections.abc import Callable

import numpy as np

from reference.layers.attention import attention
from reference.layers.linear import linear
from reference.layers.norm import rmsnorm
from reference.scalar import numbers, zeros


def latent_attention(
    p: dict,
    x: np.ndarray,
    *,
    heads: int,
    rotary: Callable,
    eps: float = 1e-6,
    mask: np.ndarray | None = None,
    scale: float | None = None,
) -> np.ndarray:
    """Multi-head latent attention.     DeepSeek-V2: DeepSeek team 2024a, sec. 2.1 (eq. 9-19)

        c^KV = RMSNorm(W^DKV h)                                                            (9)
        k^C = W^UK c^KV,   v^C = W^UV c^KV                                                 (10, 11)
        c^Q = RMSNorm(W^DQ h),   q^C = W^UQ c^Q                                            (12, 13)
        q^R = RoPE(W^QR c^Q),   k^R = RoPE(W^KR h)                                         (14, 15)
        q_i = [q_i^C; q_i^R],   k_i = [k_i^C; k^R]                                         (16, 17)
        o_i = sum_j softmax_j(q_i . k_j,i / sqrt(d_h + d_h^R)) v_j,i^C                     (18)
        u = W^O [o_1; ...; o_H]                                                            (19)

    The norms are described with the training (2024a, sec. 3.1); eps = 1e-6 and the biases, if p has
    them, are in the released code.  Wuq holds W^UQ and W^QR: of head i, columns i (d_h + d_h^R) to
    the next multiple, those of W^UQ first.  With Wq in place of Wdq, q_norm and Wuq, q = W^Q h
    (DeepSeek-V2-Lite).  x (B, T, D) -> u (B, T, D); rotary(a): RoPE of a (B, H or 1, T, d_h^R).
    """
    x = numbers(x)
    c = rmsnorm(linear(x, p["Wdkv"], p.get("bdkv")), p["kv_norm"], eps=eps)
    k_c, v_c = linear(c, p["Wuk"]), linear(c, p["Wuv"])
    if "Wq" in p:
        q_both = linear(x, p["Wq"])
    else:
        c_q = rmsnorm(linear(x, p["Wdq"], p.get("bdq")), p["q_norm"], eps=eps)
        q_both = linear(c_q, p["Wuq"])
    k_both = linear(x, p["Wkr"], p.get("bkr"))

    B, T, R = k_both.shape
    E, E2 = k_c.shape[2] // heads, v_c.shape[2] // heads
    before = zeros((B, heads, T, R), like=q_both)
    for b, h, t, e in np.ndindex(B, heads, T, R):
        before[b, h, t, e] = q_both[b, t, h * (E + R) + E + e]
    q_r = rotary(before)
    one = zeros((B, 1, T, R), like=k_both)
    for b, t, e in np.ndindex(B, T, R):
        one[b, 0, t, e] = k_both[b, t, e]
    k_r = rotary(one)

    q = zeros((B, heads, T, E + R), like=(q_both, q_r))
    k = zeros((B, heads, T, E + R), like=(k_c, k_r))
    v = zeros((B, heads, T, E2), like=v_c)
    for b, h, t in np.ndindex(B, heads, T):
        for e in range(E):
            q[b, h, t, e] = q_both[b, t, h * (E + R) + e]
            k[b, h, t, e] = k_c[b, t, h * E + e]
        for e in range(R):
            q[b, h, t, E + e] = q_r[b, h, t, e]
            k[b, h, t, E + e] = k_r[b, 0, t, e]
        for e in range(E2):
            v[b, h, t, e] = v_c[b, t, h * E2 + e]

    o = attention(q, k, v, mask=mask, scale=(E + R) ** -0.5 if scale is None else scale)
    u = zeros((B, T, heads * E2), like=o)
    for b, h, t, e in np.ndindex(o.shape):
        u[b, t, h * E2 + e] = o[b, h, t, e]
    return linear(u, p["Wo"], p.get("bo"))


def multi_token_input(
    p: dict, hidden: np.ndarray, embeds: np.ndarray, *, eps: float = 1e-6
) -> np.ndarray:
    """h'_i = M [RMSNorm(h_i); RMSNorm(Emb(t_{i+k}))].      DeepSeek-V3: DeepSeek team 2024b, eq. 21

    hidden, embeds (B, T, D), where embeds[b, i] is that of token i + k -> h' (B, T, D).
    p: hidden_norm, embed_norm (D,), Wproj (2D, D), the transpose of M.
    """
    hidden = rmsnorm(hidden, p["hidden_norm"], eps=eps)
    embeds = rmsnorm(embeds, p["embed_norm"], eps=eps)
    B, T, D = hidden.shape
    joined = zeros((B, T, 2 * D), like=(hidden, embeds))
    for b, t, d in np.ndindex(B, T, D):
        joined[b, t, d] = hidden[b, t, d]
        joined[b, t, D + d] = embeds[b, t, d]
    return linear(joined, p["Wproj"])
