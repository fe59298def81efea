"""Writers for other programs, fed with the records of the log; and the log as a table."""

from __future__ import annotations

import csv
import json
import sys
import types

import pytest

from tests.families.test_gpt2 import tiny
from tests.training.test_loop import QUICK, TOKENS
from tinyplm import backend, memory
from tinyplm.training import log, loop, writers
from tinyplm.training.loop import train
from tinyplm.training.settings import Settings


class FakeEvents:
    """The part of tensorboardX.SummaryWriter that is used; one file per writer."""

    def __init__(self, folder):
        import pathlib

        folder = pathlib.Path(folder)
        folder.mkdir(exist_ok=True)
        self.file = folder / f"events.out.tfevents.{len(list(folder.iterdir()))}"
        self.points = []

    def add_scalar(self, name, value, step):
        self.points.append([name, value, step])

    def close(self):
        self.file.write_text(json.dumps(self.points))


class FakeRun:
    def __init__(self, step):
        self.step, self.points = step, []

    def log(self, values, step):
        self.points.append((step, values))

    def finish(self):
        self.points.append("finished")


@pytest.fixture
def tensorboard(monkeypatch):
    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = FakeEvents
    monkeypatch.setitem(sys.modules, "tensorboardX", module)


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.Error, module.Settings = type("Error", (Exception,), {}), lambda **given: given
    module.runs, module.server_step = [], 0

    def init(**given):
        module.runs.append((given, FakeRun(module.server_step)))
        return module.runs[-1][1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def points(out):
    (file,) = (out / "tensorboard").iterdir()
    return json.loads(file.read_text())


def run(out, **options):
    return train(tiny(), TOKENS, TOKENS[:40], Settings(**QUICK), out=out, progress=False, writers=["tensorboard"], **options)


def test_curves_after_a_kill_are_those_of_the_log(tmp_path, tensorboard, monkeypatch):
    run(tmp_path / "whole")
    whole = [p for p in points(tmp_path / "whole") if p[0] not in log.MEASURED]
    records = list(log.read(tmp_path / "whole/log.jsonl"))
    assert whole == [[n, v, r["step"]] for r in records for n, v in log.scalars(r).items() if n not in log.MEASURED]
    assert [p[2] for p in whole if p[0] == "loss"] == [1, 2, 3, 4, 5, 6]
    assert {p[0] for p in whole} == {"loss", "learning_rate", "gradient_norm", "validation_loss"}
    update, done = loop.update, []

    def killed(*given, **options):
        done.append(0)
        if len(done) == 6:  # in the sixth step; the last checkpoint is an earlier one
            raise KeyboardInterrupt
        return update(*given, **options)

    monkeypatch.setattr(loop, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert [p[2] for p in points(tmp_path / "cut") if p[0] == "loss"] == [1, 2, 3, 4, 5]
    (tmp_path / "cut/tensorboard/mine").write_text("precious")
    run(tmp_path / "cut", resume=True)
    assert (tmp_path / "cut/tensorboard/mine").read_text() == "precious"
    (tmp_path / "cut/tensorboard/mine").unlink()
    assert [p for p in points(tmp_path / "cut") if p[0] not in log.MEASURED] == whole


def test_a_run_of_wandb_goes_on_under_its_id_without_repeating_steps(tmp_path, wandb):
    first = log.Log(tmp_path / "log.jsonl", writers=["wandb"])
    for step in (1, 2, 3):
        first.write(step=step, loss=step / 2, note="text")
    first.close()
    for last_step, server_step, sent in ((2, 4, [4]), (2, 0, [1, 2, 3, 4])):  # online, offline
        wandb.server_step = server_step
        again = log.Log(tmp_path / "log.jsonl", last_step=last_step, writers=["wandb"])
        for step in (3, 4):
            again.write(step=step, loss=step / 2)
        again.close()
        given, wandb_run = wandb.runs[-1]
        assert wandb_run.points == [*((s, {"loss": s / 2}) for s in sent), "finished"]
        assert given["id"] == wandb.runs[0][0]["id"] == (tmp_path / "wandb-id").read_text().strip()
        assert given["dir"] == str(tmp_path) and given["name"] == tmp_path.name and given["resume"] == "allow"
    assert [r["step"] for r in log.read(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    log.Log(tmp_path / "log.jsonl", writers=["wandb"]).close()  # another run in the same folder
    assert wandb.runs[-1][0]["id"] == (tmp_path / "wandb-id").read_text().strip() != wandb.runs[0][0]["id"]


@pytest.mark.parametrize("name, package", [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_one_line_before_any_work(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"^writer {name}: expected the package {package} \(pip install {package}\), got none that can be imported$"
    with pytest.raises(ValueError, match=message):
        train(tiny(), TOKENS, TOKENS[:40], Settings(**QUICK), out=tmp_path / "out", writers=[name])
    with pytest.raises(ValueError, match=message):
        log.Log(tmp_path / "log.jsonl", writers=[name])
    assert not list(tmp_path.iterdir())


def test_a_run_that_wandb_refuses_is_one_line_and_leaves_no_log(tmp_path, wandb):
    def init(**given):
        raise wandb.Error("no key\nsecond line")

    wandb.init = init
    with pytest.raises(ValueError, match="^writer wandb: expected a run that starts, got the error no key$"):
        log.Log(tmp_path / "log.jsonl", writers=["wandb"])
    assert not (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize(
    "names, line", [("tensorboard", "several names"), (["excel"], "one of tensorboard, wandb"), (3, "got 3")]
)
def test_wrong_writers_are_named(names, line):
    with pytest.raises(ValueError, match=f"^writers: expected .*{line}"):
        writers.check_writers(names)


# ------------------------------------------------------------------------------------------------------------ the table

RECORDS = [
    {"step": 1, "loss": 2.5, "load_max": [1.5, 2.0], "note": "text"},
    {"step": 1, "outlier": "loss", "value": 2.5, "threshold": 2.0, "first_sample": 0},
    {"step": 2, "loss": 1e-30},
    {"step": 2, "validation_loss": 3, "expert_counts": [[1, 2], [3, 4]]},
]


def test_the_table_has_a_row_per_step_and_a_column_per_number(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in RECORDS) + '{"step": 3, "lo')
    log.export_csv(str(file), tmp_path / "log.csv")
    with open(tmp_path / "log.csv", newline="") as table:
        header, *rows = csv.reader(table)
    assert header == ["step", "loss", "load_max/0", "load_max/1", "outlier_loss", "validation_loss"]
    assert rows == [["1", "2.5", "1.5", "2.0", "2.5", ""], ["2", "1e-30", "", "", "", "3"]]


@pytest.mark.parametrize(
    "text, line", [("", "at least one record, got none"), ('{"step": 2}\n{"step": 1}\n', "none before step 2, got step 1")]
)
def test_a_log_that_is_no_table_is_named_and_nothing_is_written(tmp_path, text, line):
    (tmp_path / "log.jsonl").write_text(text)
    (tmp_path / "log.csv").write_text("precious")
    with pytest.raises(ValueError, match=f"log.jsonl: expected .*{line}"):
        log.export_csv(tmp_path / "log.jsonl", tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text() == "precious"


# --------------------------------------------------------------------------------------------------------------- memory


def test_memory_in_use_grows_with_what_is_held(monkeypatch):
    before = memory.memory_use()
    if "memory" not in before:
        pytest.skip("this platform does not tell")
    held = bytearray(b"x" * 50_000_000)
    during = memory.memory_use()
    assert 45e6 < during["memory"] - before["memory"] < 150e6 and during["memory_peak"] >= during["memory"]
    del held
    assert memory.memory_use()["memory_peak"] >= during["memory_peak"]
    monkeypatch.setattr("builtins.open", lambda *given: (_ for _ in ()).throw(FileNotFoundError()))
    monkeypatch.setattr(sys, "platform", "elsewhere")
    assert memory.memory_use() == {}
    monkeypatch.setattr(sys, "platform", "darwin")  # where the unit is a byte
    assert memory.memory_use().keys() == {"memory_peak"}


def test_the_pool_of_a_gpu_is_logged(monkeypatch):
    pool = types.SimpleNamespace(used_bytes=lambda: 3, total_bytes=lambda: 8)
    xp = types.SimpleNamespace(get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(backend._DEVICES, "pooled", backend.Device(xp, FakeRun, list, list))
    found = memory.memory_use("pooled")
    assert (found["device_memory"], found["device_memory_reserved"]) == (3, 8)
