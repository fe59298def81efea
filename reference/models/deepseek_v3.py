"""DeepSeek-V3 with its modules for later tokens, from the paper: one text at a time, with its loss.

DeepSeek team 2024b, sec. 2.1 and 2.2.  t_1 .. t_T are a text's tokens; the main model is depth 0
and predicts t_{i+1} at place i, the module of depth k = 1 .. D predicts t_{i+k+1}.  Parameters are
nested dicts of arrays, weights (in, out):

    tokens (V, D)    norm {gamma}    head {W (D, V)}; without one, the table transposed
    layers           [{norm1, attention, norm2, mlp}, ...]
    multi_token      [{hidden_norm, embed_norm (D,), Wproj (2D, D), block, norm {gamma}}, ...]

A block is a layer, an attention's parameters are those of layers/latent.py, an mlp's are Wgate, Wup
and Wdown, or router {W}, experts {Wgate (X, D, F), ...} and shared {Wgate, ...}.
"""

from functools import partial

import numpy as np

from reference.layers.activation import silu
from reference.layers.embedding import embedding
from reference.layers.latent import latent_attention, multi_token_input
from reference.layers.linear import linear
from reference.layers.mask import causal_mask
from reference.layers.mlp import gated_mlp
from reference.layers.moe import moe, sigmoid_choice, sigmoid_weights
from reference.layers.norm import rmsnorm
from reference.layers.rope import frequencies, rope
from reference.layers.softmax import log_softmax
from reference.losses.balance import sequence_balance_loss


def deepseek_v3(
    p: dict,
    ids: np.ndarray,
    *,
    heads: int,
    base: float = 10000.0,
    interleaved: bool = True,
    eps: float = 1e-6,
    corrections: list | None = None,
    scale: float = 1.0,
    renormalised: bool = True,
    **choice,
) -> tuple[list, list]:
    """[h^0, ..., h^D], and the logits of each router in turn.

    h^0_{1:T}: the normed stream of the main model.
    h'_i^k = M_k [RMSNorm(h_i^{k-1}); RMSNorm(Emb(t_{i+k}))]                                    (21)
    h^k_{1:T-k} = TRM_k(h'^k_{1:T-k})                                                           (22)

    OutHead maps h^k to logits linearly (eq. 23), so TRM_k ends with a norm, as the main model does.
    ids (T,) -> h^k (T - k, D), of no rows from k = T on; logits (1, T - k, X).
    corrections: the biases of the choice (eq. 16), of each layer and module, None of a dense one.
    choice: top_k, groups and kept_groups of sigmoid_choice.
    """
    choose = partial(sigmoid_choice, **choice)
    weigh = partial(sigmoid_weights, scale=scale, renormalised=renormalised)
    gated = partial(gated_mlp, activation=silu)
    routers = []

    def rotary(a):
        """RoPE of a (1, H, T, R), by places counted from the first that a block sees."""
        f = frequencies(a.shape[-1], base=base)
        places = np.arange(a.shape[2])
        return rope(a, positions=places, frequencies=f, interleaved=interleaved)

    def feed_forward(mlp, x, bias):
        if "router" not in mlp:
            return gated(mlp, x)
        both = moe(mlp, x, choose=choose, weigh=weigh, expert=gated, shared=gated, bias=bias)
        routers.append(both[..., x.shape[-1] :])
        return both[..., : x.shape[-1]]

    def block(q, x, number):
        """u = x + attention(norm1(x)),   u + mlp(norm2(u)).                     sec. 2.1, fig. 2"""
        bias = None if corrections is None else corrections[number]
        n = rmsnorm(x, q["norm1"]["gamma"], eps=eps)
        mask = causal_mask(x.shape[1])
        u = x + latent_attention(q["attention"], n, heads=heads, rotary=rotary, mask=mask)
        return u + feed_forward(q["mlp"], rmsnorm(u, q["norm2"]["gamma"], eps=eps), bias)

    x = embedding(p["tokens"], ids=ids)[None]
    h = x
    for number, layer in enumerate(p["layers"]):
        h = block(layer, h, number)
    h = rmsnorm(h, p["norm"]["gamma"], eps=eps)
    states = [h[0]]
    for k, q in enumerate(p["multi_token"], start=1):
        h = multi_token_input(q, h[:, :-1], x[:, k:], eps=eps)
        h = block(q["block"], h, len(p["layers"]) + k - 1)
        h = rmsnorm(h, q["norm"]["gamma"], eps=eps)
        states.append(h[0])
    return states, routers


def logits(p: dict, h: np.ndarray) -> np.ndarray:
    """OutHead without its softmax, one for all depths.                                  (eq. 23)"""
    return linear(h, p["head"]["W"] if "head" in p else p["tokens"].T)


def joint_loss(
    p: dict, texts: list, *, weight: float, balance: float = 0.0, total=None, top_k: int, **model
):
    """L = L_main + weight / D sum_k L_k + balance sum_b L_b,

        L_k = -1/total sum_i w_{i+k} log P_i^k[t_{i+k+1}]                                  (24, 25)

    over all texts and places, L_main = L_0; L_b is the balance loss of one router, the mean of the
    texts, by the choice of affinities alone, without biases and groups (17, 18).
    texts: (ids (T,), targets (T,), weights (T,)), target i being t_{i+1}, and its weight.  Where a
    target is -100, no depth is to predict that token.  total None: the sum of the other weights, at
    every depth, as the paper divides by T where T - k tokens are predicted.
    """
    modules = len(p["multi_token"])
    if total is None:
        total = sum(w for _, targets, weights in texts for t, w in zip(targets, weights) if t >= 0)
    loss = 0.0
    for ids, targets, weights in texts:
        states, routers = deepseek_v3(p, ids, top_k=top_k, **model)
        for k, h in enumerate(states):
            log_p = log_softmax(logits(p, h))
            share = 1.0 if k == 0 else weight / modules
            for i in range(len(h)):
                if targets[i + k] >= 0:
                    nll = -log_p[i, int(targets[i + k])]
                    loss += share * float(weights[i + k]) * nll / total
        for z in routers:
            choice = sigmoid_choice(z, top_k=top_k)
            loss += balance * sequence_balance_loss(z, choice=choice) / len(texts)
    return loss
