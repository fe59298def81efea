"""SIGINT and SIGTERM: after the first signal the current step is finished and saved; a second one stops at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.scripts import write_texts
from tests.support.survivor import ROOT, contents, run
from tests.training.test_survival import start
from tinyplm.training import loop
from tinyplm.training.checkpoint import find
from tinyplm.training.interrupt import interruptible

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_acts(number):
    before = signal.getsignal(number)
    acted = []
    try:
        signal.signal(number, lambda *_: acted.append(number))
        own = signal.getsignal(number)
        with interruptible() as interrupt:
            assert interrupt.signal is None and interrupt.name == ""
            os.kill(os.getpid(), number)
            assert interrupt.signal == number and interrupt.name == number.name and not acted
            os.kill(os.getpid(), number)
            assert acted == [number]
        assert signal.getsignal(number) is own
        with interruptible():
            assert signal.getsignal(number) is not own
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


def test_an_ignored_signal_stays_ignored_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interruptible() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.signal is None
        seen = []

        def elsewhere() -> None:
            with interruptible() as interrupt:
                seen.append((interrupt.signal, signal.getsignal(signal.SIGINT)))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert seen == [(None, signal.getsignal(signal.SIGINT))]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_a_step_saves_that_step_and_the_run_goes_on(tmp_path, monkeypatch, number, step):
    """Also when the step evaluates (step 2): its record must not be lost."""
    update = loop.update

    def interrupted(*args, **kwargs):
        if kwargs["step"] == step - 1:
            os.kill(os.getpid(), number)
        return update(*args, **kwargs)

    options = {"save_every": 6, "keep": 9}
    monkeypatch.setattr(loop, "update", interrupted)
    state = run(tmp_path / "x", **options)
    assert (state.step, state.signal) == (step, number) and find(tmp_path / "x").name == f"step-{step}"
    assert "signal" not in json.loads((find(tmp_path / "x") / "trainer.json").read_text())["state"]
    monkeypatch.undo()
    assert run(tmp_path / "x", **options).signal is None
    run(tmp_path / "whole", **options)
    found, expected = contents(tmp_path / "x"), contents(tmp_path / "whole")
    assert all(found[name] == expected[name] for name in expected)


def test_a_signal_before_the_first_step_saves_nothing(tmp_path, monkeypatch):
    finished = loop._Run.finished
    monkeypatch.setattr(loop._Run, "finished", lambda self: (os.kill(os.getpid(), signal.SIGTERM), finished(self))[1])
    state = run(tmp_path)
    assert (state.step, state.signal) == (0, signal.SIGTERM) and not (tmp_path / "latest").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_gets_two_signals_ends_at_once(tmp_path, number):
    """The second signal arrives while the first still waits for a step that never ends."""
    code = ("import signal, sys, time\nfrom tests.support.survivor import run\nfrom pathlib import Path\n"
            "from tinyplm.training import loop\nupdate = loop.update\n"
            "def slow(*a, **k):\n    if k['step'] == 3:\n        print('slow', flush=True)\n        time.sleep(60)\n"
            "    return update(*a, **k)\nloop.update = slow\nrun(Path(sys.argv[1]), progress=True)\n")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    while "slow" not in process.stdout.readline():
        pass
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None, "the first signal must not end it"
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == -number and ("KeyboardInterrupt" in error) == (number == signal.SIGINT)
    assert f"{number.name}: stopping after this step" in error and find(tmp_path).name == "step-3"


@pytest.mark.parametrize("number", SIGNALS)
def test_pretrain_says_how_to_go_on_and_exits_with_128_plus_the_signal(tmp_path, number):
    texts = write_texts(tmp_path)
    options = ["--size", "tiny", "--steps", "200", "--context", "16", "--batch", "4", "--vocabulary", "300", "--samples", "0"]
    out = str(tmp_path / "a run")

    def pretrain(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", "tinyplm", "pretrain", *arguments], cwd=ROOT, text=True,
                                env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)  # fmt: skip

    process = pretrain(*options, "--text", *texts, "--out", out, "--save-every", "10")
    while not (Path(out) / "latest").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in error
    last = printed.splitlines()[-1]
    step = int(find(Path(out)).name[5:])
    begin = f"stopped    by {number.name} after step {step} of 200; resume with: "
    assert last.startswith(begin) and last.endswith(f"tinyplm pretrain --out '{out}' --resume")
    assert "Validation, " not in printed
    if number != SIGNALS[0]:
        return  # what is saved does not depend on the signal (see above), and the command is the same
    process = subprocess.Popen(last.removeprefix(begin), shell=True, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)  # fmt: skip
    printed, error = process.communicate(timeout=120)
    assert process.returncode == 0 and f"resuming   from {out}/step-{step}" in printed, error
    assert "Validation, " in printed and find(Path(out)).name == "step-200"


def test_the_process_of_a_run_that_is_done_has_no_signal(tmp_path):
    process = start(tmp_path, '{"steps": 4}')
    assert json.loads(process.communicate(timeout=60)[0]) == {"step": 4, "signal": None}
