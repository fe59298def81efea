"""tinyplm grpo, ppo and sample on tiny models: the methods' settings, rounds, resuming, and data for sft."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.calls.test_tuning import decoder
from tests.support.recipes import at_step
from tests.support.survivor import contents
from tinyplm import cli, save
from tinyplm.cli import grpo as command
from tinyplm.cli import rounds
from tinyplm.cli.settings import resolve
from tinyplm.training.log import read
from tinyplm.tuning import GRPOSettings, PPOSettings, read_records
from tinyplm.tuning.align.learner import Learner

QUICK = ("--steps", 2, "--batch", 2, "--tokens", 4, "--tests", 2, "--samples", 1, "--workers", 1, "--warmup", 0, "--lr", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, prompts, and a reward that a random model gets at times."""
    path = tmp_path_factory.mktemp("rounds")
    save(decoder(), path / "model")
    rows = [{"prompt": f"cat {n}", "answer": str(n)} for n in range(6)]
    (path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = "def brief(answer, tokens):\n    return float(tokens < 4 and answer.strip() != '')\n"
    (path / "reward.py").write_text(f"{code}def even(answer):\n    return len(answer) % 2\n")
    return path


def data(folder, reward="even"):
    return ("--model", folder / "model", "--data", folder / "prompts.jsonl", "--reward", f"{folder / 'reward.py'}:{reward}")


# ---------------------------------------------------------------------------------------------------------------- methods

TABLE = {  # GRPOSettings' docstring: clip_ratio, clip_ratio_high, ratio, aggregation, scale, beta, redraws, overlong
    "grpo": (0.2, None, "token", "sequence", True, 0.04, 0, 0),
    "dr-grpo": (0.2, None, "token", "constant", False, 0.0, 0, 0),
    "dapo": (0.2, 0.28, "token", "token", True, 0.0, 2, 13),
    "gspo": (3e-4, 4e-4, "sequence", "sequence", True, 0.0, 0, 0),
}
NAMES = ("clip_ratio", "clip_ratio_high", "ratio", "aggregation", "scale", "beta", "redraws", "overlong")


def settings(*arguments):
    given = vars(cli.parsers()[0].parse_args(["grpo", "--model", "m", "--data", "d", *map(str, arguments)]))
    given.pop("command")
    return command.method_settings(resolve(cli.parsers()[1]["grpo"], "grpo", {"tokens": 64, **given}))


@pytest.mark.parametrize("method", command.METHODS)
def test_each_method_has_the_settings_of_its_paper(method):
    made = settings("--method", method, "--tokens", 64)
    assert tuple(getattr(made, name) for name in NAMES) == TABLE[method]


@pytest.mark.parametrize(("arguments", "expected"), [
    (("--method", "dapo", "--tokens", 2), {"overlong": 1}),  # a fifth of 2 is less than a token
    (("--method", "dapo", "--tokens", 20480), {"overlong": 4096}),  # the paper's
    (("--method", "dapo", "--clip-ratio", 0.25), {"clip_ratio": 0.25, "clip_ratio_high": 0.28}),
    (("--method", "dapo", "--clip-ratio", 0.4), {"clip_ratio": 0.4, "clip_ratio_high": 0.4}),
    (("--method", "gspo", "--clip-ratio", 1e-4), {"clip_ratio": 1e-4, "clip_ratio_high": 4e-4}),
    (("--method", "dr-grpo", "--clip-ratio", 0.1, "--beta", 0.5), {"clip_ratio": 0.1, "clip_ratio_high": None, "beta": 0.5}),
    (("--beta", 0), {"beta": 0.0}),
    (("--epochs", 3, "--minibatches", 4, "--group", 5, "--temperature", 0.5),
     {"epochs": 3, "minibatches": 4, "group": 5, "temperature": 0.5, "updates": 100 * 3 * 4}),
])  # fmt: skip
def test_what_is_given_wins(arguments, expected):
    made = settings(*arguments)
    assert {name: getattr(made, name) for name in expected} == expected


# ----------------------------------------------------------------------------------------------------------------- rounds


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "dapo", "gspo", "ppo"])
def test_rounds(name, folder, tinyplm, tmp_path, monkeypatch):
    """Epochs times minibatches of updates in each round; rewards and lengths are logged and plotted."""
    updates, drawn, step, curves = [], [], Learner.step, rounds.curves
    monkeypatch.setattr(Learner, "step", lambda *a, **k: updates.append(len(a[1]["inputs"]["input_ids"])) or step(*a, **k))
    monkeypatch.setattr(rounds, "curves", lambda out, *panels: drawn.extend(panels) or curves(out, *panels))
    own = () if name == "ppo" else ("--method", name, "--group", 2)
    out, more = tmp_path / "out", ("--epochs", 2, "--minibatches", 2)
    code, said, err = tinyplm("ppo" if name == "ppo" else "grpo", *data(folder), *QUICK, *own, *more, "--out", out)
    assert code == 0, err
    assert updates == [1 if name == "ppo" else 2] * (2 * 2 * 2)  # rounds, epochs, minibatches
    records = [r for r in read(out / "log.jsonl") if "reward" in r]
    assert [r["step"] for r in records] == [1, 2] and all(1 <= r["length"] <= 4 for r in records)
    assert all(
        ("overlong" in r) == ("redrawn" in r) == (name == "dapo") and ("kl" in r) == (name in ("grpo", "ppo")) for r in records
    )
    assert [field for _, fields in drawn for field in fields] == ["reward", *["kl"] * (name == "ppo"), "length"]
    assert "held out" in said and "tokens in an answer" in said and (out / "final" / "config.json").is_file()


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_a_run_goes_on_after_it_was_broken_off(name, folder, tinyplm, tmp_path):
    def stop():
        raise Stopped

    given = (name, *data(folder), *QUICK, "--epochs", 2, "--minibatches", 2, "--save-every", 1)
    assert tinyplm(*given, "--out", tmp_path / "whole")[0] == 0
    with at_step(2, stop), pytest.raises(Stopped):
        tinyplm(*given, "--out", tmp_path / "cut")
    code, _, err = tinyplm(name, "--out", tmp_path / "cut", "--resume")
    assert code == 0, err
    expected, found = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    differ = [file for file in expected if found.get(file) != expected[file] and Path(file).name not in ("run.json", "loss.png")]
    assert found.keys() == expected.keys() and not differ


def test_an_edited_reward_is_noticed(folder, tinyplm, tmp_path):
    def stop():
        raise Stopped

    (tmp_path / "mine.py").write_text("def even(answer):\n    return len(answer) % 2\n")
    given = ("grpo", *data(folder)[:4], "--reward", f"exact,{tmp_path}/mine.py:even:0.5", *QUICK, "--save-every", 1)
    with at_step(2, stop), pytest.raises(Stopped):
        tinyplm(*given, "--group", 2, "--out", tmp_path / "out")
    (tmp_path / "mine.py").write_text("def even(answer):\n    return 1\n")
    code, _, err = tinyplm("grpo", "--out", tmp_path / "out", "--resume")
    expected = f"tinyplm: --reward: expected the functions that the run began with, got {tmp_path}/mine.py, edited\n"
    assert (code, err) == (2, expected)


def test_ppo_and_grpo_have_the_rounds_of_the_library():
    parsers = cli.parsers()[1]
    assert (parsers["ppo"].defaults["epochs"], parsers["ppo"].defaults["minibatches"]) == (2, 2)
    assert PPOSettings(steps=3, epochs=2, minibatches=4).updates == GRPOSettings(steps=3, epochs=2, minibatches=4).updates == 24


# ----------------------------------------------------------------------------------------------------------------- sample


def test_sample_writes_what_sft_reads(folder, tinyplm, tmp_path):
    file = tmp_path / "new" / "sampled.jsonl"
    quick = ("--tokens", 4, "--samples", 40, "--keep", "all", "--workers", 1, "--temperature", 3, "--seed", 1)
    code, said, err = tinyplm("sample", *data(folder, "brief"), *quick, "--out", file)
    assert code == 0, err
    found = read_records(file, ("instruction", "conversation"))
    assert found and all(record["reward"] == 1 for record in found) and f"records    {file}" in said
    assert {record["instruction"] for record in found} <= {f"cat {n}" for n in range(6)}
    assert len({(record["instruction"], record["output"]) for record in found}) == len(found)
    assert "240 answers" in said and f"{len(found)}, to " in said and "1.0000 of those kept" in said
    again = tinyplm("sample", *data(folder, "brief"), *quick, "--out", tmp_path / "again.jsonl")
    assert again[0] == 0 and (tmp_path / "again.jsonl").read_bytes() == file.read_bytes()
    sft = ("sft", "--model", folder / "model", "--data", file, "--template", "none", "--validation", 0.4)
    code, said, err = tinyplm(*sft, "--steps", 1, "--batch", 2, "--samples", 0, "--workers", 1, "--out", tmp_path / "sft")
    assert code == 0 and "conversations for training" in said, err


def test_what_sample_refuses_is_one_line_and_nothing_is_written(folder, tinyplm, tmp_path):
    file = tmp_path / "taken.jsonl"
    file.write_text("kept")
    bad, out = tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    bad.write_text('{"prompt": "a"}\n')
    model, quick = data(folder)[:2], ("--tokens", 2, "--samples", 1, "--workers", 1)
    good = data(folder)
    for arguments, message in [
        ((*good, "--out", file), f"--out: expected the name of a new file, got {file}, which exists"),
        ((*good, "--out", file / "below"), "--out: expected a folder, got "),
        ((*good[:4], "--out", out), "--reward: expected a rule, or --reward-model, got neither"),
        ((*model, "--data", bad, "--reward", "exact", "--out", out), f'{bad}, record 1: expected an "answer" for the rule exact'),
        ((*good, "--keep", "some", "--out", out), "--keep: expected one of best, all, got 'some'"),
        ((*good, "--tokens", 99, "--out", out), "--tokens: expected at most "),
        ((*good, "--threshold", 5, "--out", out), "--threshold: expected at least one finished answer of 5, got none of 6; "),
    ]:  # fmt: skip
        code, _, err = tinyplm("sample", *quick, *arguments)
        lines = [line for line in err.splitlines() if not line.startswith("prompt ")]  # of the progress
        assert code == 2 and len(lines) == 1 and message in lines[0], (arguments, err)
    assert file.read_text() == "kept" and sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl", "taken.jsonl"]


def test_the_report_by_hand():
    from tinyplm.cli.sample import report
    from tinyplm.tuning import Accepted

    made = Accepted(drawn=8, finished=7, accepted=3, by_prompt=np.array([1.0, 0.5, 0.0, 0.0]), kept=2, before=0.375, after=1.0)
    assert report(made).splitlines() == [
        "drawn      8 answers, 1 truncated or no text",
        "accepted   3 (37.5%): all answers of 25.0% of the prompts, none of 50.0%",
        "kept       2, to 2 prompts",
        "reward     0.3750 on average, 1.0000 of those kept",
    ]
