"""The memory of Transformer-XL and XLNet: the states that entered each layer in earlier segments.

Dai et al. 2019, sec. 3.2.   mems (B, L, N, D): N earlier tokens for each of L layers.  No gradient
flows through them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import check_whole, wrong
from ..backend import array_module
from ..core import Array
from ..shapes import check_array


def length(mems: Array | None, shape: tuple[int, int, int]) -> int:
    """N, the number of earlier tokens, 0 for None; ValueError unless mems fit B, L, D = shape."""
    B, L, D = shape
    if mems is None:
        return 0
    check_array("mems", mems, "(B, L, N, D)")
    if (*mems.shape[:2], mems.shape[3]) != shape:
        raise ValueError(f"mems: expected shape ({B}, {L}, earlier tokens, {D}), got {mems.shape}")
    return mems.shape[2]


def extended(
    mems: Array | None,
    entered: Sequence[Array],
    *,
    longest: int | None = None,
    first: int | None = None,
) -> Array:
    """The next segment's memory: mems, then the states (B, T, D) that entered each layer now.

    longest: keep the last tokens only, this many; first: take the first states only, this many of
    the T, where segments overlap and the next one begins there.  None or 0: all.
    """
    check_array("extended: mems", mems, "(B, L, N, D) or None")
    check_whole("extended: longest", longest, or_none=True)
    check_whole("extended: first", first, or_none=True)
    if not isinstance(entered, (list, tuple)) or not entered:
        raise wrong("extended: entered", "the states that entered each layer, (B, T, D)", entered)
    for states in entered:
        check_array("extended: entered", states, "(B, T, D)")
    xp = array_module(entered[0])
    known = xp.stack(entered, axis=1)
    known = known[:, :, : first or known.shape[2]]
    if mems is not None:
        known = xp.concatenate([mems, known], axis=2)
    return known[:, :, -(longest or known.shape[2]) :]
