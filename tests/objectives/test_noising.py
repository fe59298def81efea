"""BART's five noises: by hand, against the reference, undone, and their rates."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.objectives import noising as formula
from tests.objectives.test_masked import five_sigma
from tests.objectives.test_sentence_pairs import numbered
from tinyplm.objectives import (
    NoisedDocuments,
    Noising,
    Seq2SeqLayout,
    delete_tokens,
    infill,
    mask_each,
    noised,
    permute_sentences,
    rotate,
)
from tinyplm.objectives.noising import _span_sizes
from tinyplm.random import fold, key

MASK = 3
BART = Seq2SeqLayout.bart(bos_id=0, eos_id=2, pad_id=1)
DOCUMENTS = numbered([4, 3, 5, 2], [6, 1, 2], [3, 3, 3, 3, 3], [30])
sizes, keys, rates = st.integers(0, 60), st.integers(0, 2**64 - 1), st.floats(0.01, 1)


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def text(n):
    return list(range(10, 10 + n))


# ---- the reference, by hand (fig. 2 of the paper: A B C . D E .)


def test_the_reference_by_hand():
    A, B, C, stop, D, E = 10, 11, 12, 13, 14, 15
    document = [A, B, C, stop, D, E, stop]
    assert formula.mask_each(document, [1, 4], MASK) == [A, MASK, C, stop, MASK, E, stop]
    assert formula.delete(document, [1, 4]) == [A, C, stop, E, stop]
    assert formula.infill(document, [(1, 3), (4, 4)], MASK) == [A, MASK, stop, MASK, D, E, stop]
    assert formula.infill(document, [(0, 0), (7, 7)], MASK) == [MASK, *document, MASK]
    assert formula.permute([document[:4], document[4:]], [1, 0]) == [D, E, stop, A, B, C, stop]
    assert formula.rotate(document, 2) == [C, stop, D, E, stop, A, B]
    assert sum(formula.poisson(k, 3.0) for k in range(40)) == pytest.approx(1, abs=1e-14)  # 40 terms below 1: 40 eps


# ---- each noise equals the reference's, given its record, and is undone


@given(sizes, rates, keys)
def test_masking(n, rate, k):
    inputs, places = mask_each(text(n), rate=rate, mask_id=MASK, key=k)
    assert len(places) == math.ceil(rate * n) and inputs.tolist() == formula.mask_each(text(n), places.tolist(), MASK)
    assert formula.unmask(inputs.tolist(), places.tolist(), [text(n)[p] for p in places]) == text(n)


@given(sizes, rates, keys)
def test_deletion(n, rate, k):
    inputs, places = delete_tokens(text(n), rate=rate, key=k)
    assert len(places) == math.ceil(rate * n) and inputs.tolist() == formula.delete(text(n), places.tolist())
    assert formula.undelete(inputs.tolist(), places.tolist(), [text(n)[p] for p in places]) == text(n)


@given(sizes, rates, keys, st.floats(1, 9))
def test_infilling(n, rate, k, mean):
    inputs, spans = infill(text(n), rate=rate, mask_id=MASK, key=k, mean_span=mean)
    spans = [tuple(span) for span in spans.tolist()]
    covered = [place for start, end in spans for place in range(start, end)]
    assert len(covered) == len(set(covered)) == math.ceil(rate * n) and spans == sorted(spans)
    assert inputs.tolist() == formula.infill(text(n), spans, MASK) and len(inputs) <= n
    assert formula.uninfill(inputs.tolist(), spans, [text(n)[p] for p in covered], MASK) == text(n)
    again = infill(text(n), rate=rate, mask_id=MASK, key=k, mean_span=mean)
    assert np.array_equal(again[0], inputs)


@given(st.lists(st.integers(0, 6), max_size=6), keys)
def test_permutation(shape, k):
    sentences = numbered(shape)[0]
    inputs, order = permute_sentences(sentences, key=k)
    assert inputs.tolist() == formula.permute(sentences, order.tolist())
    assert formula.unpermute(inputs.tolist(), shape, order.tolist()) == sentences


@given(sizes, keys)
def test_rotation(n, k):
    inputs, start = rotate(text(n), key=k)
    assert inputs.tolist() == formula.rotate(text(n), start)
    assert formula.unrotate(inputs.tolist(), start) == text(n)


# ---- rates


def test_every_token_is_noised_equally_often():
    n, rounds = 20, 2000
    hits = {"masking": Counter(), "deletion": Counter(), "rotation": Counter(), "infilling": Counter()}
    for i in range(rounds):
        k = fold(key(0), i)
        hits["masking"].update(mask_each(text(n), rate=0.3, mask_id=MASK, key=k)[1].tolist())
        hits["deletion"].update(delete_tokens(text(n), rate=0.3, key=k)[1].tolist())
        hits["rotation"].update([rotate(text(n), key=k)[1]])
        spans = infill(text(n), rate=0.3, mask_id=MASK, key=k)[1].tolist()
        hits["infilling"].update(place for start, end in spans for place in range(start, end))
    for name in ("masking", "deletion"):
        assert all(abs(hits[name][p] - 0.3 * rounds) <= five_sigma(rounds, 0.3) for p in range(n))
    assert all(abs(hits["rotation"][p] - rounds / n) <= five_sigma(rounds, 1 / n) for p in range(n))
    # Spans do not cross the ends, so the first and last tokens are covered less often than those between; by symmetry equally.
    assert abs(hits["infilling"][0] - hits["infilling"][n - 1]) <= 2 * five_sigma(rounds, 0.3)
    assert sum(hits["infilling"].values()) == 6 * rounds


def test_lengths_of_spans_have_the_poisson_distribution():
    """All but the last span, which is shortened: 3000 tokens of a long text."""
    lengths = np.concatenate([_span_sizes(3000, 3.0, fold(key(0), i))[:900] for i in range(10)])
    n = len(lengths)
    for size in range(10):
        p = formula.poisson(size, 3.0)
        assert abs((lengths == size).sum() - n * p) <= five_sigma(n, p)


def test_spans_stand_anywhere():
    """With one span of one token, each of 8 places is equally likely; the last one drawn is no special case."""
    n = 1600
    found = Counter(tuple(infill(text(8), rate=0.1, mask_id=MASK, key=fold(key(0), i))[1][-1].tolist()) for i in range(n))
    assert found.keys() == {(p, p + 1) for p in range(8)}
    assert all(abs(count - n / 8) <= five_sigma(n, 1 / 8) for count in found.values())
    shortened = Counter()  # of two spans the last one drawn is shortened: it comes first or last, equally often
    for i in range(400):
        spans = infill(text(40), rate=0.5, mask_id=MASK, key=fold(key(1), i), mean_span=19)[1]
        if len(spans) == 2 and spans[0, 1] - spans[0, 0] != spans[1, 1] - spans[1, 0]:
            shortened[bool(spans[0, 1] - spans[0, 0] < spans[1, 1] - spans[1, 0])] += 1
    total = sum(shortened.values())
    assert total > 100 and abs(shortened[True] - total / 2) <= five_sigma(total, 1 / 2)


def test_orders_and_rotations_are_equally_likely():
    n = 2400
    found = Counter(tuple(permute_sentences([[1], [2], [3]], key=fold(key(0), i))[1].tolist()) for i in range(n))
    assert len(found) == 6 and all(abs(count - n / 6) <= five_sigma(n, 1 / 6) for count in found.values())
    turned = sum(not np.array_equal(noised([text(40)], noising=Noising(MASK, False, infilling=0, rotation=0.25),
                                           key=fold(key(0), i)), text(40)) for i in range(n))  # fmt: skip
    p = 0.25 * 39 / 40  # one rotation in 40 begins where the document does
    assert abs(turned - n * p) <= five_sigma(n, p)


# ---- documents


def test_the_final_models_noise_is_permutation_and_infilling():
    sentences = numbered([5, 8, 4, 9])[0]
    for i in range(50):
        k = fold(key(0), i)
        permuted = permute_sentences(sentences, key=fold(k, 0))[0]
        expected, spans = infill(permuted, rate=0.3, mask_id=MASK, key=fold(k, 2))
        assert np.array_equal(noised(sentences, noising=Noising(MASK), key=k), expected)
        assert (spans[:, 1] - spans[:, 0]).sum() == 8  # ceil(0.3 * 26)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), keys)
def test_all_noises_together(shape, k):
    sentences = numbered(shape)[0]
    every = Noising(MASK, masking=0.2, infilling=0.3, deletion=0.1, rotation=1.0)
    ids = noised(sentences, noising=every, key=k)
    assert len(ids) <= sum(shape) and set(ids.tolist()) <= {MASK, *(i for s in sentences for i in s)}
    none = Noising(MASK, permute=False, infilling=0)
    assert noised(sentences, noising=none, key=k).tolist() == [i for s in sentences for i in s]


def test_documents_are_their_own_targets():
    data = NoisedDocuments(DOCUMENTS, 12, layout=BART, noising=Noising(MASK, infilling=0), seed=4)
    data.batch(0, 1)
    first = data._samples.ends[1]  # the samples of an epoch
    inputs, targets = data.batch(0, first)
    assert inputs["input_ids"].shape == targets["logits"].shape == (first, 12)
    texts = [row[row != -100].tolist() for row in targets["logits"]]
    assert all(row[0] == 0 and row[-1] == 2 for row in texts)
    assert sorted(i for row in texts for i in row[1:-1]) == [i for d in DOCUMENTS for s in d for i in s]
    starts = {s[0]: s for d in DOCUMENTS for s in d}
    for row, source in zip(texts, inputs["input_ids"]):
        assert sorted(row) == sorted(source[source != 1].tolist())
        sentences = [i for i in row[1:-1] if i in starts or i == row[1]]
        inside = source[source > 2].tolist()  # whole sentences, in another order
        for a, b in zip(sentences, [*sentences[1:], None]):
            whole = row[row.index(a) : row.index(b) if b else -1]
            assert inside[inside.index(a) : inside.index(a) + len(whole)] == whole
    assert inputs["decoder_input_ids"][:, 0].tolist() == [2] * first
    changed = [not np.array_equal(np.trim_zeros(i), np.trim_zeros(t)) for i, t in zip(inputs["input_ids"], targets["logits"])]
    assert any(changed)


def test_epochs_have_other_noise():
    data = NoisedDocuments(DOCUMENTS, 20, layout=BART, noising=Noising(MASK), seed=4)
    data.batch(40, 1)
    ends = data._samples.ends[:4]
    epochs = [data.batch(a, b - a) for a, b in zip(ends, ends[1:])]
    originals = [Counter(map(bytes, targets["logits"])) for _, targets in epochs]
    assert originals[0] == originals[1] == originals[2]
    sources = [Counter(map(bytes, inputs["input_ids"])) for inputs, _ in epochs]
    assert sources[0] != sources[1] != sources[2] != sources[0]


def test_bad_settings_are_refused():
    for name in ("masking", "infilling", "deletion", "rotation"):
        for value in (-0.1, 1.1, float("nan"), None):
            with raises(f"{name}: expected a finite number >= 0 and <= 1, got {value}"):
                Noising(MASK, **{name: value})
    with raises("mean_span: expected a finite number >= 1 and <= 500.0, got 0.9"):
        Noising(MASK, mean_span=0.9)
    with raises("mask_id: expected an integer from 0 to 2147483647, got None"):
        Noising(None)
    with raises("noising: expected a Noising, got None"):
        noised([[1]], noising=None, key=1)
    with raises("length: expected at least 3, with the special tokens, got 2"):
        NoisedDocuments(DOCUMENTS, 2, layout=BART, noising=Noising(MASK), seed=0)
    for rate in (0, 1.01):
        with raises("rate: expected a finite number > 0 and <= 1, got "):
            infill([1, 2], rate=rate, mask_id=MASK, key=1)
