"""Masked language modelling: what is selected, what replaces it, and by which key."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.objectives import (
    ALBERT_NGRAMS,
    Masking,
    continuations,
    corrupt,
    mask_tokens,
    similar_words,
    span_units,
    token_units,
    whole_words,
    word_units,
)
from tinyplm.objectives.draws import Draws
from tinyplm.objectives.masked import masking_epoch, select_bernoulli, select_exact
from tinyplm.random import fold, key

MASK, V = 3, 50


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def five_sigma(n: int, p: float) -> float:
    """The deviation allowed from n p for a count of n coins: under one case in a million exceeds 5 standard deviations."""
    return 5 * math.sqrt(n * p * (1 - p))


def sentence(T, seed=0):
    """ids from 5 to V - 1, with a special token at each end."""
    ids = np.random.default_rng(seed).integers(5, V, T)
    ids[[0, -1]] = 1, 2
    return ids, (ids < 5).astype(int)


def count(units):
    return sum(map(len, units))


# ---- the draws


@given(st.integers(0, 2**64 - 1), st.integers(1, 40), st.integers(0, 40))
def test_draws_are_numbers_of_a_stream(k, n, more):
    assert np.array_equal(Draws(k).uniforms(n + more)[:n], Draws(k).uniforms(n))
    assert sorted(Draws(k).order(n).tolist()) == list(range(n))
    whole = Draws(k).integers(n, 7)
    assert whole.min() >= 0 and whole.max() < 7 and Draws(k).integer(7) == whole[0]
    assert (0 <= Draws(k).uniforms(n)).all() and (Draws(k).uniforms(n) < 1).all()


def test_choice_has_the_weights():
    draws, n = Draws(key(1)), 6000
    counts = np.bincount([draws.choice((3, 0, 2, 1)) for _ in range(n)], minlength=4)
    for c, p in zip(counts, (3 / 6, 0, 2 / 6, 1 / 6)):
        assert abs(c - n * p) <= five_sigma(n, p)


# ---- the rule, with fixed draws


def test_corrupt_by_hand():
    ids = np.array([1, 10, 11, 12, 13, 14, 2])
    selected = np.array([0, 1, 1, 1, 0, 1, 0], bool)
    draws = np.array([0.0, 0.79, 0.8, 0.89, 0.0, 0.9, 0.0])
    inputs, targets = corrupt(ids, selected, draws, replacement=MASK, random_ids=np.arange(20, 27), shares=(0.8, 0.1, 0.1))
    assert inputs.tolist() == [1, MASK, 22, 23, 13, 14, 2]
    assert targets.tolist() == [-100, 10, 11, 12, -100, 14, -100]


@given(
    T=st.integers(3, 60),
    seed=st.integers(0, 2**32),
    rate=st.floats(0.01, 1),
    selection=st.sampled_from(["exact", "bernoulli"]),
    ngrams=st.booleans(),
)
def test_targets_restore_the_text_and_special_tokens_stay(T, seed, rate, selection, ngrams):
    ids, special = sentence(T, seed)
    masking = Masking(MASK, V, rate, selection=selection, ngrams=ALBERT_NGRAMS if ngrams and selection == "exact" else (1.0,))
    inputs, targets = mask_tokens(ids, special, masking=masking, key=key(seed))
    assert np.array_equal(np.where(targets == -100, inputs, targets), ids)
    assert (targets[special == 1] == -100).all() and np.array_equal(inputs[special == 1], ids[special == 1])
    if selection == "exact":
        wanted, found = max(1, round(rate * (T - 2))), (targets != -100).sum()
        assert found == wanted or (ngrams and found < wanted)  # an n-gram that overlaps a selection is skipped
    again = mask_tokens(ids, special, masking=masking, key=key(seed))
    assert np.array_equal(again[0], inputs) and np.array_equal(again[1], targets)


def test_padding_behind_changes_nothing():
    ids, special = sentence(40)
    masking = Masking(MASK, V)
    inputs, targets = mask_tokens(ids, special, masking=masking, key=key(5))
    longer = [np.concatenate([a, np.full(9, fill)]) for a, fill in ((ids, 0), (special, 1))]
    padded = mask_tokens(*longer, masking=masking, key=key(5))
    assert np.array_equal(padded[0][:40], inputs) and np.array_equal(padded[1][:40], targets)
    assert (padded[0][40:] == 0).all() and (padded[1][40:] == -100).all()


@pytest.mark.parametrize("selection", ["exact", "bernoulli"])
def test_the_shares_are_those_asked_for(selection):
    T = 20_002
    ids, special = sentence(T)
    masking = Masking(MASK, V, 0.3, (0.5, 0.3, 0.2), selection=selection, random_ids=range(5, V))
    inputs, targets = mask_tokens(ids, special, masking=masking, key=key(2))
    selected = targets != -100
    n = int(selected.sum())
    assert abs(n - 0.3 * (T - 2)) <= (0.5 if selection == "exact" else five_sigma(T - 2, 0.3))
    same = 1 / (V - 5)  # a random token may equal the original
    masked, unchanged = (inputs[selected] == MASK).sum(), (inputs[selected] == ids[selected]).sum()
    assert abs(masked - 0.5 * n) <= five_sigma(n, 0.5)
    assert abs(unchanged - (0.2 + 0.3 * same) * n) <= five_sigma(n, 0.2 + 0.3 * same)
    others = inputs[selected & (inputs != MASK) & (inputs != ids)]
    assert others.min() == 5 and others.max() == V - 1  # all 45 random_ids occur among 1800


def test_every_token_is_selected_equally_often():
    ids, special = sentence(22)
    rounds, rate = 2000, 3 / 20
    for selection in ("exact", "bernoulli"):
        masking = Masking(MASK, V, selection=selection)
        hits = sum(mask_tokens(ids, special, masking=masking, key=fold(key(0), n))[1] != -100 for n in range(rounds))
        assert (np.abs(hits[1:-1] - rounds * rate) <= five_sigma(rounds, rate)).all()


def test_keys_make_maskings_differ_and_copies_make_them_return():
    ids, special = sentence(60)

    def places(epoch, copies):
        k = fold(key(0), 7, masking_epoch(epoch, copies))
        return tuple(np.flatnonzero(mask_tokens(ids, special, masking=Masking(MASK, V), key=k)[1] != -100))

    assert len({places(epoch, None) for epoch in range(40)}) == 40
    static = [places(epoch, 10) for epoch in range(40)]
    assert len(set(static)) == 10 and static[:10] * 4 == static


# ---- selection


def test_exact_counts_as_the_released_code():
    units = [[t] for t in range(10)]
    for rate, expected in ((0.01, 1), (0.15, 2), (0.25, 2), (0.35, 4), (1, 10)):  # 1.5, 3.5 and also 2.5 round to even
        assert count(select_exact(units, rate, key(0))) == expected
    assert count(select_exact(units, 1, key(0), limit=4)) == 4


@given(st.lists(st.integers(1, 4), min_size=1, max_size=20), st.floats(0.05, 1), st.integers(0, 99), st.booleans())
def test_exact_never_cuts_a_unit_nor_takes_too_many(sizes, rate, seed, ngrams):
    ends = np.cumsum(sizes)
    units = [list(range(end - size, end)) for end, size in zip(ends.tolist(), sizes)]
    chosen = select_exact(units, rate, key(seed), ngrams=ALBERT_NGRAMS if ngrams else (1.0,))
    assert count(chosen) <= max(1, round(rate * sum(sizes)))
    assert all(unit in units for unit in chosen) and len({u[0] for u in chosen}) == len(chosen)
    assert rate < 1 or ngrams or len(chosen) == len(units)


def test_ngrams_have_their_probabilities():
    """Measured at the first n-gram of each selection: a limit of 3 never shortens it."""
    units, rounds = [[t] for t in range(1000)], 3000
    lengths = np.zeros(4, int)
    for n in range(rounds):
        chosen = [u[0] for u in select_exact(units, 1, fold(key(3), n), limit=3, ngrams=ALBERT_NGRAMS)]
        lengths[next((i for i in range(1, 3) if chosen[i] != chosen[i - 1] + 1), 3)] += 1
    for length, p in zip((1, 2, 3), (6 / 11, 3 / 11, 2 / 11)):
        # also: a second start is adjacent by chance (1 in 1000), and the last two positions leave no choice (2 in 1000)
        assert abs(lengths[length] - rounds * p) <= five_sigma(rounds, p) + 0.003 * rounds


def test_ngrams_do_not_go_over_special_tokens():
    """Adjacent tokens are always selected in pairs; tokens with something between them are neighbours only by chance."""
    for step in (1, 2):
        units = [[t] for t in range(0, 1000 * step, step)]
        chosen = [select_exact(units, 1, fold(key(0), n), limit=2, ngrams=(1e-9, 1)) for n in range(100)]
        neighbours = sum(second[0] - first[0] == step for first, second in chosen)
        assert neighbours >= 98 if step == 1 else neighbours <= 2


def test_bernoulli_may_select_nothing_and_draws_once_a_unit():
    assert select_bernoulli([[0], [1]], 1e-9, key(0)) == []
    assert select_bernoulli([[0, 1, 2], [3]], 1, key(0)) == [[0, 1, 2], [3]]


# ---- units


TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "un", "##break", "##able", "dog", "##s"]


def test_whole_words_from_continuations():
    ids = np.array([1, 5, 6, 7, 8, 9, 2, 9, 8, 2, 0])
    units = whole_words(continuations(TOKENS, inside="##"))(ids, ids > 4)
    assert units == [[1, 2, 3], [4, 5], [7], [8]]  # after [SEP] a continuation has nothing to continue
    starts = continuations(["Ġa", "b", "Ġc", "<s>"], start="Ġ")
    assert starts.tolist() == [False, True, False, True]
    assert whole_words(starts)(np.array([3, 0, 1, 1, 2]), np.array([False, True, True, True, True])) == [[1, 2, 3], [4]]


def test_word_units_from_an_encoding():
    word_ids = [None, 0, 0, 1, None, 1, 2, 2, None]
    maskable = np.array([w is not None for w in word_ids])
    assert word_units(word_ids, maskable) == [[1, 2], [3], [5], [6, 7]]
    assert word_units([None, None], np.array([True, True])) == [[0], [1]]
    assert word_units([0, 0, 0, 0], np.array([True, False, True, True])) == [[0], [2, 3]]
    with raises("word_ids: expected 2, one per token, got 1"):
        word_units([0], maskable[:2])


def test_spans_join_units():
    ids = np.arange(10, 18)
    units = [[0], [1, 2], [3], [4], [5], [7]]
    assert span_units(units, [(2, 4), (5, 8)]) == [[0], [1, 2, 3], [4], [5, 7]]
    assert span_units(token_units(ids, np.ones(8, bool)), []) == [[t] for t in range(8)]
    assert span_units(units, [(6, 7)]) == units
    for spans, message in (
        ([(0, 2), (2, 3)], "spans: expected no two in one unit, got [0, 2] and [2, 3] at token "),
        ([(3, 3)], "expected (start, end) with 0 <= start < end, got (3, 3)"),
        ([(-1, 2)], "expected token ids >= 0, got -1"),
    ):
        with raises(message):
            span_units(units, spans)


@given(st.integers(0, 300), st.sampled_from(["exact", "bernoulli"]))
def test_whole_words_stay_whole(seed, selection):
    ids = np.random.default_rng(seed).integers(5, 10, 30)
    special = np.zeros(30, int)
    units = whole_words(continuations(TOKENS, inside="##"))
    masking = Masking(MASK, 10, 0.4, selection=selection, units=units)
    _, targets = mask_tokens(ids, special, masking=masking, key=key(seed))
    for unit in units(ids, special == 0):
        assert len(set((targets[unit] != -100).tolist())) == 1


def test_given_units_of_one_sequence():
    ids, special = sentence(12)
    _, targets = mask_tokens(ids, special, masking=Masking(MASK, V, 0.3), key=key(0), units=[[4, 5, 6]])
    assert np.flatnonzero(targets != -100).tolist() == []  # 0.3 of 3 rounds to 1: the word is too large
    _, targets = mask_tokens(ids, special, masking=Masking(MASK, V, 1), key=key(0), units=[[4, 5, 6]])
    assert np.flatnonzero(targets != -100).tolist() == [4, 5, 6]
    with raises("units: expected maskable places, got the special token at 0"):
        mask_tokens(ids, special, masking=Masking(MASK, V, 1), key=key(0), units=[[0, 1]])


# ---- similar words


def test_similar_words_stand_for_the_mask():
    ids = np.array([1, 5, 6, 7, 8, 9, 2])
    similar = similar_words({(5, 6, 7): [(20, 21, 22), (30, 31, 32)]})
    masking = Masking(
        MASK, V, 1, units=whole_words(continuations(TOKENS + ["x"] * 40, inside="##")), similar=similar, random_ids=range(10, 20)
    )
    seen, random = set(), 0
    for n in range(400):
        inputs, targets = mask_tokens(ids, np.array([1, 0, 0, 0, 0, 0, 1]), masking=masking, key=fold(key(0), n))
        assert np.array_equal(targets[1:-1], ids[1:-1]) and (inputs != MASK).all()
        word = tuple(inputs[1:4].tolist())
        seen.add(word) if word in {(20, 21, 22), (30, 31, 32), (5, 6, 7)} else None
        random += word not in {(20, 21, 22), (30, 31, 32), (5, 6, 7)}
    assert seen == {(20, 21, 22), (30, 31, 32), (5, 6, 7)}
    assert abs(random - 40) <= five_sigma(400, 0.1)  # one draw per word: 10% are random in all their tokens
    with raises("table: expected at least one similar word of 1 ids for (5,), got "):
        similar_words({(5,): [(6, 7)]})
    with raises("similar: expected a function that returns 3 ids, got "):
        mask_tokens(ids, ids < 5, masking=Masking(MASK, V, 1, similar=lambda word, key: [1]), key=key(0), units=[[1, 2, 3]])


# ---- bad input


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mask_id": None}, "mask_id: expected an id from 0 to 49, got None"),
        ({"mask_id": V}, "mask_id: expected an id from 0 to 49, got 50"),
        ({"rate": 0}, "rate: expected a finite number > 0 and <= 1, got 0"),
        ({"rate": 1.1}, "rate: expected a finite number > 0 and <= 1, got 1.1"),
        ({"rate": float("nan")}, "rate: expected a finite number > 0 and <= 1, got nan"),
        ({"shares": (0.8, 0.1, 0.2)}, "shares: expected three from 0 to 1 that sum to 1"),
        ({"shares": (1.2, -0.1, -0.1)}, "shares: expected three from 0 to 1"),
        ({"shares": (0.8, 0.2)}, "expected three"),
        ({"selection": "some"}, "selection: expected one of exact, bernoulli, got 'some'"),
        ({"limit": 0}, "limit: expected None or an integer >= 1, got 0"),
        ({"ngrams": ()}, "expected weights of 1, 2, ... units"),
        ({"ngrams": (0, 1)}, "the first above 0"),
        ({"ngrams": (1, -1)}, "none negative"),
        ({"selection": "bernoulli", "limit": 3}, "selection: expected \"exact\" with limit or ngrams, got 'bernoulli'"),
        ({"selection": "bernoulli", "ngrams": (1, 1)}, "selection: expected \"exact\" with limit or ngrams, got 'bernoulli'"),
        ({"random_ids": [V]}, "random_ids: expected token ids from 0 to 49, got 50"),
        ({"random_ids": []}, "random_ids: expected at least one id, got []"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with raises(message):
        Masking(**{"mask_id": MASK, "vocab_size": V, **settings})


def test_bad_sequences_are_refused():
    for ids, special, message in (
        ([1, 2], [1, 1], "special_tokens_mask: expected at least one token that may be masked, got 2 special"),
        ([1, V], [0, 0], "ids: expected token ids from 0 to 49, got 50"),
        ([1, 2], [0], "special_tokens_mask: expected shape (2,), as ids, got "),
        ([[1]], [[0]], "ids: expected a list of token ids, got int64 array of shape (1, 1)"),
    ):
        with raises(message):
            mask_tokens(np.array(ids), np.array(special), masking=Masking(MASK, V), key=1)
    with raises("continues: expected booleans (V,), got int64 array of shape (2,)"):
        whole_words(np.array([0, 1]))
    for signs in ({}, {"inside": "##", "start": "Ġ"}):
        with raises("expected exactly one of them"):
            continuations(TOKENS, **signs)
