"""Real processes killed with SIGKILL and resumed: the runs end bit-identical to uninterrupted ones."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.survivor import ROOT, contents, whole_latest
from tinyplm.training import checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

LONG_RUN = {"steps": 36, "warmup": 10, "evaluate_every": 7, "save_every": 1, "keep": 2}


def start(*arguments: object) -> subprocess.Popen:
    """Starts tests.support.survivor as a process, with BLAS limited to one thread: more would only wait for each other."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "tests.support.survivor", *map(str, arguments)], env=environment, cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=3000)
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize("full_every", [1, 3])
def test_a_run_killed_at_any_operation_on_the_disk_goes_on_as_if_nothing_had_happened(tmp_path, full_every, pytestconfig):
    """At every fsync, rename, unlink, ... of a run that saves every step, evaluates, prunes and updates `best`."""
    long = pytestconfig.getoption("--long")
    options = {"full_every": full_every, "keep": 2 if full_every > 1 else 1, "warmup": 1, "twice": long}
    options |= {"steps": 6, "evaluate_every": 2, "after": [False, True]} if long else {"after": [False]}
    if not long:
        options |= {"steps": 3 if full_every > 1 else 2, "evaluate_every": 3}
    operations, kills = map(int, finish(start("everywhere", tmp_path, json.dumps(options))).split())
    assert operations >= 80 and kills >= 40


@pytest.mark.parametrize("full_every", [1, 3])
def test_a_run_killed_at_random_moments_again_and_again_ends_bit_equal(tmp_path, full_every, pytestconfig):
    kills = 50 if pytestconfig.getoption("--long") else 3
    rng = random.Random(full_every)
    options = json.dumps({**LONG_RUN, "full_every": full_every, **({"steps": 600} if kills == 50 else {})})
    began = time.perf_counter()
    finish(start(tmp_path / "whole", options))
    seconds = time.perf_counter() - began
    out, killed = tmp_path / "killed", 0
    while killed < kills:
        process = start(out, options)
        step = _latest_step(out)
        deadline = time.perf_counter() + 60
        while process.poll() is None and _latest_step(out) == step and time.perf_counter() < deadline:
            time.sleep(0.001)  # until it has saved another step
        time.sleep(rng.random() * seconds / kills / 3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert whole_latest(out)
        if process.returncode == 0:
            break  # it finished before all the kills
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= kills // 2, "the run is too short for this test"
    finish(start(out, options))
    expected, found = contents(tmp_path / "whole"), contents(out)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], f"{name} differs after {killed} kills"


def _latest_step(out: Path) -> int:
    return int((out / "latest").read_text()[5:]) if (out / "latest").exists() else 0


def test_a_folder_that_no_run_has_left_is_not_removed_at_the_start(tmp_path):
    (tmp_path / "step-99").mkdir()
    (tmp_path / "step-99/mine").touch()
    finish(start(tmp_path, json.dumps({"steps": 3})))
    assert (tmp_path / "step-99/mine").exists()


def test_a_first_save_that_was_not_named_yet_is_gone_on_with(tmp_path):
    """Killed after renaming the folder but before writing `latest`: the only folder is intact, and nothing is lost."""
    options = json.dumps({"steps": 2, "warmup": 1, "save_every": 2})
    finish(start(tmp_path, options))
    expected = contents(tmp_path)
    for name in ("latest", "best"):
        (tmp_path / name).unlink()
    assert checkpoint.started(tmp_path) and checkpoint.find(tmp_path).name == "step-2"
    finish(start(tmp_path, options))
    assert contents(tmp_path) == expected
    (tmp_path / "step-2/config.json").unlink()  # but an incomplete folder does not count
    for name in ("latest", "best"):
        (tmp_path / name).unlink()
    assert not checkpoint.started(tmp_path)


def test_a_folder_that_lost_latest_is_not_started_anew(tmp_path):
    """If `best` or more than one folder exists, someone removed `latest`."""
    finish(start(tmp_path, json.dumps({"steps": 6, "keep": 3})))
    (tmp_path / "latest").unlink()
    assert checkpoint.started(tmp_path)
    process = start(tmp_path, "{}")
    error = process.communicate()[1].strip().splitlines()[-1]
    assert process.returncode != 0 and "got no file 'latest'; step-6 is intact" in error
    (tmp_path / "latest").write_text("step-6\n")
    finish(start(tmp_path, json.dumps({"steps": 6})))
