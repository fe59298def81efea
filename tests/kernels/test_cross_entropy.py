"""Chunked cross-entropy: never all logits at once, gradients in half precision, shards without targets."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws import FEW, equal, relative_error
from tests.losses.test_cross_entropy import _case
from tinyplm.backend import to_device, to_host
from tinyplm.kernels.cross_entropy import vocabulary_cross_entropy
from tinyplm.losses.cross_entropy import cross_entropy


@given(chunk=st.integers(1, 15), smoothing=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 99))
def test_chunks_equal_full_logits_in_value_and_gradient(chunk, smoothing, seed):
    x, W, b, targets, weights = _case(seed=seed)
    options = {"targets": targets, "weights": weights, "smoothing": smoothing}
    full, back = cross_entropy(x @ W + b, **options)
    dlogits = back(1.7)
    loss, chunked_back = vocabulary_cross_entropy(x, W, b, chunk=chunk, **options)
    assert abs(loss - full) < 1e-13
    assert relative_error(list(chunked_back(1.7)), [dlogits @ W.T, x.T @ dlogits, dlogits.sum(0)]) < 1e-12


def test_factors_hold_all_tokens_whatever_the_chunk():
    x, W, b, targets, weights = _case(seed=1)
    options = {"targets": targets, "weights": weights, "chunk": 2}
    (_, whole), (_, factored) = (vocabulary_cross_entropy(x, W, b, factors=f, **options) for f in (False, True))
    dx, product, db = factored(1.7)
    assert relative_error([dx, product.a.T @ product.b, db], list(whole(1.7))) < 1e-12


def test_full_logits_are_never_held():
    rng = np.random.default_rng(0)
    N, D, V = 2048, 8, 4096
    x, W = rng.normal(size=(N, D)).astype("f4"), rng.normal(size=(D, V)).astype("f4")
    targets = rng.integers(0, V, N)
    tracemalloc.start()
    _, back = vocabulary_cross_entropy(x, W, targets=targets, chunk=64)
    back(1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < N * V * 4 / 8, f"{peak} bytes, full logits are {N * V * 4}"


def test_without_grad_there_is_no_backward():
    x, W, b, targets, weights = _case()
    loss, back = vocabulary_cross_entropy(x, W, b, targets=targets, weights=weights, grad=False)
    assert back is None and equal(loss, vocabulary_cross_entropy(x, W, b, targets=targets, weights=weights)[0])


@pytest.mark.parametrize(
    ("W", "b"),
    [
        (np.ones(2), None),
        (np.ones((3, 4)), None),
        (np.ones((2, 4)), np.ones(1)),
        (np.ones((2, 4)), np.ones((1, 4))),
    ],
)
def test_matrices_that_do_not_fit_are_refused(W, b):
    with pytest.raises(
        ValueError,
        match=r"vocabulary_cross_entropy: (W: expected .* \(2, V\)|b: expected .* \(4,\)), got",
    ):
        vocabulary_cross_entropy(np.ones((3, 2)), W, b, targets=np.zeros(3, dtype=int))


def test_half_precision_keeps_what_the_loss_scale_is_for(device):
    """A few tokens of a step of 2^20: p / total is below 2^-24, float16's smallest number; loss scale * p / total is not."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 50, 64)
    half = [rng.normal(size=shape).astype(np.float16) for shape in ((64, 8), (8, 50), (50,))]
    run = {}
    for dtype in ("float16", "float64"):
        x, W, b = (to_device(a.astype(dtype), device) for a in half)
        _, back = vocabulary_cross_entropy(x, W, b, targets=to_device(targets, device), total=2**20, chunk=16)
        dloss = to_device(np.array(2.0**20, dtype="float32"), device)  # as passed by a loss scaler
        first, again = ([to_host(g) for g in back(dloss)] for _ in range(2))
        assert equal(first, again) and all(g.dtype == dtype for g in first)
        run[dtype] = first
    assert all(relative_error(a, b) < 1e-2 for a, b in zip(run["float16"], run["float64"], strict=True))


def test_half_precision_divides_by_the_total_at_any_dloss():
    """1 is the case in which float32 has nothing left to do in the backward."""
    rng = np.random.default_rng(0)
    x, W, b = (rng.normal(size=shape).astype(np.float16) for shape in ((6, 3), (3, 5), (5,)))
    targets = rng.integers(0, 5, 6)
    _, back = vocabulary_cross_entropy(x, W, b, targets=targets, total=8.0)
    assert all(equal(one, two / 2) and one.any() for one, two in zip(back(1.0), back(2.0), strict=True))


def test_half_precision_takes_a_loss_scale_that_it_cannot_hold():
    """As a float, which does not promote arrays; gradients are small where the model is almost sure."""
    run = []
    for dtype in ("float16", "float64"):
        _, back = vocabulary_cross_entropy(10 * np.eye(3, dtype=dtype), np.eye(3, dtype=dtype), targets=np.arange(3), total=1.0)
        run.append(list(back(2.0**20)[:2]))
    assert all(relative_error(a, b) < 1e-2 for a, b in zip(*run, strict=True))


def test_large_logits():
    """exp of each of them overflows, even in float64."""
    x, W, b, targets, weights = _case(seed=2)
    for smoothing in (0.0, 0.2):
        options = {"targets": targets, "weights": weights, "smoothing": smoothing}
        loss, back = vocabulary_cross_entropy(x, 1e4 * W, b, chunk=2, **options)
        full, full_back = cross_entropy(x @ (1e4 * W) + b, **options)
        near = FEW * 1e5  # how far rounding moves logits of that size, and with them p
        assert abs(loss - full) < FEW * full and relative_error(back(1.0)[2], full_back(1.0).sum(0)) < near


def test_half_precision_sums_over_many_tokens():
    """db is a sum of 4096 equal numbers: a float16 running sum would stop growing long before the end."""
    x, W, b = (np.zeros(shape, dtype=np.float16) for shape in ((4096, 1), (1, 2), (2,)))
    for chunk in (1, 4096):
        _, back = vocabulary_cross_entropy(x + 1, W, b, targets=np.zeros(4096, dtype=int), total=1, chunk=chunk)
        _, dW, db = back(1.0)
        assert db.tolist() == [-2048, 2048] and dW.tolist() == [[-2048, 2048]]
        assert back(0.5)[2].tolist() == [-1024, 1024]
        assert all(g.dtype == np.float16 for dloss in (1.0, 0.5) for g in back(dloss))


@pytest.mark.parametrize("factors", [False, True])
def test_no_tokens_at_all_are_a_loss_and_gradients_of_zero(device, factors):
    """The case of a shard without masked tokens."""
    rng = np.random.default_rng(0)
    x, W, b = (to_device(rng.normal(size=s).astype("float32"), device) for s in ((0, 4), (4, 6), (6,)))
    targets = to_device(np.zeros(0, np.int64), device)
    loss, back = vocabulary_cross_entropy(x, W, b, targets=targets, total=3.0, factors=factors)
    dx, dW, db = back(2.0)
    dW = to_host(dW.a).T @ to_host(dW.b) if factors else to_host(dW)
    assert loss.dtype == np.float32 and float(to_host(loss)) == 0 and dx.shape == x.shape
    assert dW.shape == W.shape and dW.dtype == np.float32 and not dW.any() and not to_host(db).any()
