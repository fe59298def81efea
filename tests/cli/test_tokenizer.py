"""tinyplm tokenizer: training, and what is shown of any tokenizer."""

from __future__ import annotations

import re

import pytest

import tinyplm
from tests.support.families import tiny
from tests.support.scripts import assert_one_line
from tinyplm.data.corpus import deduplicate, read_texts
from tinyplm.tokenizers import RECIPES, Tokenizer


@pytest.mark.parametrize("kind", ["byte-level BPE", "WordPiece", "Unigram"])
def test_training(run, texts, tmp_path, kind):
    """The folder holds what Tokenizer.train makes of the same texts."""
    out = tmp_path / "new"
    done = run("tokenizer", "--text", *texts, "--kind", kind, "--vocabulary", 330, "--out", out, "--show", "A baker")
    assert done.code == 0 and kind in RECIPES, done.err
    documents = deduplicate(read_texts(texts))
    expected, found = Tokenizer.train(documents, 330, kind=kind), Tokenizer.load(out)
    assert found.encode_batch(documents) == expected.encode_batch(documents)
    count = sum(map(len, expected.encode_batch(documents)))
    assert f"tokens     {count:,} of this text, " in done.out and f"{found.vocab_size:,} entries" in done.out
    assert "'A baker'" in done.out


def test_special_tokens_of_ones_own(run, texts, tmp_path):
    done = run("tokenizer", "--text", *texts, "--vocabulary", 300, "--special", "<a>", "<b>", "--out", tmp_path / "new")
    assert done.code == 0 and re.search(r"^special    <a> \d+.*, <b> \d+", done.out, re.M)
    assert [token.content for token in Tokenizer.load(tmp_path / "new").added_tokens] == ["<a>", "<b>"]


def test_showing_tokens_ids_and_places(run, tmp_path, trained):
    trained.save(tmp_path)
    text = "naïve <|endoftext|>"
    for model in (tmp_path, tmp_path / "tokenizer.json"):
        for more in ((), ("--allow-special",)):
            done = run("tokenizer", "--model", model, "--show", text, *more)
            encoding = trained.encoding(text, allow_special=bool(more))
            rows = [re.split(r"  +", line) for line in done.out.splitlines()[5:-1]]
            assert [int(row[1]) for row in rows] == encoding.ids == trained.encode(text, bool(more))
            assert [row[0] for row in rows] == encoding.tokens
            assert [tuple(map(int, row[2].split(" to "))) for row in rows] == encoding.offsets
            size, count = len(text.encode()), len(encoding.ids)
            assert (
                done.out.splitlines()[-1] == f"{count} tokens and 0 special ones, {size} bytes, {size / count:.2f} bytes a token"
            )


def test_what_a_post_processor_adds_is_shown_as_special(run, tmp_path):
    special = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    Tokenizer.train(["a few words"], 262, list(special), kind="Unigram").save(tmp_path)
    done = run("tokenizer", "--model", tmp_path, "--show", "words", "")
    assert done.code == 0 and done.out.count("tokens and 1 special ones") + done.out.count("tokens and 0 special ones") == 2
    assert "special    <pad> 0 (pad), </s> 1 (eos), <unk> 2 (unk)" in done.out and "0 tokens and" in done.out


def test_the_tokenizer_of_a_run(run, tmp_path):
    model = tiny("llama", vocab_size=262)
    model.tokenizer = Tokenizer.train(["a few words"], 262)
    tinyplm.save(model, tmp_path / "step-1")
    (tmp_path / "latest").write_text("step-1\n")
    done = run("tokenizer", "--model", tmp_path, "--out", tmp_path / "copy")
    assert done.code == 0 and "BPE, " in done.out
    assert Tokenizer.load(tmp_path / "copy").encode("few") == model.tokenizer.encode("few")


def test_what_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for options, message in (
        ((), "--out: expected a folder for a new tokenizer, or --model with a given one, got neither"),
        (("--model", "none"), "--model: expected a folder or a file with a tokenizer, got none, which does not exist"),
        (("--model", "file"), "file: expected "),
        (("--model", "empty"), "empty: expected "),
        (("--model", "file", "--kind", "Unigram"), "--kind: expected none, since --model is trained already, got one"),
        (("--out", "file"), "--out: expected a folder, got "),
        (("--out", "."), "--out: expected a new or empty folder, got ."),
        (("--out", "new", "--kind", "BPE2"), "--kind: expected one of byte-level BPE, "),
        (("--out", "new", "--text", "none.txt"), "none.txt: expected a file, got none"),
        (("--out", "new", "--text", "file", "--vocabulary", "3"), "expected"),
        (("--out", "new", "--text", "file", "--special", "<a>", "<a>"), "special_tokens: expected different strings"),
    ):
        assert_one_line(run("tokenizer", *options), message)
    assert sorted(tmp_path.rglob("*")) == before
