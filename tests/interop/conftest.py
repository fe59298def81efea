"""Fixtures shared by the tests against transformers; shared functions are in pair.py."""

from __future__ import annotations

import pytest


@pytest.fixture
def in_float64():
    """Runs the whole test in pair.float64: transformers computes in float64 where it asks for float32."""
    from tests.interop.pair import float64

    with float64():
        yield
