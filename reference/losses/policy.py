"""Policy-gradient losses on tokens: arrays (N, T), one number per token of each answer."""

import numpy as np

from reference.scalar import exp, log, number


def _weighted_mean(
    value, shape: tuple[int, int], weights: np.ndarray | None, total: float | None
) -> float:
    """sum w value(n, t) / total; tokens of weight 0 are never evaluated."""
    result, counted = 0.0, 0.0
    for n in range(shape[0]):
        for t in range(shape[1]):
            w = 1.0 if weights is None else float(weights[n, t])
            if w != 0.0:
                result += w * value(n, t)
                counted += w
    if total is None:
        total = counted if counted != 0.0 else 1.0
    return result / total


def clipped_surrogate(
    log_probs: np.ndarray,
    *,
    old_log_probs: np.ndarray,
    advantages: np.ndarray,
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of -min(r A, clip(r, 1 - clip, 1 + clip_high) A),  r = pi(a) / pi_old(a).

    Schulman et al. 2017, eq. 7.
    """
    A = np.broadcast_to(advantages, log_probs.shape)
    high = clip if clip_high is None else clip_high

    def value(n: int, t: int) -> float:
        ratio = exp(log_probs[n, t]) / exp(old_log_probs[n, t])
        clipped = min(max(ratio, 1.0 - clip), 1.0 + high)
        return -min(ratio * float(A[n, t]), clipped * float(A[n, t]))

    return _weighted_mean(value, log_probs.shape, weights, total)


def clipped_value_loss(
    values: np.ndarray,
    *,
    old_values: np.ndarray,
    returns: np.ndarray,
    clip: float | None = 0.2,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of max((V - R)^2, (V_clipped - R)^2) / 2,  V_clipped within clip of the old value.

    clip None: the mean of (V - R)^2 / 2.
    """

    def value(n: int, t: int) -> float:
        v, old, wanted = number(values[n, t]), float(old_values[n, t]), float(returns[n, t])
        if clip is None:
            return 0.5 * (v - wanted) ** 2
        near = min(max(v, old - clip), old + clip)
        return 0.5 * max((v - wanted) ** 2, (near - wanted) ** 2)

    return _weighted_mean(value, values.shape, weights, total)


def k3_kl(
    log_probs: np.ndarray,
    *,
    reference_log_probs: np.ndarray,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of ref/pi - log(ref/pi) - 1: an estimate of KL(pi || ref) from tokens of pi.

    Shao et al. 2024, eq. 4.
    """

    def value(n: int, t: int) -> float:
        ratio = exp(reference_log_probs[n, t]) / exp(log_probs[n, t])
        return ratio - log(ratio) - 1.0

    return _weighted_mean(value, log_probs.shape, weights, total)


def grpo(
    log_probs: np.ndarray,
    *,
    old_log_probs: np.ndarray,
    advantages: np.ndarray,
    reference_log_probs: np.ndarray | None = None,
    clip: float = 0.2,
    clip_high: float | None = None,
    beta: float = 0.0,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The clipped surrogate plus beta times the KL estimate, with the same weights.

    Shao et al. 2024, eq. 3.
    """
    loss = clipped_surrogate(
        log_probs,
        old_log_probs=old_log_probs,
        advantages=advantages,
        clip=clip,
        clip_high=clip_high,
        weights=weights,
        total=total,
    )
    if beta == 0.0:
        return loss
    return loss + beta * k3_kl(
        log_probs, reference_log_probs=reference_log_probs, weights=weights, total=total
    )


def sequence_surrogate(
    log_probs: np.ndarray,
    *,
    old_log_probs: np.ndarray,
    advantages: np.ndarray,
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: np.ndarray | None = None,
    total: float | None = None,
) -> float:
    """The mean of -min(s A, clip(s, 1 - clip, 1 + clip_high) A) over answers, not tokens.

    s = (pi(y) / pi_old(y))^(1/|y|).  An answer's tokens are those of weight > 0; its weight is the
    sum of theirs.                                                Zheng et al. 2025, eq. 5 and 7
    """
    high = clip if clip_high is None else clip_high
    result, counted = 0.0, 0.0
    for n in range(log_probs.shape[0]):
        tokens = [t for t in range(log_probs.shape[1]) if weights is None or weights[n, t] != 0.0]
        if not tokens:
            continue
        likelihood, old = 1.0, 1.0
        for t in tokens:
            likelihood, old = likelihood * exp(log_probs[n, t]), old * exp(old_log_probs[n, t])
        s = (likelihood / old) ** (1.0 / len(tokens))
        w = sum(1.0 if weights is None else float(weights[n, t]) for t in tokens)
        A = float(advantages[n, 0])
        result -= w * min(s * A, min(max(s, 1.0 - clip), 1.0 + high) * A)
        counted += w
    if total is None:
        total = counted if counted != 0.0 else 1.0
    return result / total


def gspo(
    log_probs: np.ndarray,
    *,
    reference_log_probs: np.ndarray | None = None,
    beta: float = 0.0,
    **settings,
) -> float:
    """sequence_surrogate plus beta times the KL estimate, with the same weights."""
    loss = sequence_surrogate(log_probs, **settings)
    if beta == 0.0:
        return loss
    mean = {"weights": settings.get("weights"), "total": settings.get("total")}
    return loss + beta * k3_kl(log_probs, reference_log_probs=reference_log_probs, **mean)
