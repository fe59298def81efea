"""The positions and the prefix of texts with one blank, read off their ids, as ChatGLM-6B and
GLM-130B do.

    ids               a   b   [M]   c   <sop>   x   y     [M]: the mask, <sop>: the start of part B
    position_ids      0   1    2    3    2      2   2     of part A its places, then the mask's
                      0   0    0    0    1      2   3     0, then the place within the blank
    prefix_lengths    4                                   all of part A, which sees itself

With one position a token it is the first row; after a mask that ends the text it counts on.

GLM team 2023, the released code; Du et al. 2022, sec. 2.3.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arguments import mismatch
from ..backend import to_host


def blank_places(
    ids: Any, real: Any = None, *, start: tuple[str, int], masks: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """{"position_ids" (B, 2, T), "prefix_lengths" (B,)} of ids (B, T), on the host.

    real (B, T): 1 for tokens, 0 for padding, whose positions are 0.   start: name and id of the
    token that starts part B.   masks: {name: id}; of those in a text the first one's first place
    counts.   ValueError for a text without them, naming what it lacks.
    """
    found = _found(to_host(ids), real, start, masks)
    i = np.where(found.inside, np.take_along_axis(found.place, found.mask, axis=1), found.place)
    j = np.where(found.inside, np.arange(i.shape[1]) - found.begin[:, None] + 1, 0)
    return {"position_ids": np.stack([i, j], axis=1), "prefix_lengths": found.begin}


def single_places(
    ids: Any,
    real: Any = None,
    *,
    start: tuple[str, int],
    masks: Mapping[str, int],
    counting: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """{"position_ids" (B, T), "prefix_lengths" (B,)} of ids (B, T), on the host.

    counting: the masks after whose text places count on; of the others, part B has the mask's
    place.  The other arguments, and errors, as in `blank_places`.
    Zeng et al. 2023, the released code (generate.py).
    """
    found = _found(to_host(ids), real, start, masks)
    counts = np.array([name in counting for name in masks])[found.kind]
    at_mask = found.inside & ~counts[:, None]
    i = np.where(at_mask, np.take_along_axis(found.place, found.mask, axis=1), found.place)
    return {"position_ids": i, "prefix_lengths": found.begin}


class _Found(NamedTuple):
    place: np.ndarray  # (B, T): the number of tokens before each
    kind: np.ndarray  # (B,): which of the masks
    mask: np.ndarray  # (B, 1): its column
    begin: np.ndarray  # (B,): the column of the start of part B
    inside: np.ndarray  # (B, T): whether it is in part B


def _found(ids: np.ndarray, real: Any, start: tuple[str, int], masks: Mapping[str, int]) -> _Found:
    T = ids.shape[1]
    real = np.ones(ids.shape, bool) if real is None else to_host(real) != 0
    places = np.stack([_first((ids == id) & real) for id in masks.values()])
    kind = (places < T).argmax(axis=0)
    mask = np.take_along_axis(places, kind[None], axis=0)[0]
    begin = _first((ids == start[1]) & real)
    wanted = {
        " or ".join(f"{n} ({id})" for n, id in masks.items()): mask,
        f"{start[0]} ({start[1]})": begin,
    }
    for name, column in wanted.items():
        if (without := np.flatnonzero(column == T)).size:
            expected = f"{name} in each text, or position_ids and prefix_lengths"
            raise mismatch("input_ids", expected, f"none in row {without[0]}")
    place = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    return _Found(place, kind, mask[:, None], begin, np.arange(T) >= begin[:, None])


def _first(at: np.ndarray) -> np.ndarray:
    """(B,): the first True of each row, its length where there is none."""
    return np.where(at.any(axis=1), at.argmax(axis=1), at.shape[1])
