"""What is masked together: single tokens, whole words, named spans.

A unit is a list of places in a sequence.  `maskable` (T,) booleans says which places may be masked at all (not [CLS], [SEP],
padding); a function ids, maskable -> units is what Masking.units wants.
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
    """Every token by itself (Devlin et al. 2019)."""
    return [[t] for t in np.flatnonzero(check_maskable(maskable)).tolist()]


def check_maskable(maskable: np.ndarray) -> np.ndarray:
    """maskable (T,); ValueError unless it holds booleans."""
    return as_array("maskable", maskable, "booleans (T,)", "b")


def check_units(units: Units, length: int | None = None) -> None:
    """ValueError unless these are lists of places, each in a sequence of this length."""
    if not isinstance(units, (list, tuple)) or not all(
        isinstance(unit, (list, tuple, np.ndarray)) for unit in units
    ):
        raise wrong("units", "lists of places", units)
    as_ids("units", [place for unit in units for place in unit], length)


def whole_words(continues: np.ndarray) -> Callable[[np.ndarray, np.ndarray], Units]:
    """Units that are words, from the vocabulary alone: continues (V,) booleans, see `continuations`.

    A token that continues a word belongs to the token directly before it, if that may be masked.
    """
    continues = as_array("continues", continues, "booleans (V,)", "b")

    def units(ids: np.ndarray, maskable: np.ndarray) -> Units:
        joined = continues[ids] & maskable
        joined[1:] &= maskable[:-1]
        joined[:1] = False
        return _groups(maskable, joined)

    return units


def word_units(word_ids: Sequence[int | None], maskable: np.ndarray) -> Units:
    """Units that are words, from the numbers of the words in an Encoding (tokenizers): neighbours with the same number.

    None stands for no word (special tokens): such a token, if it may be masked, is a unit by itself.
    """
    maskable = check_maskable(maskable)
    check_several("word_ids", word_ids, "integers or None")
    word_ids = list(word_ids)
    for word in word_ids:
        if word is not None and not is_whole(word):
            raise wrong("word_ids", "integers or None", word)
    if len(word_ids) != len(maskable):
        raise ValueError(
            f"{len(word_ids)} word_ids for {len(maskable)} tokens, expected one for each"
        )
    same = [False, *(a is not None and a == b for a, b in zip(word_ids, word_ids[1:]))]
    joined = np.array(same[: len(maskable)], bool) & maskable
    joined[1:] &= maskable[:-1]
    return _groups(maskable, joined)


def span_units(units: Units, spans: Iterable[tuple[int, int]]) -> Units:
    """The units, those that a span [start, end) touches joined to one: entities and phrases (Sun et al. 2019, ERNIE).

    For Masking.units: lambda ids, maskable: span_units(token_units(ids, maskable), find_spans(ids)).

    A span that touches no unit changes nothing.  ValueError for spans that are empty, or that share a unit.
    """
    check_units(units)
    check_several("spans", spans, "pairs (start, end)")
    owner = {t: u for u, unit in enumerate(units) for t in unit}
    span_of: dict[int, tuple[int, int]] = {}
    for span in spans:
        start, end = (
            as_ids("spans", span).tolist()
            if isinstance(span, (list, tuple)) and len(span) == 2
            else (1, 0)
        )
        if not 0 <= start < end:
            raise ValueError(
                f"span: expected (start, end) with 0 <= start < end, got {shown(span)}"
            )
        for u in {owner[t] for t in range(start, end) if t in owner}:
            if u in span_of:
                raise ValueError(
                    f"spans {list(span_of[u])} and {[start, end]} share the token at {units[u][0]}, expected spans apart"
                )
            span_of[u] = (start, end)
    joined: dict[object, list[int]] = {}
    for u, unit in enumerate(units):
        joined.setdefault(span_of.get(u, u), []).extend(unit)
    return list(joined.values())


def continuations(
    tokens: Sequence[str], *, inside: str | None = None, start: str | None = None
) -> np.ndarray:
    """Which tokens of a vocabulary go on with the word before them: (V,) booleans.

    inside  the sign of tokens within a word: "##" of WordPiece
    start   the sign of tokens that begin a word: "Ġ" of byte-level BPE, "▁" of SentencePiece
    ValueError unless exactly one of them is given.
    """
    check_several("tokens", tokens)
    check_text("inside", inside, or_none=True, empty=False)
    check_text("start", start, or_none=True, empty=False)
    tokens = as_texts("tokens", tokens)
    if (inside is None) == (start is None):
        raise ValueError(
            f"inside {shown(inside)} and start {shown(start)}, expected exactly one of them"
        )
    if inside is not None:
        return np.array([token.startswith(inside) for token in tokens], bool)
    return np.array([not token.startswith(start) for token in tokens], bool)


def _groups(maskable: np.ndarray, joined: np.ndarray) -> Units:
    """The places that are maskable, cut before each that is not joined to the one before."""
    units: Units = []
    for t in np.flatnonzero(maskable).tolist():
        if joined[t]:
            units[-1].append(t)
        else:
            units.append([t])
    return units
