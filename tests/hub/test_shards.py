"""Sharded folders: saving and loading round-trips, failures leave the old files, and every bad index is refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.laws import equal
from tests.support.families import tiny
from tinyplm.core import flatten
from tinyplm.files import write_json
from tinyplm.hub import tensors as tensor_files
from tinyplm.hub.tensors import INDEX, SINGLE, parse_size

# No tensor exceeds 20 KB, even in float64; together they exceed two shards of that size, even in float16.
SIZES = {
    "gpt2": {"vocab_size": 101, "n_embd": 24, "n_positions": 9},
    "llama": {"vocab_size": 101, "hidden_size": 24, "intermediate_size": 50},
}
MEMORY = {"F32": "float32", "F16": "float16", "BF16": "float32", "F64": "float64"}


def model_of(family="gpt2", seed=0, **changes):
    return tiny(family, seed=seed, **{**SIZES[family], **changes})


def files(folder, pattern="*"):
    return {path.name: path.read_bytes() for path in Path(folder).glob(pattern) if path.is_file()}


def shard_names(count):
    return [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]


def read(folder, change=None):
    """The index; `change`, if passed, edits or replaces it in the file."""
    index = json.loads((folder / INDEX).read_text())
    if change:
        changed = change(index)
        (folder / INDEX).write_text(json.dumps(index if changed is None else changed))
    return index


def sharded(folder, family="gpt2", limit=6000, **options):
    """Saves a model in shards; returns the index."""
    tinyplm.save(model_of(family, **options), folder, dtype="F32", max_shard_size=limit)
    return read(folder)


def nbytes(path):
    """The size of each tensor in a file, in bytes."""
    return {name: t.stored().nbytes for name, t in tensor_files.open_safetensors(path).items()}


# ------------------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("limit", [20_000, "20KB", 3000])
@pytest.mark.parametrize("kind", MEMORY)
@pytest.mark.parametrize("family", SIZES)
def test_saving_in_shards_and_loading_is_the_identity(tmp_path, family, kind, limit):
    model = model_of(family, dtype=MEMORY[kind])
    tinyplm.save(model, tmp_path / "single", dtype=kind)
    tinyplm.save(model, tmp_path / "shards", dtype=kind, max_shard_size=limit)
    again = tinyplm.load(tmp_path / "shards")
    assert again.config == model.config and again.dtype == MEMORY[kind] and set(again.file_dtypes.values()) == {kind}
    assert all(a.flags.c_contiguous and a.flags.owndata and a.flags.writeable for a in flatten(again.params).values())
    expected = model if kind != "BF16" else tinyplm.load(tmp_path / "single")
    assert equal(again.params, expected.params)
    tinyplm.save(again, tmp_path / "again", max_shard_size=limit)  # bit-identical, bfloat16 too
    assert files(tmp_path / "again") == files(tmp_path / "shards")
    tinyplm.save(again, tmp_path / "joined")
    assert files(tmp_path / "joined") == files(tmp_path / "single")


@pytest.mark.parametrize(("limit", "largest"), [("20KB", 20_000), (3000, 3000), (1, 1)])
@pytest.mark.parametrize("family", SIZES)
def test_the_index_says_where_each_tensor_is(tmp_path, family, limit, largest):
    tinyplm.save(model_of(family), tmp_path / "single", dtype="F32")
    tinyplm.save(model_of(family), tmp_path, dtype="F32", max_shard_size=limit)
    index, sizes = read(tmp_path), nbytes(tmp_path / "single" / SINGLE)
    places = index["weight_map"]
    assert places.keys() == sizes.keys() and index["metadata"]["total_size"] == sum(sizes.values())
    shards = shard_names(len(set(places.values())))
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {INDEX, "config.json", *shards} and len(shards) > 2
    for shard in shards:
        assert nbytes(tmp_path / shard) == {name: sizes[name] for name, place in places.items() if place == shard}
    inside = [[size for name, size in sizes.items() if places[name] == shard] for shard in shards]
    assert all(sum(some) <= largest or len(some) == 1 for some in inside)
    firsts = [sizes[next(name for name in places if places[name] == shard)] for shard in shards]
    assert all(sum(some) + following > largest for some, following in zip(inside, firsts[1:])), "it had room for the next one"


def test_the_limit_counts_what_is_in_the_file(tmp_path):
    model = model_of(dtype="float64")
    total = sum(a.size for a in flatten(model.params).values())
    for kind, width in (("F64", 8), ("F32", 4), ("BF16", 2)):
        tinyplm.save(model, tmp_path / kind, dtype=kind, max_shard_size=total * width)
        assert (tmp_path / kind / SINGLE).exists()
        tinyplm.save(model, tmp_path / kind, dtype=kind, max_shard_size=total * width - 1)
        assert not (tmp_path / kind / SINGLE).exists() and len(files(tmp_path / kind, "*.safetensors")) == 2


def test_names_with_and_without_the_base_prefix_in_shards(tmp_path):
    model = model_of("llama", dtype="float32", tie_word_embeddings=True)
    for kept in (0, 3):  # all names bare, then some of them
        tinyplm.save(model, tmp_path, max_shard_size=6000)
        places = {}
        for n, shard in enumerate(sorted(files(tmp_path, "model-*.safetensors"))):
            arrays = {name: np.array(a) for name, a in tensor_files.read_safetensors(tmp_path / shard)[0].items()}
            arrays = {name.removeprefix("model." if n >= kept else ""): a for name, a in arrays.items()}
            if n == 1:
                arrays["layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2)  # as in old files
            tensor_files.write_safetensors(tmp_path / shard, arrays)
            places |= dict.fromkeys(arrays, shard)
        write_json(tmp_path / INDEX, {"weight_map": places})
        assert equal(tinyplm.load(tmp_path).params, model.params)
    name = next(iter(arrays))  # from the last shard
    tensor_files.write_safetensors(tmp_path / shard, {**arrays, f"model.{name}": arrays[name]})
    write_json(tmp_path / INDEX, {"weight_map": {**places, f"model.{name}": shard}})
    with pytest.raises(ValueError, match=f"index.json: expected one name for each tensor, got {name} and model.{name}$"):
        tinyplm.load(tmp_path)


# -------------------------------------------------------------------------------------------------- overwriting old folders

LIMITS = {"nothing": None, "single": "5GB", "3 shards": 60_000, "8 shards": 20_000}


@pytest.mark.parametrize("new", ["single", "3 shards"])
@pytest.mark.parametrize("old", LIMITS)
def test_saving_over_another_leaves_exactly_the_new_files(tmp_path, old, new):
    folder = tmp_path / "folder"
    if LIMITS[old]:
        tinyplm.save(model_of(seed=1), folder, max_shard_size=LIMITS[old])
        assert str(len(files(folder, "model-*.safetensors"))) == old[0] or old == "single"
    tinyplm.save(model_of(seed=2), folder, max_shard_size=LIMITS[new])
    tinyplm.save(model_of(seed=2), tmp_path / "expected", max_shard_size=LIMITS[new])
    assert files(folder) == files(tmp_path / "expected")
    assert equal(tinyplm.load(folder).params, model_of(seed=2).params)


def test_files_that_are_not_ours_stay(tmp_path):
    others = {"model-00001-of-000002.safetensors": b"a", "model-best-of-all.safetensors": b"b", "notes.txt": b"c", "x.bin": b"d"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    for limit in (6000, 3000, "5GB"):
        tinyplm.save(model_of(), tmp_path, max_shard_size=limit)
        assert others.items() <= files(tmp_path).items()


def fail(monkeypatch, module, name, number, *, only=lambda *args: True):
    """Makes call `number` (from 1) of module.name fail; returns the list of calls made."""
    original, calls = getattr(module, name), []

    def call(*args, **kwargs):
        if only(*args):
            calls.append(args)
            if len(calls) == number:
                raise OSError("the disk is full")
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, call)
    return calls


@pytest.mark.parametrize(("module", "name"), [(tensor_files, "_write"), (os, "fsync")])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("old", LIMITS)
def test_a_failure_while_writing_shards_leaves_the_old_folder(tmp_path, monkeypatch, old, module, name, number):
    """A full disk shows when a file is written or flushed; no shard moves into place until all are there."""
    if LIMITS[old]:
        tinyplm.save(model_of(seed=1), tmp_path, max_shard_size=LIMITS[old])
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        fail(patch, module, name, number)
        with pytest.raises(OSError, match="the disk is full"):
            tinyplm.save(model_of(seed=2), tmp_path, max_shard_size=LIMITS["8 shards"])
    assert files(tmp_path) == before
    if LIMITS[old]:
        assert equal(tinyplm.load(tmp_path).params, model_of(seed=1).params)


@pytest.mark.parametrize("old", ["single", "3 shards", "8 shards"])
@pytest.mark.parametrize("new", ["single", "8 shards"])
def test_an_overflow_in_a_later_tensor_leaves_the_old_folder(tmp_path, old, new):
    tinyplm.save(model_of(seed=1), tmp_path, max_shard_size=LIMITS[old])
    before, model = files(tmp_path), model_of(seed=2)
    model.params["body"]["layers"][1]["mlp"]["b2"][3] = 1e6
    with pytest.raises(ValueError, match=r"tensor transformer.h.1.mlp.c_proj.bias: expected values within F16, got 1e\+06$"):
        tinyplm.save(model, tmp_path, dtype="F16", max_shard_size=LIMITS[new])
    assert files(tmp_path) == before


@pytest.mark.parametrize(("module", "name"), [(os, "replace"), (Path, "unlink")])
@pytest.mark.parametrize("new", ["single", "3 shards", "8 shards"])
@pytest.mark.parametrize("old", LIMITS)
def test_a_break_between_the_renames_never_loads_as_a_mixture(tmp_path, monkeypatch, old, new, module, name):
    """Whichever rename or removal fails: the old model, an error that says what is missing, or the new model."""
    models, outcomes = {"old": model_of(seed=1), "new": model_of(seed=2)}, []
    for number in range(1, 99):
        folder = tmp_path / str(number)
        if LIMITS[old]:
            tinyplm.save(models["old"], folder, max_shard_size=LIMITS[old])
        with monkeypatch.context() as patch:
            calls = fail(patch, module, name, number, only=lambda path, *to: to or not path.name.endswith(".tmp"))
            try:
                tinyplm.save(models["new"], folder, max_shard_size=LIMITS[new])
            except OSError as error:
                assert "the disk is full" in str(error)
        assert not files(folder, ".*")
        try:
            params = tinyplm.load(folder).params
            outcomes.append(next((which for which, model in models.items() if equal(params, model.params)), "a mixture"))
        except ValueError as error:
            missing = any(words in str(error) for words in ("no such file", "an incomplete copy"))
            outcomes.append("missing" if missing else str(error))
        if len(calls) < number:  # the failing call was never reached
            break
    assert outcomes == sorted(outcomes, key=["old", "missing", "new"].index) and outcomes[-1] == "new"
    assert "old" in outcomes or old != "single" or new == "single"


# ------------------------------------------------------------------------------------------------------------- bad folders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected valid JSON"),
        ("", "expected valid JSON"),
        (b"\xff\xfe", "expected UTF-8 text"),
        *((text, "weight_map: expected an object with the file of each tensor, got ")
          for text in ("{}", "[]", "null", '{"metadata": {}}', '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": "x"}',
                       '{"weight_map": {"a": 1}}', '{"weight_map": {"a": null}}')),
        *((json.dumps({"weight_map": {"a": name}}), "weight_map: expected names of files in the folder, got ")
          for name in ("../x.safetensors", "/etc/x", "a/b.safetensors", "..", ".", "", "a\\b.safetensors", "C:x.safetensors",
                       "./x.safetensors")),
        ('{"weight_map": {"a": "gone.safetensors"}}', "expected the shard gone.safetensors, got none$"),
        ('{"weight_map": {"a": "config.json"}}', "expected a complete safetensors file"),
    ],
)  # fmt: skip
def test_bad_indexes_are_refused(tmp_path, text, message):
    folder = tmp_path / "folder"
    sharded(folder)
    for outside in (tmp_path / "x.safetensors", folder / "a" / "b.safetensors"):  # the files that the indexes point to exist
        outside.parent.mkdir(exist_ok=True)
        outside.write_bytes((folder / shard_names(len(files(folder, "model-*.safetensors")))[0]).read_bytes())
    (folder / INDEX).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        tinyplm.load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def rewrite(path, change):
    """Rewrites the tensors of a file: `change` edits {name: array} in place."""
    arrays = {name: np.array(a) for name, a in tensor_files.read_safetensors(path)[0].items()}
    change(arrays)
    tensor_files.write_safetensors(path, arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, name: path.unlink(), r"index.json: expected the shard {shard}, got none$"),
        (lambda path, name: path.write_bytes(path.read_bytes()[:-1]), r"{shard}: expected a complete safetensors file"),
        (lambda path, name: path.write_bytes(b""), r"{shard}: expected a complete safetensors file"),
        (lambda path, name: rewrite(path, lambda t: t.pop(name)), r"json: expected tensor {name} in shard {shard}, got none$"),
        (lambda path, name: rewrite(path, lambda t: t.update({name: t[name].astype(np.int64)})),
         r"index.json: {name}: expected a floating-point dtype, got int64$"),
        (lambda path, name: rewrite(path, lambda t: t.update({name: t[name][:-1]})),
         r"index.json: {name}: expected shape \(24,\), got \(23,\)$"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_shard_is_named(tmp_path, change, message):
    name = "transformer.h.1.ln_1.bias"
    shard = sharded(tmp_path)["weight_map"][name]
    change(tmp_path / shard, name)
    with pytest.raises(ValueError, match=message.format(shard=shard, name=name)):
        tinyplm.load(tmp_path)


def test_missing_and_extra_tensors_in_the_index_are_named(tmp_path):
    index = sharded(tmp_path)
    read(tmp_path, lambda index: index["weight_map"].pop("transformer.wpe.weight") and None)
    with pytest.raises(ValueError, match=r"index.json: missing tensors: transformer.wpe.weight$"):
        tinyplm.load(tmp_path)
    last = index["weight_map"]["transformer.wpe.weight"]
    rewrite(tmp_path / last, lambda t: t.update({"transformer.h.2.ln_1.bias": np.ones(24, dtype="float32")}))
    index["weight_map"]["transformer.h.2.ln_1.bias"] = last
    read(tmp_path, lambda _: index)
    with pytest.raises(ValueError, match=r"index.json: extra tensors: transformer.h.2.ln_1.bias$"):
        tinyplm.load(tmp_path)


def test_the_single_file_wins_over_an_index(tmp_path):
    sharded(tmp_path, seed=1)
    tensor_files.write_safetensors(tmp_path / SINGLE, tensor_files.read_safetensors(_single(tmp_path / "other", seed=2))[0])
    assert equal(tinyplm.load(tmp_path).params, tinyplm.load(tmp_path / "other").params)
    (tmp_path / INDEX).write_text("{")  # not even read
    assert equal(tinyplm.load(tmp_path).params, tinyplm.load(tmp_path / "other").params)


def _single(folder, **options):
    tinyplm.save(model_of(**options), folder)
    return folder / SINGLE


def test_folders_without_safetensors_or_without_an_index(tmp_path):
    sharded(tmp_path)
    (tmp_path / INDEX).unlink()
    with pytest.raises(ValueError, match=rf"{SINGLE}: expected a .* file, got shards without {INDEX} .an incomplete copy.$"):
        tinyplm.load(tmp_path)
    for shard in files(tmp_path, "model-*"):
        (tmp_path / shard).unlink()
    with pytest.raises(ValueError, match=rf"{SINGLE}: expected a safetensors file, got none .no such file.$"):
        tinyplm.load(tmp_path)
    for name in ("model.pth", "model_states.pt", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"anything")
        message = rf"{SINGLE}: expected a safetensors file, got only {name[name.index('.') :]} files, which can run code"
        with pytest.raises(ValueError, match=message):
            tinyplm.load(tmp_path)


@pytest.mark.parametrize(("dtype", "width", "message"), [
    ("F8_E5M2", 1, "tensor transformer.wpe.weight: dtype: expected one of BF16, BOOL, F16, F32, .* got 'F8_E5M2'"),
    ("X9", 1, "expected a complete safetensors file, .*X9"),
])  # fmt: skip
def test_dtypes_that_we_do_not_have_are_named(tmp_path, dtype, width, message):
    header = json.dumps({"transformer.wpe.weight": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * width]}}).encode()
    header += b" " * (-len(header) % 8)
    shard = sharded(tmp_path)["weight_map"]["transformer.wpe.weight"]
    (tmp_path / shard).write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * width))
    with pytest.raises(ValueError, match=f"{shard}: {message}"):
        tinyplm.load(tmp_path)


@pytest.mark.parametrize(("size", "count"), [
    (1, 1), (5000, 5000), (np.int64(7), 7), ("12", 12), ("12B", 12), ("500KB", 500_000), ("200MB", 200_000_000), ("2 kb", 2000),
    ("5GB", 5_000_000_000), ("1.5GB", 1_500_000_000), ("0.5KB", 500), ("2TB", 2_000_000_000_000), ("3M", 3_000_000)])  # fmt: skip
def test_sizes(size, count):
    assert parse_size(size) == count


@pytest.mark.parametrize("size", [0, -1, True, None, "", "B", "KB", "5XB", "5GiB", "-5GB", "1e9", "0.1", "5 5", "5GB ", "nan",
                                  "0KB", float("nan"), float("inf"), 0.5, [5]])  # fmt: skip
def test_sizes_that_are_none_are_refused(tmp_path, size):
    with pytest.raises(ValueError, match="^max_shard_size: expected at least one byte, such as 5000000 or '5GB', got "):
        parse_size(size)
    with pytest.raises(ValueError, match="expected at least one byte"):
        tinyplm.save(model_of(), tmp_path / "never", max_shard_size=size)
    assert not (tmp_path / "never").exists()
