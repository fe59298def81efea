"""examples/tokenizers.py run as a command."""

from __future__ import annotations

import builtins
import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.support.scripts import write_texts
from tinyplm.data.corpus import deduplicate, read_texts, split_documents
from tinyplm.tokenizers import RECIPES, Tokenizer

SCRIPT = Path(__file__).parents[2] / "examples" / "tokenizers.py"
ROW = re.compile(
    r"^([^\d\n]+?) +(\d+) +(\d+\.\d\d) +(\d\.\d{3}) +(\d+\.\d\d)%(?:  of (\d+) requested: nothing left to merge)?$", re.M
)


def example(monkeypatch, *arguments):
    """Runs the example as a command; returns its exit message, or None."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    return None


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Some documents contain characters that no other has: when held out, these are unknown."""
    folder = tmp_path_factory.mktemp("texts")
    rare = folder / "rare.txt"
    rare.write_text("\n<|endoftext|>\n".join(f"The letter {chr(code)} is rare. " * 9 for code in range(0x4E00, 0x4E50)), "utf-8")
    return [write_texts(folder)[1], str(rare)]


def test_all_kinds_are_trained_shown_counted_and_saved(monkeypatch, tmp_path, capsys, texts):
    options = ("--text", *texts, "--sizes", 500, 450, "--out", tmp_path / "plot.png", "--save", tmp_path / "kept")
    assert example(monkeypatch, *options) is None
    out = capsys.readouterr().out
    _, held_out = split_documents(deduplicate(read_texts(texts)), 0.05, 0)
    total = sum(len(document.encode()) for document in held_out)
    rows = ROW.findall(out.split("tokens/byte  unknown\n")[1])
    assert [row[0] for row in rows] == [kind for kind in RECIPES for _ in range(2)]
    assert [row[0] for row in rows if float(row[4])] == [kind for kind in ("BPE", "WordPiece", "Unigram") for _ in range(2)]
    for kind, entries, a, b, unknown, asked in rows[1::2]:
        tokenizer = Tokenizer.load(tmp_path / "kept" / kind.lower().replace(" ", "-"))
        assert tokenizer.vocab_size == int(entries) and asked == ("" if int(entries) == 500 else "500")
        ids = [id for document in held_out for id in tokenizer.encode(document)]
        share = ids.count(tokenizer.named_id("unk_token")) / len(ids)
        assert (a, b, unknown) == (f"{total / len(ids):.2f}", f"{len(ids) / total:.3f}", f"{100 * share:.2f}")
    for kind in RECIPES:
        assert len(re.findall(rf"^  {kind} +\d+  (same|changed)", out, re.M)) == 5  # sentences


def test_the_cut_of_bytes_can_be_read(monkeypatch, tmp_path, capsys, texts):
    options = ("--text", *texts, "--sizes", 300, "--kinds", "byte-level BPE", "--out", tmp_path / "plot.png")
    assert example(monkeypatch, *options) is None
    shown = re.search(r"^code: .*\n((?:  .*\n)+)", capsys.readouterr().out, re.M)[1]
    count, verdict, first, *rest = shown.split("byte-level BPE")[1].split()
    pieces = "".join([first, *rest]).split("│")
    assert int(count) == len(pieces) - 1 and verdict == "same"
    assert "".join(pieces) == "def f(x):\n    return [x ** 2 for x in range(10)]".replace(" ", "▁").replace("\n", "⏎")


def test_the_sentences_are_many_and_always_the_same():
    names = runpy.run_path(str(SCRIPT))
    documents = names["sentences"]()
    assert documents == names["sentences"]()
    assert len(set(documents)) == len(documents) == 80 and 100_000 < sum(len(d.encode()) for d in documents)
    chinese = "".join(documents)
    learnt = sum(char in chinese for char in names["SENTENCES"]["Chinese"])
    assert learnt == len(names["SENTENCES"]["Chinese"])


def test_the_example_needs_no_matplotlib(monkeypatch, tmp_path, capsys, texts):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    options = ("--text", texts[0], "--sizes", 300, "--kinds", "byte-level BPE", "--out", tmp_path / "plot.png")
    assert example(monkeypatch, *options) is None
    assert "-m pip install matplotlib\n" in capsys.readouterr().out and not (tmp_path / "plot.png").exists()


def test_the_example_draws_a_plot(monkeypatch, tmp_path, capsys, texts):
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / "plot.png"
    assert example(monkeypatch, "--text", texts[0], "--sizes", 300, "--kinds", "byte-level BPE", "--out", path) is None
    assert path.read_bytes().startswith(b"\x89PNG") and f"plot       {path}\n" in capsys.readouterr().out


def test_the_example_says_in_one_line_what_is_wrong(monkeypatch, tmp_path, texts):
    for arguments, message in (
        (("--kinds", "bpe"), "error: --kinds: expected one of byte-level BPE, BPE, "),
        (("--out", f"{texts[0]}/plot.png"), "notes.txt"),  # a file where a folder should be
        (("--text", tmp_path / "none.txt"), "none.txt"),
        (
            ("--text", *texts, "--sizes", 20, "--kinds", "WordPiece"),
            "error: --sizes: 20: WordPiece: vocab_size: expected room for ",
        ),
    ):
        got = example(monkeypatch, *arguments)
        assert message in got and got.startswith("error: ") and "\n" not in got
