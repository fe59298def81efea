"""SentencePiece .model files: valid ones are read, damaged ones refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sentencepiece_files import (
    MODELS,
    loads_or_is_refused,
    message,
    piece,
    unigram,
)
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.files.sentencepiece import read_model

# SentencePiece


def test_a_model_is_read_by_hand(tmp_path):
    (tmp_path / "m.model").write_bytes(unigram())
    tokenizer = Tokenizer.load(tmp_path / "m.model")
    tokens = [tokenizer.id_to_token(id) for id in tokenizer.encode("  hello  hellod x ")]
    assert tokens == ["▁hello", "▁hello", "d", "▁", "<unk>"]
    assert tokenizer.decode(tokenizer.encode("hello hellod")) == "hello hellod"
    assert tokenizer.named == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    assert Tokenizer.load(tmp_path / "m.model").parts == tokenizer.parts


def test_ids_of_a_model_may_be_absent_or_elsewhere():
    trainer = (2, [(41, -1), (42, 1), (43, 2)])
    assert read_model(unigram(trainer), "m").parts()["named"] == {
        "unk_token": "<unk>",
        "eos_token": "<s>",
        "pad_token": "</s>",
    }


def test_fields_that_are_written_in_two_parts_and_unknown_fields():
    split = read_model(unigram((2, [(35, 1)]), (2, [(41, -1)]), (99, "x"), (98, 7), (97, 1.5)), "m")
    assert split.byte_fallback and split.ids["bos_token"] == -1


def test_a_user_defined_piece_is_taken_unless_a_longer_one_covers_it(tmp_path):
    """Matches sentencepiece 0.2 on this very model."""
    (tmp_path / "m.model").write_bytes(unigram(piece("lo", 0.0, 4)))
    tokenizer = Tokenizer.load(tmp_path / "m.model")
    tokens = [tokenizer.id_to_token(id) for id in tokenizer.encode("hello ello lo")]
    assert tokens == ["▁hello", "▁", "e", "l", "lo", "▁", "lo"]
    assert dict(tokenizer.model.pieces)["lo"] == 2 * -3.0 - 0.1  # two bytes; the best score is that of ▁


REFUSED = {
    "expected a SentencePiece model, got no pieces": message((2, [(3, 1)])),
    "model_type: expected unigram or bpe, got word": unigram((2, [(3, 3)])),
    "model_type: expected unigram or bpe, got char": unigram((2, [(3, 4)])),
    "model_type: expected unigram or bpe, got 9": unigram((2, [(3, 9)])),
    "treat_whitespace_as_suffix: expected false, got true": unigram((2, [(24, 1)])),
    "escape_whitespaces: expected true, got false": unigram((3, [(5, 0)])),
    "denormalizer_spec: expected none, got a character map": unigram((5, [(2, "x")])),
    "pieces: expected no unused ones, got 'q'": unigram(piece("q", 0.0, 5)),
    "pieces: expected one of kind unknown, got 2": unigram(piece("q", 0.0, 2)),
    "pieces: expected different ones, got 'a'": unigram(piece("a")),
    "a piece of type 7": unigram(piece("q", 0.0, 7)),
    "got: a piece without text": unigram((1, [(2, 1.0)])),
    "pieces: expected no user-defined ones in a BPE model, got 'q'": unigram(piece("q", 0.0, 4), (2, [(3, 2)])),
    "score of 'q': expected a number of at most 1e\\+30, got nan": unigram(piece("q", float("nan"))),
    "expected a SentencePiece model, got: an end within a field": unigram()[:-1],
    "expected a SentencePiece model, got: an end within a number": b"\xff" * 40,
    "expected a SentencePiece model, got: a field of wire type 3": b"\x0b",
    "expected a SentencePiece model, got: .*utf-8": unigram((1, [(1, b"\xff")])),
    "got: field 2 of wire type 0, not 2": unigram((3, [(2, 5)])),  # a number instead of a character map
    "got: field 1 of wire type 0, not a message": unigram((1, 5)),
    "got: field 3 of wire type 2, not 0": unigram((2, [(3, "x")])),
    "a SentencePiece model, got no pieces": b"",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_models_are_refused_by_name(tmp_path, reason):
    path = tmp_path / "m.model"
    path.write_bytes(REFUSED[reason])
    with pytest.raises(ValueError, match=rf"m\.model: .*{reason}"):
        Tokenizer.load(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(data=st.binary(max_size=60))
def test_any_bytes_load_or_are_refused(scratch, data):
    (scratch / "any.model").write_bytes(data)
    loads_or_is_refused(scratch / "any.model")


@pytest.mark.parametrize("kind", MODELS)
@given(seed=st.integers(0, 1 << 32))
def test_damaged_models_load_or_are_refused(scratch, kind, seed):
    draw = random.Random(seed)
    data = bytearray(MODELS[kind])
    if draw.random() < 0.3:
        del data[draw.randrange(len(data)) :]
    for _ in range(draw.choice((1, 1, 4))):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    (scratch / "damaged.model").write_bytes(data)
    loads_or_is_refused(scratch / "damaged.model")
