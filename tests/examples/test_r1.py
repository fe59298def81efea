"""examples/r1.py as a user runs it, and hand-checked cases of its task."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import load_example
from tinyplm import tuning
from tinyplm.training.log import read
from tinyplm.tuning import TokenSequence, read_records, record_reward

QUICK = ("--width", "16", "--student-width", "8", "--base-steps", "6", "--cold-answers", "8", "--cold-steps", "2",
         "--rounds", "2", "--prompts", "3", "--group", "2", "--problems", "9", "--sft-steps", "2", "--tests", "10",
         "--workers", "1")  # fmt: skip


@pytest.fixture(scope="module")
def script():
    return load_example("r1")


def test_the_path_without_an_accepted_answer(run, tmp_path):
    """Two rounds are too few for a right one: the stages that need some are left out."""
    out = tmp_path / "out"
    done = run("r1.py", *QUICK, "--out", str(out))
    assert done.code == 0, done.err
    for expected in ("10 held-out problems, 9 to train on", "cold start", "after GRPO", "accepted   0.0% of 36 answers"):
        assert expected in done.out
    assert "second SFT" not in done.out and not (out / "accepted.jsonl").exists()
    records = list(read(out / "grpo" / "log.jsonl"))
    assert [r["step"] for r in records] == [1, 2]
    assert {"reward_exact", "reward_format", "reward_language", "length", "entropy"} <= records[0].keys()
    assert (out / "r1.png").exists() == (importlib.util.find_spec("matplotlib") is not None)
    model = tinyplm.load(out / "grpo" / "final")
    assert model.tokenizer.decode(model.tokenizer.encode("4+9=<think>4加9是13</think>13")) == "4+9=<think>4加9是13</think>13"


def test_the_stages_after_grpo(run, script, tmp_path, monkeypatch):
    """With a model that answers right: its answers go into the second SFT and into the smaller model."""
    seen = {}

    def right(model, prompts, records, reward, **options):
        assert options["threshold"] == 3.0 and reward.records is not None and len(prompts) == len(records) == 9
        texts = [script.answer(tuple(map(int, r["prompt"][:-1].split("+")))) for r in records]
        found = [{"instruction": r["prompt"], "output": text, "reward": 3.0} for r, text in zip(records, texts)]
        seen["records"] = found
        return found, tuning.Accepted(9, 9, 9, np.ones(9), 9, 3.0, 3.0)

    monkeypatch.setattr(tuning, "accepted_answers", right)
    out = tmp_path / "out"
    done = run("r1.py", *QUICK, "--out", str(out))
    assert done.code == 0, done.err
    for expected in ("accepted   100.0% of 9 answers; 9 different ones, to 9 of 9 prompts", "second SFT", "distilled"):
        assert expected in done.out
    assert [r for r in read_records(out / "accepted.jsonl", "instruction")] == [{**r, "input": ""} for r in seen["records"]]
    for name in ("direct", "cold-start", "sft", "smaller-cold-start", "smaller-distilled"):
        assert (out / name / "final" / "config.json").is_file()


def test_answers_by_hand(script):
    assert script.answer((4, 9, 7)) == "<think>4 plus 9 is 13 plus 7 is 20</think>20"
    assert script.answer((4, 9, 7), chinese=True) == "<think>4加9是13加7是20</think>20"
    tokens, problem = script.tokenizer(), (4, 9, 7, 2, 8, 5)
    assert max(len(tokens.encode(script.answer(p))) for p in (problem, (9, 8, 7, 6, 5, 4))) < script.LONGEST
    sequence = script.pair(script.asked(problem), script.answer(problem), tokens)
    assert isinstance(sequence, TokenSequence) and sequence.ids[0] == sequence.ids[-1] == tokens.eos_id
    assert sequence.counts.index(True) == len(script.prompt_of(problem, tokens))
    assert sequence.ids[: len(script.prompt_of(problem, tokens))] == script.prompt_of(problem, tokens)


@pytest.mark.parametrize(("chinese", "expected"), [(False, (1, 1, 1)), (True, (1, 1, 0))])
def test_the_rules_see_right_answers(script, chinese, expected):
    tokens, problem = script.tokenizer(), (4, 9, 7, 2, 8, 5)
    rules = record_reward("exact:1,format:1,language:en:1", tokens, script.records([problem]), [tokens.eos_id])
    ids = [*tokens.encode(script.answer(problem, chinese)), tokens.eos_id]
    (found,) = rules([script.prompt_of(problem, tokens)], [ids])
    assert tuple(found[f"reward_{name}"] for name in ("exact", "format", "language")) == expected


def test_no_problem_of_the_test_is_trained_on(script):
    parts = [script.problems(300, held_out=held_out, key=3) for held_out in (False, True)]
    assert all(len(set(part)) == 300 and all(len(set(p)) == script.TERMS for p in part) for part in parts)
    assert not set(parts[0]) & set(parts[1])
    lines = script.sentences(200, 1)
    assert all(line.split("=")[0].count("+") < script.TERMS - 1 for line in lines) and len(set(lines)) > 100
    assert all(eval(line.split("=")[0]) == int(line.split("=")[-1]) for line in lines)  # noqa: S307


def test_bad_input(run, tmp_path):
    for arguments, message in ((("--tests", "0"), "--tests: expected an integer from 1 to 5000, got 0"),
                               (("--rules", "exakt"), "rule: expected one of exact, "),
                               (("--chinese", "2"), "--chinese: expected a finite number"),
                               (("--width", "10"), "--width: expected a multiple of 8, got 10")):  # fmt: skip
        done = run("r1.py", *QUICK, *arguments, "--out", str(tmp_path / "out"))
        assert done.code == 1 and message in done.err and done.err.count("\n") == 1, json.dumps(done)
    assert not (tmp_path / "out").exists()
