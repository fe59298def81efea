"""Multi-token prediction (DeepSeek team 2024b, sec. 2.2): modules that predict later tokens, too.

Module k = 1 ... n joins what module k - 1 made of place i (for k = 1 the model's hidden state) with
token i + k, and predicts token i + k + 1 with the model's own head:

    y   = [norm(h^(k-1)_i), norm(tokens[t_(i+k)])] Wproj        layers/multi_token.py
    h^k = norm(block(y))                                        a layer like the model's upper ones

for i = 0 ... T - 1 - k.  Parameters: body["multi_token"][k - 1] = {"hidden_norm" (D,),
"embed_norm" (D,), "Wproj" (2D, D), "block", "norm"}.  The loss adds

    weight / n  sum_k L_k,   L_k = sum_i nll(t_(i+k+1)) / total             (eq. 24 and 25)

with the total of the model's own loss, over the i whose tokens i + k are of the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..arguments import wrong
from ..backend import array_module
from ..core import IGNORED, Tree, add, named
from ..layers.cache import layer_cache
from ..layers.mask import decoder_mask
from ..layers.multi_token import multi_token_input
from ..layers.norm import rmsnorm
from ..random import fold
from . import routed
from .decoder import Pieces
from .walks import look_up


def module(
    pieces: Pieces,
    p: Tree,
    hidden: Any,
    embeds: Any,
    *,
    layer: int,
    eps: float,
    position_ids: Any,
    attention_mask: Any = None,
    key: Any = None,
    cache: Any = None,
) -> tuple[dict[str, Any], Callable]:
    """One module: (hidden, embeds) (B, T, D) -> the stream {"hidden" h (B, T, D), "logits": [z],
    "choice": [...]} of its block, normed.

    layer: its number after the model's layers.  attention_mask: (B, S) or (B or 1, H or 1, T, S);
    cache: its own, of one layer.
    With dy = block'(norm'(dh)):   backward takes {"hidden", "logits"} and returns
    (dp, dhidden, dembeds).
    """
    T = hidden.shape[1]
    S = T if cache is None else cache.length + T
    placed = pieces.positions(
        position_ids, keys=S, attention_mask=attention_mask, dtype=hidden.dtype
    )
    attention = partial(
        pieces.attention(layer),
        mask=decoder_mask(T, S, attention_mask, window=None, xp=array_module(hidden)),
        key=fold(key, 0),
        cache=layer_cache(cache, 0),
        **placed(layer, S),
    )
    own = {name: p[name] for name in ("hidden_norm", "embed_norm", "Wproj")}
    y, input_back = multi_token_input(own, hidden, embeds, norm=partial(rmsnorm, eps=eps))
    begun = {"hidden": y, "logits": [], "choice": []}
    parts = {"norm": pieces.norm, "attention": attention, "mlp": pieces.mlp(layer)}
    stream, block_back = pieces.residual(p["block"], begun, **parts, key=key)
    h, norm_back = named("norm", pieces.norm)(p["norm"], stream["hidden"])

    def backward(dstream: dict[str, Any]) -> tuple[Tree, Any, Any]:
        dnorm, dx = norm_back(dstream["hidden"])
        dblock, dbegun = block_back({**dstream, "hidden": dx})
        dinput, dhidden, dembeds = input_back(dbegun["hidden"])
        return {**dinput, "block": dblock, "norm": dnorm}, dhidden, dembeds

    return {**stream, "hidden": h}, backward


def body(
    pieces: Callable[..., Pieces],
    p: Tree,
    inputs_embeds: Any = None,
    *,
    config: Any,
    buffers: Tree = None,
    input_ids: Any = None,
    attention_mask: Any = None,
    position_ids: Any = None,
    key: Any = None,
    **others: Any,
) -> tuple[dict[str, Any], Callable]:
    """routed.body, with the n modules after it.

    -> its states, router_logits and chosen_experts with n layers more, and "later_hidden"
    (B, T, n, D); module k leaves its last k places 0.   With a cache it is routed.body alone.
    """
    xp, made = array_module(p["tokens"]), pieces(config, **(buffers or {}))
    inputs = {"attention_mask": attention_mask, "position_ids": position_ids, "key": key}
    given = {"config": config, "buffers": buffers, **inputs, **others}
    if others.get("cache") is not None:
        return routed.body(pieces, p, inputs_embeds, input_ids=input_ids, **given)
    if others.get("prefix_lengths") is not None:
        raise wrong("prefix_lengths", "None with modules for later tokens", "lengths")
    e, look_up_back = look_up(p, input_ids, inputs_embeds)
    states, body_back = routed.body(pieces, p, e, **given)
    B, T, D = e.shape
    positions = xp.arange(T) if position_ids is None else position_ids
    modules, L = p["multi_token"], config.num_hidden_layers
    h, later, streams, backs = states["hidden"], [], [], []
    for k, p_module in enumerate(modules[: T - 1], 1):
        stream, back = named(f"multi_token.{k - 1}", partial(module, made))(
            *(p_module, h[:, : T - k], e[:, k:]),
            layer=L + k - 1,
            eps=config.rms_norm_eps,
            position_ids=positions[..., : T - k],
            attention_mask=first_places(attention_mask, T - k),
            key=fold(key, L + k),
        )
        h = stream["hidden"]
        later.append(h)
        streams.append(stream)
        backs.append(back)
    states = dict(states)
    if later:
        states["later_hidden"] = xp.stack([filled(a, T) for a in later], axis=2)
        for name, part in (("router_logits", "logits"), ("chosen_experts", "choice")):
            own = [filled(stream[part][0], T)[:, :, None] for stream in streams]
            below = [states[name]] if name in states else []  # none if all layers are dense
            states[name] = xp.concatenate([*below, *own], axis=2)

    def backward(dstates: dict[str, Any]) -> tuple[Tree, Any]:
        dhidden, dlogits = dstates.get("hidden"), dstates.get("router_logits")
        dlater, n = dstates.get("later_hidden"), len(backs)
        dh, de, dmodules = None, None, [None] * len(modules)
        for k in range(n, 0, -1):
            places = T - k
            given = None if dlater is None else dlater[:, :places, k - 1]
            dh = add(None if dh is None else filled(dh, places), given)
            dz = None if dlogits is None else [dlogits[:, :places, dlogits.shape[2] - n + k - 1]]
            dh = xp.zeros((B, places, D), dtype=e.dtype) if dh is None else dh
            dmodules[k - 1], dh, dembeds = backs[k - 1]({"hidden": dh, "logits": dz})
            de = add(de, filled(dembeds, T, before=k))
        dstates = {"hidden": add(dhidden, None if dh is None else filled(dh, T))}
        if dlogits is not None:
            dstates["router_logits"] = dlogits[:, :, : dlogits.shape[2] - n]
        dp, dx = body_back(dstates)
        dtokens, dinputs_embeds = look_up_back(add(dx, de))
        return {**dp, **dtokens, "multi_token": dmodules}, dinputs_embeds

    return states, backward


def filled(a: Any, places: int, *, before: int = 0) -> Any:
    """a (B, t, ...) with zeros around it: (B, places, ...), a being at place `before`."""
    if a.shape[1] == places:
        return a
    out = array_module(a).zeros((a.shape[0], places, *a.shape[2:]), dtype=a.dtype)
    out[:, before : before + a.shape[1]] = a
    return out


def first_places(attention_mask: Any, places: int) -> Any:
    """What a mask says of the first places."""
    if attention_mask is None or attention_mask.ndim == 2:
        return attention_mask if attention_mask is None else attention_mask[:, :places]
    return attention_mask[..., :places, :places]


def later_targets(
    targets: Any, *, modules: int, attention_mask: Any = None, fill: Any = IGNORED
) -> Any:
    """The targets (B, T) of a model -> those of its modules, (B, T, n): t[i, k] = targets[i + k].

    Likewise of weights.   `fill` where there is no such place, and where tokens i and i + k are not
    of one text.
    """
    xp, T = array_module(targets), targets.shape[1]
    out = xp.full((*targets.shape, modules), fill, dtype=targets.dtype)
    for k in range(1, min(modules, T - 1) + 1):
        shifted = targets[:, k:]
        if attention_mask is not None:
            shifted = xp.where(together(attention_mask, k), shifted, fill)
        out[:, : T - k, k - 1] = shifted
    return out


def together(attention_mask: Any, k: int) -> Any:
    """(B or 1, T - k) booleans: whether tokens i and i + k are of one text.

    By a mask (B, T), neither is padding; by one of four dimensions, the later sees the earlier.
    """
    if attention_mask.ndim == 2:
        real = attention_mask != 0
        return real[:, :-k] & real[:, k:]
    places = array_module(attention_mask).arange(attention_mask.shape[-1] - k)
    return attention_mask.any(axis=1)[:, places + k, places]
