"""Sampling against the reference, and generation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.generation.sampling as ref
from tests.test_gpt2 import tiny
from tinyplm.generation.generate import generate, stream
from tinyplm.generation.sampling import draw, token_distribution


@given(
    V=st.integers(1, 8),
    seed=st.integers(0, 999),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    top_k=st.one_of(st.none(), st.integers(1, 9)),
    top_p=st.one_of(st.none(), st.floats(0.05, 1.0)),
    ties=st.booleans(),
)
def test_the_distribution_equals_the_reference(V, seed, temperature, top_k, top_p, ties):
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, V).astype(float) if ties else rng.normal(0, 2, V)
    if top_p is not None:  # whether a sum reaches p exactly depends on the order of additions: keep away from that
        probabilities = np.sort(ref.token_distribution(logits, temperature=temperature, top_k=top_k))[::-1]
        if np.min(np.abs(np.cumsum(probabilities) - top_p)) < 1e-9:
            return
    ours = token_distribution(logits[None], temperature=temperature, top_k=top_k, top_p=top_p)[0]
    theirs = ref.token_distribution(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    assert np.max(np.abs(ours - theirs)) < 1e-12
    assert ours.sum() == pytest.approx(1, rel=1e-12)


def test_draws_follow_the_distribution():
    p = np.array([0.5, 0.0, 0.2, 0.3])
    n = 40_000
    counts = np.bincount(draw(np.tile(p, (n, 1)), np.random.default_rng(0)), minlength=4)
    assert counts[1] == 0
    assert (np.abs(counts - n * p) < 5 * (n * p * (1 - p)) ** 0.5 + 1e-9).all()  # five standard deviations


def test_greedy_is_the_argmax_of_the_full_pass_and_slides_over_the_context():
    model = tiny()
    ids = [1, 2, 3]
    for _ in range(8):  # the context is 6
        ids.append(int(model([ids[-6:]], grad=False)[0]["logits"][0, -1].argmax()))
    assert generate(model, [1, 2, 3], max_new_tokens=8, temperature=0) == [ids[3:]]


def test_a_seed_gives_the_same_samples_and_samples_differ():
    model = tiny()
    a = generate(model, [1], max_new_tokens=20, samples=3, seed=5)
    assert a == generate(model, [1], max_new_tokens=20, samples=3, seed=5)
    assert a != generate(model, [1], max_new_tokens=20, samples=3, seed=6)
    assert a[0] != a[1] and [len(text) for text in a] == [20, 20, 20]


def test_it_stops_before_the_stop_token():
    model = tiny()
    full = generate(model, [1], max_new_tokens=30, samples=4, seed=1)
    stop = full[0][5]
    stopped = generate(model, [1], max_new_tokens=30, samples=4, seed=1, stop_id=stop)
    assert stopped == [text[: text.index(stop)] if stop in text else text for text in full]


def test_it_runs_on_devices(device):
    assert generate(tiny(device=device), [1, 2], max_new_tokens=5, seed=2) == generate(tiny(), [1, 2], max_new_tokens=5, seed=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": [1] * 7}, "prompt of 7 tokens is longer than the context of 6"),
        ({"prompt": [11]}, "token id 11 is out of range"),
        ({"temperature": -1}, "temperature must be >= 0, got -1"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\]"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\] or None, got 1.5"),
        ({"top_k": 0}, "top_k must be an integer >= 1"),
        ({"samples": 0}, "samples must be >= 1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny(), **{"prompt": [1], "max_new_tokens": 3, **options})


def test_the_stream_gives_one_token_of_each_sample_at_a_time():
    tokens = list(stream(tiny(), [1], max_new_tokens=4, samples=2, seed=5))
    assert np.array(tokens).T.tolist() == generate(tiny(), [1], max_new_tokens=4, samples=2, seed=5)
