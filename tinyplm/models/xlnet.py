"""XLNet (Yang et al. 2019): Transformer-XL's encoder (Dai et al. 2019), trained to predict tokens in a permuted order.

    h_0     = tokens[ids]                                       (+ dropout)      content stream: knows its own token
    g_0     = mask                                              (+ dropout)      query stream: knows only its place
    h_{i+1} = block(h_i),   g_{i+1} = block(g_i),   block(x) = norm(a + mlp(a)),   a = norm(x + attention(x to memory and h_i))
    hidden  = g_L if there are targets (target_mapping), else h_L

Attention sees relative positions and whether two tokens are in the same segment (layers/two_stream.py); nothing else says where
a token stands, so there is no longest sequence.

Parameters: {"body": {"tokens" (V, D), "mask" (D,), "layers": [...]}, "head": see TASKS}.
"""

from __future__ import annotations

from functools import partial

from ..backend import array_module, is_host, sum_float32
from ..core import chain, on_tree, stack
from ..layers.activation import ACTIVATIONS
from ..layers.block import block, post_norm
from ..layers.dropout import dropout
from ..layers.embedding import embedding
from ..layers.mask import causal_mask, sliding_mask
from ..layers.mlp import mlp
from ..layers.norm import layernorm
from ..layers.relative_shift import distance_encodings
from ..layers.stream_views import stream_views
from ..layers.two_stream import two_stream_attention
from ..random import fold


def body(p, inputs_embeds=None, *, config, input_ids=None, attention_mask=None, token_type_ids=None, position_ids=None,
         input_mask=None, perm_mask=None, target_mapping=None, mems=None, remember=None, key=None, **stacking):  # fmt: skip
    """The last layer's states of the targets, or without a target_mapping of all tokens.

    p = params["body"]; input_ids (B, T) or inputs_embeds (B, T, D); attention_mask (B, T), 0 = padding, or input_mask, 1 =
    padding; token_type_ids (B, T): the segments; perm_mask (B, T, T), 1 where token i may not attend to token j;
    target_mapping (B, M, T), a one in each row where target m stands (nowhere in a row of zeros);
    mems: from `body_with_memory`, for each layer (B, S - T, D) states of earlier tokens, which all may see, of segment 0;
    remember(i, h): called with the content states that enter layer i; key (B,) for dropout; stacking: see core.stack.
    -> hidden (B, M, D) or (B, T, D); backward gives (dp, dinputs_embeds), the latter None for input_ids.
    """
    x, tokens_back = (inputs_embeds, None) if input_ids is None else embedding(p["tokens"], ids=input_ids)
    xp = array_module(x)
    (B, T, D), L, rate = x.shape, config.n_layer, config.dropout
    S = T if mems is None else T + mems[0].shape[1]
    M = 0 if target_mapping is None else target_mapping.shape[1]
    _check_inputs(B, T, D, config, position_ids, attention_mask, input_mask, perm_mask, target_mapping, mems)
    band = None
    if config.attn_type == "uni":  # without, or with the same number of keys for every query
        band = sliding_mask(T, S, window=S - T + 1, xp=xp) if config.same_length else causal_mask(T, S, xp=xp)
    content, query = stream_views((B, T, S), band=band, perm_mask=perm_mask, target_mapping=target_mapping, xp=xp,
                                  attention_mask=attention_mask if input_mask is None else input_mask == 0,
                                  token_type_ids=token_type_ids)  # fmt: skip
    relative = distance_encodings(T, S, D, clamp=config.clamp_len, dtype=x.dtype, xp=xp)[None]
    if key is not None:
        relative, _ = dropout(xp.broadcast_to(relative, (B, T + S, D)), rate=rate, key=fold(key, L))

    def layer(p, x, *, index, key):
        if remember is not None:
            remember(index, x[:, :T])
        attention = partial(two_stream_attention, relative=relative, content=content, query=query,
                            memory=None if mems is None else mems[index], rate=rate, key=fold(key, 0))  # fmt: skip

        def activation(h):
            return chain(h, ACTIVATIONS[config.ff_activation], partial(dropout, rate=rate, key=fold(key, 3)))

        return block(p, x, residual=post_norm, norm=partial(on_tree(layernorm, "gamma", "beta"), eps=config.layer_norm_eps),
                     attention=attention, mlp=partial(mlp, activation=activation), rate=rate, key=key)  # fmt: skip

    h, h_back = dropout(x, rate=rate, key=fold(key, L + 1))
    g, g_back = dropout(xp.broadcast_to(p["mask"], (B, M, D)), rate=rate, key=fold(key, L + 2))  # may be none
    x, stack_back = stack(layer, p["layers"], xp.concatenate([h, g], axis=1), **stacking,
                          each=lambda i: {"index": i, "key": fold(key, i)})  # fmt: skip
    hidden, last_back = dropout(x[:, -(M or T) :], rate=rate, key=fold(key, L + 3))

    def backward(dhidden):
        dlast = last_back(dhidden)
        unused = xp.zeros((B, T + M - dlast.shape[1], D), dtype=dlast.dtype)
        dlayers, dx = stack_back(xp.concatenate([unused, dlast], axis=1))
        dp = {"mask": sum_float32(g_back(dx[:, T:]), axis=(0, 1)), "layers": dlayers}
        dx = h_back(dx[:, :T])
        return (dp, dx) if tokens_back is None else ({"tokens": tokens_back(dx), **dp}, None)

    return hidden, backward


def body_with_memory(p, inputs_embeds=None, *, config, mems=None, **inputs):
    """((hidden, next mems), backward of hidden): `body`, with what it hands to the next segment.   Dai et al. 2019, sec. 3.2

    For each layer the states that entered it, of the memory and of the tokens (of the first config.reuse_len, if that is set),
    cut to the last config.mem_len.  No gradient flows through them.
    """
    following = [None] * config.n_layer

    def remember(i, h):
        h = h[:, : config.reuse_len or h.shape[1]]
        known = h if mems is None else array_module(h).concatenate([mems[i], h], axis=1)
        following[i] = known[:, -(config.mem_len or 0) :]

    hidden, backward = body(p, inputs_embeds, config=config, mems=mems, remember=remember, **inputs)
    return (hidden, following), backward


def _check_inputs(B, T, D, config, position_ids, attention_mask, input_mask, perm_mask, target_mapping, mems):
    """ValueError naming the first of XLNet's own inputs that does not fit."""
    if position_ids is not None:
        raise ValueError("position_ids: XLNet has relative positions only, expected None")
    if attention_mask is not None and input_mask is not None:
        raise ValueError("attention_mask and input_mask say the same, expected at most one of them")
    if perm_mask is not None and perm_mask.shape != (B, T, T):
        raise ValueError(f"perm_mask: expected shape {(B, T, T)}, got {perm_mask.shape}")
    if target_mapping is not None:
        if target_mapping.ndim != 3 or target_mapping.shape[::2] != (B, T):
            raise ValueError(f"target_mapping: expected shape ({B}, M, {T}), got {target_mapping.shape}")
        one_each = (target_mapping == 0) | ((target_mapping == 1) & (target_mapping.sum(axis=-1, keepdims=True) == 1))
        if is_host(one_each) and not one_each.all():
            raise ValueError("target_mapping: expected zeros and ones, at most one of them in a row")
    if mems is not None:
        wanted = (B, mems[0].shape[1], D)
        if len(mems) != config.n_layer or any(m.shape != wanted for m in mems):
            raise ValueError(f"mems: expected {config.n_layer} arrays of shape ({B}, earlier tokens, {D}), "
                             f"got {[m.shape for m in mems]}")  # fmt: skip
