"""Autoregressive blank infilling, token by token, with its random choices given.

Du et al. 2022, sec. 2.1, 2.2.  Positions count from 0; spans are [start, end), in order.
"""

from __future__ import annotations

from itertools import combinations


def corrupt(
    ids: list[int],
    spans: list[tuple[int, int]],
    order: list[int],
    first: list[int],
    mask_id: int,
    start_id: int,
    end_id: int,
) -> tuple[list[int], list[tuple[int, int]], list[int | None], int]:
    """(input ids, positions, targets, length of part A); a token of part A has the target None.

    order: which span comes first in part B, which second, ...
    """
    inputs: list[int] = list(first)
    mask_places: list[int] = []
    for n, token in enumerate(ids):
        for start, _ in spans:
            if start == n:
                mask_places.append(len(inputs))
                inputs.append(mask_id)
        if not any(start <= n < end for start, end in spans):
            inputs.append(token)
    prefix = len(inputs)
    positions: list[tuple[int, int]] = [(n, 0) for n in range(prefix)]
    targets: list[int | None] = [None] * prefix
    for s in order:
        start, end = spans[s]
        piece = [start_id, *ids[start:end], end_id]
        for n in range(len(piece) - 1):
            inputs.append(piece[n])
            targets.append(piece[n + 1])
            positions.append((mask_places[s], n + 1))
    return inputs, positions, targets, prefix


def restore(
    inputs: list[int], positions: list[tuple[int, int]], prefix: int, first: list[int]
) -> list[int]:
    """The text: behind each place of part A what part B has for it, in place of the token there."""
    text: list[int] = []
    for place in range(len(first), prefix):
        piece = [
            (within, token)
            for token, (where, within) in zip(inputs[prefix:], positions[prefix:])
            if where == place
        ]
        if piece:
            text += [token for within, token in sorted(piece) if within > 1]
        else:
            text.append(inputs[place])
    return text


def visible(length: int, prefix: int) -> list[list[bool]]:
    """[t][s]: part A sees all of itself, part B sees part A and itself up to the query."""
    return [
        [s < prefix if t < prefix else s < prefix or s <= t for s in range(length)]
        for t in range(length)
    ]


def placements(length: int, sizes: list[int]) -> list[tuple[tuple[int, int], ...]]:
    """Every way to place spans of these sizes, in this order, with a token between any two."""
    kept = length - sum(sizes)
    found = []
    for gaps in combinations(range(kept + 1), len(sizes)):  # kept tokens before each span
        spans = []
        before = 0
        for gap, size in zip(gaps, sizes):
            spans.append((gap + before, gap + before + size))
            before += size
        found.append(tuple(spans))
    return found
