"""A case is one call of a component.  Its sizes are drawn, and from them its arrays are made.

Sizes are small and odd on purpose.  Values are normal with a spread near 1; if a component has a
kink (ReLU at 0), its maker moves values away from it, since there is no derivative there to
compare with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import Component

# The smallest and largest value of each size.
RANGES = {
    "B": (1, 3),
    "T": (1, 5),
    "S": (1, 5),
    "D": (2, 7),
    "K": (1, 2),
    "G": (1, 3),
    "E": (1, 4),
    "F": (1, 6),
    "V": (2, 9),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One key everywhere: B batch, T queries, S keys, D width, K key/value heads, G query heads
    for each of them, E head width, F another width, V vocabulary."""

    B: int
    T: int
    S: int
    D: int
    K: int
    G: int
    E: int
    F: int
    V: int
    seed: int
    flags: tuple[bool, bool, bool]  # which optional parts a case includes

    @property
    def H(self) -> int:
        return self.K * self.G

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@dataclasses.dataclass
class Case:
    """Positional arguments (float64 trees on the host) and keyword arguments of one call."""

    args: list[Any]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


class Entry(NamedTuple):
    """A component of the table.  Its equation and source are in the docstring of f."""

    f: Component
    make: Callable[[Sizes], Case]
    text: str  # what it is, in one line
    plain: str | None = None  # of a kernel: the name of the entry whose values it must equal


def draw_sizes(seed: int | Sequence[int]) -> Sizes:
    """The same sizes for the same seed."""
    rng = np.random.default_rng(seed)
    drawn = {name: int(rng.integers(low, high + 1)) for name, (low, high) in RANGES.items()}
    first, second, third = (bool(b) for b in rng.integers(0, 2, 3))
    return Sizes(**drawn, seed=int(rng.integers(2**32)), flags=(first, second, third))
