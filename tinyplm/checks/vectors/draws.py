"""Random numbers that are bit-identical on every machine, and the rounding of inputs to a dtype.

NumPy's generators fix the raw bits of PCG64, but not what `normal` makes of them: it calls the
logarithm of the C library, and its method may change between versions.  Here everything after the
raw bits is exact arithmetic.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core import tree_map
from ...hub.tensors import round_to_bfloat16, widened
from ..case import Sizes

DTYPES = ("float64", "float32", "float16", "bfloat16")
# The distance from 1 to the next number; a result rounds by at most half of it, relatively.
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SIGNIFICAND = 32  # bits of a float64 input


class Draws:
    """The methods of numpy.random.Generator that the makers of cases call, from PCG64's raw bits.

    normal is the sum of twelve uniform numbers of 32 bits, less their mean 6 (Irwin-Hall): variance
    1, no value beyond 6, and every operation exact.
    """

    def __init__(self, seed: int | Sequence[int]) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def _raw(self, size: Any) -> np.ndarray:
        shape = (size,) if isinstance(size, (int, np.integer)) else tuple(size or ())
        return np.asarray(self._bits.random_raw(math.prod(shape))).reshape(shape)

    def random(self, size: Any = None) -> Any:
        """Uniform in [0, 1), multiples of 2^-53."""
        return _plain((self._raw(size) >> np.uint64(11)) * 2.0**-53, size)

    def uniform(self, low: float, high: float, size: Any = None) -> Any:
        return low + (high - low) * self.random(size)

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Any = None) -> Any:
        shape = (size,) if isinstance(size, (int, np.integer)) else tuple(size or ())
        halves = self._raw((*shape, 6))
        total = (halves & np.uint64(0xFFFFFFFF)).sum(axis=-1) + (halves >> np.uint64(32)).sum(-1)
        return loc + scale * _plain(total * 2.0**-32 - 6, size)  # total < 2^36: exact

    def integers(
        self, low: int, high: int | None = None, size: Any = None, dtype: Any = int
    ) -> Any:
        """From low to high - 1, or from 0 to low - 1."""
        low, high = (0, low) if high is None else (low, high)
        if (low, high) == (0, 2**64):
            return self._raw(size)
        drawn = np.floor(np.asarray(self.random(size)) * (high - low)).astype(np.int64) + low
        return int(drawn) if size is None else drawn.astype(dtype)

    def choice(self, values: Sequence, size: Any = None) -> Any:
        return np.asarray(values)[self.integers(len(values), size=size)]

    def permutation(self, count: int) -> np.ndarray:
        return np.argsort(self._raw(count), kind="stable")


def _plain(a: np.ndarray, size: Any) -> Any:
    return float(a) if size is None else a


class ExactSizes(Sizes):
    """Sizes whose generator is `Draws`."""

    def rng(self) -> Any:
        return Draws(self.seed)


# Smaller ranges than in case.py, without the degenerate sizes: those are cases of their own.
RANGES = {
    "B": (2, 3),
    "T": (3, 5),
    "S": (2, 5),
    "D": (4, 7),
    "K": (1, 2),
    "G": (1, 3),
    "E": (2, 4),
    "F": (3, 6),
    "V": (5, 9),
}


def sizes(number: int, **fixed: int) -> ExactSizes:
    """The sizes of a case by its number, some of them given.  Flags and the remainders of the seed,
    by which makers choose variants, cycle with the number."""
    rng = Draws((17, number))
    drawn = {name: rng.integers(low, high + 1) for name, (low, high) in RANGES.items()}
    flags = [(True, True, True), (False, False, False), (True, False, True), (False, True, False)]
    return ExactSizes(**{**drawn, **fixed}, seed=1000 + number, flags=flags[number % 4])


def with_flags(s: ExactSizes, *flags: bool) -> ExactSizes:
    return dataclasses.replace(s, flags=flags)  # type: ignore[arg-type]


def is_float(a: Any) -> bool:
    return getattr(getattr(a, "dtype", None), "kind", None) == "f"


def rounded(a: np.ndarray, dtype: str) -> np.ndarray:
    """A float64 array rounded to a dtype; bfloat16 as float32.

    float64: to 32 bits.  That is more than float32 has, so a loss of precision shows; and where a
    maker uses log or a power, whose last bit differs between processors, the result is the same.
    """
    if dtype == "float64":
        fraction, exponent = np.frexp(a)
        return np.ldexp(np.rint(np.ldexp(fraction, SIGNIFICAND)), exponent - SIGNIFICAND)
    if dtype == "bfloat16":
        return widened(round_to_bfloat16(a.astype(np.float32))).reshape(np.shape(a))
    return a.astype(dtype)


def cast(value: Any, dtype: str) -> Any:
    """The floating-point arrays of a tree in another dtype."""
    return tree_map(lambda a: a.astype(dtype) if is_float(a) else a, value)
