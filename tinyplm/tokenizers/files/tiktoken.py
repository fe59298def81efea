"""Vocabularies in tiktoken's format, read for Qwen 1 (qwen.tiktoken) and GLM-4 (tokenizer.model).

Each line has the bytes of one token in base64 and its rank, which is also its id:

    IQ== 0
    Ig== 1

Among the adjacent tokens whose concatenation is a token, the pair with the lowest rank is joined,
leftmost first.  With -rank as the score that is SentencePiece's rule, and its conversion to merges
holds here (models/sentencepiece_bpe.py).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...arguments import wrong
from ...files import printable, read_text
from ..models.bpe import BPE
from ..models.sentencepiece_bpe import merges_from_scores
from ..text import decoding, normalization, pretokenization
from ..text.added_tokens import AddedToken
from ..text.bytelevel import BYTE_TO_CHAR, bytes_to_chars
from ..text.patterns import QWEN2_PATTERN
from ..text.postprocessing import ByteLevel

TIKTOKEN_FILE = "qwen.tiktoken"
# Ids follow those of the vocabulary.  The authors' code has these tokens, no file does.
QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{n}|>" for n in range(205)),
)


def read_ranks(path: Path) -> dict[str, int]:
    """{token in the printable form of its bytes: rank}.

    ValueError naming the line for anything but the next rank, from 0, and a new token; or without a
    token for each byte.
    """
    ranks: dict[str, int] = {}
    for number, line in enumerate(filter(None, read_text(path).splitlines())):
        where = f"{printable(path)}, line {number + 1}"
        token, _, rank = line.partition(" ")
        try:
            content = base64.b64decode(token, validate=True)
        except binascii.Error:
            raise wrong(where, "a token in base64 and its rank", line) from None
        if not content or rank != str(number):
            raise wrong(where, f"a token in base64 and its rank, {number}", line)
        if ranks.setdefault(bytes_to_chars(content), number) != number:
            raise wrong(where, "a token that is not in the file yet", line)
    if missing := [byte for byte, char in enumerate(BYTE_TO_CHAR) if char not in ranks]:
        raise wrong(printable(path), "a token for each byte", f"none for byte {missing[0]}")
    return ranks


def byte_level_bpe(ranks: dict[str, int]) -> BPE:
    """The model with these ranks as ids.

    A word that is a token is that token, even if joining pairs never forms it.
    """
    merges = merges_from_scores([(token, float(-rank), "normal") for token, rank in ranks.items()])
    return BPE(ranks, merges, ignore_merges=len(merges) < len(ranks) - len(BYTE_TO_CHAR))


def qwen(files: dict[str, Any], settings: Any) -> dict[str, Any]:
    """Byte-level BPE after NFC, with Qwen2's pattern and 208 special tokens of its own."""
    ranks = files["ranks"]
    split = pretokenization.Split({"Regex": QWEN2_PATTERN}, "Isolated")
    byte_level = pretokenization.ByteLevel(False, use_regex=False)
    special = enumerate(QWEN_SPECIAL, start=len(ranks))
    return {
        "model": byte_level_bpe(ranks),
        "normalizer": normalization.NFC(),
        "pre_tokenizer": pretokenization.Sequence((split, byte_level)),
        "decoder": decoding.ByteLevel(False),
        "post_processor": ByteLevel(False, trim_offsets=False),
        "added_tokens": [AddedToken(token, id) for id, token in special],
        "named": dict.fromkeys(("eos_token", "pad_token"), "<|endoftext|>"),
    }


TIKTOKEN: dict[str, Callable[[dict[str, Any], Any], dict[str, Any]]] = {"QWenTokenizer": qwen}
