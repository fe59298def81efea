"""Bytes of caches as computed from sizes alone: the formula, and what is held."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.families import FAMILIES, VARIANTS, tiny
from tinyplm.families import deepseek_v3, gemma3_text, llama, mistral
from tinyplm.layers.cache import Cache
from tinyplm.layers.cache_size import cache_bytes
from tinyplm.models.causal_lm import cache_layout

WIDTHS = st.one_of(st.integers(1, 5), st.dictionaries(st.sampled_from(["k", "v", "c", "k_r"]), st.integers(1, 5), min_size=1))


def published(module, size, tokens, dtype="float16", batch=1):
    return cache_bytes(**cache_layout(module, module.SIZES[size]), batch=batch, capacity=tokens, dtype=dtype)


def test_of_published_models():
    """2 B L T K E times the bytes of a number: LLaMA-7B keeps 1 GiB for 2,048 tokens in float16."""
    assert published(llama, "llama-7b", 2048) == 2 * 32 * 2048 * 32 * 128 * 2 == 2**30
    assert published(llama, "llama-7b", 2048, "float32", batch=3) == 6 * 2**30
    # an eighth of the heads: 320 KiB a token, as Touvron et al. 2023b count with 80 layers
    assert published(llama, "llama-2-70b", 4096) == 2 * 80 * 4096 * 8 * 128 * 2
    # DeepSeek-V3: 576 numbers a token and layer
    assert published(deepseek_v3, "deepseek-v3", 1000) == 61 * 576 * 1000 * 2
    # a window of 4,096, and a quarter more, in every layer, however long the text is
    rolling = 2 * 32 * (4095 + 1024) * 8 * 128 * 2
    assert published(mistral, "mistral-7b-v0.1", 32768) == published(mistral, "mistral-7b-v0.1", 6000) == rolling
    assert published(mistral, "mistral-7b-v0.1", 4096) == 2 * 32 * 4096 * 8 * 128 * 2
    # Gemma 3 1B: a window of 512 in five of six layers
    places = 22 * (511 + 128) + 4 * 32768
    assert published(gemma3_text, "gemma-3-1b", 32768) == 2 * places * 256 * 2


@given(layers=st.lists(st.one_of(st.none(), st.integers(1, 30)), min_size=1, max_size=4), batch=st.integers(1, 3),
       kv_heads=st.integers(1, 3), capacity=st.integers(1, 60), width=WIDTHS,
       dtype=st.sampled_from(["float16", "float32", "float64"]))  # fmt: skip
def test_any_cache_holds_what_is_computed(layers, batch, kv_heads, capacity, width, dtype):
    sizes = {"layers": len(layers), "batch": batch, "kv_heads": kv_heads, "capacity": capacity, "width": width, "dtype": dtype}
    for windows in (None, tuple(layers)):
        assert cache_bytes(**sizes, windows=windows) == Cache.empty(**sizes, windows=windows).nbytes


@pytest.mark.parametrize(("family", "variant"), [*((name, None) for name in FAMILIES), *VARIANTS], ids=str)
def test_the_cache_of_a_model_holds_what_its_config_says(family, variant):
    changes = {} if variant is None else FAMILIES[family].variants[variant]
    model = tiny(family, dtype="float32", **changes)
    layout, longest = cache_layout(model.family, model.config), min(model.config.cache_context or 5, 5)
    for capacity in (1, longest):
        cache = model.empty_cache(3, capacity)
        assert cache.nbytes == cache_bytes(**layout, batch=3, capacity=capacity, dtype=model.dtype)
        numbers = sum(math.prod(a.shape) for layer in cache.layers for a in layer.values())
        assert cache.nbytes == numbers * 4
    outputs, _ = model(np.ones((3, longest), int), cache=cache, grad=False)
    assert outputs["cache"].nbytes == cache.nbytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows": (3,)}, "cache: windows: expected one for each of 2 layers, got "),
        ({"windows": (3, 0)}, "cache: windows: expected None or an integer from 1 to "),
        ({"layers": 0}, "cache: layers: expected an integer from 1 to "),
        ({"capacity": 0}, "cache: capacity: expected an integer from 1 to "),
        ({"dtype": "int8"}, "cache: dtype: expected a floating-point dtype, got 'int8'"),
        ({"width": {}}, "cache: width: expected an integer, or a dict"),
    ],
    ids=str,
)
def test_wrong_sizes_are_refused_in_one_line(changes, message):
    sizes = {"layers": 2, "batch": 1, "kv_heads": 1, "capacity": 4, "width": 3, "dtype": "float32"}
    for f in (cache_bytes, Cache.empty):
        with pytest.raises(ValueError, match=message) as error:
            f(**{**sizes, **changes})
        assert "\n" not in str(error.value)
