"""What Hypothesis draws for the laws: sizes and a seed, from which the arrays are made (tinyplm/checks/case.py)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from tests.laws import Sizes
from tinyplm.checks.case import RANGES


def examples(count: int) -> settings:
    """`count` examples, for a test of many components that share their code; with --long as many as elsewhere."""
    usual = settings.default.max_examples
    return settings(max_examples=usual if usual > 100 else count)


@st.composite
def sizes(draw) -> Sizes:
    drawn = {name: draw(st.integers(low, high)) for name, (low, high) in RANGES.items()}
    seed = draw(st.integers(0, 2**32 - 1))
    return Sizes(**drawn, seed=seed, flags=(draw(st.booleans()), draw(st.booleans()), draw(st.booleans())))
