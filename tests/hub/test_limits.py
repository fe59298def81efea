"""Settings that no model has, and non-finite weights, are refused in one line before any expensive work."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import get_args, get_type_hints

import numpy as np
import pytest

import tinyplm
from tests.support import encoder_families, families
from tests.test_files import one_line
from tinyplm import memory
from tinyplm.families import family
from tinyplm.hub import tensors as tensor_files
from tinyplm.models import config

NAMES = [*families.FAMILIES, *encoder_families.FAMILIES]


def tiny(name: str, **options) -> tinyplm.Model:
    return (families if name in families.FAMILIES else encoder_families).tiny(name, **options)


def with_settings(folder, **changes):
    settings = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(settings))


def refusal(folder, **options) -> str:
    start = time.process_time()
    with pytest.raises(ValueError) as error:
        tinyplm.load(folder, **options)
    assert time.process_time() - start < 2
    return one_line(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_config_has_a_limit(name):
    """Integers are limited by name; other numbers must be finite."""
    cls = family(name).Config
    for field, kind in get_type_hints(cls).items():
        kinds = {kind, *get_args(kind)}
        if field not in [f.name for f in dataclasses.fields(cls)] or not kinds & {int, float}:
            continue
        beyond = (
            {config.limit(field) + 1, -config.limit(field) - 1, 10**12, 10**400}
            if float not in kinds
            else {math.inf, -math.inf, math.nan, 10**400}
        )
        for value in beyond:
            with pytest.raises(ValueError, match=f"config: {field}: expected (an integer of at most|a finite number)") as error:
                cls(**{field: value})
            one_line(error.value)
            if int in kinds and list[int] in kinds:
                with pytest.raises(ValueError, match=f"config: {field}: expected an integer of at most"):
                    cls(**{field: [1, value]})


def test_the_limits():
    expected = {"n_layer": 10_000, "num_hidden_groups": 10_000, "vocab_size": 2**31 - 1, "n_positions": 2**31 - 1,
                "mem_len": 2**31 - 1, "eos_token_id": 2**31 - 1, "hidden_size": 2**20, "head_dim": 2**20}  # fmt: skip
    assert {name: config.limit(name) for name in expected} == expected
    for name, module in ((name, family(name)) for name in NAMES):
        for size in module.SIZES.values():
            assert size.MODEL_TYPE == name  # no published size exceeds them


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("gpt2", {"n_layer": 10**11}, "n_layer: expected an integer of at most 10000, got 100000000000"),
    ("gpt2", {"n_layer": 10_000}, "expected 10000 layers, as in config.json, got 28 tensors"),
    ("bert", {"num_hidden_layers": 10**6}, "num_hidden_layers: expected an integer of at most 10000, got 1000000"),
    ("bert", {"num_hidden_layers": 10**4}, "expected 10000 layers, as in config.json, got "),
    ("albert", {"num_hidden_layers": 10**4, "num_hidden_groups": 10**4, "inner_group_num": 10**4}, "expected 100000000 layers"),
    ("llama", {"head_dim": 10**12}, "head_dim: expected an integer of at most 1048576"),
    ("llama", {"rope_theta": 1e400, "rope_parameters": None}, "rope_theta: expected a finite number, got inf"),
    ("llama", {"rope_parameters": {"rope_theta": 10**39}}, "rope_theta: expected at most 1e\\+15"),
    ("llama", {"rope_parameters": {"rope_theta": math.inf}}, "rope_theta: expected at most 1e\\+15|a number > 1"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 1e-320}}, "beta_fast: expected 0 or"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_slow": 1e300}}, "beta_slow: expected at most 1e"),
    ("llama", {"rope_parameters": {"rope_type": "x\n" * 10**5}}, "rope_type: expected one of .*, got 'x"),
    ("deberta-v2", {"num_attention_heads": 0}, "num_attention_heads: expected a positive integer, got 0"),
    ("deberta-v2", {"num_attention_heads": "x"}, "num_attention_heads: expected int, got 'x'"),
    ("bert", {"id2label": None, "num_labels": 10**12}, "num_labels: expected an integer from 1 to 1048576"),
    ("bert", {"num_labels": True, "id2label": None}, "num_labels: expected an integer from 1"),
    ("xlnet", {"model_type": "x\ny\x1b[31m"}, r"model_type: expected one of albert, .*, got 'x\\ny\\x1b\[31m'"),
    ("xlnet", {"model_type": "m" * 10**6}, r"model_type: expected one of .*, got 'm+\.\.\."),
    ("xlnet", {"architectures": ["A" * 10**6]}, "architecture: expected one of XLNet.*, got 'AAA"),
])  # fmt: skip
def test_settings_that_no_model_has(tmp_path, name, changes, message):
    """Each once caused minutes of waiting, used all memory, or gave an internal error or a message without the file name."""
    tinyplm.save(tiny(name), tmp_path)
    with_settings(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        tinyplm.load(tmp_path)
    assert refusal(tmp_path).startswith(str(tmp_path))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
def test_weights_that_are_no_numbers_are_named(tmp_path, value, kind):
    tinyplm.save(tiny("gpt2"), tmp_path)
    file, name = tmp_path / "model.safetensors", "transformer.h.1.mlp.c_fc.weight"
    tensors = {name: np.array(a) for name, a in tensor_files.read_safetensors(file)[0].items()}
    tensors[name][2, 3] = value
    tensor_files.write_safetensors(file, tensors, dict.fromkeys(tensors, kind))
    assert refusal(tmp_path) == f"{file}: tensor {name}: expected finite numbers, got {value}"
    assert tensor_files.read_safetensors(file)[0]  # the file itself is readable


def test_a_new_head_larger_than_memory_is_refused(tmp_path, monkeypatch):
    tinyplm.save(tiny("bert", task="body"), tmp_path)
    with_settings(tmp_path, num_labels=2**20, id2label=None, label2id=None)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    with pytest.raises(MemoryError, match=r"new head for bert: expected 58720592 bytes \(.*\) of memory, got 1048576 bytes"):
        tinyplm.load(tmp_path, task="sequence_classification")


def test_long_and_strange_names_in_files_are_shortened(tmp_path):
    tinyplm.save(tiny("gpt2"), tmp_path)
    tensors = {name: np.array(a) for name, a in tensor_files.read_safetensors(tmp_path / "model.safetensors")[0].items()}
    for name, shown in (("n" * 10**6, "nnn"), ("a\nb\x1b[31m", r"extra tensors: 'a\nb\x1b[31m'")):
        tensor_files.write_safetensors(tmp_path / "model.safetensors", {**tensors, name: np.ones(2)})
        assert shown in refusal(tmp_path)
    more = {f"{'long' * 20}.{n}": np.ones(2) for n in range(50)}
    tensor_files.write_safetensors(tmp_path / "model.safetensors", {**tensors, **more})
    assert "and 47 more" in refusal(tmp_path)
