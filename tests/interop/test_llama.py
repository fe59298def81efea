# ruff: noqa: E402 - imports follow importorskip
"""What is specific to LLaMA, against transformers: its settings, every RoPE scaling; the rest is in test_causal.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.interop.families import FAMILIES, ROPES
from tests.interop.pair import (
    as_torch,
    assert_same,
    assert_same_gradients,
    compare,
    float64,
    named_gradients,
    pair,
    peer,
    their_config,
)
from tests.laws import FEW, relative_error
from tinyplm.families import llama
from tinyplm.hub import folders as hub
from tinyplm.kernels.activation import ACTIVATIONS
from tinyplm.models.config import to_dict

# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": None},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {"head_dim": 6},  # narrower and wider than hidden_size / heads = 8
        {"head_dim": 14, "num_key_value_heads": 1, "attention_bias": True},
        {"head_dim": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 3.0}},  # one frequency
        {"rms_norm_eps": 0.03},
        {"rms_norm_eps": 1e-12},
        {"intermediate_size": 17},
        {"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 3, "intermediate_size": 7},
        {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 5, "vocab_size": 7},
        {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 1, "vocab_size": 7},
        {"hidden_size": 10, "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1},
        {"num_hidden_layers": 3, "num_attention_heads": 8},
        *({"hidden_act": name} for name in ACTIVATIONS if name != "silu"),
    ],
    ids=str,
)
def test_every_setting_of_the_config(tmp_path, changes):
    compare(*pair("llama", tmp_path, **changes), side="left")


@pytest.mark.usefixtures("in_float64")
def test_longer_than_the_context_is_refused(tmp_path):
    """transformers continues where the model was never trained; ours says what it expected and got."""
    theirs, ours = pair("llama", tmp_path)
    ids = np.ones((1, 13), dtype=np.int64)
    assert theirs(torch.from_numpy(ids)).logits.shape == (1, 13, 41)
    with pytest.raises(ValueError, match="expected at most 12 tokens, the context, got 13"):
        ours(ids)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("tied", [True, False])
def test_with_a_padding_token_all_gradients_but_that_of_its_row_agree(tmp_path, tied):
    """transformers drops the embedding gradient of pad_token_id wherever it occurs; ours makes no such exception.

    Where it occurs only in padding, nothing is lost (test_causal.py).  Here it is a token like any other.
    """
    theirs, ours = pair("llama", tmp_path, pad_token_id=3, tie_word_embeddings=tied)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 41, (2, 9))
    ids[0, 2], ids[1, 5] = 3, 3
    output = theirs(torch.from_numpy(ids))
    outputs, backward = ours(ids)
    assert_same("logits", outputs["logits"], output.logits.detach().numpy())
    cotangent = rng.normal(size=output.logits.shape)
    output.logits.backward(torch.from_numpy(cotangent))
    ours_by_name, expected = hub.gradients_by_hub_name(ours, backward({"logits": cotangent})), named_gradients(theirs)
    table = FAMILIES["llama"].tables[0]
    rows = np.arange(41) != 3
    ours_table, their_table = ours_by_name.pop(table), expected.pop(table)
    assert_same("the gradient of the other rows", ours_table[rows], their_table[rows])
    assert ours_table[3].any() and their_table[3].any() == tied  # when tied, theirs still has the head's part
    assert_same_gradients(ours_by_name, expected)


# ---------------------------------------------------------------------------------------------------------------- RoPE


def test_the_peer_has_frequencies_of_float64():
    """A peer built outside pair.float64 would have float32 frequencies, and no comparison could be closer than 1e-8."""
    exact = 10000.0 ** (-np.arange(0, 8, 2) / 8)
    assert relative_error(peer("llama").model.rotary_emb.inv_freq.numpy(), exact) < FEW
    assert torch.float32 is not torch.float64  # outside the context manager
    rounded = transformers.LlamaForCausalLM(their_config("llama")).double().model.rotary_emb.inv_freq.numpy()
    assert relative_error(rounded, exact) > 1e-9


def published(kind, **settings):
    """Settings of released models: heads of 128 (64 in LLaMA 3.2 1B), contexts of many thousands."""
    return llama.Config(max_position_embeddings=131072, rope_parameters={"rope_type": kind, **settings})


CONFIGS = {
    **{name: llama.Config(**{**FAMILIES["llama"].tiny, **changes}) for name, changes in ROPES.items()},
    **llama.SIZES,
    "yarn 128k": published("yarn", rope_theta=1e4, factor=32.0, original_max_position_embeddings=4096),
    "yarn of DeepSeek": published("yarn", rope_theta=1e4, factor=40, original_max_position_embeddings=4096, beta_fast=32,
                                  beta_slow=1, mscale=1.0, mscale_all_dim=1.0),
    "yarn of Qwen": published("yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=32768),
    "yarn of gpt-oss": published("yarn", rope_theta=150000, factor=32.0, original_max_position_embeddings=4096,
                                 truncate=False),
    "linear of Vicuna": published("linear", rope_theta=1e4, factor=8.0),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_frequencies(name):
    """Also the factor of cos and sin.  Dynamic scaling is at its trained context here."""
    config = CONFIGS[name]
    with float64():
        rotary = LlamaRotaryEmbedding(transformers.LlamaConfig(**to_dict(config)))
    frequencies, magnitude = config.rope.frequencies(config.head_width, 1)
    assert rotary.inv_freq.dtype == torch.float64
    assert np.max(np.abs(frequencies / rotary.inv_freq.numpy() - 1)) < 1e-13  # per frequency: far positions multiply its error
    assert abs(magnitude / rotary.attention_scaling - 1) < FEW


@pytest.mark.parametrize("length", [1, 12, 13, 29, 48])
def test_the_frequencies_of_dynamic_scaling_at_any_length(length):
    config = CONFIGS["dynamic"]
    with float64():
        rotary = LlamaRotaryEmbedding(transformers.LlamaConfig(**to_dict(config)))  # rebuilt: it remembers longer texts
        rotary(torch.zeros(1), torch.arange(length)[None])
    frequencies, _ = config.rope.frequencies(config.head_width, length)
    assert np.max(np.abs(frequencies / rotary.inv_freq.numpy() - 1)) < 1e-13


@pytest.mark.parametrize("name", list(ROPES))
def test_every_rope_scaling(tmp_path, name):
    """At the beginning of the context, with padding and without."""
    theirs, ours = pair("llama", tmp_path, **ROPES[name])
    assert ours.config.context >= 48
    for options in ({"side": "left"}, {"side": "right"}, {"T": 12}):
        compare(theirs, ours, **options)


@pytest.mark.parametrize("name", [name for name in ROPES if "dynamic" not in name])
def test_every_rope_scaling_at_far_positions(tmp_path, name):
    """Anywhere in the context, and over all of it."""
    theirs, ours = pair("llama", tmp_path, **ROPES[name])
    compare(theirs, ours, positions=np.array([[0, 47, 3, 11, 30, 7, 22], [46, 45, 1, 0, 17, 17, 33]]), B=2)
    compare(theirs, ours, B=1, T=48)


@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize(("name", "T"), [("dynamic", 13), ("dynamic", 48), ("dynamic, 1.5", 37), ("dynamic, 1.5", 54)])
def test_dynamic_scaling_beyond_the_trained_context(tmp_path, name, T, side):
    """The context is factor * max_position_embeddings.  transformers remembers longer texts, so its model is rebuilt."""
    theirs, ours = pair("llama", tmp_path, **ROPES[name])
    assert ours.config.context == {"dynamic": 48, "dynamic, 1.5": 54}[name]
    compare(theirs, ours, B=2, T=T, side=side)


@pytest.mark.parametrize("positions", [np.arange(13) + 3, np.maximum(np.arange(16) - 3, 0)], ids=["far", "padded"])
def test_dynamic_scaling_goes_by_the_largest_position(tmp_path, positions):
    """So left padding of a whole batch (the second case: 13 real tokens in 16 columns) changes nothing."""
    theirs, ours = pair("llama", tmp_path, **ROPES["dynamic"])
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 41, (1, len(positions)))
    mask = (np.arange(len(positions)) >= len(positions) - 13)[None].astype(np.int64)
    kwargs = {"attention_mask": mask, "position_ids": positions[None]}
    with float64():
        expected = theirs(torch.from_numpy(ids), **as_torch(**kwargs)).logits.detach().numpy()
    assert_same("logits", ours(ids, **kwargs)[0]["logits"][mask == 1], expected[mask == 1])


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("another base", "rope_theta"),
        ("linear", "factor"),
        ("dynamic", "factor"),
        ("dynamic", "rope_theta"),
        ("yarn", "factor"),
        ("yarn, attention_factor", "attention_factor"),
        ("yarn, mscale", "mscale"),
        ("yarn, mscale", "mscale_all_dim"),
        ("yarn, not truncated", "beta_fast"),
        ("yarn, not truncated", "beta_slow"),
        ("yarn, not truncated", "original_max_position_embeddings"),
        ("longrope, factor", "factor"),
        ("longrope, attention_factor", "attention_factor"),
        ("longrope", "original_max_position_embeddings"),
        ("llama3", "factor"),
        ("llama3", "low_freq_factor"),
        ("llama3", "high_freq_factor"),
        ("llama3", "original_max_position_embeddings"),
    ],
)
def test_a_setting_that_is_slightly_wrong_is_seen(tmp_path, name, setting):
    """Shows that the comparisons can fail and that each of these settings has an effect."""
    theirs, ours = pair("llama", tmp_path, **ROPES[name])
    right = ours.config.rope_parameters
    wrong = right[setting] + (1 if setting.startswith("original") else 1e-4)
    ours.config = dataclasses.replace(ours.config, rope_parameters={**right, setting: wrong})
    with pytest.raises(AssertionError, match="logits differs"):
        compare(theirs, ours, B=1, T=20)
