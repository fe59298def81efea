"""Several sequences in one row, none seeing another, to save padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arguments import mismatch
from ...core import IGNORED
from ...layers.mask import packed_mask
from .sequences import TokenSequence, sequence_arrays


def packing(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which sequences share a row of `room` tokens: first-fit decreasing.

    At most 11/9 of the optimal number of rows plus 4 (Johnson 1973).
    ValueError for a sequence that does not fit.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[number]
        if length > room:
            expected = f"at most {room} tokens, the length of a row"
            raise mismatch(f"sequence {number}", expected, length)
        row = next((r for r, remaining in enumerate(free) if remaining >= length), None)
        if row is None:
            rows.append([])
            free.append(room)
            row = len(rows) - 1
        rows[row].append(number)
        free[row] -= length
    return rows


def packed_arrays(
    sequences: Sequence[TokenSequence], rows: Sequence[Sequence[int]], room: int
) -> dict[str, np.ndarray]:
    """The arrays of rows of `packing`.

    -> {"input_ids", "targets", "position_ids" (N, T), "attention_mask" (N, 1, T, T) booleans}

    Positions restart with each sequence, and the mask (combined with the causal one) confines it to
    itself, so each sequence gets the same numbers as alone.  Padding is a sequence of its own in
    which nothing counts.
    """
    shape = (len(rows), room)
    inputs, positions, documents = (np.zeros(shape, np.int64) for _ in range(3))
    targets = np.full(shape, IGNORED)
    for r, numbers in enumerate(rows):
        start = 0
        for place, n in enumerate(numbers, 1):
            alone, end = sequence_arrays([sequences[n]]), start + len(sequences[n])
            inputs[r, start:end], targets[r, start:end] = alone["input_ids"][0], alone["targets"][0]
            positions[r, start:end], documents[r, start:end] = np.arange(end - start), place
            start = end
        positions[r, start:] = np.arange(room - start)
    return {
        "input_ids": inputs,
        "targets": targets,
        "position_ids": positions,
        "attention_mask": packed_mask(documents),
    }
