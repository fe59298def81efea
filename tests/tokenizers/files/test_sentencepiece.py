"""SentencePiece .model files: valid ones are read, damaged ones refused."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sentencepiece_files import (
    MODELS,
    PIECES,
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


def chosen_bpe(*more):
    """A BPE model of letters with the user-defined pieces "\\n", "▁▁" and "<b>", without a prefix, all spaces kept."""
    chosen = (piece("\n", 0.0, 4), piece("▁▁", 0.0, 4), piece("<b>", 0.0, 4))
    return unigram(*chosen, *more, (2, [(3, 2)]), (3, [(3, 0), (4, 0)]))


def test_user_defined_pieces_of_a_bpe_model_are_matched_first(tmp_path):
    """And nothing is joined to them; "\\nh" is never formed, although no piece \\n could be joined to h."""
    (tmp_path / "m.model").write_bytes(chosen_bpe(piece("he", -6.0), piece("▁h", -5.5), piece("\nh", -1.0)))
    tokenizer = Tokenizer.load(tmp_path / "m.model")
    tokens = [tokenizer.id_to_token(id) for id in tokenizer.encode("he   he\nhe<b>▁ h<b")]
    assert tokens == ["he", "▁▁", "▁h", "e", "\n", "he", "<b>", "▁▁", "h", "<unk>", "b"]
    assert tokenizer.decode(tokenizer.encode("he   he\nhe<b>")) == "he   he\nhe<b>"
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).parts == tokenizer.parts


def test_an_unused_piece_of_a_bpe_model_is_never_used(tmp_path):
    (tmp_path / "m.model").write_bytes(chosen_bpe(piece("q", 0.0, 5), piece("xyz", 0.0, 5)))
    tokenizer = Tokenizer.load(tmp_path / "m.model")
    assert [tokenizer.id_to_token(id) for id in tokenizer.encode("xyzhe")] == ["<unk>", "h", "e"]


GEMMA = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("normalized", [True, False])
def test_gemma_keeps_its_user_defined_pieces_where_the_settings_list_them_too(tmp_path, normalized):
    """Settings of published files name them with normalized false, where only SentencePiece's own reading counts."""
    (tmp_path / "tokenizer.model").write_bytes(chosen_bpe(piece("▁h", -5.5)))
    model = Tokenizer.load(tmp_path / "tokenizer.model")
    ids = {name: model.token_to_id(name) for name in ("▁▁", "<b>")}
    listed = {
        str(ids["▁▁"]): {"content": "▁▁", "normalized": normalized, "special": False},
        str(ids["<b>"]): {"content": "<b>", "normalized": False, "special": True},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**GEMMA, "added_tokens_decoder": listed}), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    text = "h   h\n▁▁h"
    assert tokenizer.encode(text, add_special_tokens=True) == [1, *model.encode(text)]
    assert ids["▁▁"] in tokenizer.encode(text)
    assert ids["<b>"] in tokenizer.encode("h<b>h", allow_special=True)
    assert ids["<b>"] not in tokenizer.encode("h<b>h")  # a turn's mark, once it is special, is not typed by accident


@pytest.mark.parametrize("kind", [1, 3, 4, 5], ids=["normal", "control", "user-defined", "unused"])
def test_a_placeholder_gets_the_name_that_the_settings_put_there(tmp_path, kind):
    """As in InternLM 2 for chats, whose model has [UNUSED_TOKEN_146] where <|im_start|> is."""
    placeholder, id = piece("[UNUSED_TOKEN_146]", -90.0, kind), len(PIECES)
    (tmp_path / "tokenizer.model").write_bytes(unigram(placeholder, (2, [(3, 2)]), (3, [(3, 0)])))
    turn = {str(id): {"content": "<|im_start|>", "normalized": False, "special": True}}
    settings = {"tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": turn}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.token_to_id("<|im_start|>") == id and tokenizer.vocab_size == id + 1
    assert tokenizer.encode("<|im_start|>he", allow_special=True)[0] == id
    assert id not in tokenizer.encode("[UNUSED_TOKEN_146]<|im_start|>")
    assert tokenizer.decode([id, *tokenizer.encode("he")]) == "<|im_start|>he"
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).parts == tokenizer.parts


def test_a_token_that_texts_produce_keeps_its_name(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(unigram((2, [(3, 2)])))
    turn = {str(len(PIECES) - 1): {"content": "<|im_start|>", "special": True}}
    settings = {"tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": turn}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="vocab: expected one token per id, got 'w' and '<|im_start|>' with id 18"):
        Tokenizer.load(tmp_path)


REFUSED = {
    "expected a SentencePiece model, got no pieces": message((2, [(3, 1)])),
    "model_type: expected unigram or bpe, got word": unigram((2, [(3, 3)])),
    "model_type: expected unigram or bpe, got char": unigram((2, [(3, 4)])),
    "model_type: expected unigram or bpe, got 9": unigram((2, [(3, 9)])),
    "treat_whitespace_as_suffix: expected false, got true": unigram((2, [(24, 1)])),
    "escape_whitespaces: expected true, got false": unigram((3, [(5, 0)])),
    "denormalizer_spec: expected none, got a character map": unigram((5, [(2, "x")])),
    "pieces: expected no unused ones in a Unigram model, got 'q'": unigram(piece("q", 0.0, 5)),
    "pieces: expected no unused piece that others can form, got 'ab'": unigram(piece("ab", 0.0, 5), (2, [(3, 2)])),
    "pieces: expected one of kind unknown, got 2": unigram(piece("q", 0.0, 2)),
    "pieces: expected different ones, got 'a'": unigram(piece("a")),
    "a piece of type 7": unigram(piece("q", 0.0, 7)),
    "got: a piece without text": unigram((1, [(2, 1.0)])),
    "add_dummy_prefix: expected false in a BPE model with user-defined pieces, such as 'q', got true": unigram(
        piece("q", 0.0, 4), (2, [(3, 2)])
    ),
    "pieces: expected user-defined ones that normalization preserves, got 'q▁'": unigram(
        piece("q▁", 0.0, 4), (2, [(3, 2)]), (3, [(3, 0)])
    ),
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
