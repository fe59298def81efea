"""The script of each character, by the blocks of Unicode 15 that hold most of its letters."""

from __future__ import annotations

import numpy as np

# (first, last, script); letters outside have none
_BLOCKS = [
    (0x0041, 0x005A, "Latin"), (0x0061, 0x007A, "Latin"), (0x00C0, 0x024F, "Latin"),
    (0x0370, 0x03FF, "Greek"), (0x0400, 0x052F, "Cyrillic"), (0x0530, 0x058F, "Armenian"),
    (0x0590, 0x05FF, "Hebrew"), (0x0600, 0x06FF, "Arabic"), (0x0750, 0x077F, "Arabic"),
    (0x0900, 0x097F, "Devanagari"), (0x0980, 0x09FF, "Bengali"), (0x0A00, 0x0A7F, "Gurmukhi"),
    (0x0A80, 0x0AFF, "Gujarati"), (0x0B80, 0x0BFF, "Tamil"), (0x0C00, 0x0C7F, "Telugu"),
    (0x0C80, 0x0CFF, "Kannada"), (0x0D00, 0x0D7F, "Malayalam"), (0x0D80, 0x0DFF, "Sinhala"),
    (0x0E00, 0x0E7F, "Thai"), (0x0E80, 0x0EFF, "Lao"), (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Myanmar"), (0x10A0, 0x10FF, "Georgian"), (0x1100, 0x11FF, "Hangul"),
    (0x1200, 0x137F, "Ethiopic"), (0x1780, 0x17FF, "Khmer"), (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFF, "Greek"), (0x3040, 0x30FF, "Kana"), (0x3400, 0x4DBF, "Han"),
    (0x4E00, 0x9FFF, "Han"), (0xAC00, 0xD7AF, "Hangul"), (0xF900, 0xFAFF, "Han"),
    (0x20000, 0x323AF, "Han"),
]  # fmt: skip
SCRIPTS = sorted({script for *_, script in _BLOCKS})
_FIRST = np.array([first for first, *_ in _BLOCKS], np.uint32)
_LAST = np.array([last for _, last, _ in _BLOCKS], np.uint32)
_NUMBER = np.array([SCRIPTS.index(script) for *_, script in _BLOCKS])
_NOT_LETTERS = (0xD7, 0xF7)  # the signs of multiplication and division among Latin letters
JAPANESE = 0.1  # share of kana among kana and Han from which a text is not Chinese


def code_points(text: str) -> np.ndarray:
    """The characters' numbers, (length,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def main_script(codes: np.ndarray) -> str | None:
    """The script of most letters of a text, given as code points (N,); None without letters.

    Japanese is written in Han characters and kana: it is Kana from a share of JAPANESE on.
    """
    place = np.searchsorted(_FIRST, codes, side="right") - 1
    inside = (place >= 0) & (codes <= _LAST[place]) & ~np.isin(codes, _NOT_LETTERS)
    counts = np.bincount(_NUMBER[place[inside]], minlength=len(SCRIPTS))
    kana, han = (int(counts[SCRIPTS.index(name)]) for name in ("Kana", "Han"))
    if kana and kana >= JAPANESE * (kana + han):
        counts[SCRIPTS.index("Kana")] += han
        counts[SCRIPTS.index("Han")] = 0
    return SCRIPTS[int(counts.argmax())] if counts.any() else None
