"""Added tokens: matched in the text as a whole, before any cutting into words.

    "Hi<|endoftext|>you"  ->  "Hi", <|endoftext|>, "you"

Of the tokens that begin at one place the longest is taken, and the leftmost match goes first.  The flags, as in the library
`tokenizers`:

    special        marks structure rather than text (end of text, padding): only matched when the caller allows it
    normalized     is looked for in the normalised text (its content normalised too), in what the others left over
    single_word    not next to a letter, digit or other \\w: "ing" is not found in "doing"
    lstrip, rstrip takes the white space on its left, on its right, along; an added token " " is found in it nevertheless
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from os.path import commonprefix

import regex

from ...arguments import check_flag, check_text, check_whole
from ..component import Component
from ..vocabulary import MAX_SYMBOLS

Found = list[
    tuple[int, int, "int | None"]
]  # (start, end, id of the token, None for text between tokens)

MOST_IN_A_PATTERN = 1000  # tokens; it takes 50 microseconds for each to compile one
DEEPEST_PATTERN = 40

_ends_with_word, _begins_with_word = regex.compile(r"\w\Z").search, regex.compile(r"\w").match
_spaces = regex.compile(r"\s*")
_spaces_at_end = regex.compile(r"(?r)\s*")  # (?r): searched from the end


@dataclass(frozen=True)
class AddedToken(Component):
    content: str
    id: int
    special: bool = True
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False

    def __post_init__(self) -> None:
        check_text("content", self.content)
        check_whole("id", self.id, 0, MAX_SYMBOLS - 1)
        for name in ("special", "normalized", "single_word", "lstrip", "rstrip"):
            check_flag(name, getattr(self, name))

    def to_json(self) -> dict:
        keys = ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
        return {key: getattr(self, key) for key in keys}


class AddedTokens:
    """find(text, normalized, allow_special) cuts a text into added tokens and what is between them; none of it is empty."""

    def __init__(self, tokens: Iterable[AddedToken], normalize: Callable[[str], str] | None):
        """normalize: the normaliser, for the contents that are looked for in normalised text."""
        contents = [
            (normalize(token.content) if token.normalized and normalize else token.content, token)
            for token in tokens
        ]
        self._matchers = {}
        for normalized in (False, True):
            every = {
                content: token
                for content, token in contents
                if content and token.normalized is normalized
            }
            plain = {
                content: token
                for content, token in contents
                if content in every and token.normalized is normalized and not token.special
            }
            self._matchers[normalized, True] = matcher = _matcher(every), every
            self._matchers[normalized, False] = (
                matcher if plain == every else (_matcher(plain), plain)
            )

    def find(self, text: str, normalized: bool, allow_special: bool) -> Found:
        spans, chosen = self._matchers[normalized, allow_special]
        if spans is None:
            return [(0, len(text), None)] if text else []
        found: Found = []
        done = 0
        for start, end in spans(text):
            token = chosen[text[start:end]]
            if token.single_word and (
                _ends_with_word(text, 0, start) or _begins_with_word(text, end)
            ):
                continue
            if token.lstrip:
                start = max(_spaces_at_end.match(text, 0, start).start(), done)
            if token.rstrip:
                end = _spaces.match(text, end).end()
            if start >= end:  # all of it went along with the match before
                continue
            if done < start:
                found.append((done, start, None))
            found.append((start, end, token.id))
            done = end
        if done < len(text):
            found.append((done, len(text), None))
        return found


def _matcher(contents: Collection[str]) -> Callable[[str], Iterable[tuple[int, int]]] | None:
    """A function that finds where one of the texts stands, the leftmost and longest; None if there are no texts."""
    if not contents:
        return None
    texts = sorted(contents)
    small = len(texts) <= MOST_IN_A_PATTERN and sum(map(len, texts)) <= 50 * MOST_IN_A_PATTERN
    if not small or (tree := _longest_of(texts)) is None:
        return _Many(texts)
    pattern = regex.compile(tree)
    return lambda text: [match.span() for match in pattern.finditer(text)]


class _Many:
    """For thousands of texts: at each place where one may begin, slices of the text are looked up, the longest first."""

    def __init__(self, texts: Iterable[str]):
        self.texts = frozenset(texts)
        lengths = defaultdict(set)
        for text in self.texts:
            lengths[text[0]].add(len(text))
        self.lengths = {
            char: sorted(known) for char, known in lengths.items()
        }  # by the first character
        self.begin = regex.compile(f"[{''.join(map(regex.escape, self.lengths))}]")

    def __call__(self, text: str) -> Iterator[tuple[int, int]]:
        end = 0
        for match in self.begin.finditer(text):
            start = match.start()
            if start < end:
                continue
            lengths = self.lengths[match.group()]
            for k in range(bisect_right(lengths, len(text) - start) - 1, -1, -1):
                if text[start : start + lengths[k]] in self.texts:
                    end = start + lengths[k]
                    yield start, end
                    break


def _longest_of(texts: list[str], depth: int = 0) -> str | None:
    """The regular expression for the longest of several texts (sorted, different) that stands at a place.

    It is written as a tree, ["ab", "abcd", "abx"] as ab(?:cd|x)?, so that a place is not compared with each text in turn.  None
    if it would be deeper than `regex` reads.
    """
    prefix = commonprefix([texts[0], texts[-1]])
    rests = [text[len(prefix) :] for text in texts if text != prefix]
    if not rests:
        return regex.escape(prefix)
    if depth == DEEPEST_PATTERN:
        return None
    branches = [
        _longest_of([*branch], depth + 1) for _, branch in groupby(rests, key=lambda rest: rest[0])
    ]
    if None in branches:
        return None
    return f"{regex.escape(prefix)}(?:{'|'.join(branches)}){'?' if len(rests) < len(texts) else ''}"
