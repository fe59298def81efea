"""The rule of speculative decoding: each token follows the target's distribution, whatever the draft proposes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import reference.generation.sampling as ref_sampling
import reference.generation.speculative as ref
from tests.laws import PART
from tests.support.families import tiny
from tests.support.generation import full_pass
from tinyplm.generation import DraftStatistics, expected_tokens, generate, speculative
from tinyplm.generation.proposals import Proposals, Rules
from tinyplm.generation.sampling import Sampling
from tinyplm.generation.speculative import accepts, judge, residual

V = 3
RNG = np.random.default_rng(0)


def distributions(seed, kind):
    """{text: a distribution over V tokens} of all texts of fewer than six tokens."""
    rng = np.random.default_rng(seed)
    texts = itertools.chain(*(itertools.product(range(V), repeat=n) for n in range(6)))
    found = {text: rng.dirichlet(np.ones(V)) for text in texts}
    if kind == "some impossible":
        for text, p in found.items():
            if rng.random() < 0.6:
                p[rng.integers(V)] = 0
                found[text] = p / p.sum()
    if kind == "greedy":
        found = {text: np.eye(V)[p.argmax()] for text, p in found.items()}
    return found


class Planted:
    """A generator whose numbers are given."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self):
        return self.numbers.pop(0)


def judged_outcomes(p, q, text, draft_length):
    """{text after a round: probability} of our `judge`: one call for each way in which a round can go.

    A call gets a number from the middle of each interval that decides that way; the interval's length is its probability.
    """
    found = {}
    for run in itertools.product(range(V), repeat=draft_length):
        befores = [text + run[:n] for n in range(draft_length + 1)]
        chance = math.prod(q[before][token] for before, token in zip(befores, run))
        if chance == 0:
            continue
        with np.errstate(divide="ignore"):
            logits = np.log([[p[before] for before in befores]])
        proposals = Proposals([list(run)], [q[before][None] for before in befores[:-1]])
        shares = [ref.acceptance_probability(p[b], q[b], token) for b, token in zip(befores, run)]
        for accepted in range(draft_length + 1):
            way, numbers, last = chance, [], p[befores[accepted]]
            for n, share in enumerate(shares[: accepted + 1]):
                way *= share if n < accepted else 1 - share
                numbers.append(share / 2 if n < accepted else (1 + share) / 2)
            if way == 0:
                continue
            if accepted < draft_length:
                last = residual(last, q[befores[accepted]])
            edges = np.concatenate([[0], np.cumsum(last)])
            for token in np.flatnonzero(last):
                middle = (edges[token] + edges[token + 1]) / 2
                [verdict] = judge(logits, [text], proposals, [Planted(*numbers, middle)], Rules(Sampling(), None, set()))
                assert verdict.accepted == accepted and verdict.checked == min(accepted + 1, draft_length)
                after = text + tuple(verdict.tokens)
                found[after] = found.get(after, 0) + way * last[token]
    return found


def written(outcomes, length):
    """{the first `length` tokens: probability}: rounds follow each other until there are as many."""
    texts, found = {(): 1.0}, {}
    while texts:
        text, chance = texts.popitem()
        for after, share in outcomes(text).items():
            if len(after) >= length:
                found[after[:length]] = found.get(after[:length], 0) + chance * share
            else:
                texts[after] = texts.get(after, 0) + chance * share
    return found


@pytest.mark.parametrize("rounds", ["reference", "ours"])
@pytest.mark.parametrize(("length", "draft_length"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
@pytest.mark.parametrize("kind", ["any", "some impossible", "greedy", "equal"])
def test_all_sequences_have_exactly_the_targets_probability(rounds, length, draft_length, kind):
    p = distributions(1, kind)
    q = p if kind == "equal" else distributions(2, kind)

    def outcomes(text):
        if rounds == "reference":
            return ref.round_outcomes(p.get, q.get, text, draft_length)
        return judged_outcomes(p, q, text, draft_length)

    found = written(outcomes, length)
    for text in itertools.product(range(V), repeat=length):
        expected = math.prod(p[text[:n]][text[n]] for n in range(length))
        assert abs(found.get(text, 0) - expected) < 1e-12
    assert abs(sum(found.values()) - 1) < 1e-12


def test_accepting_and_replacing_are_the_references():
    for _ in range(50):
        p, q = RNG.dirichlet(np.full(5, 0.5)), RNG.dirichlet(np.full(5, 0.5))
        assert np.max(np.abs(residual(p, q) - ref.residual(p, q))) < PART
        for token in range(5):
            share = ref.acceptance_probability(p, q, token)
            below, above = share * (1 - 1e-9), share * (1 + 1e-9)
            assert accepts(p[token], q[token], below) and (above >= 1 or not accepts(p[token], q[token], above))
    assert residual(p, p) is p  # rounding alone may refuse a token of the same distribution
    assert not accepts(0.0, 0.5, 0.0) and accepts(0.5, 0.5, 1 - 1e-16)


def test_equation_1():
    for rate in (0.0, 0.3, 0.8, 1.0):
        for length in (0, 1, 4, 9):
            assert expected_tokens(rate, length) == pytest.approx(ref.expected_tokens(rate, length), rel=PART)
    with pytest.raises(ValueError, match="^acceptance_rate: expected a finite number >= 0 and <= 1, got 1.5$"):
        expected_tokens(1.5, 2)


# ------------------------------------------------------------------------------------------- samples of whole generations

TARGET, DRAFT = (tiny("gpt2", n_positions=12, seed=seed) for seed in (0, 8))
SETTINGS = {
    "plain": {},
    "hot": {"temperature": 2.0},
    "cold": {"temperature": 0.4},
    "top-k": {"top_k": 2},
    "top-p": {"top_p": 0.7},
    "min-p": {"min_p": 0.4, "temperature": 1.5},
    "penalties": {"repetition_penalty": 1.7, "no_repeat_ngram": 2},
    "everything": {"temperature": 1.4, "top_k": 3, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 0.8},
}
PROMPT, IDS, LENGTH, SAMPLES = [1, 2, 1], 4, 3, 2000


def target_probabilities(options, target=TARGET):
    """{text: probability} of LENGTH new tokens, from full passes of the target and the reference's sampling."""
    cuts = {name: value for name, value in options.items() if name in ("temperature", "top_k", "top_p", "min_p")}
    texts = {(): 1.0}
    for _ in range(LENGTH):
        longer = {}
        for text, chance in texts.items():
            ids = [*PROMPT, *text]
            logits = target([ids], grad=False)[0]["logits"][0, -1]  # a penalty depends on their signs
            logits = ref_sampling.penalise_repetition(logits, ids, penalty=options.get("repetition_penalty", 1.0))
            if "no_repeat_ngram" in options:
                logits = ref_sampling.ban_repeated_ngrams(logits, ids, n=options["no_repeat_ngram"])
            p = ref_sampling.token_distribution(logits[:IDS], **cuts)
            longer |= {(*text, token): chance * p[token] for token in np.flatnonzero(p).tolist()}
        texts = longer
    return texts


def surprise(draft, options, seed=0, draft_length=2, target=TARGET):
    """How far the counts are from the target's probabilities: the least false alarm that would report some count.

    A count of probability p among N is N p + s or more with probability at most exp(-s^2 / (2 (N p (1 - p) + s / 3)))
    (Bernstein), and the same below: all counts together with at most the number of texts times twice that.
    """
    limits = {"max_new_tokens": LENGTH, "vocabulary": IDS, "samples": SAMPLES, "seed": seed, "draft_length": draft_length}
    texts = generate(target, PROMPT, draft=draft, **limits, **options)
    expected, counts = target_probabilities(options, target), {}
    for text in texts:
        counts[tuple(text.ids)] = counts.get(tuple(text.ids), 0) + 1
    assert counts.keys() <= expected.keys(), "a text that the target cannot write"
    exponents = []
    for text, p in expected.items():
        s = abs(counts.get(text, 0) - SAMPLES * p)
        exponents.append(s * s / (2 * (SAMPLES * p * (1 - p) + s / 3)) if s else 0.0)
    return 2 * len(expected) * math.exp(-max(exponents))


@pytest.mark.parametrize("draft", [TARGET, DRAFT], ids=["itself", "another"])
@pytest.mark.parametrize("name", SETTINGS)
def test_samples_follow_the_targets_distribution(name, draft):
    assert surprise(draft, SETTINGS[name]) > 1e-4


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("accepts", lambda p, q, u: True),  # the draft's distribution
        ("accepts", lambda p, q, u: u < p),
        ("residual", lambda p, q: p),  # from the target, though what was refused was less probable there
        ("residual", lambda p, q: q),
    ],
)
def test_a_wrong_rule_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(speculative, name, wrong)
    assert surprise(DRAFT, {"temperature": 0.5}) < 1e-12


def test_statistics_of_a_draft_that_equals_the_target():
    for options in SETTINGS.values():
        counts = DraftStatistics()
        texts = generate(TARGET, PROMPT, max_new_tokens=7, draft=TARGET, draft_length=2, samples=20, statistics=counts, **options)
        assert counts.acceptance_rate == 1 and counts.checked == counts.accepted == counts.proposed == 20 * 4
        assert counts.tokens == sum(len(text.ids) - 1 for text in texts) == 20 * 6 and counts.passes == 20 * 2
        assert counts.tokens_per_pass == 3 == expected_tokens(1.0, 2)


def test_the_acceptance_rate_is_what_the_distributions_have_in_common():
    """The first proposal is accepted with probability sum min(p, q) (Leviathan et al. 2023, corollary 3.6)."""
    counts, rate = DraftStatistics(), 0.0
    first = np.exp(full_pass(TARGET, PROMPT))
    for token in range(11):
        p, q = (np.exp(full_pass(model, [*PROMPT, token])) for model in (TARGET, DRAFT))
        rate += first[token] * np.minimum(p, q).sum()
    generate(TARGET, PROMPT, max_new_tokens=3, draft=DRAFT, draft_length=1, samples=SAMPLES, statistics=counts)
    s = abs(counts.accepted - SAMPLES * rate)
    assert counts.checked == counts.proposed == SAMPLES and 0.3 < rate < 0.95
    assert 2 * math.exp(-s * s / (2 * (SAMPLES * rate * (1 - rate) + s / 3))) > 1e-4
    assert math.isnan(DraftStatistics().acceptance_rate) and math.isnan(DraftStatistics().tokens_per_pass)
