"""Whole decoders from their papers: hidden states of one sequence, by plain loops over layers.

x (T, D) is what the first block gets, the result (T, D) the hidden states of the last.  Parameters
are nested dicts of arrays: p["layers"] with "attention", "mlp" and the norms that a wiring names,
and p["norm"] if there is a norm at the end.  A norm is a function (p, x), a sublayer (p, x).
"""

import math

import numpy as np

from reference.layers.linear import linear
from reference.layers.sinks import sink_softmax
from reference.layers.softmax import softmax


def decoder(p, x, *, wiring, norm, attention, mlp, final=True):
    """wiring_L(... wiring_1(x)), then norm with p["norm"] unless `final` is False.

    attention (i, p, x): of layer i.
    """
    for i, layer in enumerate(p["layers"]):
        x = wiring(layer, x, norm=norm, attention=lambda p, x, i=i: attention(i, p, x), mlp=mlp)
    return norm(p["norm"], x) if final else x


# ------------------------------------------------------------------------- where norms stand


def pre_norm(p, x, *, norm, attention, mlp):
    """h = x + attention(norm1(x)),   y = h + mlp(norm2(h)).       Radford et al. 2019, sec. 2.3"""
    h = x + attention(p["attention"], norm(p["norm1"], x))
    return h + mlp(p["mlp"], norm(p["norm2"], h))


def post_norm(p, x, *, norm, attention, mlp):
    """h = norm1(x + attention(x)),   y = norm2(h + mlp(h)).       Radford et al. 2018, eq. 2"""
    h = norm(p["norm1"], x + attention(p["attention"], x))
    return norm(p["norm2"], h + mlp(p["mlp"], h))


def after_norm(p, x, *, norm, attention, mlp):
    """h = x + norm1(attention(x)),   y = h + norm2(mlp(h)).       OLMo team 2025, sec. 3.2"""
    h = x + norm(p["norm1"], attention(p["attention"], x))
    return h + norm(p["norm2"], mlp(p["mlp"], h))


def both_norms(p, x, *, norm, attention, mlp):
    """h = x + after1(attention(before1(x))),   y = h + after2(mlp(before2(h))).

    Gemma team 2024b, sec. 2 ("pre-norm and post-norm")
    """
    n1, n2 = p["norm1"], p["norm2"]
    h = x + norm(n1["after"], attention(p["attention"], norm(n1["before"], x)))
    return h + norm(n2["after"], mlp(p["mlp"], norm(n2["before"], h)))


def parallel(p, x, *, norm, attention, mlp):
    """y = x + attention(norm(x)) + mlp(norm(x)).                  Chowdhery et al. 2022, sec. 2"""
    n = norm(p["norm"], x)
    return x + attention(p["attention"], n) + mlp(p["mlp"], n)


# ------------------------------------------------------------------------------------ attention


def attention(
    p, x, *, heads, kv_heads, window=None, turn=None, slopes=None, scale=None, cap=None,
    whole_norm=None, head_norm=None,
):  # fmt: skip
    """y = Concat(head_1 .. head_H) Wo + bo,

    head_h[t] = sum_s P[s] v_g[s],   P = softmax_s(score(t, s)) over t - window < s <= t,
    score(t, s) = cap(scale q_h[t] . k_g[s]) - m_h (t - s),   g = h // (H / K),
    cap(z) = cap tanh(z / cap) or z,   scale = E^-0.5 if None,   m = slopes or 0.
    whole_norm (p, x) norms all of x Wq and of x Wk, head_norm (p, x) each head of them; with
    parameters q_norm and k_norm.  turn (x (T, E)): RoPE.  With sinks (H,) among the parameters P is
    the sink_softmax (OpenAI 2025, sec. 2.2).
    """
    T = len(x)
    parts = {n: linear(x, p[f"W{n}"], p.get(f"b{n}")) for n in "qkv"}
    if whole_norm:
        parts |= {n: whole_norm(p[f"{n}_norm"], parts[n]) for n in "qk"}
    E = p["Wq"].shape[1] // heads
    q, k, v = (np.split(parts[n], parts[n].shape[1] // E, axis=1) for n in "qkv")
    if head_norm:
        q = [head_norm(p["q_norm"], head) for head in q]
        k = [head_norm(p["k_norm"], head) for head in k]
    if turn:
        q, k = [turn(head) for head in q], [turn(head) for head in k]
    scale = E**-0.5 if scale is None else scale
    outputs = np.zeros((T, heads * E))
    for h in range(heads):
        g = h // (heads // kv_heads)
        for t in range(T):
            first = 0 if window is None else max(0, t - window + 1)
            scores = np.zeros(t + 1 - first)
            for s in range(first, t + 1):
                score = scale * sum(q[h][t, e] * k[g][s, e] for e in range(E))
                if cap is not None:
                    score = cap * math.tanh(score / cap)
                if slopes is not None:
                    score -= slopes[h] * (t - s)
                scores[s - first] = score
            if "sinks" in p:
                P = sink_softmax(scores[None, None, None], p["sinks"][h : h + 1])[0, 0, 0]
            else:
                P = softmax(scores[None])[0]
            for s in range(first, t + 1):
                outputs[t, h * E : (h + 1) * E] += P[s - first] * v[g][s]
    return linear(outputs, p["Wo"], p.get("bo"))


def slopes(heads):
    """m_h = 2^(-8 h / H), h = 1 .. H, for a power of two.               Press et al. 2022, sec. 3

    Otherwise, as in the released code, those of the next smaller power of two, then the first,
    third, fifth ... of twice as many.
    """
    if heads & (heads - 1) == 0:
        return [2 ** (-8 * h / heads) for h in range(1, heads + 1)]
    smaller = 1 << (heads.bit_length() - 1)
    return slopes(smaller) + slopes(2 * smaller)[0::2][: heads - smaller]
