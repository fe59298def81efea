"""The unigram model and its training, compared with the enumeration of all segmentations
(reference/tokenizers/unigram.py)."""

from __future__ import annotations

import json
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference.tokenizers import unigram as naive
from tinyplm.random import fold, key
from tinyplm.tokenizers.models.unigram import Unigram

UNK = ("<unk>", 0.0)
words = st.text("abcd", max_size=9)
vocabularies = st.dictionaries(st.text("abc", min_size=1, max_size=5), st.floats(-12, 0), max_size=25)


def model(scores, **settings) -> tuple[Unigram, float]:
    """The model, and the score of an unknown character."""
    return Unigram(0, (UNK, *scores.items()), **settings), min([0.0, *scores.values()]) - 10


def score(unigram: Unigram, ids: list[int]) -> float:
    return sum(unigram.pieces[id][1] for id in ids)


@given(vocabularies, words)
def test_the_best_segmentation_has_the_greatest_probability(scores, word):
    unigram, unknown = model(scores)
    (_, best), *_ = naive.nbest(word, scores, unknown, 1)
    tokens = unigram.encode_spans(word)
    assert [id for id, _, _ in tokens] == unigram.encode(word)
    total, place = 0.0, 0
    for id, start, end in tokens:
        assert start == place < end
        place = end
        if id == 0:
            assert not any(char in scores for char in word[start:end])
            total += unknown * (end - start)
        elif word[start:end] in scores:
            assert unigram.pieces[id][0] == word[start:end]
            total += scores[word[start:end]]
    assert place == len(word)
    if all(char in scores for char in word):  # otherwise joined unknown characters may have formed a piece
        assert total == pytest.approx(best)


PIECES = ["a", "b", *("a" * n for n in (2, 3, 5, 7)), "ab", "ba", "aab", "abab"]


@given(
    st.lists(st.floats(-12, 0, width=32), min_size=len(PIECES), max_size=len(PIECES)),
    st.text("ab", max_size=60),
)
@example([-3.1, -3.3, -4.7, -6.1, -8.9, -9.3, -5.1, -5.2, -6.3, -8.1], "a" * 60)
def test_sums_in_single_precision(values, word):
    scores = {piece: float(np.float32(value)) for piece, value in zip(PIECES, values)}
    unigram, _ = model(scores, single=True)
    assert [PIECES[id - 1] for id in unigram.encode(word)] == naive.best_in_single_precision(word, scores)
    again = Unigram.from_json(json.loads(json.dumps(unigram.to_json())), "")
    assert again == unigram and again.single


def test_single_precision_decides_ties():
    scores = dict(
        zip(
            PIECES,
            [float(np.float32(v)) for v in (-3.1, -3.3, -4.7, -6.1, -8.9, -9.3, -5.1, -5.2, -6.3, -8.1)],
        )
    )
    double, single = (model(scores, single=single)[0] for single in (False, True))
    words = ["a" * n for n in range(1, 200)]
    assert any(double.encode(word) != single.encode(word) for word in words)  # otherwise this tests nothing
    for word in words:
        assert score(double, double.encode(word)) == pytest.approx(score(double, single.encode(word)), rel=1e-5)  # 24 bits


def test_hidden_pieces_are_only_text():
    scores = {"<": -1.0, "s": -1.0, ">": -1.0, "<s>": -0.1}
    unigram, _ = model(scores)
    hidden = unigram.without(["<s>", "never"])
    assert unigram.encode("<s>") == [4] and hidden.encode("<s>") == [1, 2, 3]
    assert hidden.vocab == unigram.vocab and hidden.hidden == {"<s>"}
    assert Unigram.from_json(json.loads(json.dumps(hidden.to_json())), "") == hidden
    only = Unigram(0, (UNK, ("<s>", -1.0)), hidden=frozenset(["<s>"]))  # not even when unknown characters are joined into it
    assert only.encode("<s>") == [0]


@given(vocabularies, words)
def test_likelihood(scores, word):
    unigram, unknown = model(scores)
    assert unigram.log_likelihood(word) == pytest.approx(naive.log_likelihood(word, scores, unknown), abs=1e-9)


@given(vocabularies, st.text("abc", max_size=8), st.integers(1, 40))
def test_nbest(scores, word, n):
    scores = {"a": -3.0, "b": -4.0, "c": -5.0} | scores
    unigram, unknown = model(scores)
    found = unigram.nbest(word, n)
    assert found[0][0] == unigram.encode(word)
    expected = naive.nbest(word, scores, unknown, n)
    assert [s for _, s in found] == pytest.approx([s for _, s in expected])
    assert len({tuple(ids) for ids, _ in found}) == len(found)
    for ids, s in found:
        assert "".join(unigram.pieces[id][0] for id in ids) == word and score(unigram, ids) == pytest.approx(s)


def test_ties_go_to_the_piece_that_begins_first():
    unigram = Unigram(0, (UNK, ("a", -1.0), ("aa", -2.0), ("b", -1.0), ("ab", -2.0), ("ba", -2.0)))
    assert unigram.encode("aaa") == [1, 2]  # not aa a: the last piece is as long as possible
    assert unigram.encode("aba") == [1, 5]


def test_sampling_has_the_distribution():
    """Chi-square with 8 degrees of freedom: one seed in a thousand exceeds 26.1; the seed is fixed."""
    scores = {"a": -1.0, "b": -1.5, "ab": -2.2, "aba": -3.0, "ba": -1.9, "bab": -4.0}
    unigram, unknown = model(scores)
    for alpha in (0.0, 0.5, 1.0, 2.0):
        expected = {tuple(parts): p for parts, p in naive.distribution("ababa", scores, unknown, alpha)}
        n = 4000
        found = Counter(tuple(unigram.pieces[id][0] for id in unigram.sample("ababa", fold(key(1), k), alpha)) for k in range(n))
        assert set(found) <= set(expected) and len(expected) > 8
        common = [parts for parts in expected if n * expected[parts] >= 5]
        rest = n - sum(n * expected[parts] for parts in common)
        chi = sum((found[parts] - n * expected[parts]) ** 2 / (n * expected[parts]) for parts in common)
        if rest >= 5:
            chi += (n - sum(found[parts] for parts in common) - rest) ** 2 / rest
        freedom = len(common) - (rest < 5)
        assert chi < freedom + 4.5 * math.sqrt(2 * freedom), (alpha, chi, freedom)


def test_a_great_alpha_samples_the_best_and_the_key_decides():
    scores = {"a": -1.0, "b": -1.5, "ab": -2.2, "aba": -3.0, "ba": -1.9}
    unigram, _ = model(scores)
    assert all(unigram.sample("ababab", fold(key(0), k), 1000.0) == unigram.encode("ababab") for k in range(50))
    assert unigram.sample("ababab" * 9, key(3), 0.1) == unigram.sample("ababab" * 9, key(3), 0.1)
    assert len({tuple(unigram.sample("ababab" * 9, key(k), 0.1)) for k in range(20)}) > 15
    for alpha in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            unigram.sample("ab", key(0), alpha)


def test_unknown_characters():
    pieces = (UNK, ("a", -1.0), ("ab", -1.0), ("xy", -1e5))
    unigram = Unigram(0, pieces)
    assert unigram.encode("") == [] and unigram.log_likelihood("") == 0.0 and unigram.nbest("", 2) == [([], 0.0)]
    assert unigram.encode("zazza") == [0, 1, 0, 1]
    assert unigram.encode_spans("zazza") == [(0, 0, 1), (1, 1, 2), (0, 2, 4), (1, 4, 5)]
    assert unigram.encode("b") == [0]  # no piece starts with it
    with pytest.raises(ValueError, match="'z'"):
        Unigram(None, pieces).encode("az")
    assert Unigram(None, pieces).encode("aab") == [1, 2]


def test_byte_fallback():
    letters = tuple((f"<0x{byte:02X}>", -5.0) for byte in "é".encode() + b"z")
    unigram = Unigram(0, (UNK, ("a", -1.0), *letters), byte_fallback=True)
    assert unigram.encode_spans("aéza") == [(1, 0, 1), (2, 1, 3), (3, 1, 3), (4, 1, 3), (1, 3, 4)]
    assert unigram.encode("aéwa") == [1, 0, 1]  # some of its bytes are missing
    assert Unigram(0, unigram.pieces).encode("aéza") == [1, 0, 1]


def test_a_word_of_a_million_letters_takes_seconds():
    unigram, _ = model({"a": -1.0, "aa": -1.9, "aaaaaaaa": -4.0, "b": -1.0})
    start = time.perf_counter()
    assert unigram.encode("a" * 1_000_000) == [3] * 125_000
    assert time.perf_counter() - start < 10


def test_json():
    content = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["a", -1.5]],
        "byte_fallback": True,
    }
    unigram = Unigram.from_json(json.loads(json.dumps(content)), "file")
    assert unigram.to_json() == content and unigram.vocab == {"<unk>": 0, "a": 1}
    for change, message in [
        ({"unk_id": 2}, "unk_id: expected an id from 0 to 1, got 2"),
        ({"unk_id": True}, "unk_id"),
        ({"unk_id": -1}, "unk_id: expected an id from 0 to 1, got -1"),
        ({"byte_fallback": 1}, "byte_fallback"),
        ({"vocab": {"a": 0}}, "vocab"),
        ({"vocab": [["a", "b"]]}, "vocab"),
        ({"vocab": [["a", math.nan]]}, "a number of at most 1e.30, got nan"),
        ({"alpha": 0.5}, "alpha"),
    ]:
        with pytest.raises(ValueError, match=f"file Unigram.*{message}"):
            Unigram.from_json(content | change, "file")
    assert Unigram.from_json({"type": "Unigram", "vocab": [["a", -1]]}, "file") == Unigram(None, (("a", -1.0),))
