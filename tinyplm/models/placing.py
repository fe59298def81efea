"""The positions and the prefix of texts with one blank, read off their ids, as ChatGLM-6B does.

    ids               a   b   [M]   c   <sop>   x   y     [M]: the mask, <sop>: the start of part B
    position_ids      0   1    2    3    2      2   2     of part A its places, then the mask's
                      0   0    0    0    1      2   3     0, then the place within the blank
    prefix_lengths    4                                   all of part A, which sees itself

GLM team 2023, the released code; Du et al. 2022, sec. 2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    ids = to_host(ids)
    real = np.ones(ids.shape, bool) if real is None else to_host(real) != 0
    found = {name: (ids == id) & real for name, id in masks.items()}
    places = [_first(at) for at in found.values()]
    mask = np.select([place < ids.shape[1] for place in places], places, ids.shape[1])
    begin = _first((ids == start[1]) & real)
    wanted = {
        " or ".join(f"{n} ({id})" for n, id in masks.items()): mask,
        f"{start[0]} ({start[1]})": begin,
    }
    for name, place in wanted.items():
        if (without := np.flatnonzero(place == ids.shape[1])).size:
            expected = f"{name} in each text, or position_ids and prefix_lengths"
            raise mismatch("input_ids", expected, f"none in row {without[0]}")
    t = np.arange(ids.shape[1])
    place = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    inside = t >= begin[:, None]
    i = np.where(inside, np.take_along_axis(place, mask[:, None], axis=1), place)
    j = np.where(inside, t - begin[:, None] + 1, 0)
    return {"position_ids": np.stack([i, j], axis=1), "prefix_lengths": begin}


def _first(at: np.ndarray) -> np.ndarray:
    """(B,): the first True of each row, its length where there is none."""
    return np.where(at.any(axis=1), at.argmax(axis=1), at.shape[1])
