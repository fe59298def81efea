"""Streaming: the pieces join to the output of `decode`, without partial characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.training.recipes import RECIPES

SIZES = {
    "byte-level BPE": 400,
    "BPE": 400,
    "SentencePiece BPE": 600,
    "WordPiece": 600,
    "Unigram": 300,
}


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: Tokenizer.train(TEXTS * 3, SIZES[kind], kind=kind) for kind in RECIPES}


def streamed(tokenizer, ids, **options):
    stream = tokenizer.stream(**options)
    return [*(stream.push(id) for id in ids), stream.finish()]


@pytest.mark.parametrize("kind", RECIPES)
@given(st.data())
def test_any_ids(tokenizers, kind, data):
    tokenizer = tokenizers[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    skip = data.draw(st.booleans())
    assert "".join(streamed(tokenizer, ids, skip_special=skip)) == tokenizer.decode(ids, skip_special=skip)
    if ids and kind != "byte-level BPE":
        *before, last = ids
        if tokenizer.id_to_token(last)[0] != "<":  # neither special nor a byte, which would combine with what follows
            after = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
            whole = tokenizer.decode(ids + after)
            assert tokenizer.decode(ids) + "".join(streamed(tokenizer, after, after=ids)) == whole


@pytest.mark.parametrize("kind", RECIPES)
def test_no_half_characters(tokenizers, kind):
    tokenizer = tokenizers[kind]
    for text in [*TEXTS, "naïve 春天 👩‍👩‍👧‍👦 wörld"]:
        assert not any("\ufffd" in piece for piece in streamed(tokenizer, tokenizer.encode(text)))


def test_bytes_that_are_no_text_come_when_their_run_ends(tokenizers):
    tokenizer = tokenizers["SentencePiece BPE"]
    ids = [tokenizer.token_to_id(token) for token in ("<0xE6>", "<0x98>", "<0xA5>", "a", "<0xE6>", "<0x98>", "a")]
    assert streamed(tokenizer, ids) == ["", "", "", "春a", "", "", "\ufffd\ufffda", ""]


@pytest.mark.parametrize("kind", RECIPES)
def test_unknown_ids_are_refused(tokenizers, kind):
    for skip in (False, True):
        with pytest.raises(ValueError, match="ids: expected ids of the vocabulary, from 0 to .*, got 5000"):
            tokenizers[kind].stream(skip).push(5000)
