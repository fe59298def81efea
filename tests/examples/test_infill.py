"""examples/infill.py run as a command; its trigram, its gaps, and that its models see the same text."""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import EXAMPLES, load_example
from tinyplm.objectives import named_sentinels, restore_blanks, restore_spans

TINY = ("--steps", "3", "--batch", "4", "--window", "16", "--vocabulary", "300", "--width", "16", "--heads", "2", "--layers", "1",
        "--gaps", "3", "--validation", "0.1")  # fmt: skip


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return load_example("infill")


def test_the_whole_story(run, texts, tmp_path):
    out = tmp_path / "out"
    done = run("infill.py", *TINY, "--text", *texts, "--out", str(out))
    assert done.code == 0, done.err
    for expected in (
        "tokens of text, in windows of",
        "GLM against trigram: ",
        "GLM against T5: ",
        "held-out ",
        "nats per token: ",
    ):
        assert expected in done.out
    rows = [line.split() for line in done.out.splitlines() if line[:6].strip().isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "6"] and all(len(row) == 4 for row in rows)
    assert (out / "infill.png").exists() or "matplotlib" in done.out
    families = {name: tinyplm.load(out / name / "step-3").config.MODEL_TYPE for name in ("GLM", "T5", "LLaMA")}
    assert list(families.values()) == ["glm_2021", "t5", "llama"]
    again = run("infill.py", *TINY, "--out", str(out))
    assert again.code == 1 and "--out: expected a new or empty folder" in again.err


def test_both_see_the_same_windows(example, texts):
    options = argparse.Namespace(**{**example.parser().defaults, "text": texts, "window": 20, "vocabulary": 300, "width": 16})
    tokenizer, tokens, _, window = example.prepare(options)
    models = example.make(options, tokenizer, window)
    glm, t5 = (example.samples(name, models[name], tokens, options, window, 3) for name in ("GLM", "T5"))
    marks, sentinels = example.blank_tokens(models["GLM"]), named_sentinels(tokenizer.vocab)
    assert window >= 20
    for n in range(6):
        (a, a_targets), (b, b_targets) = glm.batch(n, 1), t5.batch(n, 1)
        prefix = int(a["prefix_lengths"][0])
        size = prefix + int((a_targets["logits"] != -100).sum())
        one = restore_blanks(a["input_ids"][0, :size], a["position_ids"][0, :, :size], prefix=prefix, tokens=marks)
        source, target = b["input_ids"][0][:-1], b_targets["logits"][0][:-1]
        assert one.tolist() == restore_spans(source, target, sentinels=sentinels).tolist() and len(one) == window


def test_the_trigram_finds_the_best_fill(example, monkeypatch):
    """Of all there are, where the beam holds them all."""
    monkeypatch.setattr(example, "BEAM", 9)
    tokens = np.random.default_rng(0).integers(0, 3, 60)
    trigram = example.Trigram(tokens, 3)
    log_prob = trigram.model.log_prob
    for before, after in (([1, 2, 0], [2, 1]), ([0, 0], [1]), ([2, 2], [0, 2, 1])):
        for length in (1, 2):
            every = itertools.product(range(3), repeat=length)
            best = max(every, key=lambda some: log_prob(np.array([*before[-2:], *some, *after[:2]]))[1:].sum())
            assert trigram.fill(before, after, length) == list(best)


def test_gaps_are_text_of_the_middle_without_ends(example):
    tokens = np.random.default_rng(1).integers(1, 50, 400)
    tokens[::37] = 0
    gaps = example.draw_gaps(tokens, 24, 3, 40, 0, 0)
    for before, gap, after in gaps:
        assert len(gap) == 3 and len(before) + len(after) == 21 and 6 <= len(before) <= 6 + 9
        assert 0 not in [*before[-2:], *gap, *after[:2]]
    assert gaps == example.draw_gaps(tokens, 24, 3, 40, 0, 0)
    with pytest.raises(ValueError, match="--gaps: expected at most 0 of 3 tokens, got 2"):
        example.draw_gaps(np.zeros(40, int), 24, 3, 2, 0, 0)


def test_what_is_right_and_what_is_clear(example):
    found = {"a": [[1], [2, 3]], "b": [[1, 1], [2, 3]]}
    right = example.judged(found, [([], [1], []), ([], [2, 3], [])])
    assert right["a"].tolist() == [True, True] and right["b"].tolist() == [False, True]
    assert example.compared(right["a"], right["b"]).startswith("no clear difference (1 gaps that it alone fills, 0 ")
    many, none = np.ones(5, bool), np.zeros(5, bool)
    assert example.compared(many, none).startswith("ahead (5 ") and example.compared(none, many).startswith("behind (0 ")


@pytest.mark.parametrize(
    ("option", "value", "words"), [("--heads", "3", "heads of even width in 16"), ("--density", "0.6", "--density")]
)
def test_wrong_options_are_one_line(run, tmp_path, option, value, words):
    outcome = run("infill.py", *TINY, option, value, "--out", str(tmp_path / "out"))
    assert outcome.code != 0 and outcome.err.startswith("error: ") and words in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
