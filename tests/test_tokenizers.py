"""Tokenizers: the laws of byte-level BPE, and the fast implementation against reference/tokenizers."""

import json
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.tokenizers import bpe as naive
from tinyplm.tokenizers import Tokenizer, files, tokenizer
from tinyplm.tokenizers.bpe import BPE, train_bpe
from tinyplm.tokenizers.bytelevel import BYTE_TO_CHAR, bytes_to_chars, chars_to_bytes, split_words
from tinyplm.tokenizers.files import AddedToken, TokenizerFile

END = "<|endoftext|>"
TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog's owner didn't see it; they've seen 1234 foxes.\n",
    "def f(x):\n    return [x ** 2 for x in range(10)]\n\n\n# naïve café: übergrößenträger, señor, żółć\n",
    "春天来了，花开了。The 春天 is here. 日本語のテキスト、한국어. Привет, мир! שלום עולם. 👩‍👩‍👧‍👦🇩🇪\t\t",
    "low low low low low lower lower newest newest newest newest newest newest widest widest",
]
any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, 450)


# Bytes and words


def test_the_byte_table_is_a_bijection_with_the_published_marks():
    assert len(set(BYTE_TO_CHAR)) == 256
    assert bytes_to_chars(b" dog\n\t\x00\xff\xad\x7f") == "ĠdogĊĉĀÿŃġ"
    assert all(chars_to_bytes(bytes_to_chars(bytes([b]))) == bytes([b]) for b in range(256))
    assert chars_to_bytes("<｜end｜>") == "<｜end｜>".encode()  # not in the table: text


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
    """Ids: 0 the special token; bytes from 1 on, sorted by character, so that "a" is 1 + 0x61 - 0x21 = 65.

    "aaabdaaabac" is one word with the pairs aa 4, ab 2, bd 1, da 1, ba 1, ac 1.
    1: aa -> Z (257). Z a b d Z a b a c: Za 2, ab 2, others 1. Of the two, (a, b) = (65, 66) is smaller.
    2: ab -> Y (258). Z Y d Z Y a c: ZY 2, others 1.
    3: ZY -> X (259). X d X a c, each pair once, the smallest is (a, c) = (65, 67).
    4: ac -> W (260). X d X W: (d, X) = (68, 259).
    """
    tokenizer = Tokenizer.train(["aaabdaaabac"], 261)
    assert tokenizer.file.merges == [("a", "a"), ("a", "b"), ("aa", "ab"), ("a", "c")]
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
    """Their figure 1, without its end-of-word mark and with our order among equals."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    letters = sorted(set("".join(words)))
    coded = {"".join(chr(letters.index(c)) for c in word): count for word, count in words.items()}
    tokens, merges = train_bpe(coded, letters, len(letters) + 4)
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
    tokens, merges = train_bpe(corpus, ["a", "b", "c"], 3 + rounds)
    assert merges == naive.train([(list(map(ord, word)), n) for word, n in corpus.items()], 3, rounds)
    assert tokens[3:] == [tokens[a] + tokens[b] for a, b, _ in merges]
    assert len(set(tokens)) == len(tokens)  # no spelling is reached in two ways


@settings(max_examples=300)
@given(corpora, st.integers(0, 30), st.text("\0\1\2", max_size=60))
def test_encoding_equals_searching_anew(corpus, rounds, word):
    _, merges = train_bpe(corpus, ["a", "b", "c"], 3 + rounds)
    assert list(map(ord, BPE(merges).merge(word))) == naive.encode(list(map(ord, word)), merges)
    for seen in corpus:
        assert list(map(ord, BPE(merges).merge(seen))) == naive.encode(list(map(ord, seen)), merges)


@settings(max_examples=300)
@given(st.data())
def test_encoding_with_merges_in_any_order(data):
    """Files made by other means may use a symbol before the merge that makes it; the rule stays the same."""
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
    assert list(map(ord, BPE(merges).merge(word))) == naive.encode(list(map(ord, word)), merges)


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_training_does_not_depend_on_the_order_of_documents(shuffler):
    texts = TEXTS + ["zyx zyx yxz", "aaa aaaa aaaaaa ababab"]
    expected = Tokenizer.train(texts, 400).file
    shuffler.shuffle(texts)
    assert Tokenizer.train(iter(texts), 400).file == expected


def test_training_stops_when_words_are_single_tokens():
    tokenizer = Tokenizer.train(["ab ab"], 1000)
    assert tokenizer.file.merges == [("a", "b"), ("Ġ", "ab")]
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


def test_several_special_tokens_the_longest_wins():
    tokenizer = Tokenizer.train(["text"], 300, special_tokens=["<a>", "<a><b>", "<｜é｜>"])
    assert tokenizer.encode("<a><b><a>x<｜é｜>", allow_special=True)[:2] == [1, 0]
    assert tokenizer.encode("<a><b><a>x<｜é｜>", allow_special=True)[-1] == 2
    assert tokenizer.decode([2, 0]) == "<｜é｜><a>"
    assert tokenizer.eos_id is None
    assert Tokenizer.train(["text"], 300, special_tokens=()).vocab_size == 256 + 3


def test_added_tokens_that_are_not_special_are_always_matched(trained):
    file = trained.file
    added = [*file.added_tokens, AddedToken("    ", 450, special=False, normalized=True)]
    tokenizer = Tokenizer(TokenizerFile(file.vocab, file.merges, added))
    assert tokenizer.vocab_size == 451
    assert tokenizer.encode("a     b") == [*trained.encode("a"), 450, *trained.encode(" b")]
    assert tokenizer.decode(tokenizer.encode("a     b"), skip_special=True) == "a     b"


def test_prefix_space(trained):
    component = dict(trained.file.pre_tokenizer, add_prefix_space=True)
    tokenizer = Tokenizer(TokenizerFile(trained.file.vocab, trained.file.merges, pre_tokenizer=component))
    assert tokenizer.encode("low") == trained.encode(" low")
    assert tokenizer.encode(" low") == trained.encode(" low")
    assert tokenizer.encode("\nlow") == trained.encode(" \nlow")
    assert tokenizer.encode("") == []


# Files


def test_saved_and_loaded_it_is_the_same(trained, tmp_path):
    trained.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        assert Tokenizer.load(path).file == trained.file
    Tokenizer.load(tmp_path).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_failed_save_leaves_the_old_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    path.write_text("old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        trained.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_vocab_and_merges_files(trained, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(dict(trained.file.vocab)))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in trained.file.merges), ""]
    (tmp_path / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.file == trained.file
    assert loaded.encode(TEXTS[2] + END, allow_special=True) == trained.encode(TEXTS[2] + END, allow_special=True)
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert Tokenizer.load(tmp_path).encode("low") == trained.encode(" low")


def load_changed(trained, tmp_path, change):
    trained.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    return Tokenizer.load(tmp_path)


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


WRONG_FILES = {
    "normalizer 'NFC'": put("normalizer", {"type": "NFC"}),
    "pre_tokenizer 'Whitespace'": put("pre_tokenizer", {"type": "Whitespace"}),
    "pre_tokenizer None": put("pre_tokenizer", None),
    "decoder 'Metaspace'": put("decoder", {"type": "Metaspace"}),
    "post_processor 'TemplateProcessing'": put("post_processor", {"type": "TemplateProcessing"}),
    "post_processor 'RobertaProcessing'": put("post_processor", {"type": "RobertaProcessing"}),
    "model 'WordPiece'": put("model", "type", "WordPiece"),
    "model.dropout = 0.1": put("model", "dropout", 0.1),
    "model.ignore_merges = true": put("model", "ignore_merges", True),
    'model.end_of_word_suffix = "</w>"': put("model", "end_of_word_suffix", "</w>"),
    "truncation = ": put("truncation", {"max_length": 5}),
    "padding = ": put("padding", {"pad_id": 0}),
    "added token '<|endoftext|>': lstrip = true": put("added_tokens", 0, "lstrip", True),
    "'id', got": put("added_tokens", 0, "id", "0"),
    "an added token must be an object": put("added_tokens", 0, "x"),
    "must say add_prefix_space": put("pre_tokenizer", {"type": "ByteLevel"}),
    "merge 2 must be a pair of tokens": put("model", "merges", 2, "a b c"),
    "merge 3 must be a pair of tokens": put("model", "merges", 3, ["a b", "c"]),
    r"merge 1 \('q', 'zzz'\) needs token 'zzz'": put("model", "merges", 1, ["q", "zzz"]),
    "an object 'vocab' and a list 'merges'": put("model", "vocab", ["a"]),
    "id 70 is given to both": put("model", "vocab", "low", 70),
    "must be a number from 0 on, got -1": put("model", "vocab", "low", -1),
    "must be a number from 0 on, got True": put("model", "vocab", "low", True),
    "hole: no token has id 450, but 451": put("model", "vocab", "new", 451),
    "added token '<|endoftext|>' has id 450, but id 0": put("added_tokens", 0, "id", 450),
    "'model' is expected": lambda content: content.pop("model"),
}


@pytest.mark.parametrize("message", WRONG_FILES)
def test_wrong_files_are_refused_by_name(trained, tmp_path, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        load_changed(trained, tmp_path, WRONG_FILES[message])


def test_what_changes_nothing_is_accepted(trained, tmp_path):
    def older(content):  # the file published with GPT-2
        del content["model"]["type"], content["model"]["ignore_merges"]
        content["model"]["continuing_subword_prefix"] = ""

    assert load_changed(trained, tmp_path, older).file == trained.file
    pairs = [list(merge) for merge in trained.file.merges]
    assert load_changed(trained, tmp_path, put("model", "merges", pairs)).file == trained.file
    template = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]}
    assert load_changed(trained, tmp_path, put("post_processor", template)).file.post_processor == template
    assert load_changed(trained, tmp_path, put("post_processor", None)).encode("a b") == trained.encode("a b")


def test_broken_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    for content, message in [
        ("{", "not a valid JSON"),
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ("[]", "'model'"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            Tokenizer.load(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.json"):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_without_all_bytes(trained):
    vocab = {"a": 0, "b": 1, "ab": 2}
    tokenizer = Tokenizer(TokenizerFile(vocab, [("a", "b")]))
    assert tokenizer.encode("abba") == [2, 1, 0]
    with pytest.raises(ValueError, match="no token for the byte 0x63"):
        tokenizer.encode("abc")


# Wrong arguments


def test_lone_surrogates_are_refused_with_their_position(trained):
    for text in ("ab\ud800c", "ab\udfff"):
        with pytest.raises(ValueError, match=r"U\+D\w{3}, at position 2"):
            trained.encode(text)
    with pytest.raises(ValueError, match="text 1 has a lone surrogate"):
        Tokenizer.train(["fine", "\udc00"], 300)


@pytest.mark.parametrize("ids", [[0, 450], [-1], [5, 10**30]])
def test_unknown_ids_are_refused(trained, ids):
    for decode in (trained.decode, trained.decode_bytes):
        with pytest.raises(ValueError, match=f"id {ids[-1]} is not in the vocabulary: it has 450 ids"):
            decode(ids)
    assert trained.id_to_token(ids[-1]) is None


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a"], {"vocab_size": 256}, "256 is too small for the 256 bytes and 1 special"),
        (["a"], {"vocab_size": 2_000_000}, "more than 1114112"),
        ([], {"vocab_size": 300}, "hold no text at all"),
        (["", ""], {"vocab_size": 300}, "hold no text at all"),
        (["a"], {"vocab_size": 300, "special_tokens": ["<a>", "<a>"]}, "'<a>' is wrong"),
        (["a"], {"vocab_size": 300, "special_tokens": [""]}, "'' is wrong"),
        (["a"], {"vocab_size": 300, "special_tokens": ["a"]}, "'a' is wrong"),
        (["the the"], {"vocab_size": 300, "special_tokens": ["the"]}, "'the' was given"),
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
    with pytest.raises(TypeError, match="must be a str, got bytes"):
        trained.encode(b"text")
    with pytest.raises(TypeError):
        trained.decode([1.0])


# Time and memory


def test_long_words_are_not_quadratic():
    """A million letters: seconds. Searching the word anew for each merge would take days."""
    tokenizer = Tokenizer.train(["a" * 5000], 300)
    for text in ("a" * 1_000_000, " " * 100_000, "".join(random.Random(0).choices("ab", k=200_000))):
        start = time.process_time()
        ids = tokenizer.encode(text)
        assert time.process_time() - start < 30  # 1 to 5 s on a slow core, all three
        assert tokenizer.decode(ids) == text


def test_the_cache_is_bounded(trained, monkeypatch):
    monkeypatch.setattr(tokenizer._WordCache, "MAX_WORDS", 50)
    fresh = Tokenizer(trained.file)
    words = [f" w{'x' * (i % 90)}{chr(0x4E00 + i)}" for i in range(500)]
    text = "".join(words) + "y" * 10_000
    assert fresh.encode(text) == fresh.encode(text) == trained.encode(text)
    assert 0 < len(fresh._words) <= 50
    assert max(map(len, fresh._words)) <= 64
