"""LLaMA's own: published counts, init, invalid configs, grouped queries, positions, and the full model against the formulas.

Behaviour shared with other families is in test_causal_lm.py and test_cache.py, the rotary settings in models/test_rope.py.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import numpy as np
import pytest

import tests.support.families as families
import tinyplm
from tests.laws import MODEL, MODEL_32, equal, relative_error
from tests.support.families import batch
from tests.support.llama_formulas import assert_formulas
from tests.support.ropes import ROPES
from tinyplm.backend import to_device, to_host
from tinyplm.core import flatten, tree_map
from tinyplm.families import llama
from tinyplm.hub.names import count_parameters

TINY = families.FAMILIES["llama"].config
tiny = partial(families.tiny, "llama")

COUNTS = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    **{f"{name}-6b": 6_061_035_520 for name in ("yi", "yi-1.5")},
    **{f"{name}-9b": 8_829_407_232 for name in ("yi", "yi-1.5")},
    **{f"{name}-34b": 34_388_917_248 for name in ("yi", "yi-1.5")},
}


@pytest.mark.parametrize("size", llama.SIZES)
def test_published_sizes_have_the_published_counts(size):
    """Counts of the released weights, without the frequencies stored in the oldest files."""
    start = time.perf_counter()
    assert count_parameters(llama.shapes(llama.SIZES[size])) == COUNTS[size]
    assert time.perf_counter() - start < 0.1, "counting must not allocate"


def test_every_size_is_counted():
    assert COUNTS.keys() == llama.SIZES.keys()


@pytest.mark.parametrize(("size", "context"), [("llama-7b", 2048), ("llama-2-7b", 4096), ("llama-3-8b", 8192),
                                               ("llama-3.1-405b", 131072), ("llama-3.2-1b", 131072)])  # fmt: skip
def test_published_contexts(size, context):
    assert llama.SIZES[size].context == llama.SIZES[size].cache_context == context


def test_init_is_repeatable_and_all_weights_have_the_same_spread():
    config = dataclasses.replace(TINY, hidden_size=64, vocab_size=500, intermediate_size=90, attention_bias=True, mlp_bias=True,
                                 head_dim=16, initializer_range=0.03)  # fmt: skip
    params = flatten(tinyplm.create("llama", config, key=5).params)
    assert equal(list(params.values()), list(flatten(tinyplm.create("llama", config, key=5).params).values()))
    assert not equal(params["body.tokens"], tinyplm.create("llama", config, key=6).params["body"]["tokens"])
    assert not equal(params["body.layers.0.attention.Wq"], params["body.layers.1.attention.Wq"])
    for path, a in params.items():
        assert a.dtype == np.float32
        name = path.rsplit(".", 1)[-1]
        if name == "gamma":
            assert (a == 1).all()
        elif name.startswith("b"):
            assert not a.any()
        else:  # including projections into the residual stream, unlike GPT-2
            assert abs(a.std() / 0.03 - 1) < 5 / (2 * a.size) ** 0.5 and abs(a.mean()) < 5 * 0.03 / a.size**0.5, path


# -------------------------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, "hidden_size: expected a multiple of num_attention_heads = 4, got 10"),
        *(({"num_attention_heads": 4, "num_key_value_heads": n}, f"expected a multiple of num_key_value_heads = {n}, got 4")
          for n in (3, 8)),
        *(({name: 0}, f"{name}: expected a positive integer, got 0")
          for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                       "num_key_value_heads", "head_dim", "max_position_embeddings")),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers: expected int, got 2.5"),
        ({"attention_bias": 1}, "attention_bias: expected bool, got 1"),
        ({"rms_norm_eps": -1e-6}, "rms_norm_eps: expected a finite number >= 0, got -1e-06"),
        ({"initializer_range": float("nan")}, "initializer_range: expected a finite number, got nan"),
        ({"attention_dropout": 1.0}, r"attention_dropout: expected a number in \[0, 1\), got 1.0"),
        ({"hidden_act": "swish2"}, "hidden_act: expected one of .*, got 'swish2'"),
        ({"head_dim": 5}, "RoPE: width: expected an even number of components, at least 2, got 5"),
        ({"hidden_size": 12, "num_attention_heads": 4}, "expected an even number of components, at least 2, got 3"),
        ({"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "expected more than 2 components for"),
        ({"rope_theta": 0.5}, "rope_theta: expected a number > 1, got 0.5"),
        ({"rope_theta": "big"}, "rope_theta: expected float .* None, got 'big'"),
        ({"rope_scaling": "linear"}, r"rope_scaling: expected dict \| None, got 'linear'"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_type: expected one of .*, got 'ntk'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_type linear: expected the settings factor, got no factor"),
        ({"rope_theta": 10.0, "rope_parameters": {"rope_theta": 11.0}}, "rope_theta: expected 11.0, as in rope_"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        llama.Config(**changes)
    assert "\n" not in str(error.value)


def test_a_head_width_of_its_own_need_not_divide_the_width():
    config = llama.Config(hidden_size=10, num_attention_heads=4, num_key_value_heads=2, head_dim=6)
    attention = llama.shapes(config)["body"]["layers"][0]["attention"]
    assert attention == {"Wq": (10, 24), "Wk": (10, 12), "Wv": (10, 12), "Wo": (24, 10)}


def test_biases_are_where_the_config_says():
    def added(**changes):
        return sorted(flatten(llama.shapes(dataclasses.replace(TINY, **changes))).keys() - flatten(llama.shapes(TINY)).keys())

    assert added(num_hidden_layers=2) == []
    assert [path.rsplit(".", 1)[-1] for path in added(attention_bias=True)] == ["bk", "bo", "bq", "bv"] * 2
    assert [path.rsplit(".", 1)[-1] for path in added(mlp_bias=True)] == ["bdown", "bgate", "bup"] * 2


# --------------------------------------------------------------------------------------------------- what it computes


@pytest.mark.parametrize("changes", [{}, {"attention_bias": True, "mlp_bias": True}, {"num_key_value_heads": 4},
                                     {"tie_word_embeddings": True, "rms_norm_eps": 0.1}], ids=str)  # fmt: skip
def test_the_whole_model_equals_the_formulas(changes):
    assert_formulas(tiny(**changes), batch()[0], families.PADDING)


@pytest.mark.parametrize("rope", ROPES)
def test_the_whole_model_equals_the_formulas_over_its_whole_context(rope):
    model = tiny(**ROPES[rope])
    assert_formulas(model, batch(B=1, T=model.config.context)[0], np.ones((1, model.config.context), int))


@pytest.mark.parametrize("rope", ROPES)
def test_only_distances_between_positions_matter(rope):
    """So all positions may be shifted, unlike with a learned table such as GPT-2's."""
    model = tiny(**ROPES[rope])
    ids, _ = batch()
    expected = model(ids)[0]["logits"]
    shift = model.config.cache_context - 5  # the dynamic type keeps its frequencies within the trained context
    assert relative_error(model(ids, position_ids=np.arange(5) + shift)[0]["logits"], expected) < MODEL
    assert relative_error(model(ids, position_ids=2 * np.arange(5))[0]["logits"], expected) > 1e-3


def test_as_many_key_value_heads_as_heads_is_multi_head_attention():
    """With each key/value head repeated for all queries of its group; it is also the default of num_key_value_heads."""
    grouped = tiny(attention_bias=True)
    G, E = grouped.config.heads // grouped.config.kv_heads, grouped.config.head_width

    def repeated(a):  # (..., K * E) -> (..., H * E)
        return np.repeat(a.reshape(*a.shape[:-1], -1, E), G, axis=-2).reshape(*a.shape[:-1], -1)

    ids, _ = batch()
    outputs = grouped(ids)[0]
    for kv_heads in (4, None):
        full = tiny(attention_bias=True, num_key_value_heads=kv_heads)
        full.params = tree_map(lambda a: a, grouped.params)
        for layer in full.params["body"]["layers"]:
            layer["attention"] |= {name: repeated(layer["attention"][name]) for name in ("Wk", "Wv", "bk", "bv")}
        assert relative_error(full(ids)[0], outputs) < MODEL


def test_old_and_new_spellings_of_the_rotary_settings_compute_the_same():
    new = {"rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.0}}
    old = {"rope_parameters": None, "rope_theta": 50.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    ids, _ = batch(T=9)
    assert equal(tiny(**new)(ids)[0], tiny(**old)(ids)[0])


def test_far_positions_in_float32(device):
    """At the end of a context of 131072, where angles in float32 would have lost the phase."""
    changes = {"max_position_embeddings": 131072, "head_dim": 16,
               "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}  # fmt: skip
    ids, _ = batch()
    positions = np.arange(131067, 131072)
    exact = tiny(**changes)(ids, position_ids=positions, grad=False)[0]["logits"]
    logits = to_host(tiny(dtype="float32", device=device, **changes)(ids, position_ids=to_device(positions, device))[0]["logits"])
    assert logits.dtype == np.float32 and relative_error(logits, exact) < MODEL_32
