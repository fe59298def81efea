"""Cases of the losses on preferences and feedback beside DPO, which is in alignment.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...losses import feedback, preference, reference_free
from ..case import Case, Entry, Sizes


def _weighted(s: Sizes, rng: np.random.Generator, N: int) -> dict[str, Any]:
    """Some weights are 0: answers that do not count."""
    weights = (rng.random(N) + 0.1) * (rng.random(N) < 0.8)
    return {"weights": weights if s.flags[0] else None, "total": 7.5 if s.flags[1] else None}


def _compared(s: Sizes, rng: np.random.Generator, z: np.ndarray, beta: float) -> Case:
    """Answers whose implicit rewards differ by z."""
    chosen, rejected, reference_chosen = rng.normal(-4, 2, (3, len(z)))
    reference_rejected = z / beta - (chosen - reference_chosen) + rejected
    kwargs = {
        "reference_chosen": reference_chosen,
        "reference_rejected": reference_rejected,
        "beta": beta,
    }
    return Case([chosen, rejected], {**kwargs, **_weighted(s, rng, len(z))})


def _ipo(s: Sizes) -> Case:
    rng = s.rng()
    return _compared(s, rng, rng.normal(0, 2, s.B * s.T), beta=0.5)


def _hinge(s: Sizes) -> Case:
    """z on both sides of 1, where the loss has its kink, and never within 0.1."""
    rng = s.rng()
    away = rng.choice([-1.0, 1.0], s.B * s.T) * (0.1 + 2 * rng.random(s.B * s.T))
    return _compared(s, rng, 1 + away, beta=0.5)


def _mean_log_probs(s: Sizes, rng: np.random.Generator) -> list[np.ndarray]:
    return list(-rng.uniform(0.05, 4, (2, s.B * s.T)))


def _orpo(s: Sizes) -> Case:
    rng = s.rng()
    lam = 0.0 if s.seed % 5 == 0 else 0.7
    return Case(_mean_log_probs(s, rng), {"lam": lam, **_weighted(s, rng, s.B * s.T)})


def _simpo(s: Sizes) -> Case:
    rng = s.rng()
    kwargs = {"beta": 1.5, "margin": 0.8 * s.flags[2]}
    return Case(_mean_log_probs(s, rng), {**kwargs, **_weighted(s, rng, s.B * s.T)})


def _kto(s: Sizes) -> Case:
    rng = s.rng()
    log_probs, reference = rng.normal(-4, 2, (2, s.B * s.T))
    kwargs = {
        "reference_log_probs": reference,
        "desirable": rng.random(s.B * s.T) < 0.5,
        "kl": 1.3 if s.flags[2] else 0.0,
        "beta": 0.5,
        "desirable_weight": 1.2,
        "undesirable_weight": 0.7,
    }
    return Case([log_probs], {**kwargs, **_weighted(s, rng, s.B * s.T)})


COMPONENTS = {
    "ipo": Entry(preference.ipo, _ipo, "IPO: the squared distance to a target"),
    "hinge": Entry(preference.hinge, _hinge, "hinge loss on the difference of implicit rewards"),
    "orpo": Entry(reference_free.orpo, _orpo, "ORPO: likelihood and the log of the odds ratio"),
    "simpo": Entry(reference_free.simpo, _simpo, "SimPO, with its margin"),
    "kto": Entry(feedback.kto, _kto, "KTO: single answers, desirable or not"),
}
