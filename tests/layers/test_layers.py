"""Properties of single layers beyond the laws: masks and tables against the reference, invariances, padding, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference.layers.mask as ref_mask
import reference.layers.position as ref_position
from tests.laws import FEW, PART, rounding
from tests.strategies import sizes
from tinyplm.backend import array_module, to_device, to_host
from tinyplm.layers.activation import gelu, gelu_tanh, relu, silu
from tinyplm.layers.attention import attention, merge_heads, multi_head_attention, split_heads
from tinyplm.layers.embedding import embedding
from tinyplm.layers.linear import linear
from tinyplm.layers.mask import banded_mask, causal_mask, combine_masks, packed_mask, padding_mask, prefix_mask, sliding_mask
from tinyplm.layers.norm import layernorm, rmsnorm
from tinyplm.layers.position import counted_positions, learned_positions, sinusoidal, sinusoidal_table
from tinyplm.layers.softmax import log_softmax, softmax

on_devices = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@on_devices
@given(T=st.integers(1, 6), extra=st.integers(0, 4), left=st.integers(0, 4), right=st.integers(0, 4))
def test_masks_by_position_equal_the_reference(device, T, extra, left, right):
    S = T + extra
    xp = array_module(to_device(np.ones(1), device))
    pairs = [
        (causal_mask(T, S, xp=xp), ref_mask.causal_mask(T, S)),
        (sliding_mask(T, S, window=left + 1, xp=xp), ref_mask.sliding_mask(T, S, window=left + 1)),
        (banded_mask(T, S, left=left, right=right, xp=xp), ref_mask.banded_mask(T, S, left=left, right=right)),
    ]
    for ours, theirs in pairs:
        assert np.array_equal(to_host(ours), theirs)


@on_devices
@given(B=st.integers(1, 3), T=st.integers(1, 6), seed=st.integers(0, 999))
def test_masks_by_content_equal_the_reference(device, B, T, seed):
    rng = np.random.default_rng(seed)
    real, lengths, documents = rng.integers(0, 2, (B, T)), rng.integers(0, T + 1, B), np.sort(rng.integers(0, 3, (B, T)))
    on = [to_device(a, device) for a in (real, lengths, documents)]
    ours = [padding_mask(on[0]), prefix_mask(on[1], T), packed_mask(on[2])]
    theirs = [ref_mask.padding_mask(real), ref_mask.prefix_mask(lengths, T), ref_mask.packed_mask(documents)]
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(to_host(a), b)
    assert np.array_equal(to_host(combine_masks(ours[0], None, ours[1])), ref_mask.combine_masks(theirs[0], None, theirs[1]))
    assert combine_masks(None, None) is None


@given(width=st.integers(1, 9), seed=st.integers(0, 99))
def test_sinusoidal_table_equals_the_reference(width, seed):
    positions = np.random.default_rng(seed).integers(0, 100_000, 5)
    ours = sinusoidal(positions, width, dtype="float64")
    assert np.max(np.abs(ours - ref_position.sinusoidal(positions, width))) < 1e5 * rounding(1)  # angles up to 1e5


def test_softmax_is_shift_invariant_and_sums_to_one():
    x = np.random.default_rng(0).normal(size=(4, 7)) * 5
    p, _ = softmax(x)
    assert np.allclose(p.sum(-1), 1, rtol=FEW) and np.allclose(softmax(x + 1000)[0], p, rtol=PART)
    assert np.allclose(np.exp(log_softmax(x)[0]), p, rtol=PART)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_softmax_of_large_numbers_is_finite(dtype):
    x = np.array([[6e4, -6e4, 0.0]], dtype=dtype)
    assert softmax(x)[0].tolist() == [[1, 0, 0]] and np.isfinite(log_softmax(x.astype("float32"))[0]).all()


@on_devices
@given(mask=st.lists(st.booleans(), min_size=3, max_size=3), scores=st.lists(st.sampled_from(["-inf", "min", "5"]), min_size=3,
                                                                            max_size=3))  # fmt: skip
def test_masked_keys_get_nothing_however_small_the_scores_of_the_others_are(device, mask, scores):
    lowest = float(np.finfo(np.float64).min)
    x = np.array([{"-inf": -np.inf, "min": lowest, "5": 5.0}[name] for name in scores])
    p = to_host(softmax(to_device(x, device), mask=to_device(np.array(mask), device))[0])
    top = max([x[i] for i in range(3) if mask[i]], default=-np.inf)
    winners = [mask[i] and x[i] == top > -np.inf for i in range(3)]
    assert p.tolist() == [won / max(1, sum(winners)) for won in winners]


@pytest.mark.parametrize("mask", [np.array([[1, 0]]), np.array([[0.0, -1e9]]), [[True, False]]])
def test_masks_that_are_not_boolean_are_refused(mask):
    given = f"dtype {mask.dtype}" if isinstance(mask, np.ndarray) else "list"
    q = np.ones((1, 1, 2, 3))
    for call in (lambda: softmax(np.ones((1, 2)), mask=mask), lambda: attention(q, q, q, mask=mask)):
        with pytest.raises(TypeError, match=f"mask: expected a boolean array where True = may attend, got {given}"):
            call()


@pytest.mark.parametrize("f", [relu, gelu, gelu_tanh, silu])
@pytest.mark.parametrize(("dtype", "large"), [("float16", [9.5, 300, 4e4, 65504]), ("float32", [9.5, 50, 3e19, 3.4e38])])
@pytest.mark.filterwarnings("ignore:overflow encountered")  # of x^2, on purpose
def test_activations_are_the_identity_or_zero_far_out(f, dtype, large, device):
    x = np.array([*large, *(-v for v in large)], dtype=dtype)
    y, backward = f(to_device(x, device))
    dx = backward(to_device(np.ones_like(x), device))
    near = 1e-2 if dtype == "float16" else 1e-3  # at 9.5 silu is off by 7e-4; float16 rounds by 4e-3 there
    for ours, expected in ((y, np.maximum(x, 0)), (dx, x > 0)):
        error = np.abs(to_host(ours) - expected)
        assert np.all(error[[0, 4]] < near) and not error[[1, 2, 3, 5, 6, 7]].any()


def test_half_precision_gradients_of_biases_and_positions_do_not_stop_at_2048(device):
    x, W, b = (to_device(np.ones(shape, dtype=np.float16), device) for shape in ((4096, 1, 2), (2, 2), (2,)))
    positions = to_device(np.zeros(1, dtype=int), device)
    found = [linear(x, W, b)[1](x)[2], layernorm(x, b, b)[1](x)[2], learned_positions(x, W, positions=positions)[1](x)[1][0]]
    for total in found:
        assert total.dtype == "float16" and to_host(total).tolist() == [4096, 4096]


def test_half_precision_attention_scales_before_the_product_can_overflow(device):
    rng = np.random.default_rng(0)
    same = to_device(np.full((1, 1, 2, 64), 32, dtype=np.float16), device)  # q k^T = 65536
    assert to_host(attention(same, same, same)[0]).tolist() == to_host(same).tolist()

    q, k, v, do = (rng.normal(0, spread, (1, 2, 5, 64)).astype(np.float16) for spread in (150, 150, 1, 1))
    run = {}
    for dtype in ("float16", "float64"):  # q k^T is about 180 000, the scores are about 5
        o, back = attention(*(to_device(a.astype(dtype), device) for a in (q, k, v)), scale=2.0**-15)
        run[dtype] = [to_host(a) for a in (o, *back(to_device(do.astype(dtype), device))[:3])]
    for a, b in zip(run["float16"], run["float64"], strict=True):
        assert a.dtype == np.float16 and np.max(np.abs(a - b)) < 2e-2 * np.max(np.abs(b))


@pytest.mark.parametrize("f", [layernorm, rmsnorm])
def test_norms_compute_half_precision_in_float32(f):
    x = (np.random.default_rng(0).normal(size=(2, 64)) * 300).astype(np.float16)  # squares overflow float16
    gamma = np.ones(64, dtype=np.float16)
    y, backward = f(x, gamma)
    expected, _ = f(x.astype(np.float64), gamma.astype(np.float64))
    assert y.dtype == np.float16 and np.max(np.abs(y - expected)) < 4e-3  # float16 has a relative precision of 2^-11
    assert backward(np.ones_like(x) * x)[0].dtype == np.float16


def test_layernorm_ignores_shift_and_scale():
    x, gamma = np.random.default_rng(0).normal(size=(3, 8)), np.ones(8)
    assert np.allclose(layernorm(x, gamma, eps=0)[0], layernorm(5 * x + 2, gamma, eps=0)[0], rtol=PART)


@given(s=sizes())
def test_grouped_queries_with_as_many_kv_heads_are_multi_head(s):
    """GQA equals multi-head attention with each key/value head repeated for every query head in its group."""
    rng = s.rng()
    q, k, v = rng.normal(size=(s.B, s.H, s.T, s.E)), *rng.normal(size=(2, s.B, s.K, s.S, s.E))
    o, _ = attention(q, k, v)
    repeated, _ = attention(q, np.repeat(k, s.G, axis=1), np.repeat(v, s.G, axis=1))
    assert np.allclose(o, repeated, rtol=PART, atol=FEW)


def test_positions_that_count_real_tokens(device):
    ids = to_device(np.array([[5, 1, 6, 7, 1], [1, 1, 5, 5, 5]]), device)
    assert to_host(counted_positions(ids, padding_id=1)).tolist() == [[2, 1, 3, 4, 1], [1, 1, 2, 3, 4]]
    assert to_host(counted_positions(ids, padding_id=5)).tolist() == [[5, 6, 7, 8, 9], [6, 7, 5, 5, 5]]


def test_a_table_of_sinusoids():
    table = sinusoidal_table(4, 6)
    assert table.dtype == np.float64
    assert np.allclose(table[3], [np.sin(3), np.cos(3), np.sin(3 / 10000 ** (1 / 3)), np.cos(3 / 10000 ** (1 / 3)),
                                  np.sin(3 / 10000 ** (2 / 3)), np.cos(3 / 10000 ** (2 / 3))], rtol=FEW)  # fmt: skip


def test_heads_are_split_and_merged():
    x = np.arange(24.0).reshape(2, 3, 4)
    assert np.array_equal(merge_heads(split_heads(x, 2)), x)
    assert np.array_equal(split_heads(x, 2)[1, 1, 2], x[1, 2, 2:])


@on_devices
@given(s=sizes())
def test_what_is_masked_has_exactly_no_influence_and_no_gradient(device, s):
    rng = s.rng()
    q, k, v = rng.normal(size=(s.B, s.H, s.T, s.E)), *rng.normal(size=(2, s.B, s.K, s.S, s.E))
    real = rng.random((s.B, s.S)) < 0.5
    hidden = ~real[:, None, :, None]
    mask = padding_mask(to_device(real.astype(np.int64), device))

    def run(k, v):
        o, back = attention(*(to_device(a, device) for a in (q, k, v)), mask=mask)
        return to_host(o), back

    o, back = run(k, v)
    changed, _ = run(np.where(hidden, 1e3, k), np.where(hidden, -1e3, v))
    assert np.array_equal(o, changed)
    dq, dk, dv, _ = (None if g is None else to_host(g) for g in back(to_device(rng.normal(size=o.shape), device)))
    assert not dk[np.broadcast_to(hidden, dk.shape)].any() and not dv[np.broadcast_to(hidden, dv.shape)].any()
    nothing = ~real.any(axis=1)
    assert not o[nothing].any() and not dq[nothing].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear(np.ones((2, 3)), np.ones((4, 5))),
         r"linear: W: expected .* of shape \(3, Dout\), got float64 array of shape \(4, 5\)"),
        (lambda: linear(np.ones((2, 3)), np.ones(3)),
         r"linear: W: expected .* of shape \(3, Dout\), got float64 array of shape \(3,\)"),
        (lambda: linear(np.ones((2, 3)), np.ones((3, 4)), np.ones(1)), r"b: expected None or .* \(4,\), got .* \(1,\)"),
        (lambda: layernorm(np.ones((2, 3)), np.ones(1)), r"layernorm: gamma: expected .* \(3,\), got .* \(1,\)"),
        (lambda: layernorm(np.ones((2, 3)), np.ones(3), np.ones((2, 3))),
         r"layernorm: beta: expected None or .* \(3,\), got .* \(2, 3\)"),
        (lambda: rmsnorm(np.ones((2, 3)), np.ones((2, 3))), r"rmsnorm: gamma: expected .* \(3,\), got .* \(2, 3\)"),
        (lambda: learned_positions(np.ones((1, 2, 3)), np.ones((6, 3)), positions=np.array([0, 6])),
         "positions: expected integers from 0 to 5, got 6"),
        (lambda: learned_positions(np.ones((2, 2, 3)), np.ones((6, 3)), positions=np.array([[0, 1]])),
         r"positions: expected .* \(2, 2\) or \(2,\), got .* \(1, 2\)"),
        (lambda: embedding(np.ones((4, 2)), ids=np.array([1, 4])), "token ids: expected integers from 0 to 3, got 4"),
        (lambda: embedding(np.ones((4, 2)), ids=np.array([-1])), "token ids: expected integers from 0 to 3, got -1"),
        (lambda: embedding(np.ones((4, 2)), ids=np.array([0.5])), "ids: expected an array of integers .* got float64"),
        (lambda: attention(np.ones((1, 3, 2, 4)), np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4))), "multiple of K"),
        (lambda: attention(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 3)), np.ones((1, 2, 2, 4))),
         r"k: expected .* \(1, K, S, 4\), got .* \(1, 2, 2, 3\)"),
        (lambda: multi_head_attention({n: np.ones((4, 4)) for n in ("Wq", "Wk", "Wv", "Wo")}, np.ones((1, 2, 4)), heads=3),
         "split_heads: heads: expected a divisor of the width, 4, got 3"),
        (lambda: causal_mask(3, 2), "T = 3, S = 2"),
        (lambda: sliding_mask(3, window=0), "sliding_mask: window: expected an integer from 1 to 2147483647, got 0"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
