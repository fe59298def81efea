"""What Hypothesis draws for the laws: sizes and a seed, from which the arrays are made.

Sizes are small and odd on purpose.  Values are normal with a spread near 1; if a component has a kink (ReLU at 0), its
maker moves values away from it, since there is no derivative there to compare with.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from tests.laws import Sizes


def examples(count: int) -> settings:
    """`count` examples, for a test of many components that share their code; with --long as many as elsewhere."""
    usual = settings.default.max_examples
    return settings(max_examples=usual if usual > 100 else count)


@st.composite
def sizes(draw) -> Sizes:
    def between(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    return Sizes(B=between(1, 3), T=between(1, 5), S=between(1, 5), D=between(2, 7), K=between(1, 2), G=between(1, 3),
                 E=between(1, 4), F=between(1, 6), V=between(2, 9), seed=between(0, 2**32 - 1),
                 flags=(draw(st.booleans()), draw(st.booleans()), draw(st.booleans())))  # fmt: skip
