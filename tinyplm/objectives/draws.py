"""Random numbers of an objective: a stream drawn from a key.

They are made from the raw words of Philox, a counter-based generator (Salmon et al. 2011). NumPy
keeps that stream stable across versions, but not its permutation, choice or integers (NEP 19).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..arguments import MOST, as_array, check_key, check_whole, wrong
from ..random import generator


class Draws:
    """The same key gives the same numbers; a longer draw begins with those of a shorter one."""

    def __init__(self, key: int) -> None:
        check_key("key", key)
        self._words = generator(key).bit_generator.random_raw

    def uniforms(self, count: int) -> np.ndarray:
        """(count,) float64 in [0, 1), from the upper 53 bits of each word."""
        check_whole("count", count, 0, MOST)
        return (self._words(count) >> np.uint64(11)) * 2.0**-53

    def uniform(self) -> float:
        return float(self.uniforms(1)[0])

    def integers(self, count: int, n: int) -> np.ndarray:
        """(count,) int64 in [0, n), uniform up to a relative bias of n / 2^64."""
        check_whole("count", count, 0, MOST)
        check_whole("n", n, 1, 2**63)
        return (self._words(count) % np.uint64(n)).astype(np.int64)

    def integer(self, n: int) -> int:
        return int(self.integers(1, n)[0])

    def order(self, n: int) -> np.ndarray:
        """0 ... n - 1 in random order."""
        check_whole("n", n, 0, MOST)
        return np.argsort(self._words(n), kind="stable")

    def choice(self, weights: Sequence[float]) -> int:
        """i with probability weights[i] / sum(weights)."""
        w = as_array("weights", weights, "numbers (N,), none negative", "fiu").tolist()
        if not w or not min(w) >= 0 or not 0 < sum(w) < math.inf:
            raise wrong("weights", "numbers (N,), none negative, with a finite sum above 0", w)
        point, i = self.uniform() * sum(w), 0
        while i + 1 < len(w) and point >= w[i]:
            point -= w[i]
            i += 1
        return i
