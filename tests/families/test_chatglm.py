"""ChatGLM2's, ChatGLM3's and the authors' GLM-4's own: their numbers, published counts, the two meanings of rope_ratio, the
fused matrices; behaviour shared with other families is in tests/models."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from reference.models import published
from tests.laws import MODEL, relative_error
from tests.support.families import PADDING, batch, tiny
from tests.support.sizes import assert_counts
from tests.support.vectors import CLOSE, assert_vector, vector, weights_of
from tinyplm.families import chatglm, glm
from tinyplm.models.config import from_dict, to_dict
from tinyplm.models.names import to_hub

# total_size in the index of the released files of 6B, less the 32 frequencies there, halved; transformers' GLM-4-9B; for 1M two
# more groups of keys and values.
_6B, _9B = 6_243_584_000, 9_399_951_360
COUNTS = {
    **dict.fromkeys(("chatglm2-6b", "chatglm2-6b-32k", "chatglm3-6b", "chatglm3-6b-128k", "codegeex2-6b"), _6B),
    **dict.fromkeys(("glm-4-9b", "glm-4-9b-chat"), _9B),
    "glm-4-9b-chat-1m": _9B + 40 * (4096 + 1) * 2 * 2 * 128,
}
# {vector: how rope_ratio changes the formula}
KINDS = {
    "chatglm2-6b": {},
    "chatglm2-6b-32k": {"stretch": 4},
    "chatglm3-6b": {},
    "chatglm3-heads": {},
    "codegeex2-6b": {},
    "glm-4-9b": {"base": 50000},
}


def test_published_sizes_have_the_published_counts():
    assert_counts(chatglm, COUNTS)


@pytest.mark.parametrize("name", KINDS)
def test_the_authors_numbers(name, tmp_path):
    assert_vector(name, tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_the_formulas_from_the_published_tensors(name):
    v = vector(name)
    c = v["config"]
    groups = c["multi_query_group_num"] if c["multi_query_attention"] else None
    settings = {"layers": 2, "heads": c["num_attention_heads"], "groups": groups, "eps": c["layernorm_epsilon"]}
    assert relative_error(published.chatglm(weights_of(v), v["input_ids"], **settings, **KINDS[name]), v["logits"]) < CLOSE


def test_rows_of_query_key_value():
    """Four heads of width 8 on two groups: 32 rows of queries, 16 of keys, 16 of values.  Without groups, by head."""
    for grouped in (True, False):
        model = tiny("chatglm", multi_query_attention=grouped)
        p = model.params["body"]["layers"][1]["attention"]
        rows = to_hub(model.params, chatglm.renames(model.config))[
            "transformer.encoder.layers.1.self_attention.query_key_value.bias"
        ]
        expected = [p["bq"], p["bk"], p["bv"]]
        if not grouped:
            expected = [p[f"b{n}"][8 * h : 8 * h + 8] for h in range(4) for n in "qkv"]
        assert np.array_equal(rows, np.concatenate(expected))


def test_it_computes_what_transformers_glm_does():
    """GLM-4-9B was published in both forms."""
    model, (ids, _) = tiny("chatglm"), batch()
    like = glm.Config(vocab_size=11, hidden_size=6, intermediate_size=7, num_hidden_layers=2, num_attention_heads=4,
                      num_key_value_heads=2, head_dim=8, max_position_embeddings=6, rms_norm_eps=1e-5)  # fmt: skip
    other = tinyplm.create("glm", like, dtype="float64").with_params(model.params)
    given = {"attention_mask": PADDING, "grad": False}
    assert relative_error(model(ids, **given)[0]["logits"], other(ids, **given)[0]["logits"]) < MODEL


@pytest.mark.parametrize(
    ("fields", "kind", "base"),
    [
        ({"_name_or_path": "THUDM/chatglm2-6b-32k"}, "linear", 1e4),
        ({"_name_or_path": "/models/ChatGLM2-tuned"}, "linear", 1e4),
        ({"_name_or_path": "THUDM/chatglm3-6b-32k"}, "default", 16e4),
        ({"_name_or_path": "THUDM/glm-4-9b-chat"}, "default", 16e4),
        ({"_name_or_path": "/tuned", "padded_vocab_size": 151552}, "default", 16e4),
        ({"padded_vocab_size": 151552}, "default", 16e4),
        ({"rope_ratio": 1}, "default", 1e4),
    ],
    ids=str,
)
def test_the_name_or_the_vocabulary_says_what_rope_ratio_scales(fields, kind, base):
    config = from_dict(chatglm.Config, {"model_type": "chatglm", "rope_ratio": 16, "seq_length": 32768, **fields})
    assert (config.rope.type, config.rope.base, config.context) == (kind, base, 32768)


def test_the_long_models_stretch_in_their_own_way():
    two, three = (chatglm.SIZES[name] for name in ("chatglm2-6b-32k", "chatglm3-6b-128k"))
    assert (two.rope.type, two.rope.base, two.rope.settings, two.context) == ("linear", 1e4, {"factor": 16.0}, 32768)
    assert (three.rope.type, three.rope.base, three.context) == ("default", 5e6, 131072)


def test_a_missing_field_has_the_default_of_the_authors_code():
    config = from_dict(chatglm.Config, {"model_type": "chatglm"})
    assert (config.seq_length, config.multi_query_attention, config.add_qkv_bias, config.kv_heads) == (2048, False, False, 32)


def test_what_is_written_has_the_authors_names():
    written = to_dict(chatglm.SIZES["glm-4-9b-chat"])
    assert written["padded_vocab_size"] == 151552 and written["rope_ratio"] == 500
    assert not written.keys() & {"vocab_size", "num_hidden_layers", "rope_theta", "rope_parameters", "pre_seq_len"}
    source = {"model_type": "chatglm", "num_layers": 2, "num_hidden_layers": 2, "padded_vocab_size": 99, "original_rope": True}
    assert to_dict(from_dict(chatglm.Config, source)) == source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"quantization_bit": 4},
            "quantization_bit: expected 0, in the same model's folder without -int4 or -int8 in its name, got 4",
        ),
        (
            {"pre_seq_len": 128},
            "pre_seq_len: expected None; tuning.load_ptuned reads the model and its prefix, got 128",
        ),
        ({"rmsnorm": False}, "rmsnorm: expected True for chatglm, got False"),
        ({"post_layer_norm": False}, "post_layer_norm: expected True for chatglm, got False"),
        ({"apply_residual_connection_post_layernorm": True}, "expected False for chatglm, got True"),
        ({"rope_ratio": 0.5}, "rope_ratio: expected a number from 1 to 1e6, got 0.5"),
        ({"rope_ratio": 16}, "_name_or_path: expected one of chatglm2, chatglm3, glm-4, codegeex4 in it, which say what"),
        ({"rope_ratio": 16, "_name_or_path": "mine"}, "which say what rope_ratio scales, got 'mine'"),
        ({"multi_query_attention": True, "multi_query_group_num": 5}, "expected a multiple of multi_query_group_num = 5, got 32"),
        ({"kv_channels": 6}, "width: expected"),
        ({"seq_length": 0}, "seq_length: expected a positive integer, got 0"),
        ({"vocab_size": 5, "padded_vocab_size": 6}, "vocab_size: expected 6, the value of its synonym padded_vocab_size, got 5"),
        ({"add_qkv_bias": 1}, "add_qkv_bias: expected bool, got 1"),
        ({"hidden_dropout": 1.0}, "hidden_dropout: expected a number in [0, 1), got 1.0"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(chatglm.Config, {"model_type": "chatglm", **changes})
    assert "\n" not in str(error.value)
