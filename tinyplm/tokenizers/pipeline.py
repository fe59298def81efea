"""Runs a text through the components, in two forms: a fast one for ids alone, and one with spans.

Both yield the same ids.  The fast form (Tokenizer.encode) works on plain strings, cuts a text into
words in one call and encodes each distinct word once; `fast_cut` is its pre-tokenization.  The form
with spans tracks each character (text/alignment.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from .component import Model, Normalizer
from .text.alignment import Aligned
from .text.pretokenization import Metaspace, PreTokenizer
from .text.pretokenization import Sequence as PreTokenizers

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

T = TypeVar("T")
# cut(text, first): the words; first: the piece is at the start of the whole text
Cut = Callable[[str, bool], list[str]]


def fast_cut(
    pre_tokenizer: PreTokenizer | None, model: Model | None
) -> tuple[Cut, Callable[[str], str] | None]:
    """(cut, spell): cut splits a text into words, spell converts a word for the model, if needed.

    Byte-level pre-tokenizers separate the two, so that only distinct words are converted to byte
    characters.
    """
    parts = getattr(model, "cut", None)
    if pre_tokenizer is None:  # the text is a single word, possibly a very long one
        return (lambda text, first: parts(text)) if parts else (lambda text, first: [text]), None
    if parts and isinstance(pre_tokenizer, Metaspace) and not pre_tokenizer.split:
        whole = pre_tokenizer.cut
        return (lambda text, first: [p for word in whole(text, first) for p in parts(word)]), None
    if spell := getattr(pre_tokenizer, "spell", None):
        return getattr(pre_tokenizer, "words"), spell  # noqa: B009 - the two go together
    return pre_tokenizer.cut, None


def depends_on_first(pre_tokenizer: PreTokenizer | None) -> bool:
    """Whether it treats the start of the whole text differently."""
    if isinstance(pre_tokenizer, PreTokenizers):
        return any(map(depends_on_first, pre_tokenizer.pretokenizers))
    return isinstance(pre_tokenizer, Metaspace) and pre_tokenizer.prepend_scheme == "first"


def begins_with_text(normalizer: Normalizer, text: str) -> bool:
    """Whether the text's first character is still the first after normalization, not dropped."""
    piece = normalizer.aligned(Aligned.of(text))
    return not piece.text or piece.spans[0][0] == 0


def tokens_with_spans(
    tokenizer: Tokenizer, text: str, allow_special: bool
) -> Iterator[tuple[int, int, int, int, str | None]]:
    """(id, start, end, word number, matched text) of each token; start and end index `text`.

    The matched text is None except for added tokens, where it may include the white space around
    their content.  An added token is a word of its own.
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


class WordCache(dict[str, T], Generic[T]):
    """word -> encode(word).  Words repeat a lot, so most are looked up and not encoded again.

    It is cleared when full: words in use return at once, and no order of use has to be tracked.
    Safe to use from several threads: each step is a single dict operation, and a missing word is
    simply encoded.
    """

    MAX_WORDS = 1 << 17
    MAX_LENGTH = 64  # longer words rarely repeat, and caching them would make the memory unbounded

    def __init__(self, encode: Callable[[str], T], spell: Callable[[str], str] | None):
        super().__init__()
        self.encode, self.spell = encode, spell

    def __missing__(self, word: str) -> T:
        ids = self.encode(self.spell(word) if self.spell else word)
        if len(word) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids
