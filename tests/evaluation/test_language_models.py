"""tinyplm.evaluation: the counting baselines compared with reference/, and the numbers in the table."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.evaluation import ngram as reference
from tests.laws import FEW, PART
from tinyplm.evaluation import (
    InterpolatedKneserNey,
    Uniform,
    Unigram,
    baseline_rows,
    bits_per_byte,
    format_rows,
    perplexity,
    row,
    text_measures,
)


def skewed(seed, size, vocab_size):
    """Tokens with very different frequencies, and repetitions: n-grams with counts 1, 2, 3 and 4 all occur."""
    rng = np.random.default_rng(seed)
    tokens = np.minimum(rng.geometric(0.3, size) - 1, vocab_size - 1)
    tokens[size // 2 :] = np.roll(tokens, 3)[: size - size // 2]
    return tokens


@st.composite
def corpora(draw):
    """(train, tokens, V): small corpora with many repetitions, and skewed ones with every count of counts."""
    vocab_size = draw(st.integers(1, 7))
    ids = st.integers(0, vocab_size - 1)
    if draw(st.booleans()):
        train = np.array(draw(st.lists(ids, min_size=5, max_size=60)))
    else:
        train = skewed(draw(st.integers(0, 10**6)), draw(st.integers(20, 150)), vocab_size)
    return train, np.array(draw(st.lists(ids, min_size=2, max_size=25))), vocab_size


@given(corpora(), st.integers(1, 5), st.booleans())
def test_kneser_ney_is_its_reference(corpus, order, modified):
    train, tokens, vocab_size = corpus
    model = InterpolatedKneserNey(order, modified).fit(train, vocab_size)
    expected = reference.kneser_ney(train, tokens, vocab_size=vocab_size, order=order, modified=modified)
    found = model.log_prob(tokens)
    assert found.shape == (len(tokens) - 1,) and found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=PART, atol=PART)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5])
def test_kneser_ney_with_three_discounts_is_its_reference(seed):
    train, tokens = skewed(seed, 300, 20), skewed(seed + 100, 40, 20)
    model = InterpolatedKneserNey(3).fit(train, 20)
    assert sum(len(set(discount)) == 4 for discount in model.discounts) >= 1
    expected = reference.kneser_ney(train, tokens, vocab_size=20)
    np.testing.assert_allclose(model.log_prob(tokens), expected, rtol=PART, atol=PART)


@given(corpora(), st.integers(1, 5), st.booleans())
def test_kneser_ney_sums_to_one_after_any_history(corpus, order, modified):
    train, history, vocab_size = corpus
    model = InterpolatedKneserNey(order, modified).fit(train, vocab_size)
    p = np.exp([model.log_prob(np.append(history, w))[-1] for w in range(vocab_size)])
    assert np.all(p > 0)
    assert p.sum() == pytest.approx(1, rel=PART)


def test_kneser_ney_by_hand():
    # Bigrams 01 twice, 10 twice, 02 once: n1 = 1, n2 = 2, D = 1/5. Each of 0, 1, 2 was seen after one other
    # token: n1 = 3, n2 = 0, D = 1, so the unigrams are uniform, 1/4.
    model = InterpolatedKneserNey(2, modified=False).fit(np.array([0, 1, 0, 1, 0, 2]), 4)
    after = {h: np.exp([model.log_prob(np.array([h, w]))[0] for w in range(4)]) for h in range(4)}
    np.testing.assert_allclose(after[0], [0.1 / 3, 1.8 / 3 + 0.1 / 3, 0.8 / 3 + 0.1 / 3, 0.1 / 3])
    np.testing.assert_allclose(after[1], [0.925, 0.025, 0.025, 0.025])
    np.testing.assert_allclose(after[2], 0.25)  # seen, but never followed by anything
    np.testing.assert_allclose(after[3], 0.25)  # never seen


def test_three_discounts_by_hand():
    # n1..n4 = 10, 5, 3, 2: Y = 1/2, D1 = 1 - 5/10, D2 = 2 - 1.5 * 3/5, D3 = 3 - 2 * 2/3.
    train = np.repeat(np.arange(20), [1] * 10 + [2] * 5 + [3] * 3 + [4] * 2)
    model = InterpolatedKneserNey(1).fit(train, 21)
    np.testing.assert_allclose(model.discounts[0], [0, 0.5, 1.1, 5 / 3])
    single = InterpolatedKneserNey(1, modified=False).fit(train, 21)
    np.testing.assert_allclose(single.discounts[0], [0, 0.5, 0.5, 0.5])
    # n3 = 0 leaves D3 without an estimate: use the single discount; n1 = 0 leaves none: use 1/2.
    np.testing.assert_allclose(InterpolatedKneserNey(1).fit(train[:20], 21).discounts[0], [0, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(InterpolatedKneserNey(1).fit([0, 0, 1, 1], 3).discounts[0], [0, 0.5, 0.5, 0.5])


def test_a_history_helps_on_text_with_structure():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 50, (40, 3))
    train, validation = (words[rng.integers(0, 40, n)].ravel().astype(np.uint16) for n in (2000, 300))
    nll = [-InterpolatedKneserNey(order).fit(train, 50).log_prob(validation).mean() for order in (1, 2, 3)]
    assert nll[0] > nll[1] > nll[2]
    assert nll[0] < math.log(50)


def test_long_n_grams_over_a_large_vocabulary_do_not_overflow():
    rng = np.random.default_rng(0)  # packed into one number, six tokens of 20 bits would need 120 bits
    pool = rng.choice(2**20, 30, replace=False)
    tokens = pool[rng.integers(0, 30, 400)]
    small = np.searchsorted(np.sort(pool), tokens)
    wide = InterpolatedKneserNey(6).fit(tokens, 2**20)
    narrow = InterpolatedKneserNey(6).fit(small, 2**20)
    np.testing.assert_allclose(wide.log_prob(tokens), narrow.log_prob(small), rtol=PART)
    with pytest.raises(ValueError, match="tokens: expected ids from 0 to 1048575, got 0 to 1048576"):
        wide.log_prob(np.array([0, 2**20]))


@given(corpora())
def test_uniform_and_unigram_are_their_references(corpus):
    train, tokens, vocab_size = corpus
    np.testing.assert_allclose(Uniform(vocab_size).log_prob(tokens), reference.uniform(tokens, vocab_size=vocab_size), atol=FEW)
    for added in (1.0, 0.5):
        found = Unigram(added).fit(train, vocab_size).log_prob(tokens)
        expected = reference.unigram(train, tokens, vocab_size=vocab_size, added=added)
        np.testing.assert_allclose(found, expected, rtol=PART, atol=FEW)
    assert np.exp(Unigram().fit(train, vocab_size).log_p).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: InterpolatedKneserNey(0), "order: expected an integer from 1 to 1000, got 0"),
        (lambda: InterpolatedKneserNey(3).fit([0, 1], 2), "tokens: expected at least 3, got 2"),
        (lambda: InterpolatedKneserNey().fit([0, 1, 2], 2), "tokens: expected ids from 0 to 1, got 0 to 2"),
        (lambda: InterpolatedKneserNey().fit([0.0, 1, 0], 2), "tokens: expected token ids (N,), got [0.0, 1, 0]"),
        (lambda: InterpolatedKneserNey(1).fit([0, 1], 2).log_prob([0]), "tokens: expected at least 2, got 1"),
        (lambda: Unigram(0), "added: expected a finite number > 0, got 0"),
        (lambda: Unigram().fit([-1], 2), "tokens: expected ids from 0 to 1, got -1"),
        (lambda: Uniform(0), "vocab_size: expected an integer from 1 to 4294967296, got 0"),
        (lambda: bits_per_byte(1.0, 0), "bytes: expected an integer from 1 to 4611686018427387904, got 0"),
        (lambda: row("x", 1.0, 0, 1), "tokens: expected an integer from 1 to 4611686018427387904, got 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_measures_of_texts():
    """Two texts of 3 words, 11 characters and 12 bytes, whose 5 tokens take 6 ln 2 nats."""
    found = text_measures(6 * math.log(2), 5, ["one naïve", "x\n"])
    expected = {"nll per token": 1.2 * math.log(2), "perplexity": 2**1.2, "perplexity per word": 4.0, "bits per byte": 0.5,
                "bits per character": 6 / 11}  # fmt: skip
    assert found.keys() == expected.keys() and all(found[name] == pytest.approx(expected[name]) for name in expected)
    with pytest.raises(ValueError, match="texts: expected at least one word, got none"):
        text_measures(1.0, 5, [" "])


def test_perplexity_and_bits_per_byte():
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(0.0) == 1
    assert perplexity(1e6) == math.inf and math.isnan(perplexity(math.nan))
    # Uniform over 256 one-byte tokens: 8 bits per byte.
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8)


def test_baseline_rows_are_measured_on_the_validation_tokens():
    train, validation = skewed(0, 500, 9), skewed(1, 100, 9)
    rows = baseline_rows(train, validation, 9, 300)
    assert [r.name for r in rows] == ["uniform", "unigram (add-one)", "trigram (modified Kneser-Ney)"]
    total = -InterpolatedKneserNey(3).fit(train, 9).log_prob(validation).sum()
    assert rows[2].nll == pytest.approx(total / 99)
    assert rows[2].perplexity == pytest.approx(math.exp(total / 99))
    assert rows[2].bits_per_byte == pytest.approx(total / math.log(2) / 300)
    assert rows[0].perplexity == pytest.approx(9)


def test_format_rows():
    text = format_rows([row("uniform", math.log(4) * 10, 10, 20), row("a", 0.0, 1, 1)])
    lines = text.split("\n")
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["model", "nll/token", "perplexity", "bits/byte"]
    assert lines[1].split() == ["uniform", "1.3863", "4.00", "1.0000"]
    assert lines[2].split() == ["a", "0.0000", "1.00", "0.0000"]
