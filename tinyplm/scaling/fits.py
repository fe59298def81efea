"""Fitting the laws of loss: power laws, Hoffmann et al.'s three approaches, bootstrap intervals.

Points are arrays (n,): parameters N, tokens D, FLOPs C, losses L in nats a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import check_number, check_whole, mismatch
from .chinchilla import Law

# starts of approach 3: e, alpha and beta; a and b follow from the points
_STARTS = [(e, x) for e in (0.0, 0.7) for x in (0.2, 0.5)]


def fit_power(x: Any, y: Any) -> tuple[float, float]:
    """(k, p) of y = k x^p by least squares in logarithms.  At least two different x."""
    x, y = _points(2, x=x, y=y)
    p, k = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(k)), float(p)


def fit_envelope(N: Any, flops: Any, losses: Any, bins: int = 30) -> tuple[float, float]:
    """Approach 1: (k, a) of N* = k C^a from training curves of several sizes.

    One point per evaluation of a run: its N, the FLOPs so far, the loss.  Of each of `bins`
    intervals of equal width in ln C, the point of the least loss is on the envelope.  Hoffmann et
    al. 2022, sec. 3.1 (there 1500 intervals).
    """
    N, flops, losses = _points(2, N=N, flops=flops, losses=losses)
    check_whole("bins", bins, 2, 10**6)
    edges = np.geomspace(flops.min(), flops.max() * (1 + 1e-12), bins + 1)
    which = np.digitize(flops, edges)
    best = [i[np.argmin(losses[i])] for i in (np.flatnonzero(which == b) for b in set(which))]
    return fit_power(flops[best], N[best])


def fit_isoflops(N: Any, flops: Any, losses: Any) -> tuple[float, float]:
    """Approach 2: (k, a) of N* = k C^a.

    Of each budget, at least three sizes: a parabola of the loss over ln N, whose lowest place is
    N*.  Hoffmann et al. 2022, sec. 3.2.  ValueError for a parabola without a lowest place.
    """
    N, flops, losses = _points(6, N=N, flops=flops, losses=losses)
    lowest = {}
    for C in np.unique(flops):
        at = flops == C
        if np.unique(N[at]).size < 3:
            raise mismatch("N", f"three sizes or more at {C:g} FLOPs", np.unique(N[at]).size)
        curve, slope, _ = np.polyfit(np.log(N[at]), losses[at], 2)
        if curve <= 0:
            raise mismatch("losses", f"a lowest place at {C:g} FLOPs", "none")
        lowest[C] = np.exp(-slope / (2 * curve))
    return fit_power(list(lowest), list(lowest.values()))


def fit_law(N: Any, D: Any, losses: Any, *, delta: float = 1e-3) -> Law:
    """Approach 3: the Law with the least sum of Huber(ln L(N, D) - ln L).

        ln L(N, D) = LSE(a - alpha ln N, b - beta ln D, e),   A = e^a, B = e^b, E = e^e

    delta: where Huber's loss becomes linear.  Five points or more.  Hoffmann et al. 2022, eq. 3,
    there by L-BFGS from a grid of starts; here by damped Gauss-Newton steps with Huber's weights,
    from four starts.  The sum, not the mean (Besiroglu et al. 2024).
    """
    N, D, losses = _points(5, N=N, D=D, losses=losses)
    check_number("delta", delta, above=0)
    data = np.log(N), np.log(D), np.log(losses)
    found = (_descend(_start(e, x, *data), *data, delta) for e, x in _STARTS)
    e, a, b, alpha, beta = min(found, key=lambda pair: pair[0])[1]
    return Law(*(float(v) for v in (np.exp(e), np.exp(a), np.exp(b), alpha, beta)))


def bootstrap(
    fit: Callable[..., Any], *points: Any, repeats: int = 100, seed: int = 0, level: float = 0.9
) -> np.ndarray:
    """(2, k): lower and upper bounds of the k numbers of fit(*points), over resampled points.

    Samples that fit refuses with ValueError are left out; ValueError if fewer than half are left.
    """
    arrays = [np.asarray(each, float) for each in points]
    check_whole("repeats", repeats, 2, 10**6)
    check_number("level", level, above=0, below=1)
    generator, found = np.random.default_rng(seed), []
    for _ in range(repeats):
        chosen = generator.integers(0, len(arrays[0]), len(arrays[0]))
        try:
            found.append(np.atleast_1d(np.asarray(fit(*(each[chosen] for each in arrays)), float)))
        except ValueError:
            continue
    if 2 * len(found) < repeats:
        raise mismatch("points", "enough to fit most samples of them", f"{len(found)} of {repeats}")
    return np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _points(least: int, **values: Any) -> list[np.ndarray]:
    arrays = {name: np.asarray(value, float) for name, value in values.items()}
    shape = next(iter(arrays.values())).shape
    for name, array in arrays.items():
        if array.ndim != 1 or array.shape != shape or len(array) < least:
            raise mismatch(name, f"{least} numbers or more, as many as the others", array.shape)
        if not (np.isfinite(array) & (array > 0)).all():
            raise mismatch(name, "positive finite numbers", "others")
    first = next(iter(arrays))
    if np.unique(arrays[first]).size < 2:
        raise mismatch(first, "at least two different numbers", "one")
    return list(arrays.values())


def _start(e: float, x: float, n: np.ndarray, d: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Both terms as large as what e leaves of the mean loss."""
    left = np.log(max(np.exp(y.mean()) - np.exp(e), 0.1) / 2)
    return np.array([e, left + x * n.mean(), left + x * d.mean(), x, x])


def _terms(p: np.ndarray, n: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ln L, its derivatives by p (points, 5))."""
    terms = np.stack([np.full_like(n, p[0]), p[1] - p[3] * n, p[2] - p[4] * d])
    top = terms.max(axis=0)
    total = top + np.log(np.exp(terms - top).sum(axis=0))
    share = np.exp(terms - total)
    return total, np.stack([*share, -share[1] * n, -share[2] * d], axis=1)


def _descend(
    p: np.ndarray, n: np.ndarray, d: np.ndarray, y: np.ndarray, delta: float
) -> tuple[float, np.ndarray]:
    """(Huber's sum, parameters) after damped Gauss-Newton steps (Levenberg-Marquardt)."""
    damping, (value, J) = 1e-3, _terms(p, n, d)
    r = value - y
    cost = _huber(r, delta)
    for _ in range(150):
        w = np.minimum(1, delta / np.maximum(np.abs(r), 1e-300))
        H, g = (J.T * w) @ J, (J.T * w) @ r
        step = np.linalg.solve(H + damping * (np.diag(np.diag(H)) + 1e-12 * np.eye(5)), g)
        new, new_J = _terms(p - step, n, d)
        new_cost = _huber(new - y, delta)
        if new_cost < cost:
            small = cost - new_cost < 1e-9 * cost
            p, r, J, cost, damping = p - step, new - y, new_J, new_cost, damping / 5
            if small:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    return cost, p


def _huber(r: np.ndarray, delta: float) -> float:
    size = np.abs(r)
    return float(np.where(size < delta, r * r / 2, delta * (size - delta / 2)).sum())
