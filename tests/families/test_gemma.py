"""Gemma 1's own: published counts, the gain 1 + w, the scaled embeddings, the tanh GELU under both names."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import tinyplm
from tests.support import families
from tests.support.decoder_formulas import assert_formula, geglu, turn, unit_rms
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.core import flatten
from tinyplm.families import gemma


def test_published_sizes_have_the_published_counts():
    assert_counts(gemma, {"gemma-2b": 2_506_172_416, "gemma-7b": 8_537_680_896})
    larger = gemma.SIZES["gemma-7b"]
    assert larger.heads * larger.head_width == 4096 != larger.hidden_size


@pytest.mark.parametrize(
    "changes", [{}, {"hidden_act": "gelu", "num_key_value_heads": 1}, {"tie_word_embeddings": False}], ids=str
)
def test_the_whole_model_equals_the_formulas(changes):
    model = families.tiny("gemma", **changes)
    assert_formula(
        model, batch()[0], families.PADDING, norm=partial(unit_rms, eps=1e-6), heads=(4, model.config.kv_heads), mlp=geglu,
        embed=lambda p, x: 6**0.5 * x, attention=lambda layer: {"turn": turn(10.0)},
    )  # fmt: skip


def test_gains_start_at_one():
    """Their distance from 1 is what files hold."""
    params = flatten(tinyplm.create("gemma", families.FAMILIES["gemma"].config).params)
    gains = [a for path, a in params.items() if path.endswith("gamma")]
    assert len(gains) == 5 and not any(a.any() for a in gains) and all(a.any() for p, a in params.items() if "norm" not in p)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_scale_of_embeddings_promotes_nothing(dtype):
    assert families.tiny("gemma", dtype=dtype)(np.array([[1]]))[0]["hidden"].dtype == dtype


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention: expected None or False for gemma, got True"),
        ({"hidden_act": "gelu_fast"}, "hidden_act: expected one of .*, got 'gelu_fast'"),
        ({"head_dim": 0}, "head_dim: expected a positive integer, got 0"),
        ({"num_key_value_heads": 3}, "num_attention_heads: expected a multiple of num_key_value_heads = 3, got 16"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    assert_refused(gemma.Config, changes, message)
