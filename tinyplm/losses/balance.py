"""Balance between experts: losses of the router's logits, and a bias updated without a loss."""

from __future__ import annotations

from typing import Any

from ..arguments import mismatch
from ..backend import array_module
from ..core import Array, Backward, Component, in_float32
from ..layers.activation import log_sigmoid
from ..layers.routing import expert_counts
from ..layers.softmax import softmax
from ..shapes import expects
from .targets import counted_weights


@expects(
    "logits (..., X), choice (..., k) integers or None, fractions (X,) or None, "
    "weights (...) numbers or None"
)
@in_float32
def load_balancing_loss(
    logits: Array,
    *,
    choice: Array | None = None,
    fractions: Array | None = None,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = X sum_i f_i P_i,   P_i = sum_n w_n p_n,i / total,   p = softmax(logits).

    Fedus et al. 2022, eq. 4 to 6, for k experts a token: f_i is the number of tokens that chose
    expert i over the number of tokens, so that the f_i add up to k and perfect balance gives k.
    logits (..., X), weights w (...), 0 for padding, None = 1 -> a scalar in at least float32.
    Leading axes may include the layers: Mixtral's loss takes f and P over all layers together.
    fractions f: a constant (X,), of the whole step: the sums of expert_counts over all its shards
    and micro-batches, divided by its tokens.   With these and `total`, the sum of w over the whole
    step, the losses of all parts add up to that of the step.   Without fractions, f is that of
    `choice` (..., k), with the weights w.   total None: the sum of w, or 1 if it is 0.
    dp_n,i = dloss X (w_n / total) f_i, which goes back through the softmax: f has no gradient.
    ValueError unless exactly one of choice and fractions is given.
    """
    if (choice is None) == (fractions is None):
        raise mismatch("load_balancing_loss", "either choice or fractions", "both or neither")
    xp, X = array_module(logits), logits.shape[-1]
    w, total = counted_weights(logits[..., 0], None, weights, total)
    if fractions is None:
        counts = expert_counts(choice, experts=X, weights=w)
        tokens = w.astype("float64").sum()
        fractions = counts / xp.where(tokens == 0, 1, tokens)
    f = fractions.astype(w.dtype)
    p, p_back = softmax(logits)

    def backward(dloss: Any) -> Array:
        return p_back((w * (X * dloss / total))[..., None] * f)

    return X * (w * (p * f).sum(axis=-1)).sum() / total, backward


@expects("logits (..., X)", hot=True)
@in_float32
def normalised_sigmoid(logits: Array) -> tuple[Array, Backward]:
    """p_i = s_i / sum_j s_j,   s = sigmoid(logits).             DeepSeek team 2024b, eq. 15 and 19

    Computed as softmax(log s), in which nothing underflows.   logits (..., X) -> p (..., X).
    The gradient goes back through both.
    """
    log_s, log_back = log_sigmoid(logits)
    p, p_back = softmax(log_s)
    return p, lambda dp: log_back(p_back(dp))


@expects(
    "logits (..., T, X), choice (..., T, k) integers, weights (..., T) numbers or None; "
    "function affinities"
)
@in_float32
def sequence_balance_loss(
    logits: Array,
    *,
    choice: Array,
    affinities: Component = normalised_sigmoid,
    weights: Array | None = None,
    total: Any = None,
) -> tuple[Array, Backward]:
    """loss = sum_b L_b / total,   L_b = sum_i f_b,i P_b,i,   of each sequence b by itself.

    f_b,i = X / (k T_b) sum_t w_bt [expert i in choice_bt],   P_b,i = sum_t w_bt p_bt,i / T_b,
    T_b = sum_t w_bt,   p = affinities(logits).
    DeepSeek team 2024b, eq. 17 to 20, without the factor alpha.   There, choice is the top k of the
    scores without the correcting bias: top_experts(logits).   DeepSeek-V2's expert-level loss (eq.
    23 to 25) is this one with affinities=softmax.
    logits (..., T, X), choice (..., T, k), weights w (..., T), 0 for padding, None = 1 -> a scalar
    in at least float32.   Perfect balance gives 1.   A sequence without tokens adds 0.
    affinities: a component (..., X) -> (..., X) whose rows sum to 1.
    total: the number of sequences of the whole step (and layers, if the leading axes include
    them), so that parts add up; None takes those that have tokens here, or 1 if there are none.
    dp_bt,i = dloss w_bt f_b,i / (T_b total), which goes back through affinities: f is a constant.
    """
    xp, X, k = array_module(logits), logits.shape[-1], choice.shape[-1]
    w, _ = counted_weights(logits[..., 0], None, weights, 1)
    tokens = w.sum(axis=-1)
    _, total = counted_weights(tokens, tokens > 0, None, total)
    chosen = (choice[..., None] == xp.arange(X)).any(axis=-2)  # (..., T, X)
    share = (w / xp.where(tokens == 0, 1, tokens)[..., None])[..., None]  # w_bt / T_b
    f = X / k * (share * chosen).sum(axis=-2, keepdims=True)
    p, p_back = affinities(logits)

    def backward(dloss: Any) -> Array:
        return p_back(share * f * (dloss / total))

    return (share * f * p).sum() / total, backward


@expects("logits (..., X), weights (...) numbers or None")
@in_float32
def router_z_loss(
    logits: Array, *, weights: Array | None = None, total: Any = None
) -> tuple[Array, Backward]:
    """loss = sum_n w_n z_n^2 / total,   z_n = log sum_i exp(logits_n,i).   Zoph et al. 2022, eq. 5

    logits (..., X), weights w (...), 0 for padding, None = 1 -> a scalar in at least float32.
    total: the sum of w over the whole step, as in cross_entropy.   Keeps p = softmax(logits) and z.
    dlogits_n = dloss 2 (w_n / total) z_n p_n.
    """
    xp = array_module(logits)
    w, total = counted_weights(logits[..., 0], None, weights, total)
    top = logits.max(axis=-1, keepdims=True)
    e = xp.exp(logits - top)
    sums = e.sum(axis=-1, keepdims=True)
    z, p = (top + xp.log(sums))[..., 0], e / sums

    def backward(dloss: Any) -> Array:
        return (2 * w * z * (dloss / total))[..., None] * p

    return (w * z * z).sum() / total, backward


@expects("bias (X,), counts (X,) numbers; rate >= 0")
def updated_bias(bias: Array, counts: Array, *, rate: float) -> Array:
    """bias_i + rate sign(mean count - count_i): busy experts are chosen less, idle ones more.

    DeepSeek team 2024b, sec. 2.1.2; Wang et al. 2024, alg. 1.   bias (X,), counts (X,): how many
    tokens chose each expert in the whole step (expert_counts) -> a new bias (X,), in its dtype.
    No loss and no gradient: for the bias of routing.sigmoid_choice, between two steps.
    """
    xp, counts = array_module(bias), counts.astype("float64")
    step = rate * xp.sign(counts.mean() - counts)
    return bias + step.astype(bias.dtype)
