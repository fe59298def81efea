"""The valid ranges of the objectives' arguments, at both ends: just inside works, just outside is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.objectives.test_batches import MASKING, SIDES, TEXTS
from tests.objectives.test_sentence_pairs import BERT, numbered
from tinyplm.objectives import (
    ALBERT_NGRAMS,
    MACBERT_NGRAMS,
    Documents,
    Layout,
    MaskedPairs,
    MaskedTranslations,
    MaskedWindows,
    Masking,
    Noising,
    PositivePairs,
    corrupt_spans,
    infill,
    mask_tokens,
    mixture_rates,
    next_sentence_pairs,
    noise_mask,
    pad,
    permutation_sample,
    sentinel_ids,
    span_lengths,
    span_units,
    split_prefix,
    token_units,
    translation_pair,
    truncate_pair,
)
from tinyplm.objectives.inputs import check_samples
from tinyplm.objectives.permutation import last_in_order, predicted_spans, target_arrays

V = 50
ABOVE_1, BELOW_1, BELOW_0 = float(np.nextafter(1, 2)), float(np.nextafter(1, 0)), float(np.nextafter(0, -1))
SETTINGS = {"layout": BERT, "masking": MASKING, "seed": 0}


def masking(**settings):
    return Masking(**{"mask_id": 3, "vocab_size": V, **settings})


def permuted(**settings):
    return permutation_sample(np.arange(3), np.zeros(3), **{"predictions": 2, "key": 1, **settings})


def masked(ids, special=(0, 0), **settings):
    return mask_tokens(np.array(ids), np.array(special), masking=masking(**settings), key=1)


def positive(size, groups=(0, 1)):
    return PositivePairs([([5 + g], [5]) for g in groups], size, layout=BERT, length=6, seed=0)


# name: (call with the value, accepted values, refused values)
BORDERS = {
    "mask_id": (lambda v: masking(mask_id=v), [0, V - 1], [-1, V, None]),
    "rate": (lambda v: masking(rate=v), [5e-324, 1], [0, ABOVE_1, np.nan]),
    "shares": (lambda v: masking(shares=v), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.8, 0.1, 0.1 + 9e-7)],
               [(0.8, 0.1, 0.1 + 2e-6), (0.8, 0.1, 0.1 - 2e-6), (ABOVE_1, 0, 0), (1, BELOW_0, 0), (0.5, 0.5), (0.5, 0.5, 0, 0)]),
    "limit": (lambda v: masking(limit=v), [1, None], [0, -1]),
    "ngrams": (lambda v: masking(ngrams=v), [(5e-324,), (1, 0), ALBERT_NGRAMS, MACBERT_NGRAMS], [(), (0,), (0, 1), (1, BELOW_0)]),
    "limit of a coin": (lambda v: masking(selection="bernoulli", limit=v), [None], [1]),
    "ngrams of a coin": (lambda v: masking(selection="bernoulli", ngrams=v), [(1.0,)], [(1.0, 0.5)]),
    "random_ids": (lambda v: masking(random_ids=v), [None, [0], [V - 1]], [[], [-1], [V]]),
    "ids to be masked": (masked, [[0, V - 1], [1, 2]], [[-1, 2], [0, V], [1]]),
    "special tokens": (lambda v: masked([1, 2], v), [[0, 1], [1, 0]], [[1, 1], [0], [0, 0, 0]]),
    "tokens of a pair": (lambda v: next_sentence_pairs(Documents(TEXTS), 0, tokens=v, key=1), [2], [1, 0]),
    "short_rate": (lambda v: next_sentence_pairs(Documents(TEXTS), 0, tokens=5, key=1, short_rate=v), [0, 1],
                   [BELOW_0, ABOVE_1, np.nan]),
    "documents": (lambda v: next_sentence_pairs(Documents(TEXTS[:v]), 0, tokens=5, key=1), [2], [1]),
    "sentences of a document": (lambda v: Documents(numbered([1] * v), shortest=2), [2], [1]),
    "length of a text": (lambda v: BERT.room(v, pair=False), [3], [2]),
    "length of two texts": (lambda v: BERT.room(v, pair=True), [5], [4]),
    "special ids": (lambda v: Layout.bert(cls_id=v, sep_id=1, pad_id=2), [0, np.int64(5)], [-1, None, 1.0]),
    "padding id": (lambda v: Layout.bert(cls_id=0, sep_id=1, pad_id=v), [0], [-1, None]),
    "length of a row": (lambda v: pad([BERT.single(np.array([5]))], v, {}), [3, 4], [2]),
    "room of two texts": (lambda v: truncate_pair(np.arange(2), np.arange(2), v, 0), [2, 4, 5], [1]),
    "first sample": (lambda v: check_samples(v, 1), [0, 1], [-1]),
    "count of samples": (lambda v: check_samples(0, v), [1], [0]),
    "K": (lambda v: permuted(K=v), [1, 6.5], [BELOW_1, 0, np.nan]),
    "K of an order": (lambda v: last_in_order([0, 1], v), [1], [BELOW_1]),
    "longest": (lambda v: permuted(longest=v), [1], [0]),
    "longest span": (lambda v: predicted_spans(5, K=2, longest=v, key=0), [1], [0]),
    "predictions": (lambda v: permuted(predictions=v), [1, 9], [0]),
    "reuse": (lambda v: permuted(reuse=v), [0, 2], [-1, 3]),
    "places": (lambda v: target_arrays([1, 2, 3], range(v), 2), [0, 2], [3]),
    "length of a translation": (lambda v: translation_pair([1], [2, 3], languages=(0, 1), eos_id=2, length=v), [6, 7], [5]),
    "sentence": (lambda v: translation_pair([5] * v, [2], languages=(0, 1), eos_id=2, length=9), [1], [0]),
    "its translation": (lambda v: translation_pair([2], [5] * v, languages=(0, 1), eos_id=2, length=9), [1], [0]),
    "pairs of languages": (lambda v: MaskedTranslations(SIDES[:2], [(0, 1)] * v, 9, eos_id=2, pad_id=0, masking=MASKING, seed=0),
                           [2], [1, 3]),
    "translations": (lambda v: MaskedTranslations(SIDES[:v], [(0, 1)] * v, 9, eos_id=2, pad_id=0, masking=MASKING, seed=0),
                     [1], [0]),
    "copies": (lambda v: MaskedPairs(TEXTS, 9, copies=v, **SETTINGS), [1, None], [0]),
    "copies of windows": (lambda v: MaskedWindows(np.arange(30), 9, copies=v, **SETTINGS), [1, None], [0]),
    "size": (positive, [2], [1, 3]),
    "groups": (lambda v: PositivePairs([([5], [6])] * 3, 2, layout=BERT, length=6, seed=0, groups=v), [[0, 1, 1]],
               [[0, 0, 0], [0, 1], [0, 1, 2, 3]]),
    "span": (lambda v: span_units(token_units(np.arange(3), np.ones(3, bool)), [v]), [(0, 1), (2, 9)], [(-1, 1), (1, 1), (2, 1)]),
    "spans apart": (lambda v: span_units(token_units(np.arange(3), np.ones(3, bool)), [(0, 2), v]), [(2, 3)], [(1, 3), (0, 2)]),
    "density": (lambda v: noise_mask(9, key=1, density=v), [5e-324, BELOW_1], [0, 1, np.nan]),
    "mean span": (lambda v: noise_mask(9, key=1, mean_span=v), [1, 2**31 - 1], [BELOW_1, 2**31, np.nan]),
    "length of a corrupted text": (lambda v: noise_mask(v, key=1), [2, 3], [1]),
    "length of inputs with spans": (span_lengths, [3, 512], [2]),
    "sentinels": (lambda v: corrupt_spans([1, 2], np.array([False, True]), sentinels=v), [[9, 8], [9, 8, 7]], [[9], [], [9, 9]]),
    "sentinels of a vocabulary": (lambda v: sentinel_ids(9, v), [1, 9], [0, 10]),
    "share of a target": (lambda v: split_prefix([1, 2, 3], key=1, share=v), [5e-324, 0.5, None], [0, 0.51]),
    "split text": (lambda v: split_prefix(range(v), key=1), [2], [1, 0]),
    "rate of noise": (lambda v: infill([1, 2], rate=v, mask_id=3, key=1), [5e-324, 1], [0, ABOVE_1, np.nan]),
    "share of noise": (lambda v: Noising(3, infilling=v), [0, 1], [BELOW_0, ABOVE_1, np.nan]),
    "mean of noise": (lambda v: infill([1, 2], rate=1, mask_id=3, key=1, mean_span=v), [1, 500], [BELOW_1, 501]),
    "limit of a mixture": (lambda v: mixture_rates({"a": 3}, limit=v), [1, None], [0]),
    "temperature": (lambda v: mixture_rates({"a": 3, "b": 4}, temperature=v), [5e-324, 1, np.inf], [0, -1, -np.inf, np.nan]),
    "examples of a task": (lambda v: mixture_rates({"a": v}), [1, 10**30], [0, -1]),
}  # fmt: skip


@pytest.mark.parametrize("name", BORDERS)
def test_borders(name):
    call, accepted, refused = BORDERS[name]
    for value in accepted:
        call(value)
    for value in refused:
        with pytest.raises(ValueError, match="expected"):
            call(value)


def test_published_weights_of_ngrams():
    """Lan et al. 2020, sec. 4.1: p(n) proportional to 1/n; Cui et al. 2020, sec. 3.1: 40%, 30%, 20% and 10%."""
    assert pytest.approx((6 / 11, 3 / 11, 2 / 11)) == [w / sum(ALBERT_NGRAMS) for w in ALBERT_NGRAMS]
    assert MACBERT_NGRAMS == (0.4, 0.3, 0.2, 0.1)
