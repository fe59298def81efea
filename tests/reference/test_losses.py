"""The reference losses, optimiser and sampling against hand-computed cases."""

import math
from functools import partial

import numpy as np
import pytest

from reference.generation.sampling import token_distribution
from reference.losses.cross_entropy import cross_entropy, vocabulary_cross_entropy
from reference.optim.adamw import adamw_update
from reference.optim.clip import clip_by_global_norm, global_norm
from reference.optim.schedule import warmup_constant, warmup_cosine, warmup_linear, warmup_stable_decay
from tests.laws import FEW, PART

close = partial(np.testing.assert_allclose, rtol=PART, atol=FEW)
same = np.testing.assert_array_equal


def mask_of(*rows):
    """A boolean mask from rows such as "110"."""
    return np.array([[place == "1" for place in row] for row in rows])


def test_cross_entropy_of_uniform_logits():
    for smoothing in (0.0, 0.3, 1.0):
        loss = cross_entropy(np.full((2, 3, 7), 2.5), targets=np.zeros((2, 3), int), smoothing=smoothing)
        close(loss, math.log(7))
        assert isinstance(loss, float)


def test_cross_entropy_by_hand():
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0], [4.0, 1.0]]))  # -log p: (ln 4, ln 4/3), (ln 2, ln 2), ...
    a, b = math.log(4 / 3), math.log(2)
    close(cross_entropy(logits, targets=np.array([1, 0, -100])), (a + b) / 2)
    close(cross_entropy(logits, targets=np.array([1, 0, -100]), total=8), (a + b) / 8)
    weights = np.array([3.0, 1.0, 50.0])
    close(cross_entropy(logits, targets=np.array([1, 0, -100]), weights=weights), (3 * a + b) / 4)
    close(cross_entropy(logits, targets=np.array([1, 0, -100]), weights=weights, total=2.0), (3 * a + b) / 2)
    smooth = 0.8 * a + 0.2 * (a + math.log(4)) / 2
    close(cross_entropy(logits[:1], targets=np.array([1]), smoothing=0.2), smooth)
    close(cross_entropy(logits, targets=np.array([1, 7, 7]), ignore_index=7), a)


def test_cross_entropy_of_nothing_is_zero():
    assert cross_entropy(np.ones((2, 3)), targets=np.array([-100, -100])) == 0.0
    assert cross_entropy(np.ones((2, 3)), targets=np.array([-100, -100]), total=5) == 0.0
    assert cross_entropy(np.ones((2, 3)), targets=np.array([0, -100]), weights=np.array([0.0, 1.0])) == 0.0


def test_cross_entropy_refuses_wrong_targets():
    for wrong in (-1, 3):
        with pytest.raises(ValueError):
            cross_entropy(np.zeros((1, 3)), targets=np.array([wrong]))
    with pytest.raises(ValueError):
        cross_entropy(np.zeros((2, 3)), targets=np.array([0]))


def test_vocabulary_cross_entropy():
    x, W, b = np.array([[1.0], [2.0]]), np.array([[0.0, math.log(3)]]), np.array([math.log(2), 0.0])
    # logits (ln 2, ln 3) and (ln 2, ln 9)
    expected = (math.log(5 / 3) + math.log(11 / 2)) / 2
    close(vocabulary_cross_entropy(x, W, b, targets=np.array([1, 0])), expected)
    close(vocabulary_cross_entropy(x, W, b, targets=np.array([1, 0]), chunk=1), expected)
    close(vocabulary_cross_entropy(x, W, targets=np.array([1, -100]), total=2), math.log(4 / 3) / 2)


# Optimisers


def test_adamw_first_step_is_the_sign_of_the_gradient():
    theta, g, zero = np.array([1.0, -2.0, 3.0]), np.array([1e-3, -50.0, 0.7]), np.zeros(3)
    new, m, v = adamw_update(theta, g, zero, zero, 1, lr=0.1, eps=0.0, weight_decay=0.0)
    close(new, theta - 0.1 * np.sign(g))
    close(m, 0.1 * g)
    close(v, 0.001 * g**2, rtol=PART)
    new, _, _ = adamw_update(theta, g, zero, zero, 1, lr=0.1, eps=0.0, weight_decay=0.5)
    close(new, 0.95 * theta - 0.1 * np.sign(g))
    new, _, _ = adamw_update(theta, g, zero, zero, 1, lr=0.1)  # the defaults: eps 1e-8, decay 0.01
    close(new, 0.999 * theta - 0.1 * g / (np.abs(g) + 1e-8))


def test_adamw_by_hand():
    # beta1 = beta2 = 1/2, g = 4 then 0: m = 2, 1; v = 8, 4; m^ = 4, 4/3; v^ = 16, 16/3
    zero = np.zeros(1)
    options = {"lr": 1.0, "beta1": 0.5, "beta2": 0.5, "eps": 1.0, "weight_decay": 0.0}
    theta, m, v = adamw_update(zero, np.array([4.0]), zero, zero, 1, **options)
    close([theta[0], m[0], v[0]], [-4 / 5, 2.0, 8.0])
    theta, m, v = adamw_update(theta, zero, m, v, 2, **options)
    close([theta[0], m[0], v[0]], [-4 / 5 - (4 / 3) / (4 / math.sqrt(3) + 1), 1.0, 4.0])
    with pytest.raises(ValueError):
        adamw_update(zero, zero, zero, zero, 0, lr=1.0)


def test_warm_up():
    for schedule in (
        partial(warmup_cosine, total=20),
        partial(warmup_linear, total=20),
        partial(warmup_stable_decay, total=20, decay=5),
        warmup_constant,
    ):
        close([schedule(step, peak=8.0, warmup=4) for step in range(5)], [2.0, 4.0, 6.0, 8.0, 8.0])
        close(schedule(0, peak=8.0, warmup=0), 8.0)
        with pytest.raises(ValueError):
            schedule(-1, peak=8.0, warmup=4)


def test_decays():
    o = {"peak": 9.0, "warmup": 4, "total": 12, "floor": 1.0}
    close([warmup_linear(step, **o) for step in (4, 6, 8, 12, 99)], [9.0, 7.0, 5.0, 1.0, 1.0])
    half = math.sqrt(0.5)
    expected = [9.0, 5 + 4 * half, 5.0, 5 - 4 * half, 1.0, 1.0]
    close([warmup_cosine(step, **o) for step in (4, 6, 8, 10, 12, 99)], expected)
    close([warmup_constant(step, peak=9.0, warmup=4) for step in (4, 99)], [9.0, 9.0])
    wsd = [warmup_stable_decay(step, decay=4, **o) for step in (4, 7, 8, 9, 10, 11, 12, 99)]
    close(wsd, [9.0, 9.0, 9.0, 7.0, 5.0, 3.0, 1.0, 1.0])
    close([warmup_stable_decay(step, decay=0, **o) for step in (11, 12)], [9.0, 1.0])
    close(warmup_stable_decay(8, decay=8, **o), warmup_linear(8, **o))
    # the floor defaults to 0
    for schedule in (warmup_cosine, warmup_linear, partial(warmup_stable_decay, decay=0)):
        close([schedule(step, peak=9.0, warmup=4, total=4) for step in (3, 4)], [9.0, 0.0])
    with pytest.raises(ValueError):
        warmup_stable_decay(0, decay=9, **o)


def test_clipping():
    tree = {"a": np.array([3.0]), "b": [np.array([[0.0, 4.0]]), {"c": None}]}
    assert global_norm(tree) == 5.0
    clipped, norm = clip_by_global_norm(tree, limit=2.5)
    assert norm == 5.0 and clipped["b"][1] == {"c": None}
    same(clipped["a"], [1.5])
    same(clipped["b"][0], [[0.0, 2.0]])
    for limit in (5.0, 7.0):
        same(clip_by_global_norm(tree, limit=limit)[0]["a"], [3.0])
    same(clip_by_global_norm([np.zeros(2)], limit=1.0)[0][0], [0.0, 0.0])
    same(tree["a"], [3.0])
    assert global_norm({}) == 0.0


# Generation

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3]))


def test_temperature():
    close(token_distribution(LOGITS), [0.1, 0.4, 0.2, 0.3])
    close(token_distribution(LOGITS, temperature=0.5), np.array([1.0, 16.0, 4.0, 9.0]) / 30)
    same(token_distribution(LOGITS, temperature=0.0), [0, 1, 0, 0])
    same(token_distribution(np.array([1.0, 5.0, 5.0]), temperature=0.0, top_k=2, top_p=0.9), [0, 1, 0])
    close(token_distribution(LOGITS, temperature=1e-300), [0, 1, 0, 0])
    close(token_distribution(np.array([0.0, -np.inf, 0.0])), [0.5, 0.0, 0.5])


def test_top_k():
    close(token_distribution(LOGITS, top_k=2), [0, 4 / 7, 0, 3 / 7])
    close(token_distribution(LOGITS, top_k=9), [0.1, 0.4, 0.2, 0.3])
    close(token_distribution(np.zeros(4), top_k=3), [1 / 3, 1 / 3, 1 / 3, 0])


def test_top_p():
    close(token_distribution(LOGITS, top_p=0.5), [0, 4 / 7, 0, 3 / 7])
    close(token_distribution(LOGITS, top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9])
    for tiny in (0.0, 0.3):
        close(token_distribution(LOGITS, top_p=tiny), [0, 1, 0, 0])
    close(token_distribution(LOGITS, top_p=1.0), [0.1, 0.4, 0.2, 0.3])
    # reaching p exactly is enough; ties are broken by id
    close(token_distribution(np.zeros(4), top_p=0.5), [0.5, 0.5, 0, 0])
    close(token_distribution(np.array([0.0, math.log(2), 0.0]), top_p=0.74), [1 / 3, 2 / 3, 0])


def test_order_is_temperature_then_top_k_then_top_p():
    # after top-k, (4/7, 3/7) remain: the first alone reaches 0.55, but not without top-k
    close(token_distribution(LOGITS, top_k=2, top_p=0.55), [0, 1, 0, 0])
    close(token_distribution(LOGITS, top_p=0.55), [0, 4 / 7, 0, 3 / 7])
    # at temperature 1/2 the first token has 16/30 > 0.5
    close(token_distribution(LOGITS, temperature=0.5, top_p=0.5), [0, 1, 0, 0])


def test_sampling_refuses():
    for wrong in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 1.5}, {"top_p": -0.1}):
        with pytest.raises(ValueError):
            token_distribution(LOGITS, **wrong)
    with pytest.raises(ValueError):
        token_distribution(np.full(3, -np.inf))
