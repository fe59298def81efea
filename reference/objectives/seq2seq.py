"""What a decoder reads in training."""

from __future__ import annotations


def shift_right(labels: list[int], start_id: int, pad_id: int) -> list[int]:
    """Each position reads the label before it; the first one reads start_id."""
    result = []
    for t in range(len(labels)):
        before = start_id if t == 0 else labels[t - 1]
        result.append(pad_id if before == -100 else before)
    return result
