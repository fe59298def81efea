"""Folders of every decoder: written and read as identity, config.json in each spelling, what does not fit refused by name."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinyplm
from tests.support.families import FAMILIES, batch, tiny
from tests.test_files import one_line
from tinyplm.core import flatten
from tinyplm.models.config import file_type, to_dict
from tinyplm.models.names import names_of, to_hub

each_family = pytest.mark.parametrize("family", FAMILIES)
VARIANTS = [(name, variant) for name, row in FAMILIES.items() for variant in ["plain", *row.variants]]


def settings_in(folder):
    return json.loads((folder / "config.json").read_text())


def with_settings(folder, settings):
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_saving_and_loading_is_the_identity(tmp_path, family, variant):
    model = tiny(family, dtype="float32", **FAMILIES[family].variants.get(variant, {}))
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert again.config == model.config and again.family is model.family
    leaves = flatten(again.params)
    assert all(a.tobytes() == leaves[path].tobytes() for path, a in flatten(model.params).items())
    settings = settings_in(tmp_path)
    tinyplm.save(again, tmp_path / "again")
    assert settings_in(tmp_path / "again") == settings and settings["model_type"] == file_type(type(model.config))
    assert settings["architectures"] == [model.config.ARCHITECTURE]


@each_family
def test_unknown_settings_are_kept(tmp_path, family):
    tinyplm.save(tiny(family, dtype="float32"), tmp_path)
    settings = settings_in(tmp_path) | {"use_cache": False, "auto_map": {"AutoConfig": "x.Y"}, "cache_implementation": "hybrid"}
    with_settings(tmp_path, settings)
    tinyplm.save(tinyplm.load(tmp_path), tmp_path / "again")
    assert settings_in(tmp_path / "again") == settings


ROTARY = [
    name for name, row in FAMILIES.items() if "rope_parameters" in to_dict(row.config) and name not in ("gemma3_text", "gpt_oss")
]


@pytest.mark.parametrize("family", ROTARY)
def test_rope_as_older_files_spell_it(tmp_path, family):
    """rope_theta and rope_scaling in place of rope_parameters: the same model, and written as it was read."""
    model, (ids, _) = tiny(family, dtype="float32"), batch()
    tinyplm.save(model, tmp_path)
    settings = settings_in(tmp_path)
    settings |= {"rope_theta": settings.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
    with_settings(tmp_path, settings)
    older = tinyplm.load(tmp_path)
    assert np.array_equal(older(ids)[0]["logits"], model(ids)[0]["logits"])
    tinyplm.save(older, tmp_path / "again")
    assert settings_in(tmp_path / "again") == settings
    with_settings(tmp_path, settings | {"rope_theta": 12.0})
    assert not np.array_equal(tinyplm.load(tmp_path)(ids)[0]["logits"], model(ids)[0]["logits"])


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text"])
def test_the_activation_of_gemma_under_each_name(tmp_path, family):
    """Released files of Gemma 1 say "gelu" in hidden_act, all mean the tanh GELU; the others' own field is hidden_activation."""
    model, (ids, _) = tiny(family, dtype="float32"), batch()
    tinyplm.save(model, tmp_path)
    settings = settings_in(tmp_path) | {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}
    with_settings(tmp_path, settings)
    again = tinyplm.load(tmp_path)
    assert np.array_equal(again(ids)[0]["logits"], model(ids)[0]["logits"])
    tinyplm.save(again, tmp_path / "again")
    assert settings_in(tmp_path / "again") == settings


@each_family
@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_tensors_of_another_layout_are_refused_by_name(tmp_path, family, change):
    model = tiny(family, dtype="float32")
    tinyplm.save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if ".1." in name and tensors[name].ndim == 2)
    if change == "extra":
        name, tensors = f"{name}x", {**tensors, f"{name}x": tensors[name]}
    else:
        tensors = {n: a[:-1] if n == name else a for n, a in tensors.items() if n != name or change == "shape"}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError) as error:
        tinyplm.load(tmp_path)
    assert name in one_line(error.value)


@pytest.mark.parametrize("layers", ["1", "[01]"])
def test_a_file_without_a_routers_bias_is_refused(tmp_path, layers):
    """One of them, and all."""
    tinyplm.save(tiny("deepseek_v3", dtype="float32", first_k_dense_replace=0), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bias = re.compile(rf"model\.layers\.{layers}\.mlp\.gate\.e_score_correction_bias")
    some = {name: a for name, a in tensors.items() if not bias.fullmatch(name)}
    assert len(some) == len(tensors) - len(layers.strip("[]"))
    save_file(some, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="missing tensors: .*gate.e_score_correction_bias"):
        tinyplm.load(tmp_path)


QUANTIZED = {"quant_method": "gptq", "bits": 4}


@each_family
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantization_config": QUANTIZED}, "config: quantization_config: expected a model without quantization"),
        ({"layer_norm_epsilon": "x", "layernorm_epsilon": "x", "rms_norm_eps": "x"}, "expected float, got 'x'"),
        ({"tie_word_embeddings": 1}, "config: tie_word_embeddings: expected bool, got 1"),
        ({"vocab_size": 2**40, "padded_vocab_size": 2**40}, "vocab_size: expected an integer of at most"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused_in_one_line(tmp_path, family, settings, message):
    with_settings(tmp_path, {"model_type": family, **settings})
    with pytest.raises(ValueError) as error:
        tinyplm.load(tmp_path)
    assert message in one_line(error.value) and "config.json" in str(error.value)


@pytest.mark.parametrize(
    ("family", "other"), [("gpt2", "gpt3"), ("glm", "glm4"), ("gemma2", "gemma3_text"), ("gemma3_text", "gemma2")]
)
def test_the_config_of_a_relative_is_refused(family, other):
    """Also where its class extends the family's own."""
    with pytest.raises(TypeError, match=rf"config: expected a tinyplm.families.{family}.Config, .*, got "):
        tinyplm.create(family, FAMILIES[other].config)


@each_family
def test_gradients_have_the_names_of_the_file(tmp_path, family):
    model, (ids, _) = tiny(family), batch()
    tinyplm.save(model, tmp_path)
    outputs, backward = model(ids)
    tree = {**backward({"logits": outputs["logits"]}), "buffers": model.buffers}
    gradients = to_hub(tree, names_of(model.family, model.config))
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name: a.shape for name, a in gradients.items()} == {name: a.shape for name, a in tensors.items()}
