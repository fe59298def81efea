"""Rows and sentence pairs: special tokens, padding, truncation, RoBERTa's formats, next sentence and sentence order."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.test_masked import five_sigma
from tinyplm.objectives import Documents, Layout, next_sentence_pairs, pad, sentence_order_pairs, truncate_pair
from tinyplm.objectives.inputs import batches_of_tokens, doc_sentences, full_sentences
from tinyplm.random import fold, key

CLS, SEP, PAD = 1, 2, 0
BERT = Layout.bert(cls_id=CLS, sep_id=SEP, pad_id=PAD)
ROBERTA = Layout.roberta(bos_id=0, eos_id=2, pad_id=1)


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def numbered(*shapes):
    """Documents with distinct ids, counting from 10: shapes are the lengths of their sentences."""
    ids = iter(range(10, 100_000))
    return [[[next(ids) for _ in range(size)] for size in document] for document in shapes]


shapes = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=8), min_size=2, max_size=5)


# ---- rows


def test_layouts_by_hand():
    pair = BERT.pair(np.array([11, 12]), np.array([13]))
    assert pair["input_ids"].tolist() == [1, 11, 12, 2, 13, 2]
    assert pair["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]
    assert pair["special_tokens_mask"].tolist() == [1, 0, 0, 1, 0, 1]
    single = BERT.single(np.array([11, 2, 12]), np.array([0, 1, 0]))
    assert single["input_ids"].tolist() == [1, 11, 2, 12, 2] and single["special_tokens_mask"].tolist() == [1, 0, 1, 0, 1]
    pair = ROBERTA.pair(np.array([11, 12]), np.array([13]))
    assert pair["input_ids"].tolist() == [0, 11, 12, 2, 2, 13, 2]
    assert pair["token_type_ids"].tolist() == [0] * 7
    assert pair["special_tokens_mask"].tolist() == [1, 0, 0, 1, 1, 0, 1]
    assert [layout.room(10, pair) for layout in (BERT, ROBERTA) for pair in (False, True)] == [8, 7, 8, 6]


def test_padding_by_hand():
    rows = [BERT.single(np.array([11])), BERT.single(np.array([12, 13]))]
    right = pad(rows, 5, {"input_ids": PAD})
    assert right["input_ids"].tolist() == [[1, 11, 2, 0, 0], [1, 12, 13, 2, 0]]
    assert right["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert right["special_tokens_mask"].tolist() == [[1, 0, 1, 1, 1], [1, 0, 0, 1, 1]]
    left = pad(rows, 5, {"input_ids": 9}, left=True)
    assert left["input_ids"].tolist() == [[9, 9, 1, 11, 2], [9, 1, 12, 13, 2]]
    with raises("rows: row 1: expected at most 3 tokens, got 4"):
        pad(rows, 3, {"input_ids": PAD})


@given(a=st.integers(1, 30), b=st.integers(1, 30), room=st.integers(2, 40), seed=st.integers(0, 99))
def test_truncation_takes_from_the_longer(a, b, room, seed):
    first, second = np.arange(a), np.arange(100, 100 + b)
    x, y = truncate_pair(first, second, room, key(seed))
    assert len(x) + len(y) == min(a + b, room)
    for whole, part in ((first, x), (second, y)):
        assert np.array_equal(part, whole[part[0] - whole[0] :][: len(part)])  # one contiguous piece
    if len(x) < a and len(y) < b:
        assert 0 <= len(x) - len(y) <= 1
    assert len(x) == a or len(x) >= len(y)  # if truncated, it was the longer one


def test_truncation_is_at_front_and_back_by_a_fair_coin():
    fronts = [int(truncate_pair(np.arange(101), np.arange(1), 101, key(n))[0][0]) for n in range(400)]
    assert abs(sum(fronts) - 200) <= five_sigma(400, 0.5)
    assert 0 < truncate_pair(np.arange(200), np.arange(1), 101, key(0))[0][0] < 100


# ---- documents


def test_documents_are_slices():
    documents = Documents(numbered([2, 1], [3]))
    assert len(documents) == 2 and documents.sentences(0) == (0, 2) and documents.sentences(1) == (2, 3)
    assert documents.text(0, 2).tolist() == [10, 11, 12] and documents.text(2, 3).tolist() == [13, 14, 15]
    assert documents.size(1, 3) == 4
    assert [documents.reaching(0, n, 1, 2) for n in (-5, 1, 2, 3, 4, 99)] == [1, 1, 1, 2, 2, 2]
    assert documents.reaching(0, 1, 2, 3) == 2


def test_short_documents_are_refused_or_counted():
    texts = [*numbered([1, 1], [4]), [[], [5]], [], *numbered([2, 2])]
    with raises("document 1: expected 2 or more sentences, got 1 (skip_short=True drops such documents)"):
        Documents(texts, shortest=2)
    documents = Documents(texts, shortest=2, skip_short=True)
    assert len(documents) == 2 and documents.skipped == 3
    with raises("documents: expected one of 2 or more sentences, got 1 with fewer"):
        Documents([[[1]]], shortest=2, skip_short=True)
    with raises("document 0: expected a list of token ids, got [1.5]"):
        Documents([[[1.5]]])
    for pairs in (next_sentence_pairs, sentence_order_pairs):
        with raises("document 1: expected 2 or more sentences, got 1"):
            pairs(Documents(numbered([2, 2], [1])), 1, tokens=5, key=1)


# ---- RoBERTa's rows


def test_rows_of_sentences_by_hand():
    documents = Documents(numbered([3, 2, 4], [2, 2]))
    rows = [row.tolist() for row in doc_sentences(documents, 0, 6)]
    assert rows == [[10, 11, 12, 13, 14], [15, 16, 17, 18]]
    rows = [(ids.tolist(), special.tolist()) for ids, special in full_sentences(documents, [0, 1], 7, [SEP])]
    assert rows == [
        ([10, 11, 12, 13, 14], [0] * 5),
        ([15, 16, 17, 18, SEP, 19, 20], [0, 0, 0, 0, 1, 0, 0]),
        ([21, 22], [0, 0]),
    ]
    assert [row.tolist() for row in doc_sentences(Documents(numbered([5, 1])), 0, 3)] == [[10, 11, 12], [13, 14, 15]]
    cut = [ids.tolist() for ids, _ in full_sentences(Documents(numbered([5, 1])), [0], 3)]
    assert cut == [[10, 11, 12], [13, 14, 15]]


@given(shapes, st.integers(1, 20), st.integers(0, 2))
def test_rows_of_sentences_hold_all_text_once(lengths, room, gap):
    documents = Documents(numbered(*lengths))
    apart = [list(doc_sentences(documents, d, room)) for d in range(len(documents))]
    assert np.array_equal(np.concatenate([row for rows in apart for row in rows]), documents.ids)
    across = list(full_sentences(documents, range(len(documents)), room, [SEP] * gap))
    assert np.array_equal(np.concatenate([ids[special == 0] for ids, special in across]), documents.ids)
    assert max(len(row) for row in [*sum(apart, []), *(ids for ids, _ in across)]) <= room
    ends = set(documents.ids[documents.starts[1:] - 1].tolist())  # whole sentences: a row ends with one, or is full
    assert all(row[-1] in ends or len(row) == room for row in sum(apart, []))
    longest = max(map(max, lengths))
    if longest <= room:
        assert all(row[-1] in ends for row in [*sum(apart, []), *(ids for ids, _ in across)])
    between = set(documents.ids[documents.starts[documents.first[1:-1]]].tolist())  # first ids of later documents
    for ids, _ in across:
        for place in range(1, len(ids)):
            if ids[place] in between and gap:
                assert (ids[place - gap : place] == SEP).all()


def test_batches_of_about_as_many_tokens():
    assert batches_of_tokens([3, 3, 3, 9, 1, 1], 6) == [(0, 2), (2, 1), (3, 1), (4, 2)]
    assert batches_of_tokens([9, 1, 5, 1], 6) == [(0, 1), (1, 2), (3, 1)]  # an oversized row never makes an empty batch
    assert batches_of_tokens([], 6) == []


# ---- pairs


@given(shapes, st.integers(2, 30), st.integers(0, 999))
def test_next_sentence_pairs(lengths, tokens, seed):
    documents = Documents(numbered(*lengths))
    for d in range(len(documents)):
        start, end = documents.sentences(d)
        pairs = next_sentence_pairs(documents, d, tokens=tokens, key=key(seed))
        place = start
        for pair in pairs:
            assert pair.a[0] == place and pair.a[0] < pair.a[1] <= end and pair.b[0] < pair.b[1]
            if pair.label == 0:
                assert pair.b[0] == pair.a[1] and pair.b[1] <= end
            else:
                assert not start <= pair.b[0] < end
                others = [documents.sentences(o) for o in range(len(documents)) if o != d]
                assert any(first <= pair.b[0] and pair.b[1] <= stop for first, stop in others)
            place = pair.a[1] if pair.label else pair.b[1]
        assert end - place < 2  # the whole document, except perhaps one last sentence
        assert pairs == next_sentence_pairs(documents, d, tokens=tokens, key=key(seed))


@given(shapes, st.integers(2, 30), st.integers(0, 999))
def test_sentence_order_pairs(lengths, tokens, seed):
    documents = Documents(numbered(*lengths))
    for d in range(len(documents)):
        place, end = documents.sentences(d)
        for pair in sentence_order_pairs(documents, d, tokens=tokens, key=key(seed)):
            first, second = (pair.b, pair.a) if pair.label else (pair.a, pair.b)
            assert first[0] == place and first[1] == second[0] and second[1] <= end
            place = second[1]
        assert end - place < 2


@pytest.mark.parametrize("pairs", [next_sentence_pairs, sentence_order_pairs])
def test_labels_are_a_fair_coin_and_short_pairs_are_one_in_ten(pairs):
    documents = Documents(numbered([1] * 4000, [1] * 4000))
    made = pairs(documents, 0, tokens=20, key=key(1), short_rate=0.1)
    n = len(made)
    assert abs(sum(pair.label for pair in made) - n / 2) <= five_sigma(n, 0.5)
    sizes = [
        documents.size(*pair.a) + documents.size(*pair.b) for pair in made if pairs is sentence_order_pairs or not pair.label
    ]
    short = sum(size < 20 for size in sizes)
    p = 0.1 * 18 / 19  # one in 19 of the short pairs is as long as the others
    assert abs(short - len(sizes) * p) <= five_sigma(len(sizes), p) and min(sizes) < 6
    assert all(documents.size(*pair.a) + documents.size(*pair.b) <= 20 for pair in made)


@pytest.mark.parametrize("pairs", [next_sentence_pairs, sentence_order_pairs])
@pytest.mark.parametrize("tokens", [2, 3, 6])
def test_a_short_pair_has_any_length_from_two_tokens_on(pairs, tokens):
    """With one-token sentences a pair has exactly the requested length, so each length is equally likely."""
    documents = Documents(numbered([1] * 4000, [1] * 4000))
    made = [pair for pair in pairs(documents, 0, tokens=tokens, key=key(3), short_rate=1)]
    made = [pair for pair in made if pairs is sentence_order_pairs or pair.label == 0]
    sizes = [documents.size(*pair.a) + documents.size(*pair.b) for pair in made[:-1]]  # the last may be a remainder
    assert sorted(set(sizes)) == list(range(2, tokens + 1))
    for size in range(2, tokens + 1):
        p = 1 / (tokens - 1)
        assert abs(sizes.count(size) - len(sizes) * p) <= five_sigma(len(sizes), p)
    whole = pairs(documents, 0, tokens=tokens, key=key(3), short_rate=0)[:-1]
    assert {documents.size(*p.a) + documents.size(*p.b) for p in whole if pairs is sentence_order_pairs or not p.label} == {
        tokens
    }


def test_single_sentences_are_pairs_of_two_tokens():
    documents = Documents(numbered([5, 1, 7, 3], [2, 9, 4]))
    for n in range(50):
        for pair in next_sentence_pairs(documents, 0, tokens=2, key=fold(key(0), n), short_rate=0):
            assert pair.a[1] - pair.a[0] == 1 == pair.b[1] - pair.b[0]


def test_bad_input_is_refused():
    documents = Documents(numbered([2, 2]))
    with raises("documents: expected two or more"):
        next_sentence_pairs(documents, 0, tokens=5, key=1)
    short = "short_rate: expected a finite number >= 0 and <= 1, got "
    for settings, message in (
        ({"tokens": 1}, "tokens: expected an integer from 2"),
        ({"tokens": 4, "short_rate": 2}, f"{short}2"),
        ({"tokens": 4, "short_rate": 1.0000001}, f"{short}1.0000001"),
        ({"tokens": 4, "short_rate": -1e-9}, f"{short}-1e-09"),
    ):
        with raises(message):
            sentence_order_pairs(documents, 0, key=1, **settings)
    for settings in ({"tokens": 2}, {"tokens": 4, "short_rate": 0}, {"tokens": 4, "short_rate": 1}):
        assert sentence_order_pairs(documents, 0, key=1, **settings)
    with raises("length: expected at least 5, with the special tokens, got 4"):
        BERT.room(4, pair=True)
    with raises("special token: expected an id (does the vocabulary have all special tokens?), got None"):
        Layout.bert(cls_id=1, sep_id=None, pad_id=0)
    with raises("room: expected an integer >= 2, got 1"):
        truncate_pair(np.arange(2), np.arange(2), 1, 0)
