"""The text model in a folder of Gemma 3 that also sees images: read by its text_config, what does not fit refused by name."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinyplm
from tests.support.families import batch, tiny
from tests.test_files import one_line

OTHERS = {"vision_tower.x": np.ones(2, np.float32), "multi_modal_projector.y": np.ones((2, 3), np.float32)}


def folder_of(folder, prefix="language_model.model.", outside=None, inside=None, tensors=None, **changes):
    """A tiny text model, and the folder of a model that has it under `prefix` beside two tensors of others."""
    model = tiny("gemma3_text", dtype="float32", **changes)
    tinyplm.save(model, folder)
    text = json.loads((folder / "config.json").read_text()) | (inside or {})
    text.pop("architectures")
    settings = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {"hidden_size": 2}}
    (folder / "config.json").write_text(json.dumps(settings | {"text_config": text} | (outside or {})))
    written = {name.replace("model.", prefix, 1): a for name, a in load_file(folder / "model.safetensors").items()}
    save_file(written | OTHERS | (tensors or {}), folder / "model.safetensors")
    return model


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_model_is_read_and_written_alone(tmp_path, prefix):
    model, (ids, _) = folder_of(tmp_path, prefix), batch()
    again = tinyplm.load(tmp_path)
    assert again.config == model.config and np.array_equal(again(ids)[0]["logits"], model(ids)[0]["logits"])
    tinyplm.save(again, tmp_path / "text")
    settings = json.loads((tmp_path / "text" / "config.json").read_text())
    assert (settings["model_type"], settings["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    assert "vision_config" not in settings and not load_file(tmp_path / "text" / "model.safetensors").keys() & OTHERS.keys()


def test_what_only_the_outer_settings_state_counts(tmp_path):
    folder_of(tmp_path, outside={"eos_token_id": [1, 5], "pad_token_id": 0})
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["text_config"]["eos_token_id"]
    settings["text_config"]["pad_token_id"] = 3
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = tinyplm.load(tmp_path).config
    assert (config.eos_token_id, config.pad_token_id) == ([1, 5], 3)


def test_a_classifier(tmp_path):
    architectures = ["Gemma3ForSequenceClassification"]
    score = np.ones((2, tiny("gemma3_text").config.hidden_size), np.float32)
    folder_of(
        tmp_path, outside={"architectures": architectures, "id2label": {"0": "a", "1": "b"}}, tensors={"score.weight": score}
    )
    assert tinyplm.load(tmp_path).task == "sequence_classification"


WRONG = {
    "text_config: expected an object, got None": {"outside": {"text_config": None}},
    "text_config: model_type: expected gemma3_text, got 'llama'": {"inside": {"model_type": "llama"}},
    "text_config: tie_word_embeddings: expected False, as outside text_config, got True": {
        "outside": {"tie_word_embeddings": False}
    },
    "hidden_size: expected a positive integer, got 0": {"inside": {"hidden_size": 0}},
    "quantization_config: expected a model without quantization, got": {"outside": {"quantization_config": {"bits": 4}}},
    "extra tensors: audio_tower.x": {"tensors": {"audio_tower.x": np.ones(2, np.float32)}},
    "expected one name for each tensor, got": {"tensors": {"model.language_model.norm.weight": np.ones(2, np.float32)}},
    "missing tensors: model.embed_tokens.weight": {"prefix": "model.text_model."},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, message):
    folder_of(tmp_path, **WRONG[message])
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        tinyplm.load(tmp_path)
    assert str(tmp_path) in one_line(error.value)
