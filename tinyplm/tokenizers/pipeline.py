"""The way of a text through the components, in two forms: fast for ids alone, and with spans.

Both give the same ids.  The fast form (Tokenizer.encode) works on plain strings, cuts a text into words in one call, and
computes each distinct word once; here is how it cuts.  The form with spans follows each character (alignment.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .text.alignment import Aligned
from .text.pretokenization import Metaspace
from .text.pretokenization import Sequence as PreTokenizers

Cut = Callable[
    [str, bool], "list[str]"
]  # cut(text, first): first says that it stands at the beginning of the whole text


def fast_cut(pre_tokenizer: Any, model: Any) -> tuple[Cut, Callable[[str], str] | None]:
    """(cut, spell): text to words, and a word as the model sees it; spell is None where that is the word itself.

    Byte-level pre-tokenizers have the two apart, so that only distinct words are written in byte characters.
    """
    parts = getattr(model, "cut", None)
    if pre_tokenizer is None:  # a text is one word then, which may be longer than is good
        return (lambda text, first: parts(text)) if parts else (lambda text, first: [text]), None
    if parts and isinstance(pre_tokenizer, Metaspace) and not pre_tokenizer.split:
        return (
            lambda text, first: [
                part for word in pre_tokenizer.cut(text, first) for part in parts(word)
            ]
        ), None
    if spell := getattr(pre_tokenizer, "spell", None):
        return pre_tokenizer.words, spell
    return pre_tokenizer.cut, None


def asks_for_first(pre_tokenizer: Any) -> bool:
    """Does it do something else at the beginning of the whole text?"""
    if isinstance(pre_tokenizer, PreTokenizers):
        return any(map(asks_for_first, pre_tokenizer.pretokenizers))
    return isinstance(pre_tokenizer, Metaspace) and pre_tokenizer.prepend_scheme == "first"


def begins_with_text(normalizer: Any, text: str) -> bool:
    """Is the first character of the normalised text that of the text?  Not if something was dropped before it."""
    piece = normalizer.aligned(Aligned.of(text))
    return not piece.text or piece.spans[0][0] == 0


def tokens_with_spans(
    tokenizer: Any, text: str, allow_special: bool
) -> Iterator[tuple[int, int, int, int, str | None]]:
    """(id, start, end, number of the word, what stands there) for each token; start and end are places in `text`.

    An added token is a word, and what stands there may be more than its content: the spaces that it took along.
    """
    word = 0
    added = tokenizer._added
    for start, end, id in added.find(text, False, allow_special):
        if id is not None:
            yield id, start, end, word, text[start:end]
            word += 1
            continue
        piece = Aligned.of(text[start:end], start)
        if tokenizer.normalizer is not None:
            piece = tokenizer.normalizer.aligned(piece)
        for a, b, id in added.find(piece.text, True, allow_special):
            if id is not None:
                yield id, *piece.original(a, b), word, piece.text[a:b]
                word += 1
                continue
            part = piece.part(a, b)
            cut = tokenizer.pre_tokenizer
            for w in [part] if cut is None else cut.cut_aligned(part, part.start == 0):
                for id, c, d in tokenizer.spans_of(w.text, allow_special):
                    yield id, *w.original(c, d), word, None
                word += 1


class WordCache(dict):
    """word -> its ids, or what else `encode` gives. Words repeat a lot in text, so most are looked up and not computed again.

    When full it is emptied: words in use come back at once, and no order of use has to be kept. Several threads may use it
    at once: each step is one of dict, and what is not found is computed.
    """

    MAX_WORDS = 1 << 17
    MAX_LENGTH = (
        64  # long words are rare and hardly repeat; kept, they would make the memory unbounded
    )

    def __init__(self, encode: Callable[[str], Sequence[int]], spell: Callable[[str], str] | None):
        super().__init__()
        self.encode, self.spell = encode, spell

    def __missing__(self, word: str) -> Sequence[int]:
        ids = self.encode(self.spell(word) if self.spell else word)
        if len(word) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids
