"""examples/pretrain_t5.py as a user runs it, and what it measures and shows."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import EXAMPLES, load_example
from tinyplm.data import IGNORED
from tinyplm.evaluation import Guesses
from tinyplm.objectives import corrupt_spans, noise_mask

QUICK = ("--size", "tiny", "--steps", "6", "--context", "24", "--batch", "4", "--vocabulary", "300", "--validation-samples", "20",
         "--workers", "2")  # fmt: skip


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return load_example("pretrain_t5")


@pytest.mark.parametrize(("family", "shown"), [("t5", ("103 of them special", "source ", "T5, ")),
                                               ("bart", ("5 of them special", "noised ", "BART, "))])  # fmt: skip
def test_the_whole_story(run, example, texts, tmp_path, family, shown):
    out = tmp_path / "out"
    done = run("pretrain_t5.py", *QUICK, "--text", *texts, "--family", family, "--shown", "1", "--out", str(out))
    assert done.code == 0, done.err
    for expected in (
        "corpus",
        "most frequent token",
        "most frequent after the one before",
        "model ",
        "original ",
        "transformers loads this folder",
        *shown,
    ):
        assert expected in done.out
    model = tinyplm.load(out / "step-6")
    assert model.task == "seq2seq_lm" and "<pad>" in model.tokenizer.vocab
    layout = example.layout_of(family, model.tokenizer)
    ids = model.tokenizer.encode("the text", add_special_tokens=True)
    assert ids == layout.framed(model.tokenizer.encode("the text")).tolist()  # as in training
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines() if "learning_rate" in line] == [
        *range(1, 7)
    ]
    again = run("pretrain_t5.py", "--out", str(out))
    assert again.code == 1 and "expected a folder without a run" in again.err


def test_a_run_goes_on_exactly(run, texts, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    often = ("--save-every", "3", "--evaluate-every", "3", "--text", *texts)
    for out in (whole, cut):
        assert run("pretrain_t5.py", *QUICK, *often, "--out", str(out)).code == 0
    shutil.rmtree(cut / "step-6")  # as if killed after its save at step 3
    (cut / "latest").write_text("step-3\n")
    done = run("pretrain_t5.py", "--out", str(cut), "--resume")
    assert done.code == 0, done.err
    a, b = (tinyplm.core.flatten(tinyplm.load(out / "step-6").params) for out in (whole, cut))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    other = run("pretrain_t5.py", "--out", str(cut), "--resume", "--lr", "0.5")
    assert other.code == 1 and "--lr was None, now 0.5" in other.err


def test_the_true_spans_give_the_text_back(example):
    ids, sentinels = [*range(10, 40)], [90, 91, 92, 93, 94, 95, 96]
    source, target = (a.tolist() for a in corrupt_spans(ids, noise_mask(30, key=5), sentinels=sentinels))
    parts = example.filled(source, target, sentinels)
    assert [i for part in parts for i in (part if isinstance(part, list) else [part])] == ids
    assert sum(isinstance(part, list) for part in parts) == sum(token in sentinels for token in source) > 0
    # a model may leave a span out, begin with text, and repeat a sentinel
    assert example.filled([90, 1, 91], [7, 91, 8, 91, 9], sentinels) == [[], 1, [8, 9]]


def test_guesses_by_hand(example):
    """1 is followed by 2 more often than by 3. The first of a span follows the token before its sentinel."""
    guesses = Guesses([[1, 2, 1, 2, 1, 3, 1]], 10)
    source, read = np.array([[3, 1, 9, 5]]), np.array([[0, 9, 2, 1]])
    targets = np.array([[IGNORED, 2, 1, 3]])  # 2 after 1: right; 1 after 2: right; 3 after 1: wrong
    batch = ({"input_ids": source, "decoder_input_ids": read}, {"logits": targets})
    assert example.follows(guesses, [batch], [9]) == pytest.approx(2 / 3)


def test_special_tokens_do_not_count(example):
    ((inputs, targets),) = example.text_alone([({"input_ids": 0}, {"logits": np.array([[9, 4, IGNORED, 1]])})], [1, 9])
    assert inputs == {"input_ids": 0} and targets["logits"].tolist() == [[IGNORED, 4, IGNORED, IGNORED]]
