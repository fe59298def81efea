"""Gemma 2's own: published counts, caps, the scale of scores, windows in every second layer."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest

import reference.models.decoder as ref
from tests.support import families
from tests.support.decoder_formulas import assert_formula, geglu, turn, unit_rms
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.families import gemma2


def test_published_sizes_have_the_published_counts():
    assert_counts(gemma2, {"gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320})


@pytest.mark.parametrize(
    ("changes", "windows", "caps"),
    [
        ({}, [2, None], (1.5, 1.0)),
        ({"sliding_window": 1, "query_pre_attn_scalar": 5.5}, [1, None], (1.5, 1.0)),
        ({"attn_logit_softcapping": None, "num_key_value_heads": 1}, [2, None], (None, 1.0)),
        ({"final_logit_softcapping": None, "layer_types": ["full_attention", "sliding_attention"]}, [None, 2], (1.5, None)),
        ({"sliding_window": None, "tie_word_embeddings": False}, [None, None], (1.5, 1.0)),
    ],
)
def test_the_whole_model_equals_the_formulas(changes, windows, caps):
    model = families.tiny("gemma2", **changes)
    scale = model.config.query_pre_attn_scalar**-0.5
    assert_formula(
        model, batch()[0], families.PADDING, norm=partial(unit_rms, eps=1e-6), heads=(4, model.config.kv_heads), mlp=geglu,
        embed=lambda p, x: 6**0.5 * x, wiring=ref.both_norms, cap=caps[1],
        attention=lambda layer: {"window": windows[layer], "turn": turn(10.0), "scale": scale, "cap": caps[0]},
    )  # fmt: skip


def test_the_lower_of_two_layers_has_the_window():
    config = dataclasses.replace(gemma2.SIZES["gemma-2-2b"], num_hidden_layers=4)
    assert [config.window_of(i) for i in range(4)] == [4096, None, 4096, None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": 0}, "sliding_window: expected a positive integer, got 0"),
        ({"layer_types": ["full_attention"] * 25 + ["local"]}, "layer_types: expected 26 of full_attention and sliding"),
        ({"layer_types": ["sliding_attention"] * 26, "sliding_window": None}, "layer_types: expected full_attention alone"),
        ({"attn_logit_softcapping": 0.0}, "attn_logit_softcapping: expected a number > 0, got 0.0"),
        ({"final_logit_softcapping": -30.0}, "final_logit_softcapping: expected a number > 0, got -30.0"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar: expected a number > 0, got 0"),
        ({"hidden_activation": "gelu_fast"}, "hidden_act.*: expected one of .*, got 'gelu_fast'"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention: expected None or False for gemma2, got True"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(gemma2.Config, changes, message)
