"""Sampling against the reference: the distribution, the penalties, and the token chosen from both.

If a sum hits top_p exactly, or a probability hits min_p times the largest one exactly, the last bit of a rounding decides what is
truncated.  The tests exclude such cases (`near_a_cut`) or choose numbers that avoid them.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import reference.generation.sampling as ref
from tests.laws import PART
from tinyplm.generation.sampling import (
    Sampling,
    ban_repeated_ngrams,
    draw,
    log_probabilities,
    penalise_repetition,
    token_distribution,
)

TEMPERATURES = st.sampled_from([0.0, 0.5, 1.0, 3.0])
TOP_K = st.one_of(st.none(), st.integers(1, 9))
TOP_P = st.one_of(st.none(), st.floats(0.05, 1.0))
MIN_P = st.one_of(st.none(), st.floats(0.0, 1.0), st.just(1.0))


def make_logits(rng, V, kind):
    """Normal logits; small integers with many ties; or some -inf, for tokens that cannot be drawn."""
    logits = rng.integers(-2, 3, V).astype(float) if kind == "ties" else rng.normal(0, 2, V)
    if kind == "forbidden":
        logits[rng.random(V) < 0.4] = -np.inf
        logits[rng.integers(V)] = 1.0
    return logits


def near_a_cut(logits, *, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """Whether a sum is within 1e-9 of top_p, or a probability within 1e-9 of min_p times the largest.

    At min_p = 1, ties with the largest are kept whatever the rounding.
    """
    p = ref.token_distribution(logits, temperature=temperature, top_k=top_k)
    if top_p is not None and top_p < 1 and np.abs(np.cumsum(np.sort(p)[::-1]) - top_p).min() < 1e-9:
        return True
    p = ref.token_distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    shares = p[(p > 0) & (p < p.max())] / p.max()
    return min_p is not None and bool((np.abs(shares - min_p) < 1e-9).any())


# ------------------------------------------------------------------------------------------------------ the distribution


@given(
    V=st.integers(1, 8),
    seed=st.integers(0, 999),
    temperature=TEMPERATURES,
    top_k=TOP_K,
    top_p=TOP_P,
    min_p=MIN_P,
    kind=st.sampled_from(["normal", "ties", "forbidden"]),
)
@example(V=5, seed=1, temperature=1.0, top_k=9, top_p=0.5, min_p=0.3, kind="ties")  # top_k exceeds the vocabulary
def test_the_distribution_equals_the_reference(V, seed, temperature, top_k, top_p, min_p, kind):
    logits = make_logits(np.random.default_rng(seed), V, kind)
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    assume(not near_a_cut(logits, **cuts))
    ours, theirs = token_distribution(logits[None], **cuts)[0], ref.token_distribution(logits, **cuts)
    assert np.array_equal(ours > 0, theirs > 0) and np.max(np.abs(ours - theirs)) < PART
    assert ours.sum() == pytest.approx(1, rel=PART)


def test_of_equal_tokens_the_first_are_kept():
    equal = np.zeros(5)
    assert token_distribution(equal, top_k=2).tolist() == [0.5, 0.5, 0, 0, 0]
    assert (token_distribution(equal, top_p=0.5) > 0).tolist() == [True, True, True, False, False]
    assert token_distribution(np.array([0.0, 2, 1, 2, 2]), top_k=2).tolist() == [0, 0.5, 0, 0.5, 0]
    assert token_distribution(np.array([0.0, 2, 1, 2, 2]), temperature=0).tolist() == [0, 1, 0, 0, 0]
    assert token_distribution(equal, min_p=1.0).tolist() == [0.2] * 5
    # ranked by logits, even if two probabilities round to the same number
    close = np.array([0.0, 1e-17, 0.0])
    assert token_distribution(close, top_k=1).tolist() == token_distribution(close, top_p=0.1).tolist() == [0, 1, 0]


def test_rows_do_not_depend_on_each_other():
    logits = np.random.default_rng(0).normal(0, 3, (2, 3, 7))
    together = token_distribution(logits, temperature=0.7, top_k=5, top_p=0.9, min_p=0.05)
    for place in np.ndindex(2, 3):
        alone = token_distribution(logits[place], temperature=0.7, top_k=5, top_p=0.9, min_p=0.05)
        assert np.array_equal(together[place], alone)


def test_inputs_are_left_as_they_are_and_the_result_is_float64():
    for dtype in ("float16", "float32", "float64"):
        logits = np.random.default_rng(0).normal(0, 3, (2, 7)).astype(dtype)
        logits.flags.writeable = False
        assert token_distribution(logits, temperature=0.7, top_k=5, top_p=0.9, min_p=0.05).dtype == np.float64
        generators = [np.random.default_rng(n) for n in range(2)]
        Sampling(repetition_penalty=1.5, no_repeat_ngram=1).choose(logits, [[1], [2]], generators)


VOCABULARIES = {
    "flat": lambda rng, V: np.zeros(V),
    "nearly flat": lambda rng, V: rng.normal(0, 1e-3, V),
    "normal": lambda rng, V: rng.normal(0, 2, V),
    "peaked": lambda rng, V: rng.normal(0, 20, V),
    "one and nothing": lambda rng, V: np.where(np.arange(V) == V // 3, 100.0, rng.normal(0, 1, V)),
    "one and a long tail": lambda rng, V: np.where(np.arange(V) == V // 3, np.log(V), rng.normal(0, 1e-2, V)),
    # a tenth of the tokens has four fifths of the mass; the others are just below pruning's threshold at top_p = 0.5
    "a tail below the threshold": lambda rng, V: np.where(np.arange(V) % 10 == 3, np.log(8 / V), np.log(0.2 / 0.9 / V)),
    "half forbidden": lambda rng, V: np.where(rng.random(V) < 0.5, -np.inf, rng.normal(0, 1, V)),
}


@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("V", [1000, 50257])
def test_pruning_never_changes_the_result(V, kind):
    """Against sorting the full vocabulary.  The values of top_p are irregular, so no sum of equal probabilities hits them."""
    logits = VOCABULARIES[kind](np.random.default_rng(V), V)
    everything = np.exp(logits - logits.max())
    order = np.argsort(-logits, kind="stable")
    for top_k, top_p in itertools.product([None, V // 7, V - 1, V, V + 5], [1e-7, 0.1234567, 0.5000123, 0.9000321, 0.9999983]):
        kept = everything[order]
        kept[V if top_k is None else top_k :] = 0
        kept /= kept.sum()
        before = np.concatenate([[0], np.cumsum(kept)[:-1]])
        assert np.abs(before - top_p).min() > 10 * PART, "this number tests a rounding"
        kept[before >= top_p] = 0
        expected = np.zeros(V)
        expected[order] = kept / kept.sum()
        ours = token_distribution(logits, top_k=top_k, top_p=top_p)
        assert np.array_equal(ours > 0, expected > 0), f"top_k {top_k}, top_p {top_p}: {(ours > 0).sum()}, {(expected > 0).sum()}"
        assert np.abs(ours - expected).max() < PART


# --------------------------------------------------------------------------------------------------------- the penalties


@given(V=st.integers(1, 8), seed=st.integers(0, 999), penalty=st.floats(0.1, 10), count=st.integers(0, 9))
def test_the_penalty_equals_the_reference(V, seed, penalty, count):
    rng = np.random.default_rng(seed)
    logits, seen = make_logits(rng, V, ["normal", "ties", "forbidden"][seed % 3]), rng.integers(0, V, count).tolist()
    expected = ref.penalise_repetition(logits, seen, penalty=penalty)
    penalise_repetition(logits, seen, penalty=penalty)
    assert np.array_equal(logits, expected)


@given(V=st.integers(1, 4), seed=st.integers(0, 999), n=st.integers(1, 5), count=st.integers(0, 12))
def test_banned_ngrams_equal_the_reference(V, seed, n, count):
    rng = np.random.default_rng(seed)
    logits, ids = rng.normal(size=V), rng.integers(0, V, count).tolist()
    expected = ref.ban_repeated_ngrams(logits, ids, n=n)
    ban_repeated_ngrams(logits, ids, n=n)
    assert np.array_equal(logits, expected)


@given(
    V=st.integers(1, 8),
    seed=st.integers(0, 9999),
    temperature=TEMPERATURES,
    top_k=TOP_K,
    top_p=TOP_P,
    min_p=MIN_P,
    penalty=st.sampled_from([1.0, 0.5, 1.3, 4.0]),
    n=st.one_of(st.none(), st.integers(1, 3)),
    kind=st.sampled_from(["normal", "ties", "forbidden"]),
    B=st.integers(1, 3),
)
def test_all_together_choose_what_the_reference_would(V, seed, temperature, top_k, top_p, min_p, penalty, n, kind, B):
    """Penalty, banned n-grams, temperature, top-k, top-p, min-p, in this order; then both draw with the same random number."""
    rng = np.random.default_rng(seed)
    cuts = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    logits = np.stack([make_logits(rng, V, kind) for _ in range(B)])
    texts = [rng.integers(0, V, rng.integers(1, 9)).tolist() for _ in range(B)]
    expected = []
    for b, (row, text) in enumerate(zip(logits, texts)):
        row = ref.penalise_repetition(row, text, penalty=penalty)
        row = row if n is None else ref.ban_repeated_ngrams(row, text, n=n)
        assume(np.isfinite(row).any())
        assume(not near_a_cut(row, **cuts))
        cumulative = np.cumsum(ref.token_distribution(row, **cuts))
        u = np.random.default_rng([seed, b]).random()
        assume(np.abs(cumulative - u).min() > 1e-9)
        expected.append(int(np.argmax(cumulative > u)))
    settings = Sampling(repetition_penalty=penalty, no_repeat_ngram=n, **cuts)
    chosen = settings.choose(logits, texts, [np.random.default_rng([seed, b]) for b in range(B)])
    assert chosen.tolist() == expected


def test_when_every_token_is_banned_it_says_so():
    with pytest.raises(ValueError, match="no_repeat_ngram: expected one that allows any token, got 1"):
        Sampling(no_repeat_ngram=1).choose(np.zeros((1, 3)), [[0, 1, 2]], [np.random.default_rng(0)])


def test_ids_that_have_no_logit_are_not_penalised():
    """A prompt may contain ids outside the sampled vocabulary; they have no logit to change."""
    for settings in (Sampling(temperature=0, repetition_penalty=2.0), Sampling(temperature=0, no_repeat_ngram=1)):
        assert settings.choose(np.array([[1.0, 3.0, 2.0]]), [[1, 7, 7]], []).tolist() == [2]


# ----------------------------------------------------------------------------------- drawing, log-probabilities, errors


def test_draws_follow_the_distribution():
    p = np.array([0.5, 0.0, 0.2, 0.3])
    n = 40_000
    counts = np.bincount(draw(np.tile(p, (n, 1)), np.random.default_rng(0).random(n)), minlength=4)
    assert counts[1] == 0
    assert (np.abs(counts - n * p) < 5 * (n * p * (1 - p)) ** 0.5 + 1e-9).all()  # five standard deviations


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.one_of(st.floats(0, 1, exclude_max=True), st.just(1 - 2**-53)))
@example([0.0, 0.5, 0.0, 0.5, 0.0], 0.0)
@example([0.0, 0.1, 0.0, 0.2, 0.0], 1 - 2**-53)
def test_a_token_without_probability_is_never_drawn(p, u):
    p = np.array(p)
    assume(p.sum() > 1e-300)
    p /= p.sum()
    assert p[draw(p[None], np.array([u]))[0]] > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_must_add_up_to_one_to_rounding(dtype):
    p = np.full((1, 1000), 1e-3, dtype)  # the sum has its own rounding error
    assert draw(p, np.array([0.5]))[0] in (499, 500)
    p[0, 0] += 1000 * 100 * np.finfo(dtype).eps
    with pytest.raises(ValueError, match="^probabilities: expected rows >= 0 that sum to 1, got the sum 1"):
        draw(p, np.array([0.5]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_probabilities(dtype):
    logits = np.random.default_rng(0).normal(0, 5, (4, 9)).astype(dtype) + 1000
    tokens = np.array([0, 8, 3, 3])
    expected = [np.log(ref.token_distribution(row)[token]) for row, token in zip(logits, tokens)]
    assert np.allclose(log_probabilities(logits, tokens), expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature: expected a finite number >= 0, got -1"),
        ({"temperature": float("nan")}, "temperature: expected a finite number >= 0, got nan"),
        ({"temperature": float("inf")}, "temperature: expected a finite number >= 0, got inf"),
        ({"top_k": 0}, "top_k: expected None or an integer >= 1, got 0"),
        ({"top_k": 1.5}, "top_k: expected None or an integer >= 1, got 1.5"),
        ({"top_p": 0}, "top_p: expected None or a finite number > 0 and <= 1, got 0"),
        ({"top_p": 1.5}, "top_p: expected None or a finite number > 0 and <= 1, got 1.5"),
        ({"top_p": float("nan")}, "top_p: expected None or a finite number > 0 and <= 1, got nan"),
        ({"min_p": 2}, "min_p: expected None or a finite number >= 0 and <= 1, got 2"),
        ({"min_p": -0.1}, "min_p: expected None or a finite number >= 0 and <= 1, got -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected a finite number > 0, got 0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty: expected a finite number > 0, got nan"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram: expected None or an integer from 1 to 2147483647, got 0"),
        ({"no_repeat_ngram": 2.5}, "no_repeat_ngram: expected None or an integer from 1 to 2147483647, got 2.5"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Sampling(**options)
    if options.keys() <= {"temperature", "top_k", "top_p", "min_p"}:
        with pytest.raises(ValueError, match=f"^{message}$"):
            token_distribution(np.zeros(3), **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    for options in ({}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0.5}, {"min_p": 0.5}):
        with pytest.raises(FloatingPointError, match=r"logits: expected a finite largest .*, got (nan|inf)"):
            token_distribution(np.array([[0.0, 1.0], [0.0, bad]]), **options)
    with pytest.raises(FloatingPointError, match="logits: expected a finite largest one in each row, got -inf"):
        token_distribution(np.array([-np.inf, -np.inf]))
    assert token_distribution(np.array([0.0, -np.inf]))[1] == 0  # a token that cannot be drawn is fine
