"""T5's buckets and its relative position bias: properties beyond the laws that hold for every component."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference.layers.relative_bias as ref
from tests.laws import FEW, PART, relative_error
from tinyplm import core
from tinyplm.backend import to_device, to_host
from tinyplm.layers.attention import multi_head_attention
from tinyplm.layers.relative_bias import relative_bias
from tinyplm.layers.relative_buckets import t5_buckets, t5_rows

T5 = {"buckets": 32, "longest": 128}


@given(buckets=st.integers(4, 300), more=st.integers(1, 700), bidirectional=st.booleans())
def test_buckets_are_those_of_the_reference(buckets, more, bidirectional):
    longest = buckets // 2 + more
    ends = np.r_[-3:4, -longest - 2 : longest + 3 : 7, buckets // 4 - 2 : buckets // 4 + 2]
    distances = np.unique(np.concatenate([ends, -ends]))
    options = {"buckets": buckets, "longest": longest, "bidirectional": bidirectional}
    expected = [ref.t5_bucket(int(d), **options) for d in distances]
    np.testing.assert_array_equal(t5_buckets(distances, **options), expected)


def test_buckets_of_the_published_models():
    """32 buckets up to 128.  Encoder: 16 for each side, half of them exact; decoder: all 32 for keys up to the query."""
    d = np.arange(-300, 301)
    encoder, decoder = (t5_buckets(d, **T5, bidirectional=both) for both in (True, False))
    at = dict(zip(d.tolist(), encoder.tolist()))
    edges = {0: 0, 1: 1, 7: 7, 8: 8, 11: 8, 12: 9, 15: 9, 16: 10, 22: 10, 23: 11, 90: 14, 91: 15, 128: 15, 300: 15}
    assert {n: at[-n] for n in edges} == edges
    assert all(at[n] == at[-n] + 16 for n in range(1, 301))
    assert not decoder[d >= 0].any()
    before = decoder[d <= 0][::-1]  # by distance 0, 1, ...
    np.testing.assert_array_equal(before[:17], np.arange(17))
    assert np.all(np.diff(before) >= 0) and before.max() == 31 and before[112] == 30 and before[113] == 31


@pytest.mark.parametrize("kind", ["int8", "int16", "int64", "uint8", "uint64"])
def test_buckets_of_any_integers(kind):
    d = np.array([0, 1, 7, 8, 100, 127] + ([-128, -1] if kind[0] == "i" else [])).astype(kind)
    for bidirectional in (True, False):
        expected = [ref.t5_bucket(int(x), **T5, bidirectional=bidirectional) for x in d]
        np.testing.assert_array_equal(t5_buckets(d, **T5, bidirectional=bidirectional), expected)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_rows_are_views_of_one_table_that_nobody_can_change(bidirectional):
    """A text of any length, token by token, with the distances of the whole text; a float is not taken for an integer."""
    options = {"buckets": 8, "longest": 20, "bidirectional": bidirectional}
    whole = t5_rows(70, 70, **options)
    for S in range(1, 71):
        one = t5_rows(1, S, **options)
        np.testing.assert_array_equal(one, whole[70 - S : 70])
        assert not one.flags.writeable
    with pytest.raises(ValueError, match="t5_buckets: buckets: expected an integer.*, got 8.0"):
        t5_rows(70, 70, **{**options, "buckets": 8.0})


@given(T=st.integers(1, 9), S=st.integers(1, 9), offset=st.none() | st.integers(0, 30), bidirectional=st.booleans())
def test_rows_are_the_buckets_by_diagonal(T, S, offset, bidirectional):
    options = {"buckets": 8, "longest": 20, "bidirectional": bidirectional}
    if offset is None and T > S:
        with pytest.raises(ValueError, match=f"t5_rows: T: expected at most S = {S} queries without an offset, got {T}"):
            t5_rows(T, S, **options)
        return
    rows = t5_rows(T, S, offset=offset, **options)
    first = S - T if offset is None else offset
    expected = ref.bucket_table(T, S, partial(ref.t5_bucket, **options), first=first)
    np.testing.assert_array_equal(rows[np.arange(S) - np.arange(T)[:, None] + T - 1], expected)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_bias_of_a_token_in_decoding_is_the_last_row_of_the_whole(bidirectional):
    table = np.random.default_rng(0).normal(size=(32, 3))
    rows = partial(t5_rows, **T5, bidirectional=bidirectional)
    whole, _ = relative_bias(table, rows=rows(200, 200), keys=200)
    for T in (1, 2, 70):
        last, _ = relative_bias(table, rows=rows(T, 200), keys=200)
        np.testing.assert_array_equal(last, whole[:, :, -T:])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(T=st.integers(1, 40), S=st.integers(1, 40), N=st.integers(1, 9), seed=st.integers(0, 999))
def test_rows_on_the_host_or_on_the_device(device, T, S, N, seed):
    """Each element of dbias is counted once, for the bucket of its diagonal."""
    rng = np.random.default_rng(seed)
    table, dbias, rows = rng.normal(size=(N, 2)), rng.normal(size=(1, 2, T, S)), rng.integers(0, N, T + S - 1)
    bucket = rows[np.arange(S) - np.arange(T)[:, None] + T - 1]
    expected = np.array([dbias[0][:, bucket == n].sum(axis=-1) for n in range(N)])
    for where in (rows, to_device(rows, device)):
        bias, backward = relative_bias(to_device(table, device), rows=where, keys=S)
        np.testing.assert_array_equal(to_host(bias), table[bucket].transpose(2, 0, 1)[None])
        dtable = to_host(backward(to_device(dbias, device)))
        assert dtable.shape == table.shape and relative_error(dtable, expected) < PART


def test_a_bias_that_all_layers_share():
    """As in T5: made once, passed to each layer; its gradient is the sum of what the layers give, each with its own table."""
    rng = np.random.default_rng(1)
    B, T, D, H, L, N = 2, 6, 4, 2, 3, 8
    ps = [{name: rng.normal(size=(D, D)) for name in ("Wq", "Wk", "Wv", "Wo")} for _ in range(L)]
    x, dy, table = rng.normal(size=(B, T, D)), rng.normal(size=(B, T, D)), rng.normal(size=(N, H))
    rows = t5_rows(T, T, buckets=N, longest=5, bidirectional=True)

    def layer(p, x, bias):
        y, back = multi_head_attention(p, x, None, bias, heads=H)

        def backward(dy):
            dp, dx, _, dbias = back(dy)
            return dp, dx, dbias

        return y, backward

    bias, bias_back = relative_bias(table, rows=rows, keys=T)
    y, stack_back = core.stack(layer, ps, x, bias)
    _, _, dbias = stack_back(dy)
    assert dbias.shape == (1, H, T, T)
    dtable = bias_back(dbias)

    x_i, backs = x, []
    for p in ps:
        bias, table_back = relative_bias(table.copy(), rows=rows, keys=T)
        x_i, back = layer(p, x_i, bias)
        backs.append((back, table_back))
    np.testing.assert_array_equal(y, x_i)
    dtables, dx = [], dy
    for back, table_back in reversed(backs):
        _, dx, dbias = back(dx)
        dtables.append(table_back(dbias))
    assert relative_error(dtable, sum(dtables)) < FEW * T * T
    assert all(relative_error(dtable, part) > 0.01 for part in dtables)


def test_half_precision_sums_in_float32():
    """In float16 the sum of 4096 ones along a diagonal would stop at 2048."""
    table = np.zeros((1, 1), dtype=np.float16)
    bias, backward = relative_bias(table, rows=np.zeros(64 + 64 - 1, dtype=int), keys=64)
    dtable = backward(np.ones(bias.shape, dtype=np.float16))
    assert bias.dtype == dtable.dtype == "float16" and dtable.item() == 4096


def test_what_does_not_fit_is_refused():
    table = np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"relative_bias: rows: expected at least 5 rows, T \+ S - 1 for S = 5 keys, got"):
        relative_bias(table, rows=np.zeros(4, dtype=int), keys=5)
    with pytest.raises(ValueError, match="rows: expected integers from 0 to 3, got 4"):
        relative_bias(table, rows=np.arange(5), keys=2)
    with pytest.raises(ValueError, match="rows: expected integers from 0 to 3, got -1"):
        relative_bias(table, rows=np.array([-1, 0]), keys=1)
    for buckets, longest, bidirectional in ((1, 9, False), (3, 9, True), (8, 4, False), (8, 2, True)):
        with pytest.raises(ValueError, match=f"t5_buckets: expected buckets >= . and longest > ., got {buckets} and {longest}"):
            t5_rows(4, 4, buckets=buckets, longest=longest, bidirectional=bidirectional)
