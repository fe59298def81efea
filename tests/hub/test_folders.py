"""Folders: saving and loading round-trips, names, dtypes, and every damaged file is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyplm
from tests.families.test_gpt2 import tiny
from tests.laws import equal
from tinyplm.core import flatten
from tinyplm.families import gpt2
from tinyplm.files import write_json
from tinyplm.hub import folders as hub
from tinyplm.hub import tensors as tensor_files
from tinyplm.models.config import from_dict, to_dict
from tinyplm.tokenizers import Tokenizer


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_saving_and_loading_is_the_identity(tmp_path, tied, dtype):
    model = tiny(tie_word_embeddings=tied, dtype=dtype)
    tinyplm.save(model, tmp_path)
    again = tinyplm.load(tmp_path)
    assert again.config == model.config and again.dtype == dtype and equal(again.params, model.params)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]  # no temporary file remains


def test_the_tokenizer_travels_with_the_model(tmp_path):
    model = tiny()
    model.tokenizer = Tokenizer.train(["a few words, a few more words"], 262)
    tinyplm.save(model, tmp_path)
    assert tinyplm.load(tmp_path).tokenizer.encode("a few") == model.tokenizer.encode("a few")


def test_bfloat16_loads_as_float32_and_is_written_back(tmp_path):
    model = tiny(dtype="float32")
    tinyplm.save(model, tmp_path, dtype="BF16")
    again = tinyplm.load(tmp_path)
    assert again.dtype == np.float32 and set(again.file_dtypes.values()) == {"BF16"}
    first = (tmp_path / "model.safetensors").read_bytes()
    tinyplm.save(again, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == first
    tinyplm.save(again, tmp_path, dtype="F32")
    assert (tmp_path / "model.safetensors").stat().st_size > 1.4 * len(first)


@pytest.mark.parametrize(("kinds", "widest"), [(["F16", "BF16"], "float32"), (["F16", "F32", "BF16"], "float32"),
                                               (["BF16", "F16", "F64"], "float64")])  # fmt: skip
def test_files_of_several_dtypes(tmp_path, kinds, widest):
    """All parameters get the widest dtype; saving writes each tensor back in its own, bit-identically."""
    file = tmp_path / "model.safetensors"
    tinyplm.save(tiny(dtype="float64"), tmp_path)
    tensors = {name: np.array(a) for name, a in tensor_files.read_safetensors(file)[0].items()}
    tensor_files.write_safetensors(file, tensors, {name: kinds[i % len(kinds)] for i, name in enumerate(tensors)})
    model = tinyplm.load(tmp_path)
    assert {a.dtype.name for a in flatten(model.params).values()} == {widest}
    assert set(model.file_dtypes.values()) == set(kinds)
    first = file.read_bytes()
    tinyplm.save(model, tmp_path)
    assert file.read_bytes() == first


@pytest.mark.parametrize(("dtype", "value"), [("F16", 1e6), ("F16", -65520.0), ("BF16", 3.4e38), ("F32", 1e39), ("BF16", -1e300)])
def test_overflow_is_refused_before_anything_is_written(tmp_path, dtype, value):
    model = tiny()
    tinyplm.save(model, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model.params["body"]["norm"]["beta"][3] = value
    with pytest.raises(ValueError, match=rf"tensor transformer.ln_f.bias: expected values within {dtype}, got "):
        tinyplm.save(model, tmp_path, dtype=dtype)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_bfloat16_rounds_to_nearest_even():
    one = np.float32(1).view(np.uint32)
    step = 1 << 16  # one unit in the last place of bfloat16, in bits of float32
    bits = np.array([one, one + step // 2, one + step // 2 + 1, one + step + step // 2, one + step // 2 - 1], dtype=np.uint32)
    rounded = tensor_files.round_to_bfloat16(bits.view(np.float32)).astype(np.int64) - (int(one) >> 16)
    assert rounded.tolist() == [0, 0, 1, 2, 0]
    special = tensor_files.round_to_bfloat16(np.array([np.inf, -np.inf, np.nan, 3.4e38], dtype=np.float32))
    values = (special.astype(np.uint32) << 16).view(np.float32)
    assert values[:2].tolist() == [np.inf, -np.inf] and np.isnan(values[2]) and np.isinf(values[3])


def test_names_with_and_without_the_base_prefix(tmp_path):
    model = tiny()
    tinyplm.save(model, tmp_path)
    tensors, _ = tensor_files.read_safetensors(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): np.array(a) for name, a in tensors.items()}
    bare["h.0.attn.bias"] = np.ones((1, 1, 6, 6))  # a causal mask, as in old files
    bare["lm_head.weight"] = bare["wte.weight"]  # a tied head written twice
    tensor_files.write_safetensors(tmp_path / "model.safetensors", bare)
    assert equal(tinyplm.load(tmp_path).params, model.params)
    bare["lm_head.weight"] = bare["wte.weight"] + 1
    tensor_files.write_safetensors(tmp_path / "model.safetensors", bare)
    with pytest.raises(ValueError, match=r"lm_head.weight: expected the values of transformer.wte.weight"):
        tinyplm.load(tmp_path)


def test_reading_and_writing_a_config_is_the_identity():
    source = {"model_type": "gpt2", "n_embd": 12, "n_head": 3, "some_future_key": [1], "summary_type": "cls_index"}
    config = from_dict(gpt2.Config, source)
    assert to_dict(config) == source and config.n_embd == 12 and config.n_layer == 12


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("layer_norm_epsilon", "a", "expected float, got 'a'"),
        ("layer_norm_epsilon", None, "expected float, got None"),
        ("layer_norm_epsilon", True, "expected float, got True"),
        ("layer_norm_epsilon", -1, "expected a finite number >= 0, got -1"),
        ("layer_norm_epsilon", float("nan"), "expected a finite number, got nan"),
        ("tie_word_embeddings", "false", "expected bool, got 'false'"),
        ("tie_word_embeddings", 1, "expected bool, got 1"),
        ("attn_pdrop", None, "expected float, got None"),
        ("n_layer", 2.0, "expected int, got 2.0"),
        ("n_layer", True, "expected int, got True"),
        ("n_inner", "4", r"expected int \| None, got '4'"),
        ("n_inner", 0, "expected a positive integer, got 0"),
        ("activation_function", 3, "expected str, got 3"),
        ("eos_token_id", ["a"], r"expected int \| list\[int\] \| None, got \['a'\]"),
    ],
)
def test_values_of_another_type_are_refused(field, value, expected):
    with pytest.raises(ValueError, match=f"^config: {field}: {expected}$"):
        from_dict(gpt2.Config, {"model_type": "gpt2", field: value})


def test_values_that_the_annotations_allow():
    values = {"resid_pdrop": 0, "n_inner": None, "eos_token_id": [3, 5], "bos_token_id": None, "quantization_config": None}
    assert to_dict(from_dict(gpt2.Config, values)) == {"model_type": "gpt2", **values}


def test_other_spellings_of_a_field_are_understood():
    config = from_dict(gpt2.Config, {"model_type": "gpt2", "hidden_size": 36, "num_attention_heads": 4})
    assert (config.n_embd, config.n_head) == (36, 4)
    with pytest.raises(ValueError, match="^config: num_attention_heads: expected 3, the value of its synonym n_head, got 4$"):
        from_dict(gpt2.Config, {"n_embd": 36, "n_head": 3, "num_attention_heads": 4})


def test_gradients_under_hub_names():
    model = tiny()
    outputs, backward = model([[1, 2]])
    named = hub.gradients_by_hub_name(model, backward({"logits": outputs["logits"]}))
    assert named["transformer.h.1.attn.c_attn.weight"].shape == (6, 18) and "transformer.wte.weight" in named


def _damage(tmp_path, change):
    tinyplm.save(tiny(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: np.array(a) for name, a in tensor_files.read_safetensors(file)[0].items()}
    change(tensors)
    tensor_files.write_safetensors(file, tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("transformer.h.1.mlp.c_fc.bias"), r"missing tensors: transformer.h.1.mlp.c_fc.bias$"),
        (lambda t: t.update({"transformer.h.2.ln_1.bias": np.ones(6)}), r"extra tensors: transformer.h.2.ln_1.bias$"),
        (lambda t: t.update({"wte.weight": t["transformer.wte.weight"]}),
         r"one name for each tensor, got (transformer.wte.weight and wte.weight|wte.weight and transformer.wte.weight)$"),
        (lambda t: t.update({"transformer.ln_f.bias": np.ones(6, dtype=np.int64)}),
         r"transformer.ln_f.bias: expected a floating-point dtype, got int64$"),
        (lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"].T.copy().reshape(6, 11)}),
         "lm_head.weight: expected the values of transformer.wte.weight, .*tie_word_embeddings = true, got others$"),
        (lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"].reshape(6, 11)}),  # the same bytes
         "lm_head.weight: expected the values of transformer.wte.weight"),
        (lambda t: t.update({"transformer.wpe.weight": np.ones((7, 6))}),
         r"transformer.wpe.weight: expected shape \(6, 6\), got \(7, 6\)$"),
    ],
)  # fmt: skip
def test_missing_extra_and_misshapen_tensors_are_named(tmp_path, change, message):
    _damage(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        tinyplm.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_refused(tmp_path, keep):
    tinyplm.save(tiny(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors: expected a complete safetensors file, got an error"):
        tinyplm.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{", "expected valid JSON, got an error"),
        ("config.json", "[]", "expected an object with model_type"),
        ("config.json", json.dumps({"model_type": "gpt9"}), "model_type: expected one of .*, got 'gpt9'"),
        ("config.json", json.dumps({"model_type": ["gpt2"]}), r"config.json: model_type: expected a string, got \['gpt2'\]"),
        (
            "config.json",
            json.dumps({"model_type": "gpt2", "quantization_config": {"bits": 4}}),
            "expected a model without",
        ),
        ("config.json", json.dumps({"model_type": "gpt2", "n_head": 0}), "n_head: expected a positive integer, got 0"),
        ("config.json", json.dumps({"model_type": "gpt2", "add_cross_attention": True}), "add_cross_attention"),
    ],
)
def test_bad_configs_are_refused(tmp_path, file, text, message):
    tinyplm.save(tiny(), tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        tinyplm.load(tmp_path)


def test_missing_folders_and_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: expected a model folder, .*, got none .no such folder."):
        tinyplm.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"config.json: expected a file, got none .no such file."):
        tinyplm.load(tmp_path)
    tinyplm.save(tiny(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model.safetensors: expected a safetensors file, got none .no such file."):
        tinyplm.load(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_model_larger_than_its_file_is_refused_before_its_tree_is_walked(tmp_path, monkeypatch):
    """With as many layers as a config allows, walking the tree alone takes seconds."""
    tinyplm.save(tiny(), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"n_layer": 10_000}))
    monkeypatch.setattr("tinyplm.hub.names.flatten", None)
    monkeypatch.setattr("tinyplm.hub.heads.flatten", None)
    with pytest.raises(ValueError, match=r"model.safetensors: expected 10000 layers, as in config.json, got \d+ tensors$"):
        tinyplm.load(tmp_path)
