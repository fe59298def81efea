"""examples/grpo.py as a user runs it, and hand-checked cases of its task."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import ROOT
from tinyplm.training.log import read

QUICK = ("--width", "16", "--student-width", "8", "--base-steps", "6", "--rounds", "2", "--prompts", "3", "--group", "2",
         "--cold-examples", "4", "--cold-steps", "2", "--distill-samples", "9", "--distill-steps", "2", "--problems", "20",
         "--workers", "1")  # fmt: skip


@pytest.fixture(scope="module")
def script():
    """The example imported as a module."""
    spec = importlib.util.spec_from_file_location("grpo_example", ROOT / "examples" / "grpo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_whole_story(run, tmp_path):
    out = tmp_path / "out"
    done = run("grpo.py", *QUICK, "--seeds", "2", "--out", str(out))
    assert done.code == 0, done.err
    for expected in ("seed 1: 799 training numbers, 20 test pairs of 101 other numbers", "raw base", "smaller base",
                     "mean of 2 seeds", "GRPO from the cold start: "):  # fmt: skip
        assert expected in done.out
    model = tinyplm.load(out / "seed-0" / "grpo-from-base" / "final")
    assert model.tokenizer.decode(model.tokenizer.encode("348+275=0623")) == "348+275=0623"
    assert model.end_ids() == {0}
    records = list(read(out / "seed-1" / "grpo-from-cold-start" / "log.jsonl"))
    assert [r["step"] for r in records] == [1, 2] and {"reward", "clip_fraction", "entropy", "cut", "even"} <= records[0].keys()
    assert (out / "grpo.png").exists() == (importlib.util.find_spec("matplotlib") is not None)
    again = run("grpo.py", *QUICK, "--out", str(out))
    assert again.code == 1 and "expected a new or empty folder" in again.err


def test_no_operand_of_the_test_is_trained_on(script):
    numbers, kept = script.operands(3, 101)
    pairs = script.test_pairs(kept, 3)
    assert sorted([*numbers, *kept]) == list(range(100, 1000))
    assert len(pairs) == len({frozenset(p) for p in pairs}) == 101 * 102 // 2 > 5000
    assert {n for p in pairs for n in p} == set(kept.tolist())
    assert 0.4 < np.mean([a < b for a, b in pairs]) < 0.6  # both orders occur
    assert {n for p in script.drawn_pairs(numbers, 5000, 1) for n in p} == set(numbers.tolist())
    assert not np.array_equal(script.operands(4, 101)[1], kept)


def test_lines_by_hand(script):
    assert [script.line((348, 275), is_sum) for is_sum in (True, False)] == ["348+275=0623", "275<348"]
    assert script.line((999, 999)) == "999+999=1998"


@pytest.mark.parametrize("answer, finished, reward", [("0623", True, 1), ("0623", False, 0), ("623", True, 0), ("", True, 0),
                                                      ("06230", True, 0), ("0624", True, 0)])  # fmt: skip
def test_the_rule(script, answer, finished, reward):
    assert script.is_right("348+275=", answer, finished) == reward


def test_pretraining_is_broken_off(script):
    """A share reached at once: at the first check, after 20 steps."""
    options = script.argparse.Namespace(base_steps=60, base_lr=1e-3, workers=1, share=0.0)
    numbers, _ = script.operands(0, 101)
    _, steps = script.pretrained(8, numbers, 0, options)
    assert steps == 20
    _, steps = script.pretrained(8, numbers, 0, script.argparse.Namespace(**{**vars(options), "base_steps": 30, "share": 1.0}))
    assert steps == 30


def test_bad_input(run, tmp_path):
    for arguments, message in ((("--seeds", "0"), "--seeds: expected an integer >= 1, got 0"),
                               (("--held-out", "850"), "--held-out: expected an integer from 2 to 800, got 850"),
                               (("--group", "1"), "--group: expected an integer >= 2, got 1"),
                               (("--width", "10"), "--width: expected a multiple of 8, got 10")):  # fmt: skip
        done = run("grpo.py", *QUICK, *arguments, "--out", str(tmp_path / "out"))
        assert done.code == 1 and message in done.err and "Traceback" not in done.err
