"""What hypothesis draws for the laws: sizes and a seed; the arrays are then made from the seed.

Sizes are small and odd on purpose.  Values are normal with a spread near 1; where a component has a kink (ReLU at 0) its
maker moves values away from it, since no derivative exists there to compare with.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One key everywhere, as in DESIGN.md: B batch, T queries, S keys, D width, K kv heads, G heads a kv head, E head width."""

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
    flags: tuple[bool, bool, bool]  # which optional parts a case has

    @property
    def H(self) -> int:
        return self.K * self.G

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


@st.composite
def sizes(draw) -> Sizes:
    def between(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    return Sizes(B=between(1, 3), T=between(1, 5), S=between(1, 5), D=between(2, 7), K=between(1, 2), G=between(1, 3),
                 E=between(1, 4), F=between(1, 6), V=between(2, 9), seed=between(0, 2**32 - 1),
                 flags=(draw(st.booleans()), draw(st.booleans()), draw(st.booleans())))  # fmt: skip
