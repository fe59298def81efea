"""Gemma 3's own: published counts, a RoPE for each kind of layer in each spelling, five windows to one full layer."""

from __future__ import annotations

from functools import partial

import pytest

import reference.models.decoder as ref
from tests.support import families
from tests.support.decoder_formulas import assert_formula, geglu, turn, unit_rms
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.families import gemma3_text
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import from_dict, to_dict

Config = gemma3_text.Config


def test_published_sizes_have_the_published_counts():
    """The released files of the last three also hold a vision tower, so their text models have no count of their own; Gemma team
    2025, table 1, gives the parameters outside the embeddings, in millions.
    """
    outside = {
        name: count_parameters(gemma3_text.shapes(c)) - c.vocab_size * c.hidden_size for name, c in gemma3_text.SIZES.items()
    }
    assert [round(n / 1e6) for n in outside.values()][1:] == [698, 3209, 10759, 25600]
    assert_counts(gemma3_text, {
        "gemma-3-270m": 268_098_176, "gemma-3-1b": 999_885_952, "gemma-3-4b": 3_880_263_168, "gemma-3-12b": 11_766_034_176,
        "gemma-3-27b": 27_009_346_304,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "windows", "factor"),
    [
        ({}, [2, None], 1.0),
        (families.FAMILIES["gemma3_text"].variants["capped, untied, stretched"], [2, None], 2.0),
        ({"layer_types": ["sliding_attention"] * 2, "sliding_window": 3, "num_key_value_heads": 1}, [3, 3], 1.0),
    ],
)
def test_the_whole_model_equals_the_formulas(changes, windows, factor):
    model, norm = families.tiny("gemma3_text", **changes), partial(unit_rms, eps=1e-6)
    caps = [changes.get(f"{name}_logit_softcapping") for name in ("attn", "final")]

    def attention(layer):
        own = turn(10.0, factor=factor) if windows[layer] is None else turn(5.0)
        return {"window": windows[layer], "turn": own, "head_norm": norm, "scale": 3**-0.5, "cap": caps[0]}

    assert_formula(
        model, batch()[0], families.PADDING, norm=norm, heads=(4, model.config.kv_heads), mlp=geglu, attention=attention,
        embed=lambda p, x: 6**0.5 * x, wiring=ref.both_norms, cap=caps[1],
    )  # fmt: skip


def test_five_layers_with_a_window_stand_before_each_full_one():
    config = gemma3_text.SIZES["gemma-3-1b"]
    assert [i for i in range(26) if config.window_of(i) is None] == [5, 11, 17, 23] and config.window_of(0) == 512
    assert [i for i in range(6) if Config(sliding_window_pattern=3).window_of(i) is None] == [2, 5]


SPELLINGS = {
    "nested": {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                   "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "old": {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "old, defaults": {"rope_scaling": {"type": "linear", "factor": 8.0}},
    "both": {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None,
             "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {}}},
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_each_spelling_of_the_two_ropes(name):
    source = {"model_type": "gemma3_text", **SPELLINGS[name], "sliding_window_pattern": 6, "cache_implementation": "hybrid"}
    config = from_dict(Config, source)
    assert (config.rope.type, config.rope.base, config.rope.settings) == ("linear", 1e6, {"factor": 8.0})
    assert (config.local_rope.type, config.local_rope.base) == ("default", 1e4)
    assert to_dict(config) == source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_parameters: expected an object with settings f"),
        ({"rope_parameters": {"chunked_attention": {}}}, "rope_parameters: expected an object with settings for each of full"),
        ({"rope_parameters": {"sliding_attention": {"rope_type": "ntk"}}}, "rope_type: expected one of default, .*, got 'ntk'"),
        ({"rope_scaling": {"rope_type": "su"}}, "rope_type longrope: expected the settings long_factor, short_factor, got no l"),
        ({"rope_local_base_freq": 0.5}, "rope_theta: expected a number > 1, got 0.5"),
        ({"sliding_window_pattern": 0}, "sliding_window_pattern: expected a positive integer, got 0"),
        ({"sliding_window": None}, "sliding_window: expected a positive integer without layer_types, got None"),
        ({"sliding_window": -1}, "sliding_window: expected a positive integer, got -1"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention: expected None or False for gemma3_text, got True"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(Config, changes, message)


def test_the_cache_is_limited_by_the_local_rope_as_well():
    local = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10.0}
    config = families.tiny("gemma3_text", rope_parameters={"sliding_attention": local}).config
    assert config.cache_context == config.max_position_embeddings == config.context
    lists = {"short_factor": [1.0] * (config.head_width // 2), "long_factor": [2.0] * (config.head_width // 2)}
    local = {"rope_type": "longrope", "original_max_position_embeddings": 4, **lists}
    config = families.tiny("gemma3_text", rope_parameters={"sliding_attention": local}).config
    assert (config.cache_context, config.rope.cache_context) == (4, config.context)
