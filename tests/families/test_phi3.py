"""Phi-3's own: published counts, fused matrices, the window, a part of each head turned, LongRoPE."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from reference.layers.rope import longrope_frequencies, rope
from tests.laws import FEW
from tests.support import families
from tests.support.decoder_formulas import assert_formula, rms, turn
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.core import tree_map
from tinyplm.families import phi3
from tinyplm.models.config import from_dict, to_dict
from tinyplm.models.names import to_hub


def test_published_sizes_have_the_published_counts():
    assert_counts(phi3, {"phi-3-mini-4k": 3_821_079_552, "phi-3-medium-4k": 13_960_238_080, "phi-4": 14_659_507_200})
    assert [config.sliding_window for config in phi3.SIZES.values()] == [2047, 2047, None]


@pytest.mark.parametrize(
    ("changes", "window", "width"),
    [
        *(({"sliding_window": window}, window, 4) for window in (1, 2, 3, 5, 6, None)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "partial_rotary_factor": 0.5}}, 3, 2),
        ({"rope_parameters": None, "rope_theta": 10.0, "num_key_value_heads": 4}, 3, 4),
    ],
    ids=str,
)
def test_the_whole_model_equals_the_formulas(changes, window, width):
    model = families.tiny("phi3", **changes)
    assert_formula(
        model, batch()[0], families.PADDING, norm=partial(rms, eps=1e-5), heads=(4, model.config.kv_heads),
        attention=lambda layer: {"window": window, "turn": turn(10.0, width=width)},
    )  # fmt: skip


def test_the_layout_of_the_fused_matrices():
    """Queries, keys, values of all heads; gate, then up; as rows, since torch's matrices are (out, in)."""
    p = tree_map(lambda a: a, families.tiny("phi3").params)
    attention, mlp = (p["body"]["layers"][1][part] for part in ("attention", "mlp"))
    tensors = to_hub(p, phi3.NAMES)
    qkv, gate_up = (tensors[f"model.layers.1.{name}.weight"] for name in ("self_attn.qkv_proj", "mlp.gate_up_proj"))
    assert np.array_equal(qkv, np.vstack([attention[f"W{n}"].T for n in "qkv"])) and qkv.shape == (16 + 8 + 8, 6)
    assert np.array_equal(gate_up, np.vstack([mlp["Wgate"].T, mlp["Wup"].T])) and gate_up.shape == (14, 6)


LONG = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.1] * 48}


@pytest.mark.parametrize("kind", ["longrope", "su"])
def test_longrope_counts_from_the_original_context_of_the_config(kind):
    """A field of its own in Phi-3, 4096 if the file lacks it.  What was read is written back."""
    source = {"model_type": "phi3", "max_position_embeddings": 131072, "rope_scaling": {**LONG, "type": kind}}
    for given, trained in (({}, 4096), ({"original_max_position_embeddings": 2048}, 2048)):
        config = from_dict(phi3.Config, {**source, **given})
        assert (config.rope.type, config.rope.trained, config.cache_context) == ("longrope", trained, trained)
        assert config.context == 131072 and to_dict(config) == {**source, **given}
        short, long = (config.rope.frequencies(96, length)[0] for length in (trained, trained + 1))
        assert np.max(np.abs(short / long - 1.1)) < FEW


def test_longrope_equals_the_formulas():
    """5 positions, beyond the original 4: every pair is turned by its long factor, scores are multiplied by m^2."""
    lists = {"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 5.0], "attention_factor": 1.3}
    settings = {"rope_theta": 10.0, "original_max_position_embeddings": 4, **lists}
    for original, factors in ((4, [2.0, 5.0]), (5, [1.0, 1.5])):
        model = families.tiny("phi3", rope_parameters=settings, original_max_position_embeddings=original, sliding_window=None)
        turned = {"frequencies": longrope_frequencies(4, base=10.0, factors=factors), "magnitude": 1.3}
        assert_formula(
            model, batch()[0], families.PADDING, norm=partial(rms, eps=1e-5), heads=(4, model.config.kv_heads),
            attention=lambda layer, t=turned: {"turn": lambda x: rope(x[None, None], positions=np.arange(len(x)), **t)[0, 0]},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {**LONG, "short_factor": [1.0] * 47}}, "config: short_factor: expected 48 numbers, one .*, got 47"),
        ({"rope_scaling": {**LONG, "long_factor": [1.0] * 49}}, "config: long_factor: expected 48 numbers, one .*, got 49"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "longrope"}}, "rope_type longrope: expected the settings long_fac"),
        ({"rope_scaling": {"type": "su", "short_factor": [], "long_factor": []}}, "short_factor: expected 48 numbers"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type: expected default or longrope for phi3, got 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type: expected default or longrope for phi3, got 'linear'"),
        ({"sliding_window": 0}, "sliding_window: expected a positive integer, got 0"),
        ({"resid_pdrop": 1.0}, r"resid_pdrop: expected a number in \[0, 1\), got 1.0"),
        ({"num_key_value_heads": 5}, "num_attention_heads: expected a multiple of num_key_value_heads = 5, got 32"),
        ({"source": {"partial_rotary_factor": 1.5}}, r"partial_rotary_factor: expected a number in \(0, 1\], got 1.5"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(phi3.Config, changes, message)
