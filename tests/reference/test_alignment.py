"""The reference alignment losses against hand-computed cases."""

import math
from functools import partial

import numpy as np

from reference.losses import advantages, answers, auxiliary, distillation, log_probs, policy, preference
from tests.laws import FEW, PART
from tests.reference.test_losses import mask_of

close = partial(np.testing.assert_allclose, rtol=PART, atol=FEW)
same = np.testing.assert_array_equal
LN2, LN3 = math.log(2), math.log(3)


def row(*numbers):
    return np.array([numbers], dtype=float)


def test_log_probs():
    # probabilities (1/4, 3/4); at temperature 1/2 (1/10, 9/10)
    logits = np.array([[0.0, LN3], [5.0, 5.0 + LN3], [0.0, 9.0]])
    found = log_probs.log_probs(logits, targets=np.array([1, 0, -100]))
    close(found["log_probs"], [math.log(3 / 4), math.log(1 / 4), 0.0])
    H = 2 * LN2 - 3 / 4 * LN3  # 1/4 ln 4 + 3/4 ln 4/3
    close(found["entropy"], [H, H, 0.0])
    assert found["log_probs"][2] == found["entropy"][2] == 0.0
    found = log_probs.log_probs(logits, targets=np.array([1, 0, -100]), temperature=0.5)
    close(found["log_probs"], [math.log(9 / 10), math.log(1 / 10), 0.0])
    found = log_probs.vocabulary_log_probs(row(2.0), row(0.0, LN3), np.array([LN2, 0.0]), targets=np.array([1]), chunk=1)
    close(found["log_probs"], [math.log(9 / 11)])  # e^z = 2 and 9


def test_bradley_terry():
    # sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4
    chosen, rejected = np.array([LN3, 1.0, 0.0]), np.array([0.0, 1.0, LN3])
    a, b, c = math.log(4 / 3), LN2, math.log(4)
    close(preference.bradley_terry(chosen, rejected), (a + b + c) / 3)
    close(preference.bradley_terry(chosen, rejected, weights=np.array([2.0, 1.0, 0.0])), (2 * a + b) / 3)
    close(preference.bradley_terry(chosen, rejected, weights=np.array([2.0, 1.0, 0.0]), total=6.0), (2 * a + b) / 6)
    close(preference.bradley_terry(chosen[:1], rejected[:1], margin=LN3), LN2)
    close(preference.bradley_terry(chosen, rejected, margin=np.array([2 * LN3, LN3, -LN3])), (c + c + b) / 3)
    assert preference.bradley_terry(chosen, rejected, weights=np.zeros(3)) == 0.0


def test_dpo():
    # beta 1/2: z = 1/2 ((c - rc) - (l - rl)) = 1/2 (ln 3 + ln 3) = ln 3
    numbers = {"reference_chosen": np.array([-1.0 - LN3]), "reference_rejected": np.array([-2.0 + LN3])}
    chosen, rejected = np.array([-1.0]), np.array([-2.0])
    close(preference.dpo(chosen, rejected, beta=0.5, **numbers), math.log(4 / 3))
    close(preference.dpo(chosen, rejected, beta=0.5, smoothing=0.25, **numbers), 0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    own = {"reference_chosen": chosen, "reference_rejected": rejected}
    for smoothing in (0.0, 0.3):
        close(preference.dpo(chosen, rejected, smoothing=smoothing, **own), LN2)


def test_clipped_surrogate():
    ratios = row(2.0, 2.0, 0.5, 0.5, 1.1)
    A = row(1.0, -1.0, 1.0, -1.0, 3.0)
    gains = row(1.2, -2.0, 0.5, -0.8, 3.3)  # min(r A, clip(r) A), clip 0.2
    old = row(-1.0, -2.0, -3.0, -4.0, -5.0)
    call = partial(policy.clipped_surrogate, old + np.log(ratios), old_log_probs=old)
    close(call(advantages=A), -gains.mean())
    close(call(advantages=A, clip=0.4, clip_high=0.5), -(1.5 - 2.0 + 0.5 - 0.6 + 3.3) / 5)
    close(call(advantages=A, weights=row(1, 0, 2, 0, 0), total=4.0), -(1.2 + 2 * 0.5) / 4)
    close(call(advantages=row(2.0)), -2 * (1.2 + 1.2 + 0.5 + 0.5 + 1.1) / 5)
    assert call(advantages=A, weights=np.zeros((1, 5))) == 0.0


def test_clipped_value_loss():
    # old value 0, clip 0.5: V = 2 is clipped to 0.5, V = 0.25 stays
    V, old, R = row(2.0, 2.0, 0.25, -2.0), np.zeros((1, 4)), row(3.0, 0.0, 1.0, -2.0)
    close(policy.clipped_value_loss(V, old_values=old, returns=R, clip=0.5), (2.5**2 + 2.0**2 + 0.75**2 + 1.5**2) / 8)
    close(policy.clipped_value_loss(V, old_values=old, returns=R, clip=None), (1.0 + 4.0 + 0.75**2 + 0.0) / 8)
    close(policy.clipped_value_loss(V, old_values=old, returns=R, clip=0.5, weights=row(0, 3, 0, 0), total=2), 3.0)


def test_k3_and_grpo():
    # ref / pi = 2, 1, 1/2: 1 - ln 2, 0, ln 2 - 1/2
    x = row(-1.0, -2.0, -3.0)
    reference = x + row(LN2, 0.0, -LN2)
    close(policy.k3_kl(x, reference_log_probs=reference), 0.5 / 3)
    close(policy.k3_kl(x, reference_log_probs=reference, weights=row(0, 1, 2), total=4), (2 * LN2 - 1) / 4)
    same(policy.k3_kl(x, reference_log_probs=x), 0.0)
    kwargs = {"old_log_probs": x, "advantages": row(2.0), "weights": row(1, 0, 1), "total": 4}
    close(policy.grpo(x, **kwargs), -1.0)
    close(policy.grpo(x, **kwargs, reference_log_probs=reference, beta=0.5), -1.0 + 0.5 * 0.5 / 4)


def test_gae():
    # gamma 1/2, lambda 1/2: delta = 1 + 1 - 4, 2 + 4 - 2, 3 - 8
    rewards, values, mask = row(9, 1, 2, 3, 9), row(9, 4, 2, 8, 9), mask_of("01110")
    A, returns = advantages.gae(rewards, values, mask, gamma=0.5, lam=0.5)
    close(A, row(0, -2 + 4 / 4 - 5 / 16, 4 - 5 / 4, -5, 0))
    close(returns, row(0, 2 + 4 / 4 - 5 / 16, 6 - 5 / 4, 3, 0))
    close(advantages.gae(rewards, values, mask, lam=1.0)[1], row(0, 6, 5, 3, 0))  # the rewards to go
    A, returns = advantages.gae(rewards, values, mask_of("00000"))
    assert not A.any() and not returns.any()


def test_whiten():
    x, mask = row(7.0, 1.0, 5.0), mask_of("011")  # mean 3, variance 4
    close(advantages.whiten(x, mask), row(0, -1, 1), rtol=1e-8)  # the 1e-8 under the root
    close(advantages.whiten(x, mask, shift=False), row(0, 2, 4), rtol=1e-8)
    same(advantages.whiten(x, mask_of("010")), row(0, 0, 0))
    same(advantages.whiten(x, mask_of("000"), shift=False), row(0, 0, 0))


def test_group_advantages():
    # the standard deviation over n - 1 is sqrt 2 for (0, 2) and zero for (1, 1)
    rewards = np.array([0.0, 2.0, 1.0, 1.0])
    close(advantages.group_advantages(rewards, group=2, eps=0.0001)[:2], np.array([-1, 1]) / (math.sqrt(2) + 1e-4))
    same(advantages.group_advantages(rewards, group=2)[2:], [0.0, 0.0])
    close(advantages.group_advantages(rewards, group=2, scale=False), [-1, 1, 0, 0])
    close(advantages.group_advantages(rewards, group=4, eps=1.0), np.array([-1, 1, 0, 0]) / (math.sqrt(2 / 3) + 1))


def test_kl_rewards():
    mask = mask_of("0110", "0000", "0011")
    log_probs_, reference = np.full((3, 4), -1.0), np.full((3, 4), -3.0)
    found = advantages.kl_rewards(np.array([10.0, 20.0, 30.0]), log_probs_, reference, mask, beta=0.5)
    close(found, [[0, -1, 9, 0], [0, 0, 0, 0], [0, 0, -1, 29]])


def test_adaptive_kl():
    # errors 0, 1/10, and clipped to 1/5 and -1/5; half a horizon of samples
    for kl, expected in ((4.0, 2.0), (4.4, 2.1), (400.0, 2.2), (0.0, 1.8)):
        close(advantages.adaptive_kl(2.0, kl=kl, target=4.0, horizon=50, samples=25), expected)


def test_distillation():
    # teacher (1/4, 3/4), student (1/2, 1/2)
    teacher, student = row(0.0, LN3), row(7.0, 7.0)
    forward = 1 / 4 * math.log(1 / 2) + 3 / 4 * math.log(3 / 2)
    reverse = 1 / 2 * LN2 + 1 / 2 * math.log(2 / 3)
    call = partial(distillation.distillation, student)
    close(call(teacher_logits=teacher), forward)
    close(call(teacher_logits=teacher, divergence="reverse"), reverse)
    # the mixture of a third of the teacher and two thirds of the student is (5/12, 7/12)
    between = (1 / 4 * math.log(3 / 5) + 3 / 4 * math.log(9 / 7)) / 3 + 2 / 3 * (
        1 / 2 * math.log(6 / 5) + 1 / 2 * math.log(6 / 7)
    )
    close(call(teacher_logits=teacher, divergence="jensen-shannon", beta=1 / 3), between)
    close(call(teacher_logits=3 * teacher, temperature=3.0), 9 * forward)
    close(call(teacher_logits=teacher, weights=np.array([2.0]), total=5), 2 * forward / 5)
    assert call(teacher_logits=teacher, weights=np.zeros(1)) == 0.0
    close(distillation.vocabulary_distillation(row(1.0), row(7.0, 6.0), np.array([0.0, 1.0]), teacher_x=row(1.0, 1.0),
                                               teacher_W=np.array([[0.0, 0.0], [0.0, LN3]])), forward)  # fmt: skip


def test_with_language_model():
    # the class has probability 1/4; of the tokens that count, one has 1/2, the other 1/4
    classes, lm = row(0.0, LN3), np.array([[[0.0, 0.0], [0.0, LN3], [3.0, 1.0]]])
    call = partial(auxiliary.with_language_model, classes, lm, labels=np.array([0]), targets=np.array([[1, 0, -100]]))
    close(call(), 2 * LN2 + 0.5 * (LN2 + 2 * LN2) / 2)
    close(call(weight=0.0), 2 * LN2)


def test_pair_log_probs():
    x = np.array([[-1.0, -2.0, -4.0]])
    same(answers.pair_log_probs(x, second=np.array([[False, True, True]])), [[-1.0, -6.0]])
    same(answers.pair_log_probs(x.reshape(1, 3, 1), second=np.array([[[True]]])), [[0.0, -7.0]])


def test_label_scores_and_cloze_loss():
    # the first label's words have probabilities 1/4 and 3/4, the second's 1/2 x 1/2
    x = np.array([[[-2 * LN2, 0.0], [0.0, LN3 - 2 * LN2], [-LN2, -LN2]]])
    close(answers.label_scores(x, words=(2, 1)), np.array([[-LN2, -2 * LN2]]))
    close(answers.cloze_loss(x, words=(2, 1), targets=[1]), LN3)
    close(answers.cloze_loss(np.repeat(x, 2, axis=0), words=(2, 1), targets=[1, 0]), (LN3 + LN3 - LN2) / 2)
