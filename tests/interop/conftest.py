"""What the tests against transformers share as fixtures; what they share as functions is in pair.py."""

from __future__ import annotations

import pytest


@pytest.fixture
def in_float64():
    """The whole test in pair.float64: transformers computes in float64 where it asks for float32."""
    from tests.interop.pair import float64

    with float64():
        yield
