"""Span corruption: numbers and places of spans, inputs and targets, and the way back."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.objectives import spans as formula
from tests.objectives.test_masked import five_sigma
from tinyplm.objectives import corrupt_spans, named_sentinels, noise_counts, noise_mask, restore_spans, sentinel_ids, span_lengths
from tinyplm.random import fold, key

SENTINELS = sentinel_ids(1000, 200)
densities, means = st.floats(0.01, 0.99), st.floats(1, 20)


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


# ---- by hand


def test_the_papers_example():
    """The corruption of Raffel et al. 2020, fig. 2, in ids; <X> is the highest."""
    text = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    noise = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 0], bool)
    X, Y, Z = sentinel_ids(100, 3)
    assert (X, Y, Z) == (99, 98, 97)
    inputs, targets = corrupt_spans(text, noise, sentinels=[X, Y, Z])
    assert inputs.tolist() == [11, 12, X, 15, 16, 17, 18, Y, 20]
    assert targets.tolist() == [X, 13, 14, Y, 19, Z]
    assert corrupt_spans(text, noise, sentinels=[X, Y], closing=False)[1].tolist() == [X, 13, 14, Y, 19]
    for end in (targets, targets[:-1]):
        assert restore_spans(inputs, end, sentinels=[X, Y, Z]).tolist() == text


def test_counts_by_hand():
    assert noise_counts(512) == (77, 26)  # 76.8 and 25.67
    assert noise_counts(568) == (85, 28)  # 85.2 and 28.33
    assert noise_counts(10) == (2, 1)  # 1.5 rounds to even, 0.67
    assert noise_counts(2) == (1, 1)  # at least one of each
    assert noise_counts(4, density=0.9, mean_span=1) == (3, 1)  # one kept token allows one span
    assert noise_counts(512, density=0.5) == (256, 85)


def test_published_lengths():
    """512 inputs come from 568 tokens and have 114 targets in the released code, which has no closing sentinel."""
    assert span_lengths(512, closing=False) == (568, 114)
    assert span_lengths(512) == (568, 115)
    assert span_lengths(512, special=0, closing=False) == (569, 113)


def test_sentinels_of_a_vocabulary():
    vocabulary = {"<extra_id_1>": 7, "<extra_id_0>": 9, "a": 1, "<extra_id_3>": 4}
    assert named_sentinels(vocabulary) == [9, 7] and named_sentinels({"a": 1}) == []
    assert named_sentinels({"<mask_0>": 5}, "<mask_{}>") == [5]
    for call, message in (
        (lambda: named_sentinels({"<extra_id_0>": "x"}), "vocabulary: '<extra_id_0>': expected an integer from 0"),
        (lambda: named_sentinels(vocabulary, "<x>"), "name: expected a text with one {} for the number, got '<x>'"),
    ):
        with raises(message):
            call()


# ---- against the reference


@given(st.integers(2, 400), densities, means)
def test_counts_equal_the_reference(length, density, mean):
    noise, spans = noise_counts(length, density=density, mean_span=mean)
    assert (noise, spans) == formula.counts(length, density, mean)
    assert 1 <= spans <= noise < length and spans <= length - noise


@given(st.integers(4, 600), st.one_of(st.just(0.5), st.floats(0.01, 0.9)), means, st.integers(0, 2), st.booleans())
def test_lengths_equal_the_reference(length, density, mean, special, closing):
    tokens, target = span_lengths(length, density=density, mean_span=mean, special=special, closing=closing)
    assert (tokens, target - closing) == formula.lengths(length, density, mean, special)
    noise, spans = noise_counts(tokens, density=density, mean_span=mean)
    assert tokens - noise + spans + special <= length


@given(st.integers(2, 300), densities, means, st.integers(0, 2**64 - 1), st.booleans())
def test_corruption_equals_the_reference_and_is_undone(length, density, mean, k, closing):
    mask = noise_mask(length, density=density, mean_span=mean, key=k)
    noise, spans = noise_counts(length, density=density, mean_span=mean)
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    assert mask.sum() == noise and starts.sum() == spans and not mask[0] and mask[-1]
    text = np.random.default_rng(k % 2**32).integers(0, 800, length)
    inputs, targets = corrupt_spans(text, mask, sentinels=SENTINELS, closing=closing)
    expected = formula.corrupt(text.tolist(), mask.tolist(), SENTINELS, closing)
    assert (inputs.tolist(), targets.tolist()) == expected
    assert len(inputs) == length - noise + spans and len(targets) == noise + spans + closing
    assert restore_spans(inputs, targets, sentinels=SENTINELS).tolist() == text.tolist()
    assert formula.restore(*expected, SENTINELS) == text.tolist()
    assert np.array_equal(mask, noise_mask(length, density=density, mean_span=mean, key=k))


@given(st.lists(st.booleans(), max_size=30), st.booleans())
def test_any_mask_is_undone(mask, closing):
    """Also masks that begin with noise or have none."""
    text = list(range(len(mask)))
    inputs, targets = corrupt_spans(text, np.array(mask, bool), sentinels=SENTINELS, closing=closing)
    assert (inputs.tolist(), targets.tolist()) == formula.corrupt(text, mask, SENTINELS, closing)
    assert restore_spans(inputs, targets, sentinels=SENTINELS).tolist() == text


def test_all_masks_are_equally_likely():
    """Every mask of the reference's enumeration occurs, and no other: 5 tokens of 12 in 3 spans."""
    masks = formula.masks(12, 0.4, 5 / 3)
    assert len(masks) == len(set(masks)) == 6 * 15  # divisions of 5 and of 7 tokens into 3
    n = 200 * len(masks)
    found = Counter(tuple(noise_mask(12, density=0.4, mean_span=5 / 3, key=fold(key(0), i)).tolist()) for i in range(n))
    assert found.keys() == set(masks)
    assert all(abs(count - 200) <= five_sigma(n, 1 / len(masks)) for count in found.values())


# ---- bad input


def test_bad_settings_are_refused():
    for settings, message in (
        ({"density": 0}, "density: expected a finite number > 0 and < 1, got 0"),
        ({"density": 1}, "density: expected a finite number > 0 and < 1, got 1"),
        ({"density": float("nan")}, "density: expected a finite number"),
        ({"mean_span": 0.99}, "mean_span: expected a finite number >= 1"),
        ({"length": 1}, "length: expected an integer from 2 to 2147483647, got 1"),
    ):
        with raises(message):
            noise_mask(**{"length": 9, "key": 1, **settings})
    noise_mask(2, key=1, density=1e-9, mean_span=1)
    with raises("length: expected an integer from 3 to 2147483647, got 2"):
        span_lengths(2)
    assert span_lengths(3) == (2, 4)
    with raises("density: expected a smaller one for inputs of 512 tokens, got 0.9999999999"):
        span_lengths(512, density=0.9999999999, mean_span=2**31 - 1)
    with raises("count: expected at most vocab_size = 9, got 10"):
        sentinel_ids(9, 10)


def test_missing_sentinels_and_ambiguous_texts_are_refused():
    noise = np.array([False, True, False, True])
    with raises("sentinels: expected 3 or more for texts of 4 tokens, got 2 (does the vocabulary have them?)"):
        corrupt_spans([1, 2, 3, 4], noise, sentinels=[9, 8])
    corrupt_spans([1, 2, 3, 4], noise, sentinels=[9, 8], closing=False)
    with raises("ids: expected a text without sentinels, got 9"):
        corrupt_spans([1, 2, 9, 4], noise, sentinels=[9, 8, 7])
    with raises("sentinels: expected ids, no two equal, got [9, 8, 9]"):
        corrupt_spans([1, 2, 3, 4], noise, sentinels=[9, 8, 9])
    with raises("noise: expected booleans (3,), one per id, got "):
        corrupt_spans([1, 2, 3], noise, sentinels=[9, 8, 7])
    for inputs, targets, message in (
        ([1, 8], [9, 2], "inputs: expected the sentinels in order, got [8]"),
        ([1, 9], [8, 2], "targets: expected the sentinels in order, got [8]"),
        ([1, 9, 3, 8], [9, 2], "targets: expected 2 spans, as many as inputs has sentinels, got 1"),
        ([1, 9], [5, 9, 2], "targets: expected one of the sentinels first, got 5"),
        ([1, 9], [9, 2, 8, 3], "targets: expected nothing after the closing sentinel, got [9, 2, 8, 3]"),
        ([1], [5], "targets: expected one of the sentinels first, got 5"),
    ):
        with raises(message):
            restore_spans(inputs, targets, sentinels=[9, 8, 7])
