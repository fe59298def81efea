"""Folders without a tokenizer.json: vocabularies, and a class that says what goes around them.

A vocabulary file lists tokens.  How text is normalised and cut, and what is put around it, was in the code of a class, which
tokenizer_config.json names; that knowledge is here.  A class that is not here is refused by name: the same files are read in
another way by another class, and wrong ids are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import decoding, normalization, pretokenization
from .added import AddedToken
from .bpe_model import BPE
from .json_file import load_json
from .patterns import QWEN2_PATTERN
from .sentencepiece import read_model
from .templates import ByteLevel, RobertaProcessing, TemplateProcessing
from .wordpiece import WordPiece

Settings = Mapping[str, Any]
Parts = dict[str, Any]

SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def from_vocabularies(folder: Path, settings: Settings) -> Parts:
    """The arguments of Tokenizer.  settings: tokenizer_config.json with special_tokens_map.json.

    FileNotFoundError without a vocabulary, ValueError for a class that is not supported.
    """
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    if models := [folder / file for file in SENTENCEPIECE_FILES if (folder / file).exists()]:
        classes, parts = _SENTENCEPIECE, read_model(models[0].read_bytes(), str(models[0])).parts()
        source = models[0]
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        classes, source = _MERGES, folder / "vocab.json"
        parts = {"vocab": _vocabulary(source), "merges": _merges(folder / "merges.txt")}
    elif (folder / "vocab.txt").exists():
        classes, source = _WORDPIECE, folder / "vocab.txt"
        parts = {"vocab": _lines(source)}
    else:
        raise FileNotFoundError(
            f"{folder} has neither tokenizer.json nor vocab.json and merges.txt, vocab.txt or tokenizer.model"
        )
    if name not in classes:
        raise ValueError(
            f"{source}: tokenizer_class {name!r} is not supported here; supported are {', '.join(filter(None, classes))}"
        )
    try:
        parts = classes[name](parts, settings)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return parts | {"added_tokens": _added(folder, parts, settings)}


def _gpt2(files: Parts, settings: Settings) -> Parts:
    prefix = bool(settings.get("add_prefix_space", False))
    model = BPE(files["vocab"], files["merges"])
    return _byte_level(model, prefix) | {"post_processor": ByteLevel(prefix)}


def _roberta(files: Parts, settings: Settings) -> Parts:
    """Also BART's.  <s> A </s>, and the mask takes the space before it along."""
    prefix, vocab = bool(settings.get("add_prefix_space", False)), files["vocab"]
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
             "cls_token": "<s>", "mask_token": "<mask>"}  # fmt: skip
    sep, cls = (_known(vocab, settings, name, named[name]) for name in ("sep_token", "cls_token"))
    return _byte_level(BPE(vocab, files["merges"]), prefix) | {
        "post_processor": RobertaProcessing(sep, cls, add_prefix_space=prefix),
        "named": named,
    }


def _qwen2(files: Parts, settings: Settings) -> Parts:
    parts = _byte_level(BPE(files["vocab"], files["merges"]), False)
    split = pretokenization.Split({"Regex": QWEN2_PATTERN}, "Isolated")
    return parts | {
        "normalizer": normalization.NFC(),
        "pre_tokenizer": pretokenization.Sequence((split, pretokenization.ByteLevel(False, use_regex=False))),
        "post_processor": ByteLevel(False, trim_offsets=False),
        "named": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
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
        "named": {"eos_token": "<|endoftext|>"},
    }


def _bert(files: Parts, settings: Settings) -> Parts:
    vocab = files["vocab"]
    named = {name: f"[{name[:-6].upper()}]" for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")}
    sep, cls = (_known(vocab, settings, name, named[name]) for name in ("sep_token", "cls_token"))
    options = {"lowercase": "do_lower_case", "handle_chinese_chars": "tokenize_chinese_chars", "strip_accents": "strip_accents"}
    return {
        "model": WordPiece(vocab, _text(settings.get("unk_token", "[UNK]"))),
        "normalizer": normalization.BertNormalizer(**{ours: settings[key] for ours, key in options.items() if key in settings}),
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
    if settings.get("add_prefix_space", True) is False:
        raise ValueError("add_prefix_space = false is not supported")
    scheme = "always" if settings.get("legacy", False) else "first"
    spaces = {"normalizer": None, "pre_tokenizer": pretokenization.Metaspace("▁", scheme, split=False)}
    return _with_ends(parts | spaces, settings, add_bos=True)


def _t5(parts: Parts, settings: Settings) -> Parts:
    """</s> after each text; the sentinels <extra_id_0>, <extra_id_1> ... have the last ids, in falling order."""
    count = settings.get("extra_ids", 100)
    size = len(parts["model"].vocab)
    sentinels = [AddedToken(f"<extra_id_{k}>", size + count - 1 - k) for k in range(count)]
    named = parts["named"] | {"pad_token": "<pad>"}
    template = TemplateProcessing.of("$A </s>", "$A </s> $B </s>", dict([_known(parts["model"].vocab, {}, "eos_token", "</s>")]))
    return parts | {"post_processor": template, "added_tokens": parts["added_tokens"] + sentinels, "named": named}


def _albert(parts: Parts, settings: Settings) -> Parts:
    named = {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "sep_token": "[SEP]", "pad_token": "<pad>",
             "cls_token": "[CLS]", "mask_token": "[MASK]"}  # fmt: skip
    vocab = parts["model"].vocab
    special = dict(_known(vocab, settings, name, named[name]) for name in ("cls_token", "sep_token"))
    cls, sep = special
    template = TemplateProcessing.of(f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1", special)
    return parts | {"normalizer": _tidied(parts, settings, lower=True), "post_processor": template, "named": named}


def _xlnet(parts: Parts, settings: Settings) -> Parts:
    """<sep> <cls> at the end, and the class token is of a segment of its own, 2."""
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "<sep>", "pad_token": "<pad>",
             "cls_token": "<cls>", "mask_token": "<mask>"}  # fmt: skip
    vocab = parts["model"].vocab
    special = dict(_known(vocab, settings, name, named[name]) for name in ("sep_token", "cls_token"))
    sep, cls = special
    template = TemplateProcessing.of(f"$A {sep} {cls}:2", f"$A {sep} $B:1 {sep}:1 {cls}:2", special)
    return parts | {"normalizer": _tidied(parts, settings, lower=False), "post_processor": template, "named": named}


def _tidied(parts: Parts, settings: Settings, lower: bool) -> normalization.Sequence:
    """What ALBERT and XLNet do before SentencePiece: `` and '' become ", accents go, letters become small ones."""
    steps: list[Any] = [normalization.Replace({"String": quotes}, '"') for quotes in ("``", "''")]
    if not settings.get("keep_accents", False):
        steps += [normalization.NFKD(), normalization.StripAccents()]
    if settings.get("do_lower_case", lower):
        steps.append(normalization.Lowercase())
    return normalization.Sequence((*steps, *parts["normalizer"].normalizers))


def _with_ends(parts: Parts, settings: Settings, add_bos: bool) -> Parts:
    vocab = parts["model"].vocab
    before = [_known(vocab, settings, "bos_token", "<s>")] if settings.get("add_bos_token", add_bos) else []
    after = [_known(vocab, settings, "eos_token", "</s>")] if settings.get("add_eos_token", False) else []
    if not before and not after:
        return parts

    def around(text: str, type_id: int) -> str:
        return " ".join([*(f"{token}:{type_id}" for token, _ in before), text, *(f"{token}:{type_id}" for token, _ in after)])

    template = TemplateProcessing.of(around("$A", 0), f"{around('$A', 0)} {around('$B:1', 1)}", dict(before + after))
    return parts | {"post_processor": template}


_MERGES: dict[str, Callable[[Parts, Settings], Parts]] = {
    "": _gpt2,
    "GPT2Tokenizer": _gpt2,
    "RobertaTokenizer": _roberta,
    "BartTokenizer": _roberta,
    "Qwen2Tokenizer": _qwen2,
    "OpenAIGPTTokenizer": _gpt,
}
_WORDPIECE: dict[str, Callable[[Parts, Settings], Parts]] = {"": _bert, "BertTokenizer": _bert, "DistilBertTokenizer": _bert}
_SENTENCEPIECE: dict[str, Callable[[Parts, Settings], Parts]] = {
    "": _sentencepiece,
    "LlamaTokenizer": _llama,
    "T5Tokenizer": _t5,
    "AlbertTokenizer": _albert,
    "XLNetTokenizer": _xlnet,
}


def _text(token: Any) -> str:
    """A token of the settings: its text, or an object with its text and flags."""
    return token["content"] if isinstance(token, Mapping) else token


def _known(vocab: Mapping[str, int], settings: Settings, name: str, default: str) -> tuple[str, int]:
    token = _text(settings.get(name, default))
    if token not in vocab:
        raise ValueError(f"the {name} {token!r} is not in the vocabulary")
    return token, vocab[token]


def _added(folder: Path, parts: Parts, settings: Settings) -> list[AddedToken]:
    """What is matched as a whole: added_tokens_decoder of the settings, added_tokens.json, and the tokens with names."""
    vocab = parts["model"].vocab
    found = {token.content: token for token in parts.get("added_tokens", [])}
    special = {_text(value) for key, value in settings.items() if key.endswith("_token") and not isinstance(value, bool)}
    special |= {_text(token) for token in settings.get("additional_special_tokens", [])}
    special |= {*parts.get("named", {}).values()}
    for content, id in (load_json(folder / "added_tokens.json") if (folder / "added_tokens.json").exists() else {}).items():
        found[content] = AddedToken(content, id, content in special, content not in special)
    for id, token in settings.get("added_tokens_decoder", {}).items():
        found[token["content"]] = AddedToken.from_json({"special": False} | dict(token) | {"id": int(id)}, "added_tokens_decoder")
    for content in special:
        if content in vocab and content not in found:
            found[content] = AddedToken(content, vocab[content], lstrip=content == "<mask>")
    return list(found.values())


def _vocabulary(path: Path) -> dict[str, int]:
    content = load_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: an object of tokens and ids is expected, got {content!r:.60}")
    return content


def _merges(path: Path) -> list[tuple[str, str]]:
    """One merge a line, "a b"; the first line may say the version."""
    merges = []
    for number, line in enumerate(_text_of(path).split("\n")):
        if line.strip() and not (number == 0 and line.startswith("#version")):
            parts = line.rstrip("\r").split(" ")
            if len(parts) != 2 or not all(parts):
                raise ValueError(f"{path}, line {number + 1}: a pair of tokens is expected, got {line!r:.60}")
            merges.append((parts[0], parts[1]))
    return merges


def _lines(path: Path) -> dict[str, int]:
    """One token a line; the number of the line, from 0 on, is its id."""
    vocab: dict[str, int] = {}
    for id, token in enumerate(_text_of(path).rstrip("\n").split("\n")):
        token = token.rstrip("\r")
        if vocab.setdefault(token, id) != id:
            raise ValueError(f"{path}, line {id + 1}: the token {token!r} occurs twice, first in line {vocab[token] + 1}")
    return vocab


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from None
