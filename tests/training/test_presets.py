"""Proposals of a run: the rules by hand, limits that are never exceeded, and what grows with the hours."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyplm
from tests.families.test_gpt2 import tiny
from tests.laws import equal
from tinyplm.families import gpt2
from tinyplm.training import presets
from tinyplm.training.presets import SIZES, flops_per_token, learning_rate_of, parameters, preset, warmup_steps
from tinyplm.training.settings import Settings

CORPORA = st.fixed_dictionaries({"corpus_tokens": st.integers(10**5, 10**11), "vocab_size": st.integers(257, 2**17),
                                 "context": st.integers(16, 4096), "flop_per_second": st.floats(1e10, 1e15)})  # fmt: skip
HOURS = st.floats(0.05, 1000)


def test_parameters_and_flops_are_those_of_the_model():
    layers, width, vocabulary, context = 3, 128, 300, 32
    config = gpt2.Config(vocab_size=vocabulary, n_positions=context, n_embd=width, n_layer=layers, n_head=2)
    model = tinyplm.create("gpt2", config, key=0)
    small = layers * 13 * width + 2 * width + context * width  # biases, norms and positions
    assert parameters(layers, width, vocabulary) == model.parameter_count() - small
    # forward: 2 FLOPs per weight; scores and their average, 4 T D, of which causality needs half; backward twice that
    forward = 2 * (12 * layers * width**2 + vocabulary * width) + layers * 4 * context * width / 2
    assert flops_per_token(layers, width, vocabulary, context) == 3 * forward


@given(HOURS, st.floats(1, 100), CORPORA)
def test_more_hours_never_give_less_and_no_limit_is_exceeded(hours, more, corpus):
    try:
        a = preset("auto", hours=hours, **corpus)
    except ValueError as error:
        assert str(error).startswith(("hours: expected enough for a step of", "corpus_tokens: expected enough"))
        return
    b = preset("auto", hours=hours * more, **corpus)
    assert b.parameters >= a.parameters
    step = b.batch * corpus["context"] * flops_per_token(b.layers, b.width, corpus["vocab_size"], corpus["context"])
    if b.width == a.width:
        assert b.tokens + b.batch * corpus["context"] > a.tokens  # but for the rest of a step
    for found, most in ((a, hours), (b, hours * more)):
        assert found.seconds <= 0.9 * 3600 * most * (1 + 1e-12)
        assert found.tokens == found.steps * found.batch * corpus["context"] <= 4 * corpus["corpus_tokens"]
        assert found.width % found.heads == 0 and 2 <= found.layers <= max(2, found.width // 64)
        assert 0 <= found.warmup < found.steps and 1e-4 <= found.lr < 3.3e-3
        assert found.width == 64 or found.parameters <= 16.9 * corpus["corpus_tokens"] / 20
    assert b.flops == pytest.approx(b.steps * step)


@given(st.sampled_from([*SIZES]), CORPORA)
def test_a_size_sees_20_tokens_per_parameter_or_4_epochs(name, corpus):
    found = preset(name, **corpus)
    assert (found.layers, found.width, found.heads) == SIZES[name]
    most = min(20 * found.parameters, 4 * corpus["corpus_tokens"])
    assert most - found.batch * corpus["context"] < found.tokens <= most
    limit = "20 tokens per parameter" if 20 * found.parameters < 4 * corpus["corpus_tokens"] else "4 epochs"
    assert found.reasons["steps"].startswith(f"limited by {limit}")
    hours = found.seconds / 3600 / 0.9 / 2  # half of what it needs
    if found.steps > 2:
        short = preset(name, hours=hours, **corpus)
        assert short.reasons["steps"].startswith("limited by the hours") and short.tokens <= found.tokens / 2 * (1 + 1e-12)


def test_an_hour_by_hand():
    found = preset("auto", corpus_tokens=10**9, vocab_size=8192, context=256, hours=1, flop_per_second=1e11)
    budget = 0.9 * 3600 * 1e11
    needed = {w: flops_per_token(layers, w, 8192, 256) * 20 * parameters(layers, w, 8192) for layers, w in ((2, 128), (3, 192))}
    assert needed[128] < budget < needed[192] and (found.layers, found.width, found.heads) == (2, 128, 2)
    tokens = budget / flops_per_token(2, 128, 8192, 256)
    assert found.batch == max(8, int(min(0.292 * budget**0.3271, tokens / 2000) // 256))
    assert found.steps == int(tokens // (found.batch * 256))
    assert found.lr == pytest.approx(0.003239 - 0.0001395 * math.log(found.parameters), rel=0.05)


def test_rates_and_warm_up():
    assert learning_rate_of(10**6) == 1.3e-3 and learning_rate_of(10**15) == 1e-4
    assert [warmup_steps(n) for n in (1, 100, 1000, 10_000)] == [0, 10, 40, 120]
    assert warmup_steps(10**5, beta2=0.999) == 2000


@pytest.mark.parametrize("changes, line", [
    ({"size": "huge"}, "size: expected one of auto, tiny"), ({"size": (2, 64)}, r"size: expected a name, or \(layers"),
    ({"size": "auto"}, "hours: expected a number"), ({"hours": 1}, "flop_per_second: expected the measured speed"),
    ({"hours": 0, "flop_per_second": 1e9}, "hours: "),
    ({"corpus_tokens": 3}, "corpus_tokens: expected enough for a step of 512 tokens"),
    ({"hours": 1e-9, "flop_per_second": 1e9}, "hours: expected enough for a step of 512 tokens"),
])  # fmt: skip
def test_wrong_arguments(changes, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        preset(**{"size": "tiny", "corpus_tokens": 1000, "vocab_size": 300, "context": 64, **changes})


def test_the_speed_is_measured_with_the_model_that_is_proposed(monkeypatch):
    made, settings = [], Settings(batch_size=8, sequence_length=16, warmup=0)

    def make(*shape):
        made.append(shape)
        return tiny()

    # ten times as slow as the first measurement promised: the shape stays, the steps shrink
    speeds = iter([1e4, 1e3])
    monkeypatch.setattr(presets, "measured_speed", lambda model, own: next(speeds))
    facts = {"corpus_tokens": 10**8, "vocab_size": 300, "hours": 4.0}
    found = presets.propose(make, "auto", settings, **facts)
    assert made == [SIZES["small"], (found.layers, found.width, found.heads)]
    assert found.seconds == pytest.approx(found.tokens / 1e3) and 0.98 < found.seconds / (0.9 * 3600 * 4) <= 1
    with pytest.raises(ValueError, match="^hours"):
        presets.propose(make, "auto", settings, **{**facts, "hours": -1.0})
    assert len(made) == 2, "wrong arguments are refused before any work"


def test_measuring_leaves_the_model_as_it_is():
    model, settings = tiny(), Settings(batch_size=2, sequence_length=6, warmup=0)
    before = tiny().params
    assert presets.measured_speed(model, settings, steps=3) > 0
    assert equal(model.params, before)
    small = dataclasses.replace(settings, batch_size=1)
    assert np.isfinite(presets.propose(lambda *shape: tiny(), "tiny", small, corpus_tokens=500, vocab_size=20).seconds)
