"""Learning-rate schedules: the learning rate of update number `step`, counted from 0.

All but `constant_inverse_sqrt` warm up linearly, lr = peak (step + 1) / warmup for step < warmup,
so the first update is not wasted on a rate of 0.  ValueError for a negative step, peak or floor, or
a warm-up that is not shorter than the total.
"""

from __future__ import annotations

import math

from ..arguments import check_choice, check_flag, check_number, check_whole

MOST_UPDATES = 2**53  # updates: a float holds every integer up to it


def _check(
    step: int, peak: float, warmup: int, total: int = MOST_UPDATES, floor: float = 0.0
) -> None:
    check_whole("step", step, 0, MOST_UPDATES)
    check_number("peak", peak, least=0)
    check_number("floor", floor, least=0)
    check_whole("total", total, 1, MOST_UPDATES)
    check_whole("warmup", warmup, 0, total - 1)


def _progress(step: int, warmup: int, total: int) -> float:
    """Progress from the end of the warm-up (0) to total (1)."""
    return min(max((step - warmup) / (total - warmup), 0.0), 1.0)


def warmup_constant(step: int, *, peak: float, warmup: int) -> float:
    """Linear to the peak in `warmup` updates, then constant."""
    _check(step, peak, warmup)
    return peak * (step + 1) / warmup if step < warmup else peak


def warmup_linear(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """After the warm-up, linear from peak to floor at `total`.     Devlin et al. 2019, app. A.2"""
    _check(step, peak, warmup, total, floor)
    progress = _progress(step, warmup, total)
    return peak * (step + 1) / warmup if step < warmup else peak + (floor - peak) * progress


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """After the warm-up, floor + (peak - floor) (1 + cos(pi s)) / 2, s from 0 to 1 at `total`.

    Loshchilov & Hutter 2017, eq. 5, one cycle.
    """
    _check(step, peak, warmup, total, floor)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = _progress(step, warmup, total)
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2


def warmup_stable_decay(
    step: int, *, peak: float, warmup: int, total: int, decay: int, floor: float = 0.0
) -> float:
    """After the warm-up, the peak, then linear to floor over the last `decay` updates.

    Hu et al. 2024, eq. 1.
    """
    _check(step, peak, warmup, total, floor)
    check_whole("decay", decay, 1, total - warmup)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak + (floor - peak) * min(max((step - (total - decay)) / decay, 0.0), 1.0)


def warmup_inverse_sqrt(step: int, *, peak: float, warmup: int) -> float:
    """peak min(t / w, sqrt(w / t)),  t = step + 1,  w = warmup, at least 1.

    With peak = inverse_sqrt_peak(D, w) it is D^-0.5 min(t^-0.5, t w^-1.5), Vaswani et al. 2017,
    eq. 3.  Both terms are the peak at t = w, the last update of the warm-up.  The decay does not
    depend on the number of updates and never ends.
    """
    _check(step, peak, warmup)
    t, w = step + 1, max(warmup, 1)
    return peak * min(t / w, math.sqrt(w / t))


def inverse_sqrt_peak(width: int, warmup: int) -> float:
    """(D w)^-0.5, D = width: the peak of Vaswani et al. 2017, eq. 3, for a model of width D."""
    check_whole("width", width, 1, MOST_UPDATES)
    check_whole("warmup", warmup, 0, MOST_UPDATES)
    return (width * max(warmup, 1)) ** -0.5


def constant_inverse_sqrt(step: int, *, peak: float, warmup: int) -> float:
    """peak sqrt(w / max(t, w)),  t = step + 1,  w = warmup, at least 1: constant, then decaying.

    With peak = w^-0.5 it is 1 / sqrt(max(t, w)), Raffel et al. 2020, sec. 3.1.2 (w = 10^4).
    """
    _check(step, peak, warmup)
    t, w = step + 1, max(warmup, 1)
    return peak * math.sqrt(w / max(t, w))


def relative_step(step: int, *, warmup_init: bool = False) -> float:
    """min(10^-2, t^-0.5),  t = step + 1; with warmup_init, min(10^-6 t, t^-0.5).

    Shazeer & Stern 2018, algorithm 6: the step size of Adafactor relative to a parameter's scale.
    The two are `constant_inverse_sqrt` and `warmup_inverse_sqrt` of peak 10^-2 and warmup 10^4.
    """
    check_whole("step", step, 0, MOST_UPDATES)
    check_flag("warmup_init", warmup_init)
    t = step + 1
    return min(1e-6 * t if warmup_init else 1e-2, t**-0.5)


SCHEDULES = (
    *("cosine", "linear", "constant", "stable-decay"),
    *("inverse-sqrt", "constant-inverse-sqrt"),
)


def learning_rate(
    name: str, step: int, *, peak: float, warmup: int, total: int, floor: float, decay: int
) -> float:
    """The schedule called `name`; arguments it does not take are ignored."""
    check_choice("schedule", name, SCHEDULES)
    if name == "cosine":
        return warmup_cosine(step, peak=peak, warmup=warmup, total=total, floor=floor)
    if name == "linear":
        return warmup_linear(step, peak=peak, warmup=warmup, total=total, floor=floor)
    if name == "constant":
        return warmup_constant(step, peak=peak, warmup=warmup)
    if name == "inverse-sqrt":
        return warmup_inverse_sqrt(step, peak=peak, warmup=warmup)
    if name == "constant-inverse-sqrt":
        return constant_inverse_sqrt(step, peak=peak, warmup=warmup)
    return warmup_stable_decay(
        step, peak=peak, warmup=warmup, total=total, decay=decay, floor=floor
    )
