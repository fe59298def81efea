"""Source and target texts as the arrays of an encoder-decoder, and pairs in shuffled epochs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.objectives import seq2seq as formula
from tinyplm.objectives import Seq2SeqLayout, Seq2SeqPairs, seq2seq_batch

T5 = Seq2SeqLayout.t5(eos_id=1, pad_id=0)
BART = Seq2SeqLayout.bart(bos_id=0, eos_id=2, pad_id=1)
PAIRS = [([10 + n] * (1 + n % 4), [30 + n, 31 + n][: 1 + n % 2]) for n in range(10)]


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def test_by_hand():
    inputs, targets = seq2seq_batch([([11, 12], [21]), ([13], [22, 23, 24])], layout=T5)
    assert inputs["input_ids"].tolist() == [[11, 12, 1], [13, 1, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert targets["logits"].tolist() == [[21, 1, -100, -100], [22, 23, 24, 1]]
    assert inputs["decoder_input_ids"].tolist() == [[0, 21, 1, 0], [0, 22, 23, 24]]
    inputs, targets = seq2seq_batch([([11, 12], [21])], layout=BART, length=5, target_length=4)
    assert inputs["input_ids"].tolist() == [[0, 11, 12, 2, 1]]
    assert targets["logits"].tolist() == [[0, 21, 2, -100]]
    assert inputs["decoder_input_ids"].tolist() == [[2, 0, 21, 2]]
    assert inputs.keys() == {"input_ids", "attention_mask", "decoder_input_ids"}


texts = st.lists(st.integers(5, 99), max_size=6)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.sampled_from([T5, BART]), st.integers(0, 3))
def test_rows_hold_their_texts(pairs, layout, more):
    longest = [max(len(pair[side]) for pair in pairs) + layout.special for side in (0, 1)]
    widths = {"length": longest[0] + more, "target_length": longest[1]} if more else {}
    inputs, targets = seq2seq_batch(pairs, layout=layout, **widths)
    assert inputs["input_ids"].shape == (len(pairs), longest[0] + more) and targets["logits"].shape == (len(pairs), longest[1])
    for n, (source, target) in enumerate(pairs):
        row, labels = inputs["input_ids"][n], targets["logits"][n]
        kept = inputs["attention_mask"][n] == 1
        assert row[kept].tolist() == [*layout.first, *source, *layout.last] and (row[~kept] == layout.pad_id).all()
        assert labels[labels != -100].tolist() == [*layout.first, *target, *layout.last]
        expected = formula.shift_right(labels.tolist(), layout.start_id, layout.pad_id)
        assert inputs["decoder_input_ids"][n].tolist() == expected
    assert all(array.dtype == np.int64 for array in (*inputs.values(), *targets.values()))


def test_pairs_are_padded_to_their_batch_and_keep_the_end_token():
    data = Seq2SeqPairs(PAIRS, 4, 2, layout=T5, seed=1)
    assert len(data) == 10 and (data.length, data.target_length) == (4, 2)
    for first in range(0, 20, 3):
        inputs, targets = data.batch(first, 3)
        kept = inputs["attention_mask"].sum(axis=1)
        assert inputs["input_ids"].shape[1] == kept.max() <= 4 and targets["logits"].shape == (3, 2)
        assert (inputs["input_ids"][range(3), kept - 1] == 1).all()
    seen = []
    for n in range(20):
        inputs, targets = data.batch(n, 1)
        source, label = inputs["input_ids"][0].tolist(), int(targets["logits"][0, 0])
        seen.append(label - 30)
        text = PAIRS[label - 30][0]
        assert source == [*text[:3], 1] and targets["logits"][0].tolist() == [label, 1]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]


def test_bad_input_is_refused():
    pairs = {"length": 4, "target_length": 2, "layout": T5, "seed": 1}
    for call, message in (
        (lambda: Seq2SeqPairs([], **pairs), "pairs: expected one or more, got none"),
        (lambda: Seq2SeqPairs([([1], [])], **pairs), "pairs: number 0: target: expected 1 or more tokens, got none"),
        (lambda: Seq2SeqPairs([([1], [2]), ([], [1])], **pairs), "pairs: number 1: source: expected 1 or more tokens"),
        (lambda: Seq2SeqPairs([[1]], **pairs), "pairs: expected pairs of lists of ids, got [1]"),
        (lambda: Seq2SeqPairs(PAIRS, **{**pairs, "length": 1}), "length: expected at least 2, with the special tokens, got 1"),
        (lambda: Seq2SeqPairs(PAIRS, **{**pairs, "target_length": 1}), "target_length: expected at least 2, with the special"),
        (lambda: seq2seq_batch([([5, 6], [7])], layout=T5, length=2), "sources: expected at most 2 tokens, with the special"),
        (lambda: seq2seq_batch([([5], [6, 7])], layout=T5, target_length=2), "targets: expected at most 2 tokens"),
        (lambda: seq2seq_batch([], layout=T5), "texts: expected pairs of lists of ids, one or more, got []"),
        (lambda: Seq2SeqLayout.t5(eos_id=None, pad_id=0), "special token: expected an id (does the vocabulary have all"),
        (lambda: Seq2SeqLayout((), (1,), -1, 0), "special token: expected an id"),
        (lambda: Seq2SeqLayout((), 1, 0, 0), "Seq2SeqLayout: last: expected a tuple of ids, got 1"),
    ):  # fmt: skip
        with raises(message):
            call()
