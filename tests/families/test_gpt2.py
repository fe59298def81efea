"""GPT-2's own: published counts, init, invalid configs.  Behaviour shared with other families is in test_causal_lm.py."""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import numpy as np
import pytest

import tests.support.families as families
import tinyplm
from tests.laws import equal
from tinyplm.core import flatten
from tinyplm.families import gpt2
from tinyplm.hub.names import count_parameters

TINY = families.FAMILIES["gpt2"].config
tiny = partial(families.tiny, "gpt2")  # used by the tests of training, generation and files that accept any model


# The released checkpoints, counted by transformers (table 2 of the paper says 117M, 345M, 762M, 1542M).
@pytest.mark.parametrize(("size", "count"), [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080),
                                             ("gpt2-xl", 1_557_611_200)])  # fmt: skip
def test_published_sizes_have_the_published_counts(size, count):
    start = time.perf_counter()
    assert count_parameters(gpt2.shapes(gpt2.SIZES[size])) == count
    assert time.perf_counter() - start < 0.1, "counting must not allocate"


def test_init_is_as_published_and_repeatable():
    config = dataclasses.replace(TINY, n_embd=64, vocab_size=500, n_layer=3)
    params = flatten(tinyplm.create("gpt2", config, key=5).params)
    assert equal(list(params.values()), list(flatten(tinyplm.create("gpt2", config, key=5).params).values()))
    assert not equal(params["body.tokens"], tinyplm.create("gpt2", config, key=6).params["body"]["tokens"])
    for path, a in params.items():
        assert a.dtype == np.float32
        name = path.rsplit(".", 1)[-1]
        if name == "gamma":
            assert (a == 1).all()
        elif name == "beta" or name.startswith("b"):
            assert not a.any()
        else:
            std = 0.02 / (6**0.5 if name in ("Wo", "W2") else 1)  # 2 residual additions in each of 3 layers
            assert abs(a.std() / std - 1) < 5 / (2 * a.size) ** 0.5 and abs(a.mean()) < 5 * std / a.size**0.5, path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 10, "n_head": 4}, "n_embd: expected a multiple of n_head = 4, got 10"),
        ({"n_layer": 0}, "n_layer: expected a positive integer, got 0"),
        ({"n_layer": 2.5}, "n_layer: expected int, got 2.5"),
        ({"resid_pdrop": 1.0}, r"resid_pdrop: expected a number in \[0, 1\), got 1.0"),
        ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon: expected a finite number >= 0, got -1.0"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"activation_function": "mish"}, "activation_function: expected one of "),
    ],
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        tinyplm.create("gpt2", **changes)
    assert "\n" not in str(error.value)
