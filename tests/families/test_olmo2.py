"""OLMo 2's own: published counts, norms after the sublayers, norms of whole projections."""

from __future__ import annotations

from functools import partial

import pytest

import reference.models.decoder as ref
from tests.support import families
from tests.support.decoder_formulas import assert_formula, rms, turn
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.families import olmo2


def test_published_sizes_have_the_published_counts():
    assert_counts(olmo2, {
        "olmo-2-1b": 1_484_916_736, "olmo-2-7b": 7_298_617_344, "olmo-2-13b": 13_716_198_400, "olmo-2-32b": 32_234_279_936,
    })  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"attention_bias": True, "num_key_value_heads": 1}, {"rms_norm_eps": 0.1}], ids=str)
def test_the_whole_model_equals_the_formulas(changes):
    model = families.tiny("olmo2", **changes)
    norm = partial(rms, eps=changes.get("rms_norm_eps", 1e-5))
    assert_formula(
        model, batch()[0], families.PADDING, norm=norm, heads=(4, model.config.kv_heads), wiring=ref.after_norm,
        attention=lambda layer: {"turn": turn(10.0), "whole_norm": norm},
    )  # fmt: skip


def test_gains_of_queries_and_keys_span_all_heads():
    attention = olmo2.shapes(olmo2.SIZES["olmo-2-32b"])["body"]["layers"][0]["attention"]
    assert (attention["q_norm"], attention["k_norm"]) == ((5120,), (1024,))


def test_wrong_configs_are_refused_in_one_line():
    assert_refused(
        olmo2.Config, {"num_key_value_heads": 3}, "num_attention_heads: expected a multiple of num_key_value_heads = 3"
    )
