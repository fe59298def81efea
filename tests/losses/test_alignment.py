"""Alignment losses against hand-computed values, their statistics, and the advantages.  The laws are in test_components.py."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference.losses.advantages as ref
from tests.laws import FEW, PART, relative_error, rounding
from tinyplm.backend import to_device, to_host
from tinyplm.losses import advantages, policy
from tinyplm.losses.answers import label_scores, pair_log_probs
from tinyplm.losses.auxiliary import with_language_model
from tinyplm.losses.distillation import DIVERGENCES, distillation, vocabulary_distillation
from tinyplm.losses.preference import bradley_terry, dpo, implicit_reward, preference_statistics

LN2 = np.log(2)


def case(seed=0, shape=(4, 6)):
    """A random generator and a mask: each row holds an answer at a random place; one row has none."""
    draw = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=bool)
    for n in range(shape[0]):
        first, last = sorted(draw.integers(0, shape[1] + 1, 2))
        mask[n, first:last] = True
    mask[shape[0] // 2] = False
    return draw, mask


# ------------------------------------------------------------------------------------------------------- preferences


def test_a_policy_that_is_the_reference_has_ln_2():
    x = np.array([-3.0, -40.0, -1.5])
    for smoothing in (0.0, 0.3):
        loss, back = dpo(x, x - 1, reference_chosen=x, reference_rejected=x - 1, beta=0.2, smoothing=smoothing)
        assert float(loss) == pytest.approx(LN2, rel=FEW)
        dchosen, drejected = back(1.0)
        assert np.allclose(dchosen, -0.2 * (0.5 - smoothing) / 3, rtol=FEW) and np.array_equal(drejected, -dchosen)
    assert float(bradley_terry(x, x)[0]) == pytest.approx(LN2, rel=FEW)


def test_a_pair_by_hand():
    """z = 0.5 ((−1 − −2) − (−3 − −2)) = 1, so the loss is log(1 + 1/e)."""
    one = np.ones(1)
    loss, _ = dpo(-one, -3 * one, reference_chosen=-2 * one, reference_rejected=-2 * one, beta=0.5)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-1)), rel=FEW)
    loss, back = bradley_terry(3 * one, one, margin=1.0)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-1)), rel=FEW)
    assert back(1.0)[0][0] == pytest.approx(-1 / (1 + np.e), rel=FEW)


@pytest.mark.parametrize("sign", [-1, 1])
def test_large_differences_neither_overflow_nor_warn(sign):
    x = np.float32(sign) * np.array([200, 1e4], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss, back = bradley_terry(x, -x)
        d, _ = back(1.0)
    assert loss.dtype == d.dtype == np.float32
    assert float(loss) == (10200.0 if sign < 0 else 0.0) and np.allclose(d, [-0.5, -0.5] if sign < 0 else 0)


def test_statistics_of_preferences():
    chosen, rejected = np.array([1.0, 2.0, 0.0, 5.0]), np.array([0.0, 3.0, 0.0, 1.0])
    found = preference_statistics(chosen, rejected)
    assert found["accuracy"] == 0.625 and found["margin"] == 1.0
    parts = [preference_statistics(chosen[i:j], rejected[i:j], total=4) for i, j in ((0, 1), (1, 4))]
    assert sum(p["accuracy"] for p in parts) == 0.625 and sum(p["margin"] for p in parts) == 1.0
    assert implicit_reward(np.array([-1.0]), np.array([-3.0]), beta=0.5) == [1.0]


# ------------------------------------------------------------------------------------------------------- policies


def test_at_ratio_one_the_surrogate_is_the_policy_gradient():
    draw, mask = case()
    x, A = draw.normal(size=mask.shape), draw.normal(size=mask.shape)
    loss, back = policy.clipped_surrogate(x, old_log_probs=x, advantages=A, weights=mask.astype(float))
    assert float(loss) == pytest.approx(-A[mask].mean(), rel=FEW)
    assert relative_error(back(1.0), -A * mask / mask.sum()) < FEW
    assert float(policy.k3_kl(x, reference_log_probs=x)[0]) == 0 and not policy.k3_kl(x, reference_log_probs=x)[1](1.0).any()
    found = policy.policy_statistics(x, old_log_probs=x)
    assert found["clip_fraction"] == found["update_kl"] == 0


@pytest.mark.parametrize("ratio, A, loss, slope", [
    (1.5, 1.0, -1.2, 0.0),   # good and already likelier by more than the clip: no further gain
    (1.5, -1.0, 1.5, 1.5),   # bad and likelier: pushed down
    (0.5, 1.0, -0.5, -0.5),  # good and less likely: pushed up
    (0.5, -1.0, 0.8, 0.0),   # bad and already less likely
])  # fmt: skip
def test_the_four_corners_of_the_clip(ratio, A, loss, slope):
    old = np.full((1, 1), -1.0)
    value, back = policy.clipped_surrogate(old + np.log(ratio), old_log_probs=old, advantages=np.full((1, 1), A))
    assert float(value) == pytest.approx(loss, rel=FEW) and float(back(1.0)[0, 0]) == pytest.approx(slope, rel=FEW, abs=0)
    assert policy.policy_statistics(old + np.log(ratio), old_log_probs=old)["clip_fraction"] == 1
    assert policy.policy_statistics(old + np.log(ratio), old_log_probs=old, clip=0.6)["clip_fraction"] == 0


@pytest.mark.parametrize("shape", [(2, 3), (1, 1)])
def test_all_tokens_masked(shape):
    x, zeros = np.ones(shape), np.zeros(shape)
    for loss, back in (policy.clipped_surrogate(x, old_log_probs=x, advantages=x, weights=zeros),
                       policy.clipped_value_loss(x, old_values=zeros, returns=zeros, weights=zeros),
                       policy.grpo(x, old_log_probs=x, advantages=x, reference_log_probs=zeros, beta=0.1, weights=zeros),
                       distillation(x, teacher_logits=x + 1, weights=zeros[..., 0])):  # fmt: skip
        assert float(loss) == 0 and not back(1.0).any()


@pytest.mark.parametrize("dtype, huge", [(np.float32, 1e30), (np.float64, 1e200)])
def test_what_stands_at_masked_tokens_has_no_influence(dtype, huge):
    """Finite numbers whose exponentials or squares overflow: multiplying them by a weight of 0 would give NaN."""
    draw, mask = case(4)
    a, b, c = draw.normal(size=(3, *mask.shape)).astype(dtype)
    A, w = draw.choice([-1.0, 1.0], mask.shape).astype(dtype), mask.astype(dtype)

    def results(*arrays):
        x, old, other = arrays
        for loss, back in (
            policy.clipped_surrogate(x, old_log_probs=old, advantages=A, weights=w),
            policy.clipped_value_loss(x, old_values=old, returns=other, weights=w),
            policy.grpo(x, old_log_probs=old, advantages=A, reference_log_probs=other, beta=0.1, weights=w),
        ):
            yield from (loss, back(dtype(1)))
        yield from policy.policy_statistics(x, old_log_probs=old, weights=w).values()

    expected = list(results(a, b, c))
    assert all(np.any(e) for e in expected)
    for signs in ((1, -1, 1), (-1, 1, 1), (1, 1, -1)):
        changed = [np.where(mask, x, dtype(sign * huge)) for x, sign in zip((a, b, c), signs)]
        for found, e in zip(results(*changed), expected, strict=True):
            assert np.array_equal(found, e)


def test_the_sum_over_parts_is_the_whole():
    draw, mask = case()
    x, old, A = draw.normal(size=(3, *mask.shape))
    w = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    kwargs = {"old_log_probs": old, "advantages": A, "weights": w, "reference_log_probs": old}
    whole, back = policy.grpo(x, **kwargs, beta=0.1, total=4)
    parts = [policy.grpo(x[i:j], **{k: a[i:j] for k, a in kwargs.items()}, beta=0.1, total=4) for i, j in ((0, 1), (1, 4))]
    assert float(sum(p[0] for p in parts)) == pytest.approx(float(whole), rel=FEW)
    assert np.array_equal(np.concatenate([p[1](1.0) for p in parts]), back(1.0))


# ------------------------------------------------------------------------------------------------------- advantages


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the device is only a string
@given(seed=st.integers(0, 999), gamma=st.sampled_from([0.0, 0.5, 1.0]), lam=st.sampled_from([0.0, 0.7, 1.0]))
def test_gae_is_the_reference(device, seed, gamma, lam):
    draw, mask = case(seed, (3, 5))
    r, V = draw.normal(size=(2, *mask.shape))
    found = advantages.gae(*(to_device(a, device) for a in (r, V, mask)), gamma=gamma, lam=lam)
    for a, expected in zip(to_host(list(found)), ref.gae(r, V, mask, gamma=gamma, lam=lam)):
        assert relative_error(a, expected) < PART and not a[~mask].any()


def test_gae_at_both_ends_of_lambda():
    draw, mask = case(3)
    r, V = draw.normal(size=(2, *mask.shape)) * mask
    A, returns = advantages.gae(r, V, mask, lam=1.0)
    later = np.cumsum(r[:, ::-1], axis=1)[:, ::-1] * mask
    assert relative_error(A, later - V) < PART and relative_error(returns, later) < PART
    following = np.pad(V, ((0, 0), (0, 1)))[:, 1:]
    assert relative_error(advantages.gae(r, V, mask, gamma=0.9, lam=0.0)[0], (r + 0.9 * following - V) * mask) < PART


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the device is only a string
@given(seed=st.integers(0, 999), shift=st.booleans())
def test_whitening_and_rewards_are_the_references(device, seed, shift):
    draw, mask = case(seed, (3, 5))
    x, log_probs, reference = draw.normal(size=(3, *mask.shape))
    scores = draw.normal(size=3)
    on = [to_device(a, device) for a in (x, mask, scores, log_probs, reference)]
    white = to_host(advantages.whiten(on[0], on[1], shift=shift))
    assert relative_error(white, ref.whiten(x, mask, shift=shift)) < rounding(4) / 1e-4  # for one token: sqrt(1e-8)
    rewards = to_host(advantages.kl_rewards(*on[2:], on[1], beta=0.3))
    assert relative_error(rewards, ref.kl_rewards(scores, log_probs, reference, mask, beta=0.3)) < PART


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the device is only a string
@given(seed=st.integers(0, 999), group=st.integers(2, 5), scale=st.booleans())
def test_group_advantages_are_the_references(device, seed, group, scale):
    r = np.random.default_rng(seed).normal(size=3 * group)
    found = to_host(advantages.group_advantages(to_device(r, device), group=group, scale=scale))
    assert relative_error(found, ref.group_advantages(r, group=group, scale=scale)) < rounding(4) / 1e-4  # eps
    assert np.abs(found.reshape(-1, group).sum(axis=1)).max() < rounding(4) / 1e-4


@pytest.mark.parametrize("value", [0.1, 1.0, 1 / 3, -7.3])
def test_a_group_without_variance_teaches_nothing(value):
    """Exactly zero, although the mean of equal numbers may differ from them by one rounding."""
    for dtype in (np.float32, np.float64):
        assert not advantages.group_advantages(np.full(7, value, dtype), group=7).any()


def test_rewards_may_be_booleans():
    right = np.array([True, False, False, True, True, True])
    assert np.array_equal(advantages.group_advantages(right, group=3), advantages.group_advantages(right.astype(float), group=3))


def test_the_adaptive_coefficient():
    for kl, expected in ((6.0, 1.0), (6.6, 1.01), (60.0, 1.02), (0.0, 0.98)):
        found = advantages.adaptive_kl(1.0, kl=kl, target=6.0, horizon=1000, samples=100)
        assert found == pytest.approx(expected) == ref.adaptive_kl(1.0, kl=kl, target=6.0, horizon=1000, samples=100)


# ------------------------------------------------------------------------------------------------------- distillation


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_student_that_is_its_teacher(divergence):
    z = np.random.default_rng(0).normal(size=(3, 5))
    loss, back = distillation(z, teacher_logits=z + 4, temperature=3.0, divergence=divergence)  # + 4: softmax is shift-invariant
    assert abs(float(loss)) < FEW and np.abs(back(1.0)).max() < FEW


def test_distillation_by_hand():
    """KL = ln 2 - H(3/4) for a 3 : 1 teacher and uniform student and, with reverse, for a uniform teacher and 3 : 1 student."""
    even, odds = np.zeros((1, 2)), np.log(np.array([[3.0, 1.0]]))
    gap = LN2 + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    assert float(distillation(even, teacher_logits=odds)[0]) == pytest.approx(gap, rel=FEW)
    assert float(distillation(odds, teacher_logits=even, divergence="reverse")[0]) == pytest.approx(gap, rel=FEW)
    assert float(distillation(even, teacher_logits=2 * odds, temperature=2.0)[0]) == pytest.approx(4 * gap, rel=FEW)


def test_at_a_high_temperature_the_logits_are_matched():
    """Hinton et al. 2015, eq. 4: as T tends to infinity, the gradient tends to (z - v) / V for zero-mean logits."""
    draw = np.random.default_rng(1)
    z, v = (a - a.mean() for a in draw.normal(size=(2, 1, 5)))
    for divergence, scale in (("forward", 1), ("reverse", 1), ("jensen-shannon", 0.3 * 0.7)):  # its curvature: beta (1 - beta)
        d = distillation(z, teacher_logits=v, temperature=1e4, divergence=divergence, beta=0.3)[1](1.0)
        assert relative_error(d, scale * (z - v) / 5) < 1e-3  # of order z / T


def test_between_forward_and_reverse():
    """JSD / beta and JSD / (1 - beta) tend to both; it is bounded where KL is not, and symmetric at 1/2."""
    z, v = np.random.default_rng(2).normal(0, 2, (2, 3, 5))

    def value(divergence, student=z, teacher=v, **beta):
        return float(distillation(student, teacher_logits=teacher, divergence=divergence, **beta)[0])

    assert value("jensen-shannon", beta=1e-6) / 1e-6 == pytest.approx(value("forward"), rel=1e-4)  # of order beta
    assert value("jensen-shannon", beta=1 - 1e-6) / 1e-6 == pytest.approx(value("reverse"), rel=1e-4)
    assert value("jensen-shannon", v, z) == pytest.approx(value("jensen-shannon"), rel=FEW)
    apart = 2000 * np.eye(2)
    assert (
        value("jensen-shannon", apart[:1], apart[1:]) == pytest.approx(LN2, rel=FEW)
        and value("forward", apart[:1], apart[1:]) > 1e3
    )


# ------------------------------------------------------------------------------------------------------- bad input


X2, X, W5 = np.zeros((2, 3)), np.zeros(3), np.zeros((3, 5))


@pytest.mark.parametrize("call, message", [
    (lambda: bradley_terry(X, np.zeros(2)), r"rejected: expected .* \(3,\), got .* \(2,\)"),
    (lambda: bradley_terry(X2, X2), r"chosen: expected .* \(N,\), got .* \(2, 3\)"),
    (lambda: dpo(X, X, reference_chosen=X, reference_rejected=np.zeros(4)), r"reference_rejected: .* \(4,\)"),
    (lambda: dpo(X, X, reference_chosen=X, reference_rejected=X, beta=0), "beta: expected a finite number > 0, got 0"),
    (lambda: dpo(X, X, reference_chosen=X, reference_rejected=X, smoothing=0.5),
         "smoothing: expected a finite number >= 0 and < 0.5"),
    (lambda: policy.clipped_surrogate(X2, old_log_probs=X2, advantages=np.zeros((2, 2))), r"advantages: .* \(2, 2\)"),
    (lambda: policy.clipped_surrogate(X2, old_log_probs=X2[:1], advantages=X2), r"old_log_probs: .* \(1, 3\)"),
    (lambda: policy.clipped_surrogate(X2, old_log_probs=X2, advantages=X2, clip=1.0),
         "clip: expected a finite number > 0 and < 1"),
    (lambda: policy.clipped_value_loss(X2, old_values=X2, returns=X2, clip=0), "clip: expected None or a finite number > 0"),
    (lambda: policy.grpo(X2, old_log_probs=X2, advantages=X2, beta=0.1), "expected an array with beta 0.1, got None"),
    (lambda: advantages.group_advantages(X, group=1), "group: expected an integer >= 2, got 1"),
    (lambda: advantages.group_advantages(X, group=2), r"rewards: expected whole groups of 2"),
    (lambda: advantages.group_advantages(np.array([0, 1, np.nan, 2]), group=2), "rewards: expected finite numbers, got nan"),
    (lambda: advantages.gae(X2, X2, X2), "mask: expected an array of booleans"),
    (lambda: advantages.gae(X2, X2[:, :2], X2 > 0), r"values: .* \(2, 2\)"),
    (lambda: advantages.gae(X2, X2, X2 > 0, lam=1.1), "lam: expected a finite number >= 0 and <= 1, got 1.1"),
    (lambda: advantages.kl_rewards(X, X2, X2, X2 > 0, beta=0.1), r"log_probs: expected .* \(3, T\), got .* \(2, 3\)"),
    (lambda: advantages.adaptive_kl(1.0, kl=1.0, target=0.0, horizon=10, samples=1), "target: expected a finite number > 0"),
    (lambda: distillation(X2, teacher_logits=np.zeros((2, 4))), r"teacher_logits: expected .* \(2, 3\), got .* \(2, 4\)"),
    (lambda: distillation(X2, teacher_logits=X2, divergence="jsd"), "divergence: expected one of forward, reverse, jensen"),
    (lambda: distillation(X2, teacher_logits=X2, beta=1), "beta: expected a finite number > 0 and < 1, got 1"),
    (lambda: distillation(X2, teacher_logits=X2, temperature=0), "temperature: expected a finite number > 0"),
    (lambda: distillation(X2, teacher_logits=X2, weights=X), r"weights: expected .* \(2,\), got .* \(3,\)"),
    (lambda: vocabulary_distillation(X2, W5, teacher_x=X2, teacher_W=np.zeros((3, 6))),
     r"teacher_W: expected .* \(3, 5\), got .* \(3, 6\)"),
    (lambda: vocabulary_distillation(X2, W5, teacher_x=X2[:1], teacher_W=W5),
     r"teacher_x: expected .* \(2, D2\), got .* \(1, 3\)"),
    (lambda: with_language_model(X2, X2, labels=X.astype(int)[:2], targets=X.astype(int)[:2], weight=-1),
         "weight: expected a finite number >= 0"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (1, 3), (1, 1), (2, 1), (2, 2), (1, 2, 3)])
def test_nothing_is_broadcast_but_an_advantage_for_each_answer(shape):
    """For (2, 3) tokens, and for inputs that are not (N, T) themselves."""
    wrong = np.zeros(shape)
    calls = {
        "advantages": lambda a: policy.clipped_surrogate(X2, old_log_probs=X2, advantages=a),
        "old_log_probs": lambda a: policy.clipped_surrogate(X2, old_log_probs=a, advantages=X2),
        "weights": lambda a: policy.grpo(X2, old_log_probs=X2, advantages=X2, weights=a),
        "old_values": lambda a: policy.clipped_value_loss(X2, old_values=a, returns=X2),
        "returns": lambda a: policy.clipped_value_loss(X2, old_values=X2, returns=a),
        "reference_log_probs": lambda a: policy.k3_kl(X2, reference_log_probs=a),
        "old_log_probs ": lambda a: policy.policy_statistics(X2, old_log_probs=a),
        "weights ": lambda a: policy.policy_statistics(X2, old_log_probs=X2, weights=a),
    }
    for name, call in calls.items():
        call(X2)
        if name == "advantages" and shape == (2, 1):
            call(wrong)
            continue
        with pytest.raises(ValueError, match=rf"{name.strip()}: expected .* \(2, 3\).* of shape {re.escape(str(shape))}"):
            call(wrong)
    if len(shape) != 2:
        for call in (lambda: policy.clipped_surrogate(wrong, old_log_probs=wrong, advantages=np.zeros(1)),
                     lambda: policy.clipped_value_loss(wrong, old_values=wrong, returns=wrong),
                     lambda: policy.k3_kl(wrong, reference_log_probs=wrong),
                     lambda: policy.policy_statistics(wrong, old_log_probs=wrong)):  # fmt: skip
            with pytest.raises(ValueError, match=rf"expected .* \(N, T\), got .* of shape {re.escape(str(shape))}"):
                call()


@pytest.mark.parametrize("second", [np.zeros((1, 1, 1)), np.zeros((3, 1, 1), bool), np.zeros((1, 1), bool), None])
def test_which_answer_a_token_belongs_to_is_booleans_of_the_same_axes(second):
    with pytest.raises(ValueError, match="^pair_log_probs: second: expected .*booleans"):
        pair_log_probs(np.zeros((2, 3, 4)), second=second)


@pytest.mark.parametrize("words", [(), (2, 2), (3, 0), (1.5, 1.5), 3, None, np.array([1, 2])])
def test_the_words_of_labels_are_counts(words):
    with pytest.raises(ValueError, match="^label_scores: words: expected whole numbers >= 1 with sum 3, got"):
        label_scores(np.zeros((2, 3, 4)), words=words)


def test_scores_of_words_without_probability_in_float32():
    """Sums below the smallest number that exp gives."""
    x = np.full((1, 2, 3), -1e3, np.float32)
    y, back = label_scores(x, words=(1, 1))
    assert y.dtype == np.float32 and y.tolist() == [[-3e3, -3e3]] and np.isfinite(back(y)).all()
