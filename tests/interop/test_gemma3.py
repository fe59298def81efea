# ruff: noqa: E402 - imports follow importorskip
"""The text model of a Gemma 3 that also sees images, against transformers' whole model on texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file

import tinyplm
from tests.interop.families import FAMILIES
from tests.interop.pair import (
    as_torch,
    assert_same,
    assert_same_gradients,
    exact_logits,
    float64,
    padding,
    random_model,
    with_ours,
)
from tests.interop.test_causal_files import settings_in
from tinyplm import hub
from tinyplm.families import gemma3_text
from tinyplm.hub.text_part import text_settings
from tinyplm.models.config import from_dict

pytestmark = pytest.mark.usefixtures("in_float64")

VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
IMAGES = {"mm_tokens_per_image": 4, "image_token_index": 40, "boi_token_index": 38, "eoi_token_index": 39}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def whole(request):
    text = {**FAMILIES["gemma3_text"].tiny, "num_hidden_layers": 3, "tie_word_embeddings": request.param}
    text |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    config = transformers.Gemma3Config(text_config=text, vision_config=VISION, tie_word_embeddings=request.param, **IMAGES)
    config._attn_implementation = "eager"
    return random_model(transformers.Gemma3ForConditionalGeneration, config)


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_logits_and_gradients_of_texts(tmp_path, whole, side):
    _, ours = with_ours(whole, tmp_path)
    assert ours.config.MODEL_TYPE == "gemma3_text"
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 38, (3, 9))
    mask, positions = padding(side, *ids.shape)
    rows = np.ones(ids.shape, dtype=bool) if mask is None else mask == 1
    kwargs = {"attention_mask": mask, "position_ids": positions}
    with float64():
        logits = whole(input_ids=torch.from_numpy(ids), **as_torch(**kwargs)).logits
    outputs, backward = ours(ids, **kwargs)
    assert_same("logits", outputs["logits"][rows], logits.detach().numpy()[rows])
    cotangent = rng.normal(size=logits.shape) * rows[..., None]
    logits.backward(torch.from_numpy(cotangent))
    theirs = {name.replace("model.language_model.", "model."): p.grad.numpy() for name, p in whole.named_parameters()
              if p.grad is not None}  # fmt: skip
    assert_same_gradients(hub.gradients_by_hub_name(ours, backward({"logits": cotangent})), theirs)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_either_prefix_is_read_and_the_text_model_is_written_alone(tmp_path, whole, prefix):
    """transformers reads what we write as Gemma3ForCausalLM, with the same numbers."""
    whole.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    renamed = {name.replace("language_model.model.", prefix).replace("language_model.lm_head.", "lm_head."): np.array(a)
               for name, a in written.items()}  # fmt: skip
    others = [name for name in written if not name.startswith("language_model.")]
    assert {name.split(".")[0] for name in others} == {"vision_tower", "multi_modal_projector"}
    if prefix.startswith("model."):
        renamed = {f"model.{name}" if name in others else name: a for name, a in renamed.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    ours = tinyplm.load(tmp_path)
    tinyplm.save(ours, tmp_path / "text")
    settings = settings_in(tmp_path / "text")
    assert settings["model_type"] == "gemma3_text" and settings["architectures"] == ["Gemma3ForCausalLM"]
    assert settings == {**settings_in(tmp_path)["text_config"], "architectures": ["Gemma3ForCausalLM"], "dtype": "float64"}
    ids = np.random.default_rng(0).integers(0, 38, (2, 9))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text", attn_implementation="eager")
    assert type(theirs) is transformers.Gemma3ForCausalLM
    with torch.no_grad(), float64():
        expected = whole(input_ids=torch.from_numpy(ids)).logits.numpy()
    assert_same("logits", exact_logits(theirs, ids), expected)
    assert_same("logits", ours(ids)[0]["logits"], expected)


def test_a_released_config_with_few_fields(tmp_path):
    """The fields that text_config leaves out have the defaults of the family, in both libraries."""
    source = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106],
              "boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144, "mm_tokens_per_image": 256,
              "initializer_range": 0.02, "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
              "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                              "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                              "sliding_window": 1024},
              "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
                                "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
                                "patch_size": 14, "vision_use_head": False}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(source))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path).text_config
    ours = from_dict(gemma3_text.Config, text_settings(source))
    names = ("vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window",
             "query_pre_attn_scalar", "rms_norm_eps", "hidden_activation", "hidden_size", "num_hidden_layers")  # fmt: skip
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    assert ours.eos_token_id == [1, 106] and ours.tie_word_embeddings
    full, local = theirs.rope_parameters["full_attention"], theirs.rope_parameters["sliding_attention"]
    assert (ours.rope.type, ours.rope.base, ours.rope.settings) == ("linear", full["rope_theta"], {"factor": full["factor"]})
    assert (ours.local_rope.type, ours.local_rope.base) == ("default", local["rope_theta"])
