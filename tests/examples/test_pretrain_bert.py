"""examples/pretrain_bert.py as a user runs it, and the baselines in its table."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tinyplm
from tinyplm.evaluation.masked import Guesses

QUICK = ("--size", "tiny", "--steps", "6", "--context", "24", "--batch", "4", "--vocabulary", "200", "--validation-samples", "20",
         "--workers", "2")  # fmt: skip


@pytest.mark.parametrize(("objective", "task"), [("next_sentence", "pretraining"), ("sentence_order", "pretraining"),
                                                 ("none", "masked_lm")])  # fmt: skip
def test_the_whole_story(run, texts, tmp_path, objective, task):
    out = tmp_path / "out"
    done = run("pretrain_bert.py", *QUICK, "--text", *texts, "--objective", objective, "--out", str(out))
    assert done.code == 0, done.err
    for expected in ("corpus", "WordPiece", "most frequent token", "most frequent between neighbours", "BERT, ", "[MASK]"):
        assert expected in done.out
    assert ("pairs right" in done.out) == (objective != "none")
    model = tinyplm.load(out / "step-6")
    assert model.task == task and model.tokenizer is not None
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines() if "learning_rate" in line] == [
        *range(1, 7)
    ]
    again = run("pretrain_bert.py", "--out", str(out))
    assert again.code == 1 and "expected a folder without a run" in again.err


def test_a_run_goes_on_exactly(run, texts, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        assert (
            run(
                "pretrain_bert.py", *QUICK, "--text", *texts, "--save-every", "3", "--evaluate-every", "3", "--out", str(out)
            ).code
            == 0
        )
    shutil.rmtree(cut / "step-6")  # as if killed after its save at step 3
    (cut / "latest").write_text("step-3\n")
    done = run("pretrain_bert.py", "--out", str(cut), "--resume")
    assert done.code == 0, done.err
    a, b = (tinyplm.core.flatten(tinyplm.load(out / "step-6").params) for out in (whole, cut))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    other = run("pretrain_bert.py", "--out", str(cut), "--resume", "--lr", "0.5")
    assert other.code == 1 and "--lr was 0.001, now 0.5" in other.err


def test_a_context_shorter_than_the_sentences_shown_at_the_end(run, texts, tmp_path):
    short = ("--objective", "none", "--context", "12", "--steps", "1", "--text", *texts, "--out", str(tmp_path / "out"))
    done = run("pretrain_bert.py", *QUICK, *short)
    assert done.code == 0, done.err
    assert "Return [MASK] if the object is empty.  (longer than --context)" in done.out


def test_bad_input(run, tmp_path):
    done = run("pretrain_bert.py", "--objective", "next")
    assert done.code == 1 and "--objective: expected one of next_sentence, sentence_order, none, got 'next'" in done.err
    (tmp_path / "one.txt").write_text("A sentence of a book. Another one of it.\n" * 200)
    done = run("pretrain_bert.py", "--text", str(tmp_path / "one.txt"), "--validation", "0.05", "--out", str(tmp_path / "new"))
    assert done.code == 1 and "expected two or more documents each for training and validation, got" in done.err
    assert not (tmp_path / "new").exists() and done.err.count("\n") == 1
    done = run("pretrain_bert.py", "--resume", "--out", str(tmp_path))
    assert done.code == 1 and "expected a run to resume" in done.err


def test_guesses_by_hand():
    """1 is followed by 2 twice and by 3 once; 3 occurs between 1 and 4; the most frequent token is 1."""
    guesses = Guesses([[1, 2, 1, 2], [1, 3, 4], [1, 1]], 6)
    assert guesses.counts.tolist() == [0, 5, 2, 1, 1, 0] and guesses.best == 1
    ids = np.array([[1, 5, 4], [1, 5, 5], [5, 5, 5]])
    targets = np.array([[-100, 3, -100], [-100, 2, -100], [-100, -100, 4]])
    assert guesses.neighbour_accuracy(ids, targets) == pytest.approx(2 / 3)  # 3 between 1 and 4; 2 after 1; not 4, but 1
    assert guesses.unigram_accuracy(targets) == 0
    assert guesses.unigram_loss(targets) == pytest.approx(-np.log([2 / 15, 3 / 15, 2 / 15]).mean())
    with pytest.raises(ValueError, match="^texts: expected at least one token, got none$"):
        Guesses([], 6)


def test_an_encoder_does_not_go_on_with_a_text():
    model = tinyplm.create("bert", "bert-tiny", vocab_size=20)
    for go_on in (tinyplm.generate, tinyplm.stream):
        with pytest.raises(ValueError, match="model: expected a decoder that generates text, got <bert masked_lm model"):
            go_on(model, [1, 2], max_new_tokens=3)
