"""The losses that `dpo` trains with: from log-probabilities of pairs to a loss and values to log.

    loss       wants           reference   log-probabilities
    dpo        z > 0           yes         sums           Rafailov et al. 2023, eq. 7
    ipo        z = 1/2         yes         sums           Azar et al. 2024, eq. 17
    hinge      z >= 1          yes         sums           Zhao et al. 2023; Liu et al. 2024
    orpo       likely, z > 0   no          means          Hong et al. 2024, eq. 6
    simpo      z > margin      no          means          Meng et al. 2024, eq. 6

z is the difference of the implicit rewards, beta log(pi / ref), or beta log pi without a reference;
for orpo the log of the odds ratio.  losses/preference.py and losses/reference_free.py have the
equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...backend import array_module
from ...losses import preference, reference_free
from ..data.pairs import Pair


class PairLoss(NamedTuple):
    """f(now, before, settings, total) -> (loss, backward(dloss) -> (dchosen, drejected)).

    now, before  (N, 2), log-probabilities under the policy and the reference
    reference    whether it compares with a reference
    means        whether its paper takes means over the tokens of an answer, not sums
    scaled       whether beta is the scale of its rewards
    """

    f: Callable[..., tuple[Any, Callable]]
    reference: bool = True
    means: bool = False
    scaled: bool = True


def _with_reference(loss: Callable, *options: str) -> Callable[..., tuple[Any, Callable]]:
    """A loss of losses.preference, with beta and more options from the settings."""

    def f(now: Any, before: Any, settings: Any, total: int) -> tuple[Any, Callable]:
        given = {name: getattr(settings, name) for name in ("beta", *options)}
        given |= {"reference_chosen": before[:, 0], "reference_rejected": before[:, 1]}
        return loss(now[:, 0], now[:, 1], **given, total=total)

    return f


def _orpo(now: Any, before: Any, settings: Any, total: int) -> tuple[Any, Callable]:
    return reference_free.orpo(now[:, 0], now[:, 1], lam=settings.lam, total=total)


def _simpo(now: Any, before: Any, settings: Any, total: int) -> tuple[Any, Callable]:
    options = {"beta": settings.beta, "margin": settings.margin, "total": total}
    return reference_free.simpo(now[:, 0], now[:, 1], **options)


PAIR_LOSSES = {
    "dpo": PairLoss(_with_reference(preference.dpo, "smoothing")),
    "ipo": PairLoss(_with_reference(preference.ipo)),
    "hinge": PairLoss(_with_reference(preference.hinge)),
    "orpo": PairLoss(_orpo, reference=False, means=True, scaled=False),
    "simpo": PairLoss(_simpo, reference=False, means=True),
}


def divisors(pairs: Sequence[Pair], settings: Any, dtype: Any) -> np.ndarray:
    """(N, 2): what each answer's log-probability is divided by, its tokens or 1."""
    means = PAIR_LOSSES[settings.loss].means if settings.means is None else settings.means
    rows = [[sum(s.counts) if means else 1 for s in pair] for pair in pairs]
    return np.array(rows, dtype).reshape(-1, 2)


def judged_pairs(
    sums: Any, reference: Any, settings: Any, total: int, *, lengths: Any = 1
) -> tuple[dict[str, Any], Callable]:
    """(values of N of `total` pairs, backward(dloss) -> dsums (N, 2) of "loss").

    sums, reference (N, 2): log-probabilities of whole answers; lengths: see `divisors`.
    """
    kind = PAIR_LOSSES[settings.loss]
    now, before = sums / lengths, reference / lengths
    loss, back = kind.f(now, before, settings, total)
    beta = settings.beta if kind.scaled else 1.0
    chosen, rejected = preference.implicit_reward(now, before, beta=beta).T
    values = {"loss": loss, **preference.preference_statistics(chosen, rejected, total=total)}
    values |= {"chosen": chosen.sum() / total, "rejected": rejected.sum() / total}

    def backward(dloss: float) -> Any:
        return array_module(now).stack(back(dloss), axis=1) / lengths

    return values, backward
