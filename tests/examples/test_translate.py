"""examples/translate.py as a user runs it, and the language that it makes."""

from __future__ import annotations

import re

import pytest

import tinyplm
from tests.support.scripts import EXAMPLES, load_example
from tinyplm import random
from tinyplm.tokenizers import Tokenizer

QUICK = ("--samples", "60", "--tests", "4", "--width", "32", "--layers", "1", "--steps", "5", "--batch", "8", "--warmup", "2",
         "--evaluate-every", "5")  # fmt: skip


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return load_example("translate")


def test_the_whole_story(run, tmp_path):
    out = tmp_path / "out"
    done = run("translate.py", *QUICK, "--out", str(out))
    assert done.code == 0, done.err
    for expected in ("sentences  60 for training", "BLEU 0.", "nearest training sentence", "dictionary, word by word",
                     "Transformer, greedily", "Transformer, 4 beams", "right ", "tinyplm.load loads this folder"):  # fmt: skip
        assert expected in done.out
    assert tinyplm.load(out / "step-5").family.Config.MODEL_TYPE == "transformer"
    again = run("translate.py", "--out", str(out), "--resume", "--beams", "2")
    assert again.code == 0 and "Transformer, 2 beams" in again.out, again.err
    assert run("translate.py", "--out", str(out)).code == 1


def test_sentences_of_too_many_tokens_are_cut(example, tmp_path):
    tokenizer = Tokenizer.train(["a b c"], 20, ["<pad>", "</s>", "<unk>"], kind="Unigram")
    config = example.sized("transformer", tokenizer, layers=1, width=16, heads=2, context=example.LONGEST)
    model = tinyplm.create("transformer", config, key=0)
    model.tokenizer = tokenizer
    long = "a b " * example.LONGEST
    texts = example.translations(model, [long, "a", long], tokenizer=tokenizer)
    assert len(texts) == 3 and texts[0] == texts[2]
    example.attention(model, (long, long), tmp_path)


def test_the_attention_is_drawn(run, tmp_path):
    pytest.importorskip("matplotlib")
    done = run("translate.py", *QUICK, "--out", str(tmp_path / "out"))
    assert f"attention  {tmp_path / 'out/attention.png'}" in done.out
    assert (tmp_path / "out/attention.png").read_bytes().startswith(b"\x89PNG")


def test_a_seed_is_a_language(example):
    one, same, other = (example.Language(seed) for seed in (3, 3, 4))
    assert one.stems == same.stems != other.stems
    pairs = [example.sentences(language, 20, 1) for language in (one, same, other)]
    assert pairs[0] == pairs[1] != pairs[2]
    assert [source for source, _ in pairs[0]] == [source for source, _ in pairs[2]]  # English stays the same
    assert len({*one.stems.values()}) == len(one.stems)


def test_the_grammar_by_hand(example):
    language = example.Language(0)
    language.stems |= {"baker": "tokan", "old": "silen"}
    language.classes["baker"], language.endings = 1, ["p", "r", "z"]
    language.plural, language.accusative = "la", "ve"
    assert language.phrase("baker", ["old"], False, False) == "tokan silenr"
    # after a back vowel la va, after a front one le ve; the adjective's class comes first
    assert language.phrase("baker", ["old"], True, True) == "tokanlava silenrleve"


def test_no_english_sentence_has_two_translations(example):
    language = example.Language(0)
    draw, found = random.generator(1), {}
    for _ in range(3000):
        source, target = language.sentence(draw)
        assert found.setdefault(source, target) == target
        assert re.fullmatch(r"[a-z ]+ \.", source) and re.fullmatch(r"[a-z ]+ \.", target)


def test_simple_translators(example):
    language = example.Language(0)
    stems = language.stems
    told = example.word_by_word(language, "the old bakers did not carry children .")
    assert told == f"{stems['old']} {stems['baker']} {language.negation} {stems['carry']} {stems['child']} ."
    assert example.nearest([("a b c", "x"), ("a d", "y")], "a d e") == "y"
