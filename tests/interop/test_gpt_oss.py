# ruff: noqa: E402 - imports follow importorskip
"""What is specific to gpt-oss, against transformers: windows, sinks and generation beyond them, MXFP4, the released files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.families.test_gpt_oss import QUANTIZED, mxfp4_folder
from tests.interop.families import FAMILIES
from tests.interop.pair import EAGER, assert_same, compare, exact_logits, pair, peer
from tinyplm.families import gpt_oss
from tinyplm.generation import generate
from tinyplm.models.config import from_dict, to_dict

exact = pytest.mark.usefixtures("in_float64")


@exact
@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("window", [1, 2, 7, 12])
def test_every_window(tmp_path, window, side):
    """Sequences of 7 and 12: shorter than, as long as, and longer than the window of the lower layer."""
    theirs, ours = pair("gpt_oss", tmp_path, sliding_window=window, max_position_embeddings=16)
    for options in ({"T": 7}, {"B": 1, "T": 12}):
        compare(theirs, ours, **options, side=side)


@exact
@pytest.mark.parametrize(
    "changes",
    [
        {"layer_types": ["full_attention", "sliding_attention"], "attention_bias": False},
        {"num_key_value_heads": 4, "head_dim": 14, "rms_norm_eps": 0.03},
        {"num_local_experts": 5, "num_experts_per_tok": 4, "num_hidden_layers": 3, "tie_word_embeddings": True},
        {"num_experts_per_tok": 3, "num_local_experts": 6, "swiglu_alpha": 0.5, "swiglu_limit": 0.1},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 20.0}},
        {"rope_parameters": None, "max_position_embeddings": 12},
    ],
    ids=str,
)
def test_every_setting_of_the_config(tmp_path, changes):
    compare(*pair("gpt_oss", tmp_path, **changes), side="left")


@exact
def test_longer_than_a_block_of_queries(tmp_path):
    theirs, ours = pair("gpt_oss", tmp_path, sliding_window=140, max_position_embeddings=300)
    compare(theirs, ours, B=2, T=270, side="left")


@exact
@pytest.mark.parametrize("wrong", [{"sliding_window": 4}, {"swiglu_limit": 7.0}, {"swiglu_alpha": 1.5}])
def test_another_setting_is_seen(tmp_path, wrong):
    theirs, ours = pair("gpt_oss", tmp_path)
    ours.config = dataclasses.replace(ours.config, **wrong)
    with pytest.raises(AssertionError, match="logits differs"):
        compare(theirs, ours)


@exact
@pytest.mark.parametrize("factor", [0.0, 3.0])
def test_sinks_of_every_size(tmp_path, factor):
    """Of zeros, as in "softmax off by one", and so large that much of the attention goes there."""
    theirs = peer("gpt_oss")
    with torch.no_grad():
        for layer in theirs.model.layers:
            layer.self_attn.sinks.mul_(factor * 5)
    theirs.save_pretrained(tmp_path)
    compare(theirs, tinyplm.load(tmp_path), side="right")


@exact
@pytest.mark.parametrize("prompts", [[[3, 9, 5]], [[3, 9, 5, 1, 7, 2], [8]]])
def test_greedy_generation_beyond_the_window(tmp_path, prompts):
    """40 new tokens with a window of 3, in a rolling cache; prompts of one batch are padded on the left."""
    theirs, ours = pair("gpt_oss", tmp_path, max_position_embeddings=64)
    T = max(map(len, prompts))
    ids = torch.tensor([[0] * (T - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (T - len(p)) + [1] * len(p) for p in prompts])
    options = {"do_sample": False, "max_new_tokens": 40, "pad_token_id": 0, "eos_token_id": None}
    expected = theirs.generate(ids, attention_mask=mask, **options)[:, T:].tolist()
    found = generate(ours, prompts, temperature=0, max_new_tokens=40)
    assert [f.ids for f in found] == expected
    assert [f.ids for f in generate(ours.for_decoding(), prompts, temperature=0, max_new_tokens=40)] == expected


# ------------------------------------------------------------------------------------------------------------------ files


@exact
def test_a_folder_in_mxfp4_as_transformers_reads_it(tmp_path):
    """Dequantised by both; transformers also reads what we write of it."""
    mxfp4_folder(tmp_path / "published")
    dequantised = transformers.Mxfp4Config(dequantize=True)
    theirs = transformers.GptOssForCausalLM.from_pretrained(
        tmp_path / "published", quantization_config=dequantised, dtype=torch.bfloat16, **EAGER
    ).eval()
    ours, ids = tinyplm.load(tmp_path / "published"), np.random.default_rng(0).integers(0, 11, (2, 9))
    tinyplm.save(ours, tmp_path / "ours")
    written = transformers.GptOssForCausalLM.from_pretrained(tmp_path / "ours", **EAGER).eval()
    assert written.dtype == torch.bfloat16
    expected = dict(theirs.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in written.named_parameters())
    logits = ours.astype("float64")(ids)[0]["logits"]
    for model in (theirs, written):
        model.config.quantization_config = None
        assert_same("logits", logits, exact_logits(model, ids))


RELEASED = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_key_value_heads": 8,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "rms_norm_eps": 1e-05,
    "rope_scaling": gpt_oss.YARN,
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": "4.55.0.dev0",
    "use_cache": True,
    "vocab_size": 201088,
}


@pytest.mark.parametrize(("size", "layers", "experts"), [("gpt-oss-20b", 24, 32), ("gpt-oss-120b", 36, 128)])
def test_the_released_config(tmp_path, size, layers, experts):
    """Read as transformers reads it, equal to our size, and written as it was, without its quantization."""
    kinds = ["sliding_attention", "full_attention"] * (layers // 2)
    own = {"layer_types": kinds, "num_hidden_layers": layers, "num_local_experts": experts}
    source = {**RELEASED, **own, "quantization_config": QUANTIZED}
    (tmp_path / "config.json").write_text(json.dumps(source))
    theirs, ours = transformers.AutoConfig.from_pretrained(tmp_path), from_dict(gpt_oss.Config, source)
    assert to_dict(ours) == {**RELEASED, **own}
    named = [field.name for field in dataclasses.fields(ours) if field.name not in ("source", "rope_parameters", *ours.OLD)]
    assert {name: getattr(ours, name) for name in named} == {name: getattr(theirs, name) for name in named}
    assert {**ours.rope.settings, "rope_type": ours.rope.type, "rope_theta": ours.rope.base} == theirs.rope_parameters
    size = gpt_oss.SIZES[size]
    assert {name: getattr(ours, name) for name in named} == {name: getattr(size, name) for name in named}
    assert size.rope == ours.rope and [size.window_of(i) for i in range(layers)] == [ours.window_of(i) for i in range(layers)]


def test_the_defaults_are_those_of_transformers():
    theirs, ours = transformers.GptOssConfig().to_dict(), to_dict(gpt_oss.Config())
    assert ours.pop("rope_parameters", None) is None and ours.pop("layer_types", None) is None
    assert {name: theirs[name] for name in ours} == ours
    assert FAMILIES["gpt_oss"].module is gpt_oss
