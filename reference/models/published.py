"""LLaMA-shaped decoders that their authors published with tensors in layouts of their own.

Each function takes the tensors of a file by name, w[name], and ids (B, T), and gives the logits
(B, T, V).  torch's linear layers hold weights as rows of outputs: y = W x + b with W (out, in).
"""

import numpy as np

from reference.layers.activation import gelu_tanh, silu
from reference.layers.alibi import alibi
from reference.layers.attention import attention
from reference.layers.embedding import embedding
from reference.layers.linear import linear
from reference.layers.mlp import gated_mlp
from reference.layers.norm import layernorm, rmsnorm
from reference.layers.pooling import l2_normalise
from reference.layers.rope import frequencies, paired_rope, rope


def qwen(w: dict, ids: np.ndarray, *, layers: int, heads: int, eps: float, base: float):
    """The rows of c_attn are all queries, all keys, all values; w2 is the gate.  Bai et al. 2023"""

    def layer(i):
        at = f"transformer.h.{i}"
        qkv = zip("qkv", *(_thirds(w[f"{at}.attn.c_attn.{n}"]) for n in ("weight", "bias")))
        p = {f"{kind}{n}": a for n, W, b in qkv for kind, a in (("W", W.T), ("b", b))}
        p |= {"Wo": w[f"{at}.attn.c_proj.weight"].T}
        names = {"Wup": "w1", "Wgate": "w2", "Wdown": "c_proj"}
        mlp = {ours: w[f"{at}.mlp.{theirs}.weight"].T for ours, theirs in names.items()}
        return w[f"{at}.ln_1.weight"], p, w[f"{at}.ln_2.weight"], mlp

    x = embedding(w["transformer.wte.weight"], ids=ids)
    turn = _rotation(w["transformer.wte.weight"].shape[1] // heads, ids.shape[1], base)
    x = _blocks(x, [layer(i) for i in range(layers)], heads, heads, eps, turn=turn)
    return linear(rmsnorm(x, w["transformer.ln_f.weight"], eps=eps), w["lm_head.weight"].T)


def internlm(w: dict, ids: np.ndarray, *, layers: int, heads: int, eps: float):
    """LLaMA with biases of queries, keys, values and the output.         InternLM team 2023"""

    def layer(i):
        at = f"model.layers.{i}"
        p = {f"W{n}": w[f"{at}.self_attn.{n}_proj.weight"].T for n in "qkvo"}
        p |= {f"b{n}": w[f"{at}.self_attn.{n}_proj.bias"] for n in "qkvo"}
        return _llama_parts(w, at, p)

    x = embedding(w["model.embed_tokens.weight"], ids=ids)
    turn = _rotation(x.shape[2] // heads, ids.shape[1], 10000.0)
    x = _blocks(x, [layer(i) for i in range(layers)], heads, heads, eps, turn=turn)
    return linear(rmsnorm(x, w["model.norm.weight"], eps=eps), w["lm_head.weight"].T)


def internlm2(
    w: dict, ids: np.ndarray, *, layers: int, heads: int, kv_heads: int, eps: float, base: float
):
    """The rows of wqkv: for each key/value head its H/K queries, its key, its value.

    Cai et al. 2024, sec. 2.2
    """
    D = w["model.tok_embeddings.weight"].shape[1]
    E, shared = D // heads, heads // kv_heads

    def layer(i):
        at = f"model.layers.{i}"
        rows = w[f"{at}.attention.wqkv.weight"]
        q, k, v = [], [], []
        for g in range(kv_heads):
            first = g * (shared + 2) * E
            q += [rows[first + n] for n in range(shared * E)]
            k += [rows[first + shared * E + n] for n in range(E)]
            v += [rows[first + (shared + 1) * E + n] for n in range(E)]
        p = {"Wq": np.array(q).T, "Wk": np.array(k).T, "Wv": np.array(v).T}
        p |= {"Wo": w[f"{at}.attention.wo.weight"].T}
        names = {"Wgate": "w1", "Wdown": "w2", "Wup": "w3"}
        mlp = {ours: w[f"{at}.feed_forward.{n}.weight"].T for ours, n in names.items()}
        return w[f"{at}.attention_norm.weight"], p, w[f"{at}.ffn_norm.weight"], mlp

    x = embedding(w["model.tok_embeddings.weight"], ids=ids)
    turn = _rotation(E, ids.shape[1], base)
    x = _blocks(x, [layer(i) for i in range(layers)], heads, kv_heads, eps, turn=turn)
    return linear(rmsnorm(x, w["model.norm.weight"], eps=eps), w["output.weight"].T)


def baichuan(
    w: dict, ids: np.ndarray, *, layers: int, heads: int, eps: float, slopes=None, unit: bool
):
    """W_pack holds all queries, all keys, all values.                    Yang et al. 2023, sec. 2

    slopes (H,): ALiBi's, in place of RoPE (13B).  unit: each row of lm_head is divided by its
    length (Baichuan 2).
    """

    def layer(i):
        at = f"model.layers.{i}"
        packed = _thirds(w[f"{at}.self_attn.W_pack.weight"])
        p = {f"W{n}": W.T for n, W in zip("qkv", packed)}
        return _llama_parts(w, at, p | {"Wo": w[f"{at}.self_attn.o_proj.weight"].T})

    x = embedding(w["model.embed_tokens.weight"], ids=ids)
    T = ids.shape[1]
    turn = bias = None
    if slopes is None:
        turn = _rotation(x.shape[2] // heads, T, 10000.0)
    else:
        places = np.arange(T)[None]
        bias = alibi(places, places, slopes=slopes)
    x = _blocks(x, [layer(i) for i in range(layers)], heads, heads, eps, turn=turn, bias=bias)
    rows = l2_normalise(w["lm_head.weight"]) if unit else w["lm_head.weight"]
    return linear(rmsnorm(x, w["model.norm.weight"], eps=eps), rows.T)


def chatglm(
    w: dict, ids: np.ndarray, *, layers: int, heads: int, groups: int | None, eps: float,
    base: float = 10000.0, stretch: float = 1.0,
):  # fmt: skip
    """The rows of query_key_value: all queries, the keys and then the values of the groups; without
    groups, for each head its query, key and value.  dense_h_to_4h: the gate, then the other half.

    Pairs (2i, 2i + 1) of the first half of each head turn, by the angles of position t / stretch.
    GLM team 2024, sec. 2
    """
    E = w["transformer.encoder.layers.0.self_attention.dense.weight"].shape[1] // heads

    def layer(i):
        at = f"transformer.encoder.layers.{i}"
        p = {}
        for kind, name in (("W", "weight"), ("b", "bias")):
            rows = w[f"{at}.self_attention.query_key_value.{name}"]
            if groups is None:
                at_head = [rows[3 * h * E : 3 * (h + 1) * E] for h in range(heads)]
                parts = [np.concatenate([_thirds(own)[n] for own in at_head]) for n in range(3)]
            else:
                parts = np.split(rows, [heads * E, (heads + groups) * E])
            p |= {f"{kind}{n}": part.T for n, part in zip("qkv", parts)}
        outer = {"o": f"{at}.self_attention.dense", "down": f"{at}.mlp.dense_4h_to_h"}
        mlp = {}
        for kind, name in (("W", "weight"), ("b", "bias")):
            for n, module in outer.items():
                if f"{module}.{name}" in w:
                    (p if n == "o" else mlp)[f"{kind}{n}"] = w[f"{module}.{name}"].T
            if f"{at}.mlp.dense_h_to_4h.{name}" in w:
                both = w[f"{at}.mlp.dense_h_to_4h.{name}"]
                F = len(both) // 2
                mlp |= {f"{kind}gate": both[:F].T, f"{kind}up": both[F:].T}
        before, after = (w[f"{at}.{n}_layernorm.weight"] for n in ("input", "post_attention"))
        return before, p, after, mlp

    f = frequencies(E // 2, base=base) / stretch

    def turn(a):
        return rope(a, positions=np.arange(ids.shape[1]), frequencies=f, interleaved=True)

    x = embedding(w["transformer.embedding.word_embeddings.weight"], ids=ids)
    x = _blocks(x, [layer(i) for i in range(layers)], heads, groups or heads, eps, turn=turn)
    x = rmsnorm(x, w["transformer.encoder.final_layernorm.weight"], eps=eps)
    return linear(x, w["transformer.output_layer.weight"].T)


def chatglm_6b(
    w: dict, ids: np.ndarray, *, start: int, masks: list, layers: int, heads: int, eps: float
):
    """h = sqrt(56) n + attention(n),  n = norm1(x);   x' = sqrt(56) m + mlp(m),  m = norm2(h).

    The rows of query_key_value: for each head its query, key and value.  Each text has one of the
    ids `masks`, of which the first in the list counts, and the id `start`.  Tokens before `start`
    see each other; the others also all before them.  The first half of each head turns by a token's
    place, from `start` on by the mask's; the second half by the place from `start` on, of which
    `start` has 1.   GLM team 2023, the released code
    """
    B, T = ids.shape
    E = w["transformer.word_embeddings.weight"].shape[1] // heads
    alpha = (2 * 28) ** 0.5
    f = frequencies(E // 2).astype(np.float16).astype(np.float64)
    positions, seen = np.zeros((B, 2, T), int), np.zeros((B, 1, T, T), bool)
    for b in range(B):
        text = ids[b].tolist()
        mask, begin = text.index(next(id for id in masks if id in text)), text.index(start)
        for t in range(T):
            positions[b, :, t] = (t, 0) if t < begin else (mask, t - begin + 1)
            for s in range(T):
                seen[b, 0, t, s] = s <= t or s < begin

    def norm(name, x):
        return layernorm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps=eps)

    def dense(name, x):
        return linear(x, w[f"{name}.weight"].T, w[f"{name}.bias"])

    x = embedding(w["transformer.word_embeddings.weight"], ids=ids)
    for i in range(layers):
        at = f"transformer.layers.{i}"
        n = norm(f"{at}.input_layernorm", x)
        by_head = dense(f"{at}.attention.query_key_value", n).reshape(B, T, heads, 3, E)
        q, k, v = (by_head[:, :, :, j].swapaxes(1, 2) for j in range(3))
        q, k = (paired_rope(a, positions=positions, frequencies=f) for a in (q, k))
        o = attention(q, k, v, mask=seen).swapaxes(1, 2).reshape(B, T, -1)
        h = alpha * n + dense(f"{at}.attention.dense", o)
        m = norm(f"{at}.post_attention_layernorm", h)
        inner = gelu_tanh(dense(f"{at}.mlp.dense_h_to_4h", m))
        x = alpha * m + dense(f"{at}.mlp.dense_4h_to_h", inner)
    return linear(norm("transformer.final_layernorm", x), w["lm_head.weight"].T)


def _blocks(x, layers, heads, kv_heads, eps, turn=None, bias=None):
    """h = x + attention(norm1(x)),   x' = h + mlp(norm2(h)),   for each layer."""
    B, T, _ = x.shape
    mask = np.array([[s <= t for s in range(T)] for t in range(T)])
    for norm1, p, norm2, mlp in layers:
        n = rmsnorm(x, norm1, eps=eps)
        q, k, v = (
            linear(n, p[f"W{name}"], p.get(f"b{name}")).reshape(B, T, H, -1).swapaxes(1, 2)
            for name, H in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        if turn is not None:
            q, k = turn(q), turn(k)
        o = attention(q, k, v, bias, mask=mask).swapaxes(1, 2).reshape(B, T, -1)
        h = x + linear(o, p["Wo"], p.get("bo"))
        x = h + gated_mlp(mlp, rmsnorm(h, norm2, eps=eps), activation=silu)
    return x


def _rotation(width, T, base):
    """RoPE of pairs (i, i + E/2), as in LLaMA's files."""
    f = frequencies(width, base=base)
    return lambda a: rope(a, positions=np.arange(T), frequencies=f)


def _thirds(rows):
    """The first, second and last third of the rows."""
    third = len(rows) // 3
    return [rows[n * third : (n + 1) * third] for n in range(3)]


def _llama_parts(w, at, p):
    """One layer under LLaMA's names, but for its attention p."""
    mlp = {f"W{n}": w[f"{at}.mlp.{n}_proj.weight"].T for n in ("gate", "up", "down")}
    return w[f"{at}.input_layernorm.weight"], p, w[f"{at}.post_attention_layernorm.weight"], mlp
