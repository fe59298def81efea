"""A writer for the few .model fields that tests need."""

from __future__ import annotations

import struct

from tests.conftest import TOKENIZER_TEXTS as TEXTS
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.training.sentencepiece_bpe import train_sentencepiece_bpe

# A field is (number, value); the value is an int, a float, a string, bytes, or a list of fields.


def varint(value):
    value %= 1 << 64
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def message(*fields):
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            data += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            content = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else message(*value)
            data += varint(number << 3 | 2) + varint(len(content)) + content
    return data


def piece(text, score=0.0, kind=1):
    return 1, [(1, text), (2, score), (3, kind)]


LETTERS = "abdehilnorstuw"
PIECES = [
    piece("<unk>", kind=2),
    piece("<s>", kind=3),
    piece("</s>", kind=3),
    piece("▁", -3.0),
    piece("▁hello", -4.0),
    *(piece(letter, -5.0 - k / 8) for k, letter in enumerate(LETTERS)),
]


def unigram(*more):
    return message(*PIECES, *more)


def bpe_model():
    words = {"▁" + word: 3 for text in TEXTS for word in text.split()}
    kinds = {"normal": 1, "unknown": 2, "control": 3, "byte": 6}
    pieces = train_sentencepiece_bpe(words, 450, byte_fallback=True)
    pieces = [piece(text, float(score), kinds[kind]) for text, score, kind in pieces]
    return message(*pieces, (2, [(3, 2), (35, 1)]), (3, [(4, 0)]))


MODELS = {"unigram": unigram((3, [(2, b"")])), "BPE": bpe_model()}


def loads_or_is_refused(path):
    """Any problem with a file raises a ValueError that names it; a file that loads works on text."""
    try:
        tokenizer = Tokenizer.load(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    try:
        tokenizer.encoding("Hello wörld <s>", "x", allow_special=True)
        tokenizer.decode([0, tokenizer.vocab_size - 1])
    except ValueError:  # the vocabulary has no tokens for this text
        pass
