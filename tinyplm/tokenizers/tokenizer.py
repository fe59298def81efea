"""The tokenizer: text to ids and back, by a chain of components.

    text --added tokens cut out--> --normalizer--> --pre-tokenizer--> words --model--> tokens --post-processor--> [CLS] tokens ...

    ids --tokens--> --decoder--> text

Any of them but the model may be missing.  The chain is that of the library `tokenizers`, and of its files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, count
from operator import index
from typing import Any

from ..arguments import (
    as_texts,
    check_flag,
    check_key,
    check_number,
    check_several,
    check_text,
    check_whole,
    shown,
    wrong,
)
from ..files import named
from ..random import fold
from . import continuation, pipeline
from .component import check_component
from .files import folders as files
from .models.unigram import Unigram
from .text.added_tokens import AddedToken, AddedTokens
from .text.backtracking import within_time
from .text.bytelevel import chars_to_bytes, check_encodable
from .text.decoding import ByteLevel
from .text.encoding import Encoding, Padding, Truncation, arrays, pad, truncate
from .text.postprocessing import Sequence as PostProcessors
from .text.stream import ByteStream, TokenStream
from .training.recipes import RECIPES
from .vocabulary import MAX_SYMBOLS, tokens_by_id

END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """Made by `Tokenizer.train` or `Tokenizer.load`, or of components.

    encode gives ids, encoding gives them with offsets and more, batch gives arrays for a model.

    Special tokens: the text of a special token that happens to stand in a document ("<|endoftext|>") is
    ordinary text unless `allow_special=True`, so that nobody can forge the structure of the data by writing
    it. The library `tokenizers` has no such distinction, it always takes it for the special token: encode
    there equals encoding(text, allow_special=True) here. Added tokens that are not special are always matched,
    in both.

    With byte-level BPE decode(encode(text)) == text for any text, provided the file does not add a space in front
    (`add_prefix_space`) and does not normalise.
    """

    def __init__(
        self,
        model: Any,
        *,
        normalizer: Any = None,
        pre_tokenizer: Any = None,
        post_processor: Any = None,
        decoder: Any = None,
        added_tokens: Iterable[AddedToken] = (),
        truncation: Truncation | None = None,
        padding: Padding | None = None,
        named: Mapping[str, str] | None = None,
    ):
        """named: the tokens that have a part to play, by the names of tokenizer_config.json: {"eos_token": "</s>", ...}."""
        steps = {
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": post_processor,
            "decoder": decoder,
        }
        for name, step in {"model": model, **steps}.items():
            check_component(name, step, or_none=name != "model")
        _check_settings(truncation, padding)
        if named is not None and not isinstance(named, Mapping):
            raise TypeError(f"named must be a mapping of names to tokens, got {shown(named)}")
        as_texts(
            "named",
            [*(named or {}), *(token for token in (named or {}).values() if token is not None)],
        )
        check_several("added_tokens", added_tokens, "AddedToken")
        self.model, self.normalizer, self.pre_tokenizer, self.decoder = (
            model,
            normalizer,
            pre_tokenizer,
            decoder,
        )
        self.truncation, self.named = truncation, dict(named or {})
        added_tokens = list(added_tokens)
        if others := [token for token in added_tokens if not isinstance(token, AddedToken)]:
            raise TypeError(f"added_tokens must be of type AddedToken, got {shown(others[0])}")
        self.added_tokens = sorted(added_tokens, key=lambda token: token.id)
        for token in self.added_tokens:
            check_encodable(token.content, "the content of an added token")
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
        self._caches = {True: pipeline.WordCache(model.encode, spell)}
        self._caches[False] = (
            self._caches[True] if plain is model else pipeline.WordCache(plain.encode, spell)
        )
        self._spans = {
            allow_special: pipeline.WordCache(model.encode_spans, None)
            for allow_special, model in self._models.items()
        }
        self._asks_for_first = normalizer is not None and pipeline.asks_for_first(pre_tokenizer)
        self._bytes: list[bytes] | None = None
        if isinstance(decoder, ByteLevel):
            self._bytes = [chars_to_bytes(token) for token in self._tokens]
            for (
                token
            ) in self.added_tokens:  # text as it stands; the library reads "é" as the byte 0xe9
                self._bytes[token.id] = token.content.encode("utf-8")

    @property
    def post_processor(self) -> Any:
        """May be set; ValueError if it adds an id that is not in the vocabulary."""
        return self._post_processor

    @post_processor.setter
    def post_processor(self, value: Any) -> None:
        check_component("post_processor", value, or_none=True)
        for key, id in [] if value is None else value.named_ids():
            self._check_id(f"post_processor {type(value).__name__}: {key}", id)
        self._post_processor = value

    @property
    def padding(self) -> Padding | None:
        """May be set; ValueError if its pad_id is not in the vocabulary."""
        return self._padding

    @padding.setter
    def padding(self, value: Padding | None) -> None:
        _check_settings(None, value)
        if value is not None:
            self._check_id("padding: pad_id", value.pad_id)
        self._padding = value

    def _check_id(self, name: str, id: int) -> None:
        if not 0 <= id < len(self._tokens):
            raise wrong(name, f"an id of the vocabulary, from 0 to {len(self._tokens) - 1}", id)

    # ---- made from texts, from files

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] | None = None,
        kind: str = "byte-level BPE",
        **options: Any,
    ) -> Tokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens, special ones and alphabet included.

        kind: one of RECIPES (recipes.py), which says what special_tokens and options are. Fewer tokens come out if there is
        nothing more to learn: `.vocab_size` of the result says. The order of the texts plays no part.
        """
        if isinstance(texts, str) or isinstance(special_tokens, str):
            raise TypeError("texts and special_tokens must be several strings, got a single str")
        check_several("texts", texts)
        check_whole("vocab_size", _index(vocab_size, "vocab_size"), 1, MAX_SYMBOLS)
        if not isinstance(kind, str) or kind not in RECIPES:
            raise ValueError(
                f"kind: there is no kind of tokenizer {shown(kind)}; there are {', '.join(RECIPES)}"
            )
        special_tokens = (
            None if special_tokens is None else as_texts("special_tokens", special_tokens)
        )
        recipe = RECIPES[kind](**options)
        specials = list(recipe.special_tokens if special_tokens is None else special_tokens)
        for token in specials:
            check_encodable(token, "a special token")
            if not token or specials.count(token) > 1:
                raise ValueError(f"special tokens must differ and not be empty: {token!r} is wrong")
        cut, spell = pipeline.fast_cut(recipe.pre_tokenizer, None)
        words_of = recipe.words or (lambda text: cut(text, True))
        words: Counter[str] = Counter()
        for number, text in enumerate(texts):
            check_encodable(text, f"text {number}")
            words.update(words_of(recipe.normalizer(text) if recipe.normalizer else text))
        if not words:
            raise ValueError("the texts to train on hold no text at all")
        if spell:
            words = {spell(word): count for word, count in words.items()}
        return cls(**recipe.parts(words, vocab_size, specials))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied is what it is made of, without what is kept to be fast: that is large, and comes back with use."""
        return partial(type(self), **self.parts), ()

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """From a tokenizer.json, a SentencePiece .model, or a folder with one of these or other vocabularies (files.py)."""
        parts = files.read(path)
        try:
            return cls(**parts)
        except ValueError as error:  # parts that do not go together: an id used twice, a hole
            raise ValueError(f"{named(files.main_file(path))}: {error}") from None

    def save(self, path: str | os.PathLike) -> None:
        """Write tokenizer.json for us, `tokenizers` and `transformers`. `path`: the file, or its folder."""
        files.write(self, path)

    @property
    def parts(self) -> dict[str, Any]:
        """The arguments it was made of: Tokenizer(**tokenizer.parts | {"normalizer": NFC()}) has another normalizer."""
        names = (
            "model",
            "normalizer",
            "pre_tokenizer",
            "post_processor",
            "decoder",
            "added_tokens",
            "truncation",
            "padding",
            "named",
        )
        return {name: getattr(self, name) for name in names}

    # ---- text to ids

    def encode(
        self, text: str, allow_special: bool = False, add_special_tokens: bool = False
    ) -> list[int]:
        """The ids of the text. ValueError on lone surrogates: they have no UTF-8 form.

        add_special_tokens: with what the post-processor puts around a single text ([CLS] and [SEP]).
        """
        check_flag("allow_special", allow_special)
        check_flag("add_special_tokens", add_special_tokens)
        ids = self._encode(text, allow_special, self._caches[allow_special].__getitem__)
        return self._processor.ids(ids) if add_special_tokens else ids

    def prompt(self, text: str) -> list[int]:
        """The ids of a text that is to be continued: as encode(text, add_special_tokens=True), but without the end: what the
        post-processor puts in front of a single text, and the text.  Training and generation both begin with these."""
        around = self._processor.ids([-1])  # -1 stands for the text
        return [*around[: around.index(-1) if -1 in around else 0], *self.encode(text)]

    def continuations(
        self, prompt: str, answers: Iterable[str]
    ) -> tuple[list[int], list[list[int]]]:
        """(ids of the prompt, ids of each answer): together those of the whole text, self.prompt(prompt + answer).

        The prompt's ids are the longest beginning that self.prompt(prompt) and all the whole texts share.  So a token that
        reaches over the border belongs to the answer: it holds characters that are to be predicted, and the text keeps the tokens
        that pretraining knows.  All answers then count the same text.  Only in this case does generation from `prompt` begin with
        other ids than training: end prompts where a token ends, best in front of a space ("A:", " 4").
        ValueError if the prompt's first token reaches into an answer.
        """
        return continuation.continuations(self, prompt, as_texts("answers", answers))

    def continue_ids(self, ids: Sequence[int], text: str, allow_special: bool = False) -> list[int]:
        """The ids that `text` adds to ids that stay as they are, because a model has read or written them.

        decode(ids + new) == decode(ids) + text wherever the tokenizer can express it: no space is put in front.  Directly behind
        a special token the ids are those that encode has behind it.
        """
        check_flag("allow_special", allow_special)
        return continuation.continue_ids(self, self._checked(ids), text, allow_special)

    def sample(
        self, text: str, key: int, *, alpha: float = 0.1, allow_special: bool = False
    ) -> list[int]:
        """The ids of a random segmentation: x with probability in proportion to P(x)^alpha, word by word.

        Subword regularisation (Kudo 2018, section 3.3): in each epoch the model sees a text cut in other ways.  key: random.py.
        ValueError if the model has no probabilities: only Unigram has.
        """
        check_flag("allow_special", allow_special)
        check_key("key", key)
        check_number("alpha", alpha, least=0)
        model, numbers = self._models[allow_special], count()
        if not isinstance(model, Unigram):
            raise ValueError(
                f"segmentations can be sampled from a Unigram model, and this one is {type(model).__name__}"
            )
        return self._encode(
            text, allow_special, lambda word: model.sample(word, fold(key, next(numbers)), alpha)
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
            if self._asks_for_first and first:
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
        """(id, start, end) of the word's tokens; without allow_special no text is taken for a special one."""
        return self._spans[bool(allow_special)][word]

    def encode_batch(
        self, texts: Iterable[str], allow_special: bool = False, add_special_tokens: bool = False
    ) -> list[list[int]]:
        if isinstance(texts, str):
            raise TypeError("texts must be several strings, got a single str")
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
        """Ids, tokens, offsets, token types and more, of a text or of two; the ids are those of `encode`."""
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
    ) -> dict[str, Any]:
        """Arrays for a model, (B, T) int64: input_ids, attention_mask, token_type_ids and more (encoding.py).

        truncation, padding: those of the file where none are given.  Without padding all texts must have the same length.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise TypeError("texts and pairs must be several strings, got a single str")
        _check_settings(truncation, padding)
        texts, pairs = as_texts("texts", texts), None if pairs is None else as_texts("pairs", pairs)
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(
                f"there must be a pair for each text, got {len(texts)} texts and {len(pairs)} pairs"
            )
        options = {
            "allow_special": allow_special,
            "add_special_tokens": add_special_tokens,
            "truncation": truncation,
        }
        encodings = [
            self.encoding(text, pair, **options)
            for text, pair in zip(texts, pairs or [None] * len(texts))
        ]
        if padding is not None:
            self._check_id("padding: pad_id", padding.pad_id)
        padding = padding or self.padding
        return arrays(pad(encodings, padding) if padding else encodings)

    @property
    def _processor(self) -> Any:
        return self.post_processor or PostProcessors()  # without parts it joins

    # ---- ids to text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens, joined, where the vocabulary is one of bytes. Any ids will do; they need not be text."""
        if self._bytes is None:
            raise ValueError(
                "the tokens of this tokenizer are not bytes: its decoder is not ByteLevel"
            )
        return b"".join(map(self._bytes.__getitem__, self._checked(ids)))

    def decode(
        self, ids: Iterable[int], skip_special: bool = False, after: Sequence[int] = ()
    ) -> str:
        """The text of the tokens, without special ones if `skip_special`. U+FFFD for what is not UTF-8.

        after: the ids before, a prompt: the result is the text that `ids` add to theirs, where a first word keeps its space.
        """
        check_flag("skip_special", skip_special)
        ids, after = self._checked(ids), self._checked(after, "after")
        if after and self._bytes is None:
            return self.decode([*after, *ids], skip_special)[
                len(self.decode(after, skip_special)) :
            ]
        if skip_special:
            ids = [i for i in ids if i not in self._special]
        if self._bytes is not None:
            return b"".join(map(self._bytes.__getitem__, ids)).decode("utf-8", errors="replace")
        tokens = [self._tokens[id] for id in ids]
        return " ".join(tokens) if self.decoder is None else "".join(self.decoder.chain(tokens))

    def stream(
        self, skip_special: bool = False, after: Sequence[int] = ()
    ) -> ByteStream | TokenStream:
        """Text of ids as they come: push(id) -> the text that is certain by now, finish() -> the rest (stream.py).

        after: ids that went before, a prompt: a word that begins with a space has one then.
        """
        check_flag("skip_special", skip_special)
        after = self._checked(after, "after")
        return (TokenStream if self._bytes is None else ByteStream)(self, skip_special, after)

    # ---- the vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included: ids are 0 .. vocab_size - 1."""
        return len(self._tokens)

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id in the order of ids, added tokens included: a copy."""
        return dict(self._ids)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {type(self.model).__name__}, {len(self)} tokens, {len(self.added_tokens)} of them added>"

    @property
    def eos_id(self) -> int | None:
        """The id of the token that ends every document: eos_token, or else <|endoftext|>; None if the vocabulary has none."""
        return (
            self.named_id("eos_token") if "eos_token" in self.named else self._ids.get(END_OF_TEXT)
        )

    def named_id(self, name: str) -> int | None:
        """The id of "bos_token", "pad_token", "mask_token" ...; None if there is none."""
        check_text("name", name)
        return self._ids.get(self.named.get(name))

    def token_to_id(self, token: str) -> int | None:
        """`token` spelled as in the file, in GPT-2's characters: "Ġdog" for " dog". None if there is none."""
        check_text("token", token)
        return self._ids.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The inverse; None if there is none."""
        return self._tokens[id] if 0 <= _index(id, "id") < len(self._tokens) else None

    def is_special(self, id: int) -> bool:
        return _index(id, "id") in self._special

    def _checked(self, ids: Iterable[int], name: str = "ids") -> list[int]:
        try:
            ids = list(map(index, ids))
        except TypeError:
            raise TypeError(
                f"{name} must be several integers, in one dimension, got {shown(ids)}"
            ) from None
        size = len(self._tokens)
        if ids and (min(ids) < 0 or max(ids) >= size):
            outside = next(i for i in ids if not 0 <= i < size)
            raise ValueError(
                f"id {shown(outside)} is not in the vocabulary: it has {size} ids, 0 to {size - 1}"
            )
        return ids


def _index(value: Any, name: str) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {shown(value)}") from None


def _check_settings(truncation: Any, padding: Any) -> None:
    """Other libraries have True and numbers in their place."""
    for name, value, kind in (
        ("truncation", truncation, Truncation),
        ("padding", padding, Padding),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__} or None, got {shown(value)}")
