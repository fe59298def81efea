"""InternLM 2's own: the authors' numbers, published counts, the layout of wqkv; behaviour shared with other families is in
tests/models."""

from __future__ import annotations

import re

import numpy as np
import pytest

from reference.models import published
from tests.laws import MODEL, relative_error
from tests.support.families import batch, tiny
from tests.support.vectors import CLOSE, assert_vector, vector, weights_of
from tinyplm.families import internlm2
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import from_dict, to_dict
from tinyplm.models.names import to_hub

# 7B: half of total_size in the index of the released bfloat16 files; the others from their published sizes.
COUNTS = {
    "internlm2-1.8b": 1_889_110_016,
    "internlm2-7b": 7_737_708_544,
    "internlm2-20b": 19_861_149_696,
}


@pytest.mark.parametrize("size", COUNTS)
def test_published_sizes_have_the_published_counts(size):
    assert count_parameters(internlm2.shapes(internlm2.SIZES[size])) == COUNTS[size]
    assert COUNTS.keys() == internlm2.SIZES.keys()


def test_the_authors_numbers(tmp_path):
    assert_vector("internlm2", tmp_path)


def test_the_formulas_from_the_published_tensors():
    v = vector("internlm2")
    settings = {"layers": 2, "heads": 4, "kv_heads": 2, "eps": v["config"]["rms_norm_eps"], "base": v["config"]["rope_theta"]}
    assert relative_error(published.internlm2(weights_of(v), v["input_ids"], **settings), v["logits"]) < CLOSE


def test_rows_of_wqkv():
    """Four heads of width 2 on two key/value heads: rows 0-3 are queries, 4-5 a key, 6-7 a value, and again."""
    model = tiny("internlm2", hidden_size=8, num_attention_heads=4, num_key_value_heads=2, bias=True)
    p = model.params["body"]["layers"][1]["attention"]
    tensors = to_hub(model.params, internlm2.renames(model.config))
    for kind, rows in (
        ("W", tensors["model.layers.1.attention.wqkv.weight"]),
        ("b", tensors["model.layers.1.attention.wqkv.bias"]),
    ):
        expected = [p[f"{kind}q"].T[:4], p[f"{kind}k"].T[:2], p[f"{kind}v"].T[:2],
                    p[f"{kind}q"].T[4:], p[f"{kind}k"].T[2:], p[f"{kind}v"].T[2:]]  # fmt: skip
        assert np.array_equal(rows, np.concatenate(expected))


def test_rope_is_written_under_the_authors_names():
    written = to_dict(internlm2.SIZES["internlm2-7b"])
    assert written["rope_theta"] == 1e6 and not written.keys() & {"rope_parameters", "head_dim"}


def test_dynamic_scaling_of_internlm2_5():
    """The base grows with the text beyond max_position_embeddings; up to there nothing changes."""
    settings = {"num_attention_heads": 1, "rope_theta": 10.0}
    changes = {**settings, "max_position_embeddings": 3, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    model, ids = tiny("internlm2", **changes), batch()[0]
    assert (model.config.context, model.config.cache_context) == (6, 3)
    same = tiny("internlm2", **{**settings, "rope_theta": 10.0 * (2.0 * 5 / 3 - 1) ** (6 / 4)})
    assert relative_error(model(ids)[0]["logits"], same(ids)[0]["logits"]) < MODEL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 5}, "num_attention_heads: expected a multiple of num_key_value_heads = 5, got 32"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_type: expected one of default, linear, dynamic, "),
        ({"bias": "yes"}, "bias: expected bool, got"),
        ({"hidden_act": "swish2"}, "hidden_act: expected one of "),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(internlm2.Config, {"model_type": "internlm2", **changes})
    assert "\n" not in str(error.value)
