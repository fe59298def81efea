"""Byte-level BPE: its laws, and the fast implementation compared with reference/tokenizers."""

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.tokenizers import bpe as naive
from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tinyplm.tokenizers import Tokenizer, pipeline
from tinyplm.tokenizers.models.bpe import Merger
from tinyplm.tokenizers.text.added_tokens import AddedToken
from tinyplm.tokenizers.text.bytelevel import (
    BYTE_TO_CHAR,
    bytes_to_chars,
    chars_to_bytes,
    split_words,
)
from tinyplm.tokenizers.text.pretokenization import ByteLevel, WhitespaceSplit
from tinyplm.tokenizers.training.bpe import learn_merges
from tinyplm.tokenizers.training.recipes import RECIPES

END = "<|endoftext|>"
any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


# Bytes and words


def test_the_byte_table_is_a_bijection_with_the_published_marks():
    assert len(set(BYTE_TO_CHAR)) == 256
    assert bytes_to_chars(b" dog\n\t\x00\xff\xad\x7f") == "ĠdogĊĉĀÿŃġ"
    assert all(chars_to_bytes(bytes_to_chars(bytes([b]))) == bytes([b]) for b in range(256))
    assert chars_to_bytes("<｜end｜>") == "<｜end｜>".encode()  # not in the table, so plain text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("abc  def", ["abc", " ", " def"]),
        ("don't we'll I'D", ["don", "'t", " we", "'ll", " I", "'", "D"]),
        ("x1²!? 3.5", ["x", "1²", "!?", " 3", ".", "5"]),
        ("a\n\n  b \t", ["a", "\n\n ", " b", " \t"]),
        ("春天 is", ["春天", " is"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


@given(any_text)
def test_words_joined_are_the_text(text):
    assert "".join(split_words(text)) == text


# Round trips


@given(any_text)
def test_any_text_survives(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert trained.decode_bytes(ids) == text.encode()
    assert all(type(i) is int for i in ids)


@given(st.data())
def test_any_ids_give_the_bytes_of_their_tokens(trained, data):
    ids = data.draw(st.lists(st.integers(0, trained.vocab_size - 1)))
    spelled = b"".join(chars_to_bytes(trained.id_to_token(i)) for i in ids)
    assert trained.decode_bytes(ids) == spelled
    assert trained.decode(np.array(ids, np.uint16)) == spelled.decode(errors="replace")


def test_every_byte_has_a_token(trained):
    assert all(trained.decode_bytes([trained.token_to_id(BYTE_TO_CHAR[b])]) == bytes([b]) for b in range(256))


@given(st.lists(st.sampled_from(["low", " lower", " 12", "'s", "春", " !", " "]), max_size=8))
def test_words_are_encoded_apart(trained, parts):
    words = split_words("".join(parts))
    assert trained.encode("".join(parts)) == [i for word in words for i in trained.encode(word)]


# Training and merging, against the reference


def test_hand_computed_example():
    """Ids: 0 is the special token; bytes start at 1, sorted by character, so "a" is 1 + 0x61 - 0x21 = 65.

    "aaabdaaabac" is one word with the pairs aa 4, ab 2, bd 1, da 1, ba 1, ac 1.
    1: aa -> Z (257). Z a b d Z a b a c: Za 2, ab 2, others 1. Of the two, (a, b) = (65, 66) is
    smaller.
    2: ab -> Y (258). Z Y d Z Y a c: ZY 2, others 1.
    3: ZY -> X (259). X d X a c, each pair once, the smallest is (a, c) = (65, 67).
    4: ac -> W (260). X d X W: (d, X) = (68, 259).
    """
    tokenizer = Tokenizer.train(["aaabdaaabac"], 261)
    assert tokenizer.model.merges == [("a", "a"), ("a", "b"), ("aa", "ab"), ("a", "c")]
    assert [tokenizer.id_to_token(i) for i in (0, 65, 257, 258, 259, 260)] == [
        END,
        "a",
        "aa",
        "ab",
        "aaab",
        "ac",
    ]
    assert tokenizer.encode("aaabdaaabac") == [259, 68, 259, 260]
    # aa aa a b b, then aa aa ab b, then aa aaab b
    assert tokenizer.encode("aaaaabb") == [257, 259, 66]


def test_the_example_of_sennrich():
    """Their figure 1, without its end-of-word mark and with our order for ties."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    letters = sorted(set("".join(words)))
    coded = {"".join(chr(letters.index(c)) for c in word): count for word, count in words.items()}
    tokens, merges = learn_merges(coded, letters, len(letters) + 4)
    # es 9 = st 9 (e < s), then es+t 9, then l+o 7, then lo+w 7
    assert tokens[len(letters) :] == ["es", "est", "lo", "low"]
    assert [(tokens[a], tokens[b]) for a, b, _ in merges] == [
        ("e", "s"),
        ("es", "t"),
        ("l", "o"),
        ("lo", "w"),
    ]


corpora = st.dictionaries(st.text("\0\1\2", min_size=1, max_size=24), st.integers(1, 5), min_size=1, max_size=8)


@settings(max_examples=300)
@given(corpora, st.integers(0, 30))
def test_training_equals_counting_everything_each_round(corpus, rounds):
    tokens, merges = learn_merges(corpus, ["a", "b", "c"], 3 + rounds)
    assert merges == naive.train([(list(map(ord, word)), n) for word, n in corpus.items()], 3, rounds)
    assert tokens[3:] == [tokens[a] + tokens[b] for a, b, _ in merges]
    assert len(set(tokens)) == len(tokens)  # no token is produced in two ways


@settings(max_examples=300)
@given(corpora, st.integers(0, 30), st.text("\0\1\2", max_size=60))
def test_encoding_equals_searching_anew(corpus, rounds, word):
    _, merges = learn_merges(corpus, ["a", "b", "c"], 3 + rounds)
    assert list(map(ord, "".join(Merger(merges).merge(word)))) == naive.encode(list(map(ord, word)), merges)
    for seen in corpus:
        assert list(map(ord, "".join(Merger(merges).merge(seen)))) == naive.encode(list(map(ord, seen)), merges)


@settings(max_examples=300)
@given(st.data())
def test_encoding_with_merges_in_any_order(data):
    """Files from other tools may use a symbol before the merge that produces it; the rule stays the same."""
    tokens = ["a", "b"]
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
    merges = []
    for a, b in pairs:
        a, b = a % len(tokens), b % len(tokens)
        if tokens[a] + tokens[b] not in tokens:
            tokens.append(tokens[a] + tokens[b])
        if (a, b) not in [merge[:2] for merge in merges]:
            merges.append((a, b, tokens.index(tokens[a] + tokens[b])))
    merges = data.draw(st.permutations(merges))
    word = data.draw(st.text("\0\1", max_size=40))
    assert list(map(ord, "".join(Merger(merges).merge(word)))) == naive.encode(list(map(ord, word)), merges)


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_training_does_not_depend_on_the_order_of_documents(shuffler):
    texts = TEXTS + ["zyx zyx yxz", "aaa aaaa aaaaaa ababab"]
    expected = Tokenizer.train(texts, 400).parts
    shuffler.shuffle(texts)
    assert Tokenizer.train(iter(texts), 400).parts == expected


def test_training_stops_when_words_are_single_tokens():
    tokenizer = Tokenizer.train(["ab ab"], 1000)
    assert tokenizer.model.merges == [("a", "b"), ("Ġ", "ab")]
    assert tokenizer.vocab_size == 259


# Special and added tokens


def test_special_tokens_are_text_unless_allowed(trained):
    text = f"dog{END} dog{END}"
    assert trained.eos_id == 0
    assert 0 not in trained.encode(text)
    assert trained.decode(trained.encode(text)) == text
    dog, space_dog = trained.encode("dog"), trained.encode(" dog")
    allowed = trained.encode(text, allow_special=True)
    assert allowed == [*dog, 0, *space_dog, 0]
    assert trained.encode_batch([text, ""], allow_special=True) == [allowed, []]
    assert trained.decode(allowed) == text
    assert trained.decode(allowed, skip_special=True) == "dog dog"


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("whole", [False, True])
def test_nobody_writes_a_special_token(kind, whole):
    """Not even where the model itself would find it, in a text that it treats as one word, as with a T5 vocabulary."""
    tokenizer = Tokenizer.train(TEXTS + ["<s> </s> [CLS] |" * 3], 600, kind=kind)
    parts = {"pre_tokenizer": WhitespaceSplit(), "normalizer": None} if whole else {}
    tokenizer = Tokenizer(**tokenizer.parts | parts)
    special = {token.id: token.content for token in tokenizer.added_tokens}
    unknown = {tokenizer.token_to_id(token) for token in ("<unk>", "[UNK]")}
    for text in [content for content in special.values()] + [f"low{content} {content}low" for content in special.values()]:
        for ids in (tokenizer.encode(text), tokenizer.encoding(text, add_special_tokens=False).ids):
            assert not (set(ids) - unknown) & special.keys(), (text, ids)
        assert set(tokenizer.encode(text, allow_special=True)) & special.keys()


def test_several_special_tokens_the_longest_wins():
    tokenizer = Tokenizer.train(["text"], 300, special_tokens=["<a>", "<a><b>", "<｜é｜>"])
    assert tokenizer.encode("<a><b><a>x<｜é｜>", allow_special=True)[:2] == [1, 0]
    assert tokenizer.encode("<a><b><a>x<｜é｜>", allow_special=True)[-1] == 2
    assert tokenizer.decode([2, 0]) == "<｜é｜><a>"
    assert tokenizer.eos_id is None
    assert Tokenizer.train(["text"], 300, special_tokens=()).vocab_size == 256 + 3


def test_added_tokens_that_are_not_special_are_always_matched(trained):
    added = [*trained.added_tokens, AddedToken("    ", 450, special=False, normalized=True)]
    tokenizer = Tokenizer(**trained.parts | {"added_tokens": added})
    assert tokenizer.vocab_size == 451
    assert tokenizer.encode("a     b") == [*trained.encode("a"), 450, *trained.encode(" b")]
    assert tokenizer.decode(tokenizer.encode("a     b"), skip_special=True) == "a     b"


def test_prefix_space(trained):
    tokenizer = Tokenizer(**trained.parts | {"pre_tokenizer": ByteLevel(add_prefix_space=True)})
    assert tokenizer.encode("low") == trained.encode(" low")
    assert tokenizer.encode(" low") == trained.encode(" low")
    assert tokenizer.encode("\nlow") == trained.encode(" \nlow")
    assert tokenizer.encode("") == []


# Wrong arguments


def test_lone_surrogates_are_refused_with_their_position(trained):
    for text, code in (("ab\ud800c", "D800"), ("ab\udfff", "DFFF")):
        message = rf"^text: expected .*, got the lone surrogate U\+{code} at position 2$"
        with pytest.raises(ValueError, match=message):
            trained.encode(text)
    with pytest.raises(ValueError, match="texts: number 1: expected text with a UTF-8 form"):
        Tokenizer.train(["fine", "\udc00"], 300)


@pytest.mark.parametrize("ids", [[0, 450], [-1], [5, 10**30]])
def test_unknown_ids_are_refused(trained, ids):
    for decode in (trained.decode, trained.decode_bytes):
        with pytest.raises(
            ValueError,
            match=f"ids: expected ids of the vocabulary, from 0 to 449, got {ids[-1]}",
        ):
            decode(ids)
    assert trained.id_to_token(ids[-1]) is None


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (
            ["a"],
            {"vocab_size": 256},
            "vocab_size: expected room for 1 special tokens and the alphabet, 256 characters",
        ),
        (["a"], {"vocab_size": 2_000_000}, "vocab_size: expected an integer from 1 to 1114112"),
        ([], {"vocab_size": 300}, "texts: expected some text to train on, got none"),
        (["", ""], {"vocab_size": 300}, "texts: expected some text to train on, got none"),
        (
            ["a"],
            {"vocab_size": 300, "special_tokens": ["<a>", "<a>"]},
            "special_tokens: expected different strings that are not empty, got '<a>'",
        ),
        (
            ["a"],
            {"vocab_size": 300, "special_tokens": [""]},
            "expected different strings that are not empty, got ''",
        ),
        (
            ["a"],
            {"vocab_size": 300, "special_tokens": ["a"]},
            "special_tokens: expected none that is spelled like a byte, got 'a'",
        ),
        (
            ["the the"],
            {"vocab_size": 300, "special_tokens": ["the"]},
            "tokens: expected none that is spelled like a merge, got 'the'",
        ),
    ],
)
def test_wrong_training_arguments(texts, options, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.train(texts, **options)


def test_wrong_types(trained):
    with pytest.raises(TypeError, match="single str"):
        Tokenizer.train("text", 300)
    with pytest.raises(TypeError, match="single str"):
        Tokenizer.train(["text"], 300, special_tokens=END)
    with pytest.raises(TypeError, match="single str"):
        trained.encode_batch("text")
    with pytest.raises(TypeError, match="text: expected a string, got b'text'"):
        trained.encode(b"text")
    with pytest.raises(TypeError):
        trained.decode([1.0])


# Time and memory


def test_long_words_are_not_quadratic():
    """Hundreds of thousands of letters take a second. Rescanning the word for each merge would take hours."""
    tokenizer = Tokenizer.train(["a" * 5000], 300)
    for text in (
        "a" * 300_000,
        " " * 100_000,
        "".join(random.Random(0).choices("ab", k=200_000)),
    ):
        start = time.process_time()
        ids = tokenizer.encode(text)
        assert time.process_time() - start < 10  # 0.5 to 2 s on a slow core for all three
        assert tokenizer.decode(ids) == text


def test_the_cache_is_bounded(trained, monkeypatch):
    monkeypatch.setattr(pipeline.WordCache, "MAX_WORDS", 50)
    fresh = Tokenizer(**trained.parts)
    words = [f" w{'x' * (i % 90)}{chr(0x4E00 + i)}" for i in range(500)]
    text = "".join(words) + "y" * 10_000
    assert fresh.encode(text) == fresh.encode(text) == trained.encode(text)
    assert 0 < len(fresh._caches[False]) <= 50
    assert max(map(len, fresh._caches[False])) <= 64
