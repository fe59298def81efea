"""The kinds of tokenizers that can be trained: which components go with which algorithm.

    kind               as in            text is cut                   model
    byte-level BPE     GPT-2, LLaMA-3   at kinds of characters        BPE over bytes
    BPE                GPT              at spaces and marks           BPE over characters, "</w>" ends a word
    SentencePiece BPE  LLaMA, LLaMA-2   in front of each "▁"          BPE over characters, rare ones as bytes
    WordPiece          BERT             at spaces and marks           WordPiece, "##" goes on with a word
    Unigram            T5, XLNet        in front of each "▁"          Unigram

A recipe is a function of its options, which Tokenizer.train takes by name; those it does not have itself go to the trainer of
its model.  Whoever wants another chain trains a model on words of his own and puts it together: Tokenizer(model, normalizer=...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...arguments import check_flag, check_text, check_whole
from ..files.sentencepiece import SentencePieceModel
from ..models.bpe import BPE
from ..models.unigram import Unigram
from ..models.wordpiece import WordPiece
from ..text import decoding, normalization, pretokenization
from ..text.added_tokens import AddedToken
from ..text.bytelevel import BYTE_TO_CHAR, CHAR_TO_BYTE
from ..text.postprocessing import ByteLevel, TemplateProcessing
from ..vocabulary import split_at_spaces
from .sentencepiece_bpe import train_sentencepiece_bpe
from .unigram import train_unigram
from .wordpiece import train_wordpiece

Words = Mapping[str, int]  # words, and how often each occurs


@dataclass(frozen=True)
class Recipe:
    """learn(words, vocab_size, special_tokens) -> the model.  templates: for one text and for two.

    words: cuts what is learnt from into words where text is not, later: kept are distinct words, not whole texts.
    """

    learn: Callable[[Words, int, list[str]], Any]
    special_tokens: Sequence[str]
    normalizer: Any = None
    pre_tokenizer: Any = None
    decoder: Any = None
    post_processor: Any = None
    words: Callable[[str], list[str]] | None = None
    templates: tuple[str, str] | None = None
    named: Mapping[str, str] = field(default_factory=dict)

    def parts(self, words: Words, vocab_size: int, special_tokens: list[str]) -> dict[str, Any]:
        """The arguments of Tokenizer.  A template is left out if a special token of its is not among those chosen."""
        model = self.learn(words, vocab_size, special_tokens)
        post_processor = self.post_processor
        if self.templates:
            names = {
                name.partition(":")[0]
                for template in self.templates
                for name in template.split()
                if name[0] != "$"
            }
            if names <= {*special_tokens}:
                post_processor = TemplateProcessing.of(
                    *self.templates, {name: model.vocab[name] for name in sorted(names)}
                )
        return {
            "model": model,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "decoder": self.decoder,
            "post_processor": post_processor,
            "added_tokens": [AddedToken(token, model.vocab[token]) for token in special_tokens],
            "named": {name: token for name, token in self.named.items() if token in special_tokens},
        }


def byte_level_bpe(
    pattern: str | None = None, add_prefix_space: bool = False, min_frequency: int = 0
) -> Recipe:
    """pattern: cuts text into words, GPT-2's by default; others are in patterns.py.  add_prefix_space: before each text.

    Ids: special tokens, the 256 bytes sorted by their characters, merges: what the library `tokenizers` gives.
    """
    check_text("pattern", pattern, or_none=True, empty=False)
    check_flag("add_prefix_space", add_prefix_space)
    check_whole("min_frequency", min_frequency)
    cut: Any = pretokenization.ByteLevel(add_prefix_space, use_regex=pattern is None)
    if pattern is not None:
        cut = pretokenization.Sequence((pretokenization.Split({"Regex": pattern}, "Isolated"), cut))

    def learn(words: Words, vocab_size: int, specials: list[str]) -> BPE:
        if wrong := [token for token in specials if token in CHAR_TO_BYTE]:
            raise ValueError(f"special tokens must differ from bytes: {wrong[0]!r} is wrong")
        return BPE.train(
            words, vocab_size, specials, initial_alphabet=BYTE_TO_CHAR, min_frequency=min_frequency
        )

    return Recipe(
        learn,
        ["<|endoftext|>"],
        pre_tokenizer=cut,
        decoder=decoding.ByteLevel(False),
        post_processor=ByteLevel(add_prefix_space),
        named={"eos_token": "<|endoftext|>"},
    )


def bpe(lowercase: bool = True, **options: Any) -> Recipe:
    """As GPT (Radford et al. 2018).  lowercase: lower case, and no accents.  limit_alphabet: so many characters at most."""
    check_flag("lowercase", lowercase)

    def learn(words: Words, vocab_size: int, specials: list[str]) -> BPE:
        unknown = "<unk>" if "<unk>" in specials else None
        return BPE.train(
            words, vocab_size, specials, end_of_word_suffix="</w>", unk_token=unknown, **options
        )

    return Recipe(
        learn,
        ["<unk>"],
        normalization.BertNormalizer(lowercase=lowercase),
        pretokenization.BertPreTokenizer(),
        decoding.BPEDecoder("</w>"),
        named={"unk_token": "<unk>"},
    )


def wordpiece(
    lowercase: bool = True, continuing_subword_prefix: str = "##", **options: Any
) -> Recipe:
    """As BERT (Devlin et al. 2019).  lowercase: lower case, and no accents."""
    check_flag("lowercase", lowercase)
    check_text("continuing_subword_prefix", continuing_subword_prefix)
    prefix = continuing_subword_prefix

    def learn(words: Words, vocab_size: int, specials: list[str]) -> WordPiece:
        if "[UNK]" not in specials:
            raise ValueError(f"WordPiece needs the special token [UNK], got {specials}")
        tokens = train_wordpiece(
            words, specials, vocab_size, continuing_subword_prefix=prefix, **options
        )
        return WordPiece(
            {token: id for id, token in enumerate(tokens)}, continuing_subword_prefix=prefix
        )

    named = {
        name: f"[{name[:-6].upper()}]"
        for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    templates = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
    return Recipe(
        learn,
        [*named.values()],
        normalization.BertNormalizer(lowercase=lowercase),
        pretokenization.BertPreTokenizer(),
        decoding.WordPiece(prefix),
        templates=templates,
        named=named,
    )


def unigram(**options: Any) -> Recipe:
    """As T5 (Raffel et al. 2020): compatibility forms made one (NFKC), runs of spaces one space, ▁ before each text and word."""

    def learn(words: Words, vocab_size: int, specials: list[str]) -> Unigram:
        if "<unk>" not in specials:
            raise ValueError(f"Unigram needs the special token <unk>, got {specials}")
        pieces, unknown = train_unigram(
            words, vocab_size, special_tokens=specials, unk_token="<unk>", **options
        )
        return Unigram(unknown, pieces, options.get("byte_fallback", False))

    tidy = [
        normalization.Nmt(),
        normalization.NFKC(),
        normalization.Replace({"Regex": " {2,}"}, " "),
        normalization.Strip(),
    ]
    return Recipe(
        learn,
        ["<pad>", "</s>", "<unk>"],
        normalization.Sequence(tuple(tidy)),
        pretokenization.Metaspace(),
        decoding.Sequence((decoding.ByteFallback(), decoding.Metaspace())),
        templates=("$A </s>", "$A </s> $B </s>"),
        named={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    )


def sentencepiece_bpe(**options: Any) -> Recipe:
    """As LLaMA (Touvron et al. 2023): no normalisation, ▁ before each text, <s> before it, unknown characters as bytes."""
    names = ["<unk>", "<s>", "</s>"]
    empty = SentencePieceModel([], "bpe", remove_extra_whitespaces=False)

    def learn(words: Words, vocab_size: int, specials: list[str]) -> BPE:
        if specials[:3] != names:
            raise ValueError(
                f"the special tokens of SentencePiece BPE begin with {names}, got {specials}"
            )
        pieces = train_sentencepiece_bpe(words, vocab_size, control_symbols=specials[3:], **options)
        return SentencePieceModel(
            pieces, "bpe", byte_fallback=options.get("byte_fallback", True)
        ).model()

    return Recipe(
        learn,
        names,
        empty.normalizer(),
        None,
        empty.decoder(),
        words=split_at_spaces,
        templates=("<s> $A", "<s> $A <s>:1 $B:1"),
        named={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    )


RECIPES: dict[str, Callable[..., Recipe]] = {
    "byte-level BPE": byte_level_bpe,
    "BPE": bpe,
    "SentencePiece BPE": sentencepiece_bpe,
    "WordPiece": wordpiece,
    "Unigram": unigram,
}
