"""The oracle's formulas of newer decoders against hand-computed cases. Nothing from tinyplm is used here."""

import math
from functools import partial

import numpy as np
import pytest

from reference.layers.activation import soft_cap
from reference.layers.alibi import alibi, alibi_slopes
from reference.layers.attention import (
    attention,
    multi_head_attention,
    normed_heads_attention,
    normed_projections_attention,
)
from reference.layers.block import after_norm, block, both_norms_block, parallel_block
from reference.layers.norm import rmsnorm, unit_rmsnorm
from reference.losses.cross_entropy import vocabulary_cross_entropy
from reference.losses.distillation import vocabulary_distillation
from reference.losses.log_probs import vocabulary_log_probs
from tests.laws import FEW, PART

close = partial(np.testing.assert_allclose, rtol=PART, atol=FEW)
same = np.testing.assert_array_equal


def test_soft_cap():
    half = math.log(3) / 2  # tanh(ln(3) / 2) = 1/2
    close(soft_cap(np.array([0.0, 10 * half, -10 * half, 1e6]), cap=10.0), [0.0, 5.0, -5.0, 10.0])


def test_unit_rmsnorm():
    r = 1 / math.sqrt(12.5)  # the mean square of 3 and 4
    close(unit_rmsnorm(np.array([3.0, 4.0]), np.array([0.0, 1.0]), eps=0.0), [3 * r, 8 * r])
    close(unit_rmsnorm(np.array([[3.0, 4.0]]), np.array([-1.0, -0.5]), eps=12.5), [[0.0, 0.4]])


def test_slopes():
    same(alibi_slopes(1), [2.0**-8])
    same(alibi_slopes(2), [2.0**-4, 2.0**-8])
    same(alibi_slopes(3), [2.0**-4, 2.0**-8, 2.0**-2])
    same(alibi_slopes(6), [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])
    close(alibi_slopes(16), [2.0 ** (-h / 2) for h in range(1, 17)])  # the paper's second example


def test_alibi_is_the_figure_of_the_paper():
    """Press et al. 2022, fig. 3: 0, -1, -2, ... times m, from the diagonal to the left."""
    places = np.arange(3)[None]
    same(alibi(places, places, slopes=[0.5])[0, 0][np.tril_indices(3)], [0.0, -0.5, 0.0, -1.0, -0.5, 0.0])
    same(alibi(np.array([[7]]), np.array([[2, 7]]), slopes=[1.0, 0.25])[0, :, 0], [[-5.0, 0.0], [-1.25, 0.0]])


def test_attention_with_a_cap_by_hand():
    """Scores (2 cap artanh(1/2), 0) become (cap, 0), before the bias is added."""
    cap = math.log(3)
    q, v = np.ones((1, 1, 1, 1)), np.array([4.0, 0.0]).reshape(1, 1, 2, 1)
    k = np.array([cap * 1e9, 0.0]).reshape(1, 1, 2, 1)
    close(attention(q, k, v, scale=1.0, cap=cap), [[[[3.0]]]])  # the first probability is 3/4
    close(attention(q, k, v, np.array([0.0, cap]), scale=1.0, cap=cap), [[[[2.0]]]])
    close(attention(q, k, v, scale=1.0, cap=cap, offsets=np.array([-cap, 0.0])), [[[[2.0]]]])


def test_norms_of_queries_and_keys():
    """Norms with gain 1 of widths 2 and 4: by heads they make each head's length sqrt(2), together that of all sqrt(4)."""
    p = {n: np.eye(4) for n in ("Wq", "Wk", "Wv", "Wo")}
    x = np.array([[[3.0, 4.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0]]])
    settings = {"heads": 2, "kv_heads": 2, "norm": partial(rmsnorm, eps=0.0)}
    per_head = x.reshape(1, 2, 2, 2) / np.linalg.norm(x.reshape(1, 2, 2, 2), axis=-1, keepdims=True) * math.sqrt(2)
    together = x / np.linalg.norm(x, axis=-1, keepdims=True) * 2
    gains = {"heads": np.ones(2), "together": np.ones(4)}
    for f, normed, gain in (
        (normed_heads_attention, per_head.reshape(1, 2, 4), gains["heads"]),
        (normed_projections_attention, together, gains["together"]),
    ):
        q = np.moveaxis(normed.reshape(1, 2, 2, 2), 2, 1)
        v = np.moveaxis(x.reshape(1, 2, 2, 2), 2, 1)
        expected = np.moveaxis(attention(q, q, v), 1, 2).reshape(1, 2, 4)
        close(f(p | {"q_norm": gain, "k_norm": gain}, x, **settings), expected)
        turned = f(p | {"q_norm": gain, "k_norm": gain}, x, **settings, rotary=lambda a: 0 * a)
        close(turned, np.repeat(x.mean(axis=1, keepdims=True), 2, axis=1))  # equal scores: the mean of the values
    unnormed = {**settings, "norm": lambda a, gain: a}
    for f in (normed_heads_attention, normed_projections_attention):
        close(f(p | {"q_norm": None, "k_norm": None}, x, **unnormed), multi_head_attention(p, x, heads=2))


def test_blocks():
    parts = {
        "norm": lambda p, x: p * x,
        "attention": lambda p, x, *shared: p + x + sum(shared),
        "mlp": lambda p, x: p * x * x,
    }
    p, x = {"norm1": 2.0, "attention": 1.0, "norm2": 3.0, "mlp": 5.0}, np.array([[[1.0]]])
    # h = 1 + 2 (1 + 1) = 5, y = 5 + 3 * 5 * 25; with a shared input of 10: h = 25, y = 25 + 3 * 5 * 625
    same(block(p, x, residual=after_norm, **parts), [[[380.0]]])
    same(block(p, x, 10.0, residual=after_norm, **parts), [[[9400.0]]])
    both = p | {"norm1": {"before": 2.0, "after": 3.0}, "norm2": {"before": 4.0, "after": 5.0}}
    # h = 1 + 3 (1 + 2) = 10, y = 10 + 5 * 5 * 40^2
    same(both_norms_block(both, x, **parts), [[[40010.0]]])
    parallel = {"norm": 2.0, "attention": 1.0, "mlp": 5.0}
    same(parallel_block(parallel, x, **parts), [[[1 + 3 + 20.0]]])
    same(parallel_block(parallel, x, 10.0, **parts), [[[1 + 13 + 20.0]]])
    for f in (both_norms_block, parallel_block):
        with pytest.raises(ValueError):
            f(p, x, rate=0.1, **parts)


def test_losses_with_a_cap():
    """Logits (large, 0) become (cap, 0): with a cap of ln 3 the probabilities are 3/4 and 1/4."""
    x, W, cap = np.array([[1.0]]), np.array([[1e9, 0.0]]), math.log(3)
    target = np.array([1])
    close(vocabulary_cross_entropy(x, W, targets=target, cap=cap), math.log(4))
    close(vocabulary_log_probs(x, W, targets=target, cap=cap)["log_probs"], [-math.log(4)])
    teacher = {"teacher_x": x, "teacher_W": np.array([[0.0, 0.0]])}
    forward = -math.log(2) - (math.log(3 / 4) + math.log(1 / 4)) / 2  # KL((1/2, 1/2) || (3/4, 1/4))
    close(vocabulary_distillation(x, W, **teacher, cap=cap), forward)
    close(vocabulary_distillation(x, W, teacher_x=x, teacher_W=W, cap=cap, teacher_cap=cap), 0.0)
