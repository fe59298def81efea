"""tinyplm pretrain as a user runs it: full runs, restarts, invalid input, interruptions."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

import tinyplm
from tests.laws import equal
from tests.support.scripts import Outcome, assert_one_line, shell
from tests.training.test_writers import FakeEvents
from tinyplm.cli import corpus, pretrain
from tinyplm.cli.parser import Parser
from tinyplm.cli.settings import resolve
from tinyplm.training import loop
from tinyplm.training.presets import learning_rate_of

QUICK = ("--size", "tiny", "--steps", "6", "--context", "16", "--batch", "4", "--vocabulary", "300", "--lr", "0.002")
FILES = {"config.json", "model.safetensors", "tokenizer.json"}  # what transformers loads


def assert_report(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err
    for row in ("uniform", "unigram", "trigram", "GPT-2"):
        assert sum(line.lstrip().startswith(row) for line in outcome.out.splitlines()) == 1, f"no {row} row:\n{outcome.out}"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, texts) -> tuple[Path, Outcome]:
    """A finished full run, in its own process.  Tests that change it must copy it."""
    cwd = tmp_path_factory.mktemp("finished")
    return cwd / "out", shell("pretrain", *QUICK, "--text", *texts, "--out", "out", cwd=cwd)


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


# ------------------------------------------------------------------------------------------------------------ full runs


def test_pretraining_tells_its_whole_story(finished):
    out, outcome = finished
    assert_report(outcome)
    for protocol in ("in windows that overlap by half: ", "During training, and in the plot, windows do not overlap: "):
        assert protocol in outcome.out  # the table and the curve have different numbers
    assert "Sample 1:" in outcome.out and "Sample 2:" in outcome.out and "Sample 3:" not in outcome.out
    assert "Traceback" not in outcome.err
    names = {path.name for path in out.iterdir()}
    assert {"run.json", "log.jsonl", "latest", "best", "tokenizer.json", "train.npy", "validation.npy", "step-6"} <= names
    assert ("loss.png" in names) == (importlib.util.find_spec("matplotlib") is not None)
    assert not [name for name in names if name.startswith(".")], "temporary files are left"
    for pointer in ("latest", "best"):
        assert {p.name for p in (out / (out / pointer).read_text().strip()).iterdir()} >= FILES
    assert (out / "latest").read_text().strip() == "step-6"
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3, 4, 5, 6]
    assert json.loads((out / "run.json").read_text())["options"]["warmup"] == 0  # at most a tenth, unless given
    hint = re.search(r"--prompt (.*)\n", outcome.out[outcome.out.index("\nsample     ") :])[1].strip("'")
    assert hint in " ".join(outcome.out.split()), "the words of a held-out document"


def test_a_second_run_does_not_overwrite_the_first(finished, run, texts):
    before = snapshot(finished[0])
    assert_one_line(run("pretrain", *QUICK, "--text", *texts, "--out", str(finished[0])), "--resume")
    assert snapshot(finished[0]) == before


def test_resuming_a_finished_run_prints_the_report_again(copied, finished, run):
    outcome = run("pretrain", "--out", str(copied), "--resume")
    assert_report(outcome)
    table, samples = (o.out[o.out.index("Validation,") : o.out.index("\nmodel      ", o.out.index("Validation,"))]
                      for o in (finished[1], outcome))  # fmt: skip
    assert samples == table, "the same model gives the same table and samples"
    assert (copied / "step-6/model.safetensors").read_bytes() == (finished[0] / "step-6/model.safetensors").read_bytes()


@pytest.mark.parametrize("options", [("--batch", "1"), ("--micro-batch", "1"), ("--batch", "4", "--micro-batch", "3")])
def test_batches_that_the_workers_cannot_share_evenly(run, tmp_path, texts, options):
    outcome = run("pretrain", *QUICK, "--text", *texts, "--out", str(tmp_path / "out"), "--samples", "0", *options)
    assert_report(outcome)
    assert "Sample" not in outcome.out


def test_modules_for_later_tokens_train_beside_deepseek_v3(run, tmp_path, texts):
    out = tmp_path / "out"
    modules = ("--multi-token", "2", "--multi-token-weight", "0.25")
    options = ("--model", "deepseek_v3", *modules, "--samples", "1", "--out", str(out))
    outcome = run("pretrain", *QUICK, "--text", *texts, *options)
    assert outcome.code == 0 and "DeepSeek-V3, " in outcome.out and "Sample 1:" in outcome.out, outcome.err
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(0 < r["multi_token_loss"] < r["loss"] / 0.25 for r in records if "loss" in r)
    assert json.loads((out / "step-6" / "trainer.json").read_text())["settings"]["multi_token"] == 0.25
    whole = tinyplm.load(out / "step-6", task="multi_token_lm")
    assert len(whole.params["body"]["multi_token"]) == 2 == whole.config.num_nextn_predict_layers
    shutil.rmtree(out / "step-6")
    for pointer in ("latest", "best"):
        (out / pointer).write_text("step-5\n")
    assert run("pretrain", "--out", str(out), "--resume").code == 0
    assert equal(tinyplm.load(out / "step-6", task="multi_token_lm").params, whole.params)


def test_a_preset_fills_in_what_is_not_given_and_resumes(run, tmp_path, texts, monkeypatch):
    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = FakeEvents
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    out = tmp_path / "out"
    options = ("--preset", "tiny", "--hours", "1e-3", "--steps", "6", "--context", "16", "--vocabulary", "300", "--samples", "1")
    outcome = run("pretrain", *options, "--layers", "1", "--log", "tensorboard", "--text", *texts, "--out", str(out))
    assert_report(outcome)
    kept = json.loads((out / "run.json").read_text())["options"]
    shape, free = [kept[n] for n in ("layers", "width", "heads")], [kept[n] for n in ("steps", "lr", "log")]
    assert shape == [1, 64, 2] and free == [6, learning_rate_of(12 * 64**2 + 300 * 64), ["tensorboard"]]
    for line in ("steps   6       given", "layers  1       given", f"batch   {kept['batch']:<7} ", "training should take "):
        assert line in outcome.out
    assert sum(p[0] == "loss" for file in (out / "tensorboard").iterdir() for p in json.loads(file.read_text())) == 6
    assert re.search(r"Sample 1:\n    >\S", outcome.out), "the prompt is shown"
    again = run("pretrain", "--out", str(out), "--resume")
    assert again.code == 0 and "preset    " not in again.out and "training should" not in again.out


@pytest.mark.parametrize(("options", "rate"), [
    ((), 4e-3), (("--size", "tiny"), 4e-3), (("--width", "512"), 1e-3),
    (("--model", "gpt2-medium"), learning_rate_of(354_823_168)), (("--optimizer", "adafactor"), 3e-2),
    (("--optimizer", "adafactor", "--lr", "1"), 1.0),
])  # fmt: skip
def test_each_optimiser_has_its_own_learning_rate(options, rate):
    parser = Parser(pretrain.__doc__)
    pretrain.add(parser)
    given = resolve(parser, "pretrain", vars(parser.parse_args([*options])))
    assert pretrain.plan(given, pretrain.checked(given)).learning_rate == rate


def test_a_small_text_gets_a_small_vocabulary():
    sizes = ((None, 3), (None, 900), (None, 9000), (700, 3))
    asked = [(argparse.Namespace(vocabulary=given), ["ä" * 200] * count) for given, count in sizes]
    assert [pretrain.vocabulary(*one) for one in asked] == [512, 900, 4096, 700]


# -------------------------------------------------------------------------------------------------------- invalid input

# Options passed instead of, or in addition to, valid ones; and words that the error line must contain.
WRONG = {
    "empty text": (("--text", "empty.txt"), "empty.txt"),
    "binary text": (("--text", "binary.bin"), "binary.bin"),
    "missing text": (("--text", "missing.txt"), "missing.txt"),
    "a folder as text": (("--text", "."), "folder"),
    "small text": (("--text", "small.txt"), "small"),
    "no batch of text": (("--batch", "5000"), "5000"),
    "negative rate": (("--lr", "-1"), "-1"),
    "infinite rate": (("--lr", "inf"), "inf"),
    "rate nan": (("--lr", "nan"), "nan"),
    "schedule": (("--schedule", "foo"), "foo"),
    "dropout": (("--dropout", "2"), "got 2"),
    "no steps": (("--steps", "0"), "got 0"),
    "no context": (("--context", "0"), "got 0"),
    "no batch": (("--batch", "0"), "got 0"),
    "large micro-batch": (("--micro-batch", "5"), "got 5"),
    "size": (("--size", "huge"), "huge"),
    "small vocabulary": (("--vocabulary", "100"), "100"),
    "share": (("--validation", "1.5"), "1.5"),
    "samples": (("--samples", "-1"), "-1"),
    "seed": (("--seed", "-1"), "-1"),
    "workers": (("--workers", "0"), "got 0"),
    "evaluating never": (("--evaluate-every", "0"), "got 0"),
    "saving never": (("--save-every", "0"), "got 0"),
    "saving before": (("--save-minutes", "-1"), "got -1"),
    "never full": (("--full-every", "0"), "got 0"),
    "no patience": (("--patience", "0"), "got 0"),
    "improvement": (("--min-improvement", "-0.1"), "got -0.1"),
    "balance": (("--model", "mixtral", "--balance", "-1"), "got -1"),
    "balance of no experts": (("--balance", "0.1"), "0, since GPT-2 has no losses of routers"),
    "z-loss of no experts": (("--z-loss", "0.1"), "0, since GPT-2 has no losses of routers"),
    "bias rate": (("--bias-rate", "-1"), "got -1"),
    "modules": (("--model", "deepseek_v3", "--multi-token", "-1"), "got -1"),
    "no modules": (("--multi-token", "1"), "0, since GPT-2 has no modules for later tokens, got 1"),
    "preset": (("--preset", "enormous"), "enormous"),
    "preset without hours": (("--preset", "auto"), "--hours"),
    "no hours": (("--hours", "0"), "got 0"),
    "preset and size": (("--preset", "tiny"), "--size: expected none"),
    "layers of a published size": (("--model", "gpt2-medium", "--layers", "3"), "gpt2-medium"),
    "width": (("--width", "63"), "got 63"),
    "log": (("--log", "excel"), "excel"),
    "a weight of no modules": (("--multi-token-weight", "0.1"), "--multi-token-weight: expected none without --multi-token"),
    "weight of modules": (("--model", "deepseek_v3", "--multi-token", "1", "--multi-token-weight", "-1"), "got -1"),
    "device": (("--device", "toaster"), "toaster"),
    "gpu": (("--device", "gpu"), "gpu"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing_in_the_way(run, tmp_path, texts, monkeypatch, name):
    if name == "gpu" and importlib.util.find_spec("cupy"):
        pytest.skip("here is CuPy, so this may be right")
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("binary.bin").write_bytes(bytes(range(256)) * 40)
    Path("small.txt").write_text("One short line.\n\n<|endoftext|>\n\nAnother one.\n")
    options, word = WRONG[name]
    good = [*QUICK, "--text", *texts, "--out", "out", "--samples", "0"]
    assert_one_line(run("pretrain", *good, *options), word)
    assert not Path("out/latest").exists() and not list(tmp_path.glob("out/step-*"))
    if Path("out").exists():  # most errors come before any work
        assert_report(run("pretrain", *good))


def test_a_process_of_its_own_ends_in_one_line_too(tmp_path, texts):
    assert_one_line(shell("pretrain", *QUICK, "--text", *texts, "--lr", "-1", cwd=tmp_path), "-1")


def test_out_that_is_a_file_is_one_line_and_stays(run, tmp_path, texts):
    file = tmp_path / "file"
    file.write_text("precious")
    for options in ((*QUICK, "--text", *texts), ("--resume",)):
        assert_one_line(run("pretrain", *options, "--out", str(file)), "file")
    assert file.read_text() == "precious"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_learning_rate_that_blows_up_is_one_line_at_the_end(run, tmp_path, texts):
    outcome = run("pretrain", *QUICK, "--text", *texts, "--out", str(tmp_path / "out"), "--lr", "1e30", "--warmup", "0")
    assert outcome.code != 0 and "Traceback" not in outcome.err
    assert outcome.err.rstrip().splitlines()[-1].startswith("tinyplm: step ")


# --------------------------------------------------------------------------------------------------------------- resume


def test_a_run_that_was_broken_off_before_its_first_checkpoint_starts_at_step_0(copied, finished, run):
    for path in [*copied.glob("step-*"), copied / "latest", copied / "best", copied / "log.jsonl", copied / "loss.png"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert (copied / "run.json").exists() and (copied / "train.npy").exists()
    assert_report(run("pretrain", "--out", str(copied), "--resume"))
    assert (copied / "latest").read_text().strip() == "step-6"
    assert (copied / "step-6/model.safetensors").read_bytes() == (finished[0] / "step-6/model.safetensors").read_bytes()


def test_a_second_start_that_is_broken_off_while_it_prepares_its_data_is_resumed_with_its_own_options(
    copied, run, texts, monkeypatch
):
    for path in [*copied.glob("step-*"), copied / "latest", copied / "best"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "write_tokens", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run("pretrain", *QUICK, "--text", texts[1], "--out", str(copied)).code == 130
    resumed = run("pretrain", "--out", str(copied), "--resume", "--samples", "0")
    assert_report(resumed)
    whole = run("pretrain", *QUICK, "--text", texts[1], "--out", str(copied.with_name("whole")), "--samples", "0")
    assert whole.code == 0
    one, other = (out / "step-6/model.safetensors" for out in (copied, copied.with_name("whole")))
    assert one.read_bytes() == other.read_bytes()


def test_a_run_that_was_broken_off_goes_on_from_the_last_checkpoint(copied, finished, run):
    shutil.rmtree(copied / "step-6")
    for pointer in ("latest", "best"):
        (copied / pointer).write_text("step-5\n")
    assert_report(run("pretrain", "--out", str(copied), "--resume"))
    assert (copied / "step-6/model.safetensors").read_bytes() == (finished[0] / "step-6/model.safetensors").read_bytes()


@pytest.mark.parametrize("updates", [0, 4])
def test_control_c_is_no_traceback_and_the_run_can_go_on(run, tmp_path, texts, finished, monkeypatch, updates):
    update, done = loop.update, []

    def interrupted(*args, **kwargs):
        if len(done) == updates:
            raise KeyboardInterrupt
        done.append(update(*args, **kwargs))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", interrupted)
        outcome = run("pretrain", *QUICK, "--text", *texts, "--out", str(tmp_path / "out"))
    assert outcome.code != 0 and "Traceback" not in outcome.err and "--resume" in outcome.err
    assert len(done) == updates and (tmp_path / "out/latest").exists() == (updates > 0)
    assert_report(run("pretrain", "--out", str(tmp_path / "out"), "--resume", "--samples", "0"))
    whole, resumed = (out / "step-6/model.safetensors" for out in (finished[0], tmp_path / "out"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_each_extension_says_how_the_rate_continues(copied, run, tmp_path):
    """One that is killed before its first checkpoint goes on as it was told."""
    killed = Path(shutil.copytree(copied, tmp_path / "killed"))
    before = snapshot(copied)
    refused = run("pretrain", "--out", copied, "--resume", "--steps", "8")
    assert_one_line(refused, '--extend: expected "stretch"', "got None for 8 steps instead of 6")
    assert snapshot(copied) == before
    assert_report(run("pretrain", "--out", copied, "--resume", "--steps", "8", "--extend", "restart", "--samples", "0"))
    first = json.loads((copied / "step-8/trainer.json").read_text())["state"]
    assert first["cycle"] == 6
    again = run("pretrain", "--out", copied, "--resume", "--steps", "9")
    assert_one_line(again, '--extend: expected "stretch"', "got None for 9 steps instead of 8")
    shutil.copy(copied / "run.json", killed)
    assert_report(run("pretrain", "--out", killed, "--resume", "--samples", "0"))
    last = json.loads((killed / "step-8/trainer.json").read_text())["state"]
    assert last["cycle"] == 6 and last["best_loss"] == first["best_loss"]


def test_how_often_is_saved_and_patience_are_options_that_may_change_on_resume(run, tmp_path, texts, finished):
    out = tmp_path / "out"
    options = ("--save-every", "1", "--full-every", "2", "--patience", "1", "--min-improvement", "99", "--evaluate-every", "2")
    stopped = run("pretrain", *QUICK, "--text", *texts, "--out", str(out), "--samples", "0", *options)
    assert_report(stopped)
    assert "step 4: stopping early, no improvement" in stopped.out + stopped.err and "trained    4 steps" in stopped.out
    resumed = run("pretrain", "--out", str(out), "--resume", "--patience", "9", "--save-every", "1", "--samples", "0")
    assert_report(resumed)
    assert (out / "step-6/model.safetensors").read_bytes() == (finished[0] / "step-6/model.safetensors").read_bytes()


def test_resume_names_what_is_not_as_it_was(copied, run):
    before = snapshot(copied)
    assert_one_line(run("pretrain", "--out", str(copied), "--resume", "--lr", "0.1"), "--lr was 0.002, now 0.1")
    assert_one_line(run("pretrain", "--out", str(copied), "--resume", "--batch", "8"), "--batch was 4, now 8")
    assert snapshot(copied) == before, "a refused resume changed files"


def test_resume_of_nothing_says_so(run, tmp_path):
    assert_one_line(run("pretrain", "--out", str(tmp_path), "--resume"), "expected a run to resume")
    assert_one_line(run("pretrain", "--out", str(tmp_path / "missing"), "--resume"), "expected a run to resume")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("contents", ["", "{}", "[]", "null", "not JSON", '{"facts": {}}', '{"options": 3, "facts": {}}',
                                      '{"options": {"lr": 0.1}, "facts": {}}', b"\xff\xfe"])  # fmt: skip
def test_resume_with_a_damaged_run_json_is_one_line(run, tmp_path, contents):
    (tmp_path / "run.json").write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    assert_one_line(run("pretrain", "--out", str(tmp_path), "--resume"), "run.json")


def test_resume_with_a_run_json_that_lacks_one_key_is_one_line(copied, run):
    whole = json.loads((copied / "run.json").read_text())
    missing = [[key] for key in whole] + [[key, inner] for key in whole if isinstance(whole[key], dict) for inner in whole[key]]
    for path in missing:
        part = json.loads(json.dumps(whole))
        inner = part
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        (copied / "run.json").write_text(json.dumps(part))
        assert_one_line(run("pretrain", "--out", str(copied), "--resume"), "run.json")


# ------------------------------------------------------------------------------------------------------------- generate


def generate(run, folder: Path, *options: str) -> Outcome:
    return run("generate", "--model", str(folder), *options)


def test_generate_samples_from_a_checkpoint_and_from_the_run_itself(copied, run, finished):
    options = ("--prompt", "The river", "--tokens", "12", "--samples", "2", "--seed", "3")
    (copied / "best").write_text("step-5\n")
    fifth, last = (generate(run, copied / f"step-{n}", *options) for n in (5, 6))
    assert fifth.code == last.code == 0 and fifth.out.count("The river") >= 2 and fifth.out != last.out
    assert generate(run, copied, *options)[:2] == (0, fifth.out), "the run's folder stands for its best checkpoint"
    outcome = shell("generate", "--model", "out/step-6", *options, cwd=finished[0].parent)
    assert outcome[:2] == (0, last.out), outcome.err


def test_generate_takes_the_latest_of_a_run_that_was_not_evaluated_yet_and_no_increment(copied, run):
    (copied / "best").unlink()
    (copied / "latest").write_text("step-5\n")
    options = ("--prompt", "The river", "--tokens", "5")
    assert generate(run, copied, *options)[:2] == generate(run, copied / "step-5", *options)[:2]
    (copied / "step-5/config.json").rename(copied / "step-5/increment.safetensors")
    assert_one_line(generate(run, copied), "step-5", "expected a full checkpoint, got an incremental one", "replay")


def test_generate_says_in_one_line_what_is_wrong_with_a_folder(copied, run, tmp_path):
    assert_one_line(generate(run, tmp_path / "missing"), "missing")
    assert_one_line(generate(run, tmp_path), str(tmp_path))
    step = copied / "step-6"
    (step / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    assert_one_line(generate(run, step), "tokenizer.json")
    (tmp_path / "tokenizer.json").rename(step / "tokenizer.json")
    data = (step / "model.safetensors").read_bytes()
    (step / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert_one_line(generate(run, step), "model.safetensors")
    (copied / "best").write_text("step-99\n")
    assert_one_line(generate(run, copied), "step-99")


@pytest.mark.parametrize("options", [("--tokens", "-1"), ("--samples", "-1"), ("--temperature", "-1"), ("--top-p", "2"),
                                     ("--top-k", "0"), ("--device", "toaster")])  # fmt: skip
def test_generate_refuses_wrong_options_in_one_line(finished, run, options):
    assert_one_line(generate(run, finished[0] / "step-6", *options), options[1])
