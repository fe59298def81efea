"""Blocked attention equals the plain form for any mask, and nothing leaks.  In layers and models: test_long_sequences.py."""

from __future__ import annotations

from itertools import combinations
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.laws import PART, relative_error
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.kernels import block_attention as block_module
from tinyplm.kernels.block_attention import block_attention
from tinyplm.layers.alibi import alibi, alibi_slopes
from tinyplm.layers.attention import attention, multi_head_attention
from tinyplm.layers.attention_parts import joined
from tinyplm.layers.mask import Visible, decoder_mask
from tinyplm.random import uniform_bits, uniform_bits_of

on_devices = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def settings_of_attention(draw, cross=False):
    """Sizes, visibility, and optionally a bias, dropout, a soft cap and ALiBi's offsets; as a dict, with arrays drawn from a
    seed.

    cross: as in an encoder-decoder, the keys are those of another sequence, one key, or more or fewer than there are queries,
    some of them padding, with a bias and several blocks.
    """
    B, K, G, T = (draw(st.integers(n, m)) for n, m in ((1, 3), (1, 3), (1, 3), (2 if cross else 1, 12)))
    causal = not cross and draw(st.booleans())
    S = T + draw(st.integers(0, 5)) if causal else draw(st.integers(1, 14))
    if cross:
        S = draw(st.sampled_from([1, draw(st.integers(1, T - 1)), draw(st.integers(T + 1, 14))]))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    padding = {
        "none": None,
        "left": np.arange(S) >= rng.integers(0, S + 1, (B, 1)),  # sometimes all of it
        "right": np.arange(S) < rng.integers(0, S + 1, (B, 1)),
        "anywhere": rng.random((B, S)) < 0.6,
    }[draw(st.sampled_from([*["none"] * (not cross), "left", "right", "anywhere"]))]
    shapes = [(1, K * G, T, S), (B, K * G, T, S), (B, 1, T, S), (1, K * G, 1, S), (B, 1, T, 1), (T, S), (S,)]
    allowed = rng.random(draw(st.sampled_from(shapes))) < 0.6 if draw(st.booleans()) else None
    bias = rng.normal(size=draw(st.sampled_from(shapes))) if cross or draw(st.booleans()) else None
    window = draw(st.integers(1, S + 1)) if causal and draw(st.booleans()) else None
    prefix = rng.integers(0, S + 1, B) if causal and window is None and draw(st.booleans()) else None
    dropout = {"rate": 0.3, "key": rng.integers(0, 2**64, B, dtype=np.uint64)} if draw(st.booleans()) else {}
    positions = np.arange(S) - rng.integers(0, S, (draw(st.sampled_from([1, B])), 1))
    offsets = alibi(positions, slopes=alibi_slopes(K * G), dtype="float64") if draw(st.booleans()) else None
    cap = draw(st.sampled_from([None, 0.7, 5.0]))
    shapes = {"q": (B, K * G, T, 3), "k": (B, K, S, 3), "v": (B, K, S, 2), "do": (B, K * G, T, 2)}
    return {
        "arrays": {name: rng.normal(size=shape) for name, shape in shapes.items()} | {"bias": bias},
        "visible": {
            "T": T,
            "S": S,
            "causal": causal,
            "window": window,
            "padding": padding,
            "allowed": allowed,
            "prefix": prefix,
        },
        "options": {**dropout, "cap": cap, "offsets": offsets},
        "block": draw(st.integers(1, T - 1 if cross else 14)),
        "part": draw(st.sampled_from([1, 50, 1 << 20])),  # one head at a time, a few, all
    }


CASES = st.one_of(settings_of_attention(), settings_of_attention(cross=True))


def moved(values: dict, device: str) -> dict:
    return {name: to_device(a, device) if isinstance(a, np.ndarray) else a for name, a in values.items()}


def run(f, case, device="cpu", **options):
    """[o, dq, dk, dv, dbias] on the host."""
    a = moved(case["arrays"], device)
    o, back = f(a["q"], a["k"], a["v"], a["bias"], **moved(case["options"], device), **options)
    return [None if r is None else to_host(r) for r in (o, *back(a["do"]))]


def visible_of(case, device="cpu"):
    return Visible(**moved(case["visible"], device), xp=array_module(to_device(np.ones(1), device)))


@on_devices
@given(case=CASES)
def test_blocks_equal_the_plain_form(device, case, monkeypatch):
    """The output and all gradients, with the same dropout bits; the mask as a `Visible` and as the equivalent array."""
    monkeypatch.setattr(block_module, "PART", case["part"])
    visible = visible_of(case, device)
    expected = run(attention, case, device, mask=visible.array)
    for mask in (visible, visible.array):
        found = run(block_attention, case, device, mask=mask, block=case["block"])
        for ours, plain in zip(found, expected, strict=True):
            assert (ours is None) == (plain is None)
            if plain is not None:
                assert ours.shape == plain.shape and ours.dtype == plain.dtype and np.max(np.abs(ours - plain)) < PART


@on_devices
@given(case=CASES)
def test_what_a_block_is_told_is_the_mask(device, case):
    """A block loads no more keys than necessary at either end, and hides exactly the keys the array hides.

    On a device, where a prefix would have to be read, all of them."""
    visible = visible_of(case, device)
    T, S, causal, window = visible.T, visible.S, visible.causal, visible.window
    every = np.ones((1, 1, T, S), bool)
    expected = every if visible.array is None else every & to_host(visible.array)
    at, keys = np.arange(S - T, S)[:, None], np.arange(S)
    band = (keys <= at) & (keys > at - (window or S)) if causal else every[0, 0]
    if visible.prefix is not None:
        longest = S if device != "cpu" else to_host(visible.prefix).max()
        band = band | (keys < longest)
    for lo in range(0, T, case["block"]):
        hi = min(lo + case["block"], T)
        keys, partly = visible.block(lo, hi)
        found = np.zeros_like(expected[:, :, lo:hi])
        found[..., keys] = True
        for places, seen in partly:
            found[..., keys][..., places] &= to_host(seen)
        assert np.array_equal(found, expected[:, :, lo:hi])
        needed = np.flatnonzero(band[lo:hi].any(axis=0))
        assert (keys.start, keys.stop) == (needed[0], needed[-1] + 1)


@on_devices
@given(case=CASES, seed=st.integers(0, 99))
def test_the_hidden_has_exactly_no_influence_and_no_gradient(device, case, seed):
    """Keys that one query sees and another does not: they affect only the first one's output and get gradient only from it."""
    visible, a = visible_of(case, device), case["arrays"]
    B, H, T, _ = a["q"].shape
    K, S = a["k"].shape[1:3]
    seen = np.broadcast_to(True if visible.array is None else to_host(visible.array), (B, H, T, S))
    t = np.random.default_rng(seed).integers(T)
    hidden = ~seen[:, :, t].reshape(B, K, H // K, S).any(axis=2)[..., None]  # from this query in all heads of the group
    only = {**a, "do": a["do"] * (np.arange(T) == t)[:, None]}
    o, dq, dk, dv, _ = run(block_attention, {**case, "arrays": only}, device, mask=visible, block=case["block"])
    assert not (dk * hidden).any() and not (dv * hidden).any() and not dq[:, :, np.arange(T) != t].any()
    other = {**only, "k": np.where(hidden, 300.0, a["k"]), "v": np.where(hidden, -1e3, a["v"])}
    changed, dq2, *_ = run(block_attention, {**case, "arrays": other}, device, mask=visible, block=case["block"])
    assert np.array_equal(o[:, :, t], changed[:, :, t])
    assert np.array_equal(dq, dq2)
    empty = ~seen[:, :, t].any(axis=-1)
    assert not o[:, :, t][empty].any() and not dq[:, :, t][empty].any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scores_far_out_and_half_precision(device, dtype):
    """Products that overflow float16, scores in the thousands, a bias that masks: finite, and close to float64."""
    rng = np.random.default_rng(0)
    bias = np.where(rng.random((7, 7)) < 0.4, np.finfo(dtype).min, 0).astype(dtype)
    bias[3] = np.finfo(dtype).min  # an entire row: acts like no bias, but scores below its rounding are lost
    q, k, v, do = (rng.normal(0, spread, (2, 2, 7, 64)).astype(dtype) for spread in (150, 150, 1, 1))
    found, expected = {}, {}
    with np.errstate(over="raise", invalid="raise"):
        for results, f, t in ((found, block_attention, dtype), (expected, attention, "float32")):
            o, back = f(*(to_device(a.astype(t), device) for a in (q, k, v, bias)), scale=2.0**-12)
            results["o"], *results["d"] = (to_host(a) for a in (o, *back(to_device(do.astype(t), device))))
    size = max(float(np.max(np.abs(d))) for d in expected["d"])
    # a score is a sum of 64 products in float32; its error is a relative error of the probabilities; float16 rounds the results
    scores = np.abs(q.astype("float64")) @ np.abs(k.astype("float64")).swapaxes(-1, -2) * 2.0**-12
    near = 64 * 2.0**-24 * np.max(scores) + (20 * np.finfo(dtype).eps if dtype == "float16" else 0)
    assert found["o"].dtype == dtype and np.max(np.abs(found["o"] - expected["o"])) < near
    for a, b in zip(found["d"], expected["d"], strict=True):
        assert a.dtype == dtype and np.max(np.abs(a - b)) < near * size


def test_nothing_makes_the_device_wait():
    from tests.gpu.strict import no_synchronisation, strict

    rng = np.random.default_rng(0)
    q, k, v = (strict.asarray(rng.normal(size=(2, heads, 9, 4))) for heads in (4, 2, 2))
    bias, slopes = strict.asarray(rng.normal(size=(4, 1, 9))), strict.asarray(alibi_slopes(4))
    key, padding = (
        strict.asarray(np.arange(2, dtype=np.uint64)),
        strict.asarray(rng.integers(0, 2, (2, 9))),
    )
    with no_synchronisation():
        mask = decoder_mask(9, 9, padding, window=4, xp=strict)
        offsets = alibi(strict.arange(9), slopes=slopes)
        o, back = block_attention(q, k, v, bias, mask=mask, cap=2.0, offsets=offsets, rate=0.2, key=key, block=4)
        back(o)


def test_bits_of_a_block_are_those_of_the_whole(device):
    keys = to_device(np.random.default_rng(0).integers(0, 2**64, 3, dtype=np.uint64), device)
    whole = to_host(uniform_bits(keys, (3, 4, 5)))
    some = to_device(np.array([[[7, 3], [19, 0]]], dtype=np.uint32), device)
    assert np.array_equal(
        to_host(uniform_bits_of(keys[1:], some, (3, 4, 5))),
        whole.reshape(3, 20)[1:, to_host(some)[0]],
    )
    with pytest.raises(ValueError, match="2\\^32 elements"):
        uniform_bits_of(keys, some, (3, 1 << 16, 1 << 16))


@pytest.mark.parametrize(("window", "block"), [(None, 128), (512, 64), (513, 128), (100, 64)])
def test_narrow_windows_take_half_blocks(window, block):
    """The block that is chosen on the host, and the result for a sequence of several blocks, with as many heads in a part as
    the keys of a block allow."""
    rng = np.random.default_rng(2)
    q, k, v, do = (rng.normal(size=(2, H, 600, 3)) for H in (4, 2, 2, 4))
    mask = Visible(600, 600, causal=True, window=window)
    with mock.patch.object(block_module, "_parts", side_effect=block_module._parts) as spy:
        o, back = block_attention(q, k, v, mask=mask)
    assert spy.call_args.args[4] == block
    expected, plain_back = attention(q, k, v, mask=mask.array)
    assert relative_error(o, expected) < PART
    for found, plain in zip(back(do)[:3], plain_back(do)[:3]):
        assert relative_error(found, plain) < PART


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda q: block_attention(q, q[:, :, :, :2], q),
            r"block_attention: k: expected .* \(1, K, S, 4\), got .* \(1, 2, 3, 2\)",
        ),
        (
            lambda q: block_attention(q, q[:, :1], q),
            r"v: expected .* \(1, 1, 3, E2\), got .* \(1, 2, 3, 4\)",
        ),
        (lambda q: block_attention(q, q, q, block=0), "block: expected None or an integer >= 1, got 0"),
        (
            lambda q: block_attention(q, q, q, rate=1.0),
            "rate: expected a finite number >= 0 and < 1, got 1.0",
        ),
        (
            lambda q: block_attention(q, q, q, mask=Visible(2, 3)),
            r"mask: expected T, S = \(3, 3\), got \(2, 3\)",
        ),
        (
            lambda q: block_attention(q, q, q, mask=np.ones((2, 3), bool)),
            r"broadcast to \(B, H, 3, 3\), got bool",
        ),
        (lambda q: Visible(3, 2, causal=True), "1 <= T <= S, got T = 3, S = 2"),
        (
            lambda q: Visible(3, 3, window=2),
            "expected causal with window, got window = 2 and causal = False",
        ),
        (
            lambda q: Visible(3, 3, causal=True, window=0),
            "window: expected None or an integer >= 1, got 0",
        ),
        (
            lambda q: Visible(3, 3, causal=True, window=2, prefix=np.array([1])),
            "expected causal without window, for a prefix, got window = 2 and causal = True",
        ),
        (
            lambda q: block_attention(q, q, q, mask=Visible(3, 3, causal=True, prefix=np.array([1, 2]))),
            r"block_attention: mask: expected prefix \(1,\), got \(2,\)",
        ),
        (lambda q: Visible(3, 3, prefix=np.array([1])), "got window = None and causal = False"),
        (
            lambda q: Visible(3, 3, causal=True, prefix=np.array([4])),
            r"Visible: prefix: expected integers from 0 to 3, got \[4\]",
        ),
        (lambda q: Visible(3, 3, padding=np.ones((1, 2), bool)), r"padding \(B, 3\), got \(1, 2\)"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(np.ones((1, 2, 3, 4)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mask", [np.array([[1, 0]]), np.array([[0.0, -1e9]]), [[True, False]]])
def test_masks_that_are_not_boolean_are_refused(mask):
    q = np.ones((1, 1, 2, 3))
    with pytest.raises(TypeError, match="expected a boolean array where True = may attend"):
        block_attention(q, q, q, mask=mask)


def test_a_joined_projection_that_the_heads_do_not_divide_is_refused():
    p = {"Wqkv": np.ones((4, 10)), "Wo": np.ones((4, 4))}
    with pytest.raises(
        ValueError,
        match=r"Wqkv: expected columns of 2 heads and 2 x 1 key/value heads, got .* \(4, 10\)",
    ):
        multi_head_attention(p, np.ones((1, 2, 4)), heads=2, kv_heads=1, project=joined(2, 1))
    with pytest.raises(ValueError, match="context: expected None, since Wqkv is for self-attention"):
        multi_head_attention(p, np.ones((1, 2, 4)), np.ones((1, 2, 4)), heads=2, kv_heads=1, project=joined(2, 1))


def test_a_mask_written_out_by_windows_of_every_length():
    """Including a window one short of all keys, where the last query alone loses the first key."""
    for S in range(1, 7):
        for T in range(1, S + 1):
            queries, keys = np.arange(S - T, S)[:, None], np.arange(S)
            for window in (None, *range(1, S + 2)):
                seen = (keys <= queries) & (keys > queries - (S if window is None else window))
                mask = Visible(T, S, causal=True, window=window).array
                assert np.array_equal(np.broadcast_to(True if mask is None else mask, (T, S)), seen), (T, S, window)


def test_blocks_of_a_prefix_of_every_length():
    """Written out and block by block, with queries that follow earlier places and without."""
    for S in range(1, 7):
        for T in range(1, S + 1):
            at, keys = np.arange(S - T, S)[:, None], np.arange(S)
            for prefix in range(S + 1):
                seen = (keys <= at) | (keys < prefix)
                visible = Visible(T, S, causal=True, prefix=np.array([prefix, S - prefix]))
                whole = True if visible.array is None else visible.array
                assert np.array_equal(np.broadcast_to(whole, (2, 1, T, S))[0, 0], seen)
                for lo, hi in combinations(range(T + 1), 2):
                    for sample in (None, 0):  # among all, and alone
                        found, (within, partly) = np.zeros((2, 1, hi - lo, S), bool), visible.block(lo, hi, sample)
                        found[..., within] = True
                        for places, shown in partly:
                            found[..., within][..., places] &= shown
                        assert np.array_equal(found[0, 0], seen[lo:hi]), (S, T, prefix, lo, hi, sample)
                    assert within.stop == np.flatnonzero(seen[lo:hi].any(axis=0))[-1] + 1
