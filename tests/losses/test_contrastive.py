"""InfoNCE, pooling and the regression losses beyond the laws: hand-computed values, padding, shards, bad input."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from tests.laws import FEW, PART, relative_error
from tinyplm.core import chain
from tinyplm.layers.pooling import cls_pooling, l2_normalise, max_pooling, mean_pooling
from tinyplm.losses.contrastive import info_nce, symmetric_info_nce
from tinyplm.losses.regression import binary_cross_entropy, mean_squared_error


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def _vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# ---- InfoNCE


def test_the_positive_is_in_the_denominator():
    a, b = np.array([[1.0, 0.0]]), np.array([[math.log(3), 5.0], [0.0, 7.0]])
    assert info_nce(a, b, targets=np.array([0]))[0] == pytest.approx(-math.log(3 / 4), rel=FEW)
    assert info_nce(a, b[:1], targets=np.array([0]))[0] == 0  # no negatives
    loss, _ = info_nce(a, b, targets=np.array([0]), temperature=0.5)
    assert loss == pytest.approx(-math.log(9 / 10), rel=FEW)


def test_of_n_equal_candidates_one_is_right_by_chance():
    a = np.tile(_vectors(1, 4), (6, 1))
    for loss, _ in (info_nce(a, a, targets=np.arange(6)), symmetric_info_nce(a, a)):
        assert loss == pytest.approx(math.log(6), rel=FEW)


def test_both_directions_are_two_calls():
    a, b, weights = _vectors(5, 3), _vectors(5, 3, seed=1), np.random.default_rng(2).random(5)
    settings = {"temperature": 0.2, "weights": weights, "total": 2.5}
    loss, back = symmetric_info_nce(a, b, **settings)
    there, there_back = info_nce(a, b, targets=np.arange(5), **settings)
    again, again_back = info_nce(b, a, targets=np.arange(5), **settings)
    assert loss == pytest.approx((there + again) / 2, rel=FEW)
    da, db = back(1.7)
    (da1, db1), (db2, da2) = there_back(0.85), again_back(0.85)
    assert relative_error([da, db], [da1 + da2, db1 + db2]) < PART


def test_shards_of_anchors_add_up_against_all_candidates():
    a, b, targets = _vectors(6, 3), _vectors(9, 3, seed=1), np.array([4, 0, -100, 8, 2, 1])
    whole, back = info_nce(a, b, targets=targets)
    parts = [info_nce(a[rows], b, targets=targets[rows], total=5) for rows in (slice(0, 2), slice(2, 6))]
    assert sum(part[0] for part in parts) == pytest.approx(whole, rel=FEW)
    da, db = back(1.0)
    grads = [part[1](1.0) for part in parts]
    assert relative_error(np.concatenate([g[0] for g in grads]), da) < PART
    assert relative_error(grads[0][1] + grads[1][1], db) < PART
    assert not da[2].any()


def test_cosine_similarity_by_normalising_first():
    """The loss then ignores the vectors' lengths, and the gradient is orthogonal to them."""
    x = _vectors(4, 5)
    y, back = chain(x, l2_normalise)
    loss, loss_back = symmetric_info_nce(y, y[::-1], temperature=0.1)
    da, _ = loss_back(1.0)
    assert abs((back(da) * x).sum(axis=1)).max() < PART
    scaled, _ = l2_normalise(x * np.array([[1], [9], [0.1], [3]]))
    assert symmetric_info_nce(scaled, y[::-1], temperature=0.1)[0] == pytest.approx(loss, rel=PART)


def test_small_temperatures_do_not_overflow_and_float32_stays():
    a = (_vectors(4, 8) * 30).astype("f4")
    for temperature in (0.001, np.float64(0.01)):
        loss, back = info_nce(a, a, targets=np.arange(4), temperature=temperature)
        assert loss.dtype == "f4" and np.isfinite(loss) and all(g.dtype == "f4" and np.isfinite(g).all() for g in back(1.0))


def test_bad_vectors_are_refused():
    a, targets = np.ones((2, 3)), np.array([0, 1])
    for b in (np.ones((2, 4)), np.ones(3), np.ones((1, 2, 3))):
        with raises(
            ValueError, f"b: expected an array of floating-point numbers of shape (N, 3), got float64 array of shape {b.shape}"
        ):
            info_nce(a, b, targets=targets)
    with raises(ValueError, "b: expected an array of floating-point numbers of shape (2, 3), got float64 array of shape (4, 3)"):
        symmetric_info_nce(a, np.ones((4, 3)))
    for temperature in (0, -1, float("nan")):
        with raises(ValueError, f"temperature: expected a finite number > 0, got {temperature}"):
            info_nce(a, a, targets=targets, temperature=temperature)
    with raises(ValueError, "targets: expected integers from 0 to 1, or -100 for ignored, got 2"):
        info_nce(a, a, targets=np.array([0, 2]))


# ---- pooling


def test_padding_has_no_influence_and_no_gradient():
    x, mask = _vectors(2, 4, 3), np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool)
    other = np.where(mask[:, :, None], x, 77.0)
    for pooling in (mean_pooling, max_pooling):
        y, back = pooling(x, mask=mask)
        assert np.array_equal(y, pooling(other, mask=mask)[0]) and not y[1].any()
        dx = back(_vectors(2, 3, seed=1))
        assert not dx[~mask].any() and dx[0].any()
    assert mean_pooling(x, mask=mask)[0][0] == pytest.approx(x[0, [0, 1, 3]].mean(axis=0), rel=FEW)


def test_of_equal_maxima_the_first_gets_the_gradient():
    x = np.array([[[5.0], [1.0], [2.0], [2.0]]])
    _, back = max_pooling(x, mask=np.array([[False, True, True, True]]))
    assert back(np.array([[3.0]]))[0, :, 0].tolist() == [0, 0, 3, 0]


def test_normalised_vectors_have_length_one_and_zero_stays_zero():
    x = _vectors(5, 3) * 1e-3
    x[2] = 0
    y, back = l2_normalise(x)
    assert np.linalg.norm(y, axis=-1) == pytest.approx([1, 1, 0, 1, 1], rel=FEW)
    dx = back(_vectors(5, 3))
    assert np.isfinite(dx).all() and np.sum(dx * x, axis=-1) == pytest.approx(np.zeros(5), abs=FEW)  # lengths do not matter


def test_bad_masks_are_refused():
    x = np.ones((2, 3, 4))
    for pooling in (mean_pooling, max_pooling):
        with raises(TypeError, "expected a boolean array"):
            pooling(x, mask=np.ones((2, 3)))
        with raises(ValueError, "pooling: mask: expected booleans of shape (2, 3), as x (2, 3, 4) has, got"):
            pooling(x, mask=np.ones((2, 4), bool))
    assert cls_pooling(x)[0].shape == (2, 4)


# ---- numbers and labels


def test_squared_error_by_hand():
    y, targets = np.array([1.0, 5.0, 7.0]), np.array([3.0, -100.0, np.nan])
    loss, back = mean_squared_error(y, targets=targets)
    assert loss == (4 + 105**2) / 2 and back(1.0).tolist() == [-2, 105, 0]
    loss, back = mean_squared_error(y, targets=targets, weights=np.array([1, 0, 9.0]), total=4)
    assert loss == 1 and back(2.0).tolist() == [-2, 0, 0]
    assert mean_squared_error(y, targets=np.full(3, np.nan))[0] == 0
    assert mean_squared_error(y, targets=np.array([1, 5, 9]))[0] == pytest.approx(4 / 3)  # integers work too


def test_binary_cross_entropy_by_hand():
    logits, targets = np.array([[math.log(3), 0.0], [2.0, -1000.0]]), np.array([[1, 0], [-100, 1]])
    loss, back = binary_cross_entropy(logits[:1], targets=targets[:1])
    assert loss == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, rel=FEW)
    assert back(1.0) == pytest.approx(np.array([[-0.125, 0.25]]), rel=FEW)
    loss, back = binary_cross_entropy(logits, targets=targets, total=1)
    assert loss == pytest.approx(1000 + math.log(8 / 3), rel=FEW)  # no overflow
    assert back(1.0)[1].tolist() == [0, -1]
    soft, _ = binary_cross_entropy(np.array([0.3]), targets=np.array([0.25]))
    p = 1 / (1 + math.exp(-0.3))
    assert soft == pytest.approx(-0.25 * math.log(p) - 0.75 * math.log(1 - p), rel=FEW)


@pytest.mark.parametrize("loss", [mean_squared_error, binary_cross_entropy])
def test_shards_add_up_and_bad_input_is_refused(loss):
    y, targets = _vectors(6), np.random.default_rng(1).random(6)
    whole, back = loss(y, targets=targets)
    parts = [loss(y[rows], targets=targets[rows], total=6) for rows in (slice(0, 2), slice(2, 6))]
    assert sum(part[0] for part in parts) == pytest.approx(whole, rel=FEW)
    assert relative_error(np.concatenate([part[1](1.0) for part in parts]), back(1.0)) < FEW
    with raises(ValueError, "targets: expected an array of numbers of shape (6,), got float64 array of shape (3,)"):
        loss(y, targets=targets[:3])
    with raises(ValueError, "weights: expected None or an array of numbers of shape (6,), got float64 array of shape (6, 1)"):
        loss(y, targets=targets, weights=np.ones((6, 1)))
    for total in (0, -1, float("nan")):
        with raises(ValueError, f"total: expected a finite number > 0, got {total}"):
            loss(y, targets=targets, total=total)


def test_labels_out_of_range_are_refused():
    for wrong in (2.0, -1.0, np.nan):
        with raises(ValueError, f"targets: expected numbers from 0 to 1, or -100 for ignored, got {wrong}"):
            binary_cross_entropy(np.zeros(2), targets=np.array([-100, wrong]))
