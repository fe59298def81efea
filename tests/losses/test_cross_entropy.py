"""Cross-entropy beyond the laws: chunks, shards, memory, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import FEW, relative_error
from tinyplm.losses.cross_entropy import cross_entropy, vocabulary_cross_entropy


def _case(N=12, D=5, V=7, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, V, N)
    targets[::4] = -100
    return rng.normal(size=(N, D)), rng.normal(size=(D, V)), rng.normal(size=V), targets, rng.random(N)


def test_uniform_logits_give_the_logarithm_of_the_vocabulary():
    loss, _ = cross_entropy(np.zeros((3, 50)), targets=np.array([0, 7, 49]))
    assert loss == pytest.approx(np.log(50), rel=FEW)


def test_shards_with_one_total_add_up_to_the_batch():
    x, W, b, targets, weights = _case()
    total = float(weights[targets != -100].sum())
    whole, back = cross_entropy(x @ W + b, targets=targets, weights=weights)
    parts = [
        cross_entropy((x @ W + b)[i : i + 5], targets=targets[i : i + 5], weights=weights[i : i + 5], total=total)
        for i in (0, 5, 10)
    ]
    assert sum(p[0] for p in parts) == pytest.approx(whole, rel=FEW)
    assert relative_error(np.concatenate([p[1](1.0) for p in parts]), back(1.0)) < FEW


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


def test_numbers_of_numpy_as_total_do_not_promote():
    x, W, b, targets, _ = (a.astype("f4") if a.dtype == "f8" else a for a in _case())
    for total in (9, np.int64(9), np.float64(9)):
        assert cross_entropy(x @ W, targets=targets, total=total)[0].dtype == "f4"
        assert vocabulary_cross_entropy(x, W, b, targets=targets, total=total)[0].dtype == "f4"


@pytest.mark.parametrize(
    "f",
    [
        lambda t, **kwargs: cross_entropy(np.ones((3, 4)), targets=t, **kwargs),
        lambda t, **kwargs: vocabulary_cross_entropy(np.ones((3, 2)), np.ones((2, 4)), targets=t, **kwargs),
    ],
)
def test_bad_targets_are_refused(f):
    with pytest.raises(ValueError, match="targets: expected integers from 0 to 3, or -100 for ignored, got 4"):
        f(np.array([0, 4, -100]))
    for wrong, shape in ((np.array([0, 1]), r"\(2,\)"), (np.array([[0, 1, 2]]), r"\(1, 3\)")):
        with pytest.raises(
            ValueError, match=rf"targets: expected an array of integers of shape \(3,\), got int64 array of shape {shape}"
        ):
            f(wrong)
    with pytest.raises(ValueError, match=r"weights: expected .* \(3,\), got .* \(1,\)"):
        f(np.array([0, 1, 2]), weights=np.ones(1))
    with pytest.raises(ValueError, match="targets: expected an array of integers .* got float64"):
        f(np.array([0.0, 1, 2]))
    for total in (0, -1.5, float("nan"), float("inf"), np.int64(0), np.array(0.0), "1", True, [1]):
        with pytest.raises(ValueError, match="total: expected "):
            f(np.array([0, 1, 2]), total=total)
    with pytest.raises(ValueError, match="smoothing: expected a finite number >= 0 and < 1, got 1"):
        f(np.array([0, 1, 2]), smoothing=1)
