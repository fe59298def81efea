"""The decoder's input in training: the labels, one place to the right.

Vaswani et al. 2017, sec. 3.1.
"""

from __future__ import annotations

from ..arguments import MOST, check_whole, wrong
from ..backend import array_module
from .types import IGNORED, Array


def shift_right(labels: Array, start_id: int, pad_id: int) -> Array:
    """y[..., 0] = start_id, y[..., t] = labels[..., t - 1], or pad_id where that is -100.

    labels (..., T) integers -> y (..., T) int64: position t reads what precedes the label it
    predicts. The last label is never read.
    """
    kind = getattr(getattr(labels, "dtype", None), "kind", "")
    if kind not in ("i", "u") or labels.ndim == 0:
        raise wrong("labels", "an array (..., T) of integers", labels)
    check_whole("start_id", start_id, 0, MOST)
    check_whole("pad_id", pad_id, 0, MOST)
    xp = array_module(labels)
    shifted = xp.full(labels.shape, start_id, dtype="int64")
    shifted[..., 1:] = labels[..., :-1]
    return xp.where(shifted == IGNORED, pad_id, shifted)
