"""Checkpoint folders: a full disk, deliberate damage, increments."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.support.families as families
import tinyplm
from tests.laws import equal
from tests.support.survivor import QUICK, ROOT, contents, interrupted, run, whole_latest
from tinyplm.core import flatten
from tinyplm.files import read_json, write_json
from tinyplm.hub import tensors as tensor_files
from tinyplm.hub.tensors import read_safetensors
from tinyplm.optim.adamw import AdamW
from tinyplm.tokenizers import Tokenizer
from tinyplm.training import checkpoint, folders, incremental, loop, samples
from tinyplm.training.checkpoint import SaveError, State, find
from tinyplm.training.settings import Settings


def everything(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(out, steps=3)
    return contents(out)


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """A run with checkpoints at steps 1 to 4 (2 and 4 were the best when saved) and two steps remaining."""
    out = tmp_path_factory.mktemp("broken") / "out"
    with interrupted(4):
        run(out, keep=9)
    return out


@pytest.fixture
def copied(broken, tmp_path) -> Path:
    return Path(shutil.copytree(broken, tmp_path / "copied"))


# ------------------------------------------------------------------------------------------------------- a full disk


def fill_disk_at(monkeypatch, number: int) -> None:
    """Makes every write, flush and rename fail from the `number`-th on; operations that free space still work."""
    done = iter(range(10**9))

    def full(f):
        def wrapped(*args, **kwargs):
            if next(done) >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return f(*args, **kwargs)

        return wrapped

    for module, name in ((os, "fsync"), (os, "replace"), (os, "mkdir"), (Path, "write_text"), (Path, "write_bytes")):
        monkeypatch.setattr(module, name, full(getattr(module, name)))
    monkeypatch.setattr(tensor_files, "_write", full(tensor_files._write))


def test_whenever_the_disk_becomes_full_the_run_stops_with_one_line_and_can_go_on(tmp_path, monkeypatch, whole):
    failures, number = 0, 0
    while True:
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            fill_disk_at(patch, number)
            try:
                run(out, steps=3)
                break
            except SaveError as error:
                message = str(error)
        failures += 1
        assert "cannot be written (No space left on device) after step" in message and "\n" not in message
        latest = f"the last good checkpoint is {find(out)}" if (out / "latest").exists() else "no checkpoint has been saved"
        assert message.endswith(latest) and whole_latest(out)
        assert not list(out.glob(".*")), f"failure {number} leaves temporary files"
        run(out, steps=3)
        assert contents(out) == whole, f"failure {number}"
        shutil.rmtree(out)
        number += 1
    assert failures > 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("file", ["log.jsonl", "model.safetensors", "optimizer.safetensors"])
def test_a_real_limit_on_the_size_of_files_stops_the_run_cleanly(copied, file):
    """The kernel refuses writes beyond RLIMIT_FSIZE, in the middle of a file."""
    sizes = {f.name: f.stat().st_size for f in find(copied).iterdir()}
    if file == "log.jsonl":  # the smallest of these, so no save may happen before it is full
        limit, options = (copied / file).stat().st_size + 50, {"save_every": 100, "evaluate_every": 100, "keep": 9}
    else:
        limit, options = sizes[file] - 100, {"keep": 9}
    assert sizes["model.safetensors"] < sizes["optimizer.safetensors"] - 200
    code = ("import json, sys\nfrom pathlib import Path\nfrom tests.support.survivor import run\nimport resource\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
            "try:\n    run(Path(sys.argv[1]), **json.loads(sys.argv[3]))\nexcept OSError as error:\n"
            "    print(error)\n    sys.exit(7)\n")  # fmt: skip
    command = [sys.executable, "-B", "-c", code]  # -B: Python would keep a compiled module of which the limit cuts off the end
    done = subprocess.run([*command, str(copied), str(limit), json.dumps(options)], cwd=ROOT, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60)  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert f"{file}: cannot be written (" in done.stdout and "File too large" in done.stdout
    assert done.stdout.endswith("the last good checkpoint is " + str(copied / "step-4") + "\n")
    assert not list(copied.glob(".*")) and whole_latest(copied) and find(copied).name == "step-4"
    run(copied, keep=9)
    assert find(copied).name == "step-6"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that cannot be written")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("bar", [True, False])
def test_a_terminal_that_is_gone_ends_no_run(tmp_path, monkeypatch, stream, bar):
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    with open("/dev/full", "w", buffering=1) as gone, monkeypatch.context() as patch:
        gone.isatty = lambda: True
        patch.setattr(sys, stream, gone)
        state = run(tmp_path, progress=True)
        with suppress(OSError):  # data still in its buffer
            gone.close()
    assert state.step == 6 and find(tmp_path).name == "step-6"


def test_a_run_without_a_stderr_is_a_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert run(tmp_path, progress=True).step == 6


# ------------------------------------------------------------------------------------------------------------ damage


def _missing(file: Path) -> None:
    file.unlink()


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


FILES = ("config.json", "model.safetensors", "optimizer.safetensors", "trainer.json")
SAYS = {_missing: "is missing", _truncated: "bytes instead of", _flipped: "has changed since it was saved"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", SAYS)
def test_a_damaged_folder_is_refused_and_the_advice_leads_on(copied, name, damage):
    damage(find(copied) / name)
    before = everything(copied)
    with pytest.raises(ValueError) as refused:
        run(copied, keep=9)
    message = str(refused.value)
    said = f"step-4: expected an intact checkpoint, got a damaged one: {name}"
    assert "\n" not in message and said in message and SAYS[damage] in message
    assert message.endswith(f"step-3 is intact: to resume from it, write its name to {copied / 'latest'}")
    assert everything(copied) == before, "a refused resume changed files"
    (copied / "latest").write_text("step-3\n")
    run(copied, keep=9)
    run(copied.parent / "whole", keep=9)
    assert contents(copied) == contents(copied.parent / "whole")


@pytest.mark.parametrize("sums", [None, "", "{}", "[]", "3", '{"trainer.json": 3, "a.safetensors": 3}', b"\xff"])
def test_damaged_checksums_are_refused(copied, sums):
    file = find(copied) / "checksums.json"
    file.unlink() if sums is None else file.write_bytes(sums if isinstance(sums, bytes) else sums.encode())
    with pytest.raises(ValueError, match=r"step-4: .*checksums.json.*; step-3 is intact"):
        run(copied, keep=9)


@pytest.mark.parametrize("name", ["", "step-99", "nothing"])
def test_latest_that_names_nothing_is_refused(copied, name):
    (copied / "latest").write_text(f"{name}\n")
    with pytest.raises(ValueError, match="latest: expected the name of a checkpoint folder, got .*; step-4 is intact"):
        run(copied, keep=9)


def test_no_other_whole_checkpoint_is_said(copied):
    for step in (1, 2, 3, 4):
        _flipped(copied / f"step-{step}/optimizer.safetensors")
    with pytest.raises(ValueError, match=f"no other checkpoint in {copied} is intact: start again in another folder"):
        run(copied, keep=9)


def _sign(folder: Path) -> None:
    """Recomputes the checksums, as a careful editor of the files would."""
    write_json(folder / "checksums.json", {f.name: {"bytes": f.stat().st_size, "sha256": folders.sha256(f)}
                                           for f in folder.iterdir() if f.name != "checksums.json"})  # fmt: skip


def test_files_of_another_model_or_run_with_right_checksums_are_refused_too(copied):
    folder = find(copied)
    kept = everything(folder)
    tensors, _ = read_safetensors(folder / "optimizer.safetensors")
    name = min(tensors)
    tensor_files.write_safetensors(folder / "optimizer.safetensors", {**tensors, name: np.zeros((2, 2), np.float32)})
    _sign(folder)
    with pytest.raises(ValueError, match=f"optimizer.safetensors: expected the moments of this model, got others at {name}"):
        run(copied, keep=9)
    (folder / "optimizer.safetensors").write_bytes(kept["optimizer.safetensors"])
    trainer = read_json(folder / "trainer.json")
    for contents_, message in (({**trainer, "state": {"steps": 3}}, "state: expected the keys step"),
                               ({**trainer, "settings": {**trainer["settings"], "clip": 9.0}}, "settings.clip was 9.0, now 1.0"),
                               ([], "trainer.json: expected an object")):  # fmt: skip
        write_json(folder / "trainer.json", contents_)
        _sign(folder)
        with pytest.raises(ValueError, match=message):
            run(copied, keep=9)


# -------------------------------------------------------------------------------------------------------- increments


@given(st.integers(0, 5000), st.integers(0, 2**32 - 1), st.sampled_from(["float16", "float32", "float64"]))
def test_changed_blocks_are_those_with_a_different_bit(size, seed, dtype):
    rng = np.random.default_rng(seed)
    old = rng.standard_normal(size).astype(dtype)
    new = old.copy()
    places = rng.integers(0, max(size, 1), rng.integers(0, 4) if size else 0)
    new[places] = np.nextafter(new[places], np.inf).astype(dtype)
    blocks = [(new[b : b + 1024].tobytes(), old[b : b + 1024].tobytes()) for b in range(0, size, 1024)]
    expected = [number for number, (a, b) in enumerate(blocks) if a != b]
    assert incremental.changed_blocks(new, old).tolist() == expected


def test_changed_blocks_are_of_bits_and_not_of_values():
    zeros, nan = np.zeros((3, 700)), np.full(5, np.nan)
    assert incremental.changed_blocks(-zeros, zeros).tolist() == [0, 1, 2]
    assert incremental.changed_blocks(nan, nan.copy()).tolist() == []
    with pytest.raises(ValueError, match="old: expected the shape and dtype of new"):
        incremental.changed_blocks(zeros, zeros.astype("float32"))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_replay_is_a_full_save_byte_by_byte(tmp_path, family, dtype):
    """With a tokenizer, and with only some of the arrays changed."""
    model = families.tiny(family, dtype=dtype)
    model.tokenizer = Tokenizer.train(["abc abd"], 260)
    optimizer, settings = AdamW(model.params), Settings(**QUICK, full_every=3)
    model.params = optimizer.params
    checkpoint.save(tmp_path / "a", model, optimizer, State(step=1), settings, "data")
    for n, (name, leaf) in enumerate(optimizer.values.leaves.items()):
        if n % 2:
            leaf.reshape(-1)[-1] += 1
            optimizer.v.leaves[name].reshape(-1)[:3] = 0.5
    state = State(step=2, seconds=1.5)
    increment = checkpoint.save(tmp_path / "a", model, optimizer, state, settings, "data", full=False)
    full = checkpoint.save(tmp_path / "b", model, optimizer, state, settings, "data")
    assert {p.name for p in increment.iterdir()} == {"increment.safetensors", "trainer.json", "checksums.json"}
    incremental.replay(increment, tmp_path / "replayed")
    assert everything(tmp_path / "replayed") == everything(full)
    assert equal(tinyplm.load(tmp_path / "replayed").params, model.params)
    with pytest.raises(ValueError, match="out_folder: expected a new folder, got .*, which exists"):
        incremental.replay(increment, full)
    incremental.replay(full, tmp_path / "copy")
    assert everything(tmp_path / "copy") == everything(full)


def test_every_kth_save_the_best_and_the_last_are_full_and_a_resume_is_exact(tmp_path, monkeypatch):
    """Step 5 is the best, not step 12, the last; a run interrupted after increments ends the same."""
    update, done, stop = loop.update, [0], [None]

    def breaking(*args, step, **kwargs):
        done[0] = step + 1
        if step == stop[0]:
            raise KeyboardInterrupt
        return update(*args, step=step, **kwargs)

    monkeypatch.setattr(loop, "update", breaking)
    monkeypatch.setattr(samples, "evaluate", lambda *args, **kwargs: ({5: 2.0, 10: 2.5, 12: 2.1}[done[0]], 1))
    options = {"full_every": 3, "keep": 99, "steps": 12, "evaluate_every": 5}
    run(tmp_path / "whole", **options)
    increments = {int(p.parent.name[5:]) for p in tmp_path.glob("whole/step-*/increment.safetensors")}
    assert increments == {2, 3, 6, 7, 9, 10}, "full: 1, 4, 5 (the best), 8, 11, 12 (the last)"
    for at in (2, 3, 6, 10):
        out = tmp_path / f"broken-{at}"
        stop[0] = at
        with pytest.raises(KeyboardInterrupt):
            run(out, **options)
        assert find(out).name == f"step-{at}" and (find(out) / "increment.safetensors").exists()
        stop[0] = None
        run(out, **options)
        assert contents(out) == contents(tmp_path / "whole")


def test_a_base_stays_as_long_as_an_increment_needs_it(tmp_path, monkeypatch):
    prune, seen = checkpoint.prune, []

    def spy(out, state, keep):
        prune(out, state, keep)
        left = folders.steps(out)
        assert all(folders.problem(out / f"step-{step}") is None for step in left)
        seen.append(left)

    monkeypatch.setattr(checkpoint, "prune", spy)
    run(tmp_path, full_every=4, keep=1, steps=8, evaluate_every=99)
    assert [s for s in seen if s] == [[1], [1, 2], [1, 3], [1, 4], [5], [5, 6], [5, 7], [8]]


@pytest.fixture
def increments(tmp_path) -> Path:
    """A run with full checkpoints at steps 1 and 4, and increments on them at steps 2, 3 and 5 (the latest)."""
    with interrupted(5):
        run(tmp_path / "out", full_every=3, keep=9, evaluate_every=99)
    return tmp_path / "out"


@pytest.mark.parametrize("damage", [_flipped, _truncated, shutil.rmtree])
def test_an_increment_without_its_whole_base_is_refused_by_name(increments, tmp_path, damage):
    damage(increments / "step-4" if damage is shutil.rmtree else increments / "step-4/model.safetensors")
    message = r"step-5: .*(its base step-4 is missing|in its base step-4, model.safetensors .*); step-3 is intact"
    with pytest.raises(ValueError, match=message):
        run(increments, full_every=3, keep=9)
    with pytest.raises(ValueError, match="base step-4"):
        incremental.replay(increments / "step-5", tmp_path / "replayed")


def test_an_increment_with_another_base_is_refused(increments):
    trainer = increments / "step-4/trainer.json"
    write_json(trainer, {**read_json(trainer), "note": 1})
    _sign(increments / "step-4")
    with pytest.raises(ValueError, match="its base step-4 has been replaced; step-4 is intact"):
        run(increments, full_every=3, keep=9)


def test_a_damaged_base_gets_no_more_increments(increments):
    assert incremental.base_of_next(increments, "step-5", 3) == ("step-4", 2)
    assert incremental.base_of_next(increments, "step-5", 2) is None
    _flipped(increments / "step-4/config.json")
    assert incremental.base_of_next(increments, "step-5", 3) is None
    (increments / "step-5/trainer.json").write_text("{")
    assert incremental.base_of_next(increments, "step-5", 3) is None and incremental.base_of_next(increments, "gone", 3) is None


def test_with_most_parameters_frozen_an_increment_is_small(tmp_path):
    """The loop cannot freeze parameters, so here only one vector and its moments change."""
    model = tinyplm.create("gpt2", families.FAMILIES["gpt2"].config, key=0, n_embd=64, vocab_size=500)
    optimizer, settings = AdamW(model.params), Settings(**QUICK, full_every=9)
    model.params = optimizer.params
    full = checkpoint.save(tmp_path, model, optimizer, State(step=1), settings, "data")
    name = next(n for n in optimizer.values.leaves if n.endswith("gamma"))
    for tree in (optimizer.values, optimizer.m, optimizer.v):
        tree.leaves[name] += 0.5
    increment = checkpoint.save(tmp_path, model, optimizer, State(step=2), settings, "data", full=False)
    before = sum((full / f).stat().st_size for f in ("model.safetensors", "optimizer.safetensors"))
    assert (increment / "increment.safetensors").stat().st_size < before / 100
    nothing = checkpoint.save(tmp_path, model, optimizer, State(step=3), settings, "data", full=False)
    incremental.replay(nothing, tmp_path / "replayed")
    assert equal(flatten(tinyplm.load(tmp_path / "replayed").params), flatten(model.params))
