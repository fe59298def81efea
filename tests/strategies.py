"""What Hypothesis draws for the laws: sizes and a seed, from which the arrays are made (tinyplm/checks/case.py)."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.laws import Sizes
from tinyplm.checks.case import RANGES


@st.composite
def sizes(draw) -> Sizes:
    drawn = {name: draw(st.integers(low, high)) for name, (low, high) in RANGES.items()}
    seed = draw(st.integers(0, 2**32 - 1))
    return Sizes(**drawn, seed=seed, flags=(draw(st.booleans()), draw(st.booleans()), draw(st.booleans())))
