"""Blocked attention where layers and models use it, for long sequences: the same as the plain form, and memory linear in T."""

from __future__ import annotations

import tracemalloc
from functools import partial
from unittest import mock

import numpy as np
import pytest

from tests.laws import PART, leaves, relative_error
from tests.support.families import tiny
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.kernels import attention as attention_module
from tinyplm.kernels.block_attention import block_attention
from tinyplm.layers.alibi import alibi, alibi_slopes
from tinyplm.layers.attention import attention, multi_head_attention
from tinyplm.layers.mask import Visible, decoder_mask


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("cached", [0, 3])
def test_families_take_blocks_for_long_sequences(device, family, cached, monkeypatch):
    """Logits and gradients with blocks of two queries equal those of the plain form, also with a cache."""
    model = tiny(family, device=device)
    rng = np.random.default_rng(0)
    ids, padding = rng.integers(0, 11, (3, 6)), np.arange(6) >= np.array([[0], [2], [5]])
    results = {}
    for name, block in (("plain", 100), ("blocks", 2)):
        monkeypatch.setattr(attention_module, "BLOCK", block)
        spy = mock.Mock(side_effect=partial(block_attention, block=2))
        monkeypatch.setattr(attention_module, "block_attention", spy)
        cache = None
        if cached:
            cache = model(ids[:, :cached], attention_mask=padding[:, :cached], cache=model.empty_cache(3))[0]["cache"]
            spy.reset_mock()
        outputs, back = model(ids[:, cached:], attention_mask=padding, cache=cache)
        assert spy.call_count == (2 if name == "blocks" else 0), "once a layer"
        logits = to_host(outputs["logits"])
        real = padding[:, cached:, None]
        dlogits = np.random.default_rng(1).normal(size=logits.shape) * real
        results[name] = [logits * real, to_host(back({"logits": to_device(dlogits, device)}))]
    (logits, gradient), (expected, expected_gradient) = results["blocks"], results["plain"]
    assert relative_error(logits, expected) < PART
    # relative to the largest of all gradients: that of bk is zero in exact arithmetic, so it holds rounding errors alone
    size = max(float(np.max(np.abs(a))) for a in leaves(expected_gradient))
    assert all(np.max(np.abs(a - b)) < PART * size for a, b in zip(leaves(gradient), leaves(expected_gradient), strict=True))


CROSS = [(9, 4), (9, 13), (9, 9), (9, 1), (5, 2), (1, 6)]  # (T, S); one query is no block


@pytest.mark.parametrize("shape", ["none", "1 H T S", "B H T S", "B 1 1 S"])
@pytest.mark.parametrize(("T", "S"), CROSS)
def test_cross_attention_by_blocks(device, T, S, shape, monkeypatch):
    """A decoder's queries, an encoder's padded output and a bias, through the projections: as the plain form, whose mask is an
    array.  Padding changes nothing and gets no gradient, nor does the bias there; a sample of padding alone gives only bo."""
    monkeypatch.setattr(attention_module, "BLOCK", 4)
    spy = mock.Mock(side_effect=partial(block_attention, block=4))
    monkeypatch.setattr(attention_module, "block_attention", spy)
    rng = np.random.default_rng(T + S)
    B, H, D, E = 3, 4, 8, 2
    p = {f"W{n}": rng.normal(size=(D, (H if n == "q" else H // 2) * E)) for n in "qkv"}
    p |= {"Wo": rng.normal(size=(H * E, D)), "bo": rng.normal(size=D), "bk": rng.normal(size=H // 2 * E)}
    real = np.arange(S) < np.array([[S], [(S + 1) // 2], [0]])
    sizes = {"B": B, "H": H, "T": T, "S": S, "1": 1}
    bias = None if shape == "none" else rng.normal(size=[sizes[n] for n in shape.split()])
    x, context, dy = (rng.normal(size=(B, n, D)) for n in (T, S, T))
    p, x, context, bias, dy = to_device([p, x, context, bias, dy], device)
    padding = to_device(real, device)

    def run(attend, mask, context):
        y, back = multi_head_attention(p, x, context, bias, heads=H, kv_heads=H // 2, mask=mask, attend=attend)
        return to_host([y, *back(dy)])

    visible = Visible(T, S, padding=padding, xp=array_module(x))
    found, expected = run(attention_module.attention, visible, context), run(attention, padding[:, None, None], context)
    assert spy.call_count == (T > 4)
    # relative to the largest of all: bk's gradient is zero in exact arithmetic
    size = max(float(np.max(np.abs(a))) for a in leaves(expected))
    for ours, plain in zip(leaves(found), leaves(expected), strict=True):
        assert ours.shape == plain.shape and np.max(np.abs(ours - plain)) < PART * size
    changed = to_device(np.where(real[..., None], to_host(context), 50.0), device)
    y, _, _, dcontext, dbias = found
    np.testing.assert_array_equal(run(attention_module.attention, visible, changed)[0], y)
    np.testing.assert_array_equal(y[2], np.broadcast_to(to_host(p["bo"]), (T, D)))
    assert not dcontext[~real].any() and (dcontext[real].any() or S == 1)
    if bias is not None:
        hidden = ~real[:, None, None] if shape[0] == "B" else ~real.any(axis=0)
        assert not (dbias * hidden).any() and (dbias.any() or S == 1)


def test_one_new_token_is_the_plain_form(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.delattr(attention_module, "block_attention")  # calling it would raise an error
    q, k = rng.normal(size=(1, 2, 1, 4)), rng.normal(size=(1, 2, 300, 4))
    found, expected = (attention_module.attention(q, k, k, mask=mask)[0] for mask in (decoder_mask(1, 300), None))
    assert np.array_equal(found, expected)
    assert decoder_mask(1, 300).array is None


def peak(work) -> int:
    """Peak allocation in bytes, including NumPy arrays."""
    work()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("cap", "prefix"), [(None, 0), (5.0, 0), (None, 1)])
def test_memory_of_the_layer_is_linear_in_length(cap, prefix):
    """With a cap there are ALiBi's offsets as well; with a prefix that of the first sample is as long as the sequence."""
    slopes = None if cap is None else alibi_slopes(4)

    def work(T):
        q, k, v = (np.ones((1 + prefix, heads, T, 8), dtype=np.float32) for heads in (4, 2, 2))
        lengths = np.array([T, T // 2]) if prefix else None
        visible = Visible(T, T, causal=True, padding=np.ones((1 + prefix, T), bool), prefix=lengths)
        options = {} if cap is None else {"cap": cap, "offsets": alibi(np.arange(T), slopes=slopes)}
        block_attention(q, k, v, mask=visible, rate=0.1, key=np.arange(1 + prefix, dtype=np.uint64), block=16, **options)[1](q)

    bytes_of = {T: peak(lambda T=T: work(T)) for T in (256, 512, 1024)}
    for T in (256, 512):
        assert bytes_of[2 * T] < 2.3 * bytes_of[T], bytes_of
    assert bytes_of[1024] < 1024 * 1024 * 4 * 4, "less than the scores of all heads alone"


def test_memory_of_gpt2_is_linear_in_length():
    model = tiny("gpt2", n_positions=1024, n_embd=32, dtype="float32")

    def work(T):
        hidden, back = model.family.body(model.params["body"], config=model.config, input_ids=np.zeros((2, T), int))
        back(hidden)

    bytes_of = {T: peak(lambda T=T: work(T)) for T in (256, 512, 1024)}
    for T in (256, 512):
        assert bytes_of[2 * T] < 2.3 * bytes_of[T], bytes_of
