"""Properties of every kind of tokenizer, on hard and random texts, without other libraries."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import TOKENIZER_TEXTS
from tests.support.hard_strings import HARD
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.decoding import byte_of
from tinyplm.tokenizers.text.patterns import CL100K_PATTERN, O200K_PATTERN, QWEN2_PATTERN

KINDS = {
    "byte-level BPE": ("byte-level BPE", {}),
    "byte-level BPE, cl100k": ("byte-level BPE", {"pattern": CL100K_PATTERN}),
    "byte-level BPE, Qwen2": ("byte-level BPE", {"pattern": QWEN2_PATTERN}),
    "byte-level BPE, o200k": ("byte-level BPE", {"pattern": O200K_PATTERN}),
    "BPE": ("BPE", {}),
    "BPE, cased": ("BPE", {"lowercase": False}),
    "SentencePiece BPE": ("SentencePiece BPE", {}),
    "SentencePiece BPE, no bytes": ("SentencePiece BPE", {"byte_fallback": False}),
    "WordPiece": ("WordPiece", {}),
    "WordPiece, cased": ("WordPiece", {"lowercase": False}),
    "Unigram": ("Unigram", {}),
    "Unigram, bytes": ("Unigram", {"byte_fallback": True}),
}
BYTE_LEVEL = [name for name in KINDS if name.startswith("byte")]
ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.sampled_from([*HARD, "<s>", "[CLS]", *"ab 's\n1春é▁"]), max_size=4).map("".join),
)


@pytest.fixture(scope="module")
def tokenizers():
    return {name: Tokenizer.train(TOKENIZER_TEXTS * 2, 600, kind=kind, **options) for name, (kind, options) in KINDS.items()}


def check_encoding(tokenizer, text):
    for allow_special in (False, True):
        encoding = tokenizer.encoding(text, allow_special=allow_special, add_special_tokens=False)
        assert tokenizer.encode(text, allow_special) == encoding.ids, text
        assert tokenizer.encode(text, allow_special, True) == tokenizer.encoding(text, allow_special=allow_special).ids
        assert encoding.tokens == [tokenizer.id_to_token(id) for id in encoding.ids]
        check_offsets(tokenizer, text, encoding.offsets)


def check_offsets(tokenizer, text, offsets):
    """Spans are sorted, inside the text, and cover it; two share at most one character, or are bytes of the same one."""
    end, before = 0, (0, 0)
    for span in offsets:
        start = span[0]
        assert 0 <= start <= span[1] <= len(text) and before <= span, (text, offsets)
        assert end - start <= 1 or span == before, (text, offsets)
        assert dropped(tokenizer, text, end, start), (text, end, start)
        end, before = max(end, span[1]), span
    assert dropped(tokenizer, text, end, len(text)), (text, end)


def dropped(tokenizer, text, start, end):
    """Whether the text here has no token only because it is white space, or the normaliser drops it
    or joins it to the character before."""
    normalize = tokenizer.normalizer or str
    rest = normalize(text[start:end]).replace("▁", " ").strip()
    joined = (
        normalize("x" + text[max(0, start - 1) : end]),
        normalize("x" + text[max(0, start - 1) : start]),
    )
    return start >= end or not rest or len(joined[0]) <= len(joined[1])


@pytest.mark.parametrize("name", KINDS)
def test_ids_and_offsets_of_hard_strings(tokenizers, name):
    for text in HARD:
        check_encoding(tokenizers[name], text)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25)
@given(text=ANY_TEXT)
def test_ids_and_offsets(tokenizers, name, text):
    check_encoding(tokenizers[name], text)


@pytest.mark.parametrize("name", KINDS)
def test_no_text_makes_a_special_token(tokenizers, name):
    """Except the unknown one, so nobody can forge the data's structure in a text."""
    tokenizer = tokenizers[name]
    specials = {token.id for token in tokenizer.added_tokens if token.content not in ("<unk>", "[UNK]")}
    for text in [*HARD, *(token.content for token in tokenizer.added_tokens)]:
        assert specials.isdisjoint(tokenizer.encode(text)), text


@pytest.mark.parametrize("name", BYTE_LEVEL)
@settings(max_examples=25)
@given(text=ANY_TEXT, data=st.binary(max_size=20))
def test_bytes_come_back(tokenizers, name, text, data):
    tokenizer = tokenizers[name]
    for allow_special in (False, True):
        assert tokenizer.decode(tokenizer.encode(text, allow_special)) == text
    by_byte = {tokenizer.decode_bytes([id]): id for id in range(tokenizer.vocab_size)}
    assert tokenizer.decode_bytes([by_byte[bytes([byte])] for byte in data]) == data


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25)
@given(text=ANY_TEXT, k=st.integers(0, 1000))
def test_parts_cut_between_words_encode_alone(tokenizers, name, text, k):
    tokenizer = tokenizers[name]
    if tokenizer.normalizer:
        text = tokenizer.normalizer(text)
    cut = tokenizer.pre_tokenizer.cut if tokenizer.pre_tokenizer else lambda text, first: [text]
    words = cut(text, True)
    alone = [tokenizer.model.encode(word) for word in words]
    bare = Tokenizer(**tokenizer.parts | {"normalizer": None, "added_tokens": []})
    border = k % (len(words) + 1)
    whole = bare.encode(text)
    assert whole == [id for ids in alone for id in ids]
    encoding = bare.encoding(text, add_special_tokens=False)
    ends = [end for word, (_, end) in zip(encoding.word_ids, encoding.offsets) if word < border]
    if name.startswith("byte") and border and ends:
        # split at a boundary of both: the pattern looks ahead, so a part alone may split differently than in the whole
        first, second = text[: ends[-1]], text[ends[-1] :]
        if cut(first, True) + cut(second, False) == words:
            assert bare.encode(first) + bare.encode(second) == whole


@pytest.mark.parametrize("name", KINDS)
def test_the_order_of_documents_plays_no_part_in_training(tokenizers, name):
    kind, options = KINDS[name]
    texts = TOKENIZER_TEXTS * 2
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        assert Tokenizer.train(texts, 600, kind=kind, **options).parts == tokenizers[name].parts


def streamed(tokenizer, ids, **options):
    stream = tokenizer.stream(**options)
    return [*map(stream.push, ids), stream.finish()]


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25)
@given(text=ANY_TEXT, k=st.integers(0, 1000), skip=st.booleans())
def test_streaming(tokenizers, name, text, k, skip):
    tokenizer = tokenizers[name]
    ids = tokenizer.encode(text, allow_special=True)
    whole = tokenizer.decode(ids, skip_special=skip)
    pieces = streamed(tokenizer, ids, skip_special=skip)
    assert "".join(pieces) == whole
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)
    k %= len(ids) + 1
    if k == len(ids) or k == 0 or byte_of(tokenizer.id_to_token(ids[k])) is None:
        before = tokenizer.decode(ids[:k], skip_special=skip)
        if tokenizer.decode(ids[:k]).encode() == whole.encode()[: len(before.encode())]:
            rest = "".join(streamed(tokenizer, ids[k:], skip_special=skip, after=ids[:k]))
            assert before + rest == whole, (ids, k)


@pytest.mark.parametrize("name", KINDS)
def test_lone_surrogates_are_refused(tokenizers, name):
    tokenizer = tokenizers[name]
    for text in ("\ud800", "a\udfff b", "\udc80\ud83d", "\ud83d\ude00"):
        for call in (
            tokenizer.encode,
            tokenizer.encoding,
            lambda text: tokenizer.batch([text]),
            lambda text: tokenizer.encode_batch([text]),
        ):
            with pytest.raises(ValueError, match="surrogate"):
                call(text)
        with pytest.raises(ValueError, match="surrogate"):
            tokenizer.encoding("a", text)
        with pytest.raises(ValueError, match="surrogate"):
            Tokenizer.train([*TOKENIZER_TEXTS, text], 600, kind=KINDS[name][0])


@pytest.mark.parametrize("name", KINDS)
def test_unknown_ids_are_refused(tokenizers, name):
    tokenizer = tokenizers[name]
    for id in (-1, tokenizer.vocab_size, 10**9):
        for skip in (False, True):
            with pytest.raises(ValueError, match=f"ids: expected ids of the vocabulary, .*, got {id}"):
                tokenizer.decode([0, id], skip_special=skip)
        assert tokenizer.id_to_token(id) is None


LETTERS = 400_000
LONG = {
    "a": lambda count: "a" * count,
    "spaces": lambda count: " " * count,
    "letters": lambda count: "".join(chr(code) for code in range(0x21, count + 0x21 + 0x800) if not 0xD800 <= code < 0xE000),
}


@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("name", [name for name in KINDS if "," not in name or "bytes" in name])
def test_hundreds_of_thousands_of_a_kind_within_seconds(tokenizers, name, text):
    """At most 10 microseconds a letter: copying the rest of the text for each letter would take twice that."""
    long = LONG[text](LETTERS)
    start = time.process_time()
    ids = tokenizers[name].encode(long)
    assert time.process_time() - start < LETTERS * 1e-5
    if name == "byte-level BPE":
        assert tokenizers[name].decode(ids) == long
