"""Losses of balance beyond the laws: perfect balance, parts that add up, padding, and the bias that needs no loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference.losses.balance as ref
from tests.laws import FEW, PART, SINGLE, relative_error
from tinyplm.backend import to_device, to_host
from tinyplm.layers.routing import expert_counts, top_experts
from tinyplm.layers.softmax import softmax
from tinyplm.losses.balance import load_balancing_loss, normalised_sigmoid, router_z_loss, sequence_balance_loss, updated_bias

on_devices = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
X = 6
seeds = st.integers(0, 2**32 - 1)


def routed(seed, *shape, k=2):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (*shape, X))
    return rng, logits, top_experts(logits, top_k=k), (rng.random(shape) < 0.7) * 1.0


@pytest.mark.parametrize("k", [1, 2, 3])
def test_perfect_balance(k):
    """Each expert is chosen equally often, with equal probabilities: k, or 1 where k is divided out."""
    choice = (np.arange(2 * X)[:, None] + np.arange(k)) % X
    logits = np.full((2 * X, X), 0.7)
    assert float(load_balancing_loss(logits, choice=choice)[0]) == pytest.approx(k, rel=FEW)
    assert float(sequence_balance_loss(logits, choice=choice)[0]) == pytest.approx(1, rel=FEW)
    assert float(router_z_loss(logits)[0]) == pytest.approx((0.7 + np.log(X)) ** 2, rel=FEW)


def test_all_tokens_at_one_expert():
    """f = (1, 0, ...) and P nearly so: X, the worst."""
    logits = np.zeros((5, X))
    logits[:, 2] = 800.0
    choice = top_experts(logits, top_k=1)
    assert float(load_balancing_loss(logits, choice=choice)[0]) == pytest.approx(X, rel=FEW)
    assert float(sequence_balance_loss(logits, choice=choice, affinities=softmax)[0]) == pytest.approx(X, rel=FEW)


@given(seed=seeds)
def test_parts_add_up_with_the_fractions_of_the_whole_step(seed):
    """Whatever the cut; counts add up bit for bit."""
    rng, logits, choice, w = routed(seed, 9)
    whole, whole_back = load_balancing_loss(logits, choice=choice, weights=w)
    cuts = [0, *sorted(rng.integers(0, 10, 2)), 9]
    parts = [slice(*pair) for pair in zip(cuts, cuts[1:])]
    counts = sum(expert_counts(choice[part], experts=X, weights=w[part]) for part in parts)
    tokens = max(w.sum(), 1.0)
    done = [load_balancing_loss(logits[q], fractions=counts / tokens, weights=w[q], total=tokens) for q in parts]
    assert abs(sum(float(loss) for loss, _ in done) - float(whole)) < PART * X * 2
    assert relative_error(np.concatenate([back(1.3) for _, back in done]), whole_back(1.3)) < PART


@given(seed=seeds)
def test_sequences_add_up(seed):
    _, logits, choice, w = routed(seed, 4, 5)
    whole, whole_back = sequence_balance_loss(logits, choice=choice, weights=w, total=4)
    done = [sequence_balance_loss(logits[b], choice=choice[b], weights=w[b], total=4) for b in range(4)]
    assert abs(sum(float(loss) for loss, _ in done) - float(whole)) < PART * X
    assert relative_error(np.stack([back(1.3) for _, back in done]), whole_back(1.3)) < PART


@on_devices
@given(seed=seeds)
def test_padding_has_no_influence_and_no_gradient(device, seed):
    """Exactly none, also a whole sequence of it."""
    rng, logits, choice, w = routed(seed, 3, 5)
    w[1] = 0.0
    other = np.where(w[..., None] > 0, logits, rng.normal(0, 9, logits.shape))
    other_choice = np.where(w[..., None] > 0, choice, rng.integers(0, X, choice.shape))
    for loss, more in ((load_balancing_loss, True), (sequence_balance_loss, True), (router_z_loss, False)):
        values = []
        for z, c in ((logits, choice), (other, other_choice)):
            kwargs = {"choice": to_device(c, device)} if more else {}
            value, backward = loss(to_device(z, device), weights=to_device(w, device), **kwargs)
            gradient = to_host(backward(1.0))
            assert not gradient[w == 0].any()
            values.append((to_host(value).tobytes(), gradient[w > 0].tobytes()))
        assert values[0] == values[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(dtype):
    """No overflow, no division of 0 by 0; a z-loss of 1000^2."""
    logits = np.array([[1000.0, -1000.0, 0.0], [-1000.0, -1000.0, -1000.0]], dtype)
    p, backward = normalised_sigmoid(logits)
    expected = np.array([[2 / 3, 0, 1 / 3], [1 / 3] * 3])
    assert p.dtype == dtype and relative_error(p, expected) < (SINGLE * 4 if dtype == "float32" else PART)
    assert np.isfinite(backward(np.array([[0.5, -2.0, 1.0], [3.0, 0.25, -1.0]], dtype))).all()
    loss, backward = router_z_loss(logits)
    exact = (1000.0**2 + (np.log(3) - 1000) ** 2) / 2
    assert float(loss) == pytest.approx(exact, rel=SINGLE * 4 if dtype == "float32" else PART)
    z = np.array([1000.0, np.log(3) - 1000])
    dlogits, expected = backward(np.array(-0.7, dtype)), -0.7 * z[:, None] * np.array([[1, 0, 0], [1 / 3] * 3])
    assert relative_error(dlogits, expected) < (SINGLE * 4 if dtype == "float32" else PART)


def test_choice_or_fractions():
    logits = np.zeros((3, X))
    for given_ in ({}, {"choice": np.zeros((3, 1), int), "fractions": np.ones(X)}):
        with pytest.raises(ValueError, match=r"^load_balancing_loss: expected either choice or fractions, got both or neither"):
            load_balancing_loss(logits, **given_)


# ------------------------------------------------------------------------------------------------------------------ the bias


@on_devices
@given(seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_the_updated_bias(device, seed, dtype):
    rng = np.random.default_rng(seed)
    bias, counts = rng.normal(size=X).astype(dtype), rng.integers(0, 4, X)
    new = to_host(updated_bias(to_device(bias, device), to_device(counts, device), rate=0.001))
    assert new.dtype == dtype
    assert np.max(np.abs(new - ref.updated_bias(bias, counts, rate=0.001))) < 8 * np.finfo(dtype).eps * np.max(np.abs(bias) + 1)
    assert np.array_equal(new[counts == counts.mean()], bias[counts == counts.mean()])


def test_updates_of_the_bias_balance_a_fixed_batch():
    """Scores that favour some experts: after some updates every expert has its share, to within a few tokens."""
    rng = np.random.default_rng(0)
    scores = rng.random((600, X)) + 0.5 * np.arange(X)
    bias = np.zeros(X)
    for _ in range(400):
        bias = updated_bias(bias, expert_counts(top_experts(scores, top_k=2, bias=bias), experts=X), rate=0.01)
    counts = expert_counts(top_experts(scores, top_k=2, bias=bias), experts=X)
    before = expert_counts(top_experts(scores, top_k=2), experts=X)
    assert np.ptp(before) > 500 and np.ptp(counts) < 60
