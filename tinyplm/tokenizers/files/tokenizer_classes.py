"""Folders without a tokenizer.json: vocabularies, and a class that says what goes around them.

A vocabulary file lists tokens.  How text is normalised and cut, and what is put around it, was in the code of a class, which
tokenizer_config.json names; that knowledge is here.  A class that is not here is refused by name: the same files are read in
another way by another class, and wrong ids are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...arguments import shown
from ...files import named as printed
from ...files import read_bytes, read_json, read_text
from ..models.bpe import BPE
from ..models.unigram import Unigram
from ..models.wordpiece import WordPiece
from ..text import decoding, normalization, pretokenization
from ..text.added_tokens import AddedToken
from ..text.patterns import QWEN2_PATTERN
from ..text.postprocessing import ByteLevel, RobertaProcessing, TemplateProcessing
from ..vocabulary import MAX_SYMBOLS
from .sentencepiece import read_model
from .settings import Settings, named_tokens, text_of_token

Parts = dict[str, Any]

SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def from_vocabularies(folder: Path, settings: Settings) -> Parts:
    """The arguments of Tokenizer.  settings: of settings.py.

    FileNotFoundError without a vocabulary, ValueError for a class that is not supported.
    """
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    if models := [folder / file for file in SENTENCEPIECE_FILES if (folder / file).exists()]:
        classes, source = _SENTENCEPIECE, models[0]
        parts = sentencepiece_parts(source)
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        classes, source = _MERGES, folder / "vocab.json"
        parts = {"vocab": _vocabulary(source), "merges": _merges(folder / "merges.txt")}
    elif (folder / "vocab.txt").exists():
        classes, source = _WORDPIECE, folder / "vocab.txt"
        parts = {"vocab": _lines(source)}
    else:
        raise FileNotFoundError(
            f"{printed(folder)} has neither tokenizer.json nor vocab.json and merges.txt, vocab.txt or tokenizer.model"
        )
    if name not in classes:
        raise ValueError(
            f"{printed(source)}: tokenizer_class {shown(name)} is not supported here; "
            f"supported are {', '.join(filter(None, classes))}"
        )
    try:
        parts = classes[name](parts, settings)
        added = _added(folder, parts, settings)
    except ValueError as error:
        raise ValueError(f"{printed(source)}: {error}") from None
    known = {*parts["model"].vocab, *(token.content for token in added)}
    named = {
        name: token
        for name, token in (parts["named"] | named_tokens(settings)).items()
        if token in known
    }
    return parts | {"added_tokens": added, "named": named}


def sentencepiece_parts(path: Path) -> Parts:
    """The arguments of Tokenizer for a .model alone."""
    model = read_model(read_bytes(path), printed(path))
    try:
        return model.parts()
    except ValueError as error:  # scores that are no order of merges
        raise ValueError(f"{printed(path)}: {error}") from None


def _gpt2(files: Parts, settings: Settings) -> Parts:
    """Nothing around the text, unless the settings ask for it (OPT: bos before it)."""
    prefix = _flag(settings, "add_prefix_space")
    parts = _byte_level(BPE(files["vocab"], files["merges"]), prefix) | {
        "post_processor": ByteLevel(prefix)
    }
    return _with_ends(parts, settings, add_bos=False)


def _roberta(files: Parts, settings: Settings) -> Parts:
    """Also BART's.  <s> A </s>, and the mask takes the space before it along."""
    prefix, vocab = _flag(settings, "add_prefix_space"), files["vocab"]
    named = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": "<mask>",
    }
    sep, cls = (_known(vocab, settings, name, named[name]) for name in ("sep_token", "cls_token"))
    return _byte_level(BPE(vocab, files["merges"]), prefix) | {
        "post_processor": RobertaProcessing(sep, cls, add_prefix_space=prefix),
        "added_tokens": _mask(vocab, settings, "<mask>"),
        "named": named,
    }


def _qwen2(files: Parts, settings: Settings) -> Parts:
    parts = _byte_level(BPE(files["vocab"], files["merges"]), False)
    split = pretokenization.Split({"Regex": QWEN2_PATTERN}, "Isolated")
    return parts | {
        "normalizer": normalization.NFC(),
        "pre_tokenizer": pretokenization.Sequence(
            (split, pretokenization.ByteLevel(False, use_regex=False))
        ),
        "post_processor": ByteLevel(False, trim_offsets=False),
        "named": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    }


def _gpt(files: Parts, settings: Settings) -> Parts:
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
    vocab = files["vocab"]
    named = {
        name: f"[{name[:-6].upper()}]"
        for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    }
    sep, cls = (_known(vocab, settings, name, named[name]) for name in ("sep_token", "cls_token"))
    accents = (
        _flag(settings, "strip_accents") if "strip_accents" in settings else None
    )  # none: as lowercase says
    lowercase, chinese = (
        _flag(settings, "do_lower_case", True),
        _flag(settings, "tokenize_chinese_chars", True),
    )
    return {
        "model": WordPiece(vocab, _known(vocab, settings, "unk_token", "[UNK]")[0]),
        "normalizer": normalization.BertNormalizer(True, chinese, accents, lowercase),
        "pre_tokenizer": pretokenization.BertPreTokenizer(),
        "decoder": decoding.WordPiece(),
        "post_processor": TemplateProcessing.of(
            f"{cls[0]} $A {sep[0]}", f"{cls[0]} $A {sep[0]} $B:1 {sep[0]}:1", dict([cls, sep])
        ),
        "named": named,
    }


def _sentencepiece(parts: Parts, settings: Settings) -> Parts:
    """Nothing but the model, as the library `sentencepiece` has it, unless the settings ask for bos or eos."""
    return _with_ends(parts, settings, add_bos=False)


def _llama(parts: Parts, settings: Settings) -> Parts:
    """bos before the text.  ▁ stands in front of the whole text only, and not after a special token (legacy: there, too)."""
    if not _flag(settings, "add_prefix_space", True):
        raise ValueError("add_prefix_space = false is not supported")
    scheme = "always" if _flag(settings, "legacy") else "first"
    spaces = {
        "normalizer": None,
        "pre_tokenizer": pretokenization.Metaspace("▁", scheme, split=False),
    }
    return _with_ends(parts | spaces, settings, add_bos=True)


def _t5(parts: Parts, settings: Settings) -> Parts:
    """</s> after each text; the sentinels <extra_id_0>, <extra_id_1> ... have the last ids, in falling order."""
    count = settings.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= MAX_SYMBOLS:
        raise ValueError(f"extra_ids must be a number from 0 to {MAX_SYMBOLS}, got {shown(count)}")
    size = len(parts["model"].vocab)
    sentinels = [AddedToken(f"<extra_id_{k}>", size + count - 1 - k) for k in range(count)]
    named = parts["named"] | {"pad_token": "<pad>"}
    template = TemplateProcessing.of(
        "$A </s>", "$A </s> $B </s>", dict([_known(parts["model"].vocab, {}, "eos_token", "</s>")])
    )
    return parts | {
        "post_processor": template,
        "added_tokens": parts["added_tokens"] + sentinels,
        "named": named,
    }


def _albert(parts: Parts, settings: Settings) -> Parts:
    named = {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "<unk>",
        "sep_token": "[SEP]",
        "pad_token": "<pad>",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    vocab = parts["model"].vocab
    special = dict(
        _known(vocab, settings, name, named[name]) for name in ("cls_token", "sep_token")
    )
    cls, sep = special
    template = TemplateProcessing.of(f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1", special)
    added = parts["added_tokens"] + _mask(vocab, settings, "[MASK]")
    return _tidied(parts, settings, lower=True) | {
        "post_processor": template,
        "added_tokens": added,
        "named": named,
    }


def _xlnet(parts: Parts, settings: Settings) -> Parts:
    """<sep> <cls> at the end, and the class token is of a segment of its own, 2."""
    named = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "<sep>",
        "pad_token": "<pad>",
        "cls_token": "<cls>",
        "mask_token": "<mask>",
    }
    vocab = parts["model"].vocab
    special = dict(
        _known(vocab, settings, name, named[name]) for name in ("sep_token", "cls_token")
    )
    sep, cls = special
    template = TemplateProcessing.of(f"$A {sep} {cls}:2", f"$A {sep} $B:1 {sep}:1 {cls}:2", special)
    added = parts["added_tokens"] + _mask(vocab, settings, "<mask>")
    return _tidied(parts, settings, lower=False) | {
        "post_processor": template,
        "added_tokens": added,
        "named": named,
    }


def _tidied(parts: Parts, settings: Settings, lower: bool) -> Parts:
    """What ALBERT and XLNet do around SentencePiece: `` and '' become ", accents go, letters become small ones.

    Their authors cut the comma off a piece like "9," afterwards.  To the same end such pieces lose 100 here, so that they are not
    taken where others are there; so do the files that are published for the library `tokenizers`.
    """
    if not isinstance(model := parts["model"], Unigram):
        raise ValueError("a BPE model is not supported for this class")
    pieces = tuple(
        (piece, score - 100 if _number_comma(piece) else score) for piece, score in model.pieces
    )
    steps: list[Any] = [normalization.Replace({"String": quotes}, '"') for quotes in ("``", "''")]
    if not _flag(settings, "keep_accents"):
        steps += [normalization.NFKD(), normalization.StripAccents()]
    if _flag(settings, "do_lower_case", lower):
        steps.append(normalization.Lowercase())
    normalizer = normalization.Sequence((*steps, *parts["normalizer"].normalizers))
    return parts | {"normalizer": normalizer, "model": replace(model, pieces=pieces)}


def _number_comma(piece: str) -> bool:
    return piece.endswith(",") and piece[-2:-1].isdigit()


def _with_ends(parts: Parts, settings: Settings, add_bos: bool) -> Parts:
    vocab = parts["model"].vocab
    named = {"bos_token": "<s>", "eos_token": "</s>"} | parts["named"]
    before = (
        [_known(vocab, settings, "bos_token", named["bos_token"])]
        if _flag(settings, "add_bos_token", add_bos)
        else []
    )
    after = (
        [_known(vocab, settings, "eos_token", named["eos_token"])]
        if _flag(settings, "add_eos_token")
        else []
    )
    if not before and not after:
        return parts

    def around(text: str, type_id: int) -> str:
        return " ".join(
            [
                *(f"{token}:{type_id}" for token, _ in before),
                text,
                *(f"{token}:{type_id}" for token, _ in after),
            ]
        )

    template = TemplateProcessing.of(
        around("$A", 0), f"{around('$A', 0)} {around('$B:1', 1)}", dict(before + after)
    )
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
    "T5Tokenizer": _t5,
    "AlbertTokenizer": _albert,
    "XLNetTokenizer": _xlnet,
}


def _flag(settings: Settings, name: str, default: bool = False) -> bool:
    if not isinstance(value := settings.get(name, default), bool):
        raise ValueError(f"{name} must be true or false, got {shown(value)}")
    return value


def _known(
    vocab: Mapping[str, int], settings: Settings, name: str, default: str
) -> tuple[str, int]:
    token = text_of_token(settings.get(name, default))
    if token not in vocab:
        raise ValueError(
            f"the {name} {shown(settings.get(name, default))} is not in the vocabulary"
        )
    return token, vocab[token]


def _mask(vocab: Mapping[str, int], settings: Settings, default: str) -> list[AddedToken]:
    """The mask, which takes the space before it along, as the word in its place would have it."""
    mask = text_of_token(settings.get("mask_token", default))
    return [AddedToken(mask, vocab[mask], lstrip=True)] if mask in vocab else []


def _special(settings: Settings) -> list[str]:
    """The special tokens that the settings name."""
    texts = [*named_tokens(settings).values()]
    for key in (
        "additional_special_tokens",
        "extra_special_tokens",
    ):  # two names of one thing, the latter the new one
        tokens = settings.get(key, [])
        if not isinstance(tokens, (list, Mapping)) or not all(
            isinstance(text_of_token(token), str) for token in tokens
        ):
            raise ValueError(f"{key} must be a list of tokens, got {shown(tokens)}")
        texts += [text_of_token(token) for token in tokens] if isinstance(tokens, list) else []
    return [*dict.fromkeys(filter(None, texts))]


def _added(folder: Path, parts: Parts, settings: Settings) -> list[AddedToken]:
    """What is matched as a whole: added_tokens.json, added_tokens_decoder of the settings, and the tokens with names.

    A token that the settings name and no vocabulary has gets the next id, as in transformers.
    """
    vocab = parts["model"].vocab
    found = {token.content: token for token in parts.get("added_tokens", [])}
    default, named = [*parts["named"].values()], _special(settings)
    special = {*default, *named}
    if (path := folder / "added_tokens.json").exists():
        for content, id in _vocabulary(path).items():
            found[content] = AddedToken.from_json(
                {
                    "content": content,
                    "id": id,
                    "special": content in special,
                    "normalized": content not in special,
                },
                printed(path),
            )
    decoder = settings.get("added_tokens_decoder", {})
    if not isinstance(decoder, Mapping):
        raise ValueError(f"added_tokens_decoder must be an object, got {shown(decoder)}")
    for id, token in decoder.items():
        if not id.isdecimal() or len(id) > 9 or not isinstance(token, Mapping):
            raise ValueError(
                f"added_tokens_decoder must give a token for each id, got {shown(id)}: {shown(token)}"
            )
        read = _token({"special": False} | dict(token) | {"id": int(id)}, "added_tokens_decoder")
        found[read.content] = read
    flags = {"special": True, "normalized": False}
    given = {
        text_of_token(value): value
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, Mapping)
    }
    size = 1 + max((*vocab.values(), *(token.id for token in found.values())), default=-1)
    for content in [*named, *default]:
        if (content not in found or content in given) and (content in vocab or content in named):
            id = found[content].id if content in found else vocab.get(content, size)
            size += id == size
            token = flags | dict(given.get(content, {})) | {"content": content, "id": id}
            found[content] = _token(token, "the settings:")
    return list(found.values())


def _token(content: Settings, where: str) -> AddedToken:
    """transformers 4 marks such objects with "__type": "AddedToken"."""
    return AddedToken.from_json(
        {key: value for key, value in content.items() if key != "__type"}, where
    )


def _vocabulary(path: Path) -> dict[str, int]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{printed(path)}: an object of tokens and ids is expected, got {shown(content)}"
        )
    return content


def _merges(path: Path) -> list[tuple[str, str]]:
    """One merge a line, "a b"; the first line may say the version."""
    merges = []
    for number, line in enumerate(read_text(path).split("\n")):
        if line.strip() and not (number == 0 and line.startswith("#version")):
            parts = line.rstrip("\r").split(" ")
            if len(parts) != 2 or not all(parts):
                raise ValueError(
                    f"{printed(path)}, line {number + 1}: a pair of tokens is expected, got {shown(line)}"
                )
            merges.append((parts[0], parts[1]))
    return merges


def _lines(path: Path) -> dict[str, int]:
    """One token a line; the number of the line, from 0 on, is its id."""
    vocab: dict[str, int] = {}
    for id, token in enumerate(read_text(path).rstrip("\n").split("\n")):
        token = token.rstrip("\r")
        if vocab.setdefault(token, id) != id:
            raise ValueError(
                f"{printed(path)}, line {id + 1}: the token {shown(token)} occurs twice, first in line {vocab[token] + 1}"
            )
    return vocab
