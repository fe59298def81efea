"""Tuning runs that are interrupted, killed, damaged or resumed with something else."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import tinyplm
from tests.laws import equal
from tests.support import recipes, tuning
from tests.support.hostile_runs import sign
from tests.support.recipes import PAIRS, PROMPTS, QUICK, RUNS, SEQUENCES, at_step, decoder, ended, process, run
from tests.support.survivor import contents
from tinyplm.core import flatten, tree_map
from tinyplm.hub import tensors as tensor_files
from tinyplm.training.checkpoint import SaveError, find
from tinyplm.training.step import NonFiniteError
from tinyplm.tuning import (
    DPOSettings,
    GRPOSettings,
    PPOSettings,
    SFTSettings,
    dpo,
    grpo,
    load_lora,
    lora_of,
    model_reward,
    ppo,
    sft,
)
from tinyplm.tuning.align.journal import Journal
from tinyplm.tuning.run_folder import RunFolder


class Stopped(BaseException):
    pass


def stop():
    raise Stopped


def steps_of(result):
    return result.steps if hasattr(result, "steps") else len(result.history)


def same(found, expected):
    """Two results of a recipe, without times."""
    parts = [{f.name: getattr(r, f.name) for f in dataclasses.fields(r) if f.name != "seconds"} for r in (found, expected)]
    return all(
        equal(*(part[name] for part in parts)) if name in ("theta", "value") else parts[0][name] == parts[1][name]
        for name in parts[1]
    )


def compare(out, expected):
    found = contents(out)
    assert found.keys() == expected.keys()
    assert not [name for name in expected if found[name] != expected[name]]


def test_a_finished_finetune_run_loads_as_its_best_epoch(tmp_path):
    model, _ = run("finetune", tmp_path)
    assert equal(tinyplm.load(tmp_path).params, model.params)
    latest = tinyplm.load(find(tmp_path)).params
    assert json.loads((tmp_path / "best/tuning.json").read_text())["epoch"] < 3 and not equal(latest, model.params)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_interrupted_at_every_step_ends_as_one_that_was_not(name, tmp_path):
    """Its parameters, moments, log and result are equal bit for bit; a run without a folder has the same numbers, too."""
    model, result = run(name, tmp_path / "whole")
    expected, plain = contents(tmp_path / "whole"), run(name, None)
    assert equal(plain[0].params, model.params) and same(plain[1], result)
    for step in range(1, steps_of(result) + 1):
        with at_step(step, stop), pytest.raises(Stopped):
            run(name, tmp_path / "cut")
    for again in range(2):  # the second time, it has ended
        found = run(name, tmp_path / "cut")
        assert equal(found[0].params, model.params) and same(found[1], result), again
        compare(tmp_path / "cut", expected)


@pytest.mark.parametrize("name", ["dpo", "ppo", "finetune"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_leaves_the_model_alone(name, number, tmp_path):
    """Also at a step after which nothing is due; a second signal acts at once."""
    model, result = run(name, tmp_path / "whole", keep=9)
    with at_step(3, lambda: os.kill(os.getpid(), number)):
        given, found = run(name, tmp_path / "cut", keep=9)
    assert found.signal == number and steps_of(found) == 3 and find(tmp_path / "cut").name == "step-3"
    start = tuning.model(dtype="float32") if name == "finetune" else decoder()
    assert equal(given.params, start.params) and not (tmp_path / "cut/final").exists()
    given, found = run(name, tmp_path / "cut", keep=9)
    assert equal(given.params, model.params) and same(found, result)
    expected, now = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert all(now[file] == expected[file] for file in expected)


def test_a_second_signal_acts_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with at_step(3, twice), pytest.raises(KeyboardInterrupt):
        run("sft", tmp_path)
    assert find(tmp_path).name in ("step-1", "step-2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_run_killed_at_any_operation_on_the_disk_goes_on(tmp_path, pytestconfig):
    """Of finetune, which writes a checkpoint, `latest` and best/ after an epoch."""
    long = pytestconfig.getoption("--long")
    options = {"after": [False, True], "twice": True} if long else {"after": [False], "twice": False, "every": 25}
    changes = {"epochs": 2, "batch_size": 4}
    operations, kills = map(int, ended(process("everywhere", "finetune", tmp_path, json.dumps({**options, **changes}))).split())
    assert operations > 100 and kills >= (200 if long else 2)


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def halted(tmp_path_factory) -> Path:
    """Runs of three recipes, stopped after their checkpoints at step 2."""
    out = tmp_path_factory.mktemp("halted")
    for name in ("sft", "dpo, LoRA", "ppo"):
        with at_step(4, stop), pytest.raises(Stopped):
            run(name, out / name, keep=3)
    return out


def changed(model, **changes):
    model.params = tree_map(lambda a: a + 1, model.params)
    return model


SFT = functools.partial(sft, settings=SFTSettings(**recipes.JUDGED), validation=SEQUENCES[:3])
DPO = functools.partial(dpo, settings=DPOSettings(**QUICK), pairs=PAIRS, reference=decoder(3))
PPO = functools.partial(ppo, settings=PPOSettings(**recipes.DRAWN, **recipes.TARGET), prompts=PROMPTS, stop_ids=[0])
REWARD = model_reward(recipes.scorer(), offset=0.5)
ADAPTED = decoder()


@pytest.mark.parametrize(("name", "call", "message"), [
    ("sft", lambda **o: SFT(changed(decoder()), SEQUENCES, **o), "model.parameters: expected those of the run, got others"),
    ("sft", lambda **o: SFT(decoder(n_layer=1), SEQUENCES, **o), "model.config.n_layer: expected 2 as in the run, got 1; mode"),
    ("sft", lambda **o: SFT(decoder().astype("float64"), SEQUENCES, **o), "model.dtype: expected 'float32' as in the run, got '"),
    ("sft", lambda **o: SFT(decoder(), SEQUENCES[1:], **o), "sequences: expected those of the run, got others"),
    ("sft", lambda **o: sft(decoder(), SEQUENCES, SFTSettings(**recipes.JUDGED), **o), "validation: expected those of the run"),
    ("sft", lambda **o: run("sft", o["out"], learning_rate=0.02, seed=1),
     "settings.learning_rate: expected 0.01 as in the run, got 0.02; settings.seed: expected 0 as in the run, got 1"),
    ("sft", lambda **o: run("sft", o["out"], steps=9), "settings.steps: expected 4 as in the run, got 9"),
    ("sft", lambda **o: run("dpo", o["out"]), "expected a checkpoint of a run with DPOSettings, got SFTSettings"),
    ("sft", lambda **o: run("sft, LoRA", o["out"]), "transform: expected None as in the run, got .*lora.*; theta: expec"),
    ("dpo, LoRA", lambda **o: DPO(ADAPTED, **lora_of(ADAPTED, rank=2, alpha=4.0), **o),
     "transform.alpha: expected 8.0 as in the run, got 4.0"),
    ("dpo, LoRA", lambda **o: DPO(ADAPTED, **lora_of(ADAPTED, rank=2, alpha=8.0, key=1), **o),
     "theta: expected those of the run, got others"),
    ("dpo, LoRA", lambda **o: DPO(ADAPTED, reference=decoder(4), **lora_of(ADAPTED, rank=2, alpha=8.0), **o),
     "reference.parameters: expected those of the run, got others"),
    ("ppo", lambda **o: PPO(decoder(), reward=recipes.even, **o), "reward.model: expected .* as in the run, got None"),
    ("ppo", lambda **o: PPO(decoder(), reward=model_reward(recipes.scorer()), **o),
     "reward.offset: expected 0.5 as in the run, got 0.0"),
    ("ppo", lambda **o: PPO(decoder(), reward=REWARD, value={"w": np.ones(6, "f"), "b": np.ones(1, "f")}, **o),
     "value: expected those of the run, got others"),
    ("ppo", lambda **o: PPO(decoder(), reward=REWARD, **{**o, "stop_ids": [1]}),
     "stop_ids: expected those of the run, got others"),
    ("no run", lambda **o: SFT(decoder(), SEQUENCES, **o), "expected a run to resume, got no such folder"),
])  # fmt: skip
def test_a_difference_is_refused_by_name(name, call, message, halted):
    before = recipes_files(halted)
    with pytest.raises(ValueError, match=message) as error:
        call(out=halted / name, resume=True, progress=False)
    assert "\n" not in str(error.value) and recipes_files(halted) == before


def test_a_folder_with_a_run_is_not_started_anew(halted, tmp_path):
    for folder in (halted / "sft", tmp_path / "log"):
        folder.mkdir(exist_ok=True)
        (folder / "log.jsonl").touch()
        with pytest.raises(ValueError, match="expected a folder without a run, got one with a run: resume it, or choose anoth"):
            SFT(decoder(), SEQUENCES, out=folder, progress=False)
    with pytest.raises(ValueError, match="resume: expected False without out, got True"):
        SFT(decoder(), SEQUENCES, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    with pytest.raises(ValueError, match="expected a run to resume, got a folder without log.jsonl"):
        SFT(decoder(), SEQUENCES, out=tmp_path / "other", resume=True)
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_a_damaged_checkpoint_is_refused_and_an_intact_one_named(halted, tmp_path):
    out = Path(shutil.copytree(halted / "dpo, LoRA", tmp_path / "run"))
    shutil.copytree(out / "step-2", out / "step-3")
    (out / "latest").write_text("step-3\n")
    file = out / "step-3/adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    damaged = "expected an intact checkpoint, got a damaged one"
    with pytest.raises(ValueError, match=f"step-3: {damaged}: adapter.safetensors has changed .*; step-2 is intact: to resume "
                                         f"from it, write its name to {out}/latest"):  # fmt: skip
        run("dpo, LoRA", out)
    (out / "latest").write_text("step-2\n")
    model, _ = run("dpo, LoRA", out, keep=3)
    assert equal(model.params, run("dpo, LoRA", None)[0].params)
    (out / "step-4/trainer.json").write_text("{}")
    with pytest.raises(ValueError, match=f"step-4: {damaged}: trainer.json has .*step-2 is intact"):
        run("dpo, LoRA", out)


@pytest.mark.parametrize("change", [{"state": {"step": 99}}, {"kept": [1]}, {"validation": [1]}, {"recipe": 3}, {"updates": -1}])
def test_a_trainer_json_that_somebody_edited_is_refused_in_one_line(change, halted, tmp_path):
    out = Path(shutil.copytree(halted / "ppo", tmp_path / "run"))
    file = out / "step-2/trainer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    sign(out / "step-2")
    with pytest.raises(ValueError, match=next(iter(change)).replace("recipe", "PPOSettings, got 3")) as error:
        run("ppo", out)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("history", [None, 3, [1], [{"loss": 1.0}]])
def test_a_history_that_somebody_edited_is_refused_in_one_line(history, tmp_path):
    with at_step(4, stop), pytest.raises(Stopped):
        run("finetune", tmp_path)
    folder = find(tmp_path)
    file = folder / "trainer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "history": history}))
    sign(folder)
    with pytest.raises(ValueError, match="trainer.json: history: expected a list of scores with .*loss") as error:
        run("finetune", tmp_path)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------- what is allowed


def test_what_may_differ_changes_no_number(tmp_path):
    model, _ = run("sft", None)
    for name, value in {"save_every": 1, "save_minutes": 0.0, "keep": 5, "evaluate_every": None, "patience": 9,
                        "min_improvement": 0.5, "checkpointing": 1}.items():  # fmt: skip
        assert name in SFTSettings.FREE
        with at_step(3, stop), pytest.raises(Stopped):
            run("sft", tmp_path / name)
        again, _ = run("sft", tmp_path / name, **{name: value})
        assert equal(again.params, model.params), name
    assert len(list((tmp_path / "keep").glob("step-*"))) > len(list((tmp_path / "save_minutes").glob("step-*")))
    fields = {field.name for field in dataclasses.fields(SFTSettings)}
    assert {*SFTSettings.FREE, "workers"} <= fields and "steps" not in SFTSettings.FREE


def test_a_run_that_has_ended_returns_at_once(tmp_path, capsys):
    """Nothing is drawn, rewarded, scored or written again."""
    given = {"settings": GRPOSettings(**recipes.DRAWN, group=2), "prompts": PROMPTS, "stop_ids": [0], "out": tmp_path / "grpo"}
    model = decoder()
    result = grpo(model, reward=recipes.even, progress=False, **given)
    before = recipes_files(tmp_path)
    again = decoder()
    found = grpo(again, reward=lambda prompts, answers: pytest.fail("asked again"), resume=True, **given)
    assert equal(again.params, model.params) and same(found, result) and recipes_files(tmp_path) == before
    assert f"nothing to do: the run in {tmp_path / 'grpo'} has ended" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "grpo/final")  # killed before it was written
    grpo(decoder(), reward=recipes.even, resume=True, progress=False, **given)
    assert recipes_files(tmp_path).keys() == before.keys()
    file = tmp_path / "grpo/final/model.safetensors"
    assert file.read_bytes() == before[str(file)]


def test_checkpoints_are_folders_that_load(halted):
    again = tinyplm.load(halted / "sft/step-2")
    assert equal(tinyplm.load(halted / "sft").params, tinyplm.load(find(halted / "sft", "best")).params)
    with pytest.raises(ValueError, match="expected a model folder, got an adapter .*step-2/adapter.json., which belongs to"):
        tinyplm.load(halted / "dpo, LoRA")
    assert flatten(again.params).keys() == flatten(decoder().params).keys() and not equal(again.params, decoder().params)
    theta, alpha = load_lora(halted / "dpo, LoRA/step-2")
    assert alpha == 8.0 and all(factors["B"].any() for factors in theta.values())
    head = tensor_files.read_safetensors(halted / "ppo/step-2/extra.safetensors")[0]
    assert {name: a.shape for name, a in head.items()} == {"w": (6,), "b": (1,)}
    assert json.loads((halted / "ppo/step-2/trainer.json").read_text())["kept"]["beta"] != 0.05


def test_patience_ends_a_run_and_more_of_it_goes_on(tmp_path):
    """`best` names the checkpoint with the least validation loss, which stays."""
    changes = {"steps": 12, "learning_rate": 0.3, "save_every": 50}
    _, result = run("sft", tmp_path, patience=2, **changes)
    losses = list(result.validation.values())
    best = 1 + int(np.argmin(losses[1:]))
    assert len(result.history) == best + 2 < 12 and min(losses[-2:]) >= losses[best]
    assert (tmp_path / "best").read_text() == f"step-{best}\n" and (tmp_path / f"step-{best}").is_dir()
    first = contents(tmp_path)["final/model.safetensors"]
    model, longer = run("sft", tmp_path, patience=11, **changes)
    assert len(longer.history) == 12 and longer.history[: best + 2] == result.history
    assert equal(model.params, run("sft", None, **changes)[0].params)
    assert contents(tmp_path)["final/model.safetensors"] != first


# -------------------------------------------------------------------------------------------------------- faults


def test_errors_name_the_last_good_checkpoint(tmp_path, monkeypatch):
    def fails():
        raise NonFiniteError("step 4: loss: expected a finite number, got nan")

    with at_step(4, fails), pytest.raises(NonFiniteError, match=f"got nan; the last good checkpoint is {tmp_path}/a/step-[23]$"):
        run("sft", tmp_path / "a")
    with monkeypatch.context() as patch:

        def full(*arguments):
            raise OSError(28, os.strerror(28))

        patch.setattr(tensor_files, "_write", full)
        for name in ("sft", "finetune"):
            with pytest.raises(SaveError, match="cannot be written .No space left on device. .*; no checkpoint has b"):
                run(name, tmp_path / name)
    for name in ("sft", "finetune"):
        assert not list((tmp_path / name).glob(".*"))
        assert equal(run(name, tmp_path / name)[0].params, run(name, None)[0].params)


def test_values_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    save = RunFolder.save

    def spoilt(self, *arguments, **more):
        self.optimizer.values.buffer[3] = np.nan
        save(self, *arguments, **more)

    monkeypatch.setattr(RunFolder, "save", spoilt)
    with pytest.raises(NonFiniteError, match="step 1: parameters: expected finite numbers .*no checkpoint has been saved"):
        run("sft", tmp_path)
    assert not list(tmp_path.glob("step-*"))


def test_a_journal_without_a_learner_has_no_checkpoints(tmp_path):
    with Journal(tmp_path / "run", 2, progress=False) as journal:
        for step in journal.steps():
            journal.record(step + 1, {"loss": 1.0})
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["log.jsonl"]
    with pytest.raises(ValueError, match="resume: expected False without a learner, got True"):
        Journal(tmp_path / "run", 2, resume=True)


def recipes_files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
