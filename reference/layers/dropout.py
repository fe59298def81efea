"""Dropout whose mask is a hash of a key and the element's index within its sample."""

import numpy as np

from reference.scalar import numbers, zeros

_MASK32 = 0xFFFFFFFF


def hash32(h: int) -> int:
    """The 32-bit hash "lowbias32" (Wellons 2018): two multiplications between three xor-shifts."""
    h ^= h >> 16
    h = h * 0x7FEB352D & _MASK32
    h ^= h >> 15
    h = h * 0x846CA68B & _MASK32
    return h ^ h >> 16


def element_bits(key: int, j: int) -> int:
    """32 random bits for element j: two hashes that mix in the key's low and then its high half."""
    return hash32(hash32(j ^ key & _MASK32) ^ key >> 32)


def dropout(x: np.ndarray, *, rate: float, key: np.ndarray | None) -> np.ndarray:
    """y = x / (1 - rate) where the element is kept, else 0.               Srivastava et al. 2014

    An element is kept if its 32 bits are at least rate 2^32.
    x (B, ...), key (B,) unsigned 64-bit, one per sample -> y (B, ...).  Without a key, y = x.
    """
    x = numbers(x)
    if key is None:
        return x.copy()
    y = zeros(x.shape, like=x)
    for b in range(x.shape[0]):
        for j, index in enumerate(np.ndindex(x.shape[1:])):
            if element_bits(int(key[b]), j) >= int(rate * 2**32):
                y[(b, *index)] = x[(b, *index)] / (1 - rate)
    return y
