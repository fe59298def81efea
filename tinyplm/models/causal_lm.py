"""What all causal language models share: the output matrix, heads over it, logits for decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from ..backend import at_least_float32
from ..core import Component, Product, StackOptions, Tree, named
from ..core.named import More
from ..layers.activation import capped
from ..layers.cache import Cache
from ..layers.linear import linear
from ..layers.pooling import l2_normalise
from .parts import Head

INFERENCE = StackOptions(grad=False)


def output_matrix(params: Tree, *, config: Any) -> tuple[Any, Callable]:
    """W (D, V) with logits = hidden W.

    The transposed embedding table if tied (Press & Wolf 2017), otherwise a matrix of its own.
    backward(dW) gives the part of params' gradient that comes from the head.
    """
    if config.tie_word_embeddings:
        return params["body"]["tokens"].T, lambda dW: {"body": {"tokens": dW.T}}
    return params["head"]["W"], lambda dW: {"head": {"W": dW}}


def unit_output_matrix(params: Tree, *, config: Any) -> tuple[Any, Callable]:
    """U (D, V) with logits = hidden U, the columns of output_matrix divided by their lengths.

    Yang et al. 2023 (Baichuan 2), sec. 2.4: the logits compare directions, whatever the tokens'
    lengths.   u_v = w_v / |w_v|,   dw_v = (du_v - u_v (u_v . du_v)) / |w_v|   for each token v.
    """
    W, W_back = output_matrix(params, config=config)
    rows, rows_back = l2_normalise(at_least_float32(W.T))

    def backward(dU: Any) -> Tree:
        dU = dU.a.T @ dU.b if isinstance(dU, Product) else dU
        return W_back(rows_back(at_least_float32(dU.T)).T.astype(W.dtype, copy=False))

    return rows.T.astype(W.dtype, copy=False), backward


def cache_layout(family: ModuleType, config: Any) -> dict[str, Any]:
    """What Cache.empty and cache_bytes need to know of a decoder: its cache_sizes and windows.

    cache_bytes(**cache_layout(llama, llama.SIZES["llama-7b"]), batch=1, capacity=2048,
    dtype="float16") is 2**30.
    """
    sizes, window = config.cache_sizes, family.pieces(config).window
    return {**sizes, "windows": tuple(window(i) for i in range(sizes["layers"]))}


def vocabulary_head(
    f: Callable, family: ModuleType, config: Any, *, more: More | None = None
) -> Head:
    """f(hidden, W) for a component f of hidden states (B, T, D) and the output matrix W (D, V).

    With dhidden, dW = f_back(dvalue):  dparams = W_back(dW).   more: for traces, see core.named.
    """
    output_matrix = partial(family.output_matrix, config=config)

    def head(params: Tree, hidden: Any) -> tuple[Any, Callable | None]:
        W, W_back = output_matrix(params)
        value, f_back = named(None, f, more=more)(hidden, W)

        def backward(dvalue: Any) -> tuple[Tree, Any]:
            dhidden, dW = f_back(dvalue)[:2]
            return W_back(dW), dhidden

        return value, None if f_back is None else backward

    return head


def last_logits(
    body: Component,
    output_matrix: Component,
    params: Tree,
    inputs: Mapping[str, Any],
    *,
    cap: float | None = None,
) -> tuple[Any, Cache | None]:
    """The logits (B, V) after the last position alone, without gradients: those of the other
    positions, (B, T, V), are never built.

    body: gives hidden states (B, T, D); output_matrix: of params; cap: of the logits
    inputs: of the body, already checked; a "cache" among them is consumed
    -> (logits, the next cache or None).
    """
    hidden, after = hidden_states(body, params, inputs)
    W, _ = output_matrix(params)
    return capped(linear(hidden[:, -1], W)[0], cap)[0], after


def several_logits(
    body: Component,
    output_matrix: Component,
    params: Tree,
    inputs: Mapping[str, Any],
    *,
    count: int,
    cap: float | None = None,
) -> tuple[Any, Any, Cache | None]:
    """As last_logits, after each of the last `count` positions.

    -> (logits (B, count, V), hidden (B, T, D), the next cache or None).
    """
    hidden, after = hidden_states(body, params, inputs)
    W, _ = output_matrix(params)
    last = hidden[:, hidden.shape[1] - count :]
    return capped(linear(last, W)[0], cap)[0], hidden, after


def hidden_states(
    body: Component, params: Tree, inputs: Mapping[str, Any]
) -> tuple[Any, Cache | None]:
    """(hidden (B, T, D), the next cache or None), without gradients; inputs as in last_logits."""
    cache = inputs.get("cache")
    if cache is not None:
        cache.begin()
    hidden, _ = body(params["body"], stacking=INFERENCE, **inputs)
    return hidden, None if cache is None else cache.advanced(hidden.shape[1])
