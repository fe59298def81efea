"""Attention with sinks beyond the laws: the null key that it stands for, long sequences, caches, prefixes, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.test_long_sequences import peak
from tests.laws import PART, apart, relative_error, rounding
from tinyplm import random
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.kernels import attention as attention_module
from tinyplm.kernels.attention import self_attention
from tinyplm.kernels.block_attention import sink_block_attention
from tinyplm.layers.attention import attention
from tinyplm.layers.attention_parts import beyond_prefix, join_projections
from tinyplm.layers.cache import Cache, layer_cache
from tinyplm.layers.dropout import dropout
from tinyplm.layers.mask import Visible, decoder_mask
from tinyplm.layers.sinks import sink_attention, sink_scores_and_probabilities, sink_softmax

B, H, K, T, E, D = 2, 4, 2, 9, 3, 8
FORMS = {"plain": sink_attention, "blocks": lambda *args, **kwargs: sink_block_attention(*args, **kwargs, block=4)}


def inputs(seed=0, device="cpu", dtype="float64"):
    rng = np.random.default_rng(seed)
    shapes = {"q": (B, H, T, E), "k": (B, K, T, E), "v": (B, K, T, E), "sinks": (H,), "do": (B, H, T, E)}
    return [to_device(rng.normal(0, 1.5, shape).astype(dtype), device) for shape in shapes.values()]


def parameters(seed=0, device="cpu"):
    rng = np.random.default_rng(seed)
    widths = {"q": H * E, "k": K * E, "v": K * E}
    p = {f"W{n}": rng.normal(size=(D, m)) for n, m in widths.items()} | {f"b{n}": rng.normal(size=m) for n, m in widths.items()}
    p |= {"Wo": rng.normal(size=(H * E, D)), "bo": rng.normal(size=D), "sinks": rng.normal(0, 2.0, H)}
    x, dy = rng.normal(size=(B, T, D)), rng.normal(size=(B, T, D))
    return to_device(p, device), to_device(x, device), to_device(dy, device)


@pytest.mark.parametrize("form", FORMS)
def test_a_sink_is_a_key_of_that_score_without_a_value(device, form):
    """A key in front of the others, of zeros, with the sink as its bias, which all queries see."""
    q, k, v, sinks, do = inputs(device=device)
    xp = array_module(q)
    mask = decoder_mask(T, T, window=4, xp=xp).array
    front = xp.zeros((B, K, 1, E))
    k_more, v_more = (xp.concatenate([front, a], axis=2) for a in (k, v))
    bias = xp.concatenate([sinks.reshape(H, 1, 1), xp.zeros((H, 1, T))], axis=2)
    expected, expected_back = attention(q, k_more, v_more, bias, mask=beyond_prefix(mask, 1))
    dq, dk, dv, dbias = expected_back(do)
    o, back = FORMS[form](q, k, v, sinks, mask=mask)
    assert relative_error(to_host(o), to_host(expected)) < PART
    wanted = [dq, dk[:, :, 1:], dv[:, :, 1:], dbias[:, 0, 0]]
    assert apart([to_host(d) for d in back(do)], [to_host(d) for d in wanted]) < PART


@pytest.mark.parametrize("form", FORMS)
def test_a_query_without_keys_gives_zeros_and_no_gradient(device, form):
    q, k, v, sinks, do = inputs(device=device)
    seen = np.ones((B, 1, T, T), dtype=bool)
    seen[0] = False
    o, back = FORMS[form](q, k, v, sinks, mask=to_device(seen, device))
    assert not to_host(o)[0].any() and to_host(o)[1].all()
    dq, dk, dv, _ = (to_host(d) for d in back(do))
    assert not (dq[0].any() or dk[0].any() or dv[0].any())
    seen[:] = False
    assert not any(to_host(d).any() for d in FORMS[form](q, k, v, sinks, mask=to_device(seen, device))[1](do))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [-3000.0, 3000.0])
def test_sinks_far_from_the_scores(form, size):
    """Far below them attention is the ordinary one; far above, nothing is attended to; no number overflows."""
    q, k, v, sinks, do = inputs(dtype="float32")
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        o, back = FORMS[form](q, k, v, sinks + np.float32(size))
        gradients = back(do)
    if size > 0:
        assert not o.any() and not any(d.any() for d in gradients)
    else:
        expected, expected_back = attention(q, k, v)
        near = rounding(T, T, 20, dtype="float32")  # sums over the keys, and the other operations
        assert relative_error(o, expected) < near and apart(list(gradients[:3]), list(expected_back(do)[:3])) < near
        assert not gradients[3].any()


def test_the_share_of_the_sink_is_what_the_row_lacks():
    rng = np.random.default_rng(0)
    x, sinks = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=3)
    p, _ = sink_softmax(x, sinks)
    share = np.exp(sinks[:, None]) / (np.exp(sinks[:, None]) + np.exp(x).sum(axis=-1))
    assert relative_error(1 - p.sum(axis=-1), share) < PART


# ---------------------------------------------------------------------------------------------------------- self-attention


@pytest.mark.parametrize("block", [128, 4])
@pytest.mark.parametrize("window", [None, 3])
def test_self_attention_with_sinks(device, block, window, monkeypatch):
    """Its parts put together by hand, and the joined projections, which keep the sinks."""
    monkeypatch.setattr(attention_module, "BLOCK", block)
    p, x, dy = parameters(device=device)
    options = {
        "heads": H,
        "kv_heads": K,
        "scale": 0.4,
        "rate": 0.3,
        "key": to_device(random.sample_keys(0, np.arange(B)), device),
    }
    mask = decoder_mask(T, T, window=window, xp=array_module(x))
    y, back = self_attention(p, x, mask=mask, **options)
    q, k, v = ((x @ p[f"W{n}"] + p[f"b{n}"]).reshape(B, T, -1, E).swapaxes(1, 2) for n in "qkv")
    core = {name: options[name] for name in ("scale", "rate", "key")}
    o, o_back = sink_attention(q, k, v, p["sinks"], mask=mask.array, **core)
    expected = o.swapaxes(1, 2).reshape(B, T, H * E) @ p["Wo"] + p["bo"]
    assert relative_error(to_host(y), to_host(expected)) < PART
    dp, dx = back(dy)
    assert list(dp) == list(p) and dx.shape == x.shape
    dsinks = o_back((dy @ p["Wo"].T).reshape(B, T, H, E).swapaxes(1, 2))[3]
    assert apart(to_host(dp["sinks"]), to_host(dsinks)) < PART
    joined = join_projections(p)
    assert joined["sinks"] is p["sinks"]
    y_joined, joined_back = self_attention(joined, x, mask=mask, **options)
    assert relative_error(to_host(y_joined), to_host(y)) < PART
    assert apart(to_host(joined_back(dy)[0]["sinks"]), to_host(dsinks)) < PART


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("pieces", [[4, 1, 1, 3], [1] * 9, [2, 7]])
def test_cached_steps_equal_the_whole(device, window, pieces):
    """Also with a rolling cache, whose buffer has dropped the keys before the window."""
    p, x, _ = parameters(device=device)
    xp = array_module(x)
    options = {"heads": H, "kv_heads": K}
    whole = to_host(self_attention(p, x, mask=decoder_mask(T, T, window=window, xp=xp), **options)[0])
    sizes = {
        "layers": 1,
        "batch": B,
        "kv_heads": K,
        "capacity": 64,
        "width": E,
        "dtype": "float64",
        "windows": (window,),
        "xp": xp,
    }
    cache, at, steps = Cache.empty(**sizes), 0, []
    for n in pieces:
        mask = decoder_mask(n, cache.seen(0) + n, window=window, xp=xp)
        cache.begin()
        y, _ = self_attention(p, x[:, at : at + n], mask=mask, cache=layer_cache(cache, 0), **options)
        cache, at = cache.advanced(n), at + n
        steps.append(to_host(y))
    assert relative_error(np.concatenate(steps, axis=1), whole) < PART


def test_a_trained_prefix_precedes_the_keys_of_heads_with_sinks():
    p, x, dy = parameters()
    rng = np.random.default_rng(1)
    p |= {name: rng.normal(size=(K, 2, E)) for name in ("Pk", "Pv")}
    mask = decoder_mask(T, T, window=3)
    y, back = self_attention(p, x, heads=H, kv_heads=K, mask=mask)
    q, k, v = ((x @ p[f"W{n}"] + p[f"b{n}"]).reshape(B, T, -1, E).swapaxes(1, 2) for n in "qkv")
    k, v = (np.concatenate([np.broadcast_to(p[n], (B, K, 2, E)), a], axis=2) for n, a in (("Pk", k), ("Pv", v)))
    o, o_back = sink_attention(q, k, v, p["sinks"], mask=beyond_prefix(mask.array, 2))
    assert relative_error(y, o.swapaxes(1, 2).reshape(B, T, H * E) @ p["Wo"] + p["bo"]) < PART
    _, dk, dv, dsinks = o_back((dy @ p["Wo"].T).reshape(B, T, H, E).swapaxes(1, 2))
    dp, _ = back(dy)
    wanted = {"Pk": dk[:, :, :2].sum(axis=0), "Pv": dv[:, :, :2].sum(axis=0), "sinks": dsinks}
    assert apart({name: dp[name] for name in wanted}, wanted) < PART


def test_the_scores_and_probabilities_of_a_trace():
    """P v is the output, and dA gives the queries' and sinks' gradients; dA and -p_s m of a row add up to zero."""
    q, k, v, sinks, do = inputs()
    mask = decoder_mask(T, T, window=4)
    options = {"scale": 0.4, "rate": 0.3, "key": random.sample_keys(0, np.arange(B))}
    o, back = sink_attention(q, k, v, sinks, mask=mask.array, **options)
    (A, P), more_back = sink_scores_and_probabilities(q, k, v, sinks, mask=mask, **options)
    k_own, v_own = k.repeat(H // K, axis=1), v.repeat(H // K, axis=1)
    assert relative_error(A, 0.4 * q @ k_own.swapaxes(-1, -2)) < PART
    assert relative_error(dropout(P, rate=0.3, key=options["key"])[0] @ v_own, o) < PART
    dA, _ = more_back(do)
    dq, _, _, dsinks = back(do)
    assert relative_error(0.4 * dA @ k_own, dq) < PART and relative_error(-dA.sum(axis=(0, 2, 3)), dsinks) < PART


def test_memory_is_linear_in_length():
    def work(T):
        q, k, v = (np.ones((1, heads, T, 8), dtype=np.float32) for heads in (4, 2, 2))
        visible = Visible(T, T, causal=True, padding=np.ones((1, T), bool))
        sink_block_attention(q, k, v, np.ones(4, dtype=np.float32), mask=visible, block=16)[1](q)

    bytes_of = {T: peak(lambda T=T: work(T)) for T in (256, 512, 1024)}
    for T in (256, 512):
        assert bytes_of[2 * T] < 2.3 * bytes_of[T], bytes_of
    assert bytes_of[1024] < 1024 * 1024 * 4 * 4, "less than the scores of all heads alone"


def test_long_sequences_take_blocks(monkeypatch):
    """With more than BLOCK queries and a description of the mask; in other cases the plain form."""
    calls = []
    monkeypatch.setattr(attention_module, "BLOCK", 4)
    monkeypatch.setattr(
        attention_module, "sink_block_attention", lambda *a, **k: calls.append(1) or sink_block_attention(*a, **k)
    )
    q, k, v, sinks, _ = inputs()
    visible = decoder_mask(T, T, window=4)
    o, expected = (attention_module.sink_attention(q, k, v, sinks, mask=mask)[0] for mask in (visible, visible.array))
    attention_module.sink_attention(q[:, :, :4], k, v, sinks, mask=decoder_mask(4, T))
    assert calls == [1] and relative_error(o, expected) < PART


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, k, s: sink_attention(q, k, k, s[:1]), r"sink_attention: sinks: expected .* of shape \(4,\), got"),
        (lambda q, k, s: sink_block_attention(q, k, k, s[:1]), r"sink_block_attention: sinks: expected .* \(4,\), got"),
        (lambda q, k, s: sink_softmax(q, s[:3]), r"sink_softmax: sinks: expected .* of shape \(4,\), got"),
        (lambda q, k, s: sink_attention(q, k, k, None), "sink_attention: sinks: expected an array of floating-point numbers"),
        (lambda q, k, s: sink_attention(q, k[:, :, :, :2], k, s), r"sink_attention: k: expected .* \(2, K, S, 3\)"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    q, k, _, sinks, _ = inputs()
    with pytest.raises(ValueError, match=message) as error:
        call(q, k, sinks)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", [{"bias": np.zeros((1, H, T, T))}, {"cap": 5.0}, {"offsets": np.zeros((1, H, 1, T))}])
def test_what_does_not_go_with_sinks_is_refused(option):
    p, x, _ = parameters()
    with pytest.raises(ValueError, match=f"self_attention: {next(iter(option))}: expected None, since p has sinks, got"):
        self_attention(p, x, heads=H, kv_heads=K, **option)
