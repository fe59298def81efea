# ruff: noqa: E402 - imports follow importorskip
"""What is specific to decoders with experts, against transformers; the rest is in test_causal.py and test_causal_files.py."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.pair import assert_same, compare, exact_logits, named_gradients, pair
from tests.interop.test_causal_files import random_model, read, settings_in
from tinyplm.families import qwen2_moe, qwen3_moe
from tinyplm.hub import folders as hub
from tinyplm.models.config import to_dict

FULL, SLIDING = "full_attention", "sliding_attention"
SETTINGS = [
    ("qwen2_moe", {"norm_topk_prob": True}),
    ("qwen2_moe", {"decoder_sparse_step": 2, "num_hidden_layers": 3}),
    ("qwen2_moe", {"mlp_only_layers": [1], "num_hidden_layers": 3}),
    ("qwen2_moe", {"mlp_only_layers": [0, 3], "decoder_sparse_step": 2, "num_hidden_layers": 4}),
    ("qwen2_moe", {"qkv_bias": False, "use_sliding_window": False}),
    ("qwen2_moe", {"num_hidden_layers": 4, "max_window_layers": 2}),  # a window in layer 0
    ("qwen2_moe", {"num_hidden_layers": 3, "max_window_layers": 0}),
    ("qwen2_moe", {"num_hidden_layers": 3, "layer_types": [FULL, SLIDING, FULL], "sliding_window": 2}),
    ("qwen2_moe", {"num_experts": 1, "num_experts_per_tok": 1, "hidden_act": "gelu"}),
    ("qwen2_moe", {"head_dim": 10, "rms_norm_eps": 0.03}),
    ("qwen3_moe", {"norm_topk_prob": False}),
    ("qwen3_moe", {"decoder_sparse_step": 2, "num_hidden_layers": 3, "attention_bias": True}),
    ("qwen3_moe", {"mlp_only_layers": [0], "num_experts_per_tok": 5}),
    ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 3}),
    ("qwen3_moe", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0}}),
    ("mixtral", {"num_local_experts": 3, "num_experts_per_tok": 3, "sliding_window": None}),
]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("family", "changes"), SETTINGS, ids=str)
def test_every_setting(tmp_path, family, changes):
    """Numbers, the gradients of all parameters, the routers' logits and the balance loss; and the files."""
    theirs, ours = pair(family, tmp_path, **changes)
    for side in ("none", "left"):
        if changes.get("num_experts") != 1:  # whose router has no gradient where its weight is 1, which compare rejects
            compare(theirs, ours, side=side, T=9)
    ids = np.random.default_rng(0).integers(0, 41, (2, 12))
    assert_same("logits", ours(ids)[0]["logits"], exact_logits(theirs, ids))
    tinyplm.save(ours, tmp_path / "ours")
    assert settings_in(tmp_path / "ours") == settings_in(tmp_path)
    assert_same("logits", exact_logits(read(family, tmp_path / "ours"), ids), ours(ids)[0]["logits"])


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_experts_that_no_token_chooses_have_a_gradient_of_zeros(tmp_path, family):
    """Two tokens choose at most four of nine."""
    name = "num_local_experts" if family == "mixtral" else "num_experts"
    theirs, ours = pair(family, tmp_path, **{name: 9})
    ids = np.array([[5, 7]])
    output = theirs(torch.from_numpy(ids))
    outputs, backward = ours(ids)
    cotangent = np.random.default_rng(0).normal(size=(1, 2, 41))
    output.logits.backward(torch.from_numpy(cotangent))
    gradients, expected = hub.gradients_by_hub_name(ours, backward({"logits": cotangent})), named_gradients(theirs)
    chosen = {(i, j) for i in range(2) for j in np.unique(outputs["chosen_experts"][:, :, i])}
    unseen = 0
    for hub_name in (n for n in expected if ".experts." in n):
        layer, expert = (int(part) for part in hub_name.split(".") if part.isdigit())
        assert_same(hub_name, gradients[hub_name], expected[hub_name])
        assert gradients[hub_name].any() == ((layer, expert) in chosen)
        unseen += (layer, expert) not in chosen
    assert unseen >= 3 * 2 * 5


@pytest.mark.parametrize("changes", [{"max_window_layers": 1}, {"max_window_layers": 4}, {"use_sliding_window": False},
                                     {"layer_types": [SLIDING, SLIDING, FULL]}], ids=str)  # fmt: skip
def test_windows_of_ours_are_read(tmp_path, changes):
    """transformers writes layer_types, and a window of 0 where it is off; we read and keep both."""
    ours = random_model("qwen2_moe", num_hidden_layers=3, **changes)
    tinyplm.save(ours, tmp_path / "ours")
    theirs = read("qwen2_moe", tmp_path / "ours")
    windows = [ours.config.window_of(i) for i in range(3)]
    assert theirs.config.layer_types == [SLIDING if window else FULL for window in windows]
    theirs.save_pretrained(tmp_path / "theirs")
    again = tinyplm.load(tmp_path / "theirs")
    assert [again.config.window_of(i) for i in range(3)] == windows
    assert settings_in(tmp_path / "theirs")["sliding_window"] == (4 if changes.get("use_sliding_window", True) else 0)
    ids = np.random.default_rng(0).integers(0, 41, (2, 12))
    assert_same("logits", again(ids)[0]["logits"], exact_logits(theirs, ids))


@pytest.mark.parametrize(("module", "config"), [(qwen2_moe, "Qwen2MoeConfig"), (qwen3_moe, "Qwen3MoeConfig")])
def test_the_defaults_are_those_of_transformers(module, config):
    """transformers fills in layer_types, RoPE's settings and an empty list, and drops an unused window."""
    ours, theirs = to_dict(module.Config()), getattr(transformers, config)().to_dict()
    assert ours.pop("rope_parameters") is None and ours.pop("sliding_window") == 4096 and not theirs["sliding_window"]
    if module is qwen3_moe:
        theirs["num_experts"] = theirs.pop("num_local_experts")
    assert {name: theirs[name] for name in ours} == ours
