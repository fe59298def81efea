"""Blank infilling: which spans, the two parts with their positions, the way back, and batches by number."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.objectives import infilling as formula
from reference.objectives.noising import poisson
from tests.objectives.test_masked import five_sigma
from tests.objectives.test_sentence_pairs import numbered
from tinyplm.data import Windows
from tinyplm.layers.mask import prefix_mask
from tinyplm.objectives import (
    BlankTokens,
    InfilledDocuments,
    blank_infilling,
    document_span,
    restore_blanks,
    sentence_spans,
    short_spans,
)
from tinyplm.objectives.infilling import SHARES
from tinyplm.objectives.inputs import sentence_rows
from tinyplm.random import fold, key

M, S, E, SM, GM, CLS = range(1, 7)
TOKENS = BlankTokens(M, S, E, 0, sentence_mask_id=SM, document_mask_id=GM, first=(CLS,))
TEXTS = [[[i + 4 for i in s] for s in document] for document in numbered([4, 3, 5, 2], [6, 1, 2], [3, 3, 3, 3, 3], [9, 2])]
keys = st.integers(0, 2**64 - 1)
rates = st.sampled_from([0.01, 0.15, 0.3, 0.5])


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


# ---- by hand


def test_the_papers_example():
    """Du et al. 2022, fig. 2: spans x3 and x5 x6 of six tokens, the second one first; positions from 0, not from 1."""
    x = [11, 12, 13, 14, 15, 16]
    tokens = BlankTokens(M, S, E, 0)
    sample = blank_infilling(x, np.array([[2, 3], [4, 6]]), [1, 0], tokens=tokens)
    assert sample.input_ids.tolist() == [11, 12, M, 14, M, S, 15, 16, S, 13]
    assert sample.targets.tolist() == [-100] * 5 + [15, 16, E, 13, E]
    assert (sample.position_ids + [[1], [0]]).tolist() == [[1, 2, 3, 4, 5, 5, 5, 5, 3, 3], [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]]
    assert sample.prefix == 5
    assert restore_blanks(sample.input_ids, sample.position_ids, prefix=5, tokens=tokens).tolist() == x


def test_what_sees_what_is_the_prefix_mask():
    for length in range(1, 7):
        ours = prefix_mask(np.arange(length + 1), length)[:, 0]
        assert ours.tolist() == [formula.visible(length, prefix) for prefix in range(length + 1)]


# ---- spans


@given(st.integers(1, 300), rates, st.floats(0.5, 9), keys)
def test_short_spans_cover_their_share_and_do_not_touch(length, rate, mean, k):
    spans = short_spans(length, key=k, rate=rate, mean_span=mean)
    sizes, least = spans[:, 1] - spans[:, 0], math.ceil(rate * length)
    assert sizes.min() >= 1 and spans[0, 0] >= 0 and spans[-1, 1] <= length and (spans[1:, 0] > spans[:-1, 1]).all()
    assert len(spans) <= least <= sizes.sum() and any(sizes.sum() - size < least for size in sizes)
    assert np.array_equal(spans, short_spans(length, key=k, rate=rate, mean_span=mean))


@pytest.mark.parametrize("sizes", [(1, 2), (3,), (1, 1, 1)])
def test_all_placements_are_equally_likely(sizes):
    """3 tokens of 9: every order of the sizes, every placement with a token between, and no other."""
    n = 9
    found = Counter()
    for i in range(9000):
        spans = short_spans(n, key=fold(key(0), i), rate=3 / n, mean_span=1.0)
        if sorted(spans[:, 1] - spans[:, 0]) == sorted(sizes):
            found[tuple(map(tuple, spans.tolist()))] += 1
    orders = {(1, 2): [(1, 2), (2, 1)]}.get(sizes, [sizes])
    expected = {p for order in orders for p in formula.placements(n, list(order))}
    total = sum(found.values())
    assert total > 300 and found.keys() == expected
    assert all(abs(count - total / len(expected)) <= five_sigma(total, 1 / len(expected)) for count in found.values())


def test_lengths_have_a_poisson_distribution_without_0():
    """All but the last one drawn, which the rate may select by its length: here the first of many."""
    n = 20_000
    sizes = np.concatenate([s[:, 1] - s[:, 0] for s in [short_spans(n * 7, key=key(3))]])[:n]
    assert len(sizes) > 6000
    for k in range(1, 9):
        share = poisson(k, 3.0) / (1 - poisson(0, 3.0))
        assert abs((sizes == k).sum() - share * len(sizes)) <= five_sigma(len(sizes), share)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), rates, keys)
def test_sentence_spans_are_whole_sentences_and_no_more_than_needed(sizes, rate, k):
    bounds = np.cumsum([0, *sizes])
    spans = sentence_spans(bounds, key=k, rate=rate)
    sentences = list(map(tuple, np.stack([bounds[:-1], bounds[1:]], axis=1).tolist()))
    chosen = list(map(tuple, spans.tolist()))
    assert set(chosen) <= set(sentences) and chosen == sorted(set(chosen))
    covered, least = sum(b - a for a, b in chosen), math.ceil(rate * bounds[-1])
    assert covered >= least and any(covered - (b - a) < least for a, b in chosen)


def test_each_sentence_is_equally_likely():
    found = Counter(tuple(sentence_spans([0, 3, 6, 9, 12], key=fold(key(1), i))[0]) for i in range(2000))
    assert len(found) == 4 and all(abs(count - 500) <= five_sigma(2000, 0.25) for count in found.values())


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_a_documents_span_has_half_of_it_or_more(n):
    drawn = [document_span(n, key=fold(key(2), i))[0].tolist() for i in range(4000)]
    sizes, options = Counter(b - a for a, b in drawn), range(-(-n // 2), n + 1)
    assert sizes.keys() == set(options)
    assert all(abs(count - 4000 / len(options)) <= five_sigma(4000, 1 / len(options)) for count in sizes.values())
    for size in options:  # at the end in half of the cases, else anywhere, also at the end
        places = n - size + 1
        share = 1 / len(options) * (0.5 + 0.5 / places)
        assert abs(sum(a == n - size and b - a == size for a, b in drawn) - 4000 * share) <= five_sigma(4000, share)
        assert {a for a, b in drawn if b - a == size} == set(range(places))


# ---- the sample, and back


@st.composite
def blanked(draw):
    """(text, spans, order, first): any spans, also touching ones, all of the text, or none."""
    cuts = sorted(draw(st.sets(st.integers(0, 40), max_size=12)))
    pairs = [(a, b) for a, b in zip(cuts, cuts[1:])]
    spans = [pair for pair in pairs if draw(st.booleans())]
    n = max([draw(st.integers(0, 40)), *(b for _, b in spans)])
    order = draw(st.permutations(range(len(spans))))
    text = draw(st.lists(st.integers(10, 15), min_size=n, max_size=n))
    return text, spans, order, draw(st.sampled_from([(), (CLS,), (CLS, 7)]))


@given(blanked(), st.sampled_from(list(SHARES)))
def test_any_spans_equal_the_reference_and_are_undone(case, kind):
    text, spans, order, first = case
    tokens = BlankTokens(M, S, E, 0, sentence_mask_id=SM, document_mask_id=GM, first=first)
    sample = blank_infilling(text, np.array(spans, int).reshape(-1, 2), order, tokens=tokens, kind=kind)
    mask = {"spans": M, "sentences": SM, "document": GM}[kind]
    inputs, positions, targets, prefix = formula.corrupt(text, spans, list(order), list(first), mask, S, E)
    assert sample.input_ids.tolist() == inputs and sample.prefix == prefix
    assert [tuple(pair) for pair in sample.position_ids.T.tolist()] == positions
    assert [None if t == -100 else t for t in sample.targets.tolist()] == targets
    assert all(a.dtype == np.int64 for a in sample[:3])
    assert restore_blanks(*sample[:2], prefix=prefix, tokens=tokens).tolist() == text
    assert formula.restore(inputs, positions, prefix, list(first)) == text


def test_a_vocabulary_with_one_mask_has_it_for_all():
    tokens = BlankTokens(M, S, E, 0)
    assert [tokens.mask(kind) for kind in SHARES] == [M] * 3 and tokens.masks == [M]
    assert [TOKENS.mask(kind) for kind in SHARES] == [M, SM, GM] and TOKENS.masks == [M, SM, GM]


# ---- batches


def made(seed=5, length=23, **options):
    return InfilledDocuments(TEXTS, length, tokens=TOKENS, seed=seed, **options)


def rows_of(inputs, targets):
    """Each sample without padding: (input_ids, position_ids, targets, prefix)."""
    for b, prefix in enumerate(inputs["prefix_lengths"].tolist()):
        n = prefix + int((targets["logits"][b] != -100).sum())
        assert (inputs["input_ids"][b, n:] == 0).all() and (inputs["position_ids"][b, :, n:] == 0).all()
        yield inputs["input_ids"][b, :n], inputs["position_ids"][b, :, :n], targets["logits"][b, :n], prefix


@pytest.mark.parametrize("shares", [None, *({kind: 1} for kind in SHARES)])
def test_a_sample_depends_on_its_number_alone(shares):
    whole, data = made(shares=shares).batch(0, 40), made(shares=shares)
    late = data.batch(33, 7)  # a resumed run: its first request is in a later epoch
    parts = [data.batch(0, 20), data.batch(20, 13), late]
    for side in (0, 1):
        for name, a in whole[side].items():
            assert np.array_equal(a, np.concatenate([part[side][name] for part in parts])) and a.dtype == np.int64
    assert not np.array_equal(whole[0]["input_ids"], made(seed=6, shares=shares).batch(0, 40)[0]["input_ids"])
    assert whole[0]["input_ids"].shape == whole[1]["logits"].shape == (40, 23) and data.length == 23
    assert whole[0]["position_ids"].shape == (40, 2, 23) and whole[0]["prefix_lengths"].shape == (40,)


def test_an_epoch_has_all_sentences_once_and_each_sample_gives_its_text_back():
    data = made()
    room = 17  # of 23 places: the first token, and ceil(0.15 x 17) blanks of two more each
    rows = [bounds for d in range(len(data.documents)) for bounds in sentence_rows(data.documents, d, room)]
    count, texts = len(rows), []
    for ids, positions, targets, prefix in rows_of(*data.batch(0, count)):
        assert np.array_equal(targets[prefix:-1][ids[prefix + 1 :] != S], ids[prefix + 1 :][ids[prefix + 1 :] != S])
        texts.append(restore_blanks(ids, positions, prefix=prefix, tokens=TOKENS))
    assert np.array_equal(np.sort(np.concatenate(texts)), data.documents.ids)


def test_the_shares_are_those_of_the_masks():
    n = 3000
    inputs, _ = made(length=31).batch(0, n)
    for kind, mask in zip(SHARES, (M, SM, GM)):
        assert abs((inputs["input_ids"] == mask).any(axis=1).sum() - SHARES[kind] * n) <= five_sigma(n, SHARES[kind])
    only, _ = made(shares={"document": 2, "spans": 0}).batch(0, 50)
    assert ((only["input_ids"] == GM).sum(axis=1) == 1).all() and not np.isin(only["input_ids"], [M, SM]).any()


@given(st.integers(4, 60), rates, keys)
def test_every_sample_has_room(length, rate, k):
    """Texts of single tokens, of which each may become a sentence of its own, and of one long sentence."""
    documents = [[[10 + i] for i in range(50)], [list(range(10, 90))]]
    data = InfilledDocuments(documents, length, tokens=TOKENS, seed=k % 1000, rate=rate, mean_span=0.5)
    inputs, targets = data.batch(0, 30)
    for ids, positions, _, prefix in rows_of(inputs, targets):
        restore_blanks(ids, positions, prefix=prefix, tokens=TOKENS)


@pytest.mark.parametrize("kind", [np.uint16, np.int64])
def test_a_token_array_has_the_windows_of_other_objectives(kind, tmp_path):
    """Of 19 tokens, for 25 places: ceil(0.15 x 19) blanks of two more each; also mapped from a file."""
    np.save(tmp_path / "tokens.npy", np.arange(10, 410).astype(kind))
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    data = InfilledDocuments(tokens, 26, tokens=TOKENS, seed=5)
    whole = data.batch(0, 60)  # several epochs
    texts = [restore_blanks(ids, at, prefix=prefix, tokens=TOKENS) for ids, at, _, prefix in rows_of(*whole)]
    assert np.array_equal(np.stack(texts), Windows(tokens, 19, 5).batch(0, 60)[0])
    late = InfilledDocuments(tokens, 26, tokens=TOKENS, seed=5).batch(41, 9)
    assert np.array_equal(late[0]["input_ids"], whole[0]["input_ids"][41:50])
    ids = whole[0]["input_ids"]
    assert not (ids == SM).any() and (ids == GM).any() and (ids == M).any()
    assert data.shares == {"spans": 0.5, "document": 0.2}
    for shares in ({"sentences": 1}, SHARES):
        with raises("shares: expected none of sentences for a token array, which has no bounds, got {"):
            InfilledDocuments(tokens, 26, tokens=TOKENS, seed=5, shares=shares)
    with raises("tokens: expected at least 20 for a window of 19, got 19"):
        InfilledDocuments(tokens[:19], 26, tokens=TOKENS, seed=5)


# ---- bad input


def test_bad_input_is_refused():
    two = np.array([[0, 1], [2, 4]])

    def blanked(ids, spans, order=(0, 1), tokens=TOKENS):
        return blank_infilling(ids, spans, order, tokens=tokens)

    for call, message in (
        (lambda: blanked([7, M, 9, 9], two), "ids: expected a text without mask, start and end tokens, got 1"),
        (lambda: blanked([7, 8, 9], two), "spans: expected spans of 3 ids in order, without overlap"),
        (lambda: blanked([7] * 4, two[::-1]), "spans: expected spans of 4 ids in order"),
        (lambda: blanked([7] * 4, [[1, 1]], [0]), "spans: expected [start, end) of one token or more each"),
        (lambda: blanked([7] * 4, two, [0, 0]), "order: expected 0 to 1 in any order"),
        (lambda: blanked([7] * 4, two, tokens=(1, 2)), "tokens: expected BlankTokens, got (1, 2)"),
        (lambda: BlankTokens(1, 1, 2, 0), "BlankTokens: expected different ids for first and mask_id, start_id, end_id"),
        (lambda: BlankTokens(1, 2, None, 0), "BlankTokens: end_id: expected an id (does the vocabulary have"),
        (lambda: short_spans(9, key=1, rate=0.6), "rate: expected a finite number > 0 and <= 0.5, got 0.6"),
        (lambda: sentence_spans([0, 3, 3], key=1), "bounds: expected 0 < ... < n: where sentences start"),
        (lambda: document_span(0, key=1), "length: expected an integer from 1 to"),
        (lambda: made(length=3), "length: expected an integer from 4 to"),
        (lambda: made(shares={"x": 1}), "shares: expected a dict of weights of spans, sentences, document"),
        (lambda: made(shares={"spans": 0}), "shares: expected weights, none negative, with a sum above 0"),
    ):  # fmt: skip
        with raises(message):
            call()


def test_samples_that_do_not_fit_together_are_refused():
    sample = blank_infilling([7, 8, 9, 10], np.array([[0, 1], [2, 4]]), [1, 0], tokens=TOKENS)
    ids, at, prefix = sample.input_ids, sample.position_ids, sample.prefix

    def restored(ids=ids, at=at, prefix=prefix):
        return restore_blanks(ids, at, prefix=prefix, tokens=TOKENS)

    assert restored().tolist() == [7, 8, 9, 10]
    other = at.copy()
    other[0, prefix : prefix + 3] = 1
    for call, message in (
        (lambda: restored(at=at[:, :-1]), "position_ids: expected shape (2, 9), as input_ids has, got (2, 8)"),
        (lambda: restored(ids=ids[1:], at=at[:, 1:], prefix=prefix - 1), "input_ids: expected [6] first, got [1]"),
        (lambda: restored(prefix=prefix + 1), "input_ids: expected a start token at prefix = 5, the first of part B, got 9"),
        (lambda: restored(at=other), "position_ids: expected one piece for each mask, at [1, 3], got [1, 1]"),
        (lambda: restored(at=at[:, ::-1]), "position_ids: expected 1 within the span at each start token"),
        (lambda: restored(prefix=10), "prefix: expected an integer from 0 to 9, the number of input_ids, got 10"),
    ):
        with raises(message):
            call()
