"""The oracle against hand-computed cases and closed forms. Nothing from tinyplm is used here."""

import math
from functools import partial

import numpy as np
import pytest

from reference.layers.activation import gelu, gelu_tanh, log_sigmoid, relu, silu, tanh
from reference.layers.attention import attention, multi_head_attention
from reference.layers.block import block, post_norm, pre_norm
from reference.layers.embedding import embedding
from reference.layers.heads import classifier, dense_classifier, lm_transform, pooler, span_head
from reference.layers.linear import linear
from reference.layers.mask import banded_mask, causal_mask, combine_masks, packed_mask, padding_mask, prefix_mask, sliding_mask
from reference.layers.mlp import gated_mlp, mlp
from reference.layers.norm import layernorm, rmsnorm
from reference.layers.position import learned_positions, sinusoidal
from reference.layers.softmax import log_softmax, softmax
from tests.laws import FEW, PART

close = partial(np.testing.assert_allclose, rtol=PART, atol=FEW)
same = np.testing.assert_array_equal


def mask_of(*rows):
    """A boolean mask from rows such as "110"."""
    return np.array([[place == "1" for place in row] for row in rows])


# The package


def test_inputs_survive_and_results_are_float64():
    x = np.array([[1.0, 2.0, 4.0]], dtype=np.float32)
    x.flags.writeable = False
    for f in (relu, tanh, gelu, gelu_tanh, silu, softmax, log_softmax):
        assert f(x).dtype == np.float64
    assert layernorm(x, np.ones(3)).dtype == np.float64
    assert linear(x, np.eye(3, dtype=np.float32)).dtype == np.float64


# Layers


def test_linear():
    x, W, b = (
        np.array([[1.0, 2.0]]),
        np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        np.array([10.0, 20.0, 30.0]),
    )
    same(linear(x, W), [[9.0, 12.0, 15.0]])
    same(linear(x, W, b), [[19.0, 32.0, 45.0]])
    same(linear(x[0], W), [9.0, 12.0, 15.0])
    assert linear(np.zeros((2, 0, 2)), W).shape == (2, 0, 3)
    with pytest.raises(ValueError):
        linear(np.zeros((1, 3)), W)


def test_embedding():
    table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    same(embedding(table, ids=np.array([[2, 0], [2, 1]])), [[[5, 6], [1, 2]], [[5, 6], [3, 4]]])
    for wrong in (-1, 3):
        with pytest.raises(ValueError):
            embedding(table, ids=np.array([wrong]))


def test_layernorm():
    # mean 2, variance ((-1)^2 + 0 + 1) / 3 = 2/3
    z = math.sqrt(1.5)
    close(layernorm(np.array([1.0, 2.0, 3.0]), np.ones(3), eps=0.0), [-z, 0.0, z])
    gamma, beta = np.array([2.0, 3.0, 4.0]), np.array([10.0, 20.0, 30.0])
    close(layernorm(np.array([[1.0, 2.0, 3.0]]), gamma, beta, eps=0.0), [[10 - 2 * z, 20.0, 30 + 4 * z]])
    # eps is added to the variance: 2/3 + 1/3 = 1
    close(layernorm(np.array([1.0, 2.0, 3.0]), np.ones(3), eps=1 / 3), [-1.0, 0.0, 1.0])
    close(layernorm(np.array([0.0, 2.0]), np.ones(2))[1], 1 / math.sqrt(1 + 1e-5))
    same(layernorm(np.full((2, 4), 7.0), np.ones(4), np.arange(4.0)), [[0, 1, 2, 3], [0, 1, 2, 3]])


def test_rmsnorm():
    # mean square (9 + 16) / 2 = 12.5
    r = 1 / math.sqrt(12.5)
    close(rmsnorm(np.array([3.0, 4.0]), np.array([1.0, 2.0]), eps=0.0), [3 * r, 8 * r])
    rows = np.array([[[3.0, 4.0], [4.0, 3.0]], [[-3.0, 4.0], [5.0, 0.0]]])
    close(rmsnorm(rows, np.ones(2), eps=12.5), rows / 5)
    close(rmsnorm(np.array([1.0]), np.ones(1)), [1 / math.sqrt(1 + 1e-6)])


def test_activations():
    x = np.array([-1.0, 0.0, 1.0, 2.0])
    same(relu(x), [0.0, 0.0, 1.0, 2.0])
    phi = 0.841344746068542948585232545632  # the normal CDF at 1
    close(gelu(np.array([1.0, -1.0, 0.0])), [phi, -(1 - phi), 0.0])
    close(gelu_tanh(np.array([1.0])), 1 / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * 1.044715)))
    close(gelu_tanh(np.array([-2.0])), -2 / (1 + math.exp(2 * math.sqrt(2 / math.pi) * (2 + 8 * 0.044715))))
    assert 0 < abs(gelu(x) - gelu_tanh(x)).max() < 1e-3
    close(silu(np.array([0.0, math.log(3.0), -math.log(3.0)])), [0.0, 0.75 * math.log(3), -0.25 * math.log(3)])
    for f in (gelu, gelu_tanh, silu):  # y(x) - y(-x) = x
        close(f(x) - f(-x), x)
        close(f(np.array([-1e4, 1e4])), [0.0, 1e4])


def test_softmax():
    close(softmax(np.full((2, 4), 3.0)), np.full((2, 4), 0.25))
    close(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])
    close(softmax(np.array([1000.0, 1000.0 + math.log(3.0)])), [0.25, 0.75], rtol=PART)
    same(softmax(np.array([0.0, -2000.0])), [1.0, 0.0])


def test_softmax_mask():
    x = np.log(np.array([[1.0, 3.0, 99.0], [1.0, 2.0, 3.0]]))
    close(softmax(x, mask=mask_of("110", "000")), [[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]])
    close(softmax(x, mask=np.array([True, False, False])), [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    # masked entries have no influence, however large
    close(softmax(np.array([0.0, 0.0, 1e300]), mask=np.array([True, True, False])), [0.5, 0.5, 0.0])


def test_log_softmax():
    close(log_softmax(np.zeros((1, 5))), np.full((1, 5), -math.log(5)))
    close(log_softmax(np.log([1.0, 3.0])), np.log([0.25, 0.75]))
    close(log_softmax(np.array([0.0, -2000.0])), [0.0, -2000.0])


def test_sinusoidal():
    table = sinusoidal(np.array([0, 3]), 4)
    close(table[0], [0.0, 1.0, 0.0, 1.0])
    close(table[1], [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)])
    close(sinusoidal(np.array([[5]]), 6, base=8.0)[0, 0, 2:4], [math.sin(5 / 2), math.cos(5 / 2)])
    close(sinusoidal(np.array([5]), 6, base=8.0)[0, 4:], [math.sin(5 / 4), math.cos(5 / 4)])
    assert sinusoidal(np.arange(3), 4, dtype=np.float32).dtype == np.float32
    # a shift is a rotation: PE(m) . PE(n) depends on m - n alone
    table = sinusoidal(np.arange(9), 8)
    close(table[2] @ table[5], table[4] @ table[7])


def test_positions():
    x, table = np.ones((2, 2, 2)), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = [[[2, 3], [4, 5]], [[6, 7], [2, 3]]]
    same(learned_positions(x, table, positions=np.array([[0, 1], [2, 0]])), expected)
    same(learned_positions(x, table, positions=np.array([0, 1])), [expected[0]] * 2)
    for wrong in (-1, 3):
        with pytest.raises(ValueError):
            learned_positions(x, table, positions=np.array([0, wrong]))


def test_masks():
    same(causal_mask(3), mask_of("100", "110", "111"))
    same(causal_mask(2, 4), mask_of("1110", "1111"))
    same(causal_mask(1, 3), mask_of("111"))
    same(sliding_mask(4, window=2), mask_of("1000", "1100", "0110", "0011"))
    same(sliding_mask(2, 4, window=2), mask_of("0110", "0011"))
    same(sliding_mask(3, window=1), np.eye(3, dtype=bool))
    same(sliding_mask(3, window=9), causal_mask(3))
    same(banded_mask(4, left=1, right=2), mask_of("1110", "1111", "0111", "0011"))
    same(banded_mask(2, 4, left=1, right=0), sliding_mask(2, 4, window=2))
    same(prefix_mask(np.array([0, 2, 3]), 3)[0, 0], causal_mask(3))
    same(prefix_mask(np.array([0, 2, 3]), 3)[1, 0], mask_of("110", "110", "111"))
    same(prefix_mask(np.array([0, 2, 3]), 3)[2, 0], mask_of("111", "111", "111"))
    same(packed_mask(np.array([[7, 7, 1]]))[0, 0], mask_of("110", "110", "001"))
    same(padding_mask(np.array([[1, 1, 0], [0, 1, 1]])), [[[[True, True, False]]], [[[False, True, True]]]])
    assert prefix_mask(np.array([0, 1]), 3).shape == packed_mask(np.zeros((2, 3), int)).shape == (2, 1, 3, 3)


def test_combine_masks():
    padding = padding_mask(np.array([[1, 1, 0], [0, 1, 1]]))
    combined = combine_masks(causal_mask(3), None, padding)
    assert combined.shape == (2, 1, 3, 3) and combined.dtype == bool
    same(combined[:, 0], [mask_of("100", "110", "110"), mask_of("000", "010", "011")])
    same(combine_masks(causal_mask(3)), causal_mask(3))
    assert combine_masks() is None and combine_masks(None, None) is None


def test_attention_with_one_key_returns_its_value():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(2, 4, 3, 5)), rng.normal(size=(2, 2, 1, 5)), rng.normal(size=(2, 2, 1, 3))
    y = attention(q, k, v)
    assert y.shape == (2, 4, 3, 3)
    for h, group in enumerate([0, 0, 1, 1]):
        for t in range(3):
            close(y[:, h, t], v[:, group, 0])


def test_attention_by_hand():
    # scores 0.5 * (2 ln 3, 0) = (ln 3, 0): probabilities 3/4 and 1/4, with E = 4
    q = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    k = np.array([[2 * math.log(3), 9.0, 9.0, 9.0], [0.0, 9.0, 9.0, 9.0]]).reshape(1, 1, 2, 4)
    v = np.array([[4.0, 8.0], [0.0, 4.0]]).reshape(1, 1, 2, 2)
    close(attention(q, k, v)[0, 0, 0], [3.0, 7.0])
    close(attention(q, k, v, scale=0.0)[0, 0, 0], [2.0, 6.0])
    close(attention(q, k, v, scale=1.0)[0, 0, 0], [3.6, 7.6])
    bias = np.array([0.0, math.log(3)])  # makes the two equal; not multiplied by the scale
    close(attention(q, k, v, bias)[0, 0, 0], [2.0, 6.0])
    close(attention(q, k, v, mask=np.array([False, True]))[0, 0, 0], [0.0, 4.0])
    same(attention(q, k, v, mask=np.array([False, False]))[0, 0, 0], [0.0, 0.0])
    for dropout in ({"rate": 0.1}, {"key": np.zeros(1, dtype=np.uint64)}):
        with pytest.raises(ValueError):
            attention(q, k, v, **dropout)
    with pytest.raises(ValueError):
        attention(np.zeros((1, 3, 1, 4)), np.zeros((1, 2, 1, 4)), np.zeros((1, 2, 1, 4)))


def test_multi_head_attention_by_hand():
    # Wq = 0: all visible keys have equal weight, so with Wv = Wo = 1 the causal result is the running mean.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 3, 4))
    p = {"Wq": np.zeros((4, 4)), "Wk": rng.normal(size=(4, 4)), "Wv": np.eye(4), "Wo": np.eye(4)}
    running = np.stack([x[0, : t + 1].mean(0) for t in range(3)])
    close(multi_head_attention(p, x, heads=2, mask=causal_mask(3))[0], running)
    biases = {"bq": np.zeros(4), "bk": np.ones(4), "bv": np.arange(4.0), "bo": np.full(4, 10.0)}
    with_biases = multi_head_attention(p | biases, x, heads=2, mask=causal_mask(3))[0]
    close(with_biases, running + np.arange(4.0) + 10)
    # one key/value head for both: Wv takes the first two columns, and both heads see them
    shared = p | {"Wk": rng.normal(size=(4, 2)), "Wv": np.eye(4)[:, :2]}
    means = running[:, [0, 1, 0, 1]]
    close(multi_head_attention(shared, x, heads=2, kv_heads=1, mask=causal_mask(3))[0], means)
    # cross-attention to a single position returns its value for every query
    context = rng.normal(size=(1, 1, 6))
    cross = p | {"Wk": rng.normal(size=(6, 4)), "Wv": np.eye(6)[:, :4]}
    close(multi_head_attention(cross, x, context, heads=2), np.repeat(context[:, :, :4], 3, axis=1))


def test_multi_head_attention_is_attention_head_by_head():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 3, 4))
    Wq, Wk, Wv, Wo = (rng.normal(size=shape) for shape in ((4, 8), (4, 4), (4, 4), (8, 4)))
    bias = rng.normal(size=(4, 3, 3))
    expected = 0.0
    for h in range(4):
        a, g = slice(2 * h, 2 * h + 2), slice(2 * (h // 2), 2 * (h // 2) + 2)
        q, k, v = ((x @ W)[:, None] for W in (Wq[:, a], Wk[:, g], Wv[:, g]))
        expected = expected + attention(q, k, v, bias[h], mask=causal_mask(3))[:, 0] @ Wo[a]
    p = {"Wq": Wq, "Wk": Wk, "Wv": Wv, "Wo": Wo}
    close(multi_head_attention(p, x, None, bias, heads=4, kv_heads=2, mask=causal_mask(3)), expected)


def test_mlp():
    p = {"W1": np.array([[1.0, -1.0]]), "W2": np.array([[2.0], [3.0]])}
    same(mlp(p, np.array([[5.0], [-5.0]]), activation=relu), [[10.0], [15.0]])
    p |= {"b1": np.array([1.0, 0.0]), "b2": np.array([100.0])}
    same(mlp(p, np.array([[5.0], [-5.0]]), activation=relu), [[112.0], [115.0]])


def test_gated_mlp():
    p = {"Wgate": np.array([[1.0, -1.0]]), "Wup": np.array([[2.0, 3.0]]), "Wdown": np.array([[1.0], [10.0]])}
    same(gated_mlp(p, np.array([[5.0]]), activation=relu), [[50.0]])  # relu(5) * 10
    same(gated_mlp(p, np.array([[-5.0]]), activation=relu), [[-750.0]])  # 10 * relu(5) * -15
    p |= {"bgate": np.array([0.0, 6.0]), "bup": np.array([1.0, -15.0]), "bdown": np.array([7.0])}
    same(gated_mlp(p, np.array([[5.0]]), activation=relu), [[62.0]])  # 5 * 11 + 10 * 1 * 0 + 7


def test_block():
    parts = {
        "norm": lambda p, x: p * x,
        "attention": lambda p, x, *shared: p + x + sum(shared),
        "mlp": lambda p, x: p * x * x,
    }
    p = {"norm1": 2.0, "attention": 1.0, "norm2": 3.0, "mlp": 5.0}
    x = np.array([[[1.0]]])
    # h = 1 + (1 + 2) = 4, y = 4 + 5 * 12^2; with shared inputs 10 and 20: h = 34, y = 34 + 5 * 102^2
    same(block(p, x, residual=pre_norm, **parts), [[[724.0]]])
    same(block(p, x, 10.0, 20.0, residual=pre_norm, **parts), [[[52054.0]]])
    # h = 2 * (1 + 2) = 6, y = 3 * (6 + 5 * 36)
    same(block(p, x, residual=post_norm, **parts), [[[558.0]]])
    with pytest.raises(ValueError):
        block(p, x, residual=pre_norm, rate=0.1, **parts)


def test_heads_of_encoders():
    x = np.array([[[1.0, 2.0], [3.0, 5.0]]])
    first, last = {"W": np.array([[1.0], [0.0]]), "b": np.array([0.5])}, {"W": np.array([[0.0], [1.0]]), "b": np.array([0.0])}
    close(pooler(first, x), [[math.tanh(1.5)]])
    same(pooler(last, x, activation=relu, place=-1), [[5.0]])
    same(classifier(first, x), [[[1.5], [3.5]]])
    out = {"W": np.array([[2.0, 4.0]]), "b": np.array([0.0, 1.0])}
    z = math.tanh(1.5)
    close(dense_classifier({"dense": first, "out": out}, x, rate=0.5), [[2 * z, 4 * z + 1]])
    scores = span_head({"W": np.array([[1.0, 0.0], [0.0, 1.0]]), "b": np.array([10.0, 20.0])}, x)
    same(scores["start_logits"], [[11.0, 13.0]])
    same(scores["end_logits"], [[22.0, 25.0]])
    # relu(x) is (1, 0) and (3, 0), with means 1/2 and 3/2, equal to the standard deviations: the norm gives 1 and -1
    p = {
        "W": np.array([[1.0, 0.0], [0.0, -1.0]]),
        "b": np.zeros(2),
        "gamma": np.array([2.0, 3.0]),
        "beta": np.array([10.0, 20.0]),
    }
    close(lm_transform(p, x, activation=relu, eps=0.0), [[[12.0, 17.0], [12.0, 17.0]]])


# Losses


def test_log_sigmoid():
    close(log_sigmoid(np.array([0.0, math.log(3), -math.log(3)])), [-math.log(2), math.log(3 / 4), math.log(1 / 4)])
