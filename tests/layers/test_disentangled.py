"""Disentangled attention and the convolution: properties beyond the laws that hold for every component."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.layers.disentangled as ref
from tests.laws import FEW, PART, relative_error
from tinyplm.kernels.disentangled import relative_scores
from tinyplm.layers import disentangled, relative_buckets
from tinyplm.layers.convolution import convolution


def _delta(rows, T, S):
    """The rows as a table indexed by query and key."""
    return rows[np.arange(T)[:, None] - np.arange(S) + S]


@given(T=st.integers(1, 9), S=st.integers(1, 9), span=st.integers(1, 12))
def test_clipped_rows_are_equation_3(T, S, span):
    expected = ref.row_table(T, S, partial(ref.clipped_row, span=span))
    np.testing.assert_array_equal(_delta(relative_buckets.clipped_rows(T, S, span=span), T, S), expected)


@given(buckets=st.integers(2, 300), more=st.integers(2, 700))
def test_log_buckets_are_those_of_the_reference(buckets, more):
    longest = buckets // 2 + more
    distances = np.unique(np.r_[-3:4, -longest - 2 : longest + 3 : 7, buckets // 2 - 1 : buckets // 2 + 3])
    expected = [ref.log_bucket(int(d), buckets=buckets, longest=longest) for d in distances]
    np.testing.assert_array_equal(relative_buckets.log_buckets(distances, buckets=buckets, longest=longest), expected)


def test_log_buckets_of_the_published_models():
    """256 buckets for distances up to 512: exact up to 128, then increasingly wide, odd in the distance; 511 reaches the last."""
    d = np.arange(-511, 512)
    buckets = relative_buckets.log_buckets(d, buckets=256, longest=512)
    np.testing.assert_array_equal(buckets, [ref.log_bucket(int(i), buckets=256, longest=512) for i in d])
    near = np.abs(d) <= 128
    np.testing.assert_array_equal(buckets[near], d[near])
    np.testing.assert_array_equal(buckets, -buckets[::-1])
    assert (np.diff(buckets) >= 0).all() and (np.diff(buckets) <= 1).all()
    assert buckets[-1] == 255 and list(buckets[-4:]).count(255) == 4


@pytest.mark.parametrize("T, S", [(1, 1), (1, 7), (7, 1), (40, 40), (33, 50)])
@pytest.mark.parametrize("span", [3, 20, 60])
def test_shifting_is_gathering(T, S, span):
    """Windows shorter and longer than the sequence; values and gradients, equal up to the order of summation."""
    rng = np.random.default_rng(T + S + span)
    x, table, dy = rng.normal(size=(2, 3, T, 4)), rng.normal(size=(2 * span, 3, 4)), rng.normal(size=(2, 3, T, S))
    rows = relative_buckets.clipped_rows(T, S, span=span)
    fast, fast_back = relative_scores(x, table, rows=rows)
    plain, plain_back = disentangled.relative_scores(x, table, rows=rows)
    assert relative_error(fast, plain) < PART
    for a, b in zip(fast_back(dy), plain_back(dy), strict=True):
        assert relative_error(a, b) < PART


def test_scores_depend_on_the_distance_alone():
    """With the same content everywhere, every diagonal of the scores is constant."""
    rng = np.random.default_rng(0)
    x = np.broadcast_to(rng.normal(size=(1, 2, 1, 3)), (1, 2, 6, 3))
    y, _ = disentangled.relative_scores(x, rng.normal(size=(8, 2, 3)), rows=relative_buckets.clipped_rows(6, 6, span=4))
    np.testing.assert_allclose(y[..., 1:, 1:], y[..., :-1, :-1], rtol=0, atol=FEW)
    assert abs(y[0, 0, 0, 1] - y[0, 0, 1, 0]) > 0.1  # forward and backward distances differ


def test_padding_has_no_influence_and_no_gradient():
    rng = np.random.default_rng(1)
    D, H, T = 6, 2, 5
    p = {name: rng.normal(size=(D, D)) for name in ("Wq", "Wk", "Wv", "Wo")}
    x, relative = rng.normal(size=(2, T, D)), rng.normal(size=(6, D))
    real = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=bool)
    mask = real[:, None, None, :] & real[:, None, :, None]
    attend = partial(disentangled.disentangled_multi_head_attention, heads=H, terms=("c2p", "p2c"), mask=mask,
                     rows=relative_buckets.clipped_rows(T, T, span=3))  # fmt: skip
    y, backward = attend(p, x, None, relative)
    other, _ = attend(p, np.where(real[..., None], x, 100.0), None, relative)
    np.testing.assert_array_equal(y, other)
    assert not y[1, 3:].any()  # nothing to attend to
    dp, dx, dcontext, drelative = backward(rng.normal(size=y.shape))
    assert not dx[1, 3:].any() and dx[real].all() and dcontext is None and drelative.any()


def test_what_does_not_fit_is_refused():
    q = np.zeros((1, 2, 4, 3))
    table, rows = np.zeros((6, 2, 3)), relative_buckets.clipped_rows(4, 4, span=3)
    for wrong in ({"Kr": table, "rows": rows[1:]}, {"Qr": table, "rows": None}, {"Qr": np.zeros((6, 1, 3)), "rows": rows}):
        with pytest.raises(ValueError, match=r"expected \(R, 2, 3\) and \(9,\)|Qr: expected .* \(R2, 2, 3\)"):
            disentangled.disentangled_attention(q, q, q, **wrong)
    with pytest.raises(ValueError, match="rows: expected integers from 0 to 4, got 5"):
        disentangled.disentangled_attention(q, q, q, table[:5], rows=rows)
    for buckets, longest in ((1, 9), (10, 6)):
        with pytest.raises(ValueError, match="log_buckets: expected"):
            relative_buckets.bucketed_rows(4, 4, buckets=buckets, longest=longest)
    for W, groups in (((2, 4, 4), 1), ((3, 4, 4), 2), ((3, 2, 3), 2)):
        with pytest.raises(ValueError, match="convolution: x"):
            convolution(np.zeros((1, 5, 4)), np.zeros(W), groups=groups)


def test_a_convolution_sees_zeros_outside_the_sequence():
    rng = np.random.default_rng(2)
    x, W = rng.normal(size=(2, 4, 6)), rng.normal(size=(5, 3, 4))
    y, _ = convolution(x, W, groups=2)
    longer, _ = convolution(np.pad(x, ((0, 0), (3, 3), (0, 0))), W, groups=2)
    np.testing.assert_allclose(y, longer[:, 3:-3], rtol=0, atol=FEW)
    identity = np.zeros((3, 6, 6))
    identity[1] = np.eye(6)
    np.testing.assert_array_equal(convolution(x, identity)[0], x)
