"""Randomness as a value: a key is a 64-bit number, folded from seed, step, layer and sample number.

There is no generator with hidden state. The same key gives the same bits on CPU and GPU, on
recomputation, and however a batch is sharded, because the bits of every element are a hash of the
key and the element's own number. A key is a Python int (host) or a uint64 array, one per sample.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .arguments import check_key
from .backend import array_module

Key = Any
_MASK = 0xFFFFFFFFFFFFFFFF


def _mix(z: Key) -> Key:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014, fig. 9, variant 13): a bijection."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def key(seed: int) -> int:
    """The key of a run. ValueError unless the seed is an integer of 64 bits."""
    check_key("seed", seed)
    return _mix((int(seed) * 0x9E3779B97F4A7C15 + 1) & _MASK)


def fold(key: Key, *numbers: Any) -> Key:
    """A new key from a key and numbers, ints or integer arrays (many keys at once); order matters.

    fold(k, a, b) == fold(fold(k, a), b). A key of None (no randomness) stays None.
    """
    if key is None:
        return None
    for number in numbers:
        if not isinstance(number, (int, np.integer)):
            number = number.astype("uint64")
        else:
            number = int(number) & _MASK
        key = _mix((key ^ _mix(((number + 1) & _MASK) * 0x9E3779B97F4A7C15 & _MASK)) & _MASK)
    return key


def sample_keys(key: int, samples: Any) -> Any:
    """One key per sample: samples (B,) are global sample numbers on any device -> (B,) uint64."""
    return fold(key, samples)


def generator(key: int) -> np.random.Generator:
    """A NumPy generator on the host, seeded by a key: for initialisation, data order, sampling."""
    check_key("key", key)
    return np.random.Generator(np.random.Philox(key=key))


def uniform_bits(keys: Any, shape: tuple[int, ...]) -> Any:
    """32 random bits per element: keys (B,) uint64, shape (B, ...) -> uint32 array of that shape.

    The bits of element j of sample b are hash(keys[b], j): two rounds of a 32-bit integer hash
    (Wellons' lowbias32), with one half of the key mixed in before each.
    """
    elements = array_module(keys).arange(_elements(keys, shape), dtype="uint32")
    return uniform_bits_of(keys, elements[None], shape).reshape(shape)


def uniform_bits_of(keys: Any, elements: Any, shape: tuple[int, ...]) -> Any:
    """`uniform_bits` of some elements only, so the whole array (B, ...) need not exist.

    keys: some of the B; elements (1, ...) uint32: their numbers within a sample
    -> uint32 (len(keys), ...).
    """
    _elements(keys, (len(keys), *shape[1:]))
    low, high = (
        (half & 0xFFFFFFFF).astype("uint32").reshape(-1, *[1] * (elements.ndim - 1))
        for half in (keys, keys >> 32)
    )
    h = _hash32(elements ^ low)
    h ^= high
    return _hash32(h)


def _elements(keys: Any, shape: tuple[int, ...]) -> int:
    """The number of elements per sample."""
    if len(shape) == 0 or keys.shape != (shape[0],):
        expected = f"one per sample ({shape[0] if shape else 0},)"
        raise ValueError(f"keys: expected {expected}, got shape {keys.shape}")
    if (count := math.prod(shape[1:])) >= 2**32:
        raise ValueError(f"shape: expected fewer than 2^32 elements per sample, got {shape[1:]}")
    return count


def _hash32(h: Any) -> Any:
    """A bijection on 32 bits with low bias, in place on an array that the caller owns."""
    h ^= h >> 16
    h *= 0x7FEB352D
    h ^= h >> 15
    h *= 0x846CA68B
    h ^= h >> 16
    return h
