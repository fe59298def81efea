"""Bytes as characters: the words of byte-level BPE, and the inverse.

Radford et al. 2019, section 2.2 ("Input Representation"): the base alphabet is the 256 bytes of
UTF-8, so any text can be written with it and nothing is ever unknown.  Merges must not cross the
border between kinds of characters, or the vocabulary fills up with "dog.", "dog!", "dog?".  So text
is first cut into words by a pattern, and BPE then works within each word.

Files store tokens as text, and most byte strings are not text.  GPT-2 therefore gives each byte a
printable character: the 188 bytes that are printable in Latin-1 stand for themselves; the other 68
(controls, space, 0x7f-0xa0, 0xad) are mapped to U+0100, U+0101, ... in order.  A space is then "Ġ"
(U+0120) and a newline "Ċ" (U+010A), as seen in every vocab.json.
"""

from __future__ import annotations

import regex

from ...arguments import mismatch, shown

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

BYTE_TO_CHAR: list[str] = [
    chr(0x100 + _OTHERS.index(b)) if b in _OTHERS else chr(b) for b in range(256)
]
CHAR_TO_BYTE: dict[str, int] = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}

# The alternatives, in order: an English contraction; a run of letters, of digits, of other visible
# characters, each with one optional space before it; a run of spaces before a word, except the last
# one (which belongs to the word); other spaces.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# "abc def" -> ["abc", " ", " def"].  Every character is in exactly one word: the words join to the
# text.
#
# Which characters are letters and digits depends on the Unicode version of the package `regex`.  A
# library with an older version (tokenizers 0.23: Unicode 16) treats newer characters as "other
# visible characters".
split_words = regex.compile(GPT2_PATTERN).findall


def check_encodable(text: str, name: str = "text") -> None:
    """ValueError for text without a UTF-8 form: a lone surrogate (half of a UTF-16 pair, U+D800 to
    U+DFFF)."""
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a string, got {shown(text)}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        given = f"the lone surrogate U+{code:04X} at position {error.start}"
        raise mismatch(name, "text with a UTF-8 form", given) from None


def bytes_to_chars(data: bytes) -> str:
    """The printable form of bytes: b" dog" -> "Ġdog"."""
    return "".join(map(BYTE_TO_CHAR.__getitem__, data))


def chars_to_bytes(token: str) -> bytes:
    """The inverse.  A token with a character outside the table does not stand for bytes, and is
    encoded as text."""
    try:
        return bytes(map(CHAR_TO_BYTE.__getitem__, token))
    except KeyError:
        return token.encode("utf-8")
