"""Sampling against the reference, and generation."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.generation.sampling as ref
import tinyplm
from tests.test_gpt2 import tiny
from tinyplm.generation.generate import generate, stream
from tinyplm.generation.sampling import draw, token_distribution
from tinyplm.models import causal_lm
from tinyplm.tokenizers import Tokenizer


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
    counts = np.bincount(draw(np.tile(p, (n, 1)), np.random.default_rng(0).random(n)), minlength=4)
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


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_sample_does_not_depend_on_how_many_there_are(temperature):
    many = generate(tiny(), [1], max_new_tokens=12, samples=4, seed=5, temperature=temperature)
    for n in (1, 2, 3):
        assert generate(tiny(), [1], max_new_tokens=12, samples=n, seed=5, temperature=temperature) == many[:n]


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_stop_it(temperature, bad):
    model = tiny()
    model.params["body"]["norm"]["beta"][0] = bad
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=r"logit is (nan|inf), expected a finite number"):
        generate(model, [1], max_new_tokens=3, temperature=temperature)
    assert token_distribution(np.array([0.0, -np.inf]))[1] == 0  # a token that cannot be drawn is fine


def test_the_head_runs_on_the_last_position_only(monkeypatch):
    widths = []

    def linear(x, W, b=None, *, linear=causal_lm.linear):
        widths.append(x.shape[:-1])
        return linear(x, W, b)

    monkeypatch.setattr(causal_lm, "linear", linear)
    generate(tiny(), [1, 2, 3], max_new_tokens=2, samples=2)
    assert widths == [(2,), (2,)]


def test_only_ids_of_the_vocabulary_are_drawn():
    texts = generate(tiny(), [1], max_new_tokens=40, samples=3, temperature=5.0, vocabulary=4)
    assert {token for text in texts for token in text} == {0, 1, 2, 3}
    assert generate(tiny(), [1], max_new_tokens=9, vocabulary=99) == generate(tiny(), [1], max_new_tokens=9)


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
        ({"vocabulary": 0}, "vocabulary must be >= 1 or None, got 0"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        generate(tiny(), **{"prompt": [1], "max_new_tokens": 3, **options})


def test_the_stream_gives_one_token_of_each_sample_at_a_time():
    tokens = list(stream(tiny(), [1], max_new_tokens=4, samples=2, seed=5))
    assert np.array(tokens).T.tolist() == generate(tiny(), [1], max_new_tokens=4, samples=2, seed=5)


# ----------------------------------------------------------------------------------------------- examples/generate.py


def example(monkeypatch, *arguments):
    """examples/generate.py run as a command; its exit message, or None."""
    script = Path(__file__).parents[1] / "examples" / "generate.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    return None


def saved(folder, padding=0, special_tokens=("<|endoftext|>",)):
    """A folder with a tiny model whose table has `padding` more rows than its tokenizer has ids."""
    tokenizer = Tokenizer.train(["a few words, a few more words"], 262, special_tokens)
    model = tiny(vocab_size=tokenizer.vocab_size + padding)
    model.tokenizer = tokenizer
    tinyplm.save(model, folder)
    return folder


def test_the_example_follows_best_in_a_run_folder(monkeypatch, tmp_path, capsys):
    saved(tmp_path / "step-2")
    (tmp_path / "best").write_text("step-2\n")
    assert example(monkeypatch, tmp_path, "--prompt", "a few", "--tokens", 5) is None
    from_run = capsys.readouterr().out
    assert example(monkeypatch, tmp_path / "step-2", "--prompt", "a few", "--tokens", 5) is None
    assert from_run.startswith("a few") and capsys.readouterr().out == from_run
    (tmp_path / "best").write_text("step-3\n")
    assert "names 'step-3', but there is no such folder" in example(monkeypatch, tmp_path)


def test_the_example_draws_only_what_the_tokenizer_has(monkeypatch, tmp_path):
    saved(tmp_path, padding=3000)
    assert example(monkeypatch, tmp_path, "--tokens", 30, "--samples", 3, "--temperature", 9, "--top-p", 1) is None


def test_the_example_needs_a_prompt_without_an_end_token(monkeypatch, tmp_path):
    saved(tmp_path, special_tokens=())
    assert "no <|endoftext|> to begin a document with, so --prompt is needed" in example(monkeypatch, tmp_path)
    assert example(monkeypatch, tmp_path, "--prompt", "a", "--tokens", 3) is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (PermissionError("locked"), "error: locked"),
        (FloatingPointError("nan"), "error: nan"),
    ],
)
def test_the_example_fails_in_one_line(monkeypatch, tmp_path, error, message):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(tinyplm, "load", load)
    assert example(monkeypatch, tmp_path) == message
