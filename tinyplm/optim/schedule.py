"""Learning-rate schedules: the learning rate (a float) of update number `step`, counted from 0.

All warm up linearly, lr = peak (step + 1) / warmup for step < warmup, so that the first update is not wasted on 0.
"""

from __future__ import annotations

import math


def _progress(step: int, warmup: int, total: int) -> float:
    """How far step is on the way from the end of the warm-up (0) to total (1)."""
    if not 0 <= warmup < total:
        raise ValueError(f"schedule: expected 0 <= warmup < total, got warmup = {warmup}, total = {total}")
    return min(max((step - warmup) / (total - warmup), 0.0), 1.0)


def warmup_constant(step: int, *, peak: float, warmup: int) -> float:
    """Linear to the peak in `warmup` updates, then constant."""
    return peak * (step + 1) / warmup if step < warmup else peak


def warmup_linear(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """After the warm-up a straight line from peak to floor at `total`.                            Devlin et al. 2019, app. A.2"""
    progress = _progress(step, warmup, total)
    return peak * (step + 1) / warmup if step < warmup else peak + (floor - peak) * progress


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """After the warm-up floor + (peak - floor) (1 + cos(pi s)) / 2, s from 0 at the end of the warm-up to 1 at `total`.

    Loshchilov & Hutter 2017, eq. 5, one cycle.
    """
    progress = _progress(step, warmup, total)
    return peak * (step + 1) / warmup if step < warmup else floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2


def warmup_stable_decay(step: int, *, peak: float, warmup: int, total: int, decay: int, floor: float = 0.0) -> float:
    """After the warm-up the peak until `decay` updates before `total`, then a straight line to floor.    Hu et al. 2024, eq. 1"""
    if not 0 < decay <= total - warmup:
        raise ValueError(f"schedule: expected 0 < decay <= total - warmup = {total - warmup}, got decay = {decay}")
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak + (floor - peak) * min(max((step - (total - decay)) / decay, 0.0), 1.0)


SCHEDULES = ("cosine", "linear", "constant", "stable-decay")


def learning_rate(name: str, step: int, *, peak: float, warmup: int, total: int, floor: float, decay: int) -> float:
    """One of the schedules by name; the arguments that it does not have are not used."""
    if name == "cosine":
        return warmup_cosine(step, peak=peak, warmup=warmup, total=total, floor=floor)
    if name == "linear":
        return warmup_linear(step, peak=peak, warmup=warmup, total=total, floor=floor)
    if name == "constant":
        return warmup_constant(step, peak=peak, warmup=warmup)
    if name == "stable-decay":
        return warmup_stable_decay(step, peak=peak, warmup=warmup, total=total, decay=decay, floor=floor)
    raise ValueError(f"unknown schedule {name!r}; expected one of {', '.join(SCHEDULES)}")
