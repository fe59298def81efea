"""The tokenizers of ChatGLM, ChatGLM2 and 3, and of GLM-4 in its authors' files: what the code of
their classes adds to a vocabulary.

ChatGLM      ice_text.model (SentencePiece)    A [gMASK] <sop>    lines, tabs and runs of spaces are
                                                                  tokens
ChatGLM2, 3  tokenizer.model (SentencePiece)   [gMASK] sop A      the special tokens follow its ids
GLM-4        tokenizer.model (tiktoken.py)     [gMASK] <sop> A    special tokens by the settings

CodeGeeX2 has ChatGLM2's.  ChatGLM2's code lacks ChatGLM3's four roles, the last of the special
tokens; the vocabulary of its files is the same, and its table has rows for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...arguments import wrong
from ..component import Normalizer
from ..text import decoding, normalization, pretokenization
from ..text.added_tokens import AddedToken
from ..text.patterns import CL100K_PATTERN
from ..text.postprocessing import TemplateProcessing
from .tiktoken import byte_level_bpe

_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", *_ROLES)
_LONGEST_BLANK = 80
_IMAGE_TOKENS = 20_000  # ChatGLM's, where the settings have no number

Parts = dict[str, Any]
Settings = Mapping[str, Any]


def chatglm(parts: Parts, settings: Settings) -> Parts:
    """ChatGLM's, whose vocabulary has [gMASK], or that of ChatGLM2 and 3."""
    return _first(parts, settings) if "[gMASK]" in parts["model"].vocab else _later(parts)


def _later(parts: Parts) -> Parts:
    """sop and eop count as tokens only where they are words: "people" has no eop."""
    first = len(parts["model"].vocab)
    special = [
        AddedToken(token, id, single_word=token in ("sop", "eop"))
        for id, token in enumerate(_SPECIAL, start=first)
    ]
    ids = {token.content: token.id for token in special}
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}
    return parts | {
        "post_processor": _before("sop", ids, parts["model"].vocab.get("</s>"), "</s>"),
        "added_tokens": parts["added_tokens"] + special,
        "named": parts["named"] | named,
    }


def _before(sop: str, ids: Mapping[str, int], eos: int | None, end: str) -> TemplateProcessing:
    """[gMASK] sop A, or [gMASK] sop A B eos."""
    if eos is None:
        raise wrong("eos_token", f"{end} in the vocabulary", None)
    known = {token: ids[token] for token in ("[gMASK]", sop)} | {end: eos}
    single = f"[gMASK] {sop} $A"
    return TemplateProcessing.of(single, f"{single} $B {end}", known)


def _first(parts: Parts, settings: Settings) -> Parts:
    images = settings.get("num_image_tokens", _IMAGE_TOKENS)
    if images != 0:  # of the early files, whose ids of text follow those of images
        raise wrong("num_image_tokens", "0, as in the files with 130528 tokens", images)
    for name in ("remove_space", "do_lower_case"):
        if settings.get(name, False) is not False:
            raise wrong(name, "false", settings[name])
    written = {"\n": "<n>", "\t": "<|tab|>"}
    written |= {" " * n: f"<|blank_{n}|>" for n in range(_LONGEST_BLANK, 1, -1)}
    vocab = parts["model"].vocab
    for token in (*written.values(), "<sop>", "<eop>"):
        if token not in vocab:
            raise wrong("vocabulary", f"ChatGLM's, with {token}", None)
    before: list[Normalizer] = [
        normalization.Replace({"String": text}, token) for text, token in written.items()
    ]
    after = [decoding.Replace({"String": token}, text) for text, token in written.items()]
    known = {token: vocab[token] for token in ("[gMASK]", "<sop>", "<eop>")}
    single = "$A [gMASK] <sop>"
    names = {"bos_token": "<sop>", "eos_token": "<eop>", "pad_token": "<pad>"}
    return parts | {
        "normalizer": normalization.Sequence((*before, *parts["normalizer"].normalizers)),
        "decoder": decoding.Sequence((*parts["decoder"].decoders, *after)),
        "post_processor": TemplateProcessing.of(single, f"{single} $B <eop>", known),
        "named": parts["named"] | names | {"mask_token": "[MASK]"},
    }


def chatglm4(files: Parts, settings: Settings) -> Parts:
    """GLM-4's: byte-level BPE with the pattern of cl100k; added_tokens_decoder has the special
    tokens."""
    decoder = settings.get("added_tokens_decoder", {})
    listed = decoder.items() if isinstance(decoder, Mapping) else ()
    ids = {
        str(token.get("content")): int(id)
        for id, token in listed
        if isinstance(token, Mapping) and id.isdecimal() and len(id) < 10
    }
    for token in ("[gMASK]", "<sop>", "<|endoftext|>"):
        if token not in ids:
            raise wrong("added_tokens_decoder", f"GLM-4's special tokens, {token} among them", ids)
    split = pretokenization.Split({"Regex": CL100K_PATTERN}, "Isolated")
    byte_level = pretokenization.ByteLevel(False, use_regex=False)
    end = "<|endoftext|>"
    return {
        "model": byte_level_bpe(files["ranks"]),
        "pre_tokenizer": pretokenization.Sequence((split, byte_level)),
        "decoder": decoding.ByteLevel(False),
        "post_processor": _before("<sop>", ids, ids[end], end),
        "named": dict.fromkeys(("eos_token", "pad_token"), end),
    }
