"""Training recomputed by hand: every setting must take effect, every dropout use its own mask, every file reach the disk."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import reference.optim.adamw
import reference.optim.clip
import reference.optim.schedule
from tests.families.test_gpt2 import tiny
from tests.laws import equal, relative_error, trained
from tinyplm import files, random
from tinyplm.core import flatten, unflatten
from tinyplm.data.batches import Windows
from tinyplm.families import gpt2
from tinyplm.losses.cross_entropy import cross_entropy
from tinyplm.optim.adamw import AdamW, decays_by_default
from tinyplm.tokenizers import Tokenizer
from tinyplm.training import checkpoint, log, loop
from tinyplm.training.checkpoint import State
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings

TOKENS = np.random.default_rng(3).integers(0, 11, 150).astype(np.uint16)
RATES = {"embd_pdrop": 0.15, "attn_pdrop": 0.25, "resid_pdrop": 0.35}
# No value here is a default, so a setting lost along the way changes the numbers.  eps is large enough that the gradient of
# the key bias, which is 0 up to rounding, is not amplified to a full step.
SETTINGS = Settings(steps=4, batch_size=3, sequence_length=5, learning_rate=0.02, schedule="linear", warmup=2, floor=0.004,
                    weight_decay=0.3, beta1=0.8, beta2=0.9, eps=1e-3, clip=0.2, smoothing=0.1, seed=12)  # fmt: skip

TRAINED = trained(SETTINGS.steps, SETTINGS.learning_rate, SETTINGS.eps)


def by_hand(model, tokens, settings, steps):
    """The parameters after `steps` steps, and (loss, gradient norm, rate) per step: plain loss, whole batch, reference."""
    windows = Windows(tokens, settings.sequence_length, settings.seed)
    theta = flatten(model.params)
    moments = {path: (np.zeros(a.shape), np.zeros(a.shape)) for path, a in theta.items()}
    records = []
    for step in range(steps):
        inputs, targets = windows.batch(step * settings.batch_size, settings.batch_size)
        keys = random.sample_keys(random.fold(random.key(settings.seed), step), np.arange(settings.batch_size))
        outputs, back = model.with_params(unflatten(theta, model.params))(inputs, key=keys)
        loss, loss_back = cross_entropy(outputs["logits"], targets=targets, total=targets.size, smoothing=settings.smoothing)
        gradient, norm = reference.optim.clip.clip_by_global_norm(back({"logits": loss_back(1.0)}), limit=settings.clip)
        gradient = flatten(gradient)
        rate = reference.optim.schedule.warmup_linear(step, peak=settings.learning_rate, warmup=settings.warmup,
                                                      total=settings.steps, floor=settings.floor)  # fmt: skip
        updated = {}
        for path, a in theta.items():
            updated[path], *moments[path] = reference.optim.adamw.adamw_update(
                a, gradient[path], *moments[path], step + 1, lr=rate, beta1=settings.beta1, beta2=settings.beta2,
                eps=settings.eps, weight_decay=settings.weight_decay if decays_by_default(path, a) else 0.0)  # fmt: skip
        theta = updated
        records.append((float(loss), float(norm), rate))
    return unflatten(theta, model.params), records


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 2, "checkpointing": 1}, {"workers": 3}])
def test_training_is_what_the_formulas_say(tmp_path, changes):
    model = tiny(**RATES)
    expected, records = by_hand(model, TOKENS, SETTINGS, SETTINGS.steps)
    settings = dataclasses.replace(SETTINGS, **changes)
    train(model, TOKENS, TOKENS[:40], settings, out=tmp_path, progress=False)
    assert relative_error(model.params, expected) < TRAINED
    logged = [(r["loss"], r["gradient_norm"], r["learning_rate"]) for r in log.read(tmp_path / "log.jsonl") if "loss" in r]
    np.testing.assert_allclose(logged, records, rtol=TRAINED)
    assert all(norm > 2 * SETTINGS.clip for _, norm, _ in records), "the limit must bite, or clipping is not tested"
    assert len({rate for *_, rate in records}) > 1, "the learning rate must move, or the schedule is not tested"


@pytest.mark.parametrize(
    "change",
    [{"clip": 1e9}, {"smoothing": 0.0}, {"weight_decay": 0.0}, {"beta1": 0.9}, {"beta2": 0.999}, {"eps": 1e-8}, {"seed": 13}],
)
def test_every_setting_matters_to_the_comparison(change):
    """Otherwise the test above could not detect a lost setting."""
    expected, _ = by_hand(tiny(**RATES), TOKENS, SETTINGS, 2)
    other, _ = by_hand(tiny(**RATES), TOKENS, dataclasses.replace(SETTINGS, **change), 2)
    assert relative_error(other, expected) > 1e-6


@pytest.mark.parametrize(("device", "log_every", "waits"), [("cpu", 1, [1, 1, 1, 1, 1]), ("strict", 2, [2, 2, 1])])
def test_times_and_tokens_by_hand(tmp_path, monkeypatch, device, log_every, waits):
    """The clock advances two seconds per reading, that is each time losses are read back.  Evaluation and saving do not count as
    training time."""
    seconds = itertools.count(step=2.0)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(seconds))
    settings = dataclasses.replace(SETTINGS, steps=5, log_every=log_every, evaluate_every=4, save_every=5)
    state = train(tiny(device=device), TOKENS, TOKENS[:40], settings, out=tmp_path, progress=False)
    speeds = [r["tokens_per_second"] for r in log.read(tmp_path / "log.jsonl") if "loss" in r]
    assert speeds == [steps * 3 * 5 / 2 for steps in waits for _ in range(steps)]
    assert (state.step, state.tokens, state.seconds) == (5, 5 * 3 * 5, 2.0 * len(waits))


def test_only_matrices_of_linear_layers_decay():
    shapes = flatten(tiny().params)
    matrices = {f"attention.W{n}" for n in "qkvo"} | {"mlp.W1", "mlp.W2"}
    assert {p for p, a in shapes.items() if decays_by_default(p, a)} == {f"body.layers.{i}.{m}" for i in (0, 1) for m in matrices}


# ------------------------------------------------------------------------------------------------------------- dropout


def record_dropout(monkeypatch, model, key, **kwargs):
    """[(rate, key)] of every dropout call in one forward and backward pass, from any module."""
    from tinyplm.layers.dropout import dropout

    calls = []

    def spy(x, *, rate, key):
        calls.append((rate, key))
        return dropout(x, rate=rate, key=key)

    for name, module in list(sys.modules.items()):
        if name.startswith("tinyplm.") and getattr(module, "dropout", None) is dropout:
            monkeypatch.setattr(module, "dropout", spy)
    ids = np.random.default_rng(0).integers(0, 11, (2, 5))
    outputs, back = model(ids, key=key, **kwargs)
    forward = list(calls)
    dlogits = np.random.default_rng(1).normal(size=outputs["logits"].shape)
    gradient = back({"logits": dlogits})
    monkeypatch.undo()
    return forward, calls[len(forward) :], gradient


def test_gpt2_drops_out_where_it_was_published_with_a_mask_of_its_own_each_time(monkeypatch):
    """Radford et al. 2018, sec. 4.1: residual, embedding and attention dropout."""
    key = random.sample_keys(5, np.arange(2))
    calls, again, _ = record_dropout(monkeypatch, tiny(**RATES), key)
    assert Counter(rate for rate, _ in calls) == {0.15: 1, 0.25: 2, 0.35: 4}, "once, once a layer, twice a layer"
    assert not again
    keys = [int(k) for _, sites in calls for k in sites]
    assert len(set(keys)) == 7 * 2, "two places or two samples have the same mask"


def test_the_keys_of_the_dropout_sites_do_not_move(monkeypatch):
    """A resumed run uses the same masks only if the keys stay fixed; and no layer shares the embedding's key."""
    key, fold = random.sample_keys(5, np.arange(2)), random.fold
    calls, _, _ = record_dropout(monkeypatch, tiny(**RATES), key)
    expected = [(0.15, fold(key, 2))]
    for i in range(2):
        expected += [(0.25, fold(key, i, 0)), (0.35, fold(key, i, 1)), (0.35, fold(key, i, 2))]
    assert [(rate, site.tolist()) for rate, site in calls] == [(rate, site.tolist()) for rate, site in expected]


def test_no_key_no_dropout(monkeypatch):
    calls, _, gradient = record_dropout(monkeypatch, tiny(**RATES), None)
    assert all(key is None for _, key in calls)
    assert equal(gradient, record_dropout(monkeypatch, tiny(), None)[2])


# ------------------------------------------------------------------------------------------------------- checkpointing


def test_checkpointing_reaches_the_stack_and_changes_no_bit(tmp_path, monkeypatch):
    asked, blocks = [], []
    stack, block = gpt2.stack, gpt2.block
    monkeypatch.setattr(gpt2, "stack", lambda *a, **k: (asked.append(bool(k["options"].checkpointing)), stack(*a, **k))[1])
    monkeypatch.setattr(gpt2, "block", lambda *a, **k: (blocks.append(None), block(*a, **k))[1])
    results, counts = {}, {}
    for checkpointing in (False, True):
        asked.clear(), blocks.clear()
        model = results[checkpointing] = tiny(**RATES)
        settings = dataclasses.replace(SETTINGS, checkpointing=int(checkpointing))
        train(model, TOKENS, TOKENS[:16], settings, out=tmp_path / str(checkpointing), progress=False)
        # the last call is the evaluation, without gradients
        assert asked[: SETTINGS.steps] == [checkpointing] * SETTINGS.steps
        counts[checkpointing] = len(blocks)
    assert counts[True] - counts[False] == SETTINGS.steps * 2, "each of the 2 layers once more in every backward"
    assert equal(results[False].params, results[True].params)


# ------------------------------------------------------------------------------------------------------- to the disk


@pytest.fixture
def disk(monkeypatch):
    """Flushes and renames, in order: ("fsync", inode, size) and ("rename", inode, target name)."""
    events = []
    fsync = os.fsync

    def spy_fsync(descriptor):
        status = os.fstat(descriptor)
        events.append(("fsync", status.st_ino, status.st_size))
        fsync(descriptor)

    def spy(rename):
        def renaming(source, target, **kwargs):
            events.append(("rename", os.stat(source).st_ino, Path(target).name))
            rename(source, target, **kwargs)

        return renaming

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy(os.replace))
    monkeypatch.setattr(os, "rename", spy(os.rename))
    return events


def place(events, *start):
    """The index of the first event that begins with `start`."""
    found = [i for i, event in enumerate(events) if event[: len(start)] == start]
    assert found, f"no {start} among {events}"
    return found[0]


def test_a_file_is_flushed_in_full_before_it_gets_its_name(tmp_path, disk):
    with files.replaced(tmp_path / "file") as temporary:
        temporary.write_text("twelve bytes")
    inode = (tmp_path / "file").stat().st_ino
    assert place(disk, "fsync", inode, 12) < place(disk, "rename", inode, "file")


@pytest.mark.parametrize("best_step", [None, 3])
def test_a_checkpoint_is_flushed_before_it_is_renamed_and_renamed_before_it_is_named(tmp_path, disk, best_step):
    model = tiny(dtype="float32")
    model.tokenizer = Tokenizer.train(["abc abd"], 260)
    folder = checkpoint.save(tmp_path, model, AdamW(model.params), State(step=3, best_step=best_step), SETTINGS, "data")
    names = {"config.json", "model.safetensors", "optimizer.safetensors", "trainer.json", "checksums.json",
             "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
    assert {file.name for file in folder.iterdir()} == names
    renamed = place(disk, "rename", folder.stat().st_ino, "step-3")
    for file in folder.iterdir():
        assert place(disk, "fsync", file.stat().st_ino, file.stat().st_size) < renamed, f"{file.name} is not flushed"
    last_file = max(i for i, (kind, _, name) in enumerate(disk) if kind == "rename" and name in names)
    entries = place(disk[last_file:], "fsync", folder.stat().st_ino) + last_file
    assert entries < renamed, "the folder's entries are to be flushed when all files have their names"
    named = place(disk, "rename", (tmp_path / "latest").stat().st_ino, "latest")
    synced = place(disk[renamed:], "fsync", tmp_path.stat().st_ino) + renamed
    assert synced < named, "the rename must be on the disk before `latest`"
    assert place(disk, "fsync", (tmp_path / "latest").stat().st_ino) < named


def test_the_log_is_flushed_before_a_checkpoint_says_that_its_steps_are_done(tmp_path, disk):
    train(tiny(), TOKENS, TOKENS[:16], SETTINGS, out=tmp_path, progress=False)
    file = (tmp_path / "log.jsonl").stat()
    assert place(disk, "fsync", file.st_ino, file.st_size) < place(disk, "rename", (tmp_path / "latest").stat().st_ino)
