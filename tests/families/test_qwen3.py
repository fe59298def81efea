"""Qwen3's own: published counts, the norm of each head, windows by layer."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support import families
from tests.support.decoder_formulas import assert_formula, rms, turn
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.families import qwen3


def test_published_sizes_have_the_published_counts():
    assert_counts(qwen3, {
        "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976, "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360,
        "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264,
    })  # fmt: skip
    assert all(config.head_width == 128 and config.window_of(60) is None for config in qwen3.SIZES.values())


@pytest.mark.parametrize(("changes", "windows"), [({}, [None, 2]), ({"max_window_layers": 0}, [2, 2]),
                                                  ({"layer_types": ["sliding_attention", "full_attention"]}, [2, None]),
                                                  ({"attention_bias": True, "num_key_value_heads": 4}, [None, 2])])  # fmt: skip
def test_the_whole_model_equals_the_formulas(changes, windows):
    norm = partial(rms, eps=1e-6)
    model = families.tiny("qwen3", **changes)
    assert_formula(
        model, batch()[0], families.PADDING, norm=norm, heads=(4, model.config.kv_heads),
        attention=lambda layer: {"window": windows[layer], "head_norm": norm, "turn": turn(10.0)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 7}, "RoPE: width: expected an even number"),
        ({"layer_types": ["sliding"] * 32}, "layer_types: expected 32 of full_attention and sliding_attention, got"),
        ({"sliding_window": 0}, "sliding_window: expected a positive integer, got 0"),
        ({"num_attention_heads": 12}, "num_attention_heads: expected a multiple of num_key_value_heads = 32, got 12"),
        ({"rope_scaling": {"rope_type": "ntk"}}, "rope_type: expected one of default, .*, got 'ntk'"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(qwen3.Config, changes, message)
