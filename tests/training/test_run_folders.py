"""Carefully edited run folders, pointers to nothing, two processes in one folder, edited adapters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.families.test_gpt2 import tiny
from tests.support.hostile_runs import sign
from tests.support.survivor import QUICK, ROOT, contents, run
from tests.test_files import hold, one_line, posix
from tinyplm.files import write_json
from tinyplm.hub.tensors import write_safetensors
from tinyplm.training import checkpoint, folders, incremental, log
from tinyplm.tuning.adapters.files import FACTS, TENSORS
from tinyplm.tuning.adapters.lora import load_lora, lora_parameters, save_lora
from tinyplm.tuning.adapters.prefix import check_prefix, load_prefix, save_prefix
from tinyplm.tuning.adapters.soft_prompt import load_rows, save_rows
from tinyplm.tuning.align.journal import Journal


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    run(folder, steps=4, keep=9)
    return folder


@pytest.fixture
def out(four_steps, tmp_path) -> Path:
    return Path(shutil.copytree(four_steps, tmp_path / "out"))


def refusal(call, match: str) -> str:
    with pytest.raises(ValueError, match=match) as error:
        call()
    return one_line(error.value)


# ------------------------------------------------------------------------------------------------------- trainer.json


@pytest.mark.parametrize(("path", "value", "message"), [
    (("state", "step"), 10**9, "state.step: expected an integer from 0 to 4, got 1000000000"),
    (("state", "step"), "x", "state.step: expected an integer from 0 to 4, got 'x'"),
    (("state", "step"), -1, "state.step: expected an integer from 0 to 4, got -1"),
    (("state", "tokens"), 1.5, "state.tokens: expected an integer >= 0, got 1.5"),
    (("state", "seconds"), float("nan"), "state.seconds: expected a finite number >= 0, got nan"),
    (("state", "best_step"), 5, "state.best_step: expected None or an integer from 0 to 4, got 5"),
    (("state", "best_loss"), "low", "state.best_loss: expected None or a finite number, got 'low'"),
    (("state", "improved_loss"), [1], "state.improved_loss: expected None or a finite number"),
    (("state", "waited"), None, "state.waited: expected an integer >= 0, got None"),
    (("state", "x\n"), 1, "state: expected the keys step"),
    (("state",), None, "state: expected an object, got None"),
    (("state",), {}, "state: expected the keys step"),
    (("updates",), 10**30, "updates: expected an integer from 0 to 4, got 1000"),
    (("updates",), "4", "updates: expected an integer from 0 to 4, got '4'"),
    (("settings",), None, "settings: expected an object, got None"),
    (("settings", "steps"), "x", "settings.steps: expected an integer >= 1, got 'x'"),
    (("settings", "seed"), "s" * 10**6, "settings.seed was 'sss"),
    (("environment",), 5, "environment: expected an object, got 5"),
    (("task",), 5, "task: expected a string, got 5"),
    (("increment",), {"base": "../../x", "number": 1}, "increment: expected the name and number of its base"),
    (("increment",), {"base": 5, "number": 1}, "increment: expected the name and number of its base"),
    (("data",), ["x"], "the token data"),
], ids=str)  # fmt: skip
def test_edited_values_with_right_checksums(out, path, value, message):
    folder = checkpoint.find(out)
    trainer = json.loads((folder / "trainer.json").read_text())
    inner = trainer
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    write_json(folder / "trainer.json", trainer)
    sign(folder)
    found = refusal(lambda: run(out, steps=4, keep=9), message)
    assert str(folder) in found and ("trainer.json: " in found or "expected the configuration of this run" in found)


def test_the_best_step_is_not_one_to_come():
    saved = {**checkpoint.State().saved(), "step": 2, "best_step": 2}
    assert checkpoint.State.read(saved, 4).best_step == 2
    refusal(lambda: checkpoint.State.read({**saved, "best_step": 3}, 4), "^state.best_step: expected .* from 0 to 2, got 3")


def test_a_log_of_any_length_is_counted_without_a_list(tmp_path):
    """A step of 10^9 used to build a list of that length."""
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 2}\n')
    assert "has the losses of 2 of 1000000000 steps" in log.missing_steps(tmp_path / "log.jsonl", 10**9)
    assert log.missing_steps(tmp_path / "log.jsonl", 2) is None
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 1, "loss": 2}\n')
    assert log.missing_steps(tmp_path / "log.jsonl", 2) is not None  # the right number, but not one per step
    for line in ('{"step": 1, "loss": "x"}', '{"step": "1"}', '{"step": 1, "step": 1}', "[" * 10**5, '{"step": 1, "loss": NaN}'):
        (tmp_path / "log.jsonl").write_text(line + "\n")
        refusal(lambda: list(log.read(tmp_path / "log.jsonl")), "log.jsonl, line 1: expected the record of a step")


def test_the_blocks_of_an_increment_fit_its_base():
    old = {"values.w": np.zeros(3 * incremental.BLOCK - 5, np.float32)}  # two full blocks and most of a third

    def parts(blocks, count, dtype="float32", kind="int64"):
        return {"values.w:blocks": np.array(blocks, kind), "values.w:data": np.zeros(count, dtype)}

    assert incremental._changed(parts([0, 2], 2 * incremental.BLOCK - 5), old, "x") == ["values.w"]
    for wrong in (parts([2, 0], 2 * incremental.BLOCK - 5), parts([0, 0], 2 * incremental.BLOCK), parts([0], 1), parts([], 0),
                  parts([3], 0), parts([-1], incremental.BLOCK), parts([0], incremental.BLOCK, "float64"),
                  parts([0], incremental.BLOCK, kind="int32")):  # fmt: skip
        refusal(lambda wrong=wrong: incremental._changed(wrong, old, "x"), "^x: values.w: expected blocks of its base, got ")
    refusal(lambda: incremental._changed({"w:blocks": np.zeros(1, int)}, old, "x"), "^x: expected NAME:blocks and NAME:data")


# ----------------------------------------------------------------------------------------------------------- pointers


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\n", b"../../x\n", b"..\n", b".\n", b"", b"m" * 10**6, b"a\0b", b"x\n\x1b[31m", b"step-" + b"9" * 300]
)
@pytest.mark.parametrize("name", ["latest", "best"])
def test_pointers_that_name_nothing(out, name, text):
    (out.parent.parent / "x").mkdir(exist_ok=True)  # the target of ../../x exists
    (out / name).write_bytes(text)
    assert refusal(lambda: checkpoint.find(out, name), "latest|best").startswith(f"{out / name}")
    if name == "latest":
        refusal(lambda: run(out, steps=4, keep=9), "step-4 is intact: to resume from it, write its name to")
    else:  # a resume repairs it
        run(out, steps=4, keep=9)
        assert checkpoint.find(out, "best").name == "step-4"


def test_checksums_list_files_of_the_folder_only(out):
    (out / "secret").write_text("x")
    file = checkpoint.find(out) / folders.CHECKSUMS
    sums = json.loads(file.read_text())
    for name in ("../secret", str(out / "secret"), "..", "", "n" * 10**6):
        write_json(file, {**sums, name: {"bytes": 1, "sha256": folders.sha256(out / "secret")}})
        refusal(lambda: run(out, steps=4, keep=9), "checksums.json lists .* which is not a file name; step-3 is intact")


def test_names_that_are_no_steps_are_left_alone(out):
    for name in ("step-04", "step-\u0661", "step-", "step-x", "step-1.5"):
        (out / name).mkdir()
    assert folders.steps(out) == [1, 2, 3, 4]
    run(out, steps=4, keep=1)
    assert (out / "step-04").is_dir()


# ------------------------------------------------------------------------------------------------ two in one folder

RACE = ("import sys\nfrom pathlib import Path\nfrom tests.support.survivor import QUICK, TOKENS\n"
        "from tests.support import families\n"
        "from tinyplm.training.loop import train\nfrom tinyplm.training.settings import Settings\n"
        "model = families.tiny('gpt2', resid_pdrop=0.1, dtype='float32')\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "try:\n    train(model, TOKENS, TOKENS[:40], Settings(**{**QUICK, 'steps': 12}), out=Path(sys.argv[1]), progress=False)\n"
        "except ValueError as error:\n    sys.exit(str(error))\n")  # fmt: skip


@posix
def test_of_two_processes_in_one_folder_one_is_refused_and_the_other_is_as_if_alone(tmp_path):
    run(tmp_path / "alone", steps=12)
    for number in range(2):
        out = tmp_path / str(number)
        racers = [subprocess.Popen([sys.executable, "-c", RACE, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, cwd=ROOT, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
                  for _ in range(2)]  # fmt: skip
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        errors = [racer.communicate(timeout=120)[1] for racer in racers]
        assert sorted(racer.returncode for racer in racers) == [0, 1], errors
        lost = next(error for error in errors if error)
        assert lost in (f"{out}: expected no other writer, got another process that is writing into this folder "
                        "(wait for it, or use another folder)\n",
                        f"{out} expected a folder without a run: resume it, or give another folder\n")  # fmt: skip
        assert contents(out) == contents(tmp_path / "alone")


@posix
def test_a_folder_that_is_written_into_is_left_alone(out, tmp_path):
    for folder, call in ((out, lambda: run(out, steps=6, keep=9)), (tmp_path / "tuned", lambda: Journal(tmp_path / "tuned", 2))):
        folder.mkdir(exist_ok=True)
        before = contents(folder)
        process = hold(folder)
        assert refusal(call, "got another process that is writing into this folder").startswith(str(folder))
        assert contents(folder) == before
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()
    with Journal(tmp_path / "tuned", 2, progress=False) as journal:
        refusal(lambda: hold_in_thread(tmp_path / "tuned"), "another process")
        journal.write(step=1)
    refusal(lambda: Journal(tmp_path / "tuned", 2, progress=False), "expected a folder without a run")
    hold_in_thread(tmp_path / "tuned")  # released again, even after the refusal


def hold_in_thread(folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tinyplm.files import sole_writer

    def enter() -> None:
        with sole_writer(folder):
            pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(enter).result()


def test_nothing_is_made_where_there_is_nothing_to_resume(tmp_path):
    from tests.support.survivor import TOKENS
    from tinyplm.training.loop import train
    from tinyplm.training.settings import Settings

    refusal(
        lambda: train(tiny(), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path / "x", resume=True), "expected a run to resume"
    )
    assert not (tmp_path / "x").exists()


# ----------------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize(("changes", "message"), [
    ({"alpha": "x"}, "alpha: expected a finite number > 0, got 'x'"),
    ({"alpha": None}, "alpha: expected a finite number"),
    ({"alpha": 1e400}, "alpha: expected a finite number > 0, got inf"),
    ({"alpha": 0}, "alpha: expected a finite number > 0, got 0"),
    ({"kind": "x\n"}, "expected an adapter of kind 'lora', got"),
])  # fmt: skip
def test_edited_facts_of_an_adapter(tmp_path, changes, message):
    save_lora(lora_parameters(tiny().params, rank=2), tmp_path)
    write_json(tmp_path / FACTS, json.loads((tmp_path / FACTS).read_text()) | changes)
    assert refusal(lambda: load_lora(tmp_path), message).startswith(str(tmp_path / FACTS))


@pytest.mark.parametrize(
    "tensors",
    [{}, {"x.A": np.ones((2, 2))}, {"x.A": np.ones(2), "x.B": np.ones(2)}, {"rows": np.ones(3)}, {"n" * 10**6: np.ones(2)}],
)
def test_other_tensors_in_an_adapter(tmp_path, tensors):
    for kind, load, message in (("lora", load_lora, "expected pairs of matrices A and B"),
                                ("soft prompt", load_rows, r"expected rows \(P, D\)")):  # fmt: skip
        folder = tmp_path / kind
        save_rows(np.ones((2, 3)), folder)
        write_safetensors(folder / TENSORS, tensors)
        write_json(folder / FACTS, {"kind": kind, "alpha": 1.0})
        assert refusal(lambda folder=folder, load=load: load(folder), message).startswith(str(folder))
    write_json(folder / FACTS, {"kind": "prefix"})
    refusal(lambda: check_prefix(tiny(), load_prefix(folder)), "theta: expected Pk and Pv")


@pytest.mark.parametrize("value", [np.full((2, 2), np.nan), np.full((2, 2), np.inf), np.ones((2, 2), np.int32)])
def test_adapters_of_other_numbers(tmp_path, value):
    """Neither loaded nor saved: merged into a model, or prepended to its input, they would corrupt it."""
    expected = "expected finite numbers" if value.dtype.kind == "f" else "expected an array of floating-point numbers"
    for kind, save, load, names in (("lora", save_lora, load_lora, "x.A x.B"), ("prefix", save_prefix, load_prefix, "x"),
                                    ("soft prompt", save_rows, load_rows, "rows")):  # fmt: skip
        folder = tmp_path / kind
        save_rows(np.ones((2, 3)), folder)
        write_safetensors(folder / TENSORS, dict.fromkeys(names.split(), value))
        write_json(folder / FACTS, {"kind": kind, "alpha": 1.0})
        assert refusal(lambda folder=folder, load=load: load(folder), expected).startswith(str(folder / TENSORS))
        theta = {"x": {"A": value, "B": value}} if kind == "lora" else {"x": value} if kind == "prefix" else value
        refusal(lambda save=save, theta=theta: save(theta, tmp_path / "new"), expected)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("save", [save_lora, save_prefix, save_rows])
@pytest.mark.parametrize("theta", [None, {}, "x", {"x": None}, [1.0]])
def test_what_is_no_adapter_is_not_written(tmp_path, save, theta):
    refusal(lambda: save(theta, tmp_path / "new"), "expected")
    assert not (tmp_path / "new").exists()
