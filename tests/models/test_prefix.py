"""A prefix that all queries see (prefix_lengths), in every decoder without windows: query t sees key s if s <= t or s < P.

What is hidden has exactly no influence and no gradient, blocks equal the plain form, a cache continues after the prefix.
"""

from __future__ import annotations

import re
from functools import partial
from unittest import mock

import numpy as np
import pytest

import tinyplm
from reference.objectives.infilling import visible
from tests.laws import MODEL, PART, leaves, relative_error
from tests.models.test_causal_lm import assert_gradients
from tests.support.families import FAMILIES, KINDS, batch, tiny
from tinyplm.backend import to_device, to_host
from tinyplm.families import family as family_of
from tinyplm.families import gpt2
from tinyplm.kernels import attention as attention_module
from tinyplm.kernels.block_attention import block_attention


def windowed(name):
    window = FAMILIES[name].module.pieces(FAMILIES[name].config).window
    return any(window(i) is not None for i in range(2))


WITHOUT = [name for name in FAMILIES if not windowed(name)]
each_family = pytest.mark.parametrize("family", WITHOUT)
each_kind = pytest.mark.parametrize("family", [name for name in WITHOUT if name in KINDS])
PREFIX = np.array([3, 0, 5])


def embeds(model, T=5, seed=0):
    return np.random.default_rng(seed).normal(size=(3, T, width(model)))


def width(model):
    return model.params["body"]["tokens"].shape[1]


@each_family
def test_a_token_sees_the_prefix_and_what_precedes_it(family):
    """One layer: hidden state t changes with embedding s exactly where the formula says so, else not by a bit; likewise the
    gradient, which is exactly 0 where nothing is seen."""
    model = tiny(family, **one_layer(family))
    x = embeds(model)
    base = model(inputs_embeds=x, prefix_lengths=PREFIX)[0]["hidden"]
    seen = np.array([visible(5, int(P)) for P in PREFIX])
    for s in range(5):
        moved = x.copy()
        moved[:, s] += np.random.default_rng(9).normal(size=width(model))
        changed = (model(inputs_embeds=moved, prefix_lengths=PREFIX, grad=False)[0]["hidden"] != base).any(axis=2)
        assert np.array_equal(changed, seen[:, :, s])
    for t in range(5):
        outputs, backward = model(inputs_embeds=x, prefix_lengths=PREFIX)
        dhidden = np.zeros_like(outputs["hidden"])
        dhidden[:, t] = np.random.default_rng(t).normal(size=width(model))
        _, dx = backward({"hidden": dhidden})
        assert np.array_equal((dx != 0).any(axis=2), seen[:, t])


def one_layer(name):
    config = FAMILIES[name].config
    return {config.ALIASES.get("num_hidden_layers", "num_hidden_layers"): 1}


@each_kind
def test_every_gradient_with_a_prefix(device, family):
    ids, targets = batch()
    assert_gradients(tiny(family, device=device), input_ids=ids, targets={"logits": targets}, prefix_lengths=PREFIX)


@each_family
def test_no_prefix_is_the_causal_mask(family):
    model, ids = tiny(family), batch()[0]
    found = model(ids, prefix_lengths=np.zeros(3, int), grad=False)[0]["logits"]
    assert np.array_equal(found, model(ids, grad=False)[0]["logits"])


@each_kind
@pytest.mark.parametrize("block", [1, 2, 4])
def test_blocks_equal_the_plain_form(device, family, block, monkeypatch):
    """With padding in the middle, after a shorter prefix: the same logits and gradients."""
    model, T = tiny(family, device=device), 6
    ids = np.random.default_rng(0).integers(0, 11, (3, T))
    real = np.ones((3, T), int)
    real[0, 2] = real[2, 4:] = 0
    results = {}
    for name, size in (("plain", 100), ("blocks", 0)):
        monkeypatch.setattr(attention_module, "BLOCK", size)
        spy = mock.Mock(side_effect=partial(block_attention, block=block))
        monkeypatch.setattr(attention_module, "block_attention", spy)
        outputs, back = model(ids, prefix_lengths=PREFIX, attention_mask=real)
        assert bool(spy.call_count) == (name == "blocks")
        logits = to_host(outputs["logits"]) * real[:, :, None]
        dlogits = np.random.default_rng(1).normal(size=logits.shape) * real[:, :, None]
        results[name] = [logits, to_host(back({"logits": to_device(dlogits, device)}))]
    (logits, gradient), (expected, expected_gradient) = results["blocks"], results["plain"]
    assert relative_error(logits, expected) < PART
    size = max(float(np.max(np.abs(a))) for a in leaves(expected_gradient))
    assert all(np.max(np.abs(a - b)) < PART * size for a, b in zip(leaves(gradient), leaves(expected_gradient), strict=True))


@each_family
@pytest.mark.parametrize("chunk", [1, 2])
def test_a_cache_continues_after_the_prefix(family, chunk):
    """Two prefixes of 3, the second with padding on the left, then the rest: as the uncached pass."""
    model, ids = tiny(family), batch()[0][:2]
    real = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    whole = model(ids, attention_mask=real, position_ids=positions, prefix_lengths=[3, 3], grad=False)[0]["logits"]
    cache = model.empty_cache(2, 5)
    for start, stop in [(0, 3), *((t, t + chunk) for t in range(3, 5, chunk))]:
        own = {"attention_mask": real[:, :stop], "position_ids": positions[:, start:stop], "cache": cache}
        outputs, _ = model(ids[:, start:stop], prefix_lengths=None if start else [3, 3], **own, grad=False)
        cache = outputs["cache"]
        seen = real[:, start:stop].astype(bool)
        assert relative_error(outputs["logits"][seen], whole[:, start:stop][seen]) < MODEL


@each_family
def test_padding_and_what_follows_the_prefix_change_nothing_within_it(family):
    model = tiny(family)
    x = embeds(model)
    real = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 0, 1], [1, 1, 0, 1, 1]])
    base = model(inputs_embeds=x, attention_mask=real, prefix_lengths=PREFIX, grad=False)[0]["hidden"]
    moved = np.where(real[:, :, None] == 1, x, 7.0)
    found = model(inputs_embeds=moved, attention_mask=real, prefix_lengths=PREFIX, grad=False)[0]["hidden"]
    assert np.array_equal(found[real == 1], base[real == 1])
    later = x.copy()
    later[0, 3:] = 9.0
    found = model(inputs_embeds=later, attention_mask=real, prefix_lengths=PREFIX, grad=False)[0]["hidden"]
    assert np.array_equal(found[0, [0, 2]], base[0, [0, 2]])


def test_the_textbook_and_the_walk_agree():
    model, ids = tiny("gpt2"), batch()[0]
    own = {"config": model.config, "input_ids": ids, "prefix_lengths": PREFIX}
    (textbook, back), (walk, walk_back) = (f(model.params["body"], **own) for f in (gpt2.body, gpt2.walk))
    assert np.array_equal(textbook, walk)
    d = np.random.default_rng(0).normal(size=walk.shape)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(back(d)[0]), leaves(walk_back(d)[0]), strict=True))


# ---- bad input


@pytest.mark.parametrize("family", [name for name in FAMILIES if windowed(name)])
def test_windows_are_refused(family):
    with pytest.raises(ValueError, match="prefix_lengths: expected None for a model with sliding windows, got"):
        tiny(family)(batch()[0], prefix_lengths=PREFIX)


def test_a_filled_cache_is_refused():
    model, ids = tiny("gpt2"), batch()[0]
    cache = model(ids[:, :2], cache=model.empty_cache(3), prefix_lengths=[2, 1, 0])[0]["cache"]
    with pytest.raises(ValueError, match="prefix_lengths: expected None after the first call with a cache"):
        model(ids[:, 2:], cache=cache, prefix_lengths=PREFIX)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2], "prefix_lengths: expected shape (3,), got (2,)"),
        ([[1], [2], [3]], "prefix_lengths: expected shape (3,), got (3, 1)"),
        ([1, 2, 6], "prefix_lengths: expected integers from 0 to 5, got 6"),
        ([1, 2, -1], "prefix_lengths: expected integers from 0 to 5, got -1"),
        ("abc", "prefix_lengths: expected integers, got 'abc'"),
    ],
)
def test_wrong_lengths_are_refused_in_one_line(lengths, message):
    for call in (tiny("llama"), lambda ids, **own: tiny("llama").loss(input_ids=ids, targets={"logits": ids}, **own)):
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            call(batch()[0], prefix_lengths=lengths)
        assert "\n" not in str(error.value)


def test_token_outputs_see_the_prefix():
    """The loss is their negative weighted sum, and so is its gradient."""
    model, (ids, _) = tiny("gpt2"), batch()[:2]
    rng = np.random.default_rng(4)
    targets, weights = rng.integers(0, 11, ids.shape), rng.uniform(0.5, 2, ids.shape)
    P = np.array([3, 1, 0, 2])[: len(ids)]
    outputs, back = model.token_outputs(ids, targets=targets, prefix_lengths=P)
    options = {"total": {"logits": 1}, "weights": weights, "prefix_lengths": P}
    loss, loss_back = model.loss(targets={"logits": targets}, input_ids=ids, **options)
    assert abs((weights * outputs["log_probs"]).sum() + loss) < MODEL * loss
    assert not np.allclose(outputs["log_probs"], model.token_outputs(ids, targets=targets)[0]["log_probs"])
    assert relative_error(back({"log_probs": -weights}), loss_back(1.0)) < MODEL


def test_models_that_score_take_no_prefix():
    model = tinyplm.create("gpt2", FAMILIES["gpt2"].config, task="sequence_classification", dtype="float64")
    with pytest.raises(TypeError, match="prefix_lengths"):
        model(batch()[0], prefix_lengths=PREFIX)
    with pytest.raises((TypeError, ValueError), match="prefix_lengths"):
        model.loss(input_ids=batch()[0], targets={"logits": np.zeros(3, int)}, prefix_lengths=PREFIX)


def test_every_family_is_one_or_the_other():
    assert len(WITHOUT) > 10 and {family_of(name) for name in WITHOUT} <= {row.module for row in FAMILIES.values()}
