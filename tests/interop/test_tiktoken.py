"""Our byte-level tokenizers as `tiktoken` encodings: equal ids and texts.

A rank there is a token's id, and the pair whose merge has the lowest rank is merged first.  That is the order of the merges,
since training assigns ids in this order.  Fuzzed characters are those of Unicode 3.2: tables differ in age.
"""

from __future__ import annotations

import base64
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.test_tokenizers import CORPUS
from tests.support.hard_strings import END, HARD
from tests.tokenizers.files.test_tiktoken import folder_of
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.text.patterns import CL100K_PATTERN, O200K_PATTERN, QWEN2_PATTERN

tiktoken = pytest.importorskip("tiktoken")

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS = {"GPT-2": None, "cl100k": CL100K_PATTERN, "Qwen2": QWEN2_PATTERN, "o200k": O200K_PATTERN}


@pytest.fixture(scope="module", params=PATTERNS)
def both(request):
    pattern = PATTERNS[request.param]
    ours = Tokenizer.train(CORPUS * 2, 900, [END, "<pad>"], pattern=pattern)
    special = {token.content: token.id for token in ours.added_tokens}
    ranks = {ours.decode_bytes([id]): id for id in range(ours.vocab_size) if not ours.is_special(id)}
    theirs = tiktoken.Encoding(request.param, pat_str=pattern or GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special)
    return ours, theirs


def same(ours, theirs, text):
    ids = theirs.encode(text, disallowed_special=())
    assert ours.encode(text) == ids == ours.encoding(text).ids, text
    special = theirs.encode(text, allowed_special="all")
    assert ours.encode(text, allow_special=True) == special, text
    for some in (ids, special):
        assert ours.decode(some) == theirs.decode(some) == text


def test_hard_strings(both):
    for text in HARD:
        same(*both, text)


def old_unicode(char):
    return unicodedata.ucd_3_2_0.category(char) != "Cn"


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs", "Cn"]).filter(old_unicode)),
        st.lists(st.sampled_from([*HARD, *"abc 's'\n\t1春é/S", " ", "  ", END, "<pad>"]), max_size=6).map("".join),
    )
)
def test_fuzzed(both, text):
    same(*both, text)


@settings(max_examples=100)
@given(st.data())
def test_any_bytes(both, data):
    """Any ids, and the ids of single bytes: the same bytes, and the same text, with U+FFFD where they are invalid."""
    ours, theirs = both
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1)))
    single = [theirs.encode_single_token(bytes([byte])) for byte in data.draw(st.binary(max_size=30))]
    for some in (ids, single):
        assert ours.decode_bytes(some) == theirs.decode_bytes(some)
        assert ours.decode(some) == theirs.decode(some)


def test_offsets(both):
    """Their offset is the start of the first character that a token has bytes of."""
    ours, theirs = both
    ours = Tokenizer(**ours.parts | {"post_processor": None})  # which trims spaces from offsets
    for text in HARD:
        ids = ours.encode(text)
        decoded, starts = theirs.decode_with_offsets(ids)
        assert decoded == text
        if "\ufffd" not in text:
            assert [start for start, _ in ours.encoding(text).offsets] == starts, text


def test_the_pattern_of_o200k_is_the_published_one(monkeypatch):
    published = pytest.importorskip("tiktoken_ext.openai_public")
    monkeypatch.setattr(published, "load_tiktoken_bpe", lambda *_, **__: {})  # the ranks would be downloaded
    assert published.o200k_base()["pat_str"] == O200K_PATTERN


def test_ranks_of_a_file_are_merges(tmp_path):
    """Ranks that no training made: any order of the tokens beyond single bytes."""
    ours = Tokenizer.train(CORPUS * 2, 600, [], pattern=QWEN2_PATTERN)
    tokens = [ours.decode_bytes([id]) for id in range(ours.vocab_size)]
    tokens[256:] = sorted(tokens[256:], key=lambda token: token[::-1])
    read = Tokenizer.load(
        folder_of(tmp_path, [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)])
    )
    ranks = {token: rank for rank, token in enumerate(tokens)}
    theirs = tiktoken.Encoding("ranks", pat_str=QWEN2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    for text in [*HARD, *CORPUS]:
        assert read.encode(text) == theirs.encode_ordinary(unicodedata.normalize("NFC", text)), text
