"""The tokenizer: text to ids and back. Byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2).

    text --added tokens cut out--> pieces --pattern--> words --UTF-8--> bytes --merges--> ids

Reading order: bytelevel.py (words and bytes), bpe.py (merges), files.py (tokenizer.json), then this.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import index

import regex

from . import files
from .bpe import BPE, MAX_SYMBOLS, train_bpe
from .bytelevel import (
    BYTE_TO_CHAR,
    CHAR_TO_BYTE,
    chars_to_bytes,
    check_encodable,
    split_words,
)
from .files import END_OF_TEXT, AddedToken, TokenizerFile


class Tokenizer:
    """Made by `Tokenizer.train` or `Tokenizer.load`.

    Special tokens: the text of a special token that happens to stand in a document ("<|endoftext|>") is
    ordinary text unless `allow_special=True`, so that nobody can forge the structure of the data by writing
    it. The library `tokenizers` has no such distinction, it always takes it for the special token: encode
    there equals encode(text, allow_special=True) here. Added tokens that are not special are always matched,
    in both.

    decode(encode(text)) == text for any text, provided the file does not add a space in front
    (`add_prefix_space`).
    """

    def __init__(self, file: TokenizerFile):
        self.file = file
        self._tokens = _by_id(file)
        self._ids = {token: i for i, token in enumerate(self._tokens)}
        self._bytes = [chars_to_bytes(token) for token in self._tokens]
        for token in file.added_tokens:  # text as it stands; the library reads "é" as the byte 0xe9
            check_encodable(token.content, "the content of an added token")
            self._bytes[token.id] = token.content.encode("utf-8")
        self._special = {token.id for token in file.added_tokens if token.special}
        self._matchers = [
            _matchers(t for t in file.added_tokens if not t.special),
            _matchers(file.added_tokens),
        ]
        self._prefix = file.pre_tokenizer["add_prefix_space"]
        self._split = split_words if file.pre_tokenizer.get("use_regex", True) else lambda text: [text]
        symbols = [file.vocab.get(char) for char in BYTE_TO_CHAR]
        self._words = _WordCache(BPE(_merges(file)), [None if i is None else chr(i) for i in symbols])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str] = (END_OF_TEXT,)) -> Tokenizer:
        """Learn a vocabulary: the special tokens, the 256 bytes, and merges up to `vocab_size` tokens in all.

        Fewer, if each word of the texts has become one token before that: `.vocab_size` of the result says.
        The order of the texts plays no part. Ids are in the order above, bytes sorted by their characters, as
        the library `tokenizers` gives them.
        """
        if isinstance(texts, str) or isinstance(special_tokens, str):
            raise TypeError("texts and special_tokens must be several strings, got a single str")
        specials = list(special_tokens)
        for token in specials:
            check_encodable(token, "a special token")
            if not token or token in CHAR_TO_BYTE or specials.count(token) > 1:
                raise ValueError(f"special tokens must differ, from bytes too, and not be empty: {token!r} is wrong")
        if vocab_size < 256 + len(specials):
            raise ValueError(f"vocab_size {vocab_size} is too small for the 256 bytes and {len(specials)} special tokens")

        words: Counter[str] = Counter()
        for number, text in enumerate(texts):
            check_encodable(text, f"text {number}")
            words.update(split_words(text))
        if not words:
            raise ValueError("the texts to train on hold no text at all")

        tokens = specials + sorted(BYTE_TO_CHAR)
        symbols = [""] * 256
        for i, char in enumerate(tokens[len(specials) :], len(specials)):
            symbols[CHAR_TO_BYTE[char]] = chr(i)
        counts = {"".join(map(symbols.__getitem__, word.encode())): count for word, count in words.items()}
        tokens, merges = train_bpe(counts, tokens, vocab_size)
        return cls(
            TokenizerFile(
                vocab={token: i for i, token in enumerate(tokens)},
                merges=[(tokens[a], tokens[b]) for a, b, _ in merges],
                added_tokens=[AddedToken(token, i) for i, token in enumerate(specials)],
            )
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> Tokenizer:
        """From a tokenizer.json, or from a folder that has one or vocab.json and merges.txt."""
        return cls(files.read(path))

    def save(self, path: str | os.PathLike) -> None:
        """Write tokenizer.json for us, `tokenizers` and `transformers`. `path`: the file, or its folder."""
        files.write(self.file, path)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """The ids of the text; none are added. ValueError on lone surrogates: they have no UTF-8 form."""
        check_encodable(text)
        pieces: Iterable[str | int] = (text,)
        for pattern in self._matchers[bool(allow_special)]:
            pieces = self._cut_out(pieces, pattern)
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
            elif piece:
                if self._prefix and not piece.startswith(" "):
                    piece = " " + piece
                ids.extend(chain.from_iterable(map(self._words.__getitem__, self._split(piece))))
        return ids

    def encode_batch(self, texts: Iterable[str], allow_special: bool = False) -> list[list[int]]:
        if isinstance(texts, str):
            raise TypeError("texts must be several strings, got a single str")
        return [self.encode(text, allow_special) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens, joined. Any ids will do; they need not be text."""
        return b"".join(map(self._bytes.__getitem__, self._checked(ids)))

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of the tokens, without special ones if `skip_special`. U+FFFD for what is not UTF-8."""
        ids = self._checked(ids)
        if skip_special:
            ids = [i for i in ids if i not in self._special]
        return b"".join(map(self._bytes.__getitem__, ids)).decode("utf-8", errors="replace")

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included: ids are 0 .. vocab_size - 1."""
        return len(self._tokens)

    @property
    def eos_id(self) -> int | None:
        """The id of <|endoftext|>, which ends every document; None if the vocabulary has none."""
        return self._ids.get(END_OF_TEXT)

    def token_to_id(self, token: str) -> int | None:
        """`token` spelled as in the file, in GPT-2's characters: "Ġdog" for " dog". None if there is none."""
        return self._ids.get(token)

    def id_to_token(self, id: int) -> str | None:
        return self._tokens[id] if 0 <= id < len(self._tokens) else None

    def _checked(self, ids: Iterable[int]) -> list[int]:
        ids = list(map(index, ids))
        size = len(self._tokens)
        if ids and (min(ids) < 0 or max(ids) >= size):
            wrong = next(i for i in ids if not 0 <= i < size)
            raise ValueError(f"id {wrong} is not in the vocabulary: it has {size} ids, 0 to {size - 1}")
        return ids

    def _cut_out(self, pieces: Iterable[str | int], pattern: regex.Pattern) -> Iterator[str | int]:
        for piece in pieces:
            if isinstance(piece, int):
                yield piece
            else:
                for k, part in enumerate(pattern.split(piece)):  # text, token, text, token, ..., text
                    yield self._ids[part] if k % 2 else part


class _WordCache(dict):
    """word -> its ids. Words repeat a lot in text, so most are looked up and not merged again.

    When full it is emptied: words in use come back at once, and no order of use has to be kept.
    """

    MAX_WORDS = 1 << 17
    MAX_LENGTH = 64  # long words are rare and hardly repeat; kept, they would make the memory unbounded

    def __init__(self, bpe: BPE, symbols: list[str | None]):
        super().__init__()
        self.bpe, self.symbols = bpe, symbols  # symbols[byte]

    def __missing__(self, word: str) -> tuple[int, ...]:
        data = word.encode("utf-8")
        try:
            symbols = "".join(map(self.symbols.__getitem__, data))
        except TypeError:
            missing = next(byte for byte in data if self.symbols[byte] is None)
            raise ValueError(f"the vocabulary has no token for the byte 0x{missing:02x}, which occurs in {word!r}") from None
        ids = tuple(map(ord, self.bpe.merge(symbols)))
        if len(word) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids


def _by_id(file: TokenizerFile) -> list[str]:
    """The tokens in the order of their ids, which must be 0, 1, 2, ... each used once."""
    token_of: dict[int, str] = {}
    for token, i in chain(file.vocab.items(), ((t.content, t.id) for t in file.added_tokens)):
        if type(i) is not int or i < 0:
            raise ValueError(f"the id of token {token!r} must be a number from 0 on, got {i!r}")
        if token_of.setdefault(i, token) != token:
            raise ValueError(f"id {i} is given to both {token_of[i]!r} and {token!r}")
        if file.vocab.get(token, i) != i:
            raise ValueError(f"added token {token!r} has id {i}, but id {file.vocab[token]} in the vocabulary")
    if len(token_of) > MAX_SYMBOLS:
        raise ValueError(f"{len(token_of)} tokens are more than {MAX_SYMBOLS}, the most this implementation can hold")
    for i in range(len(token_of)):
        if i not in token_of:
            raise ValueError(f"the vocabulary has a hole: no token has id {i}, but {len(token_of)} ids are used")
    tokens = [token_of[i] for i in range(len(token_of))]
    if len(set(tokens)) < len(tokens):
        twice = next(token for token, count in Counter(tokens).items() if count > 1)
        raise ValueError(f"token {twice!r} is added twice, with different ids")
    return tokens


def _merges(file: TokenizerFile) -> Iterator[tuple[int, int, int]]:
    for number, (a, b) in enumerate(file.merges):
        for token in (a, b, a + b):
            if token not in file.vocab:
                raise ValueError(f"merge {number} ({a!r}, {b!r}) needs token {token!r}, not in the vocabulary")
        yield file.vocab[a], file.vocab[b], file.vocab[a + b]


def _matchers(added: Iterable[AddedToken]) -> list[regex.Pattern]:
    """Patterns, to be tried one after the other; each finds the leftmost token, the longest if several."""
    added = list(added)
    patterns = []
    for normalized in (False, True):
        contents = sorted((t.content for t in added if t.normalized is normalized and t.content), key=len, reverse=True)
        if contents:
            patterns.append(regex.compile("(" + "|".join(map(regex.escape, contents)) + ")"))
    return patterns
