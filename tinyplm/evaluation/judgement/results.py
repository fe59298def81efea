"""From ratings to a verdict, by criterion and over all criteria."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..agreement import cohen_kappa, fleiss_kappa
from ..intervals import Interval, bootstrap, paired_test, wilson
from ..preferences import Judgement, strengths
from .ratings import Rating
from .sheet import ALL, CHOICES, Sheet


class Verdict(NamedTuple):
    """One pair of systems under one criterion.

    rate: of `system`, a draw being half a win; its interval and test draw whole prompts, since the
    judgements of a prompt are not independent
    """

    criterion: str
    system: str
    other: str
    wins: int
    draws: int
    losses: int
    rate: Interval
    p: float


class Agreement(NamedTuple):
    """Of the judges under one criterion, over items that two or more judged; kappa None: no such
    item.  pairs: Cohen's kappa of each two judges who share items."""

    criterion: str
    items: int
    kappa: float | None
    pairs: dict[tuple[str, str], float]


class Results(NamedTuple):
    """strengths: {criterion: {system: s}}; left: how often the left one of two was preferred."""

    verdicts: list[Verdict]
    agreement: list[Agreement]
    strengths: dict[str, dict[str, float]]
    left: Interval
    judges: list[str]


def judge_results(
    sheet: Sheet, ratings: Sequence[Rating], *, confidence: float = 0.95, key: int = 0
) -> Results:
    """Win rates with intervals and tests, agreement, strengths, and the preference for a side.

    Equal answers, which nobody saw, count as a draw of each judge who judged anything.
    """
    items = {item.number: item for item in sheet.items}
    judges = sorted({rating.judge for rating in ratings})
    verdicts, agreement, scale = [], [], {}
    for criterion in (*sheet.criteria, ALL):
        some = [r for r in ratings if criterion in (ALL, r.criterion)]
        if not some:
            continue
        judged = [
            (items[r.item].prompt, Judgement(*items[r.item][4:], CHOICES[::-1].index(r.choice) / 2))
            for r in some
        ]
        each = len({r.criterion for r in some}) * len({r.judge for r in some})
        for prompt, first, second in sheet.equal:
            judged += [(prompt, Judgement(first, second, 0.5))] * each
        verdicts += _verdicts(criterion, judged, confidence, key)
        scale[criterion] = strengths([game for _, game in judged])
        if criterion != ALL:
            agreement.append(_agreement(criterion, some))
    sides = Counter(r.choice for r in ratings)
    left = wilson(sides["left"], sides["left"] + sides["right"], confidence=confidence)
    return Results(verdicts, agreement, scale, left, judges)


def _verdicts(
    criterion: str, judged: list[tuple[str, Judgement]], confidence: float, key: int
) -> list[Verdict]:
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for prompt, (first, second, outcome) in judged:
        pair = (min(first, second), max(first, second))
        score = outcome if pair[0] == first else 1 - outcome
        found.setdefault(pair, []).append((prompt, score))
    verdicts = []
    for (a, b), rows in sorted(found.items()):
        number = {prompt: n for n, prompt in enumerate(sorted({prompt for prompt, _ in rows}))}
        # not the texts: an array of these has the length of the longest for each
        prompts, won = [number[prompt] for prompt, _ in rows], np.array([w for _, w in rows])
        wins, draws, losses = (int(np.count_nonzero(won == value)) for value in (1, 0.5, 0))
        rate = bootstrap(won, groups=prompts, confidence=confidence, key=key)
        test = paired_test(won, 1 - won, groups=prompts, key=key)
        verdicts.append(Verdict(criterion, a, b, wins, draws, losses, rate, test.p))
    return verdicts


def _agreement(criterion: str, ratings: list[Rating]) -> Agreement:
    by_item: dict[int, dict[str, str]] = {}
    for r in ratings:
        by_item.setdefault(r.item, {})[r.judge] = r.choice
    shared = [said for said in by_item.values() if len(said) > 1]
    counts = [[list(said.values()).count(choice) for choice in CHOICES] for said in shared]
    pairs = {}
    for a, b in itertools.combinations(sorted({r.judge for r in ratings}), 2):
        both = [(said[a], said[b]) for said in shared if a in said and b in said]
        if both:
            pairs[a, b] = cohen_kappa(*map(list, zip(*both)))
    return Agreement(criterion, len(shared), fleiss_kappa(counts) if counts else None, pairs)
