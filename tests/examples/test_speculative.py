"""examples/speculative.py with small models: its table, its folders, and what it refuses."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import tinyplm
from tests.support.scripts import EXAMPLES
from tinyplm.data import corpus
from tinyplm.generation import expected_tokens
from tinyplm.tokenizers import Tokenizer


@pytest.fixture
def example(monkeypatch, run, texts, tmp_path):
    """run(*arguments) on a small corpus, from an empty folder."""
    documents = [part for text in texts for part in Path(text).read_text().split("\n\n")]
    monkeypatch.setattr(corpus, "default_corpus", lambda: documents)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    small = ("--texts", "2", "--tokens", "12", "--lengths", "1", "3", "--repeats", "1", "--workers", "1")
    return lambda *arguments: run("speculative.py", *small, *arguments)


def test_it_trains_both_and_prints_what_was_measured(example, tmp_path):
    sizes = ("--target-layers", "2", "--target-width", "32", "--target-steps", "3", "--draft-width", "16", "--draft-steps", "2")
    done = example(*sizes, "--temperature", "0")
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("plain ", "g = "))]
    assert [row[0] for row in rows] == ["plain", "g", "g"] and [row[2] for row in rows[1:]] == ["1", "3"]
    for row in rows[1:]:
        rate, per_pass, expected = float(row[3].rstrip("%")) / 100, float(row[4]), float(row[5])
        g = int(row[2])
        least, most = (expected_tokens(min(1, max(0, rate + off)), g) for off in (-5e-4, 5e-4))  # it has three digits
        assert 1 <= per_pass <= g + 1 and least - 5e-3 <= expected <= most + 5e-3
    assert "fastest: " in done.out and "a pass of the draft costs" in done.out
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert (tmp_path / "out-speculative" / "speculative.png").is_file() == drawn
    folders = [str(tmp_path / "out-speculative" / name) for name in ("target", "draft")]
    again = example("--target", folders[0], "--draft", folders[1], "--temperature", "0", "--out", "again")
    assert again.code == 0, again.err
    assert [line.split()[3] for line in again.out.splitlines() if line.startswith("g = ")] == [row[3] for row in rows[1:]]
    assert "train" not in again.out


def test_what_it_refuses(example, tmp_path):
    assert "--target: expected together with --draft, got one of them" in example("--draft", "x").err
    assert "--tokens: expected an integer from 2 to 112, got 113" in example("--tokens", "113").err
    for name, size in (("a", 300), ("b", 301)):
        model = tinyplm.create("gpt2", n_layer=1, n_embd=8, n_head=2, n_positions=128, vocab_size=size)
        tinyplm.save(model, tmp_path / name)
    assert "tokenizer: expected a model with one" in example("--target", "a", "--draft", "b").err
    documents = corpus.default_corpus()
    for name, size, part in (("a", 300, documents), ("b", 301, documents), ("c", 300, documents[1::2])):
        tokenizer = Tokenizer.train(part, size)
        model = tinyplm.create("gpt2", n_layer=1, n_embd=8, n_head=2, n_positions=128, vocab_size=tokenizer.vocab_size)
        model.tokenizer = tokenizer
        tinyplm.save(model, tmp_path / name)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 300}
    tinyplm.save(tinyplm.create("bert", **sizes), tmp_path / "encoder")
    for draft, message in (
        ("b", "draft: expected a tokenizer of 300 tokens, got 301"),
        ("c", "draft: expected the target's token "),
        ("encoder", "draft: expected a decoder that generates text"),
    ):
        assert example("--target", "a", "--draft", draft).err.startswith(f"error: {message}")
