"""What counts as a word, a line and a paragraph in the rules.

Words are what stands between white space, as in the papers' code.  Chinese and Japanese have no
spaces: there every ideograph and kana is a word of its own, so that counts of words keep their
meaning, and a text is called `unspaced` if these are most of its words.  What speaks of the form of
words (their mean length, stop words) is then not asked.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc"  # signs of repetition, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
)
_ONE = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


class Words(NamedTuple):
    words: list[str]
    unspaced: bool


def words_of(text: str) -> Words:
    """The words of a text, in order."""
    if text.isascii() or not _ONE.search(text):
        return Words(text.split(), False)
    words = _WORD.findall(text)
    single = sum(map(len, _ONE.findall(text)))
    return Words(words, 2 * single > len(words))


def lines_of(text: str) -> list[str]:
    """The lines that are not blank, without white space at their ends."""
    return [line for line in map(str.strip, text.split("\n")) if line]


def paragraphs_of(text: str) -> list[str]:
    """The blocks between empty lines."""
    return [block for block in map(str.strip, text.split("\n\n")) if block]
