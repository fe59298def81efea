"""gpt-oss's own: published counts, sinks and clamped experts by the formulas, windows, RoPE's spellings, MXFP4 in a folder."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import pytest

import reference.layers.moe as ref_moe
import tinyplm
from tests.support import families
from tests.support.decoder_formulas import assert_formula, rms, turn
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.core import flatten
from tinyplm.families import gpt_oss
from tinyplm.hub.mxfp4 import dequantised
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import from_dict, to_dict

Config = gpt_oss.Config


def test_published_sizes_have_the_published_counts():
    """Table 1 of the model card: 20.91 and 116.83 billion in all; active 3.61 and 5.13, without the look-up of tokens."""
    assert_counts(gpt_oss, {"gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672})
    active = {}
    for size, c in gpt_oss.SIZES.items():
        chosen = gpt_oss.shapes(dataclasses.replace(c, num_local_experts=c.num_experts_per_tok))
        routers = c.num_hidden_layers * (c.num_local_experts - c.num_experts_per_tok) * (c.hidden_size + 1)
        active[size] = count_parameters(chosen) + routers - c.vocab_size * c.hidden_size
    assert {size: round(n / 1e7) for size, n in active.items()} == {"gpt-oss-20b": 361, "gpt-oss-120b": 513}


@pytest.mark.parametrize(
    ("changes", "windows", "top_k"),
    [
        ({}, [2, None], 2),
        ({"layer_types": ["full_attention", "sliding_attention"], "num_key_value_heads": 4}, [None, 2], 2),
        ({"num_experts_per_tok": 1, "tie_word_embeddings": True, "attention_bias": False}, [2, None], 1),
        ({"swiglu_alpha": 0.7, "swiglu_limit": 0.2, "num_experts_per_tok": 4}, [2, None], 4),
    ],
)
def test_the_whole_model_equals_the_formulas(changes, windows, top_k):
    model = families.tiny("gpt_oss", **changes)
    expert = partial(ref_moe.clamped_gated_mlp, alpha=changes.get("swiglu_alpha", 1.702), limit=changes.get("swiglu_limit", 0.5))
    choose = partial(ref_moe.top_experts, top_k=top_k)
    weigh = partial(ref_moe.softmax_weights, renormalised=True)

    def mlp(p, x):
        return ref_moe.moe(p, x, choose=choose, weigh=weigh, expert=expert)[:, : x.shape[1]]

    assert_formula(
        model, batch()[0], families.PADDING, norm=partial(rms, eps=1e-5), heads=(4, model.config.kv_heads), mlp=mlp,
        attention=lambda layer: {"window": windows[layer], "turn": turn(10.0)},
    )  # fmt: skip


def test_the_clamp_of_the_tiny_model_is_within_reach():
    """Otherwise the test above, and those of the gradients, would not see it."""
    ids, _ = batch()
    logits = [families.tiny("gpt_oss", swiglu_limit=limit)(ids)[0]["logits"] for limit in (0.5, 7.0)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_layers_with_a_window_alternate_with_full_ones():
    config = gpt_oss.SIZES["gpt-oss-20b"]
    assert [config.window_of(i) for i in range(4)] == [128, None, 128, None]
    named = dataclasses.replace(config, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"])
    assert [named.window_of(i) for i in range(2)] == [None, 128]


def test_initial_values():
    """N(0, initializer_range^2) for sinks and the biases of the routers, too; other biases are 0."""
    model = tinyplm.create("gpt_oss", dataclasses.replace(families.FAMILIES["gpt_oss"].config, num_local_experts=200), key=1)
    layer = model.params["body"]["layers"][0]
    b = layer["mlp"]["router"]["b"]
    assert 0.8 < b.std() / model.config.initializer_range < 1.2 and layer["attention"]["sinks"].all()
    assert not layer["attention"]["bq"].any() and not layer["mlp"]["experts"]["bgate"].any()


def test_for_decoding_keeps_the_sinks():
    model = families.tiny("gpt_oss")
    fast, ids = model.for_decoding(), batch()[0]
    assert all(np.array_equal(a["attention"]["sinks"], b["attention"]["sinks"])
               for a, b in zip(fast.params["body"]["layers"], model.params["body"]["layers"]))  # fmt: skip
    assert "Wqkv" in fast.params["body"]["layers"][0]["attention"]
    assert np.allclose(fast(ids)[0]["logits"], model(ids)[0]["logits"], rtol=0, atol=1e-12)


YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}
LINEAR = {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("settings", "kind", "base", "others"),
    [
        ({}, "yarn", 150000.0, YARN),
        ({"rope_theta": 20.0, "rope_scaling": None}, "yarn", 20.0, YARN),
        ({"rope_theta": 150000, "rope_scaling": {"rope_type": "yarn", **YARN}}, "yarn", 150000.0, YARN),
        ({"rope_scaling": LINEAR}, "linear", 150000.0, {"factor": 2.0}),
        ({"rope_parameters": {**LINEAR, "rope_theta": 7.0}}, "linear", 7.0, {"factor": 2.0}),
        ({"rope_parameters": {"rope_type": "default"}}, "default", 150000.0, {}),
    ],
)
def test_rope_in_each_spelling(settings, kind, base, others):
    """A file without its type of RoPE has YaRN, as in transformers; reading and writing is the identity."""
    source = {"model_type": "gpt_oss", **settings}
    config = from_dict(Config, source)
    assert (config.rope.type, config.rope.base, config.rope.settings) == (kind, base, others)
    assert to_dict(config) == source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": None}, "sliding_window: expected a positive integer without layer_types, got None"),
        ({"sliding_window": 0}, "sliding_window: expected a positive integer, got 0"),
        ({"layer_types": ["full_attention"]}, "layer_types: expected 36 of full_attention and sliding_attention, got"),
        ({"num_experts_per_tok": 129}, "num_experts_per_tok: expected at most num_local_experts = 128, got 129"),
        ({"num_local_experts": 0}, "num_local_experts: expected a positive integer, got 0"),
        ({"swiglu_limit": 0.0}, "swiglu_limit: expected a number > 0, got 0.0"),
        ({"swiglu_alpha": float("nan")}, "swiglu_alpha: expected a finite number, got nan"),
        ({"router_aux_loss_coef": -1.0}, "router_aux_loss_coef: expected a finite number >= 0, got -1.0"),
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu' for gpt_oss, got 'gelu'"),
        ({"rope_theta": 3.0, "rope_parameters": {"rope_type": "default", "rope_theta": 2.0}}, "rope_theta: expected 2.0, as in"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(Config, changes, message)


# -------------------------------------------------------------------------------------------------------------- MXFP4

QUANTIZED = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}


def mxfp4_folder(folder, **settings):
    """A folder as published: the experts' matrices in MXFP4, all else in bfloat16.  Returns the matrices, by their hub names."""
    model = tinyplm.create(
        "gpt_oss", vocab_size=11, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, num_local_experts=3, num_experts_per_tok=2, sliding_window=3, key=1,
    )  # fmt: skip
    tinyplm.save(model, folder, dtype="BF16")
    rng = np.random.default_rng(0)
    sizes = {"gate_up_proj": (3, 64, 2), "down_proj": (3, 64, 1)}
    tensors, matrices = {}, {}
    path = folder / "model.safetensors"
    stored = {name: np.asarray(a) for name, a in tinyplm.hub.tensors.open_safetensors(path).items()}
    for name, a in stored.items():
        kind = name.rsplit(".", 1)[-1]
        if kind not in sizes:
            tensors[name] = a
            continue
        blocks = rng.integers(0, 256, (*sizes[kind], 16), dtype=np.uint8)
        scales = rng.integers(118, 124, sizes[kind], dtype=np.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        matrices[name] = dequantised(blocks, scales)
    tinyplm.hub.tensors.write_safetensors(path, tensors, {n: "BF16" for n, a in tensors.items() if a.dtype == np.float32})
    written = json.loads((folder / "config.json").read_text()) | {"quantization_config": QUANTIZED, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(written | settings))
    return matrices


def test_a_folder_in_mxfp4(tmp_path):
    """Read as the numbers it holds; written without quantization, in bfloat16, which holds them exactly."""
    matrices = mxfp4_folder(tmp_path / "published")
    model = tinyplm.load(tmp_path / "published")
    assert model.dtype == np.float32 and set(model.file_dtypes.values()) == {"BF16"}
    for i in range(2):
        experts = model.params["body"]["layers"][i]["mlp"]["experts"]
        both = matrices[f"model.layers.{i}.mlp.experts.gate_up_proj"]
        assert np.array_equal(experts["Wgate"], both[..., 0::2]) and np.array_equal(experts["Wup"], both[..., 1::2])
        assert np.array_equal(experts["Wdown"], matrices[f"model.layers.{i}.mlp.experts.down_proj"])
    tinyplm.save(model, tmp_path / "ours")
    settings = json.loads((tmp_path / "ours/config.json").read_text())
    published = json.loads((tmp_path / "published/config.json").read_text())
    assert published.pop("quantization_config") == QUANTIZED and settings == published
    again = tinyplm.load(tmp_path / "ours")
    theirs = flatten(again.params)
    assert all(np.array_equal(a, theirs[path]) for path, a in flatten(model.params).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "expected a model without quantization, or quant_method mxfp4, got"),
        ({"quantization_config": {"bits": 4}}, "expected a model without quantization, or quant_method mxfp4, got"),
        ({"quantization_config": None}, "missing tensors: model.layers.0.mlp.experts.gate_up_proj"),
        ({"num_local_experts": 4}, "model.layers.0.mlp.experts.gate_up_proj: expected shape (4, 64, 64), got (3, 64, 64)"),
    ],
)
def test_another_folder_is_refused_in_one_line(tmp_path, settings, message):
    mxfp4_folder(tmp_path, **settings)
    with pytest.raises(ValueError) as error:
        tinyplm.load(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_scales_without_blocks_are_refused(tmp_path):
    mxfp4_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors, dtypes = tinyplm.hub.tensors.read_safetensors(path)
    tensors = {n: np.array(a) for n, a in tensors.items() if n != "model.layers.1.mlp.experts.down_proj_blocks"}
    tinyplm.hub.tensors.write_safetensors(path, tensors, {n: dtypes[n] for n in tensors})
    with pytest.raises(ValueError, match="model.layers.1.mlp.experts.down_proj_scales: expected blocks for its scales, got none"):
        tinyplm.load(tmp_path)
