"""Recipes: the kinds of tokenizers that can be trained, and the components of each.

    kind               as in            text is cut                model
    byte-level BPE     GPT-2, LLaMA-3   between character classes  BPE over bytes
    BPE                GPT              at spaces and punctuation  BPE, "</w>" ends a word
    SentencePiece BPE  LLaMA, LLaMA-2   before each "▁"            BPE with byte fallback
    WordPiece          BERT             at spaces and punctuation  WordPiece, "##" continues a word
    Unigram            T5, XLNet        before each "▁"            Unigram

A recipe is a function of its options, which Tokenizer.train takes by name; it passes unknown ones
to the trainer of its model.  For any other chain, train a model on your own words and combine it
with components: Tokenizer(model, normalizer=...).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...arguments import as_texts, check_flag, check_several, check_text, check_whole, wrong
from ..component import Model, Normalizer
from ..files.sentencepiece import SentencePieceModel
from ..models.bpe import BPE
from ..models.unigram import Unigram
from ..models.wordpiece import WordPiece
from ..pipeline import fast_cut
from ..text import decoding, normalization, pretokenization
from ..text.added_tokens import AddedToken
from ..text.bytelevel import BYTE_TO_CHAR, CHAR_TO_BYTE, check_encodable
from ..text.postprocessing import ByteLevel, PostProcessor, TemplateProcessing
from ..vocabulary import MAX_SYMBOLS, as_index, split_at_spaces
from .bpe import train_bpe
from .sentencepiece_bpe import train_sentencepiece_bpe
from .unigram import train_unigram
from .wordpiece import train_wordpiece

Words = Mapping[str, int]  # words with their counts


@dataclass(frozen=True)
class Recipe:
    """learn(words, vocab_size, special_tokens) -> model.  templates: for one text, for two.

    words: cuts text for training if the pre-tokenizer does not cut it, so that distinct words are
    stored and not whole texts.
    """

    learn: Callable[[Words, int, list[str]], Model]
    special_tokens: Sequence[str]
    normalizer: Normalizer | None = None
    pre_tokenizer: pretokenization.PreTokenizer | None = None
    decoder: decoding.Decoder | None = None
    post_processor: PostProcessor | None = None
    words: Callable[[str], list[str]] | None = None
    templates: tuple[str, str] | None = None
    named: Mapping[str, str] = field(default_factory=dict)

    def parts(self, words: Words, vocab_size: int, special_tokens: list[str]) -> dict[str, Any]:
        """The arguments of Tokenizer.  A template is omitted unless all its special tokens are in
        use."""
        model = self.learn(words, vocab_size, special_tokens)
        post_processor = self.post_processor
        if self.templates:
            pieces = [piece for template in self.templates for piece in template.split()]
            names = sorted({piece.partition(":")[0] for piece in pieces if piece[0] != "$"})
            if {*names} <= {*special_tokens}:
                ids = {name: model.vocab[name] for name in names}
                post_processor = TemplateProcessing.of(*self.templates, ids)
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
    """pattern: cuts text into words; GPT-2's by default, see text/patterns.py for others.

    Ids: special tokens, the 256 bytes sorted by their characters, merges, as in the library
    `tokenizers`.
    """
    check_text("pattern", pattern, or_none=True, empty=False)
    check_flag("add_prefix_space", add_prefix_space)
    check_whole("min_frequency", min_frequency)
    cut: pretokenization.PreTokenizer
    cut = pretokenization.ByteLevel(add_prefix_space, use_regex=pattern is None)
    if pattern is not None:
        cut = pretokenization.Sequence((pretokenization.Split({"Regex": pattern}, "Isolated"), cut))

    def learn(words: Words, vocab_size: int, specials: list[str]) -> BPE:
        if taken := [token for token in specials if token in CHAR_TO_BYTE]:
            raise wrong("special_tokens", "none that is spelled like a byte", taken[0])
        learned = train_bpe(
            words, vocab_size, specials, initial_alphabet=BYTE_TO_CHAR, min_frequency=min_frequency
        )
        return BPE(*learned)

    return Recipe(
        learn,
        ["<|endoftext|>"],
        pre_tokenizer=cut,
        decoder=decoding.ByteLevel(False),
        post_processor=ByteLevel(add_prefix_space),
        named={"eos_token": "<|endoftext|>"},
    )


def bpe(lowercase: bool = True, **options: Any) -> Recipe:
    """GPT (Radford et al. 2018).  lowercase: also strip accents.  options: see train_bpe."""
    check_flag("lowercase", lowercase)

    def learn(words: Words, vocab_size: int, specials: list[str]) -> BPE:
        unknown = "<unk>" if "<unk>" in specials else None
        learned = train_bpe(words, vocab_size, specials, end_of_word_suffix="</w>", **options)
        return BPE(*learned, unknown, end_of_word_suffix="</w>")

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
    """BERT (Devlin et al. 2019).  lowercase: also strip accents.  options: see train_wordpiece."""
    check_flag("lowercase", lowercase)
    check_text("continuing_subword_prefix", continuing_subword_prefix)
    prefix = continuing_subword_prefix

    def learn(words: Words, vocab_size: int, specials: list[str]) -> WordPiece:
        if "[UNK]" not in specials:
            raise wrong("special_tokens", "[UNK] among them", specials)
        tokens = train_wordpiece(
            words, specials, vocab_size, continuing_subword_prefix=prefix, **options
        )
        vocab = {token: id for id, token in enumerate(tokens)}
        return WordPiece(vocab, continuing_subword_prefix=prefix)

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
    """T5 (Raffel et al. 2020): NFKC, runs of spaces become one, ▁ before each text and word.
    options: see train_unigram."""

    def learn(words: Words, vocab_size: int, specials: list[str]) -> Unigram:
        if "<unk>" not in specials:
            raise wrong("special_tokens", "<unk> among them", specials)
        pieces, unknown = train_unigram(
            words, vocab_size, special_tokens=specials, unk_token="<unk>", **options
        )
        return Unigram(unknown, pieces, options.get("byte_fallback", False))

    tidy = (
        normalization.Nmt(),
        normalization.NFKC(),
        normalization.Replace({"Regex": " {2,}"}, " "),
        normalization.Strip(),
    )
    return Recipe(
        learn,
        ["<pad>", "</s>", "<unk>"],
        normalization.Sequence(tidy),
        pretokenization.Metaspace(),
        decoding.Sequence((decoding.ByteFallback(), decoding.Metaspace())),
        templates=("$A </s>", "$A </s> $B </s>"),
        named={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    )


def sentencepiece_bpe(**options: Any) -> Recipe:
    """LLaMA (Touvron et al. 2023): no normalization, <s> and ▁ before each text, byte fallback.

    options: see train_sentencepiece_bpe.
    """
    names = ["<unk>", "<s>", "</s>"]
    empty = SentencePieceModel([], "bpe", remove_extra_whitespaces=False)

    def learn(words: Words, vocab_size: int, specials: list[str]) -> Model:
        if specials[:3] != names:
            raise wrong("special_tokens", f"{', '.join(names)} first", specials)
        pieces = train_sentencepiece_bpe(words, vocab_size, control_symbols=specials[3:], **options)
        byte_fallback = options.get("byte_fallback", True)
        return SentencePieceModel(pieces, "bpe", byte_fallback=byte_fallback).model()

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


def train_parts(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] | None,
    kind: str,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The arguments of a trained Tokenizer; see Tokenizer.train."""
    if isinstance(texts, str) or isinstance(special_tokens, str):
        raise TypeError("texts and special_tokens: expected several strings, got a single string")
    check_several("texts", texts)
    check_whole("vocab_size", as_index("vocab_size", vocab_size), 1, MAX_SYMBOLS)
    if not isinstance(kind, str) or kind not in RECIPES:
        raise wrong("kind", f"one of {', '.join(RECIPES)}", kind)
    if special_tokens is not None:
        special_tokens = as_texts("special_tokens", special_tokens)
    recipe = RECIPES[kind](**options)
    specials = list(recipe.special_tokens if special_tokens is None else special_tokens)
    for token in specials:
        check_encodable(token, "special_tokens")
        if not token or specials.count(token) > 1:
            raise wrong("special_tokens", "different strings that are not empty", token)
    cut, spell = fast_cut(recipe.pre_tokenizer, None)
    words_of = recipe.words or (lambda text: cut(text, True))
    words: Counter[str] = Counter()
    for number, text in enumerate(texts):
        check_encodable(text, f"texts: number {number}")
        words.update(words_of(recipe.normalizer(text) if recipe.normalizer else text))
    if not words:
        raise ValueError("texts: expected some text to train on, got none")
    if spell:
        words = Counter({spell(word): count for word, count in words.items()})
    return recipe.parts(words, vocab_size, specials)
