"""The law of Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", and what was
built on it.

    L(N, D) = E + A / N^alpha + B / D^beta                                              approach 3
    C = 6 N D:   N* = G (C/6)^a,   D* = (C/6)^b / G,   G = (alpha A / (beta B))^(1/(alpha+beta)),
                 a = beta / (alpha + beta),   b = alpha / (alpha + beta)                     eq. 4

N counts all parameters, D tokens, L nats a token.

HOFFMANN     E 1.69, A 406.4, B 410.7, alpha 0.34, beta 0.28, as printed.  At C = 5.76e23 this calls
             for about 70 tokens a parameter, not for the 20 of the paper's table 3 (approach 1)
BESIROGLU    the re-fit of Besiroglu et al. 2024: E 1.8172, A 482.01, B 2085.43, alpha 0.3478,
             beta 0.3658; it agrees with table 3
MUENNIGHOFF  Muennighoff et al. 2023, appendix A, on C4: e^0.6254804, e^6.255414, e^7.3049974,
             alpha = beta = 0.3526596

Constants were compared with quotations in public repositories, not with the papers themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ..arguments import check_number

EPOCHS_WORTH = 15.387756  # R*_D
EXCESS_WORTH = 5.309743  # R*_N


class Law(NamedTuple):
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, N: float, D: float) -> float:
        """Nats a token of N parameters after D tokens, none seen twice."""
        for name, value in (("N", N), ("D", D)):
            check_number(name, value, above=0)
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) of the least loss with 6 N D = flops."""
        check_number("flops", flops, above=0)
        total = self.alpha + self.beta
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        N = G * (flops / 6) ** (self.beta / total)
        return N, flops / 6 / N

    def tokens(self, N: float, loss: float) -> float:
        """The D at which N parameters reach the loss; ValueError if they never do."""
        check_number("N", N, above=0)
        check_number("loss", loss, above=self.E + self.A / N**self.alpha)
        return (self.B / (loss - self.E - self.A / N**self.alpha)) ** (1 / self.beta)

    def flops(self, loss: float) -> float:
        """The least FLOPs that reach the loss; ValueError at or below E."""
        check_number("loss", loss, above=self.E)
        N = _least(lambda N: 6 * N * self.tokens(N, loss), self._fewest(loss))
        return 6 * N * self.tokens(N, loss)

    def _fewest(self, loss: float) -> float:
        """The N that reach the loss with tokens without end."""
        return (self.A / (loss - self.E)) ** (1 / self.alpha)


HOFFMANN = Law(1.69, 406.4, 410.7, 0.34, 0.28)
BESIROGLU = Law(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
_E, _A, _B = map(math.exp, (0.6254804, 6.255414, 7.3049974))
MUENNIGHOFF = Law(_E, _A, _B, 0.3526596, 0.3526596)


def table_optimum(flops: float) -> tuple[float, float]:
    """(N, D) by Hoffmann et al.'s table 3 (approach 1): C = 103.524 N^2.00763, D = C / 6 N.

    The two numbers are our least squares, in logarithms, over the nine rows.
    """
    check_number("flops", flops, above=0)
    N = (flops / 103.524) ** (1 / 2.00763)
    return N, flops / 6 / N


def inference_optimal(law: Law, loss: float, demand: float) -> tuple[float, float]:
    """(N, D) that reach the loss with the least 6 N D + 2 N demand.

    demand: tokens that the model will read and write in use; 0: the optimum of training alone.
    Sardana et al. 2023, "Beyond Chinchilla-Optimal", sec. 2.  ValueError at or below law.E.
    """
    check_number("demand", demand, least=0)
    check_number("loss", loss, above=law.E)
    N = _least(lambda N: 6 * N * law.tokens(N, loss) + 2 * N * demand, law._fewest(loss))
    return N, law.tokens(N, loss)


def effective(unique: float, seen: float, worth: float = EPOCHS_WORTH) -> float:
    """U + U R* (1 - e^(-R / R*)), R = seen / unique - 1: new tokens worth as much as those seen.

    The same holds for parameters beyond those that the unique tokens call for, with
    worth = EXCESS_WORTH.  Muennighoff et al. 2023, eq. 5 and 6; R*_D = 15.39, R*_N = 5.31.
    """
    for name, value in (("unique", unique), ("seen", seen), ("worth", worth)):
        check_number(name, value, above=0)
    if seen <= unique:
        return seen
    return unique + unique * worth * -math.expm1(-(seen / unique - 1) / worth)


def constrained_loss(N: float, seen: float, unique: float, law: Law = MUENNIGHOFF) -> float:
    """L of N parameters after `seen` tokens of which only `unique` differ.

    Parameters count fully up to N*, whose best number of tokens is `unique`.  Muennighoff et al.
    2023, sec. 3.
    """
    total = law.alpha + law.beta
    G = (law.alpha * law.A / (law.beta * law.B)) ** (1 / total)
    tokens = effective(unique, seen)
    called = G * (G * min(unique, seen)) ** (law.beta / law.alpha)
    return law.loss(effective(called, N, EXCESS_WORTH), tokens)


def _least(cost: Callable[[float], float], least: float) -> float:
    """Where cost, which falls and then rises, is least above `least`: golden sections of ln N."""
    low, high = math.log(least) + 1e-9, math.log(least) + 40
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(90):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if cost(math.exp(left)) < cost(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
