"""Intervals, the paired test, agreement and strengths, compared with reference/ and published examples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.evaluation import judgement as reference
from tinyplm.evaluation import (
    Judgement,
    bootstrap,
    cohen_kappa,
    elo,
    fleiss_kappa,
    paired_test,
    strengths,
    wilson,
    win_rates,
)
from tinyplm.evaluation.intervals import quantile_of

CLOSE = 1e-12  # at most a few thousand operations on numbers of size 1
FEW = settings(max_examples=25)


def test_wilson_inverts_the_score_test():
    for k, n in ((0, 5), (3, 7), (8, 10), (10, 10), (500, 1000), (2.5, 4)):
        found = wilson(k, n, confidence=0.9)
        low, high = reference.wilson(k, n, quantile_of(0.9))
        assert found.estimate == k / n
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)  # bisection at a flat place
    assert math.isnan(wilson(0, 0).estimate) and wilson(0, 0)[1:] == (0, 1)


def test_the_bootstrap_holds_what_it_promises():
    """Of 200 samples of 40 normal numbers, the mean lies in the 90% interval of at least 160: below that, with the
    interval's true rate of 88% or more, with a probability under 0.1%."""
    draw = np.random.default_rng(0)
    samples = draw.normal(3, 2, (200, 40))
    held = [bootstrap(s, confidence=0.9, draws=400, key=i) for i, s in enumerate(samples)]
    assert 160 <= sum(low <= 3 <= high for _, low, high in held) < 200
    rows = draw.normal(size=(30, 2))
    means = bootstrap(rows[:, 0], key=3)
    same = bootstrap(rows, lambda some: some[:, 0].mean(), key=3)
    assert same.estimate == pytest.approx(means.estimate, abs=CLOSE)
    assert abs(same.low - means.low) < 0.2  # other draws: the ends have a standard error of about 0.02


def test_groups_are_drawn_whole():
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([7, 3], 50)
    assert bootstrap(values, groups=groups) == (0.5, 0.0, 1.0)
    alone = bootstrap(values)
    assert 0.35 < alone.low < 0.5 < alone.high < 0.65
    assert paired_test(values, 1 - values, groups=groups).p == 1.0


@FEW
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_paired_test_tries_all_signs(differences, order):
    second = [order.randint(0, 3) for _ in differences]
    first = [a + d for a, d in zip(second, differences)]
    found = paired_test(first, second)
    assert found.p == pytest.approx(reference.sign_test(differences), abs=CLOSE)
    assert found.difference.estimate == pytest.approx(np.mean(differences), abs=CLOSE)


def test_the_paired_test_draws_signs_where_there_are_many():
    """Of right and wrong answers it is the sign test: p = 2 P(Binomial(20, 1/2) <= 5) = 0.0414 for 15 to 5."""
    first = np.array([1] * 15 + [0] * 5 + [1] * 30)
    second = np.array([0] * 15 + [1] * 5 + [1] * 30)
    exact = 2 * sum(math.comb(20, k) for k in range(6)) / 2**20
    error = math.sqrt(exact / 40_000)
    assert paired_test(first, second, draws=40_000).p == pytest.approx(exact, abs=5 * error)


LABELS = st.integers(0, 3)


@FEW
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=20))
def test_cohens_kappa_is_its_reference(pairs):
    a, b = map(list, zip(*pairs))
    size = {"none": lambda x, y: float(x != y), "linear": lambda x, y: abs(x - y), "quadratic": lambda x, y: (x - y) ** 2}
    for weights, weight in size.items():
        found = cohen_kappa(a, b, weights=weights, categories=range(4))
        assert found == pytest.approx(reference.cohen_kappa(a, b, weight), abs=CLOSE)


@FEW
@given(st.lists(st.lists(LABELS, min_size=2, max_size=5), min_size=1, max_size=12))
def test_fleiss_kappa_is_its_reference(labels):
    counts = [[item.count(c) for c in range(4)] for item in labels]
    assert fleiss_kappa(counts) == pytest.approx(reference.fleiss_kappa(labels), abs=CLOSE)


GAMES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from((0, 0.5, 1))), min_size=1, max_size=30)


@FEW
@given(GAMES, st.floats(0.1, 3))
def test_no_other_strengths_are_likelier(games, prior):
    games = [Judgement(*game) for game in games if game[0] != game[1]] or [Judgement("a", "b", 0)]
    found = strengths(games, prior=prior)
    assert sum(found.values()) == pytest.approx(0, abs=CLOSE)

    def likelihood(change, shift):
        return reference.log_likelihood({name: s + shift + change.get(name, 0) for name, s in found.items()}, games, prior)

    # the prior's system stays at 0: the best shift of all, by ternary search
    low, high = -5.0, 5.0
    for _ in range(100):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        low, high = (one, high) if likelihood({}, one) < likelihood({}, two) else (low, two)
    best = likelihood({}, low)
    for name in found:
        for change in (-1e-3, 1e-3):
            assert likelihood({name: change}, low) < best


def test_strengths_of_two_systems_are_the_log_odds():
    games = [Judgement("a", "b", 1)] * 3 + [Judgement("b", "a", 1)] + [Judgement("b", "c", 0.5)] * 2
    found = strengths(games, prior=0)
    assert found["a"] - found["b"] == pytest.approx(math.log(3), abs=CLOSE)
    assert found["b"] == pytest.approx(found["c"], abs=CLOSE)
    assert elo(math.log(10)) == pytest.approx(400)
    assert [rate[:5] for rate in win_rates(games)] == [("a", "b", 3, 0, 1), ("b", "c", 0, 2, 0)]
    with pytest.raises(ValueError, match="^prior: expected more than 0, since some systems won every game, got 0$"):
        strengths(games[:3], prior=0)


def test_wrong_figures_are_refused():
    wrong = [
        (lambda: wilson(3, 2), "trials: expected at least as many as successes, 3, got 2"),
        (lambda: bootstrap([]), "values: expected one or more finite numbers, got none"),
        (lambda: bootstrap([1, math.nan]), "values: expected one or more finite numbers, got others"),
        (lambda: bootstrap([[1, 2]]), "values: expected (N,) numbers, or a statistic, got (1, 2)"),
        (lambda: bootstrap([1, 2], groups=[1]), "groups: expected one for each of the 2 values, got 1"),
        (lambda: paired_test([1], [1, 2]), "first, second: expected (N,) and (N,) numbers, got (1,) and (2,)"),
        (lambda: cohen_kappa([1], []), "first, second: expected as many labels, at least one, got 1, 0"),
        (lambda: cohen_kappa([1], [2], categories=[1]), "second: expected labels of the categories [1], got 2"),
        (lambda: fleiss_kappa([[1, 0]]), "counts: expected two or more judges for each item, got [[1, 0]]"),
        (lambda: strengths([]), "judgements: expected one or more, got none"),
        (
            lambda: win_rates([("a", "a", 1)]),
            "judgements: expected (first, second, outcome) with outcome 0, 0.5 or 1, got ('a', 'a', 1)",
        ),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value) == message
