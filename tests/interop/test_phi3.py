# ruff: noqa: E402 - imports follow importorskip
"""Phi-3 with LongRoPE against transformers: below and beyond the original context, files, generation, the cache."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.families import FAMILIES
from tests.interop.pair import as_torch, assert_same, compare, float64, in_float64, pair
from tests.interop.test_causal_files import settings_in
from tests.interop.test_generation import our_greedy, their_greedy
from tinyplm.models.rope import Rope

pytestmark = pytest.mark.usefixtures("in_float64")

ORIGINAL = 12
LISTS = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.0, 2.0, 4.5, 7.5]}
SCALING = {"rope_type": "longrope", "rope_theta": 100.0, **LISTS}
LONG = {"max_position_embeddings": 48, "original_max_position_embeddings": ORIGINAL, "sliding_window": None}
KINDS = {
    "longrope": {"rope_parameters": SCALING},
    "factor": {"rope_parameters": {**SCALING, "factor": 2.5}},
    "attention_factor": {"rope_parameters": {**SCALING, "attention_factor": 0.8}},
    "window": {"rope_parameters": SCALING, "sliding_window": 5},
    "half turned": {"rope_parameters": {**SCALING, "partial_rotary_factor": 0.5,
                                        **{name: factors[:2] for name, factors in LISTS.items()}}},
}  # fmt: skip


@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("T", [1, ORIGINAL, ORIGINAL + 1, 48])
@pytest.mark.parametrize("kind", KINDS)
def test_within_and_beyond_the_original_context(tmp_path, kind, T, side):
    """Outputs, loss and all gradients."""
    theirs, ours = pair("phi3", tmp_path, **{**LONG, **KINDS[kind]})
    assert ours.config.rope.type == "longrope" and (ours.config.context, ours.config.cache_context) == (48, ORIGINAL)
    compare(theirs, ours, B=2, T=T, side=side)


@pytest.mark.parametrize("farthest", [ORIGINAL - 1, ORIGINAL])
def test_the_largest_position_of_the_batch_decides(tmp_path, farthest):
    theirs, ours = pair("phi3", tmp_path, **LONG, **KINDS["longrope"])
    compare(theirs, ours, positions=np.array([[0, 3, 1, 7, 2, 5, 4], [0, 2, farthest, 1, 6, 6, 9]]), B=2)


def test_a_long_text_does_not_change_a_later_short_one(tmp_path):
    theirs, ours = pair("phi3", tmp_path, **LONG, **KINDS["longrope"])
    for T in (20, 5, 13, 12):
        compare(theirs, ours, B=1, T=T)


@pytest.mark.parametrize("name", list(LISTS))
def test_a_wrong_factor_is_seen_on_its_side_of_the_original_context(tmp_path, name):
    """Shows that the comparisons can fail: a factor of one list changes short texts only, one of the other long ones only."""
    theirs, ours = pair("phi3", tmp_path, **LONG, **KINDS["longrope"])
    right = ours.config.rope_parameters
    wrong = {**right, name: [1.0, 1.1 * right[name][1], *right[name][2:]]}
    ours.config = dataclasses.replace(ours.config, rope_parameters=wrong)
    wrong_T, right_T = (ORIGINAL, ORIGINAL + 1) if name == "short_factor" else (ORIGINAL + 1, ORIGINAL)
    compare(theirs, ours, B=1, T=right_T)
    with pytest.raises(AssertionError):
        compare(theirs, ours, B=1, T=wrong_T)


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 100.0, "rope_scaling": {"type": "longrope", **LISTS}},
        {"rope_theta": 100.0, "rope_scaling": {"rope_type": "longrope", **LISTS, "original_max_position_embeddings": 30}},
        {"rope_theta": 100, "rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 2], "long_factor": [1, 2, 3, 4]}},
    ],
    ids=str,
)
def test_a_config_in_an_older_spelling_is_read_alike_and_written_back(tmp_path, spelling):
    """The config's own original_max_position_embeddings comes before that of rope_scaling."""
    source = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], **FAMILIES["phi3"].tiny, **LONG, **spelling}
    ours = tinyplm.create("phi3", source, key=3, dtype="float64")
    tinyplm.save(ours, tmp_path)
    assert settings_in(tmp_path) == source
    with float64():
        theirs = in_float64(transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager"))
    for T in (ORIGINAL, ORIGINAL + 1):
        compare(theirs, tinyplm.load(tmp_path), B=2, T=T)


def test_greedy_ids_from_within_the_original_context_to_beyond_it(tmp_path):
    """There transformers drops its cache and fills it again with the long factors, once; we recompute each token's text."""
    theirs, ours = pair("phi3", tmp_path, **LONG, **KINDS["longrope"], tie_word_embeddings=False, seed=1)
    for n in (3, 11, 12, 20):
        prompt = np.random.default_rng(n).integers(0, 41, n).tolist()
        ids = their_greedy(in_float64(theirs), [prompt], 20)[0]
        assert our_greedy(ours, prompt, 20)[0] == ids and len(set(ids)) >= 4


def test_a_cache_of_short_factors_is_not_continued_beyond_the_original_context(tmp_path):
    _, ours = pair("phi3", tmp_path, **LONG, **KINDS["longrope"])
    ids = np.arange(ORIGINAL + 1)[None]
    cache = ours(ids[:, :ORIGINAL], cache=ours.empty_cache(1), grad=False)[0]["cache"]
    with pytest.raises(ValueError, match="^cache: expected .* 12 tokens, got 1 of 13"):
        ours(ids[:, ORIGINAL:], cache=cache)
    with pytest.raises(ValueError, match="capacity: expected an integer from 1 to 12, got 13"):
        ours.empty_cache(1, ORIGINAL + 1)
    larger = ours(ids[:, :ORIGINAL], cache=ours.empty_cache(1).grown(48), grad=False)[0]["cache"]
    with pytest.raises(ValueError, match="cache: expected at most 12 tokens in all, got 13"):
        ours(ids[:, ORIGINAL:], cache=larger)


@pytest.mark.parametrize("length", [1, ORIGINAL, ORIGINAL + 1, 48])
def test_frequencies_and_magnitude(tmp_path, length):
    theirs, ours = pair("phi3", tmp_path, **LONG, **KINDS["longrope"])
    rotary = theirs.model.rotary_emb
    rotary(torch.zeros(1), **as_torch(position_ids=np.arange(length)[None]))
    assert isinstance(ours.config.rope, Rope)
    frequencies, magnitude = ours.config.rope.frequencies(8, length)
    assert_same("frequencies", frequencies, rotary.inv_freq.numpy())
    assert magnitude == rotary.attention_scaling
