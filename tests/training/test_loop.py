"""The training loop: accumulation, the strict device, resume, checkpoints, logs, and what stops a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyplm
from tests.families.test_gpt2 import tiny
from tests.gpu.strict import no_synchronisation
from tests.laws import MODEL, equal, relative_error, trained
from tinyplm.backend import to_host
from tinyplm.core import flatten
from tinyplm.optim.adamw import AdamW
from tinyplm.training import checkpoint, folders, log, samples
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings
from tinyplm.training.step import NonFiniteError, accumulate, evaluate, update

TOKENS = np.random.default_rng(0).integers(0, 11, 200).astype(np.uint16)
QUICK = {
    "steps": 6,
    "batch_size": 4,
    "sequence_length": 5,
    "warmup": 2,
    "learning_rate": 0.01,
    "evaluate_every": 2,
    "save_every": 2,
}


def batch(B=4, T=5):
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 11, (B, T))
    targets[0, :3] = -100  # parts with unequal numbers of targets
    return rng.integers(0, 11, (B, T)), targets


@pytest.mark.parametrize("micro", [1, 2, 3, None])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 9])
def test_micro_batches_and_shards_equal_one_batch(micro, workers):
    """Token-weighted and with dropout: a sample's mask does not depend on how the batch is split."""

    def gradient(micro, workers):
        model = tiny(resid_pdrop=0.2, attn_pdrop=0.1)
        optimizer = AdamW(model.params)
        settings = Settings(batch_size=4, micro_batch_size=micro, workers=workers, sequence_length=5)
        loss = accumulate(model, optimizer, *batch(), settings=settings, key=7)
        return float(loss), optimizer.gradient.tree

    loss, expected = gradient(None, 1)
    parts_loss, parts = gradient(micro, workers)
    assert parts_loss == pytest.approx(loss, rel=MODEL) and relative_error(parts, expected) < MODEL
    assert equal(gradient(micro, workers)[1], parts), "the same cut must give the same bits"


@pytest.mark.parametrize("micro", [1, 2])  # 5 tokens are fewer than the width, 6: the head's gradient is a product
def test_a_whole_training_step_on_the_strict_device_does_not_synchronise(micro):
    """Forward, chunked loss, backward, accumulation, clipping and AdamW, with dropout; equal to the same step on the CPU."""
    settings = Settings(batch_size=4, micro_batch_size=micro, sequence_length=5, learning_rate=0.01)
    results = {}
    for device in ("cpu", "strict"):
        model = tiny(resid_pdrop=0.2, embd_pdrop=0.1, attn_pdrop=0.1, device=device)
        optimizer = AdamW(model.params)
        model.params = optimizer.params
        with no_synchronisation():
            loss, norm = update(model, optimizer, *batch(), settings=settings, step=0, key=3)
        results[device] = (float(to_host(loss)), float(to_host(norm)), to_host(model.params))
    for a, b in zip(results["cpu"], results["strict"], strict=True):
        assert relative_error(a if isinstance(a, dict) else np.asarray(a), b if isinstance(b, dict) else np.asarray(b)) < MODEL


def test_the_strict_device_trains_through_the_loop(tmp_path):
    settings = Settings(**QUICK, eps=1e-3, log_every=3)
    for device in ("cpu", "strict"):
        train(tiny(device=device), TOKENS, TOKENS[:40], settings, out=tmp_path / device, progress=False)
    cpu, strict = (tinyplm.load(checkpoint.find(tmp_path / d)) for d in ("cpu", "strict"))
    assert relative_error(cpu.params, strict.params) < trained(6, 0.01, 1e-3)
    assert [r["step"] for r in log.read(tmp_path / "strict" / "log.jsonl") if "loss" in r] == [1, 2, 3, 4, 5, 6]


def test_a_tiny_model_learns_a_pattern(tmp_path):
    tokens = np.tile(np.arange(4), 75).astype(np.uint16)  # a period of 4, while the windows are 5 long
    settings = Settings(steps=60, batch_size=4, sequence_length=5, learning_rate=0.03, warmup=5)
    state = train(tiny(dtype="float32"), tokens, tokens[:50], settings, out=tmp_path, progress=False)
    assert state.best_loss < 0.3, "0 1 2 3 0 1 ... leaves nothing to guess"


def test_evaluation_predicts_each_token_once_whatever_the_batch():
    model = tiny()
    total, count = evaluate(model, TOKENS, length=5)
    assert count == 199
    assert evaluate(model, TOKENS, length=5, batch=3, workers=2)[0] == pytest.approx(total, rel=MODEL)
    by_hand = 0.0
    for start in range(0, 199, 5):
        window = TOKENS[start : start + 6].astype(np.int64)
        logits = model(window[None, :-1], grad=False)[0]["logits"][0]
        by_hand += sum(np.log(np.exp(row).sum()) - row[t] for row, t in zip(logits, window[1:], strict=True))
    assert total == pytest.approx(by_hand, rel=MODEL)


# ----------------------------------------------------------------------------------------------- resume and checkpoints


def _run(out, broken_at=None, **changes):
    """A run, interrupted at step `broken_at` if that is set."""
    settings = Settings(**{**QUICK, **changes})
    model = tiny(resid_pdrop=0.1, dtype="float32")
    if broken_at is None:
        train(model, TOKENS, TOKENS[:40], settings, out=out, progress=False, resume=(out / "latest").exists())
        return model
    import tinyplm.training.loop as loop

    original = loop.update

    def breaking(*args, step, **kwargs):
        if step == broken_at:
            raise KeyboardInterrupt
        return original(*args, step=step, **kwargs)

    loop.update = breaking
    try:
        train(model, TOKENS, TOKENS[:40], settings, out=out, progress=False, resume=(out / "latest").exists())
    except KeyboardInterrupt:
        pass
    finally:
        loop.update = original
    return model


@pytest.mark.parametrize("broken_at", [3, 5])
def test_resume_is_bit_equal_to_a_run_that_was_not_broken_off(tmp_path, broken_at):
    whole = _run(tmp_path / "whole")
    _run(tmp_path / "broken", broken_at=broken_at)
    resumed = _run(tmp_path / "broken")
    assert equal(whole.params, resumed.params)
    logs = [[{k: v for k, v in r.items() if k not in log.MEASURED} for r in log.read(tmp_path / d / "log.jsonl")]
            for d in ("whole", "broken")]  # fmt: skip
    assert logs[0] == logs[1], "the log has gaps, doubles or other numbers"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "whole/step-6" / name).read_bytes() == (tmp_path / "broken/step-6" / name).read_bytes()


def test_checkpoints_are_folders_with_pointers_and_old_ones_go(tmp_path):
    _run(tmp_path, keep=1, save_every=1, evaluate_every=3)
    best = checkpoint.find(tmp_path, "best")
    assert checkpoint.find(tmp_path).name == "step-6"
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-6", best.name}
    files = {"config.json", "model.safetensors", "optimizer.safetensors", "trainer.json", "checksums.json"}
    assert {p.name for p in best.iterdir()} == files
    assert not list(tmp_path.glob(".*")), "temporary files are left"
    losses = {r["step"]: r["validation_loss"] for r in log.read(tmp_path / "log.jsonl") if "validation_loss" in r}
    assert f"step-{min(losses, key=losses.get)}" == best.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.02}, "settings.learning_rate was 0.01, now 0.02"),
        ({"steps": 9}, "extend: expected .stretch. .* or .restart. .*, got None for 9 steps instead of 6"),
        ({"seed": 4}, "settings.seed was 0, now 4"),
    ],
)
def test_resume_with_other_settings_is_refused_by_name(tmp_path, change, message):
    _run(tmp_path, broken_at=5)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=message):
        _run(tmp_path, **change)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}, "a refused resume changed files"


def test_resume_with_another_model_or_data_is_refused(tmp_path):
    _run(tmp_path, broken_at=5)
    with pytest.raises(ValueError, match="model.n_layer was 2, now 1"):
        train(
            tiny(n_layer=1, resid_pdrop=0.1, dtype="float32"), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path, resume=True
        )
    with pytest.raises(ValueError, match="the token data"):
        train(tiny(resid_pdrop=0.1, dtype="float32"), TOKENS[1:], TOKENS[:40], Settings(**QUICK), out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="dtype float32, now float64"):
        train(tiny(resid_pdrop=0.1), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path, resume=True)


def test_workers_may_differ_on_resume(tmp_path):
    _run(tmp_path, broken_at=5)
    _run(tmp_path, workers=2)
    assert checkpoint.find(tmp_path).name == "step-6"


def test_resume_refuses_damaged_checkpoints(tmp_path):
    _run(tmp_path, broken_at=5)
    file = checkpoint.find(tmp_path) / "optimizer.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    with pytest.raises(ValueError, match=r"step-4: .*optimizer.safetensors has \d+ bytes instead of \d+; step-2 is intact"):
        _run(tmp_path)
    file.write_bytes(data)
    (tmp_path / "latest").write_text("step-99\n")
    with pytest.raises(ValueError, match="expected the name of a checkpoint folder, got 'step-99'"):
        _run(tmp_path)
    (tmp_path / "latest").unlink()
    with pytest.raises(ValueError, match="expected a run to resume"):
        train(tiny(), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path, resume=True)


def _break_save_at(monkeypatch, step, name):
    """Simulates a crash while the save of `step` writes the pointer `name`."""
    original = checkpoint.point

    def point(file, folder):
        if (folder, file.name) == (f"step-{step}", name):
            raise KeyboardInterrupt
        original(file, folder)

    monkeypatch.setattr(checkpoint, "point", point)


@pytest.mark.parametrize("pointer", ["best", "latest"])
@pytest.mark.parametrize("keep", [1, 2])
def test_a_crash_between_the_pointers_is_survived(tmp_path, monkeypatch, pointer, keep):
    whole = _run(tmp_path / "whole", keep=keep)
    _break_save_at(monkeypatch, 4, pointer)
    with pytest.raises(KeyboardInterrupt):
        train(
            tiny(resid_pdrop=0.1, dtype="float32"),
            TOKENS,
            TOKENS[:40],
            Settings(**QUICK, keep=keep),
            out=tmp_path / "x",
            progress=False,
        )
    latest = checkpoint.find(tmp_path / "x").name  # it moves first, so `best` is never ahead of it
    assert latest == ("step-2" if pointer == "latest" else "step-4") and (tmp_path / "x/step-4").is_dir()
    monkeypatch.undo()
    _run(tmp_path / "x", broken_at=3 if pointer == "latest" else 5, keep=keep, save_every=1)
    assert tinyplm.load(checkpoint.find(tmp_path / "x")) and tinyplm.load(checkpoint.find(tmp_path / "x", "best"))
    assert equal(_run(tmp_path / "x", keep=keep).params, whole.params)
    assert checkpoint.find(tmp_path / "x", "best").name == checkpoint.find(tmp_path / "whole", "best").name


def test_training_from_a_bfloat16_folder_keeps_float32_checkpoints(tmp_path):
    tinyplm.save(tiny(resid_pdrop=0.1, dtype="float32"), tmp_path / "bf16", dtype="BF16")
    whole = tinyplm.load(tmp_path / "bf16")
    train(whole, TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path / "x", progress=False)
    assert equal(tinyplm.load(tmp_path / "x/step-6").params, whole.params)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the overflow is intended
def test_parameters_broken_by_the_last_update_are_not_saved(tmp_path):
    with pytest.raises(NonFiniteError, match="got NaN or infinity; no checkpoint has been saved"):
        train(
            tiny(dtype="float32"),
            TOKENS,
            TOKENS[:40],
            Settings(**{**QUICK, "learning_rate": 1e39, "warmup": 0, "save_every": 1, "evaluate_every": 9}),
            out=tmp_path,
            progress=False,
        )


def test_evaluation_does_not_count_as_training_time(tmp_path, monkeypatch):
    import time

    original = samples.evaluate
    monkeypatch.setattr(samples, "evaluate", lambda *args, **kwargs: (time.sleep(0.3), original(*args, **kwargs))[1])
    state = train(
        tiny(), TOKENS, TOKENS[:40], Settings(**{**QUICK, "evaluate_every": 1, "save_every": 9}), out=tmp_path, progress=False
    )
    assert state.seconds < 0.3 * QUICK["steps"]


def test_token_ids_outside_the_vocabulary_are_refused_at_the_start(tmp_path):
    with pytest.raises(ValueError, match="validation tokens: expected ids from 0 to 10, got 11"):
        train(tiny(), TOKENS, np.full(40, 11, dtype=np.uint16), Settings(**QUICK), out=tmp_path)


def test_a_damaged_log_is_named(tmp_path):
    _run(tmp_path, broken_at=5)
    path = tmp_path / "log.jsonl"
    path.write_text("\n" + path.read_text())
    with pytest.raises(ValueError, match=r"log.jsonl, line 1: expected the record of a step"):
        _run(tmp_path)


def test_a_finished_or_started_run_is_not_overwritten(tmp_path):
    _run(tmp_path, broken_at=5)
    with pytest.raises(ValueError, match="expected a folder without a run"):
        train(tiny(), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path)
    (tmp_path / "tuned/final").mkdir(parents=True)  # as a recipe writes it
    with pytest.raises(ValueError, match="expected a folder without a run"):
        train(tiny(), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path / "tuned")


def test_a_save_that_fails_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    _run(tmp_path, broken_at=5)
    good = checkpoint.find(tmp_path)

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(folders, "write_json", full)
    with pytest.raises(checkpoint.SaveError, match=r"cannot be written \(No space.*the last good checkpoint is .*step-4"):
        _run(tmp_path)
    assert checkpoint.find(tmp_path) == good and tinyplm.load(good)
    monkeypatch.undo()
    whole = _run(tmp_path / "other")
    assert equal(_run(tmp_path).params, whole.params)


# --------------------------------------------------------------------------------------------------- what stops a run


def test_a_non_finite_loss_stops_before_the_update_and_names_the_checkpoint(tmp_path, monkeypatch):
    _run(tmp_path, broken_at=5)
    import tinyplm.training.step as step_module

    original = step_module.accumulate
    seen = []

    def poisoned(model, optimizer, *args, **kwargs):
        seen.append((model, {path: a.copy() for path, a in flatten(model.params).items()}))
        return original(model, optimizer, *args, **kwargs) * np.nan

    monkeypatch.setattr(step_module, "accumulate", poisoned)
    with pytest.raises(NonFiniteError, match=r"step 5: loss: expected .*, got nan.*last good checkpoint is .*step-4"):
        _run(tmp_path)
    model, before = seen[0]
    assert equal(flatten(model.params), before) and tinyplm.load(checkpoint.find(tmp_path))


def test_a_non_finite_gradient_stops(tmp_path):
    model = tiny()
    optimizer = AdamW(model.params)
    optimizer.gradient.buffer[3] = np.inf
    with pytest.raises(NonFiniteError, match="gradient norm: expected a finite number, got inf"):
        update(model, optimizer, *batch(), settings=Settings(batch_size=4, sequence_length=5), step=0)


def test_a_corpus_too_small_for_one_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one batch of 4 sequences of 5, got 15 tokens, enough for 2"):
        train(tiny(), TOKENS[:15], TOKENS[:40], Settings(**QUICK), out=tmp_path)
    with pytest.raises(ValueError, match="sequence_length: expected at most 6, the model's context, got 9"):
        train(tiny(), TOKENS, TOKENS[:40], Settings(**{**QUICK, "sequence_length": 9}), out=tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------ the log


def test_the_log_is_json_lines_and_a_cut_line_is_left_out(tmp_path):
    _run(tmp_path)
    path = tmp_path / "log.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    names = {"step", "loss", "learning_rate", "gradient_norm", "tokens_per_second"}
    assert names == records[0].keys() - {"memory", "memory_peak"}  # absent where unknown
    with open(path, "a") as file:
        file.write('{"step": 7, "lo')
    assert list(log.read(path)) == records


def test_the_plot_is_a_png(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra 'plot'")
    _run(tmp_path)
    assert log.plot(tmp_path / "log.jsonl", tmp_path / "loss.png", baselines={"unigram": 2.3})
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
