"""GLM-4's own, with norms before the sublayers (glm) and on both sides (glm4): counts, RoPE of half a head, fused matrices."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import reference.models.decoder as ref
from tests.support import families
from tests.support.decoder_formulas import assert_formula, rms, turn
from tests.support.families import batch
from tests.support.sizes import assert_counts, assert_refused
from tinyplm.families import glm, glm4
from tinyplm.models.names import to_hub


def test_published_sizes_have_the_published_counts():
    assert_counts(glm, {"glm-4-9b": 9_399_951_360, "glm-4-9b-chat": 9_399_951_360})
    assert_counts(glm4, {"glm-4-9b-0414": 9_400_279_040, "glm-4-32b-0414": 32_566_081_536})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_bias": False, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "partial_rotary_factor": 1.0}},
        {"rope_parameters": None, "rope_theta": 10.0, "head_dim": 12},
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "wiring"), [("glm", ref.pre_norm), ("glm4", ref.both_norms)])
def test_the_whole_model_equals_the_formulas(name, wiring, changes):
    """Pairs (2i, 2i + 1) of the first part of each head turn."""
    model = families.tiny(name, **changes)
    share = (changes.get("rope_parameters") or {}).get("partial_rotary_factor", 0.5)
    rotation = turn(10.0, width=int(share * model.config.head_width), interleaved=True)
    assert_formula(
        model, batch()[0], families.PADDING, norm=partial(rms, eps=1.5625e-07), heads=(4, model.config.kv_heads), wiring=wiring,
        attention=lambda layer: {"turn": rotation},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["glm", "glm4"])
def test_gate_and_up_are_one_matrix_in_the_files(name):
    model = families.tiny(name)
    mlp = model.params["body"]["layers"][1]["mlp"]
    tensors = to_hub(model.params, model.family.NAMES)
    expected = np.vstack([mlp["Wgate"].T, mlp["Wup"].T])
    assert np.array_equal(tensors["model.layers.1.mlp.gate_up_proj.weight"], expected)
    norms = {name for name in tensors if "layers.0" in name and "layernorm" in name}
    assert len(norms) == {"glm": 2, "glm4": 4}[name]


@pytest.mark.parametrize("cls", [glm.Config, glm4.Config])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0}},
            r"partial_rotary_factor: expected a number in \(0",
        ),
        ({"head_dim": 6}, "RoPE: width: expected an even number of components, at least 2, got 3"),
        ({"num_key_value_heads": 5}, "num_attention_heads: expected a multiple of num_key_value_heads = 5, got 32"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(cls, changes, message):
    assert_refused(cls, changes, message)
