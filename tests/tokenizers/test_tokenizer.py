"""The public interface of Tokenizer: invalid input, copies, threads, and training of each kind."""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.models.bpe import BPE
from tinyplm.tokenizers.models.unigram import Unigram
from tinyplm.tokenizers.models.wordpiece import WordPiece
from tinyplm.tokenizers.pipeline import WordCache
from tinyplm.tokenizers.text.decoding import ByteLevel
from tinyplm.tokenizers.training.recipes import RECIPES

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "she sells sea shells, by the sea shore!",
    "low lower lowest newer",
] * 3
SIZES = {"byte-level BPE": 290, "BPE": 60, "SentencePiece BPE": 310, "WordPiece": 90, "Unigram": 50}
KINDS = pytest.mark.parametrize("kind", RECIPES)


@pytest.fixture(scope="module")
def trained():
    return {kind: Tokenizer.train(TEXTS, SIZES[kind], kind=kind) for kind in RECIPES}


def letters(**parts):
    """Each character is a token: ▁ 0, a 1, b 2, ..."""
    model = BPE({char: id for id, char in enumerate("▁abc<> ")}, [])
    return Tokenizer(model, **parts)


# ---- the public interface


@KINDS
def test_pickled_and_copied(trained, kind):
    tokenizer = trained[kind]
    ids = tokenizer.encode("the lowest shells")
    tokenizer.encoding("the lowest shells")
    for other in (
        pickle.loads(pickle.dumps(tokenizer)),
        copy.copy(tokenizer),
        copy.deepcopy(tokenizer),
    ):
        assert other.encode("the lowest shells") == ids and other.parts == tokenizer.parts

    fresh = pickle.loads(pickle.dumps(tokenizer))
    size = len(pickle.dumps(fresh))
    assert fresh.encode("the lowest shells") == ids == fresh.encoding("the lowest shells", add_special_tokens=False).ids
    fresh.encode("the lowest shells", allow_special=True)
    assert len(pickle.dumps(fresh)) == size  # nothing computed is pickled


@KINDS
def test_vocabulary(trained, kind):
    tokenizer = trained[kind]
    vocab = tokenizer.vocab
    assert len(tokenizer) == tokenizer.vocab_size == len(vocab) and [*vocab.values()] == [*range(len(vocab))]
    assert all(tokenizer.token_to_id(token) == id and tokenizer.id_to_token(id) == token for token, id in vocab.items())
    vocab.clear()
    assert len(tokenizer.vocab) == len(tokenizer)
    assert type(tokenizer.model).__name__ in repr(tokenizer) and len(repr(tokenizer)) < 100 and len(repr(tokenizer.model)) < 200
    assert tokenizer.id_to_token(np.int64(1)) == tokenizer.id_to_token(1) and tokenizer.id_to_token(-1) is None


@KINDS
def test_nothing(trained, kind):
    tokenizer = trained[kind]
    assert tokenizer.encode("") == tokenizer.encoding("", add_special_tokens=False).ids == [] and tokenizer.decode([]) == ""
    assert tokenizer.batch([])["input_ids"].shape == (0, 0) and tokenizer.encode_batch([]) == []
    for texts in [], [""]:
        with pytest.raises(ValueError, match="texts: expected some text to train on, got none"):
            Tokenizer.train(texts, SIZES[kind], kind=kind)


@KINDS
@pytest.mark.parametrize("size", ["300", 300.5, None])
def test_size_must_be_an_integer(kind, size):
    with pytest.raises(TypeError, match=f"vocab_size: expected an integer, got {size!r}"):
        Tokenizer.train(TEXTS, size, kind=kind)


@KINDS
def test_wrong_types_of_ids(trained, kind):
    tokenizer = trained[kind]
    for ids in (None, 5, "abc", ["1"], [5.0], np.array([[5, 6]])):
        with pytest.raises(TypeError, match="ids: expected several integers, got"):
            tokenizer.decode(ids)
    for id in (None, "5", 1.5):
        with pytest.raises(TypeError, match="id: expected an integer"):
            tokenizer.id_to_token(id)
        with pytest.raises(TypeError, match="id: expected an integer"):
            tokenizer.is_special(id)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": None}, "model: expected a component, such as BPE or NFC, got None"),
        ({"model": "gpt2"}, "model: expected a component, such as BPE or NFC, got 'gpt2'"),
        ({"normalizer": "NFC"}, "normalizer: expected a component, such as BPE or NFC, got 'NFC'"),
        ({"pre_tokenizer": str.split}, "pre_tokenizer: expected a component, such as BPE or NFC"),
        (
            {"decoder": "ByteLevel"},
            "decoder: expected a component, such as BPE or NFC, got 'ByteLevel'",
        ),
        ({"post_processor": 1}, "post_processor: expected a component, such as BPE or NFC, got 1"),
        ({"added_tokens": ["<a>"]}, "added_tokens: expected several AddedToken, got '<a>'"),
        ({"padding": True}, "padding: expected a Padding or None, got True"),
        ({"truncation": 512}, "truncation: expected a Truncation or None, got 512"),
    ],
)
def test_wrong_parts(parts, message):
    with pytest.raises(TypeError, match=message):
        Tokenizer(**{"model": BPE({"a": 0}, [])} | parts)


def test_wrong_settings_of_a_batch():
    for settings, message in (
        ({"padding": True}, "padding: expected a Padding or None, got True"),
        ({"truncation": 512}, "truncation: expected a Truncation or None, got 512"),
    ):
        with pytest.raises(TypeError, match=message):
            letters().batch(["a", "ab"], **settings)
    with pytest.raises(TypeError, match="truncation: expected a Truncation or None, got True"):
        letters().encoding("a", truncation=True)
    with pytest.raises(ValueError, match="pairs: expected 2, one for each text, got 1"):
        letters().batch(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: BPE(["a"], []), "vocab: expected an object of tokens and ids, got list"),
        (
            lambda: BPE({"a": 0, "b": 1, "ab": 2}, ["ab"]),
            "merge 0: expected a pair of tokens, got 'ab'",
        ),
        (
            lambda: BPE({"a": 0, "aaa": 1}, [("a", "a", "a")]),
            r"merge 0: expected a pair of tokens, got \('a', 'a', 'a'\)",
        ),
        (
            lambda: WordPiece({"a": 0, "b": 0}),
            "vocab: expected one token per id, got 'a' and 'b' with id 0",
        ),
        (
            lambda: Tokenizer.train(TEXTS, 60, kind="BPE", limit_alphabet=0),
            "limit_alphabet: expected None or an integer >= 1, got 0",
        ),
        (
            lambda: Tokenizer.train(TEXTS, 60, kind="BPE", limit_alphabet=-3),
            "limit_alphabet: expected None or an integer >= 1, got -3",
        ),
    ],
)
def test_wrong_values(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_options_that_would_break_what_a_kind_promises():
    for options in (
        {"limit_alphabet": 100},
        {"end_of_word_suffix": "</w>"},
    ):  # some texts could not be encoded or decoded
        with pytest.raises(TypeError, match="unexpected keyword"):
            Tokenizer.train(TEXTS, 290, **options)
    with pytest.raises(TypeError, match="unk_token"):
        Tokenizer.train(TEXTS, 50, kind="Unigram", unk_token=None)


def test_wordpiece_with_another_prefix():
    tokenizer = Tokenizer.train(TEXTS, 90, kind="WordPiece", continuing_subword_prefix="@@")
    ids = tokenizer.encode("the lowest shells")
    assert any(tokenizer.id_to_token(id).startswith("@@") for id in ids)
    assert tokenizer.decode(ids) == "the lowest shells"


def test_batches_may_come_one_by_one():
    tokenizer = letters()
    rows = tokenizer.batch((t for t in ["a", "b"]), (t for t in ["b", "c"]))["input_ids"]
    assert rows.tolist() == [[1, 2], [2, 3]]


# ---- the same result for each text, in any thread and any order


def test_several_threads(trained, monkeypatch):
    monkeypatch.setattr(WordCache, "MAX_WORDS", 8)  # emptied constantly
    for tokenizer in trained.values():
        expected = [tokenizer.encode(text) for text in TEXTS]
        wrong = []

        def work(tokenizer=tokenizer, expected=expected, wrong=wrong):
            for _ in range(20):
                if [tokenizer.encode(text) for text in TEXTS] != expected:
                    wrong.append(1)
                if [tokenizer.encoding(text, add_special_tokens=False).ids for text in TEXTS] != expected:
                    wrong.append(2)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and len(tokenizer._spans[False]) <= 8


@KINDS
def test_training_does_not_depend_on_the_order_of_texts(trained, kind):
    assert Tokenizer.train(TEXTS[::-1], SIZES[kind], kind=kind).parts == trained[kind].parts


def test_training_does_not_depend_on_hashes():
    code = (
        "import sys; from tests.tokenizers.test_tokenizer import *;"
        "print({kind: Tokenizer.train(TEXTS, SIZES[kind], kind=kind).vocab for kind in RECIPES})"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        for seed in ("1", "2", "3")
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert len({run.stdout for run in runs}) == 1 and "shore" in runs[0].stdout.replace("'", "")


# ---- recipes


@KINDS
def test_recipes_without_their_special_tokens(kind):
    needed = {
        "byte-level BPE": [],
        "BPE": [],
        "SentencePiece BPE": ["<unk>", "<s>", "</s>"],
        "WordPiece": ["[UNK]"],
        "Unigram": ["<unk>"],
    }[kind]
    tokenizer = Tokenizer.train(TEXTS, SIZES[kind], needed, kind=kind)
    assert [token.content for token in tokenizer.added_tokens] == needed
    assert {*tokenizer.named.values()} <= {*needed}
    assert tokenizer.decode(tokenizer.encode("the sea")) == "the sea"
    if needed and kind != "SentencePiece BPE":
        assert tokenizer.encode("the sea", add_special_tokens=True) == tokenizer.encode("the sea")
        with pytest.raises(ValueError, match="special_tokens: expected"):
            Tokenizer.train(TEXTS, SIZES[kind], [], kind=kind)


def test_bpe_without_an_unknown_token_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="text: expected characters of the vocabulary, since it has no unk_token"):
        Tokenizer.train(TEXTS, 60, [], kind="BPE", lowercase=False).encode("é")


@pytest.mark.parametrize(("kind", "size"), [("Unigram", 310), ("SentencePiece BPE", 310)])
def test_unknown_characters_as_bytes_or_not(kind, size):
    with_bytes = Tokenizer.train(TEXTS, size, kind=kind, byte_fallback=True)
    assert with_bytes.decode(with_bytes.encode("sea é")) == "sea é"
    without = Tokenizer.train(TEXTS, 50, kind=kind, byte_fallback=False)
    assert without.named_id("unk_token") in without.encode("sea é") and without.token_to_id("<0x00>") is None


def test_sentencepiece_keeps_its_spaces_and_learns_from_words():
    tokenizer = Tokenizer.train(TEXTS, 310, kind="SentencePiece BPE")
    assert tokenizer.decode(tokenizer.encode("the  sea ")) == "the  sea "
    recipe = RECIPES["SentencePiece BPE"]()
    assert recipe.words(recipe.normalizer("the sea, the sea")) == ["▁the", "▁sea,", "▁the", "▁sea"]


def test_byte_level_with_a_pattern_cuts_by_it_alone():
    tokenizer = Tokenizer.train(["a1 a1 a1 a1"], 260, pattern=r"\w+| ")
    assert tokenizer.token_to_id("a1") is not None


def test_byte_level_words_are_learnt_as_bytes():
    tokenizer = Tokenizer.train([" é é é"], 260)
    assert tokenizer.token_to_id("ĠÃ©") is not None and isinstance(tokenizer.decoder, ByteLevel)


def test_unigram_prints_no_vocabulary():
    assert "pieces" not in repr(Unigram(0, (("<unk>", 0.0),)))
