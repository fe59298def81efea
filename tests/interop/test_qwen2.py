# ruff: noqa: E402 - imports follow importorskip
"""What is specific to Qwen2, against transformers: windows by layer; the rest is in test_causal.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.families import FAMILIES
from tests.interop.pair import assert_same, compare, exact_logits, pair
from tests.interop.test_causal_files import random_model, read, settings_in
from tinyplm.families import qwen2
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import to_dict

FULL, SLIDING = "full_attention", "sliding_attention"
WINDOWS = {
    "off": {"use_sliding_window": False},
    "off, with layers": {"use_sliding_window": False, "max_window_layers": 0},
    "on without a window": {"sliding_window": None, "max_window_layers": 0},
    "no layer": {"max_window_layers": 3},
    "all layers": {"max_window_layers": 0},
    "window of 1": {"sliding_window": 1, "max_window_layers": 2},
    "lower layers": {"layer_types": [SLIDING, FULL, FULL]},
    "in turn": {"layer_types": [SLIDING, FULL, SLIDING], "max_window_layers": 1},
    "layer types without": {"layer_types": [FULL] * 3, "max_window_layers": 0},
}


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_by_layer(tmp_path, name):
    """Sequences longer than the window of 4."""
    theirs, ours = pair("qwen2", tmp_path, num_hidden_layers=3, **WINDOWS[name])
    kinds = [SLIDING if ours.config.window_of(i) else FULL for i in range(3)]
    assert theirs.config.layer_types == kinds
    if name != "window of 1":  # one layer's queries and keys have no gradient there, which compare rejects
        for side in ("none", "right", "left"):
            compare(theirs, ours, side=side, T=9)
    ids = np.random.default_rng(0).integers(0, 41, (2, 12))
    assert_same("logits", ours(ids)[0]["logits"], exact_logits(theirs, ids))


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {"num_key_value_heads": None},
        {"rms_norm_eps": 0.03, "hidden_act": "gelu"},
        {"head_dim": 14},  # not a Qwen2 field, but transformers accepts it
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0}},
    ],
    ids=str,
)
def test_every_setting_of_the_config(tmp_path, changes):
    compare(*pair("qwen2", tmp_path, **changes), side="left")


@pytest.mark.parametrize("name", WINDOWS)
def test_folders_both_ways(tmp_path, name):
    """transformers reads our windows and writes layer_types, which we read and write back."""
    ours = random_model("qwen2", num_hidden_layers=3, **WINDOWS[name])
    tinyplm.save(ours, tmp_path / "ours")
    assert "head_dim" not in settings_in(tmp_path / "ours"), "transformers cannot read a null there"
    theirs = read("qwen2", tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    again = tinyplm.load(tmp_path / "theirs")
    windows = [ours.config.window_of(i) for i in range(3)]
    assert [again.config.window_of(i) for i in range(3)] == windows
    assert settings_in(tmp_path / "theirs")["layer_types"] == again.config.layer_types
    tinyplm.save(again, tmp_path / "again")
    assert settings_in(tmp_path / "again") == settings_in(tmp_path / "theirs")
    ids = np.random.default_rng(0).integers(0, 41, (2, 12))
    assert np.array_equal(again(ids)[0]["logits"], ours(ids)[0]["logits"])


@pytest.mark.usefixtures("in_float64")
def test_a_released_config(tmp_path):
    """A config.json like Qwen2.5's, with a window that is switched off and no layer_types."""
    settings = {
        **{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu"},
        **{"attention_dropout": 0.0, "bos_token_id": 40, "eos_token_id": 40, "hidden_size": 32},
        **{"initializer_range": 0.02, "intermediate_size": 44, "max_position_embeddings": 12},
        **{"max_window_layers": 1, "num_attention_heads": 4, "num_hidden_layers": 2},
        **{"num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0},
        **{"sliding_window": 4, "tie_word_embeddings": False, "torch_dtype": "float64"},
        **{"transformers_version": "4.40.1", "use_cache": True, "use_mrope": False},
        **{"use_sliding_window": False, "vocab_size": 41},
    }
    tinyplm.save(random_model("qwen2"), tmp_path)  # for the tensors
    (tmp_path / "config.json").write_text(json.dumps(settings))
    ours = tinyplm.load(tmp_path)
    ids = np.random.default_rng(0).integers(0, 41, (2, 12))
    assert_same("logits", ours(ids)[0]["logits"], exact_logits(read("qwen2", tmp_path), ids))
    tinyplm.save(ours, tmp_path / "ours")
    assert settings_in(tmp_path / "ours") == settings


def test_layer_types_that_need_a_window_are_refused_where_transformers_fails_later():
    changes = {"layer_types": [SLIDING, FULL], "num_hidden_layers": 2, "use_sliding_window": False}
    theirs = FAMILIES["qwen2"].lm(FAMILIES["qwen2"].config(**{**FAMILIES["qwen2"].tiny, **changes}))
    with pytest.raises(TypeError, match="NoneType"):
        theirs(torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match="expected full_attention alone without a window"):
        qwen2.Config(**changes)


@pytest.mark.parametrize("size", qwen2.SIZES)
def test_the_counts_are_those_of_transformers(size):
    config = qwen2.SIZES[size]
    settings = {n: value for n, value in to_dict(config).items() if value is not None}
    with torch.device("meta"):
        theirs = FAMILIES["qwen2"].lm(transformers.Qwen2Config(**settings))
    assert count_parameters(qwen2.shapes(config)) == theirs.num_parameters()


def test_the_defaults_are_those_of_transformers():
    """transformers fills in layer_types and RoPE's settings, and drops an unused window."""
    ours, theirs = to_dict(qwen2.Config()), transformers.Qwen2Config().to_dict()
    assert ours.pop("rope_parameters") is None and ours.pop("sliding_window") == 4096
    assert theirs["sliding_window"] is None
    assert {name: theirs[name] for name in ours} == ours
