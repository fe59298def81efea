"""One form of the same text: mojibake, line ends, control characters, spaces, normal form."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from ...arguments import check_choice, check_flag, known_arguments
from ..pipeline.step import Counts, Document, Result, Step

FORMS = ("NFC", "NFKC", "none")

_ENDS = "\r\x0b\x0c\x85\u2028\u2029"
_ASCII = bytes(n for n in range(128) if chr(n) not in "\t\n" and (n < 32 or n == 127))
_LINE_ENDS = re.compile(f"\r\n|[{_ENDS}]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufff9-\ufffb\ufffe\uffff]")
# not the joiners U+200C and U+200D, which Persian and emoji need
_ZERO_WIDTH = re.compile("[\u00ad\u200b\u2060\ufeff]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"(?<![ \t])[ \t]+\n")
_BLANK = re.compile(r"\n{3,}")

# what the bytes 80 to BF become when UTF-8 is read as Windows-1252; as Latin-1 where that has none
_BYTES = {bytes([n]).decode("cp1252", "ignore") or chr(n): n for n in range(0x80, 0x100)} | {
    chr(n): n for n in range(0x80, 0xA0)
}
_LATER = "".join(re.escape(c) for c, n in _BYTES.items() if n < 0xC0)
_MOJIBAKE = re.compile(
    f"[\u00c3][\x80-\x9f\u00a1-\u00aa\u00ac-\u00b6\u00b8-\u00ba\u00bc-\u00bf]"
    f"|[\u00c2][\x80-\x9f\u00a0-\u00aa\u00ac-\u00b6\u00b8-\u00ba\u00bc-\u00bf]"
    f"|[\u00e0-\u00ef][{_LATER}]{{2}}|[\u00f0-\u00f4][{_LATER}]{{3}}"
)


@known_arguments
def unicode(
    *,
    form: str = "NFC",
    mojibake: bool = True,
    controls: bool = True,
    spaces: bool = True,
) -> Step:
    """Line ends become \\n, and by choice

    mojibake: UTF-8 that was read as Windows-1252 is read again, where that is safe: characters of
    three and four bytes, as in "donâ€™t", and those of two that begin with Ã or Â and go on with a
    sign that no word has there, as in "cafÃ©".
    form: NFC, NFKC (also full-width and compatibility characters; changes formulas), or none.
    controls: without control characters, zero-width spaces, soft hyphens and byte-order marks.
    spaces: all kinds are one; none at the end of a line; at most one blank line in a row.

    A document without text left is dropped.
    """
    check_choice("form", form, FORMS)
    for name, value in (("mojibake", mojibake), ("controls", controls), ("spaces", spaces)):
        check_flag(name, value)

    kind: Literal["NFC", "NFKC"] | None = {"NFC": "NFC", "NFKC": "NFKC"}.get(form)  # type: ignore

    def step(document: Document) -> Result:
        text, counts = document.text, Counts()
        if any(end in text for end in _ENDS):  # much quicker than the pattern
            text = _replaced(_LINE_ENDS, "\n", text, counts, "line ends")
        if not text.isascii():
            if mojibake:
                text = repaired(text, counts)
            if kind is not None and not unicodedata.is_normalized(kind, text):
                text = unicodedata.normalize(kind, text)
                counts[f"documents brought to {form}"] = 1
        if controls:
            if not text.isascii() or len(text.encode().translate(None, _ASCII)) < len(text):
                text = _replaced(_CONTROLS, "", text, counts, "control characters")
            if not text.isascii():
                text = _replaced(_ZERO_WIDTH, "", text, counts, "zero-width characters")
        if spaces:
            if not text.isascii():
                text = _replaced(_SPACES, " ", text, counts, "other spaces")
            if " \n" in text or "\t\n" in text:
                text = _replaced(_TRAILING, "\n", text, counts, "spaces at the end of a line")
            if "\n\n\n" in text:
                text = _replaced(_BLANK, "\n\n", text, counts, "blank lines in a row")
            text = text.strip("\n")
        if not text.strip():
            return None, {"no text": 1}
        return (document if text == document.text else document._replace(text=text)), counts

    return step


def _replaced(pattern: re.Pattern, by: str, text: str, counts: Counts, what: str) -> str:
    text, count = pattern.subn(by, text)
    if count:
        counts[what] = counts.get(what, 0) + count
    return text


def repaired(text: str, counts: Counts) -> str:
    """Without mojibake, also where it happened twice."""
    for _ in range(2):
        found = 0

        def again(match: re.Match) -> str:
            nonlocal found
            try:
                read = bytes(_BYTES[c] for c in match.group()).decode("utf-8")
            except UnicodeDecodeError:
                return match.group()
            found += 1
            return read

        text = _MOJIBAKE.sub(again, text)
        if not found:
            break
        counts["mojibake"] = counts.get("mojibake", 0) + found
    return text
