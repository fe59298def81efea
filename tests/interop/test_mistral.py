# ruff: noqa: E402 - imports follow importorskip
"""What is specific to Mistral, against transformers: windows, counts; the rest is in test_causal.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.families import FAMILIES
from tests.interop.pair import compare, float64, pair
from tests.interop.test_causal_files import random_model, read, settings_in
from tinyplm.families import mistral
from tinyplm.generation import generate
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import to_dict

LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("window", [1, 2, 6, 7, 8, 11, 12, 13, None])
def test_every_window(tmp_path, window, side):
    """Sequences of 7 and 12: shorter than, as long as, and longer than the window."""
    theirs, ours = pair("mistral", tmp_path, sliding_window=window, max_position_embeddings=16)
    compare_or_see_no_gradient(theirs, ours, window, T=7, side=side)
    compare_or_see_no_gradient(theirs, ours, window, B=1, T=12, side=side)


def compare_or_see_no_gradient(theirs, ours, window, **options):
    """With a window of 1 the exact gradient of queries and keys is zero, which `compare` rejects."""
    if window != 1:
        compare(theirs, ours, **options)
    else:
        with pytest.raises(AssertionError, match="[qk]_proj.weight: a zero gradient proves nothing"):
            compare(theirs, ours, **options)


@pytest.mark.usefixtures("in_float64")
def test_a_window_longer_than_a_block_of_queries(tmp_path):
    theirs, ours = pair("mistral", tmp_path, sliding_window=140, max_position_embeddings=300)
    compare(theirs, ours, B=2, T=270, side="left")


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_border_that_is_one_off_is_seen(tmp_path, wrong):
    theirs, ours = pair("mistral", tmp_path, sliding_window=4)
    ours.config = dataclasses.replace(ours.config, sliding_window=4 + wrong)
    with pytest.raises(AssertionError, match="logits differs"):
        compare(theirs, ours)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": 14, "num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"rms_norm_eps": 0.03, "hidden_act": "gelu"},
        {"num_hidden_layers": 3, "tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.0}},
        {
            "head_dim": 8,
            "rope_parameters": {
                **{
                    "rope_type": "llama3",
                    "rope_theta": 50.0,
                    "original_max_position_embeddings": 8,
                },
                **LLAMA3,
            },
        },
    ],
    ids=str,
)
def test_every_setting_of_the_config(tmp_path, changes):
    compare(*pair("mistral", tmp_path, **changes), side="left")


@pytest.mark.usefixtures("in_float64")
def test_generation_with_a_window_of_1(tmp_path):
    """transformers runs without its cache, whose sliding layers keep everything when the window is 1."""
    theirs, ours = pair("mistral", tmp_path, sliding_window=1, max_position_embeddings=40)
    prompt = [[3, 9, 5]]
    options = {"do_sample": False, "max_new_tokens": 30, "pad_token_id": 0, "use_cache": False}
    expected = theirs.generate(torch.tensor(prompt), **options)[0, 3:].tolist()
    found = generate(ours, prompt, temperature=0, max_new_tokens=30)
    assert found[0].ids == expected


@pytest.mark.parametrize("window", [None, 5])
def test_folders_both_ways(tmp_path, window):
    """transformers reads our folder with the same window, and we read what it writes."""
    ours = random_model("mistral", sliding_window=window)
    tinyplm.save(ours, tmp_path / "ours")
    theirs = read("mistral", tmp_path / "ours")
    assert theirs.config.sliding_window == window
    theirs.save_pretrained(tmp_path / "theirs")
    again = tinyplm.load(tmp_path / "theirs")
    assert again.config.sliding_window == window
    assert settings_in(tmp_path / "theirs")["sliding_window"] == window
    ids = np.random.default_rng(0).integers(0, 41, (2, 12))
    assert np.array_equal(again(ids)[0]["logits"], ours(ids)[0]["logits"])


@pytest.mark.parametrize("size", mistral.SIZES)
def test_the_counts_are_those_of_transformers(size):
    config = mistral.SIZES[size]
    with torch.device("meta"):
        theirs = FAMILIES["mistral"].lm(transformers.MistralConfig(**to_dict(config)))
    assert count_parameters(mistral.shapes(config)) == theirs.num_parameters()


def test_the_defaults_are_those_of_transformers():
    """transformers fills in head_dim; RoPE's settings are empty in ours."""
    with float64():
        theirs = transformers.MistralConfig().to_dict()
    ours = to_dict(mistral.Config())
    assert ours.pop("head_dim") is None and theirs["head_dim"] == mistral.Config().head_width
    assert ours.pop("rope_parameters") is None
    assert theirs["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert {name: theirs[name] for name in ours} == ours
