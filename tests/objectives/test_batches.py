"""Batches by sample number: independence of batch boundaries, epochs, static and dynamic masks, positive pairs."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.test_masked import five_sigma
from tests.objectives.test_sentence_pairs import numbered
from tinyplm.data import Windows
from tinyplm.objectives import (
    Layout,
    MaskedPairs,
    MaskedSentences,
    MaskedTranslations,
    MaskedWindows,
    Masking,
    PermutedWindows,
    PositivePairs,
    whole_words,
)

LAYOUT = Layout.bert(cls_id=1, sep_id=2, pad_id=0)
MASKING = Masking(mask_id=3, vocab_size=400)
TEXTS = numbered([4, 3, 5, 2], [6, 1, 2], [3, 3, 3, 3, 3], [9, 2])
TOKENS = np.concatenate([np.append(np.concatenate(document), 2) for document in TEXTS]).astype(np.uint16)
SIDES = [([10 + n, 11], [20 + n, 21, 22]) for n in range(12)]


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def _make(name, seed=5, **more):
    settings = {"layout": LAYOUT, "masking": MASKING, "seed": seed, **more}
    if name == "translations":
        del settings["layout"]
        return MaskedTranslations(SIDES, [(0, 1)] * len(SIDES), 9, eos_id=2, pad_id=0, **settings)
    if name == "permuted":
        del settings["masking"]
        return PermutedWindows(TOKENS, 12, predictions=4, reuse=5, K=3, separators=[2], **settings)
    if name == "windows":
        return MaskedWindows(TOKENS, 12, separators=[2], **settings)
    if name in ("next", "order", "single"):
        objective = "sentence_order" if name == "order" else "next_sentence"
        return MaskedPairs(TEXTS, 16, objective=objective, sentences=name == "single", **settings)
    return MaskedSentences(TEXTS, 12, across=name == "across", **settings)


MASKED = ["next", "order", "single", "across", "within", "windows", "translations"]
ALL = [*MASKED, "permuted"]


def _same(a, b):
    return all(
        a[part].keys() == b[part].keys() and all(np.array_equal(a[part][n], b[part][n]) for n in a[part]) for part in (0, 1)
    )


def _joined(batches):
    return tuple({name: np.concatenate([b[part][name] for b in batches]) for name in batches[0][part]} for part in (0, 1))


def _original(inputs, targets):
    return np.where(targets["logits"] == -100, inputs["input_ids"], targets["logits"])


@pytest.mark.parametrize("name", ALL)
def test_a_sample_depends_on_its_number_alone(name):
    whole = _make(name).batch(0, 60)
    data = _make(name)
    late = data.batch(45, 15)  # a resumed run: its first request is in a later epoch
    parts = [data.batch(first, 15) for first in (0, 15, 30)]
    assert _same(whole, _joined([*parts, late]))
    assert not _same(whole, _make(name, seed=6).batch(0, 60))
    assert all(a.dtype == np.int64 and len(a) == 60 for part in whole for a in part.values())
    assert whole[0]["input_ids"].shape == (60, data.length)


@pytest.mark.parametrize("name", MASKED)
def test_targets_restore_text_that_stands_in_the_documents(name):
    inputs, targets = _make(name).batch(0, 40)
    original, attention = _original(inputs, targets), inputs["attention_mask"]
    assert ((targets["logits"] != -100).sum(axis=1) >= 1).all()
    assert not ((targets["logits"] != -100) & (attention == 0)).any() and (inputs["input_ids"][attention == 0] == 0).all()
    assert (targets["logits"][original < 3] == -100).all()
    assert (np.diff(attention, axis=1) <= 0).all()
    if name == "translations":
        return
    follows = {(a, b) for document in TEXTS for ids in [[i for s in document for i in s]] for a, b in zip(ids, ids[1:])}
    for row, types in zip(original, inputs["token_type_ids"]):
        text = row[row > 0]
        assert row[0] == 1 and text[-1] == 2
        for a, b in zip(text[1:], text[2:]):
            assert a < 3 or b < 3 or (a, b) in follows
        if name in ("next", "order", "single"):
            assert (row == 2).sum() == 2
            first = row.tolist().index(2) + 1
            assert types.tolist() == [0] * first + [1] * (len(text) - first) + [0] * (16 - len(text))


def test_labels_say_how_the_segments_stand():
    """Ids count up across sentences and documents, so the text alone shows the correct label."""
    of = {i: d for d, document in enumerate(TEXTS) for s in document for i in s}
    for name in ("next", "single", "order"):
        inputs, targets = _make(name).batch(0, 200)
        for row, types, label in zip(_original(inputs, targets), inputs["token_type_ids"], targets["pair_logits"]):
            a, b = row[(types == 0) & (row > 2)], row[(types == 1) & (row > 2)]
            if name == "order":
                assert (of[a[0]] == of[b[0]]) and (a[0] < b[0]) == (label == 0)
            else:
                assert (of[a[0]] == of[b[0]]) == (label == 0) and (label == 1 or a[-1] < b[0])
        assert 0 < targets["pair_logits"].mean() < 1


@pytest.mark.parametrize("name", ["across", "within"])
def test_an_epoch_has_all_sentences_once(name):
    data = _make(name)
    data.batch(0, 1)
    texts = _original(*data.batch(0, data._samples.ends[1]))
    assert np.array_equal(np.sort(texts[texts > 2]), data.documents.ids)


@pytest.mark.parametrize("name", MASKED)
def test_static_masks_return_and_dynamic_ones_do_not(name):
    def epochs(copies):
        data = _make(name, copies=copies)
        if name == "windows":
            size = data.windows.windows_per_epoch
            bounds = [size * e for e in range(5)]
        else:
            data.batch(80, 1)
            bounds = data._samples.ends[:5]
        batches = [data.batch(bounds[e], bounds[e + 1] - bounds[e]) for e in range(4)]
        return [Counter(map(bytes, np.concatenate([i["input_ids"], t["logits"]], axis=1))) for i, t in batches]

    static = epochs(2)
    assert static[0] == static[2] and static[1] == static[3] and static[0] != static[1]
    dynamic = epochs(None)
    assert all(dynamic[a] != dynamic[b] for a in range(4) for b in range(a))


def test_epochs_of_static_masks_come_in_orders_of_their_own():
    data = _make("next", copies=1)
    data.batch(80, 1)
    first, second, third = data._samples.ends[:3]
    epochs = [data.batch(a, b - a)[0]["input_ids"].tolist() for a, b in ((first, second), (second, third))]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1])


def test_windows_are_those_of_the_causal_ones():
    data = _make("windows")
    texts = _original(*data.batch(0, 30))
    assert np.array_equal(texts[:, 1:-1], Windows(TOKENS, 10, 5).batch(0, 30)[0])
    assert (texts[:, 1:-1] == 2).any()  # separators, none of them masked (see above)


def test_permuted_windows_keep_the_text_and_hide_by_masks():
    inputs, targets = _make("permuted").batch(0, 30)
    assert np.array_equal(inputs["input_ids"][:, 1:-1], Windows(TOKENS, 10, 5).batch(0, 30)[0])
    assert inputs["perm_mask"].shape == (30, 12, 12) and targets["logits"].shape == (30, 4)
    found = np.einsum("bmt,bt->bm", inputs["target_mapping"], inputs["input_ids"])
    assert np.array_equal(np.where(targets["logits"] == -100, 0, targets["logits"]), found)
    assert (inputs["perm_mask"][:, :5, 5:] == 1).all()


def test_whole_words_in_a_pipeline():
    continues = np.arange(400) % 3 == 0
    masking = Masking(3, 400, 0.5, units=whole_words(continues))
    inputs, targets = _make("within", masking=masking).batch(0, 50)
    original, selected = _original(inputs, targets), targets["logits"] != -100
    joined = continues[original[:, 1:]] & (original[:, 1:] > 2) & (original[:, :-1] > 2)
    assert joined.any() and np.array_equal(selected[:, 1:][joined], selected[:, :-1][joined])


def test_bad_settings_are_refused():
    for name in ALL:
        for first, count in ((-1, 2), (0, 0)):
            with raises("first: expected an integer from 0" if first < 0 else "count: expected an integer from 1"):
                _make(name).batch(first, count)
    for name in MASKED:
        with raises("copies: expected None or an integer >= 1, got 0"):
            _make(name, copies=0)
    settings = {"layout": LAYOUT, "masking": MASKING, "seed": 0}
    with raises("objective: expected one of next_sentence, sentence_order, got 'next'"):
        MaskedPairs(TEXTS, 16, objective="next", **settings)
    with raises("document 1: expected 2 or more sentences, got 1"):
        MaskedPairs(numbered([2, 2], [3]), 16, **settings)
    with raises("documents: expected two or more"):
        MaskedPairs(numbered([2, 2], [3]), 16, skip_short=True, **settings)
    assert MaskedPairs(numbered([2, 2], [3]), 16, objective="sentence_order", skip_short=True, **settings).documents.skipped == 1
    with raises("length: expected at least 5, with the special tokens, got 4"):
        MaskedPairs(TEXTS, 4, **settings)
    with raises("languages: expected 12 pairs, got 1"):
        MaskedTranslations(SIDES, [(0, 1)], 9, eos_id=2, pad_id=0, masking=MASKING, seed=0)


# ---- positive pairs


def _positive(groups, size, seed=3):
    pairs = [([5 + g, 5], [5 + n]) for n, g in enumerate(groups)]
    return PositivePairs(pairs, size, layout=LAYOUT, length=6, seed=seed)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.integers(2, 5), st.integers(0, 99))
def test_no_anchor_twice_in_a_batch_and_no_pair_twice_in_an_epoch(groups, size, seed):
    if len(set(groups)) < size:
        with raises(f"pairs: expected {size} or more different anchors for a batch, got {len(set(groups))} in "):
            _positive(groups, size, seed)
        return
    data = _positive(groups, size, seed)
    for epoch in range(2):
        numbers = data.numbers(epoch * data.batches_per_epoch * size, data.batches_per_epoch * size)
        assert len(set(numbers)) == len(numbers)
        for start in range(0, len(numbers), size):
            assert len({groups[n] for n in numbers[start : start + size]}) == size
    most = max(Counter(groups).values())
    if most <= len(groups) // size:  # no obstacle: everything but the remainder
        assert data.batches_per_epoch == len(groups) // size


def test_positive_pairs_by_number():
    data = _positive([0, 0, 1, 2, 3, 3, 3, 4, 5, 6], 3)
    whole, targets = data.batch(0, 27)
    assert targets.tolist() == list(range(27))
    again = _positive([0, 0, 1, 2, 3, 3, 3, 4, 5, 6], 3)
    parts = [again.batch(20, 7)[0], again.batch(0, 20)[0]]
    for side in ("anchor", "positive"):
        for name, values in whole[side].items():
            assert np.array_equal(values, np.concatenate([parts[1][side][name], parts[0][side][name]]))
    n = data.numbers(4, 1)[0]
    assert whole["positive"]["input_ids"][4].tolist() == [1, 5 + n, 2, 0, 0, 0]
    assert whole["positive"]["attention_mask"][4].tolist() == [1, 1, 1, 0, 0, 0]
    assert len({tuple(data.numbers(9 * e, 9)) for e in range(6)}) == 6
    for epoch in (1, 2, 5):  # a resumed run requests a later epoch first
        fresh = _positive([0, 0, 1, 2, 3, 3, 3, 4, 5, 6], 3)
        assert fresh.numbers(9 * epoch, 9) == data.numbers(9 * epoch, 9)
    left_out = Counter(({*range(10)} - set(data.numbers(9 * e, 9))).pop() for e in range(1000))
    # the last group loses a pair: each of 7 groups is equally often last, and each of its m pairs has probability 1/m
    assert abs(left_out[2] - 1000 / 7) <= five_sigma(1000, 1 / 7) and abs(left_out[0] - 1000 / 14) <= five_sigma(1000, 1 / 14)


def test_bad_positive_pairs_are_refused():
    for groups, size, message in (
        ([0, 0, 0], 2, "pairs: expected 2 or more different anchors for a batch, got 1 in 3 pairs"),
        ([0, 1], 1, "size: expected an integer from 2"),
    ):
        with raises(message):
            _positive(groups, size)
    with raises("groups: expected 2, one per pair, got 1"):
        PositivePairs([([1], [2])] * 2, 2, layout=LAYOUT, length=6, seed=0, groups=[1])
