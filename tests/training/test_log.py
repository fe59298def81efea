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


class Clock:
    """Stands in for the module time in training.log."""

    def __init__(self):
        self.seconds = 1000.0

    def monotonic(self):
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(log, "time", clock)
    return clock


def test_redirected_progress_is_a_line_a_minute_and_the_first_and_last(capsys, clock):
    progress = log.Progress(2500, 1000)
    for step in range(1001, 2501):
        clock.seconds += 0.25
        progress.update(1, {"loss": f"{step:.3f}", "tok/s": "2048"})
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    done = [1001, *range(1241, 2500, 240), 2500]
    assert [line.split()[1] for line in lines] == [f"{step}/2500" for step in done]
    assert lines[0] == "step 1001/2500  loss 1001.000  tok/s 2048  0:00 elapsed  6:15 remaining"
    assert lines[1] == "step 1241/2500  loss 1241.000  tok/s 2048  1:00 elapsed  5:15 remaining"
    assert lines[-1] == "step 2500/2500  loss 2500.000  tok/s 2048  6:15 elapsed  0:00 remaining"


def test_progress_that_ends_early_prints_its_last_line_once(capsys, clock):
    progress = log.Progress(100, 0)
    for step in range(1, 4):
        progress.update(1, {"loss": str(step)})
    progress.close()
    progress.close()
    steps = [line.split("  ")[:2] for line in capsys.readouterr().err.splitlines()]
    assert steps == [["step 1/100", "loss 1"], ["step 3/100", "loss 3"]]
    hidden = log.Progress(100, 0, show=False)
    hidden.update(1, {"loss": "1"})
    hidden.close()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "seconds, text", [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (360061, "100:01:01")]
)
def test_times_are_in_hours_minutes_and_seconds(seconds, text):
    assert log.clock(seconds) == text


LOSS = {"loss": "3.332", "norm": "0.45", "tok/s": "35000", "lr": "1.5e-03", "mem": "0.31GB"}
REWARD = {"reward": "0.823", "kl": "0.0123", "entropy": "0.512", "length": "5.12"}
LONG = {"loss": "11234.567", "norm": "1234567.89", "tok/s": "12345678", "lr": "1.5e-03"}


@pytest.mark.parametrize(
    "values, total, seconds, fitting",
    [(LOSS, 2500, 90, 3), (REWARD, 2500, 90, 3), (LOSS, 10_000_000, 500_000, 2), (LONG, 99_999, 9000, 2)],
)
def test_the_bar_has_room_in_80_columns(monkeypatch, values, total, seconds, fitting):
    pytest.importorskip("tqdm")
    fcntl = pytest.importorskip("fcntl", reason="terminals are Unix's")
    reader, writer = os.openpty()
    fcntl.ioctl(writer, pytest.importorskip("termios").TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = log.Progress(total, 0)
        progress.bar.start_t -= seconds
        progress.bar.last_print_t -= seconds
        progress.update(total // 2, values)
        progress.bar.refresh()
        progress.close()
        shown = ""
        while "\n" not in shown:  # a terminal may deliver the output in pieces
            shown += os.read(reader, 10000).decode()
    line = next(part for part in re.split(r"[\r\n]+", shown) if re.search("50%.*=", part))
    os.close(reader)
    assert 70 <= len(line) <= 80 and len(line.split("|")[1]) >= 16
    assert line.endswith(", ".join(f"{name}={value}" for name, value in [*values.items()][:fitting]))
    assert re.search(r" \d+(:\d\d)+, [\w/]+=", line), "the time remaining is whole"
