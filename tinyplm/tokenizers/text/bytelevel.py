"""From text to words of bytes: what happens before byte-level BPE, and its inverse.

Radford et al. 2019, section 2.2 ("Input Representation"): the base alphabet is the 256 bytes of UTF-8, so any
text can be written with it and nothing is ever unknown; and merges must not cross the border between kinds of
characters, or the vocabulary fills up with "dog.", "dog!", "dog?". So text is first cut into words by a
pattern, and BPE (bpe.py) then works inside each word alone.

Files store tokens as text, and most byte strings are not text. GPT-2 therefore gives each byte a printable
character: the 188 bytes that are printable in Latin-1 stand for themselves; the other 68 (controls, space,
0x7f-0xa0, 0xad) take U+0100, U+0101, ... in turn. A space is then "Ġ" (U+0120) and a newline "Ċ" (U+010A), as
seen in every vocab.json.
"""

from __future__ import annotations

import regex

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

BYTE_TO_CHAR: list[str] = [
    chr(0x100 + _OTHERS.index(b)) if b in _OTHERS else chr(b) for b in range(256)
]
CHAR_TO_BYTE: dict[str, int] = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}

# The alternatives, in order: an English contraction; a run of letters, of digits, of other visible
# characters, each taking along one space before it; spaces up to the last one when a word follows (which
# takes the last); any other spaces.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# "abc  def" -> ["abc", " ", " def"]. Every character is in exactly one word: the words joined are the text.
#
# Which characters are letters and digits is up to the Unicode version of the package `regex`. A library built
# with an older one (tokenizers 0.23: Unicode 16) takes what came later for "other visible characters".
split_words = regex.compile(GPT2_PATTERN).findall


def check_encodable(text: str, name: str = "text") -> None:
    """Refuse what has no UTF-8 form: a lone surrogate (half of a UTF-16 pair, U+D800 to U+DFFF)."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        where = error.start
        raise ValueError(
            f"{name} has a lone surrogate, U+{ord(text[where]):04X}, at position {where}: no UTF-8 form"
        ) from None


def bytes_to_chars(data: bytes) -> str:
    """The printable form of a byte string: b" dog" -> "Ġdog"."""
    return "".join(map(BYTE_TO_CHAR.__getitem__, data))


def chars_to_bytes(token: str) -> bytes:
    """The inverse. A token with a character outside the table was never bytes, and is taken as text."""
    try:
        return bytes(map(CHAR_TO_BYTE.__getitem__, token))
    except KeyError:
        return token.encode("utf-8")
