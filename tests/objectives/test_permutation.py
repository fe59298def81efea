"""Permutation language modelling and translation pairs: which tokens see which, and what is predicted."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.test_masked import five_sigma
from tinyplm.objectives import permutation_sample, translation_pair
from tinyplm.objectives.permutation import join_masks, last_in_order, permutation_mask, predicted_spans, ranks_of, target_arrays
from tinyplm.random import fold, key


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def reached(perm_mask):
    """(T, T) booleans: whether the token at j can influence the prediction at i through any number of layers.

    Content streams see themselves and what the mask shows; the query stream at i starts from what the mask shows alone.
    """
    shown = perm_mask == 0
    content = shown | np.eye(len(shown), dtype=bool)
    for _ in range(len(shown)):
        content = (content.astype(int) @ content.astype(int)) > 0
    return (shown.astype(int) @ content.astype(int)) > 0


def test_by_hand():
    rank = ranks_of([2, 0, 3, 1])
    assert rank.tolist() == [1, 3, 0, 2]
    assert permutation_mask(rank).tolist() == [[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1]]
    assert last_in_order(range(11), 6).tolist() == [False] * 10 + [True]  # 11 / 6 is rounded down
    predicted = last_in_order([2, 0, 3, 1], 2)  # half of them: positions 3 and 1
    assert predicted.tolist() == [False, True, False, True]
    rank = ranks_of([2, 0, 3, 1], predicted)
    assert rank.tolist() == [-1, 3, -1, 2]
    assert permutation_mask(rank).tolist() == [[0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1]]
    mapping, targets = target_arrays([7, 8, 9, 6], [3, 1], 3)
    assert mapping.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]] and targets.tolist() == [6, 8, -100]


def test_joined_segments_by_hand():
    first, second = np.array([[1]]), np.array([[0, 1], [0, 1]])
    assert join_masks(first, second).tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 1]]


@given(st.permutations(range(7)), st.lists(st.booleans(), min_size=7, max_size=7), st.booleans())
def test_a_prediction_depends_on_what_comes_before_it_in_the_order(order, predicted, context):
    """Exactly those tokens reach the prediction, and nothing else does, least of all the token itself."""
    predicted = np.array(predicted) if context else np.ones(7, bool)
    rank = ranks_of(order, predicted if context else None)
    found = reached(permutation_mask(rank))
    for i in np.flatnonzero(predicted):
        assert found[i].tolist() == (rank < rank[i]).tolist()


@given(T=st.integers(2, 24), seed=st.integers(0, 999), M=st.integers(1, 8), data=st.data())
def test_samples_do_not_leak(T, seed, M, data):
    reuse = data.draw(st.integers(0, T - 1))
    ids = np.random.default_rng(seed).integers(5, 99, T)
    special = (np.random.default_rng(seed).random(T) < 0.2).astype(int)
    special[0] = 0
    sample = permutation_sample(ids, special, predictions=M, key=key(seed), K=2, longest=3, reuse=reuse)
    assert {name: a.shape for name, a in sample.items()} == {
        "perm_mask": (T, T),
        "target_mapping": (M, T),
        "targets": (M,),
    }
    rows = sample["targets"] != -100
    places = sample["target_mapping"][rows].argmax(axis=1)
    assert 1 <= rows.sum() and (sample["target_mapping"].sum(axis=1) == rows).all()
    assert len(set(places.tolist())) == len(places) and not special[places].any()
    assert np.array_equal(ids[places], sample["targets"][rows])
    found = reached(sample["perm_mask"])
    for i in places:
        assert not found[i, i]
        seen_by_i = [j for j in places if found[i, j]]
        assert not any(found[j, i] for j in seen_by_i)  # one of any two comes first
        if i < reuse:
            assert not found[i, reuse:].any()
    context = np.setdiff1d(np.arange(T), places)
    for part in (context[context < reuse], context[context >= reuse]):
        same = places[(places >= reuse) == (len(part) > 0 and part[0] >= reuse)]
        assert found[np.ix_(same, part)].all()  # all of its segment's context
    assert found[np.ix_(places[places >= reuse], np.arange(reuse))].all()  # the second segment sees all of the first
    again = permutation_sample(ids, special, predictions=M, key=key(seed), K=2, longest=3, reuse=reuse)
    assert all(np.array_equal(sample[name], again[name]) for name in sample)


def test_beyond_the_predictions_the_last_in_the_order_become_context():
    """Of successive predictions, each hides the later ones: the three that hide the most are kept."""
    ids = np.arange(30)
    many, few = (permutation_sample(ids, ids * 0, predictions=M, key=key(4), K=2) for M in (30, 3))
    places, kept = (sample["targets"][sample["targets"] >= 0] for sample in (many, few))
    later = many["perm_mask"][np.ix_(places, places)].sum(axis=1)
    assert len(places) > 6 and set(kept) == set(places[np.argsort(-later)[:3]])


def test_spans_and_their_share():
    T, K = 60_000, 6
    predicted = predicted_spans(T, K=K, longest=5, key=key(0))
    assert abs(predicted.mean() - 1 / K) < 1e-3  # every context of K L tokens has L of them: only the last one is truncated
    edges = np.flatnonzero(np.diff(np.concatenate([[0], predicted.astype(int), [0]])))
    lengths = edges[1::2] - edges[::2]
    n = len(lengths)
    for length in range(1, 6):  # 1 in 5 each; two spans touch in fewer than 2 of 100 cases
        assert abs((lengths == length).sum() - n / 5) <= five_sigma(n, 1 / 5) + 0.02 * n
    assert (lengths > 5).mean() < 0.02
    within = np.bincount(np.flatnonzero(predicted_spans(T, K=K, longest=1, key=key(0))) % K)  # anywhere in its context
    assert (np.abs(within - T / K / K) <= five_sigma(T // K, 1 / K)).all()


def test_all_orders_are_equally_likely():
    counts = np.zeros((3, 3))
    for n in range(600):
        sample = permutation_sample(np.arange(3), np.zeros(3), predictions=3, key=fold(key(0), n), K=1, longest=1)
        counts[np.arange(3), sample["perm_mask"].sum(axis=1) - 1] += 1  # a token that sees no other has rank 0
    assert (np.abs(counts - 200) <= five_sigma(600, 1 / 3)).all()


def test_bad_input_is_refused():
    good = {"predictions": 2, "key": 1}
    for ids, special, settings, message in (
        ([1, 2], [1, 1], {}, "special_tokens_mask: expected at least one token that may be predicted, got 2 special"),
        ([1, 2], [0], {}, "special_tokens_mask: expected shape (2,), as ids, got "),
        ([1, 2], [0, 0], {"predictions": 0}, "predictions: expected an integer from 1"),
        ([1, 2], [0, 0], {"reuse": 2}, "reuse: expected an integer from 0 to 1, got 2"),
        ([1, 2], [0, 0], {"K": 0.5}, "K: expected a finite number >= 1"),
        ([1, 2], [0, 0], {"longest": 0}, "longest: expected an integer from 1"),
    ):
        with raises(message):
            permutation_sample(np.array(ids), np.array(special), **{**good, **settings})
    for order in ([0, 0, 2], [1, 2, 3], [0.0, 1.0]):
        with raises("expected a permutation of 0 to"):
            ranks_of(order)
    with raises("places: expected at most 2, got "):
        target_arrays([1, 2, 3], [0, 1, 2], 2)


# ---- translation pairs


def test_translation_by_hand():
    row = translation_pair([11, 12], [21], languages=(4, 6), eos_id=2, length=9)
    assert row["input_ids"].tolist() == [2, 11, 12, 2, 2, 21, 2]
    assert row["position_ids"].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert row["langs"].tolist() == [4, 4, 4, 4, 6, 6, 6]
    assert row["special_tokens_mask"].tolist() == [1, 0, 0, 1, 1, 0, 1]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(6, 50))
def test_translations_are_cut_at_the_end_of_the_longer(a, b, length):
    row = translation_pair(range(100, 100 + a), range(200, 200 + b), languages=(0, 1), eos_id=2, length=length)
    first, second = (row["input_ids"][(row["langs"] == n) & (row["special_tokens_mask"] == 0)].tolist() for n in (0, 1))
    assert first == list(range(100, 100 + len(first))) and second == list(range(200, 200 + len(second)))
    assert len(first) + len(second) == min(a + b, length - 4) and min(len(first), len(second)) >= 1
    assert len(first) == a or len(first) >= len(second)
    assert len(second) == b or len(second) >= len(first) - 1


def test_bad_translations_are_refused():
    with raises("source: expected 1 or more tokens, got none"):
        translation_pair([], [1, 2], languages=(0, 1), eos_id=2, length=9)
    with raises("length: expected at least 6, with four </s>, got 5"):
        translation_pair([1], [1, 2], languages=(0, 1), eos_id=2, length=5)
