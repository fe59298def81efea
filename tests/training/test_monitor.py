"""Outlier detection on loss and gradient norm, early stopping, and notes on a changed environment, all exact across a resume."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from tests.laws import FEW, MODEL, MODEL_32
from tests.support.survivor import contents, interrupted, run
from tinyplm.training import checkpoint, environment, log, loop, monitor, samples
from tinyplm.training.monitor import Monitor, Outlier, improves
from tinyplm.training.settings import Settings


def records(losses, norms=None) -> list[dict]:
    return [
        {"loss": float(x), "gradient_norm": float(n)} for x, n in zip(losses, losses if norms is None else norms, strict=True)
    ]


def observe(watch: Monitor, given: list[dict]) -> list[tuple[int, Outlier]]:
    return [(i, found) for i, record in enumerate(given) for found in watch.observe(record)]


def by_hand(values: list[float], factor: float) -> float:
    median = statistics.median(values)
    deviation = statistics.median([abs(v - median) for v in values])
    return median + factor * max(1.4826 * deviation, abs(median) / 100)


def test_a_spike_is_reported_with_the_threshold_of_the_rule():
    values = (4 + 0.1 * np.random.default_rng(0).standard_normal(400)).tolist()
    values[250] = 9.0
    watch = Monitor()
    found = observe(watch, records(values, [1.0] * 400))
    assert found == [(250, Outlier("loss", 9.0, pytest.approx(by_hand(values[50:250], 6), rel=MODEL)))]
    norms = list(values)
    found = observe(Monitor(), records([1.0] * 400, norms))
    assert found == [(250, Outlier("gradient_norm", 9.0, pytest.approx(by_hand(values[50:250], 10), rel=FEW)))]


def test_the_start_of_a_run_a_fall_and_a_level_that_stays_are_no_alarm():
    rng = np.random.default_rng(1)
    values = 4 + 0.1 * rng.standard_normal(99)
    values[60] = 50
    assert not observe(Monitor(), records(values)), "the first 100 steps"
    falling = 8 * np.exp(-np.arange(600) / 100) + 2 + 0.1 * rng.standard_normal(600)
    assert not observe(Monitor(), records(falling))
    assert not observe(Monitor(), records(np.linspace(2, 2.05, 300))), "less than the hundredths allow"
    raised = np.concatenate([4 + 0.1 * rng.standard_normal(200), 8 + 0.1 * rng.standard_normal(300)])
    found = observe(Monitor(), records(raised, np.ones(500)))
    assert [i for i, _ in found] == [200], "of steps in a row only the first"


def test_ordinary_noise_gives_no_alarm():
    """Normal noise exceeds six deviations once in 10^9 steps; the estimate from 100 to 200 steps is less reliable."""
    rng = np.random.default_rng(2)
    found = observe(Monitor(), records(4 + 0.3 * rng.standard_normal(20_000), np.exp(0.2 * rng.standard_normal(20_000))))
    assert len(found) <= 2


@pytest.mark.parametrize("cut", [1, 99, 100, 150, 199, 200, 201, 202, 350])
def test_replay_from_the_log_goes_on_exactly(cut):
    rng = np.random.default_rng(3)
    given = records(rng.standard_cauchy(500) + 5, rng.standard_cauchy(500) + 5)  # many alarms
    whole = observe(Monitor(), given)
    first, second = Monitor(), Monitor()
    before = observe(first, given[:cut])
    second.replay([{"step": 1, "validation_loss": 3.0}, *given[:cut]])
    after = [(i + cut, found) for i, found in observe(second, given[cut:])]
    assert before + after == whole and len(whole) == 30


def test_the_loop_reports_a_spike_with_its_samples_on_screen_and_in_the_log(tmp_path, monkeypatch, capsys):
    """A run interrupted before, at or after the spike reports exactly the same once it has resumed."""
    monkeypatch.setattr(monitor, "START", 4)
    update = loop.update
    options = {"steps": 12, "warmup": 2, "save_every": 1, "evaluate_every": 5, "log_every": 1}
    spiked = {8: 50.0, 9: 50.0, 11: 900.0}
    stop = [None]

    def spiking(*args, step, **kwargs):
        if step == stop[0]:
            raise KeyboardInterrupt
        loss, norm = update(*args, step=step, **kwargs)
        return loss * 0 + spiked.get(step, 3.0), norm

    monkeypatch.setattr(loop, "update", spiking)
    run(tmp_path / "whole", progress=True, **options)
    written = [r for r in log.read(tmp_path / "whole/log.jsonl") if r.get("outlier") == "loss"]
    assert [(r["step"], r["value"], r["first_sample"], r["last_sample"]) for r in written] == [
        (9, 50.0, 32, 35),
        (12, 900.0, 44, 47),
    ]
    assert all(r["threshold"] < r["value"] for r in written) and "loss" not in written[0]
    screen = capsys.readouterr()
    assert "step 9: loss 50 stands out (threshold 3.18), samples 32 to 35" in screen.out + screen.err
    for at in (3, 7, 8, 9, 10, 11):
        stop[0] = at
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(at), **options)
        stop[0] = None
        run(tmp_path / str(at), **options)
        assert contents(tmp_path / str(at)) == contents(tmp_path / "whole")


def test_monitors_do_not_read_back_from_a_gpu_more_often(tmp_path, monkeypatch):
    """With log_every = 3 on a device, losses are still read back three at a time."""
    from tests.families.test_gpt2 import tiny
    from tests.support.survivor import QUICK, TOKENS

    sizes = []
    read_back = loop._Run.read_back
    monkeypatch.setattr(loop._Run, "read_back", lambda self: (sizes.append(len(self.pending)), read_back(self))[1])
    settings = Settings(**{**QUICK, "save_every": 99, "evaluate_every": 99, "log_every": 3, "steps": 8})
    loop.train(tiny(device="strict"), TOKENS, TOKENS[:40], settings, out=tmp_path, progress=False)
    assert sizes == [3, 3, 2]


# --------------------------------------------------------------------------------------------------- early stopping


@pytest.mark.parametrize(
    ("loss", "best", "least", "expected"),
    [
        (3.0, None, 0.5, True),
        (2.9, 3.0, 0.0, True),
        (3.0, 3.0, 0.0, False),
        (2.5, 3.0, 0.5, True),
        (2.6, 3.0, 0.5, False),
        (3.1, 3.0, 0.0, False),
    ],
)
def test_what_counts_as_an_improvement(loss, best, least, expected):
    assert improves(loss, best, least) is expected


LOSSES = [2.0, 1.9, 1.95, 1.8, 1.79, 1.85, 1.84, 1.83, 1.0]  # one loss per evaluation


def patient(out, monkeypatch, stop=None, progress=False, **changes):
    """A run that evaluates every step, with LOSSES as results; interrupted at step `stop` if that is set."""
    update, done = loop.update, []

    def breaking(*args, step, **kwargs):
        done[:] = [step]
        if step == stop:
            raise KeyboardInterrupt
        return update(*args, step=step, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", breaking)
        patch.setattr(samples, "evaluate", lambda *a, **k: (LOSSES[done[0]], 1))
        return run(out, progress=progress, **{"steps": 9, "save_every": 4, "evaluate_every": 1, "keep": 9, **changes})


@pytest.mark.parametrize(
    ("changes", "steps", "best"),
    [
        ({}, 9, 9),
        ({"patience": 1}, 3, 2),
        ({"patience": 3}, 8, 5),
        ({"patience": 4}, 9, 9),
        ({"patience": 3, "min_improvement": 0.15}, 7, 5),  # 2.0 at step 1, 1.8 at step 4: an improvement of 0.2
    ],
)
def test_early_stopping_is_exact_under_resume(tmp_path, monkeypatch, changes, steps, best):
    state = patient(tmp_path / "whole", monkeypatch, **changes)
    assert (state.step, state.best_step, state.signal) == (steps, best, None)
    assert checkpoint.find(tmp_path / "whole").name == f"step-{steps}"
    assert checkpoint.find(tmp_path / "whole", "best").name == f"step-{best}"
    for at in range(1, steps):
        with pytest.raises(KeyboardInterrupt):
            patient(tmp_path / str(at), monkeypatch, stop=at, **changes)
        assert patient(tmp_path / str(at), monkeypatch, **changes).step == steps
        assert contents(tmp_path / str(at)) == contents(tmp_path / "whole")
    assert patient(tmp_path / "whole", monkeypatch, **changes).step == steps, "a stopped run stays stopped"


def test_early_stopping_is_said_and_more_patience_goes_on(tmp_path, monkeypatch, capsys):
    patient(tmp_path, monkeypatch, patience=3, progress=True)
    screen = capsys.readouterr()
    line = "step 8: stopping early, no improvement in 3 evaluations on 1.7900 by 0 or more"
    assert line in screen.out + screen.err
    assert patient(tmp_path, monkeypatch, patience=4).step == 9


def test_saving_by_the_clock_changes_no_number(tmp_path):
    run(tmp_path / "a", save_every=6, evaluate_every=6, keep=9)
    run(tmp_path / "b", save_every=6, evaluate_every=6, keep=9, save_minutes=0.0)
    assert {p.name for p in (tmp_path / "b").glob("step-*")} == {f"step-{n}" for n in range(1, 7)}
    a, b = (contents(tmp_path / name) for name in "ab")
    trainers = [c.pop("step-6/trainer.json") for c in (a, b)]
    assert all(b[name] == a[name] for name in a) and trainers[0]["state"] == trainers[1]["state"]


# ----------------------------------------------------------------------------------------- workers and environment


def broken_off(out, **changes) -> None:
    with interrupted(3):
        run(out, **changes)


def screen_of(capsys) -> str:
    screen = capsys.readouterr()
    return screen.out + screen.err


def test_another_version_or_other_workers_on_resume_are_one_line(tmp_path, monkeypatch, capsys):
    broken_off(tmp_path)
    describe = environment.describe
    monkeypatch.setattr(environment, "describe", lambda *a: {**describe(*a), "numpy": "9.9.9"})
    run(tmp_path, workers=2, progress=True)
    was = np.__version__
    line = (f"environment changed: numpy {was}, now 9.9.9; workers 1, now 2: results will match the uninterrupted "
            "run to rounding, not bit for bit")  # fmt: skip
    assert line in screen_of(capsys)
    run(tmp_path / "whole")
    a, b = ({k: v for k, v in r.items() if k not in log.MEASURED} for r in
            (list(log.read(tmp_path / d / "log.jsonl"))[-1] for d in (".", "whole")))  # fmt: skip
    assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=MODEL_32)


def test_the_same_environment_says_nothing_and_an_old_trainer_json_all(tmp_path, monkeypatch, capsys):
    broken_off(tmp_path)
    run(tmp_path, progress=True)
    assert "environment changed" not in screen_of(capsys)
    now = environment.describe(1, "cpu")
    assert now.keys() == {"tinyplm", "numpy", "BLAS", "workers", "device"} and now["numpy"] == np.__version__
    assert environment.difference(now, now) is None and "tinyplm None, now" in environment.difference({}, now)
    monkeypatch.setattr(environment, "ARITHMETIC", environment.ARITHMETIC + 1)  # the same version, but the last bits differ
    assert "environment changed: tinyplm 0" in environment.difference(now, environment.describe(1, "cpu"))


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 9},
        {"workers": 3},
        {"micro_batch_size": 3, "workers": 2},
        {"micro_batch_size": 3},
        {"micro_batch_size": 1, "workers": 2},
        {"micro_batch_size": 1, "workers": 4},
        {"micro_batch_size": 2, "workers": 3},
    ],  # fmt: skip
)
def test_batches_that_do_not_divide_among_micro_batches_or_workers_work(tmp_path, change):
    """Nine workers share four samples; micro-batches of 3 and 1. All match a single batch to rounding."""
    options = {"evaluate_every": 6, "save_every": 6}
    run(tmp_path / "one", **options)
    run(tmp_path / "cut", **options, **change)
    for a, b in zip(log.read(tmp_path / "one/log.jsonl"), log.read(tmp_path / "cut/log.jsonl"), strict=True):
        assert a.get("loss", a.get("validation_loss")) == pytest.approx(b.get("loss", b.get("validation_loss")), rel=1e-4)


def test_workers_without_work_or_core_are_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert environment.workers_note(2, 4) is None
    assert environment.workers_note(3, 4) == "3 workers on 2 cores: more workers than cores do not speed up training"
    assert environment.workers_note(6, 4) == "6 workers share at most 4 sequences at a time: 2 of them stay idle"
    run(tmp_path, workers=3, progress=True)
    assert screen_of(capsys).count("3 workers on 2 cores") == 1


def test_a_log_with_gaps_is_a_note_and_garbage_after_a_power_cut_goes(tmp_path, capsys):
    broken_off(tmp_path / "x")
    run(tmp_path / "whole")
    file = tmp_path / "x/log.jsonl"
    lines = file.read_bytes()
    file.write_bytes(lines + b"\x00\x00\xff\n" + b"more\n")  # blocks not yet flushed when the power failed
    run(tmp_path / "x")
    assert contents(tmp_path / "x") == contents(tmp_path / "whole")
    broken_off(tmp_path / "y")
    file = tmp_path / "y/log.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:]))
    run(tmp_path / "y", progress=True)
    assert "has the losses of 2 of 3 steps" in screen_of(capsys)
