"""Soft caps, ALiBi and the blocks of newer decoders beyond the laws: limits, the paper's forms, dropout."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference.layers.attention as ref_attention
import reference.layers.block as ref_block
import reference.layers.dropout as ref_dropout
import reference.layers.mlp as ref_mlp
import reference.layers.norm as ref_norm
from tests import laws
from tests.components import ACTIVATIONS, COMPONENTS
from tests.laws import FEW, PART, rounding
from tests.strategies import sizes
from tinyplm.backend import to_device, to_host
from tinyplm.checks.cases import decoders
from tinyplm.kernels.attention import self_attention
from tinyplm.layers import block
from tinyplm.layers.activation import capped, soft_cap
from tinyplm.layers.alibi import alibi, alibi_slopes
from tinyplm.layers.attention import merge_heads, split_heads
from tinyplm.layers.norm import rmsnorm, unit_rmsnorm
from tinyplm.layers.softmax import softmax
from tinyplm.random import fold

on_devices = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

TINY = float(np.finfo(np.float64).tiny)  # below it numbers have fewer digits

# --------------------------------------------------------------------------------------------------------------- soft cap


@given(cap=st.floats(0.5, 100), x=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=9))
def test_a_soft_cap_is_bounded_odd_and_in_order(cap, x):
    x = np.sort(np.array(x))
    y, backward = soft_cap(x, cap=cap)
    assert np.all(np.abs(y) <= cap) and np.all(np.diff(y) >= -FEW * cap)
    assert np.all(np.abs(y) <= np.abs(x) * (1 + FEW) + TINY)
    assert np.max(np.abs(soft_cap(-x, cap=cap)[0] + y)) <= FEW * cap
    slope = backward(np.ones_like(x))
    assert np.all((slope >= 0) & (slope <= 1))


@given(cap=st.floats(0.5, 100), share=st.floats(-0.01, 0.01))
def test_a_soft_cap_hardly_changes_small_numbers(cap, share):
    """x - x^3 / (3 cap^2) <= y <= x for x >= 0: within share^2 / 3 of x."""
    x = np.array([share * cap])
    y, backward = soft_cap(x, cap=cap)
    assert np.abs(y - x) <= np.abs(x) * (share**2 / 3 + FEW) + TINY
    assert 0 <= 1 - backward(np.ones(1)) <= share**2 + FEW  # the slope is 1 - tanh(share)^2


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_soft_cap_of_the_largest_number_is_the_cap(dtype):
    x = np.array([np.finfo(dtype).max, -np.finfo(dtype).max, 0], dtype=dtype)
    y, backward = soft_cap(x, cap=30.0)
    assert y.tolist() == [30, -30, 0] and y.dtype == dtype
    assert backward(np.ones_like(x)).tolist() == [0, 0, 1]


def test_no_cap_is_no_change():
    x = np.array([3.0])
    y, backward = capped(x, None)
    assert y is x and backward(x) is x


# ------------------------------------------------------------------------------------------------------------------ norms


@given(s=sizes())
def test_a_unit_rmsnorm_without_weights_is_an_rmsnorm_of_gain_one(s):
    x = s.rng().normal(size=(s.B, s.T, s.D))
    assert np.array_equal(unit_rmsnorm(x, np.zeros(s.D))[0], rmsnorm(x, np.ones(s.D))[0])


# ------------------------------------------------------------------------------------------------------------------ ALiBi


def released(heads):
    """The recipe of the paper's released code: a geometric series whose ratio is its first number, and beside a power of two
    every other slope of twice as many heads."""
    if math.log2(heads).is_integer():
        first = 2 ** -(2 ** -(math.log2(heads) - 3))
        return [first * first**h for h in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return released(closest) + released(2 * closest)[0::2][: heads - closest]


@pytest.mark.parametrize("heads", range(1, 131))
def test_the_slopes_are_those_of_the_released_code(heads):
    expected = np.array(released(heads))
    assert expected.shape == (heads,) and np.all((expected > 0) & (expected < 1))
    # the exponents of up to 256 heads, each rounded once, and as many products
    assert np.max(np.abs(alibi_slopes(heads) / expected - 1)) < rounding(256, 8)


def test_the_slopes_of_eight_heads_are_the_paper_s():
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]


@on_devices
@given(heads=st.integers(1, 20), T=st.integers(1, 9), earlier=st.integers(0, 9), left=st.integers(0, 9), seed=st.integers(0, 99))
def test_one_row_of_offsets_has_the_probabilities_of_all_distances(device, heads, T, earlier, left, seed):
    """softmax(a + m_h s) = softmax(a - m_h (t - s)), for the queries and keys of any positions and any mask."""
    S = T + earlier
    rng = np.random.default_rng(seed)
    keys = np.stack([np.arange(S), np.maximum(np.arange(S) - left, 0)])
    a, mask = rng.normal(size=(2, heads, T, S)), rng.random((2, 1, T, S)) < 0.7
    slopes = alibi_slopes(heads)
    distances = keys[:, S - T :, None] - keys[:, None, :]
    apart = a - slopes[:, None, None] * distances[:, None]
    offsets = alibi(to_device(keys, device), slopes=to_device(slopes, device), dtype="float64")
    assert offsets.shape == (2, heads, 1, S)
    ours, expected = (
        to_host(softmax(to_device(x, device), mask=to_device(mask, device))[0]) for x in (a + to_host(offsets), apart)
    )
    # a score carries the rounding of an offset of up to S, and a probability that of its score; FEW for the softmax
    assert np.max(np.abs(ours - expected)) < S * rounding(4) + FEW


def test_offsets_are_at_least_float32():
    slopes = alibi_slopes(3)
    for dtype, expected in (("float16", "float32"), ("float32", "float32"), ("float64", "float64")):
        assert alibi(np.arange(4), slopes=slopes, dtype=dtype).dtype == expected
    assert alibi(np.arange(4), slopes=slopes).shape == (1, 3, 1, 4)
    large = alibi(np.array([[70_000]]), slopes=slopes, dtype="float16")  # 70 000 is beyond float16
    assert np.isfinite(large).all()


# ---------------------------------------------------------------------------------------------------------------- prefixes


def test_a_prefix_is_refused_with_alibi_and_takes_a_cap():
    """Trained keys have no position, so that no distance to them is defined; a cap needs none."""
    rng = np.random.default_rng(0)
    p = {name: rng.normal(size=(4, 4)) for name in ("Wq", "Wk", "Wv", "Wo")} | {
        n: rng.normal(size=(2, 3, 2)) for n in ("Pk", "Pv")
    }
    x, mask = rng.normal(size=(1, 5, 4)), np.tri(5, dtype=bool)
    with pytest.raises(ValueError, match="attend_beyond: offsets: expected None, since a prefix has no position"):
        self_attention(p, x, heads=2, mask=mask, offsets=alibi(np.arange(5), slopes=alibi_slopes(2)))
    y, _ = self_attention(p, x, heads=2, mask=mask, cap=0.5)
    q, k, v = (split_heads(x @ p[name], 2) for name in ("Wq", "Wk", "Wv"))
    k, v = (np.concatenate([p[name][None], a], axis=2) for name, a in (("Pk", k), ("Pv", v)))
    seen = np.concatenate([np.ones((5, 3), bool), mask], axis=1)
    expected = merge_heads(ref_attention.attention(q, k, v, mask=seen, cap=0.5)) @ p["Wo"]
    assert laws.relative_error(y, expected) < PART


# ----------------------------------------------------------------------------------------------------------------- blocks

BLOCKS = {"pre_norm": "pre_norm_block", "post_norm": "post_norm_block", "after_norm": "after_norm_block",
          "deep_norm": "deep_norm_block", "scaled_norm": "scaled_norm_block",
          "both_norms": "both_norms_block", "parallel": "parallel_block"}  # fmt: skip
RATE = 0.4


def with_dropout(s, kind):
    """A case of a block with dropout."""
    case = COMPONENTS[BLOCKS[kind]].make(s)
    case.kwargs |= {"rate": RATE, "key": s.rng().integers(0, 2**64, s.B, dtype=np.uint64)}
    return case


def formula(case, kind):
    """The reference's block with its dropout, of the same bits, just before each addition."""
    p, x, bias = case.args
    key, settings_ = case.kwargs["key"], {n: part.keywords for n, part in case.kwargs.items() if isinstance(part, partial)}

    def norm(p, x):
        return ref_norm.layernorm(x, p["gamma"], p["beta"], **settings_["norm"])

    def attention(p, x, bias):
        return ref_attention.multi_head_attention(p, x, None, bias, **settings_["attention"])

    def mlp(p, x):
        return ref_mlp.mlp(p, x, activation=ACTIVATIONS[settings_["mlp"]["activation"]])

    def dropped(x, number):
        return ref_dropout.dropout(x, rate=RATE, key=fold(key, number))

    def first(p, x, bias):
        return dropped(attention(p, x, bias), 1)

    def second(p, x):
        return dropped(mlp(p, x), 2)

    if kind == "parallel":
        return ref_block.parallel_block(p, x, bias, norm=norm, attention=first, mlp=second)
    if kind in ("pre_norm", "post_norm", "deep_norm", "scaled_norm"):
        residual = partial(getattr(ref_block, kind), **settings_.get("residual", {}))
        return ref_block.block(p, x, bias, residual=residual, norm=norm, attention=first, mlp=second)
    # the norm comes after the sublayer, and dropout after the norm
    n1, n2 = p["norm1"], p["norm2"]
    before = {"after_norm": lambda p, x: x, "both_norms": lambda p, x: norm(p["before"], x)}[kind]
    after = {"after_norm": norm, "both_norms": lambda p, x: norm(p["after"], x)}[kind]
    h = x + dropped(after(n1, attention(p["attention"], before(n1, x), bias)), 1)
    return h + dropped(after(n2, mlp(p["mlp"], before(n2, h))), 2)


@pytest.mark.parametrize("kind", BLOCKS)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(s=sizes())
def test_dropout_comes_just_before_each_addition(device, kind, s):
    case = with_dropout(s, kind)
    f = COMPONENTS[BLOCKS[kind]].f
    y, _ = laws.call(f, case, device)
    assert laws.relative_error(to_host(y), formula(case, kind)) < rounding(*laws.CASE) / laws.SMALLEST
    rng = np.random.default_rng(s.seed)
    for argument, error in laws.directional_derivative(f, case, "cpu", rng):
        assert error < 1e-7, f"argument {argument}"
    laws.backward_is_linear_and_repeatable(f, case, device, rng)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_without_a_key_has_no_dropout(kind):
    s = laws.Sizes(B=2, T=3, S=4, D=5, K=2, G=2, E=3, F=4, V=6, seed=1, flags=(True, True, True))
    dropped, f = with_dropout(s, kind), COMPONENTS[BLOCKS[kind]].f
    without = laws.Case(dropped.args, {**dropped.kwargs, "key": None})
    plain = laws.Case(dropped.args, {n: v for n, v in dropped.kwargs.items() if n not in ("rate", "key")})
    y = laws.call(f, without, "cpu")[0]
    assert np.array_equal(y, laws.call(f, plain, "cpu")[0]) and not np.array_equal(y, laws.call(f, dropped, "cpu")[0])


def test_deep_norm_with_alpha_1_is_post_norm_and_its_scales_are_those_of_glm_130b():
    s = laws.Sizes(B=2, T=3, S=4, D=5, K=2, G=2, E=3, F=4, V=6, seed=1, flags=(True, True, True))
    case = COMPONENTS["post_norm_block"].make(s)
    deep = laws.Case(case.args, {**case.kwargs, "residual": partial(block.deep_norm, alpha=1.0)})
    assert np.array_equal(laws.call(block.block, deep, "cpu")[0], laws.call(block.block, case, "cpu")[0])
    alpha, beta = block.deep_norm_scales(70)
    assert abs(alpha * beta - 1) < rounding(4) and abs(alpha**2 - 140) < 140 * rounding(4)
    with pytest.raises(ValueError, match="layers: expected an integer from 1 to 2147483647, got 0"):
        block.deep_norm_scales(0)
    with pytest.raises(ValueError, match="deep_norm: alpha: expected a finite number > 0, got 0"):
        block.block(*case.args, **{**case.kwargs, "residual": partial(block.deep_norm, alpha=0)})


def test_at_the_start_a_deep_block_changes_its_input_by_no_more_than_its_share():
    """r = alpha x + beta s for x and s of the same size: s is a share 1 / (2 N + 1) of the sum, in the norm's input."""
    alpha, beta = block.deep_norm_scales(8)
    x = np.random.default_rng(0).normal(size=(1, 4, 64))

    def f(p, x):
        return beta * x[..., ::-1], lambda dy: (p, beta * dy[..., ::-1])

    y, _ = block.deep_norm({}, {}, x, norm=lambda p, r: (r / (alpha + beta), None), f=f, alpha=alpha)
    assert np.abs(y - x).max() <= 2 * np.abs(x).max() / 17 + FEW


def test_the_two_parts_of_a_parallel_block_drop_apart():
    """With both sublayers constant and equal, equal masks would give 0 or twice the same everywhere."""

    def ones(p, x, *shared):
        return np.ones_like(x), lambda dy: (p, np.zeros_like(dy))

    def same(p, x):
        return x, lambda dy: (p, dy)

    x = np.zeros((1, 20, 20))
    p = {"norm": {}, "attention": {}, "mlp": {}}
    y, _ = block.parallel_block(p, x, norm=same, attention=ones, mlp=ones, rate=0.5, key=np.array([3], dtype=np.uint64))
    assert set(np.unique(y).tolist()) == {0.0, 2.0, 4.0}


def test_every_norm_of_queries_and_keys_is_drawn():
    drawn = set()
    for seed in range(12):
        s = laws.Sizes(B=1, T=2, S=2, D=3, K=1, G=2, E=2, F=2, V=3, seed=seed, flags=(False, True, True))
        drawn.add(COMPONENTS["head_norm_attention"].make(s).kwargs["head_norm"].func)
    assert drawn == set(decoders.NORMS)
