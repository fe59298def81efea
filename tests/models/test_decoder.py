"""The walk with pieces no family uses yet: it does not depend on what LLaMA and GPT-2 have in common.

A decoder with a scale and a norm after the embedding, parallel sublayers after one norm, ALiBi
instead of rotary positions, per-layer windows and activations, and a scale instead of a final norm.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from tests.laws import MODEL, equal, relative_error
from tests.support.families import PADDING, batch
from tinyplm import random
from tinyplm.core import StackOptions, flatten, on_tree, tree_map, unflatten
from tinyplm.kernels.activation import ACTIVATIONS
from tinyplm.kernels.attention import attention as fast_attention
from tinyplm.layers.attention import multi_head_attention
from tinyplm.layers.attention_parts import cached
from tinyplm.layers.cache import Cache
from tinyplm.layers.dropout import dropout
from tinyplm.layers.mlp import mlp
from tinyplm.layers.norm import layernorm
from tinyplm.models import decoder
from tinyplm.random import fold

V, D, H, F = 11, 6, 2, 5
CONFIG = SimpleNamespace(windows=[None, 2], rate=0.0)
norm = on_tree(layernorm, "gamma", "beta")


def scaled_and_normed(p, x, *, position_ids, key):
    y, back = norm(p["embed_norm"], x * D**0.5)

    def backward(dy):
        dnorm, dx = back(dy)
        return {"embed_norm": dnorm}, dx * D**0.5

    return y, backward


def scaled(p, x, *, norm):
    return x * 0.5, lambda dy: ({}, dy * 0.5)


def parallel(p, x, *, norm, attention, mlp, key, rate):
    """y = x + dropout(attention(n) + mlp(n)),   n = norm(x)."""
    n, n_back = norm(p["norm"], x)
    a, a_back = attention(p["attention"], n)
    f, f_back = mlp(p["mlp"], n)
    s, s_back = dropout(a + f, rate=rate, key=fold(key, 1))

    def backward(dy):
        ds = s_back(dy)
        da, dn_a = a_back(ds)
        df, dn_f = f_back(ds)
        dnorm, dx = n_back(dn_a + dn_f)
        return {"norm": dnorm, "attention": da, "mlp": df}, dx + dy

    return x + s, backward


def alibi(position_ids, *, keys, attention_mask, dtype):
    """The same for every query: softmax ignores a constant added to all keys of a row."""
    slopes = 2.0 ** -np.arange(1, H + 1)
    bias = (slopes[:, None, None] * np.arange(keys)).astype(dtype)
    return lambda layer, seen: {"bias": bias}


def biased_attention(p, x, *, bias, mask, key, cache):
    between = cached(cache) if cache else None
    y, back = multi_head_attention(
        *(p, x, None, bias),
        **{"heads": H, "mask": mask, "key": key, "between": between, "attend": fast_attention},
    )
    return y, lambda dy: back(dy)[:2]


def pieces(config):
    kinds = [ACTIVATIONS["gelu_new"], ACTIVATIONS["silu"]]
    return decoder.Pieces(
        norm=partial(norm, eps=1e-5),
        attention=decoder.every(biased_attention),
        mlp=lambda layer: partial(mlp, activation=kinds[layer]),
        residual=partial(parallel, rate=config.rate),
        embed=scaled_and_normed,
        window=config.windows.__getitem__,
        positions=alibi,
        finish=scaled,
    )


body = partial(decoder.body, pieces)


def parameters():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(0, 0.5, shape)

    def layer():
        return {
            "norm": {"gamma": draw(D), "beta": draw(D)},
            "attention": {f"W{n}": draw(D, D) for n in "qkvo"},
            "mlp": {"W1": draw(D, F), "W2": draw(F, D)},
        }

    return {
        "tokens": draw(V, D),
        "embed_norm": {"gamma": draw(D), "beta": draw(D)},
        "layers": [layer(), layer()],
    }


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_every_gradient(rate):
    config = SimpleNamespace(windows=CONFIG.windows, rate=rate)
    p, (ids, _) = parameters(), batch()
    inputs = {"attention_mask": PADDING, "key": random.sample_keys(5, np.arange(3))}
    hidden, backward = body(p, config=config, input_ids=ids, **inputs)
    rng = np.random.default_rng(1)
    dhidden = rng.normal(size=hidden.shape)
    gradient, leaves = flatten(backward(dhidden)[0]), flatten(p)
    assert list(gradient) == list(leaves)
    for path, a in leaves.items():
        d = rng.normal(size=a.shape)

        def at(h, path=path, a=a, d=d):
            moved = unflatten({**leaves, path: a + h * d}, p)
            return (body(moved, config=config, input_ids=ids, **inputs)[0] * dhidden).sum()

        products = gradient[path] * d
        numerical = (at(1e-5) - at(-1e-5)) / 2e-5
        assert abs(numerical - products.sum()) < 1e-7 * max(np.abs(products).sum(), 1e-2), path


def test_alibi_has_the_offsets_of_the_keys_that_a_layer_sees():
    """A rolling cache has dropped the first two of six."""
    placed = decoder.alibi_positions(2)(np.arange(6), keys=6, attention_mask=None, dtype="float64")
    whole, last = (placed(0, seen)["offsets"] for seen in (6, 4))
    assert whole.shape == (1, 2, 1, 6) and np.array_equal(last, whole[..., 2:])


def test_each_layer_has_the_pieces_of_its_number():
    seen, asked = [], []

    def noted(*about):
        def component(p, x, **given):
            seen.append((*about, given.get("number"), given["mask"].window if given else None))
            return x, lambda dy: ({}, dy)

        return component

    def positions(position_ids, *, keys, attention_mask, dtype):
        asked.append((keys, dtype))
        return lambda layer, seen: {"number": layer}

    made = pieces(CONFIG)._replace(
        attention=lambda layer: noted("attention", layer), mlp=lambda layer: noted("mlp", layer), positions=positions
    )
    p = tree_map(lambda a: a.astype("float32"), parameters())
    decoder.body(lambda config: made, p, config=CONFIG, input_ids=batch()[0])
    assert asked == [(5, "float32")]
    assert seen == [("attention", 0, 0, None), ("mlp", 0, None, None), ("attention", 1, 1, 2), ("mlp", 1, None, None)]


def test_embeddings_and_recomputation():
    p, (ids, _) = parameters(), batch()
    hidden, backward = body(p, config=CONFIG, input_ids=ids)
    dhidden = np.random.default_rng(1).normal(size=hidden.shape)
    dp, none = backward(dhidden)
    given, given_back = body(*(p, p["tokens"][ids]), config=CONFIG, stacking=StackOptions(checkpointing=1))
    dp_given, dembeds = given_back(dhidden)
    assert none is None and equal(given, hidden)
    tokens = np.zeros_like(p["tokens"])
    np.add.at(tokens, ids, dembeds)
    assert relative_error(tokens, dp.pop("tokens")) < MODEL and equal(dp_given, dp)


def test_cached_decoding():
    p, (ids, _) = parameters(), batch()
    whole, _ = body(p, config=CONFIG, input_ids=ids)
    cache = Cache.empty(layers=2, batch=3, kv_heads=H, capacity=5, width=D // H, dtype="float64")
    for lo, hi in ((0, 2), (2, 3), (3, 5)):
        cache.begin()
        part, _ = body(p, config=CONFIG, input_ids=ids[:, lo:hi], cache=cache)
        cache = cache.advanced(hi - lo)
        assert relative_error(part, whole[:, lo:hi]) < MODEL
