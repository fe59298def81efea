"""Cross-entropy beyond the laws: chunks, shards, memory, bad input."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws import equal, relative_error
from tinyplm.losses.cross_entropy import cross_entropy, vocabulary_cross_entropy


def _case(N=12, D=5, V=7, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, V, N)
    targets[::4] = -100
    return rng.normal(size=(N, D)), rng.normal(size=(D, V)), rng.normal(size=V), targets, rng.random(N)


@given(chunk=st.integers(1, 15), smoothing=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 99))
def test_chunks_equal_full_logits_in_value_and_gradient(chunk, smoothing, seed):
    x, W, b, targets, weights = _case(seed=seed)
    options = {"targets": targets, "weights": weights, "smoothing": smoothing}
    full, back = cross_entropy(x @ W + b, **options)
    dlogits = back(1.7)
    loss, chunked_back = vocabulary_cross_entropy(x, W, b, chunk=chunk, **options)
    assert abs(loss - full) < 1e-13
    assert relative_error(list(chunked_back(1.7)), [dlogits @ W.T, x.T @ dlogits, dlogits.sum(0)]) < 1e-12


def test_uniform_logits_give_the_logarithm_of_the_vocabulary():
    loss, _ = cross_entropy(np.zeros((3, 50)), targets=np.array([0, 7, 49]))
    assert loss == pytest.approx(np.log(50), rel=1e-14)


def test_shards_with_one_total_add_up_to_the_batch():
    x, W, b, targets, weights = _case()
    total = float(weights[targets != -100].sum())
    whole, back = cross_entropy(x @ W + b, targets=targets, weights=weights)
    parts = [
        cross_entropy((x @ W + b)[i : i + 5], targets=targets[i : i + 5], weights=weights[i : i + 5], total=total)
        for i in (0, 5, 10)
    ]
    assert sum(p[0] for p in parts) == pytest.approx(whole, rel=1e-14)
    assert relative_error(np.concatenate([p[1](1.0) for p in parts]), back(1.0)) < 1e-14


def test_ignored_positions_have_exactly_no_gradient_and_all_ignored_is_zero():
    x, W, b, targets, _ = _case()
    _, back = cross_entropy(x @ W + b, targets=targets)
    assert not back(1.0)[targets == -100].any()
    loss, back = cross_entropy(x @ W + b, targets=np.full(12, -100))
    assert loss == 0 and not back(1.0).any()


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    loss, back = cross_entropy(logits, targets=np.array([1]))
    assert loss == 2e4 and np.isfinite(back(1.0)).all()


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
    "f",
    [
        lambda t, **kwargs: cross_entropy(np.ones((3, 4)), targets=t, **kwargs),
        lambda t, **kwargs: vocabulary_cross_entropy(np.ones((3, 2)), np.ones((2, 4)), targets=t, **kwargs),
    ],
)
def test_bad_targets_are_refused(f):
    with pytest.raises(ValueError, match="target 4 is out of range: expected 0 to 3, or -100"):
        f(np.array([0, 4, -100]))
    with pytest.raises(ValueError, match="2 targets for 3 positions"):
        f(np.array([0, 1]))
    with pytest.raises(ValueError, match="smoothing < 1, got 1"):
        f(np.array([0, 1, 2]), smoothing=1)
