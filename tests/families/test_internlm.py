"""InternLM 1's own: the authors' numbers, published counts, RoPE's settings; behaviour shared with other families is in
tests/models."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from reference.models import published
from tests.laws import MODEL, relative_error
from tests.support.families import batch, tiny
from tests.support.vectors import CLOSE, assert_vector, vector, weights_of
from tinyplm.families import internlm
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import from_dict, to_dict

# 20B: half of total_size in the index of the released bfloat16 files; 7B from the authors' default config.
COUNTS = {"internlm-7b": 7_321_948_160, "internlm-20b": 20_088_714_240}


@pytest.mark.parametrize("size", COUNTS)
def test_published_sizes_have_the_published_counts(size):
    assert count_parameters(internlm.shapes(internlm.SIZES[size])) == COUNTS[size]
    assert COUNTS.keys() == internlm.SIZES.keys()


def test_the_authors_numbers(tmp_path):
    assert_vector("internlm", tmp_path)


def test_the_formulas_from_the_published_tensors():
    v = vector("internlm")
    logits = published.internlm(weights_of(v), v["input_ids"], layers=2, heads=3, eps=v["config"]["rms_norm_eps"])
    assert relative_error(logits, v["logits"]) < CLOSE


def test_rotary_is_read_and_written():
    config = from_dict(internlm.Config, {"model_type": "internlm", "rotary": {"base": 500000, "type": "dynamic"}})
    assert (config.rope.type, config.rope.base, config.rope.settings["factor"]) == ("dynamic", 5e5, 1.0)
    assert config.context == config.cache_context == 2048
    assert to_dict(config)["rotary"] == {"base": 500000, "type": "dynamic"}
    assert internlm.Config().rope.base == 10000 and "rotary" not in to_dict(internlm.Config())


def test_dynamic_scaling_stretches_beyond_the_trained_context():
    rotary = {"type": "dynamic", "base": 10, "scaling_factor": 2.0}
    changes = {"num_attention_heads": 1, "rotary": rotary, "max_position_embeddings": 3}
    model, plain = (
        tiny("internlm", **changes),
        tiny("internlm", **{**changes, "rotary": {"base": 10}, "max_position_embeddings": 6}),
    )
    ids, _ = batch()
    assert model.config.context == 6 and model.config.cache_context == 3
    assert relative_error(model(ids[:, :3])[0]["logits"], plain(ids[:, :3])[0]["logits"]) < MODEL
    assert relative_error(model(ids)[0]["logits"], plain(ids)[0]["logits"]) > 1e-3
    base = 10 * (2.0 * 5 / 3 - 1) ** (6 / 4)
    same = tiny("internlm", **{**changes, "rotary": {"base": base}, "max_position_embeddings": 6})
    assert relative_error(model(ids)[0]["logits"], same(ids)[0]["logits"]) < MODEL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary": {"type": "yarn"}}, "rotary: expected type origin or dynamic, base and scaling_factor, got "),
        ({"rotary": {"kind": "origin"}}, "rotary: expected type origin or dynamic, base and scaling_factor, got "),
        ({"rotary": "dynamic"}, "rotary: expected dict"),
        ({"rotary": {"type": "dynamic", "scaling_factor": 0}}, "factor: expected a number from 1 to 1e6, got 0"),
        ({"rotary": {"base": "big"}}, "expected a number > 1, got "),
        ({"bias": 1}, "bias: expected bool, got 1"),
        ({"hidden_size": 100}, "hidden_size: expected a multiple of num_attention_heads = 32, got 100"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(internlm.Config, {"model_type": "internlm", **changes})
    assert "\n" not in str(error.value)


def test_files_of_tables_that_old_code_saved_are_read(tmp_path):
    """inv_freq was among the tensors of the first release."""
    from safetensors.numpy import load_file, save_file

    model = tiny("internlm")
    tinyplm.save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(1)
    save_file(tensors, tmp_path / "model.safetensors")
    ids, _ = batch()
    assert np.array_equal(tinyplm.load(tmp_path)(ids)[0]["logits"], model(ids)[0]["logits"])
