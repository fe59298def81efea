"""BPE as a model of text: unknown characters, bytes, end-of-word marks, training; compared with reference/tokenizers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.tokenizers import bpe as naive
from tinyplm.tokenizers.models.bpe import BPE
from tinyplm.tokenizers.training.bpe import train_bpe

VOCAB = {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "aba": 4, "▁": 5, "▁ab": 6}
MERGES = [("a", "b"), ("ab", "a"), ("▁", "ab")]
BYTES = {f"<0x{byte:02X}>": 10 + byte for byte in range(256)}


def small(**options):
    return BPE(VOCAB, MERGES, **options)


@pytest.mark.parametrize(
    ("options", "word", "tokens"),
    [
        ({}, "abab", [(3, 0, 2), (3, 2, 4)]),
        ({}, "ababa", [(3, 0, 2), (4, 2, 5)]),  # first every a b, then the only ab a
        ({}, "", []),
        ({"unk_token": "<unk>"}, "axyb", [(1, 0, 1), (0, 1, 2), (0, 2, 3), (2, 3, 4)]),
        ({"unk_token": "<unk>", "fuse_unk": True}, "axyb", [(1, 0, 1), (0, 1, 3), (2, 3, 4)]),
        ({"unk_token": "<unk>", "fuse_unk": True}, "xax", [(0, 0, 1), (1, 1, 2), (0, 2, 3)]),
    ],
)
def test_by_hand(options, word, tokens):
    model = small(**options)
    assert model.encode_spans(word) == tokens
    assert list(model.encode(word)) == [id for id, _, _ in tokens]


def test_a_word_that_is_a_token_goes_before_merges():
    vocab = VOCAB | {"ba": 7, "bab": 8}
    assert BPE(vocab, MERGES).encode("bab") == (2, 3)
    whole = BPE(vocab, MERGES, ignore_merges=True)
    assert whole.encode("bab") == (8,) and whole.encode_spans("bab") == [(8, 0, 3)]
    assert list(whole.encode("babb")) == [2, 3, 2]


def test_unknown_characters_as_bytes():
    model = BPE({"<unk>": 0, "a": 1} | BYTES, [], "<unk>", byte_fallback=True)
    expected = [
        (1, 0, 1),
        *((10 + byte, 1, 2) for byte in "é".encode()),
        *((10 + byte, 2, 3) for byte in "春".encode()),
    ]
    assert model.encode_spans("aé春") == expected and list(model.encode("aé春")) == [id for id, _, _ in expected]
    some = {token: id for token, id in BYTES.items() if token != "<0xC3>"}
    some = {token: id for id, token in enumerate(["<unk>", "a", *some])}
    model = BPE(some, [], "<unk>", byte_fallback=True)
    assert model.encode_spans("éa") == [
        (0, 0, 1),
        (1, 1, 2),
    ]  # one byte is missing: the character is unknown


def test_marks_at_the_ends_of_words():
    vocab = {token: id for id, token in enumerate(["l", "o", "w", "w</w>", "lo", "low</w>", "l</w>"])}
    model = BPE(vocab, [("l", "o"), ("lo", "w</w>")], end_of_word_suffix="</w>")
    assert list(model.encode("low")) == [5] and list(model.encode("loww")) == [4, 2, 3] and list(model.encode("l")) == [6]
    assert model.encode_spans("loww") == [(4, 0, 2), (2, 2, 3), (3, 3, 4)]
    vocab = {token: id for id, token in enumerate(["l", "##o", "##w", "lo", "low"])}
    model = BPE(vocab, [("l", "##o"), ("lo", "##w")], continuing_subword_prefix="##")
    assert model.encode_spans("loww") == [(4, 0, 3), (2, 3, 4)]


def test_what_cannot_be_written_is_an_error():
    with pytest.raises(
        ValueError,
        match="since it has no unk_token, got 'x' in 'axb'",
    ):
        small().encode("axb")
    with pytest.raises(
        ValueError,
        match="unk_token: expected a token of the vocabulary, since 'x' is unknown, got '<UNK>'",
    ):
        small(unk_token="<UNK>").encode_spans("axb")


corpora = st.dictionaries(st.text("abcé", min_size=1, max_size=9), st.integers(1, 4), min_size=1, max_size=8)


@given(corpora, st.integers(0, 15), st.booleans(), st.text("abcé", max_size=30))
def test_training_and_encoding_equal_the_reference(corpus, rounds, marked, word):
    """The reference takes words as explicit lists of symbols: characters, the last one with its mark."""

    def symbols(text):
        return [*text[:-1], text[-1] + suffix] if text else []

    suffix = "</w>" if marked else ""
    alphabet = sorted({char for text in corpus for char in text})
    alphabet += sorted({text[-1] + suffix for text in corpus}) if marked else []
    size, suffix_or_none = 2 + len(alphabet) + rounds, suffix or None
    learned = train_bpe(corpus, size, ["<pad>", "<unk>"], end_of_word_suffix=suffix_or_none)
    model = BPE(*learned, "<unk>", end_of_word_suffix=suffix_or_none)
    tokens = ["<pad>", "<unk>", *alphabet]
    coded = [([tokens.index(symbol) for symbol in symbols(text)], count) for text, count in corpus.items()]
    merges = naive.train(coded, len(tokens), rounds)
    for a, b, _ in merges:
        tokens.append(tokens[a] + tokens[b])
    assert list(model.vocab) == tokens and list(model.vocab.values()) == list(range(len(tokens)))
    assert model.merges == [(tokens[a], tokens[b]) for a, b, _ in merges]
    ids = [tokens.index(symbol) if symbol in tokens else 1 for symbol in symbols(word)]
    assert list(model.encode(word)) == naive.encode(ids, merges)
    spans = model.encode_spans(word)
    assert [id for id, _, _ in spans] == list(model.encode(word))
    assert [0, *(end for _, _, end in spans)] == [*(start for _, start, _ in spans), len(word)]


def test_limits_of_training():
    words = {"aab": 3, "abc": 1, "cd": 1}
    assert list(train_bpe(words, 2, limit_alphabet=2)[0]) == ["a", "b"]
    # initial_alphabet comes first
    assert list(train_bpe(words, 3, limit_alphabet=1, initial_alphabet=["z"])[0]) == ["z"]
    # ab 4 times; aa 3, bc 1, cd 1, aab 3
    assert train_bpe(words, 9, min_frequency=4)[1] == [("a", "b")]
    message = "^vocab_size: expected room for 1 special tokens and the alphabet, 4 characters, got 4$"
    with pytest.raises(ValueError, match=message):
        train_bpe(words, 4, ["<s>"])


@given(st.text("ab▁", max_size=30))
def test_parts_that_can_be_encoded_alone(text):
    model = small(unk_token="<unk>")
    assert [id for part in model.cut(text) for id in model.encode(part)] == list(model.encode(text))
    assert all("▁" not in part.lstrip("▁") for part in model.cut(text))
    crossing = BPE(VOCAB | {"b▁": 7}, [*MERGES, ("b", "▁")])
    assert crossing.cut(text) == [text]


def test_tokens_that_no_text_is_taken_for():
    model = small(unk_token="<unk>")
    assert model.without(["<unk>", "never"]) is model  # no merge produces them
    assert list(model.without(["aba", "▁ab"]).encode("▁ababa")) == [5, 3, 3, 1]
    assert list(model.without(["a"]).encode("ab")) == [0, 2]
    assert list(small(ignore_merges=True).without(["ab"]).encode("ab")) == [1, 2]
