"""Mistral's own: published counts, the window, invalid configs; behaviour shared with other families
is in tests/models, sliding windows in tests/models/test_windows.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support import families
from tests.support.families import batch
from tests.support.llama_formulas import assert_formulas
from tinyplm.families import llama, mistral
from tinyplm.hub.names import count_parameters

TINY = families.FAMILIES["mistral"].config

# Parameter counts shown on the hub for the released weights.
COUNTS = {
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.2": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mistral-nemo": 12_247_782_400,
}


@pytest.mark.parametrize("size", COUNTS)
def test_published_sizes_have_the_published_counts(size):
    assert count_parameters(mistral.shapes(mistral.SIZES[size])) == COUNTS[size]
    assert COUNTS.keys() == mistral.SIZES.keys()


def test_only_the_first_release_has_a_window():
    windows = {name: config.sliding_window for name, config in mistral.SIZES.items()}
    assert windows == {**dict.fromkeys(COUNTS), "mistral-7b-v0.1": 4096}


def test_parameters_are_those_of_llama():
    fields = {f.name: getattr(TINY, f.name) for f in dataclasses.fields(TINY)}
    same = llama.Config(**{n: value for n, value in fields.items() if n != "sliding_window"})
    assert mistral.shapes(TINY) == llama.shapes(same)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 6, None])
def test_the_whole_model_equals_the_formulas(window):
    model = families.tiny("mistral", sliding_window=window)
    assert_formulas(model, batch()[0], families.PADDING, lambda layer: window)


def test_without_a_window_it_is_llama():
    ours, theirs = families.tiny("mistral", sliding_window=None), families.tiny("llama")
    ids, _ = batch()
    assert np.array_equal(ours(ids)[0]["logits"], theirs(ids)[0]["logits"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": 0}, "sliding_window"),
        ({"sliding_window": -4}, "sliding_window"),
        ({"sliding_window": 2.5}, "sliding_window"),
        (
            {"num_key_value_heads": 5},
            "num_attention_heads: expected a multiple of num_key_value_heads = 5, got 32",
        ),
        ({"hidden_act": "swish2"}, "hidden_act: expected one of "),
    ],
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        mistral.Config(**changes)
    assert "\n" not in str(error.value)


def test_what_a_config_without_these_fields_means():
    """transformers' defaults, which its own files may omit."""
    config = mistral.Config()
    assert (config.num_key_value_heads, config.sliding_window, config.intermediate_size) == (8, 4096, 14336)
