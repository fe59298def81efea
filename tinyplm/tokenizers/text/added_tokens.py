"""Added tokens: matched as a whole, before the text is cut into words.

    "Hi<|endoftext|>you"  ->  "Hi", <|endoftext|>, "you"

The leftmost match comes first, and among tokens that start at the same position the longest wins.
The flags are those of the library `tokenizers`:

    special        marks structure (end of text, padding): only matched if the caller allows it
    normalized     is matched, with normalized content, in the normalized text between the others
    single_word    does not match next to a letter, digit or other \\w: no "ing" in "doing"
    lstrip, rstrip takes the adjacent white space, too, but not an added token in it, such as " "
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from os.path import commonprefix
from typing import NamedTuple

import regex

from ...arguments import check_flag, check_text, check_whole
from ..component import Component
from ..vocabulary import MAX_SYMBOLS

# (start, end, id of the token; None for the text between tokens)
Found = list[tuple[int, int, int | None]]
# finds the spans of the leftmost longest matches
Finder = Callable[[str], Iterable[tuple[int, int]]]

MOST_IN_A_PATTERN = 1000  # tokens; compiling takes 50 microseconds for each
DEEPEST_PATTERN = 40

_ends_with_word, _begins_with_word = regex.compile(r"\w\Z").search, regex.compile(r"\w").match
_spaces = regex.compile(r"\s*")
_spaces = regex.compile(r"\s*")
_spaces_at_end = regex.compile(r"(?r)\s*")  # (?r): search backward


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

    def to_json(self) -> dict[str, object]:
        keys = ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
        return {key: getattr(self, key) for key in keys}


class _Matcher(NamedTuple):
    find: Finder | None  # None: there are no tokens
    tokens: dict[str, AddedToken]


class AddedTokens:
    """find(text, normalized, allow_special) cuts a text into added tokens and the text between
    them."""

    def __init__(self, tokens: Iterable[AddedToken], normalize: Callable[[str], str] | None):
        """normalize: the normalizer, applied to the content of `normalized` tokens."""
        contents = [
            (normalize(token.content) if token.normalized and normalize else token.content, token)
            for token in tokens
        ]
        self._matchers: dict[tuple[bool, bool], _Matcher] = {}  # by normalized, allow_special
        for normalized in (False, True):
            chosen = [pair for pair in contents if pair[0] and pair[1].normalized is normalized]
            every = dict(chosen)
            plain = {content: token for content, token in chosen if not token.special}
            self._matchers[normalized, True] = matcher = _Matcher(_finder(every), every)
            self._matchers[normalized, False] = (
                matcher if plain == every else _Matcher(_finder(plain), plain)
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
                spaces = _spaces_at_end.match(text, 0, start)
                start = max(spaces.start() if spaces else start, done)
            if token.rstrip:
                spaces = _spaces.match(text, end)
                end = spaces.end() if spaces else end
            if start >= end:  # the previous match took all of it
                continue
            if done < start:
                found.append((done, start, None))
            found.append((start, end, token.id))
            done = end
        if done < len(text):
            found.append((done, len(text), None))
        return found


def _finder(contents: Collection[str]) -> Finder | None:
    """A function that finds the leftmost longest occurrences of strings; None without strings."""
    if not contents:
        return None
    texts = sorted(contents)
    small = len(texts) <= MOST_IN_A_PATTERN and sum(map(len, texts)) <= 50 * MOST_IN_A_PATTERN
    if not small or (tree := _longest_of(texts)) is None:
        return _Many(texts)
    pattern = regex.compile(tree)
    return lambda text: [match.span() for match in pattern.finditer(text)]


class _Many:
    """For thousands of strings: where one may start, slices of the text are looked up, longest
    first."""

    def __init__(self, texts: Iterable[str]):
        self.texts = frozenset(texts)
        lengths: dict[str, set[int]] = defaultdict(set)  # by first character
        for text in self.texts:
            lengths[text[0]].add(len(text))
        self.lengths = {char: sorted(known) for char, known in lengths.items()}
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
    """A regular expression that matches the longest of several strings (sorted, distinct).

    It is written as a tree, ["ab", "abcd", "abx"] as ab(?:cd|x)?, so that a position is not
    compared with each string in turn.  None if the tree is too deep for `regex`.
    """
    prefix = commonprefix([texts[0], texts[-1]])
    rests = [text[len(prefix) :] for text in texts if text != prefix]
    if not rests:
        return regex.escape(prefix)
    if depth == DEEPEST_PATTERN:
        return None
    branches = []
    for _, group in groupby(rests, key=lambda rest: rest[0]):
        if (branch := _longest_of([*group], depth + 1)) is None:
            return None
        branches.append(branch)
    return f"{regex.escape(prefix)}(?:{'|'.join(branches)}){'?' if len(rests) < len(texts) else ''}"
