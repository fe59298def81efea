"""Folders without a tokenizer.json: a vocabulary, and the name of a tokenizer class that implies
everything else.

A vocabulary file lists tokens.  How text is normalized and cut, and which tokens surround it, was
in the code of the class that tokenizer_config.json names; that knowledge is here.  Unknown classes
are refused by name: each class reads the same files differently, and wrong ids are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...arguments import wrong
from ...files import printable, read_bytes
from ..component import Normalizer
from ..models.bpe import BPE
from ..models.unigram import Unigram
from ..models.wordpiece import WordPiece
from ..text import decoding, normalization, pretokenization
from ..text.added_tokens import AddedToken
from ..text.patterns import QWEN2_PATTERN
from ..text.postprocessing import ByteLevel, RobertaProcessing, TemplateProcessing
from ..vocabulary import MAX_SYMBOLS
from . import chatglm
from .added import added_of_folder
from .sentencepiece import read_model
from .settings import Settings, named_tokens, text_of_token
from .tiktoken import TIKTOKEN, TIKTOKEN_FILE, read_ranks
from .vocabularies import read_lines, read_merges, read_vocabulary

Parts = dict[str, Any]

SENTENCEPIECE_FILES = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
    "ice_text.model",
)


def from_vocabularies(folder: Path, settings: Settings) -> Parts:
    """The arguments of Tokenizer.  settings: see settings.py.

    FileNotFoundError without a vocabulary, ValueError for an unsupported class.
    """
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    models = [folder / file for file in SENTENCEPIECE_FILES if (folder / file).exists()]
    parts: Parts
    if models and name in _RANKS:
        classes, source = _RANKS, models[0]
        parts = {"ranks": read_ranks(source)}
    elif models:
        classes, source = _SENTENCEPIECE, models[0]
        parts = sentencepiece_parts(source)
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        classes, source = _MERGES, folder / "vocab.json"
        parts = {"vocab": read_vocabulary(source), "merges": read_merges(folder / "merges.txt")}
    elif (folder / "vocab.txt").exists():
        classes, source = _WORDPIECE, folder / "vocab.txt"
        parts = {"vocab": read_lines(source)}
    elif (folder / TIKTOKEN_FILE).exists():
        classes, source = TIKTOKEN, folder / TIKTOKEN_FILE
        parts = {"ranks": read_ranks(source)}
    else:
        raise FileNotFoundError(
            f"{printable(folder)}: expected tokenizer.json, tokenizer.model, vocab.txt, "
            f"{TIKTOKEN_FILE}, or vocab.json with merges.txt, got none of them"
        )
    if name not in classes:
        expected = f"one of {', '.join(filter(None, classes))}"
        raise wrong(f"{printable(source)}: tokenizer_class", expected, name)
    try:
        parts = classes[name](parts, settings)
        added = added_of_folder(folder, parts, settings)
    except ValueError as error:
        raise ValueError(f"{printable(source)}: {error}") from None
    if isinstance(model := parts["model"], BPE):
        parts = parts | {"model": model.renamed({token.id: token.content for token in added})}
    known = {*parts["model"].vocab, *(token.content for token in added)}
    candidates = parts["named"] | named_tokens(settings)
    named = {name: token for name, token in candidates.items() if token in known}
    return parts | {"added_tokens": added, "named": named}


def sentencepiece_parts(path: Path) -> Parts:
    """The arguments of Tokenizer for a single .model."""
    model = read_model(read_bytes(path), printable(path))
    try:
        return model.parts()
    except ValueError as error:  # such as scores that do not order the merges
        raise ValueError(f"{printable(path)}: {error}") from None


def _gpt2(files: Parts, settings: Settings) -> Parts:
    """No special tokens around a text, unless the settings add them (OPT: bos at the start)."""
    if "a</w>" in files["vocab"]:  # GPT-1's and CLIP's, which would give other ids
        expected = "the class of a vocabulary with </w>, such as OpenAIGPTTokenizer"
        raise wrong("tokenizer_class", expected, settings.get("tokenizer_class"))
    prefix = _flag(settings, "add_prefix_space")
    parts = _byte_level(BPE(files["vocab"], files["merges"]), prefix)
    return _with_ends(parts | {"post_processor": ByteLevel(prefix)}, settings, add_bos=False)


def _roberta(files: Parts, settings: Settings) -> Parts:
    """Also BART: <s> A </s>, and the mask includes the space before it."""
    prefix, vocab = _flag(settings, "add_prefix_space"), files["vocab"]
    named = _roles("<s> </s> <unk> </s> <pad> <s> <mask>")
    sep, cls = _known(vocab, settings, named, "sep_token", "cls_token")
    return _byte_level(BPE(vocab, files["merges"]), prefix) | {
        "post_processor": RobertaProcessing(sep, cls, add_prefix_space=prefix),
        "added_tokens": _mask(vocab, settings, "<mask>"),
        "named": named,
    }


def _qwen2(files: Parts, settings: Settings) -> Parts:
    """Byte-level BPE after NFC, with its own pattern."""
    parts = _byte_level(BPE(files["vocab"], files["merges"]), False)
    split = pretokenization.Split({"Regex": QWEN2_PATTERN}, "Isolated")
    byte_level = pretokenization.ByteLevel(False, use_regex=False)
    return parts | {
        "normalizer": normalization.NFC(),
        "pre_tokenizer": pretokenization.Sequence((split, byte_level)),
        "post_processor": ByteLevel(False, trim_offsets=False),
        "named": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    }


def _gpt(files: Parts, settings: Settings) -> Parts:
    """BPE over characters, lowercased."""
    return {
        "model": BPE(files["vocab"], files["merges"], "<unk>", end_of_word_suffix="</w>"),
        "normalizer": normalization.BertNormalizer(lowercase=True),
        "pre_tokenizer": pretokenization.BertPreTokenizer(),
        "decoder": decoding.BPEDecoder("</w>"),
        "named": {"unk_token": "<unk>"},
    }


def _byte_level(model: BPE, prefix: bool) -> Parts:
    return {
        "model": model,
        "pre_tokenizer": pretokenization.ByteLevel(prefix),
        "decoder": decoding.ByteLevel(prefix),
        "named": dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    }


def _bert(files: Parts, settings: Settings) -> Parts:
    """[CLS] A [SEP] B [SEP]"""
    vocab = files["vocab"]
    named = {
        name: f"[{name[:-6].upper()}]"
        for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    }
    (unk, _), sep, cls = _known(vocab, settings, named, "unk_token", "sep_token", "cls_token")
    # None: the same as lowercase.
    accents = _flag(settings, "strip_accents") if "strip_accents" in settings else None
    chinese = _flag(settings, "tokenize_chinese_chars", True)
    lowercase = _flag(settings, "do_lower_case", True)
    return {
        "model": WordPiece(vocab, unk),
        "normalizer": normalization.BertNormalizer(True, chinese, accents, lowercase),
        "pre_tokenizer": pretokenization.BertPreTokenizer(),
        "decoder": decoding.WordPiece(),
        "post_processor": _cls_sep(cls, sep),
        "named": named,
    }


def _sentencepiece(parts: Parts, settings: Settings) -> Parts:
    """The model alone, as in the library `sentencepiece`, unless the settings add bos or eos."""
    return _with_ends(parts, settings, add_bos=False)


def _bos_and_model(parts: Parts, settings: Settings) -> Parts:
    """InternLM, Baichuan, Gemma: the model alone, with bos at the start unless the settings say
    otherwise."""
    return _with_ends(parts, settings, add_bos=True)


def _llama(parts: Parts, settings: Settings) -> Parts:
    """bos at the start; ▁ only at the start of the whole text, or with `legacy` also after special
    tokens."""
    if not _flag(settings, "add_prefix_space", True):
        raise ValueError("add_prefix_space: expected true, got false, which is not supported")
    scheme = "always" if _flag(settings, "legacy") else "first"
    metaspace = pretokenization.Metaspace("▁", scheme, split=False)
    spaces = {"normalizer": None, "pre_tokenizer": metaspace}
    return _with_ends(parts | spaces, settings, add_bos=True)


def _t5(parts: Parts, settings: Settings) -> Parts:
    """</s> after each text; the sentinels <extra_id_0>, <extra_id_1> ... have the last ids,
    descending."""
    count = settings.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= MAX_SYMBOLS:
        raise wrong("extra_ids", f"an integer from 0 to {MAX_SYMBOLS}", count)
    vocab = parts["model"].vocab
    sentinels = [AddedToken(f"<extra_id_{k}>", len(vocab) + count - 1 - k) for k in range(count)]
    eos = _known(vocab, {}, {"eos_token": "</s>"}, "eos_token")
    return parts | {
        "post_processor": TemplateProcessing.of("$A </s>", "$A </s> $B </s>", dict(eos)),
        "added_tokens": parts["added_tokens"] + sentinels,
        "named": parts["named"] | {"pad_token": "<pad>"},
    }


def _albert(parts: Parts, settings: Settings) -> Parts:
    """[CLS] A [SEP] B [SEP]"""
    vocab = parts["model"].vocab
    named = _roles("[CLS] [SEP] <unk> [SEP] <pad> [CLS] [MASK]")
    cls, sep = _known(vocab, settings, named, "cls_token", "sep_token")
    return _tidied(parts, settings, lower=True) | {
        "post_processor": _cls_sep(cls, sep),
        "added_tokens": parts["added_tokens"] + _mask(vocab, settings, "[MASK]"),
        "named": named,
    }


def _xlnet(parts: Parts, settings: Settings) -> Parts:
    """A <sep> B <sep> <cls>; the class token has its own segment, 2."""
    vocab = parts["model"].vocab
    named = _roles("<s> </s> <unk> <sep> <pad> <cls> <mask>")
    (sep, sep_id), (cls, cls_id) = _known(vocab, settings, named, "sep_token", "cls_token")
    single, pair = f"$A {sep} {cls}:2", f"$A {sep} $B:1 {sep}:1 {cls}:2"
    return _tidied(parts, settings, lower=False) | {
        "post_processor": TemplateProcessing.of(single, pair, {sep: sep_id, cls: cls_id}),
        "added_tokens": parts["added_tokens"] + _mask(vocab, settings, "<mask>"),
        "named": named,
    }


def _roles(tokens: str) -> dict[str, str]:
    """Names for the tokens bos, eos, unk, sep, pad, cls and mask, in this order."""
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    return {f"{name}_token": token for name, token in zip(names, tokens.split())}


def _cls_sep(cls: tuple[str, int], sep: tuple[str, int]) -> TemplateProcessing:
    single = f"{cls[0]} $A {sep[0]}"
    return TemplateProcessing.of(single, f"{single} $B:1 {sep[0]}:1", dict([cls, sep]))


def _tidied(parts: Parts, settings: Settings, lower: bool) -> Parts:
    """The additions of ALBERT and XLNet: `` and '' become ", accents are dropped, letters are
    lowercased.

    Their authors split the comma off pieces like "9," afterwards.  To the same end, the scores of
    such pieces are reduced by 100 here, so that they lose to any alternative; so are those in the
    files published for the library `tokenizers`.
    """
    if not isinstance(model := parts["model"], Unigram):
        raise ValueError("model: expected a Unigram model for this class, got BPE")
    pieces = tuple(
        (piece, score - 100 if _number_comma(piece) else score) for piece, score in model.pieces
    )
    quotes = ("``", "''")
    steps: list[Normalizer] = [normalization.Replace({"String": pair}, '"') for pair in quotes]
    if not _flag(settings, "keep_accents"):
        steps += [normalization.NFKD(), normalization.StripAccents()]
    if _flag(settings, "do_lower_case", lower):
        steps.append(normalization.Lowercase())
    normalizer = normalization.Sequence((*steps, *parts["normalizer"].normalizers))
    return parts | {"normalizer": normalizer, "model": replace(model, pieces=pieces)}


def _number_comma(piece: str) -> bool:
    return piece.endswith(",") and piece[-2:-1].isdigit()


def _with_ends(parts: Parts, settings: Settings, add_bos: bool) -> Parts:
    """Adds bos and eos to each text where the settings say so; add_bos: the default for bos."""
    vocab = parts["model"].vocab
    named = {"bos_token": "<s>", "eos_token": "</s>"} | parts["named"]
    bos = ["bos_token"] if _flag(settings, "add_bos_token", add_bos) else []
    eos = ["eos_token"] if _flag(settings, "add_eos_token") else []
    if not bos and not eos:
        return parts
    before, after = _known(vocab, settings, named, *bos), _known(vocab, settings, named, *eos)

    def around(text: str, type_id: int) -> str:
        first, last = ([f"{token}:{type_id}" for token, _ in ends] for ends in (before, after))
        return " ".join([*first, text, *last])

    single = around("$A", 0)
    template = TemplateProcessing.of(single, f"{single} {around('$B:1', 1)}", dict(before + after))
    return parts | {"post_processor": template}


_MERGES: dict[str, Callable[[Parts, Settings], Parts]] = {
    "": _gpt2,
    "GPT2Tokenizer": _gpt2,
    "RobertaTokenizer": _roberta,
    "BartTokenizer": _roberta,
    "Qwen2Tokenizer": _qwen2,
    "OpenAIGPTTokenizer": _gpt,
}
_WORDPIECE: dict[str, Callable[[Parts, Settings], Parts]] = {
    "": _bert,
    "BertTokenizer": _bert,
    "DistilBertTokenizer": _bert,
}
_SENTENCEPIECE: dict[str, Callable[[Parts, Settings], Parts]] = {
    "": _sentencepiece,
    "LlamaTokenizer": _llama,
    **dict.fromkeys(("T5Tokenizer", "MT5Tokenizer"), _t5),
    "AlbertTokenizer": _albert,
    "XLNetTokenizer": _xlnet,
    **dict.fromkeys(("InternLMTokenizer", "InternLM2Tokenizer"), _bos_and_model),
    **dict.fromkeys(("BaiChuanTokenizer", "BaichuanTokenizer"), _bos_and_model),
    "GemmaTokenizer": _bos_and_model,
    "ChatGLMTokenizer": chatglm.chatglm,
}
# classes whose tokenizer.model is no SentencePiece model, but tokens with ranks
_RANKS: dict[str, Callable[[Parts, Settings], Parts]] = {"ChatGLM4Tokenizer": chatglm.chatglm4}


def _flag(settings: Settings, name: str, default: bool = False) -> bool:
    if not isinstance(value := settings.get(name, default), bool):
        raise wrong(name, "true or false", value)
    return value


def _known(
    vocab: Mapping[str, int], settings: Settings, defaults: Mapping[str, str], *names: str
) -> list[tuple[str, int]]:
    """(token, id) for each name, from the settings or the defaults.  ValueError if it is not in the
    vocabulary."""
    known = []
    for name in names:
        given = settings.get(name, defaults[name])
        if (token := text_of_token(given)) is None or token not in vocab:
            raise wrong(name, "a token of the vocabulary", given)
        known.append((token, vocab[token]))
    return known


def _mask(vocab: Mapping[str, int], settings: Settings, default: str) -> list[AddedToken]:
    """The mask token, which includes the space before it, like the word that it replaces."""
    mask = text_of_token(settings.get("mask_token", default))
    if mask is None or mask not in vocab:
        return []
    return [AddedToken(mask, vocab[mask], lstrip=True)]
