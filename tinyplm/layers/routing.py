"""Routing: which experts a token goes to, and with which weights.

A router has a logit for each of X experts.  A choice function picks k of them, which has no
gradient; a component turns the logits of those into weights.  `moe` takes one of each:

    Mixtral          top_experts                              softmax_weights(renormalised)
    Qwen-MoE         top_experts                              softmax_weights
    DeepSeek-V2      top_experts(groups, kept_groups)         softmax_weights(scale)
    DeepSeek-V3      sigmoid_choice(groups, kept_groups)      sigmoid_weights(renormalised, scale)
    gpt-oss          top_experts                              softmax_weights(renormalised)

The softmax keeps the order of its logits, so `top_experts` takes the logits themselves.
"""

from __future__ import annotations

from typing import Any

from ..arguments import wrong
from ..backend import array_module, at_least_float32, is_host, scatter_add
from ..core import Array, Backward, in_float32
from ..shapes import expects
from .embedding import check_ids
from .softmax import softmax

TINY = 1e-20  # avoids 0 / 0 where all sigmoids underflow


@expects(
    "logits (..., X), bias (X,) or None; "
    "whole top_k >= 1, whole groups >= 1, whole kept_groups >= 1, whole best >= 1"
)
def top_experts(
    logits: Array,
    *,
    top_k: int,
    bias: Array | None = None,
    groups: int = 1,
    kept_groups: int = 1,
    best: int = 1,
) -> Array:
    """The k experts with the largest scores, logits + bias, the largest first.

    logits (..., X), bias (X,) or None -> choice (..., k), integers.   No gradient.
    Experts with equal scores are taken in the order of their numbers, on every device.
    groups: experts 0 .. X/groups - 1 are the first group, and so on.  Only experts of the
    `kept_groups` groups with the highest scores are taken; all others count as -inf.  A group's
    score is the sum of its `best` largest ones: the maximum in DeepSeek-V2 (DeepSeek team 2024a,
    sec. 2.2.2), the sum of two in DeepSeek-V3 (2024b, sec. 2.1.2).
    ValueError where groups do not divide X, or there are fewer experts than are asked for.
    """
    xp, X = array_module(logits), logits.shape[-1]
    _check_groups(X, top_k, groups, kept_groups, best)
    scores = logits if bias is None else logits + bias
    if kept_groups < groups:
        by_group = scores.reshape(*scores.shape[:-1], groups, X // groups)
        top = xp.take_along_axis(by_group, _largest(by_group, best), axis=-1)
        kept = _largest(top.sum(axis=-1), kept_groups)
        is_kept = (kept[..., None] == xp.arange(groups)).any(axis=-2)
        scores = xp.where(xp.repeat(is_kept, X // groups, axis=-1), scores, float("-inf"))
    return _largest(scores, top_k)


@expects(
    "logits (..., X), bias (X,) or None; "
    "whole top_k >= 1, whole groups >= 1, whole kept_groups >= 1, whole best >= 1"
)
def sigmoid_choice(
    logits: Array,
    *,
    top_k: int,
    bias: Array | None = None,
    groups: int = 1,
    kept_groups: int = 1,
    best: int = 2,
) -> Array:
    """top_experts of the scores sigmoid(logits) + bias.        DeepSeek team 2024b, eq. 15 and 16

    The bias, which balances the experts' load (losses.balance.updated_bias), takes part in the
    choice only, never in the weights.
    """
    scores = sigmoid_scores(at_least_float32(logits))
    if bias is not None:
        bias = bias.astype(scores.dtype, copy=False)
    return top_experts(
        scores, top_k=top_k, bias=bias, groups=groups, kept_groups=kept_groups, best=best
    )


@expects("logits (..., X), choice (..., k) integers; flag renormalised, scale > 0")
@in_float32
def softmax_weights(
    logits: Array, *, choice: Array, renormalised: bool = False, scale: float = 1.0
) -> tuple[Array, Backward]:
    """w_j = scale p_c,   c = choice_j,   p = softmax(logits).

    renormalised: the chosen p are divided by their sum, which is a softmax over the chosen logits.
    logits (..., X), choice (..., k), distinct in each row -> w (..., k).   Keeps p.
    Shazeer et al. 2017, eq. 3 to 5; Jiang et al. 2024, sec. 2.1; DeepSeek team 2024a, eq. 21.
    dp_c = scale dw_j, which goes back through the softmax;   experts not chosen have dp = 0, and
    dlogits = 0 if renormalised.   The choice is a constant, so the gradient is exact wherever
    no two experts tie for the last place.
    ValueError (on the host) for an expert out of range.
    """
    xp = array_module(logits)
    _check_choice(choice, logits)
    if renormalised:
        p, p_back = softmax(xp.take_along_axis(logits, choice, axis=-1))
        return scale * p, lambda dw: _placed(p_back(scale * dw), choice, logits)
    p, p_back = softmax(logits)
    w = scale * xp.take_along_axis(p, choice, axis=-1)
    return w, lambda dw: p_back(_placed(scale * dw, choice, logits))


@expects("logits (..., X), choice (..., k) integers; flag renormalised, scale > 0")
@in_float32
def sigmoid_weights(
    logits: Array, *, choice: Array, renormalised: bool = True, scale: float = 1.0
) -> tuple[Array, Backward]:
    """w_j = scale s_j / S,   s_j = sigmoid(logits_c),   c = choice_j,   S = sum_j s_j + 1e-20.

    DeepSeek team 2024b, eq. 13 to 15.   S = 1 unless renormalised.
    logits (..., X), choice (..., k), distinct in each row -> w (..., k).   Keeps s, S and w.
    ds_j = (scale dw_j - sum_i dw_i w_i) / S if renormalised, else scale dw_j;
    dlogits_c = ds_j s_j (1 - s_j), and 0 for experts not chosen.
    ValueError (on the host) for an expert out of range.
    """
    _check_choice(choice, logits)
    s = sigmoid_scores(array_module(logits).take_along_axis(logits, choice, axis=-1))
    S = s.sum(axis=-1, keepdims=True) + TINY if renormalised else 1.0
    w = scale * s / S

    def backward(dw: Array) -> Array:
        shift = (dw * w).sum(axis=-1, keepdims=True) if renormalised else 0.0
        ds = (scale * dw - shift) / S
        return _placed(ds * s * (1 - s), choice, logits)

    return w, backward


@expects("choice (..., k) integers, weights (...) numbers or None; whole experts >= 1")
def expert_counts(choice: Array, *, experts: int, weights: Array | None = None) -> Array:
    """How many tokens chose each expert: counts (X,), in float64.

    choice (..., k) integers in [0, X); weights (...): what each token counts, 0 for padding, None
    = 1.   Whole numbers add up without rounding, so the counts of shards and micro-batches add up
    to those of the whole step, bit for bit.
    ValueError (on the host) for an expert out of range.
    """
    xp = array_module(choice)
    if is_host(choice):
        check_ids(choice, experts, "choice of expert")
    each = xp.ones(choice.shape, dtype="float64")
    if weights is not None:
        each *= weights.astype("float64")[..., None]
    return scatter_add(experts, choice.reshape(-1), each.reshape(-1, 1))[:, 0]


def sigmoid_scores(z: Array) -> Array:
    """sigmoid(z) to full relative precision, since a sum of small scores may be a divisor.

    exp(min(z, 0)) / (1 + exp(-|z|)); activation.sigmoid, by a tanh, has absolute precision only.
    """
    xp = array_module(z)
    return xp.exp(xp.minimum(z, 0)) / (1 + xp.exp(-xp.abs(z)))


def _largest(scores: Array, count: int) -> Array:
    """Where the `count` largest are in each row, in falling order; equal ones by number."""
    return array_module(scores).argsort(-scores, axis=-1, kind="stable")[..., :count]


def _placed(d: Array, choice: Array, like: Array) -> Array:
    """d (..., k) at the chosen experts, 0 elsewhere: (..., X)."""
    xp = array_module(like)
    out = xp.zeros_like(like)
    xp.put_along_axis(out, choice, d, axis=-1)
    return out


def _check_choice(choice: Array, logits: Array) -> None:
    if is_host(choice):
        check_ids(choice, logits.shape[-1], "choice of expert")


def _check_groups(X: int, top_k: int, groups: int, kept_groups: int, best: int) -> None:
    """ValueError unless so many experts can be taken."""

    def refuse(name: str, expected: str, value: Any) -> None:
        raise wrong(f"top_experts: {name}", expected, value)

    if X % groups:
        refuse("groups", f"a divisor of {X} experts", groups)
    if kept_groups > groups:
        refuse("kept_groups", f"at most groups, {groups}", kept_groups)
    if best > X // groups and kept_groups < groups:
        refuse("best", f"at most {X // groups}, the experts of a group", best)
    if top_k > X // groups * kept_groups:
        refuse("top_k", f"at most {X // groups * kept_groups} experts", top_k)
