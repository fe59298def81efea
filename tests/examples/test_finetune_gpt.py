"""examples/finetune_gpt.py as a user runs it, and the labels of its made-up language by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from tests.support.scripts import EXAMPLES, load_example
from tinyplm.models.config import labels
from tinyplm.tokenizers import Tokenizer
from tinyplm.tuning import with_delimiters
from tinyplm.tuning.finetuning.delimiters import has_delimiters

QUICK = ("--nouns", "4", "--texts", "100", "--steps", "2", "--samples", "8", "--epochs", "1", "--width", "8", "--workers", "1")
FORMATS = ["classification", "entailment", "similarity", "choice"]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return load_example("finetune_gpt")


def made(example, form, nouns):
    draw = np.random.default_rng(0)
    names = example.LABELS[form]
    task = {"task": "multiple_choice"} if names is None else {"task": "sequence_classification", **labels(names)}
    model = tinyplm.create("openai-gpt", vocab_size=700, n_embd=8, n_layer=1, n_head=2, n_positions=64, **task)
    model.tokenizer = Tokenizer.train(example.texts(nouns, 200, draw), 600)
    return with_delimiters(model), example.samples(with_delimiters(model), form, nouns, 60, draw)


@pytest.mark.parametrize("form", FORMATS)
def test_labels_by_hand(example, form):
    nouns = example.invented(5, np.random.default_rng(1))
    assert len({word for some in nouns for word in some}) == 15
    kind_of = {word: k for k, some in enumerate(nouns) for word in some} | {w.split()[1]: k for k, w in enumerate(example.KINDS)}
    model, samples = made(example, form, nouns)
    per = samples.count or 1
    seen = set()
    for n, label in enumerate(samples.targets["logits"]):
        rows = [model.tokenizer.decode(e.ids) for e in samples.encodings[n * per : (n + 1) * per]]
        texts = [re.split("<delimiter>", row.removeprefix("<start>").removesuffix("<extract>")) for row in rows]
        kinds = [kind_of[text.split()[1]] for text in texts[0]]
        places = [" ".join(text.split()[2:]) for text in texts[0]]
        if form == "classification":
            right = kinds[0]
        elif form == "similarity":
            right = int(kinds[0] == kinds[1])
            assert texts[1] == texts[0][::-1]
        elif form == "choice":
            right = kinds[0]
            assert places[0].endswith(" what is it") and [text[1] for text in texts] == list(example.KINDS)
        else:
            right = 2 if places[0] != places[1] else int(kinds[0] != kinds[1])
        assert label == right
        seen.add(label)
    assert len(seen) == len(example.LABELS[form] or example.KINDS)


@pytest.mark.parametrize("form", FORMATS)
def test_a_run(run, tmp_path, form):
    done = run("finetune_gpt.py", *QUICK, "--format", form, "--out", str(tmp_path / "out"))
    assert done.code == 0, done.err
    for row in ("pretrained", "pretrained, no LM loss", "from scratch"):
        assert re.search(rf"^{row} +\d+\.\d% of 500 samples about the other nouns$", done.out, re.MULTILINE), done.out
    folder = tmp_path / "out" / "from-scratch" / "best"
    assert f", {folder}" in done.out
    task = "multiple_choice" if form == "choice" else "sequence_classification"
    assert tinyplm.load(folder).task == task and has_delimiters(tinyplm.load(folder).tokenizer)
