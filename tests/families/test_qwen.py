"""Qwen 1's own: the authors' numbers, published counts, names and configs; behaviour shared with other families is in
tests/models."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import tinyplm
from reference.models import published
from tests.laws import MODEL, relative_error
from tests.support.families import batch, tiny
from tests.support.vectors import CLOSE, assert_vector, folder_of, vector, weights_of
from tinyplm.families import llama, qwen
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import from_dict, to_dict

# 7B and 72B: half of total_size in the index of the released bfloat16 files; the others from their published sizes.
COUNTS = {
    "qwen-1.8b": 1_836_828_672,
    "qwen-7b": 7_721_324_544,
    "qwen-14b": 14_167_290_880,
    "qwen-72b": 72_287_920_128,
}


@pytest.mark.parametrize("size", COUNTS)
def test_published_sizes_have_the_published_counts(size):
    assert count_parameters(qwen.shapes(qwen.SIZES[size])) == COUNTS[size]
    assert COUNTS.keys() == qwen.SIZES.keys()


def test_the_authors_numbers(tmp_path):
    assert_vector("qwen", tmp_path)


def test_the_formulas_from_the_published_tensors():
    v = vector("qwen")
    c = v["config"]
    logits = published.qwen(weights_of(v), v["input_ids"], layers=2, heads=3, eps=c["layer_norm_epsilon"], base=100.0)
    assert relative_error(logits, v["logits"]) < CLOSE


def test_it_is_llama_with_half_of_intermediate_size_and_biases_of_queries_keys_and_values():
    ours = tiny("qwen")
    like = llama.Config(**{n: getattr(ours.config, n) for n in ("vocab_size", "hidden_size", "num_hidden_layers")},
                        num_attention_heads=3, intermediate_size=5, max_position_embeddings=6)  # fmt: skip
    theirs = tinyplm.create("llama", like, dtype="float64")
    for layer in ours.params["body"]["layers"]:
        for n in "qkv":
            layer["attention"][f"b{n}"][...] = 0
    theirs.params = {
        "body": {**ours.params["body"], "layers": [without_biases(p) for p in ours.params["body"]["layers"]]},
        "head": ours.params["head"],
    }
    ids, _ = batch()
    assert relative_error(ours(ids)[0]["logits"], theirs(ids)[0]["logits"]) < MODEL


def without_biases(layer):
    return {**layer, "attention": {name: a for name, a in layer["attention"].items() if name.startswith("W")}}


def test_ntk_and_log_n_do_nothing_up_to_seq_length_and_longer_inputs_are_refused(tmp_path):
    """The vectors have seq_length 8: evaluation and training agree there (tests/vectors/README.md)."""
    model = tinyplm.load(folder_of(vector("qwen"), tmp_path / "qwen"))
    assert model.config.use_dynamic_ntk and model.config.use_logn_attn and model.config.context == 8
    with pytest.raises(ValueError, match="input_ids: expected at most 8 tokens, the context, got 9"):
        model(np.zeros((1, 9), dtype=int))
    settings = {**vector("qwen")["config"], "use_dynamic_ntk": False, "use_logn_attn": False}
    assert from_dict(qwen.Config, settings).context == 32


def test_what_is_harmless_changes_nothing(tmp_path):
    expected = vector("qwen")
    expected["config"] |= {"bf16": True, "use_flash_attn": "auto", "softmax_in_fp32": True, "use_cache_kernel": True}
    model = tinyplm.load(folder_of(expected, tmp_path / "qwen"))
    assert relative_error(model(expected["input_ids"])[0]["logits"], expected["logits"]) < CLOSE
    assert to_dict(model.config) == expected["config"]


def test_the_first_release_spells_fields_as_gpt2_does():
    old = {
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 2,
        "n_positions": 99,
        "ffn_hidden_size": 50,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.2,
    }
    config = from_dict(qwen.Config, {**old, "kv_channels": 32, "seq_length": 7, "n_inner": None})
    assert (config.hidden_size, config.num_hidden_layers, config.heads, config.max_position_embeddings) == (64, 3, 2, 99)
    assert (config.mlp_width, config.emb_dropout_prob, config.attention_dropout) == (25, 0.1, 0.2)
    assert old.items() <= to_dict(config).items()


def test_a_new_config_has_the_authors_fields_alone(tmp_path):
    tinyplm.save(tiny("qwen"), tmp_path / "new")
    written = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    assert not written.keys() & {"rms_norm_eps", "rope_theta", "rope_parameters", "num_key_value_heads", "hidden_act",
                                 "attention_dropout", "head_dim"}  # fmt: skip


def test_output_projections_start_smaller():
    model = tinyplm.create("qwen", key=0, hidden_size=64, num_attention_heads=2, kv_channels=32, intermediate_size=128,
                           num_hidden_layers=8, vocab_size=50)  # fmt: skip
    layer = model.params["body"]["layers"][0]
    for big, small in ((layer["attention"]["Wq"], layer["attention"]["Wo"]), (layer["mlp"]["Wup"], layer["mlp"]["Wdown"])):
        assert 3.6 < big.std() / small.std() < 4.4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intermediate_size": 21}, "intermediate_size: expected an even number, of both halves together, got 21"),
        ({"kv_channels": 64}, "kv_channels: expected hidden_size / num_attention_heads = 128, got 64"),
        ({"rotary_pct": 1.5}, "rotary_pct: expected a number in (0, 1], got 1.5"),
        ({"rotary_pct": "all"}, "rotary_pct: expected float, got"),
        ({"rotary_emb_base": 0}, "rotary_emb_base: expected a number in (1, 1e+15], got 0"),
        ({"seq_length": 0}, "seq_length: expected a positive integer, got 0"),
        ({"emb_dropout_prob": 1.0}, "emb_dropout_prob: expected a number in [0, 1), got 1.0"),
        ({"attn_dropout_prob": -0.1}, "expected a number in [0, 1), got -0.1"),
        ({"use_cache_quantization": True}, "use_cache_quantization: expected False for qwen, got True"),
        ({"use_dynamic_ntk": 1}, "use_dynamic_ntk: expected bool, got 1"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: expected a model without quantization, got"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(qwen.Config, {"model_type": "qwen", **changes})
    assert "\n" not in str(error.value)
