"""Dropout with explicit randomness."""

from __future__ import annotations

from ..arguments import check_number
from ..core import Array, Backward
from ..random import uniform_bits
from ..shapes import check_array


def dropout(x: Array, *, rate: float, key: Array | None) -> tuple[Array, Backward]:
    """y = x * m / (1 - rate),   m = 1 with probability 1 - rate, else 0.

    Srivastava et al. 2014, sec. 4, scaled in training instead of at test time.
    x (B, ...), key (B,) uint64, one per sample (see random.py), or None for the identity
    -> y (B, ...).   Keeps m, a byte per element.   dx = dy * m / (1 - rate).
    The mask depends only on the key and on the element's place in its sample.
    ValueError unless 0 <= rate < 1.
    """
    if type(rate) is not float or not 0 <= rate < 1:
        check_number("dropout: rate", rate, least=0, below=1)
    if key is None or rate == 0:
        return x, lambda dy: dy
    check_array("dropout: x", x, "(B, ...)")
    check_array("dropout: key", key, "(B,) keys", B=len(x))
    m = uniform_bits(key, x.shape) >= int(rate * 2**32)
    scale = 1 / (1 - rate)

    def backward(dy: Array) -> Array:
        return dy * m * scale

    return x * m * scale, backward
