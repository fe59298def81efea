"""Loading: peak memory, models that do not fit, and the small files stored with the tensors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.laws import equal
from tests.support.families import tiny
from tinyplm import backend, memory
from tinyplm.core import flatten
from tinyplm.families import gpt2, llama
from tinyplm.hub import tensors as tensor_files
from tinyplm.hub.names import count_parameters
from tinyplm.models.causal_model import CausalModel
from tinyplm.tokenizers import Tokenizer

# ----------------------------------------------------------------------------------------------------------------- memory

MB = 1 << 20
CONFIGS = {
    "llama": llama.Config(vocab_size=8192, hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8,
                          max_position_embeddings=64),
    # two vocabulary matrices, one of them transposed, are nearly everything
    "wide vocabulary": llama.Config(vocab_size=40960, hidden_size=256, intermediate_size=256, num_hidden_layers=1,
                                    num_attention_heads=4, max_position_embeddings=64),
    # the file holds the tied matrix twice
    "tied twice": llama.Config(vocab_size=40960, hidden_size=256, intermediate_size=688, num_hidden_layers=6,
                               num_attention_heads=4, max_position_embeddings=64, tie_word_embeddings=True),
    "gpt2": gpt2.Config(vocab_size=8192, n_positions=64, n_embd=512, n_layer=5, n_head=8, tie_word_embeddings=False),
}  # fmt: skip
COUNTS = {name: count_parameters((llama if isinstance(c, llama.Config) else gpt2).shapes(c)) for name, c in CONFIGS.items()}


def random_model(config):
    """A model of numbers that are cheap to generate."""
    family = llama if isinstance(config, llama.Config) else gpt2
    numbers = np.random.default_rng(0).normal(0, 0.02, 1 << 16).astype("float32")
    params = tinyplm.core.tree_map(lambda shape: np.resize(numbers, shape), family.shapes(config))
    return CausalModel(family, config, params)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """make(name, kind, limit) -> a folder with 60 to 100 MB of float32 parameters; each is written once."""
    root, models = tmp_path_factory.mktemp("large"), {}

    def make(name, kind="F32", limit="5GB"):
        folder = root / f"{name}-{kind}-{limit}"
        if not folder.exists():
            if name not in models:
                models.clear()  # one at a time
                models[name] = random_model(CONFIGS[name])
            tinyplm.save(models[name], folder, dtype=kind, max_shard_size=limit)
            if name == "tied twice":
                tensors = tensor_files.read_safetensors(folder / "model.safetensors")[0]
                tensors = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}
                tensor_files.write_safetensors(folder / "model.safetensors", tensors)
        return folder

    yield make
    shutil.rmtree(root)


GROWTH = """
import os, sys, tinyplm

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

for small in sys.argv[1:]:
    tinyplm.load(small)
for line in sys.stdin:
    large, dtype = line.rstrip("\\n").split("\\t")
    if os.fork() == 0:
        open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
        before = memory("VmRSS")
        model = tinyplm.load(large, dtype=dtype or None)
        print(memory("VmHWM") - before, flush=True)
        os._exit(0)
    if os.wait()[1]:
        print("failed", flush=True)
"""


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    """growth(folder, dtype): by how many bytes the peak of memory grows, in a fork of a process that loaded only tiny models."""
    small = [tmp_path_factory.mktemp(name) for name in ("gpt2", "llama")]
    for folder in small:
        tinyplm.save(tiny(folder.name.rstrip("0")), folder)
    with subprocess.Popen(
        [sys.executable, "-c", GROWTH, *small], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def measured(folder, dtype):
            process.stdin.write(f"{folder}\t{dtype}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield measured
        process.stdin.close()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory can be reset on Linux only")
@pytest.mark.parametrize(("name", "kind", "dtype", "limit"), [
    *(("llama", *kind_and_dtype, limit) for limit in ("5GB", "30MB")
      for kind_and_dtype in (("F32", ""), ("BF16", ""), ("F16", "float32"))),
    ("gpt2", "F32", "", "5GB"),  # c_attn is three of our matrices side by side
    ("gpt2", "BF16", "", "20MB"),
    ("wide vocabulary", "F32", "", "5GB"),
    ("wide vocabulary", "BF16", "", "5GB"),
    ("tied twice", "F32", "", "5GB"),
])  # fmt: skip
def test_the_peak_of_loading_is_the_parameters_and_a_tenth(folders, growth, name, kind, dtype, limit):
    """Counting all mapped pages of the file.  2 MB are allowed for the allocator and the interpreter."""
    large = folders(name, kind, limit)
    assert (large / "model.safetensors").exists() == (limit == "5GB")
    grown, needed = growth(large, dtype), COUNTS[name] * 4
    assert needed > 40 * MB and grown > 0.9 * needed, "this measures something else"
    assert grown <= 1.1 * needed + 2 * MB, f"{grown / needed:.3f} times the parameters"


def too_little(monkeypatch, call, available):
    """The message of the MemoryError of call() with this many bytes available, raised before anything is allocated."""
    monkeypatch.setattr(memory, "available_memory", lambda: available)
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError) as error:
            call()
        assert tracemalloc.get_traced_memory()[1] < MB
    finally:
        tracemalloc.stop()
        monkeypatch.undo()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "kind", "limit", "dtype", "width"), [
    ("llama", "F32", "5GB", None, 4), ("llama", "BF16", "30MB", None, 4), ("llama", "F16", "5GB", None, 2),
    ("llama", "F32", "30MB", "float16", 2), ("llama", "F32", "30MB", "float64", 8), ("tied twice", "F32", "5GB", None, 4),
])  # fmt: skip
def test_a_model_larger_than_memory_is_refused_before_it_is_read(monkeypatch, folders, name, kind, limit, dtype, width):
    folder, needed = folders(name, kind, limit), COUNTS[name] * width
    tinyplm.load(folders("gpt2"))  # first-time imports and caches are not counted
    message = too_little(monkeypatch, lambda: tinyplm.load(folder, dtype=dtype), needed - 1)
    assert re.search(
        rf"{folder}/.*: the parameters in float{8 * width}: expected {needed} bytes .* got {needed - 1} bytes", message
    )
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    tinyplm.load(folder, dtype=dtype)
    monkeypatch.setattr(memory, "available_memory", lambda: None)  # unknown here
    tinyplm.load(folder, dtype=dtype)


def test_a_new_model_larger_than_memory_is_refused(monkeypatch):
    needed = 124_439_808 * 4
    message = too_little(monkeypatch, lambda: tinyplm.create("gpt2"), needed - 1)
    assert re.search(rf"^the parameters in float32: expected {needed} bytes \(0.5 GiB\) .*, got {needed - 1} bytes ", message)
    model = tiny("llama")
    count = model.parameter_count()
    monkeypatch.setattr(memory, "available_memory", lambda: count * 2)
    assert tinyplm.create("llama", model.config, dtype="float16").dtype == "float16"
    with pytest.raises(MemoryError, match=f"float32: expected {count * 4} bytes"):
        tinyplm.create("llama", model.config)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_count_once_in_whatever_layout(family, tied):
    """The decoding layout stores a tied table twice and joins the projections."""
    model = tiny(family, tie_word_embeddings=tied)
    expected = count_parameters(model.family.shapes(model.config))
    quick = model.for_decoding()
    assert sum(a.size for a in flatten(quick.params).values()) == expected + tied * 11 * 6
    assert quick.for_decoding() is quick
    for same in (model, quick, model._with().for_decoding(), quick.astype("float32").to("cpu")):
        assert same.parameter_count() == expected and f"{expected:,} parameters" in repr(same)


def test_the_largest_published_model_does_not_fit_here():
    start = time.perf_counter()
    with pytest.raises(
        MemoryError, match=r"^the parameters in float32: expected 16\d{11} bytes \(15\d\d.\d GiB\) of memory, got \d+ bytes"
    ):
        tinyplm.create("llama", "llama-3.1-405b")
    assert time.perf_counter() - start < 1


# ------------------------------------------------------------------------------------------------------- companion files

SMALL = {
    "tokenizer_config.json": b'{"model_max_length":  7,\n "chat_template": null}',
    "special_tokens_map.json": b'{ "eos_token": "</s>" }\n\n',
    "chat_template.jinja": "{% for m in messages %}春{{ m }}{% endfor %}".encode(),
}
GENERATION = {"temperature": 0.6, "eos_token_id": [3, 5], "some_future_key": {"a": [None, 1e-3]}}


def folder_with(folder, family="gpt2", generation=GENERATION, files=SMALL, **changes):
    tinyplm.save(tiny(family, **changes), folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def unsupported(trained, folder):
    """The bytes of a tokenizer.json with an unknown component."""
    trained.save(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "NFX"}
    path.write_text(json.dumps(content, indent=7))
    return path.read_bytes()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_small_files_travel_with_the_model(tmp_path, family):
    model = tinyplm.load(folder_with(tmp_path / "a", family))
    assert model.generation == GENERATION and model.files == SMALL
    for other in (model, model.astype("float16"), model.to("cpu").astype("float64")):
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        tinyplm.save(other, tmp_path / "b")
        assert json.loads((tmp_path / "b" / "generation_config.json").read_text()) == GENERATION
        assert {name: (tmp_path / "b" / name).read_bytes() for name in SMALL} == SMALL
        assert {path.name for path in (tmp_path / "b").iterdir()} == {path.name for path in (tmp_path / "a").iterdir()}
        again = tinyplm.load(tmp_path / "b")
        assert again.generation == GENERATION and again.files == SMALL and equal(again.params, other.params)


def test_a_tokenizer_that_is_not_supported_is_a_warning_and_written_back(tmp_path, trained):
    content = unsupported(trained, folder_with(tmp_path / "a"))
    message = r"a/tokenizer.json: normalizer: type: expected one of NFC, .*, got 'NFX'"
    with pytest.warns(UserWarning, match=f"^loaded without its tokenizer: .*{message}$") as caught:
        model = tinyplm.load(tmp_path / "a")
    assert caught[0].filename == __file__ and model.tokenizer is None
    for same in (model, model.to("cpu"), model.astype("float16")):
        with pytest.raises(ValueError, match=f"^tokenizer: expected a model with one, for text, got one without: .*{message}$"):
            same.text_tokenizer()
    tinyplm.save(model, tmp_path / "b")
    assert (tmp_path / "b" / "tokenizer.json").read_bytes() == content
    model.tokenizer = trained  # a replacement tokenizer is the one saved
    tinyplm.save(model, tmp_path / "b")
    assert tinyplm.load(tmp_path / "b").tokenizer.parts == trained.parts


@pytest.mark.parametrize(
    "content", ["{", "[]", "\ud800", '{"model": 3}', {"added_tokens": 5}, {"added_tokens": [5]}, {"model": None}]
)
def test_a_tokenizer_that_is_no_tokenizer_is_a_warning_too(tmp_path, trained, content):
    trained.save(folder_with(tmp_path))
    path = tmp_path / "tokenizer.json"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(path.read_text()), **content})
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.warns(UserWarning, match="^loaded without its tokenizer: .*tokenizer.json"):
        model = tinyplm.load(tmp_path)
    assert model.tokenizer is None and model.files["tokenizer.json"] == path.read_bytes()


def test_without_a_tokenizer_it_says_so_without_a_warning(tmp_path):
    folder_with(tmp_path, files={"vocab.json": b"{}"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tinyplm.load(tmp_path)
    with pytest.raises(ValueError, match="got one without: .*: expected tokenizer.json, tokenizer.model, .*, got none of them"):
        model.text_tokenizer()
    tinyplm.save(model, tmp_path / "b")
    assert (tmp_path / "b" / "vocab.json").read_bytes() == b"{}"
    with pytest.raises(ValueError, match="^tokenizer: expected a model with one, for text, got one without: none was given$"):
        tiny("gpt2").text_tokenizer()


def test_vocab_and_merges_make_a_tokenizer(tmp_path, trained):
    folder_with(tmp_path / "a")
    (tmp_path / "a" / "vocab.json").write_text(json.dumps(dict(trained.model.vocab)))
    (tmp_path / "a" / "merges.txt").write_text("\n".join(f"{a} {b}" for a, b in trained.model.merges), encoding="utf-8")
    model = tinyplm.load(tmp_path / "a")
    assert model.tokenizer.model == trained.model and model.text_tokenizer() is model.tokenizer
    assert model.tokenizer.named["eos_token"] == "</s>"  # from special_tokens_map.json; not in vocab.json, so the next id
    assert model.tokenizer.eos_id == trained.vocab_size
    tinyplm.save(model, tmp_path / "b")
    assert tinyplm.load(tmp_path / "b").tokenizer.parts == model.tokenizer.parts
    # tokenizer.json now contains the two files, which would be wrong once another tokenizer replaces this one
    written = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert written["chat_template.jinja"] == SMALL["chat_template.jinja"]
    assert json.loads(written["tokenizer_config.json"])["model_max_length"] == 7
    assert written.keys() - SMALL.keys() == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize(
    "content", [[], 3, None, "eos", *({"eos_token_id": ids} for ids in ("</s>", [[3]], ["a"], {}, 1.5, True))]
)
def test_a_generation_config_that_is_none_is_refused(tmp_path, content):
    folder_with(tmp_path, generation=content)
    with pytest.raises(ValueError, match="generation_config.json: .*expected"):
        tinyplm.load(tmp_path)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({}, None, set()),
        ({"eos_token_id": None}, None, set()),
        ({"eos_token_id": 3}, None, {3}),
        ({"eos_token_id": [3, 5]}, 0, {3, 5}),
        ({"eos_token_id": None}, 4, {4}),
        ({}, [5, 400], {5}),
        ({"eos_token_id": [3, 99, -1, 10, 11]}, [5, 400], {3, 10}),
    ],
)
def test_end_ids(tmp_path, generation, config, expected):
    """From generation_config.json, else config.json, and from the tokenizer; only ids that the model has."""
    model = tinyplm.load(folder_with(tmp_path, "llama", generation, eos_token_id=config))
    assert model.end_ids() == expected
    assert model.to("cpu").end_ids() == model.astype("float64").end_ids() == expected
    model.tokenizer = Tokenizer.train(["a"], 258, ["<s>", "<|endoftext|>"])
    assert model.end_ids() == expected | {1}


def test_a_config_that_does_not_say_what_ends_a_text_says_nothing(tmp_path):
    """LLaMA's default is 2, which is an ordinary token in another vocabulary."""
    folder_with(tmp_path, "llama", {})
    config = json.loads((tmp_path / "config.json").read_text())
    del config["eos_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = tinyplm.load(tmp_path)
    assert model.config.eos_token_id == 2 and model.end_ids() == set()


def test_added_tokens_beside_a_vocabulary_are_not_lost(tmp_path, trained):
    """Without them, a chat's special tokens would be split into letters."""
    folder_with(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(trained.model.vocab))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(merge) for merge in trained.model.merges))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 450}))
    model = tinyplm.load(tmp_path)
    assert model.tokenizer.encode("low<|im_end|>") == [*trained.encode("low"), 450]
    tinyplm.save(model, tmp_path / "again")
    assert tinyplm.load(tmp_path / "again").tokenizer.parts == model.tokenizer.parts


def test_a_value_too_large_for_the_dtype_asked_for_is_named(tmp_path):
    model = tiny("gpt2", dtype="float32")
    model.params["body"]["norm"]["gamma"][2] = 1e5
    for kind in ("F32", "BF16"):
        tinyplm.save(model, tmp_path, dtype=kind)
        with pytest.raises(ValueError, match=r"tensor transformer.ln_f.weight: expected values within float16, got \S+$"):
            tinyplm.load(tmp_path, dtype="float16")


def test_the_limits_of_control_groups_count(tmp_path):
    """cgroup 2 (a group and its parent) and cgroup 1; page cache is reclaimable, shared memory is not."""
    own, root = tmp_path / "own", tmp_path / "fs"
    for folder, limit, used, file, shmem in (("a", 1000, 300, 50, 10), ("a/b", "max", 100, 0, 0)):
        (root / folder).mkdir(parents=True)
        for name, value in (("memory.max", limit), ("memory.current", used), ("memory.stat", f"file {file}\nshmem {shmem}\n")):
            (root / folder / name).write_text(f"{value}\n")
    (root / "memory/x").mkdir(parents=True)
    for name, value in (("limit_in_bytes", 500), ("usage_in_bytes", 120), ("stat", "total_cache 20\ntotal_shmem 5\n")):
        (root / "memory/x" / f"memory.{name}").write_text(f"{value}\n")
    own.write_text("4:cpu:/y\n3:memory:/x\n0::/a/b\n")
    assert sorted(memory._container_memory(own, root)) == [500 - 120 + 15, 1000 - 300 + 40]
    assert memory._container_memory(tmp_path / "none", root) == []


def test_to_and_astype_keep_what_was_read(tmp_path, trained, device):
    trained.save(folder_with(tmp_path))
    model = tinyplm.load(tmp_path)
    model.buffers = {"bias": np.ones(3)}
    there, half = model.to(device), model.astype("float16")
    for other in (there, half, there.astype("float64"), half.to(device)):
        for name in ("generation", "files", "tokenizer", "no_tokenizer", "config", "family"):
            assert getattr(other, name) == getattr(model, name) and getattr(model, name) not in ({}, None)
        assert other.buffers["bias"].shape == (3,)
    assert there.file_dtypes == model.file_dtypes and there.device == device and half.file_dtypes == {}
    assert {a.dtype.name for a in flatten(half.params).values()} == {"float16"} and model.dtype == "float64"
    tinyplm.save(half, tmp_path)  # in its own dtype, not the one that was loaded
    assert set(tinyplm.load(tmp_path).file_dtypes.values()) == {"F16"}
    assert equal(backend.to_host(there.params), model.params)
