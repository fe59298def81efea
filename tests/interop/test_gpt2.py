# ruff: noqa: E402 - imports follow importorskip
"""What is specific to GPT-2, against transformers; the rest is in test_causal.py (tolerance: see pair.py)."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


from tests.interop.pair import compare, pair
from tinyplm.families import gpt2
from tinyplm.kernels.activation import ACTIVATIONS
from tinyplm.models.config import to_dict

pytestmark = pytest.mark.usefixtures("in_float64")


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
        {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
        {"layer_norm_epsilon": 0.03},
        {"n_inner": 17},
        {"n_inner": None, "n_embd": 30, "n_head": 3},
        {"n_embd": 30, "n_head": 5, "n_inner": 17, "vocab_size": 7},
        {"n_embd": 10, "n_head": 1, "n_layer": 1},
        {"n_embd": 9, "n_head": 9},  # heads one number wide
        *({"activation_function": name} for name in ACTIVATIONS if name != "gelu_new"),
    ],
    ids=str,
)
def test_every_setting_of_the_config(tmp_path, changes):
    compare(*pair("gpt2", tmp_path, **changes), side="left")


def test_longer_than_the_context_is_refused(tmp_path):
    """transformers fails in its embedding look-up with an IndexError; ours says what it expected and got."""
    theirs, ours = pair("gpt2", tmp_path)
    ids = np.ones((1, 13), dtype=np.int64)
    with pytest.raises(IndexError):
        theirs(torch.from_numpy(ids))
    with pytest.raises(ValueError, match="expected at most 12 tokens, the context, got 13"):
        ours(ids)


def test_the_defaults_are_those_of_transformers():
    ours, theirs = to_dict(gpt2.Config()), transformers.GPT2Config().to_dict()
    assert {name: theirs[name] for name in ours} == ours
