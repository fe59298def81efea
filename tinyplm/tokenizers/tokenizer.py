"""The tokenizer: text to ids and back, through a chain of components.

    text --added tokens--> pieces --normalizer--> pieces --pre-tokenizer--> words --model--> ids
    ids --post-processor--> [CLS] ids [SEP]

    ids --vocabulary--> tokens --decoder--> text

All components but the model are optional.  The chain is that of the library `tokenizers` and its
files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, count
from typing import Any

import numpy as np

from ..arguments import as_texts, check_flag, check_key, check_number, check_several, shown
from ..files import printable
from ..random import fold
from . import continuation, pipeline
from .component import Model, Normalizer, check_component
from .detokenizer import Detokenizer
from .files import folders
from .models.unigram import Unigram
from .text.added_tokens import AddedToken, AddedTokens
from .text.backtracking import within_time
from .text.bytelevel import chars_to_bytes, check_encodable
from .text.decoding import ByteLevel, Decoder
from .text.encoding import Encoding, Padding, Truncation, arrays, pad, truncate
from .text.postprocessing import PostProcessor
from .text.postprocessing import Sequence as PostProcessors
from .text.pretokenization import PreTokenizer
from .training.recipes import train_parts
from .vocabulary import tokens_by_id

_PARTS = (
    *("model", "normalizer", "pre_tokenizer", "post_processor", "decoder"),
    *("added_tokens", "truncation", "padding", "named"),
)


class Tokenizer(Detokenizer):
    """Created by `Tokenizer.train` or `Tokenizer.load`, or from components.

    `encode` returns ids, `encoding` adds offsets and more, `batch` returns arrays for a model.

    Special tokens: a special token's text that happens to occur in a document ("<|endoftext|>") is
    ordinary text unless `allow_special=True`, so nobody can forge the structure of the data by
    typing it.  The library `tokenizers` always takes it for the special token: its encode equals
    encoding(text, allow_special=True) here.  Added tokens that are not special are always matched,
    in both.

    With byte-level BPE, decode(encode(text)) == text for any text, unless the file adds a leading
    space (`add_prefix_space`) or normalizes.
    """

    def __init__(
        self,
        model: Model,
        *,
        normalizer: Normalizer | None = None,
        pre_tokenizer: PreTokenizer | None = None,
        post_processor: PostProcessor | None = None,
        decoder: Decoder | None = None,
        added_tokens: Iterable[AddedToken] = (),
        truncation: Truncation | None = None,
        padding: Padding | None = None,
        named: Mapping[str, str] | None = None,
    ):
        """named: tokens by their names in tokenizer_config.json, {"eos_token": "</s>", ...}."""
        parts = (model, normalizer, pre_tokenizer, post_processor, decoder)
        for name, part in zip(_PARTS, parts):
            check_component(name, part, or_none=name != "model")
        _check_settings(truncation, padding)
        if named is not None and not isinstance(named, Mapping):
            raise TypeError(f"named: expected a mapping of names to tokens, got {shown(named)}")
        named = dict(named or {})
        as_texts("named", [*named, *(token for token in named.values() if token is not None)])
        check_several("added_tokens", added_tokens, "AddedToken")
        self.model, self.normalizer = model, normalizer
        self.pre_tokenizer, self.decoder = pre_tokenizer, decoder
        self.truncation, self.named = truncation, named
        added_tokens = list(added_tokens)
        if others := [token for token in added_tokens if not isinstance(token, AddedToken)]:
            raise TypeError(f"added_tokens: expected several AddedToken, got {shown(others[0])}")
        self.added_tokens = sorted(added_tokens, key=lambda token: token.id)
        for token in self.added_tokens:
            check_encodable(token.content, "added_tokens")
        self._tokens = tokens_by_id(
            model.vocab, [(token.content, token.id) for token in self.added_tokens]
        )
        self._ids = {token: id for id, token in enumerate(self._tokens)}
        self.post_processor, self.padding = post_processor, padding
        self._special = {token.id for token in self.added_tokens if token.special}
        self._added = AddedTokens(self.added_tokens, normalizer)
        self._cut, spell = pipeline.fast_cut(pre_tokenizer, model)
        plain = model.without([token.content for token in self.added_tokens if token.special])
        self._models = {True: model, False: plain}  # by allow_special
        cached = pipeline.WordCache(model.encode, spell)
        self._caches = {
            True: cached,
            False: cached if plain is model else pipeline.WordCache(plain.encode, spell),
        }
        self._spans = {
            allow_special: pipeline.WordCache(model.encode_spans, None)
            for allow_special, model in self._models.items()
        }
        self._depends_on_first = normalizer is not None and pipeline.depends_on_first(pre_tokenizer)
        self._bytes = None
        if isinstance(decoder, ByteLevel):
            self._bytes = [chars_to_bytes(token) for token in self._tokens]
            # Added tokens are plain text (the library reads "é" as the byte 0xe9).
            for token in self.added_tokens:
                self._bytes[token.id] = token.content.encode("utf-8")

    @property
    def post_processor(self) -> PostProcessor | None:
        """Can be set; ValueError if it adds an id that is not in the vocabulary."""
        return self._post_processor

    @post_processor.setter
    def post_processor(self, value: PostProcessor | None) -> None:
        check_component("post_processor", value, or_none=True)
        for key, id in [] if value is None else value.named_ids():
            self._check_id(f"post_processor {type(value).__name__}: {key}", id)
        self._post_processor = value

    @property
    def padding(self) -> Padding | None:
        """Can be set; ValueError if its pad_id is not in the vocabulary."""
        return self._padding

    @padding.setter
    def padding(self, value: Padding | None) -> None:
        _check_settings(None, value)
        if value is not None:
            self._check_id("padding: pad_id", value.pad_id)
        self._padding = value

    def __repr__(self) -> str:
        name, model, added = type(self).__name__, type(self.model).__name__, len(self.added_tokens)
        return f"<{name}: {model}, {len(self)} tokens, {added} of them added>"

    # ---- created from texts and from files

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] | None = None,
        kind: str = "byte-level BPE",
        **options: Any,
    ) -> Tokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens, including special tokens and the
        alphabet.

        kind: one of RECIPES (training/recipes.py), which also defines the default special_tokens
        and the options.  There are fewer tokens if there is nothing more to learn: see
        `.vocab_size`.  The order of the texts does not matter.
        """
        return cls(**train_parts(texts, vocab_size, special_tokens, kind, options))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the parts, without the caches, which are large and refill with use."""
        return partial(type(self), **self.parts), ()

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """From a tokenizer.json, a SentencePiece .model, or a folder (files/folders.py)."""
        parts = folders.read(path)
        try:
            return cls(**parts)
        except ValueError as error:  # parts that do not fit together: an id used twice, a gap
            raise ValueError(f"{printable(folders.main_file(path))}: {error}") from None

    def save(self, path: str | os.PathLike) -> None:
        """Write a tokenizer.json for us, `tokenizers` and transformers.  path: file or folder."""
        folders.write(self, path)

    @property
    def parts(self) -> dict[str, Any]:
        """Its arguments: Tokenizer(**tokenizer.parts | {"normalizer": NFC()}) swaps one of them."""
        return {name: getattr(self, name) for name in _PARTS}

    # ---- text to ids

    def encode(
        self, text: str, allow_special: bool = False, add_special_tokens: bool = False
    ) -> list[int]:
        """The ids of the text.  ValueError for lone surrogates, which have no UTF-8 form.

        add_special_tokens: with what the post-processor adds to a single text ([CLS] and [SEP]).
        """
        check_flag("allow_special", allow_special)
        check_flag("add_special_tokens", add_special_tokens)
        ids = self._encode(text, allow_special, self._caches[allow_special].__getitem__)
        return self._processor.ids(ids) if add_special_tokens else ids

    def prompt(self, text: str) -> list[int]:
        """The ids of a text to be continued: like encode(text, add_special_tokens=True), but
        without what the post-processor adds at the end.  Training and generation both start with
        these."""
        around = self._processor.ids([-1])  # -1 stands for the text
        return [*around[: around.index(-1) if -1 in around else 0], *self.encode(text)]

    def continuations(
        self, prompt: str, answers: Iterable[str]
    ) -> tuple[list[int], list[list[int]]]:
        """(ids of the prompt, ids of each answer), which join to self.prompt(prompt + answer).

        The prompt's ids are the longest common prefix of self.prompt(prompt) and all whole texts.
        A token that spans the border thus belongs to the answer: it contains characters to be
        predicted, and the text keeps the tokens known from pretraining.  All answers are then
        scored on the same text.  Only in this case does generation from `prompt` start from
        different ids than training, so end prompts where a token ends, best before a space: "A:"
        and " 4".

        ValueError if the prompt's first token extends into an answer.
        """
        return continuation.continuations(self, prompt, as_texts("answers", answers))

    def continue_ids(self, ids: Sequence[int], text: str, allow_special: bool = False) -> list[int]:
        """The ids of `text` after ids that are fixed: a model has already read or generated them.

        decode(ids + new) == decode(ids) + text wherever the tokenizer can express it: no space is
        inserted.  Directly after a special token, the ids are those that `encode` assigns there.
        """
        check_flag("allow_special", allow_special)
        return continuation.continue_ids(self, self._checked(ids), text, allow_special)

    def sample(
        self, text: str, key: int, *, alpha: float = 0.1, allow_special: bool = False
    ) -> list[int]:
        """The ids of a random segmentation, with probability proportional to P(x)^alpha per word.

        Subword regularization (Kudo 2018, section 3.3): the model sees a different segmentation in
        each epoch.  key: see tinyplm.random.  ValueError unless the model is Unigram: the others
        have no probabilities.
        """
        check_flag("allow_special", allow_special)
        check_key("key", key)
        check_number("alpha", alpha, least=0)
        model, numbers = self._models[allow_special], count()
        if not isinstance(model, Unigram):
            raise ValueError(
                f"model: expected a Unigram model to sample from, got {type(model).__name__}"
            )
        unigram = model
        return self._encode(
            text, allow_special, lambda word: unigram.sample(word, fold(key, next(numbers)), alpha)
        )

    @within_time
    def _encode(
        self, text: str, allow_special: bool, ids_of: Callable[[str], Sequence[int]]
    ) -> list[int]:
        check_encodable(text)
        ids: list[int] = []
        for start, end, id in self._added.find(text, False, allow_special):
            if id is not None:
                ids.append(id)
                continue
            piece, first = text[start:end], start == 0
            if self._depends_on_first and first and self.normalizer is not None:
                first = pipeline.begins_with_text(self.normalizer, piece)
            if self.normalizer is not None:
                piece = self.normalizer(piece)
            for a, b, id in self._added.find(piece, True, allow_special):
                if id is not None:
                    ids.append(id)
                else:
                    cut = self._cut(piece[a:b], first and a == 0)
                    ids.extend(chain.from_iterable(map(ids_of, cut)))
        return ids

    def spans_of(self, word: str, allow_special: bool) -> Sequence[tuple[int, int, int]]:
        """(id, start, end) of the word's tokens; without allow_special, none of them is special."""
        return self._spans[bool(allow_special)][word]

    def encode_batch(
        self, texts: Iterable[str], allow_special: bool = False, add_special_tokens: bool = False
    ) -> list[list[int]]:
        """`encode` for several texts."""
        if isinstance(texts, str):
            raise TypeError("texts: expected several strings, got a single string")
        check_several("texts", texts)
        return [self.encode(text, allow_special, add_special_tokens) for text in texts]

    def encoding(
        self,
        text: str,
        pair: str | None = None,
        *,
        allow_special: bool = False,
        add_special_tokens: bool = True,
        truncation: Truncation | None = None,
    ) -> Encoding:
        """Ids (those of `encode`), tokens, offsets, type ids and more, for one text or a pair."""
        check_flag("allow_special", allow_special)
        check_flag("add_special_tokens", add_special_tokens)
        first = self._plain_encoding(text, allow_special)
        second = None if pair is None else self._plain_encoding(pair, allow_special, type_id=1)
        _check_settings(truncation, None)
        truncation = truncation or self.truncation
        if truncation is not None:
            added = self._processor.added(pair is not None) if add_special_tokens else 0
            first, second = truncate(first, second, truncation, added)
        return self._processor(first, second, add_special_tokens)

    @within_time
    def _plain_encoding(self, text: str, allow_special: bool, type_id: int = 0) -> Encoding:
        check_encodable(text)
        found = list(pipeline.tokens_with_spans(self, text, allow_special))
        return Encoding.of(
            ids=[id for id, _, _, _, _ in found],
            tokens=[self._tokens[id] if text is None else text for id, _, _, _, text in found],
            offsets=[(start, end) for _, start, end, _, _ in found],
            word_ids=[word for _, _, _, word, _ in found],
            type_id=type_id,
        )

    def batch(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None = None,
        *,
        allow_special: bool = False,
        add_special_tokens: bool = True,
        truncation: Truncation | None = None,
        padding: Padding | None = None,
    ) -> dict[str, np.ndarray]:
        """Arrays for a model, (B, T) int64: input_ids, attention_mask and more (see `arrays`).

        truncation, padding: by default those of the file.  Without padding, all texts must have the
        same length.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise TypeError("texts and pairs: expected several strings, got a single string")
        _check_settings(truncation, padding)
        texts = as_texts("texts", texts)
        seconds: Sequence[str | None]
        seconds = [None] * len(texts) if pairs is None else as_texts("pairs", pairs)
        if len(seconds) != len(texts):
            raise ValueError(f"pairs: expected {len(texts)}, one for each text, got {len(seconds)}")
        encodings = [
            self.encoding(
                text,
                pair,
                allow_special=allow_special,
                add_special_tokens=add_special_tokens,
                truncation=truncation,
            )
            for text, pair in zip(texts, seconds)
        ]
        if padding is not None:
            self._check_id("padding: pad_id", padding.pad_id)
        padding = padding or self.padding
        return arrays(pad(encodings, padding) if padding else encodings)

    @property
    def _processor(self) -> PostProcessor:
        return self.post_processor or PostProcessors()  # an empty Sequence joins the texts


def _check_settings(truncation: Any, padding: Any) -> None:
    """TypeError unless they are of our types or None (other libraries take True and integers)."""
    for name, value, kind in (
        ("truncation", truncation, Truncation),
        ("padding", padding, Padding),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name}: expected a {kind.__name__} or None, got {shown(value)}")
