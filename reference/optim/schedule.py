"""The learning rate of update number `step`, counted from 0.

All but the last two start with the linear warm-up of Goyal et al. 2017, sec. 2.2, whose last step
has the full rate: lr = peak (step + 1) / warmup for step < warmup.
"""

import math


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """lr = floor + 1/2 (peak - floor) (1 + cos(pi u)),  u = (step - warmup) / (total - warmup).

    From step total on: floor. Loshchilov & Hutter 2017 (SGDR), eq. 5, one period after the warm-up.
    """
    _check(step, warmup, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return float(floor)
    u = (step - warmup) / (total - warmup)
    return floor + 0.5 * (peak - floor) * (1.0 + math.cos(math.pi * u))


def warmup_linear(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """lr = peak + (floor - peak) u,  u = (step - warmup) / (total - warmup).

    From step total on: floor. Devlin et al. 2019, appendix A.2.
    """
    _check(step, warmup, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return float(floor)
    u = (step - warmup) / (total - warmup)
    return peak + (floor - peak) * u


def warmup_constant(step: int, *, peak: float, warmup: int) -> float:
    """lr = peak after the warm-up.                               Goyal et al. 2017, sec. 2.2"""
    _check(step, warmup, warmup)
    if step < warmup:
        return peak * (step + 1) / warmup
    return float(peak)


def warmup_stable_decay(
    step: int, *, peak: float, warmup: int, total: int, decay: int, floor: float = 0.0
) -> float:
    """lr = peak until step total - decay, then peak + (floor - peak) u.

    u = (step - total + decay) / decay. From step total on: floor.
    Hu et al. 2024 (MiniCPM), sec. 4.2 (WSD), with a linear decay.
    """
    _check(step, warmup, total)
    if not 0 <= decay <= total - warmup:
        raise ValueError(f"decay: expected 0 to {total - warmup} (total - warmup), got {decay}")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return float(floor)
    if step <= total - decay:
        return float(peak)
    u = (step - (total - decay)) / decay
    return peak + (floor - peak) * u


def transformer(step: int, *, width: int, warmup: int) -> float:
    """lr = width^-0.5 min(t^-0.5, t warmup^-1.5),  t = step + 1.    Vaswani et al. 2017, eq. 3"""
    t = step + 1
    return width**-0.5 * min(t**-0.5, t * warmup**-1.5)


def t5(step: int, *, warmup: int) -> float:
    """lr = 1 / sqrt(max(t, warmup)),  t = step + 1.             Raffel et al. 2020, sec. 3.1.2"""
    t = step + 1
    return 1 / math.sqrt(max(t, warmup))


def _check(step: int, warmup: int, total: int) -> None:
    if step < 0:
        raise ValueError(f"step: expected >= 0, got {step}")
    if not 0 <= warmup <= total:
        raise ValueError(f"warmup: expected 0 to {total} (total), got {warmup}")
