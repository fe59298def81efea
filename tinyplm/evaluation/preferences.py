"""From pairwise judgements to win rates and to one scale of strengths.

A judgement is (first, second, outcome): outcome 1 if the first was preferred, 0 if the second was,
1/2 if neither was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..arguments import check_number, check_whole, is_number, listed, mismatch, shown
from ..losses.preference import bradley_terry
from .intervals import Interval, wilson

ELO = 400 / np.log(10)  # points of a strength of 1; ten times the odds are 400 points


class Judgement(NamedTuple):
    """One comparison of two systems."""

    first: str
    second: str
    outcome: float


class WinRate(NamedTuple):
    """How often a system was preferred to another; rate counts a draw as half a win."""

    system: str
    other: str
    wins: int
    draws: int
    losses: int
    rate: Interval


def win_rates(judgements: Sequence[Judgement], *, confidence: float = 0.95) -> list[WinRate]:
    """For each pair of systems that met, in alphabetical order, with Wilson's interval."""
    found: dict[tuple[str, str], list[int]] = {}
    for first, second, outcome in checked(judgements):
        pair = min(first, second), max(first, second)
        won = outcome if pair[0] == first else 1 - outcome
        found.setdefault(pair, [0, 0, 0])[int(2 - 2 * won)] += 1
    rates = []
    for (a, b), (wins, draws, losses) in sorted(found.items()):
        total = wins + draws + losses
        rate = wilson(wins + draws / 2, total, confidence=confidence)
        rates.append(WinRate(a, b, wins, draws, losses, rate))
    return rates


def strengths(
    judgements: Sequence[Judgement], *, prior: float = 1.0, steps: int = 100
) -> dict[str, float]:
    """{system: s}: the strengths that minimise

        sum_n -log P(outcome_n) + prior sum_i (-log sigmoid(s_i) - log sigmoid(-s_i)) / 2,
        P(i before j) = sigmoid(s_i - s_j).          Bradley & Terry 1952; losses.bradley_terry

    A draw is half a win of each.  prior: games that each system is taken to have drawn with one of
    strength 0: the minimum then exists where someone has won all games, too; with 0 it exists only
    if the systems cannot be split into two groups one of which won every game (Ford 1957), and
    ValueError says so.  The strengths add up to 0.
    Newton's method with the gradient of our own loss; with w games of i and j it has the curvature
    w P(i before j) P(j before i) in the direction (i, j): (e_i - e_j)(e_i - e_j)^T.
    """
    check_number("prior", prior, least=0)
    check_whole("steps", steps, 1, 10_000)
    games = checked(judgements)
    names = sorted({name for game in games for name in game[:2]})
    number = {name: i for i, name in enumerate(names)}
    n = len(names)
    w = np.zeros((n + 1, n + 1))  # w[i, j]: wins of i over j; n is the system of strength 0
    for first, second, outcome in games:
        i, j = number[first], number[second]
        w[i, j] += outcome
        w[j, i] += 1 - outcome
    w[n, :n] = w[:n, n] = prior / 2
    if prior == 0 and not _joined(w[:n, :n]):
        raise mismatch("prior", "more than 0, since some systems won every game", "0")
    better, worse = np.nonzero(w)
    weights = w[better, worse]
    s = np.zeros(n + 1)
    for _ in range(steps):
        _, backward = bradley_terry(s[better], s[worse], weights=weights, total=1.0)
        won, lost = backward(1.0)
        gradient = np.bincount(better, won, n + 1) + np.bincount(worse, lost, n + 1)
        p = 1 / (1 + np.exp(s[worse] - s[better]))
        both = np.zeros((n + 1, n + 1))
        both[better, worse] = weights * p * (1 - p)
        both += both.T
        curvature = np.diag(both.sum(axis=1)) - both
        step = np.append(np.linalg.lstsq(curvature[:n, :n], -gradient[:n], rcond=None)[0], 0.0)
        s += step * min(1.0, 1.0 / np.abs(step).max(initial=1e-300))  # at most 1: it stays near
        if np.abs(step).max() < 1e-12:
            break
    centred = s[:n] - s[:n].mean()
    return dict(zip(names, centred.tolist()))


def elo(strength: float) -> float:
    """The strength in points of Elo: s 400 / ln 10.                                   Elo 1978"""
    check_number("strength", strength)
    return float(strength * ELO)


def checked(judgements: Sequence[Judgement]) -> list[Judgement]:
    """ValueError unless these are one or more judgements of two different systems."""
    expected = "(first, second, outcome) with outcome 0, 0.5 or 1"
    games = listed("judgements", judgements, expected)
    if not games:
        raise mismatch("judgements", "one or more", "none")
    for game in games:
        right = isinstance(game, tuple) and len(game) == 3 and is_number(game[2])
        right = right and isinstance(game[0], str) and isinstance(game[1], str)
        if not right or game[0] == game[1] or game[2] not in (0, 0.5, 1):
            raise mismatch("judgements", expected, shown(game))
    return games


def _joined(w: np.ndarray) -> bool:
    """Whether from each system a chain of wins leads to every other."""
    reached = (w > 0) | np.eye(len(w), dtype=bool)
    for _ in range(len(w).bit_length()):
        reached = reached @ reached
    return bool(reached.all())
