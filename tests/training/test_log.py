"""The progress display of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import struct
import sys

import pytest

from tests.families.test_gpt2 import tiny
from tests.training.test_loop import QUICK, TOKENS
from tinyplm.training import log
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings


def test_progress_works_without_tqdm(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(tiny(), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path)
    assert "step 6/6" in capsys.readouterr().err


def test_progress_that_is_redirected_is_some_plain_lines(capsys):
    progress = log.Progress(2500, 1000)
    for step in range(1001, 2501):
        progress.update(1, {"loss": f"{step:.3f}"})
    progress.close()
    steps = [*range(1000, 2501, 250)][1:]
    assert capsys.readouterr().err == "".join(f"step {step}/2500  loss {step:.3f}\n" for step in steps)
    for total in (1, 3, 15):  # few steps: one line each, at most ten lines
        progress = log.Progress(total, 0)
        for _ in range(total):
            progress.update(1, {})
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1] == f"step {total}/{total}" and len(lines) == min(total, 10)


@pytest.mark.parametrize("values", [{"loss": "3.332", "norm": "0.45", "tok/s": "35000", "lr": "1.5e-03"},
                                    {"reward": "0.823", "kl": "0.0123", "entropy": "0.512", "length": "5.12"}])  # fmt: skip
def test_the_bar_has_room_in_80_columns(monkeypatch, values):
    pytest.importorskip("tqdm")
    fcntl = pytest.importorskip("fcntl", reason="terminals are Unix's")
    reader, writer = os.openpty()
    fcntl.ioctl(writer, pytest.importorskip("termios").TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = log.Progress(2500, 0)
        progress.update(1250, values)
        progress.bar.refresh()
        progress.close()
        shown = ""
        while "50%" not in shown:  # a terminal may deliver the output in pieces
            shown += os.read(reader, 10000).decode()
    line = next(part for part in re.split(r"[\r\n]+", shown) if "50%" in part)
    os.close(reader)
    assert 70 <= len(line) <= 80 and len(line.split("|")[1]) >= 16
    assert ", ".join(f"{name}={value}" for name, value in [*values.items()][:3]) in line
