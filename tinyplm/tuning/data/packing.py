"""Several sequences in one row, none of which sees another: little is spent on padding."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import numpy as np

from ...core import IGNORED
from ...layers.mask import packed_mask
from .sequences import Sequence, arrays


def packing(lengths: SequenceOf[int], room: int) -> list[list[int]]:
    """Which sequences share a row of `room` places: first fit, the longest first (Johnson 1973: at most 11/9 of the best, and 4).

    ValueError for one that does not fit at all.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[number]
        if length > room:
            raise ValueError(f"sequence {number} has {length} places, more than the {room} of a row")
        row = next((r for r, left in enumerate(free) if left >= length), None)
        if row is None:
            rows.append([])
            free.append(room)
            row = len(rows) - 1
        rows[row].append(number)
        free[row] -= length
    return rows


def packed_arrays(sequences: SequenceOf[Sequence], rows: SequenceOf[SequenceOf[int]], room: int) -> dict[str, np.ndarray]:
    """{"input_ids", "targets", "position_ids" (N, T), "attention_mask" (N, 1, T, T) booleans} of some rows of `packing`.

    Positions begin anew with each sequence, and the mask (which joins the causal one) keeps to it, so that every sequence has the
    numbers that it would have alone.  What is left of a row is padding, a sequence of its own of which nothing counts.
    """
    shape = (len(rows), room)
    inputs, positions, documents = (np.zeros(shape, np.int64) for _ in range(3))
    targets = np.full(shape, IGNORED)
    for r, numbers in enumerate(rows):
        start = 0
        for place, n in enumerate(numbers, 1):
            alone, end = arrays([sequences[n]]), start + len(sequences[n])
            inputs[r, start:end], targets[r, start:end] = alone["input_ids"][0], alone["targets"][0]
            positions[r, start:end], documents[r, start:end] = np.arange(end - start), place
            start = end
        positions[r, start:] = np.arange(room - start)
    return {"input_ids": inputs, "targets": targets, "position_ids": positions, "attention_mask": packed_mask(documents)}
