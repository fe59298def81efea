"""tinyplm count: what it prints of sizes, folders and runs."""

from __future__ import annotations

import json
import re

import pytest

import tinyplm
from tests.support.families import tiny
from tests.support.scripts import assert_one_line
from tinyplm import scaling
from tinyplm.families import FAMILIES, family
from tinyplm.hub import folders


def numbers(out):
    """{first words of a line: its numbers}."""
    lines = [re.split(r"  +", line.strip()) for line in out.splitlines() if line.strip()]
    return {line[0]: line[1:] for line in lines}


def test_a_size_of_671_billion(run, monkeypatch):
    monkeypatch.setattr(folders, "initialise", None)  # nothing is allocated
    done = run("count", "--model", "deepseek-v3", "--context", "4096", "--dtype", "bfloat16", "--batch", "2")
    found = numbers(done.out)
    assert done.code == 0 and found["total"] == ["671,026,404,352", "100.0%", "37,552,282,624"]
    module = family("deepseek_v3")
    step = scaling.training_flops(module, module.SIZES["deepseek-v3"], batch=2, length=4096)
    assert found["a training step, 2 texts of 4,096 tokens"] == [f"{step:.4g}"]
    assert found["weights"] == [f"{2 * 671_026_404_352 / 2**40:.2f} TiB"]
    assert found["key/value cache, 2 x 4,096 tokens"] == [f"{2 * 61 * 576 * 4096 * 2 / 2**20:.2f} MiB"]


def test_a_folder_and_a_run_are_counted_with_their_task(run, tmp_path):
    """Of a folder only config.json is read."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 30}
    model = tinyplm.create("bert", task="token_classification", **sizes)
    tinyplm.save(model, tmp_path / "run" / "step-2")
    (tmp_path / "run" / "best").write_text("step-2\n")
    (tmp_path / "run" / "step-2" / "model.safetensors").unlink()
    printed = {run("count", "--model", folder, "--context", 7).out for folder in (tmp_path / "run", tmp_path / "run" / "step-2")}
    assert len(printed) == 1 and numbers(printed.pop())["total"][0] == f"{model.parameter_count():,}"


def test_the_list_has_every_size(run):
    found = numbers(run("count", "--list").out)
    assert found.keys() - {"size"} == {size for name in FAMILIES for size in family(name).SIZES}
    assert found["mixtral-8x7b"] == ["46,702,792,704", "12,879,925,248"] and found["gpt2"] == ["124,439,808"]


@pytest.mark.parametrize(("options", "message"), [
    ((), "--model: expected a model to count, or --list, got none"),
    (("--model", "gpt5"), "--model: expected a folder, a family"),
    (("--model", "llama"), "--model: expected a size of this family: llama-7b, "),
    (("--model", "gpt2", "--context", "1025"), "--context: expected at most 1024, the model's, got 1025"),
    (("--model", "gpt2", "--dtype", "int8"), "--dtype: expected one of float16, bfloat16, float32, float64, got 'int8'"),
    (("--model", "gpt2", "--master"), "master: expected False, since the weights are not of 16 bits, got True"),
    (("--model", "gpt2", "--list"), "--model: expected none with --list, got gpt2"),
    (("--model", "bert-base-uncased", "--bandwidth", "1e12"), "--bandwidth: expected none for a model that does not decode"),
])  # fmt: skip
def test_what_is_refused(run, options, message):
    done = run("count", *options)
    assert_one_line(done, message)
    assert not done.out


@pytest.mark.parametrize(("settings", "message"), [
    ([], "config.json: expected an object with model_type, got []"), ({}, "expected an object with model_type"),
    ({"model_type": "nobody"}, "config.json: "), ({"model_type": "gpt2", "n_embd": "wide"}, "config.json: "),
    ({"model_type": "gemma3"}, "config.json: text_config: expected an object"),
])  # fmt: skip
def test_a_config_that_is_none(run, tmp_path, settings, message):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert_one_line(run("count", "--model", tmp_path), message)


def test_families_that_are_not_counted_say_so(run):
    done = run("count", "--model", "deberta-v3-base")
    assert done.code == 0 and "FLOPs are not counted: expected a family whose attention has no products" in done.out
    assert tiny("llama").parameter_count() == sum(scaling.parameters(tiny("llama").family, tiny("llama").config).values())
