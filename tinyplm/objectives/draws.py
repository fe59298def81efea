"""Random draws of an objective: a stream of numbers from a key.

They come from the raw words of Philox, a counter-based generator (Salmon et al. 2011), which NumPy keeps the same from version to
version; what it makes of them (permutation, choice, integers) it does not promise to keep (NEP 19).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..arguments import MOST, as_array, check_key, check_whole, wrong
from ..random import generator


class Draws:
    """The same key gives the same numbers.  The first n of a longer draw are those of a draw of n."""

    def __init__(self, key: int) -> None:
        check_key("key", key)
        self._words = generator(key).bit_generator.random_raw

    def uniforms(self, count: int) -> np.ndarray:
        """(count,) float64 in [0, 1): the upper 53 bits of each word."""
        check_whole("count", count, 0, MOST)
        return (self._words(count) >> np.uint64(11)) * 2.0**-53

    def uniform(self) -> float:
        return float(self.uniforms(1)[0])

    def integers(self, count: int, n: int) -> np.ndarray:
        """(count,) int64 in [0, n): no number is likelier than another by more than n / 2^64."""
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
        weights = as_array("weights", weights, "numbers (N,), none negative", "fiu").tolist()
        if not weights or not min(weights) >= 0 or not 0 < sum(weights) < math.inf:
            raise wrong(
                "weights", "numbers (N,), none negative, with a finite sum above 0", weights
            )
        point, i = self.uniform() * sum(weights), 0
        while i + 1 < len(weights) and point >= weights[i]:
            point -= weights[i]
            i += 1
        return i
