"""tinyplm convert: dtypes, shards, adapters, runs and increments; nothing half written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tinyplm
from tests.laws import equal
from tests.support.families import tiny
from tests.support.later_tokens import later
from tests.support.scripts import assert_one_line
from tinyplm import hub
from tinyplm.core import flatten, tree_map
from tinyplm.hub.tensors import read_safetensors, round_to_bfloat16, widened
from tinyplm.optim import AdamW
from tinyplm.tokenizers import Tokenizer
from tinyplm.training import checkpoint
from tinyplm.training.settings import Settings
from tinyplm.tuning import lora_parameters, merge_lora, save_lora


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a tiny LLaMA in float32 and a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    tokenizer = Tokenizer.train(["a few words"], 262)
    model = tiny("llama", dtype="float32", vocab_size=262)
    model.tokenizer = tokenizer
    tinyplm.save(model, folder)
    return folder


def bfloat16(a):
    return widened(round_to_bfloat16(a))


@pytest.mark.parametrize(("dtype", "cast"), [
    ("float16", lambda a: a.astype("float16")), ("bfloat16", bfloat16), ("float32", lambda a: a),
    ("float64", lambda a: a.astype("float64")),
])  # fmt: skip
def test_dtypes(run, tmp_path, source, dtype, cast):
    done = run("convert", "--model", source, "--dtype", dtype, "--out", tmp_path / "new")
    assert done.code == 0, done.err
    ours, theirs = tinyplm.load(source), tinyplm.load(tmp_path / "new")
    assert equal(theirs.params, tree_map(cast, ours.params))
    assert theirs.tokenizer.encode("few words") == ours.tokenizer.encode("few words")
    assert ("every number equal" in done.out) == (dtype in ("float32", "float64"))
    assert {path.name for path in tmp_path.iterdir()} == {"new"}


def test_as_it_is_stored(run, tmp_path, source):
    """bfloat16 stays bfloat16, and a second conversion changes nothing."""
    run("convert", "--model", source, "--dtype", "bfloat16", "--out", tmp_path / "a")
    done = run("convert", "--model", tmp_path / "a", "--out", tmp_path / "b")
    assert done.code == 0 and "every number equal" in done.out
    name = "model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_shards(run, tmp_path, source):
    done = run("convert", "--model", source, "--shard-size", "5KB", "--out", tmp_path / "new")
    files = list((tmp_path / "new").glob("model-*.safetensors"))
    assert f"{len(files)} files" in done.out and len(files) > 1
    assert all(sum(a.nbytes for a in read_safetensors(file)[0].values()) <= 7000 for file in files)
    assert equal(tinyplm.load(tmp_path / "new").params, tinyplm.load(source).params)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_adapter_is_merged(run, tmp_path, source, dtype):
    """As merge_lora does in float32; a run's folder has it in final/."""
    if dtype != "float32":
        run("convert", "--model", source, "--dtype", dtype, "--out", tmp_path / "half")
        source = tmp_path / "half"
    model = tinyplm.load(source)
    rng = np.random.default_rng(0)
    theta = tree_map(
        lambda a: rng.normal(size=a.shape).astype("float32"), lora_parameters(model.astype("float32").params, rank=2)
    )
    save_lora(theta, tmp_path / "run" / "final", alpha=3.0)
    printed = {}
    for adapter in ("run", "run/final"):
        out = tmp_path / f"to-{len(printed)}"
        done = run("convert", "--model", source, "--adapter", tmp_path / adapter, "--out", out)
        assert done.code == 0, done.err
        printed[adapter] = flatten(tinyplm.load(out).params)
        assert json.loads((out / "config.json").read_text()).get("torch_dtype") in (None, dtype)
    expected = flatten(merge_lora(model.astype("float32"), theta, alpha=3.0).params)
    cast = {"float32": lambda a: a, "float16": lambda a: a.astype("float16"), "bfloat16": bfloat16}[dtype]
    for found in printed.values():
        assert all(np.array_equal(found[path], cast(a)) for path, a in expected.items())
    assert not np.array_equal(expected["body.layers.0.attention.Wq"], flatten(model.params)["body.layers.0.attention.Wq"])


def test_a_run_and_its_increments(run, tmp_path):
    """An increment is a whole model afterwards: of a run, its newest checkpoint where there is no best."""
    model, out = tiny("llama", dtype="float32"), tmp_path / "run"
    optimizer, settings = AdamW(model.params), Settings(steps=3, batch_size=2, sequence_length=3, full_every=3, warmup=0)
    model.params = optimizer.params
    for step in (1, 2):
        state = checkpoint.State(step=step)
        checkpoint.save(out, model, optimizer, state, settings, "data", full=step == 1)
        if step == 1:
            optimizer.values.buffer[:] += 0.5
    assert (out / "step-2" / "increment.safetensors").is_file()
    for given in (out, out / "step-2"):
        new = tmp_path / f"from-{given.name}"
        done = run("convert", "--model", given, "--out", new)
        assert done.code == 0, done.err
        assert equal(tinyplm.load(new).params, model.params)
    assert not equal(tinyplm.load(out / "step-1").params, model.params)


def test_modules_for_later_tokens_are_kept(run, tmp_path):
    model = later(1)
    tinyplm.save(model, tmp_path / "own")
    assert run("convert", "--model", tmp_path / "own", "--out", tmp_path / "new").code == 0
    assert equal(tinyplm.load(tmp_path / "new", task="multi_token_lm").params, model.params)


def test_numbers_too_large_for_the_dtype(run, tmp_path, source):
    model = tinyplm.load(source)
    model.params["body"]["norm"]["gamma"][0] = 1e6
    tinyplm.save(model, tmp_path / "large")
    done = run("convert", "--model", tmp_path / "large", "--dtype", "float16", "--out", tmp_path / "new")
    assert_one_line(done, "norm.weight")
    assert {path.name for path in tmp_path.iterdir()} == {"large"}


def test_the_folder_one_is_in(run, tmp_path, source, monkeypatch):
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    done = run("convert", "--model", source, "--out", ".")
    assert done.code == 0, done.err
    assert equal(tinyplm.load(tmp_path / "new").params, tinyplm.load(source).params)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_difference_is_found_and_nothing_left(run, tmp_path, source, monkeypatch):
    def load(*arguments, load=hub.load, **options):
        model = load(*arguments, **options)
        if ".tmp" in str(arguments[0]):
            model.params["body"]["norm"]["gamma"][0] += 1e-6
        return model

    monkeypatch.setattr(hub, "load", load)
    done = run("convert", "--model", source, "--out", tmp_path / "new")
    assert_one_line(done, "params.body.norm.gamma: expected the numbers that were written, got others")
    assert not list(tmp_path.iterdir())


def test_what_is_refused(run, tmp_path, source, monkeypatch):
    folder = shutil.copytree(source, tmp_path / "model")
    (tmp_path / "file").touch()
    (tmp_path / "prefix").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for options, message in (
        (("--out", folder), "--out: expected a new or empty folder, got "),
        (("--out", folder / "new"), "--out: expected a folder outside "),
        (("--out", "file"), "--out: expected a folder, got "),
        (
            ("--out", "new", "--shard-size", "0MB"),
            "--shard-size: expected at least one byte, such as 5000000 or '5GB', got '0MB'",
        ),
        (("--out", "new", "--dtype", "int8"), "--dtype: expected one of float16, bfloat16, float32, float64, got 'int8'"),
        (("--out", "new", "--adapter", "prefix"), "expected adapter.safetensors and adapter.json, got a folder without them"),
        (
            ("--out", "new", "--model", "gpt2"),
            "--model: expected the folder of a model, got gpt2, which has neither trained parameters",
        ),
    ):
        assert_one_line(run("convert", "--model", folder, *options), message)
    assert sorted(tmp_path.rglob("*")) == before
