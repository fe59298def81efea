"""Unigram training, compared with reference/tokenizers and hand-computed values."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference.tokenizers import unigram as naive
from tinyplm.tokenizers.models.unigram import Unigram
from tinyplm.tokenizers.training.unigram import Corpus, digamma, losses, seeds, train_unigram

corpora = st.dictionaries(st.text("abc\0", min_size=1, max_size=8), st.integers(1, 50), min_size=1, max_size=12)

UNK = ("<unk>", 0.0)


@example({"abcaa": 1, "abcab": 1}, 3)  # abc always occurs inside abca, which is too long
@given(corpora, st.integers(1, 9))
def test_seeds(counts, longest):
    text, count_at = "", []
    for word, count in counts.items():
        text += word + "\0"
        count_at += [count] * len(word) + [0]
    suffixes, first, last, length, weight = seeds(np.array([ord(c) for c in text]), np.array(count_at), longest)
    assert sorted(suffixes.tolist()) == list(range(len(text)))
    found = {}
    for f, e, n, w in zip(first, last, length, weight):
        spellings = {text[s : s + n] for s in suffixes[f:e].tolist()}
        assert len(spellings) == 1 and not spellings & set(found) and w % n == 0
        found[spellings.pop()] = w // n
    assert found == naive.seeds(counts, longest)


def corpus_of(counts: dict[str, int], longest: int = 5) -> Corpus:
    ordered = sorted(counts, key=lambda word: (-len(word), word))
    chars = Counter()
    for word in ordered:
        for char in word:
            chars[char] += counts[word]
    return Corpus(ordered, [counts[word] for word in ordered], chars, longest, 10**6)


@given(corpora)
def test_the_e_step_and_its_seeds(counts):
    corpus = corpus_of(counts)
    pieces = corpus.pieces()
    singles = Counter()
    for word, count in counts.items():
        singles.update({char: word.count(char) * count for char in set(word) - {"\0"}})
    weights = dict(singles) | {part: n * len(part) for part, n in naive.seeds(counts, 5).items()}
    total = sum(weights.values())
    assert pieces == pytest.approx({part: math.log(n / total) for part, n in weights.items()})

    expected = naive.expected_counts(counts, pieces, min([0.0, *pieces.values()]) - 10)
    assert dict(zip(pieces, corpus.expected()[1:])) == pytest.approx(expected)


@given(corpora)
def test_em_and_pruning(counts):
    """Two rounds of EM, then the pieces to prune, compared with enumeration."""
    corpus = corpus_of({word.replace("\0", "d"): count for word, count in counts.items()})
    counts = {word.replace("\0", "d"): count for word, count in counts.items()}
    for _ in range(2):
        before, e = corpus.pieces(), corpus.expected()[1:]
        corpus.maximize(corpus.expected())
        kept = [piece for piece, n in zip(before, e) if n >= 0.5]
        assert list(corpus.pieces()) == kept
        total = digamma(np.array([n for n in e if n >= 0.5]).sum())
        assert list(corpus.pieces().values()) == pytest.approx([float(digamma(n) - total) for n in e if n >= 0.5])
    scores = corpus.pieces()
    unknown = min([0.0, *scores.values()]) - 10
    assert dict(zip(scores, corpus.expected()[1:])) == pytest.approx(naive.expected_counts(counts, scores, unknown))

    unigram = Unigram(None, tuple(scores.items()))
    frequency = Counter()
    for word, count in counts.items():
        found = naive.nbest(word, scores, unknown, 2)
        if len(found) > 1 and found[0][1] - found[1][1] < 1e-9:
            return  # a tie, which rounding decides
        frequency.update({part: n * count for part, n in Counter(found[0][0]).items()})
    found, owner = corpus.lattices.best(corpus.scores)
    names = ["", *scores]
    total = Counter()
    for piece, word in zip(found.tolist(), owner.tolist()):
        total[names[piece]] += int(corpus.counts[word])
    assert {part: n for part, n in total.items() if part} == {p: n for p, n in frequency.items() if p in scores}
    assert unigram.vocab.keys() == scores.keys()

    corpus.prune(10**9)
    rest = corpus.pieces()
    used = [piece for piece in scores if len(piece) > 1 and frequency[piece] > 0]
    assert {piece for piece in rest if len(piece) > 1} == set(used)
    cost = [naive.loss(piece, frequency, scores, unknown) for piece in rest if len(piece) > 1]
    assert cost == pytest.approx(sorted(cost, reverse=True))


@given(corpora, st.lists(st.sampled_from([-1.0, -2.0, -3.0, -0.5]), min_size=60, max_size=60))
def test_ties_of_all_words_at_once(counts, scores):
    """Sums of these scores are exact and often equal."""
    corpus = corpus_of({word.replace("\0", "d"): count for word, count in counts.items()})
    spellings = list(corpus.pieces())
    scores = (scores * 9)[: len(spellings)]
    unigram = Unigram(0, (UNK, *zip(spellings, scores)))
    pieces, owner = corpus.lattices.best(np.array([-20.0, *scores]))
    for k, word in enumerate(sorted({word.replace("\0", "d") for word in counts}, key=lambda word: (-len(word), word))):
        assert pieces[owner == k].tolist()[::-1] == unigram.encode(word)


def test_the_loss_of_a_piece():
    """ab = a b: f = 6 of 10 pieces; without it, a 3 + 6, b 1 + 6 of 16."""
    found = losses(np.array([0.0, 3.0, 1.0, 6.0]), np.array([1, 2]), np.array([3, 3]))[3]
    assert found == pytest.approx(6 * (math.log(6 / 10) - math.log(9 / 16) - math.log(7 / 16)))


def test_digamma():
    """digamma(1) = -Euler's constant; digamma(1/2) = that - 2 log 2; digamma(x + 1) = digamma(x) +
    1/x."""
    euler = 0.5772156649015329
    assert digamma(np.array([1.0, 0.5])) == pytest.approx([-euler, -euler - 2 * math.log(2)], abs=1e-9)
    x = np.array([0.01, 0.7, 6.9, 7.0, 8.5, 1e6])
    assert digamma(x + 1) - digamma(x) == pytest.approx(1 / x, abs=1e-9)


TEXT = (
    "it was the season of rain and the river had risen above its banks nobody could say when it would fall again they had "
    "waited for three weeks and it is likely that they will wait for three more patience said the ferryman who had seen "
    "forty floods in his seventy years is cheaper than a new boat the children counted the branches that drifted by"
)
COUNTS = Counter("▁" + word for word in TEXT.split())


def test_training():
    pieces, unk_id = train_unigram(COUNTS, 60, special_tokens=("<s>", "</s>"))
    assert len(pieces) == 60 and unk_id == 0 and pieces[:3] == [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    learned = pieces[3:]
    assert learned == sorted(learned, key=lambda piece: (-piece[1], piece[0]))
    assert {char for word in COUNTS for char in word} <= {piece for piece, _ in learned}
    unigram = Unigram(unk_id, pieces)
    assert len(unigram.encode("▁the")) == 1 and all(unk_id not in unigram.encode(word) for word in COUNTS)
    shuffled = dict(sorted(COUNTS.items(), key=lambda item: item[0][::-1]))
    assert train_unigram(shuffled, 60, special_tokens=("<s>", "</s>")) == (pieces, unk_id)


def test_what_is_given():
    pieces, unk_id = train_unigram(COUNTS, 60, special_tokens=("<s>", "[U]", "the", "a"), unk_token="[U]")
    assert unk_id == 1 and [piece for piece, _ in pieces[:4]] == ["<s>", "[U]", "the", "a"]
    assert len({piece for piece, _ in pieces}) == len(pieces) == 60
    pieces, unk_id = train_unigram(COUNTS, 300, unk_token=None, byte_fallback=True)
    assert unk_id is None and pieces[0] == ("<0x00>", 0.0) and pieces[255] == ("<0xFF>", 0.0)
    assert len(train_unigram(COUNTS, 10_000)[0]) < 400  # all the pieces that exist
    assert {piece for piece, _ in train_unigram({"a": 9, "b": 9, "c": 7, "ab": 5, "bc": 4}, 3, unk_token=None)[0]} == set("abc")
    assert train_unigram({}, 5) == ([("<unk>", 0.0)], 0)
    assert max(len(piece) for piece, _ in train_unigram(COUNTS, 80, max_piece_length=2, special_tokens=())[0][1:]) == 2
    assert all(len(piece) == 1 for piece, _ in train_unigram(COUNTS, 80, max_piece_length=1)[0][1:])


def test_characters_that_em_drops_come_back():
    """x and y always occur together, as do v and z: after some rounds, each has an expected count below one half on its own."""
    counts = {"xy": 300, "xyxy": 100, "vz": 150, "vzxy": 50, "axy": 20, "avz": 20}
    corpus = corpus_of(counts, 2)
    for _ in range(4):
        corpus.maximize(corpus.expected())
    assert set(corpus.pieces()) == {"a", "xy", "vz"}
    scores, lowest = (
        dict(train_unigram(counts, 100, n_sub_iterations=4, max_piece_length=2)[0]),
        min(corpus.pieces().values()),
    )
    # x and y occur 570 times, v and z 220
    assert [scores[char] for char in "xyvz"] == pytest.approx([lowest + 0.0001 * k for k in range(4)], abs=1e-12)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"vocab_size": 10},
            "vocab_size: expected room for 1 given tokens and 23 characters of the words, got 10",
        ),
        (
            {"special_tokens": ("x", "x")},
            r"special_tokens: expected different strings, got \['<unk>', 'x', 'x'\]",
        ),
        ({"shrinking_factor": 1.0}, "shrinking_factor"),
        ({"n_sub_iterations": 0}, "n_sub_iterations"),
        ({"max_piece_length": 0}, "max_piece_length"),
        ({"word_counts": {"a": 0}}, "word_counts: 'a': expected a count >= 1, got 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        train_unigram(**({"word_counts": COUNTS, "vocab_size": 100} | settings))
