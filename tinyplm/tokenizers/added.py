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

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from os.path import commonprefix

import regex

from .component import Component

Found = list[tuple[int, int, "int | None"]]  # (start, end, id of the token, None for text between tokens)

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

    def to_json(self) -> dict:
        keys = ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
        return {key: getattr(self, key) for key in keys}


class AddedTokens:
    """find(text, normalized, allow_special) cuts a text into added tokens and what is between them; none of it is empty."""

    def __init__(self, tokens: Iterable[AddedToken], normalize: Callable[[str], str] | None):
        """normalize: the normaliser, for the contents that are looked for in normalised text."""
        self._matchers = {}
        tokens = list(tokens)
        for normalized in (False, True):
            for allow_special in (False, True):
                chosen = {}
                for token in tokens:
                    if token.normalized is normalized and (allow_special or not token.special):
                        content = normalize(token.content) if normalized and normalize else token.content
                        if content:
                            chosen[content] = token
                pattern = regex.compile(_longest_of(sorted(chosen))) if chosen else None
                self._matchers[normalized, allow_special] = pattern, chosen

    def find(self, text: str, normalized: bool, allow_special: bool) -> Found:
        pattern, chosen = self._matchers[normalized, allow_special]
        if pattern is None:
            return [(0, len(text), None)] if text else []
        found: Found = []
        done = 0
        for match in pattern.finditer(text):
            token = chosen[match.group()]
            start, end = match.span()
            if token.single_word and (_ends_with_word(text, 0, start) or _begins_with_word(text, end)):
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


def _longest_of(texts: list[str]) -> str:
    """The regular expression for the longest of several texts (sorted, different) that stands at a place.

    It is written as a tree, ["ab", "abcd", "abx"] as ab(?:cd|x)?, so that a place is not compared with each text in turn: there
    may be thousands.
    """
    prefix = commonprefix(texts)
    rests = [text[len(prefix) :] for text in texts if text != prefix]
    if not rests:
        return regex.escape(prefix)
    branches = "|".join(_longest_of([*branch]) for _, branch in groupby(rests, key=lambda rest: rest[0]))
    return f"{regex.escape(prefix)}(?:{branches}){'?' if len(rests) < len(texts) else ''}"
