"""Units that are masked together: tokens, whole words, named spans.

A unit is a list of places in a sequence. `maskable` (T,) booleans marks the places that may be
masked (not [CLS], [SEP] or padding). Masking.units is a function (ids, maskable) -> units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..arguments import (
    as_array,
    as_ids,
    as_texts,
    check_several,
    check_text,
    is_whole,
    shown,
    wrong,
)

Units = list[list[int]]


def token_units(ids: np.ndarray, maskable: np.ndarray) -> Units:
    """Each token on its own (Devlin et al. 2019)."""
    return [[t] for t in np.flatnonzero(check_maskable(maskable)).tolist()]


def check_maskable(maskable: np.ndarray) -> np.ndarray:
    """maskable (T,); ValueError unless it holds booleans."""
    return as_array("maskable", maskable, "booleans (T,)", "b")


def check_units(units: Units, length: int | None = None) -> None:
    """ValueError unless these are lists of places in a sequence of this length."""
    lists = (list, tuple, np.ndarray)
    if not isinstance(units, (list, tuple)) or not all(isinstance(unit, lists) for unit in units):
        raise wrong("units", "lists of places", units)
    as_ids("units", [place for unit in units for place in unit], length)


def whole_words(continues: np.ndarray) -> Callable[[np.ndarray, np.ndarray], Units]:
    """Whole words, from the vocabulary alone: continues (V,) booleans, see `continuations`.

    A token that continues a word joins the maskable token directly before it.
    """
    continues = as_array("continues", continues, "booleans (V,)", "b")

    def units(ids: np.ndarray, maskable: np.ndarray) -> Units:
        joined = continues[ids] & maskable
        joined[1:] &= maskable[:-1]
        joined[:1] = False
        return _groups(maskable, joined)

    return units


def word_units(word_ids: Sequence[int | None], maskable: np.ndarray) -> Units:
    """Whole words, from the word numbers of an Encoding: neighbours with the same number.

    None means no word (special tokens): such a token, if maskable, is a unit of its own.
    """
    maskable = check_maskable(maskable)
    check_several("word_ids", word_ids, "integers or None")
    word_ids = list(word_ids)
    for word in word_ids:
        if word is not None and not is_whole(word):
            raise wrong("word_ids", "integers or None", word)
    if len(word_ids) != len(maskable):
        raise ValueError(f"word_ids: expected {len(maskable)}, one per token, got {len(word_ids)}")
    same = [False, *(a is not None and a == b for a, b in zip(word_ids, word_ids[1:]))]
    joined = np.array(same[: len(maskable)], bool) & maskable
    joined[1:] &= maskable[:-1]
    return _groups(maskable, joined)


def span_units(units: Units, spans: Iterable[tuple[int, int]]) -> Units:
    """The units, with those touched by a span [start, end) joined: entities and phrases (ERNIE: Sun
    et al. 2019).

    Masking.units: lambda ids, maskable: span_units(token_units(ids, maskable), find_spans(ids)).
    A span that touches no unit has no effect. ValueError for empty spans, or two in one unit.
    """
    check_units(units)
    check_several("spans", spans, "pairs (start, end)")
    owner = {t: u for u, unit in enumerate(units) for t in unit}
    span_of: dict[int, tuple[int, int]] = {}
    for span in spans:
        pair = isinstance(span, (list, tuple)) and len(span) == 2
        start, end = as_ids("spans", span).tolist() if pair else (1, 0)
        if not 0 <= start < end:
            raise wrong("spans", "(start, end) with 0 <= start < end", span)
        for u in {owner[t] for t in range(start, end) if t in owner}:
            if u in span_of:
                both = f"{list(span_of[u])} and {[start, end]} at token {units[u][0]}"
                raise ValueError(f"spans: expected no two in one unit, got {both}")
            span_of[u] = (start, end)
    joined: dict[object, list[int]] = {}
    for u, unit in enumerate(units):
        joined.setdefault(span_of.get(u, u), []).extend(unit)
    return list(joined.values())


def continuations(
    tokens: Sequence[str], *, inside: str | None = None, start: str | None = None
) -> np.ndarray:
    """Which tokens of a vocabulary continue the word before them: (V,) booleans.

    inside  the prefix of tokens within a word: "##" in WordPiece
    start   the prefix of tokens that begin a word: "Ġ" in byte-level BPE, "▁" in SentencePiece
    ValueError unless exactly one of them is set.
    """
    check_several("tokens", tokens)
    check_text("inside", inside, or_none=True, empty=False)
    check_text("start", start, or_none=True, empty=False)
    tokens = as_texts("tokens", tokens)
    if inside is not None and start is None:
        return np.array([token.startswith(inside) for token in tokens], bool)
    if start is not None and inside is None:
        return np.array([not token.startswith(start) for token in tokens], bool)
    given = f"{shown(inside)} and {shown(start)}"
    raise ValueError(f"inside, start: expected exactly one of them, got {given}")


def _groups(maskable: np.ndarray, joined: np.ndarray) -> Units:
    """The maskable places, grouped: a joined place continues the unit before it."""
    units: Units = []
    for t in np.flatnonzero(maskable).tolist():
        if joined[t]:
            units[-1].append(t)
        else:
            units.append([t])
    return units
