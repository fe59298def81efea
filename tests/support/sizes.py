"""Checks that the families' own tests share."""

from __future__ import annotations

from types import ModuleType

import pytest

from tinyplm.hub.names import count_parameters


def assert_counts(module: ModuleType, counts: dict[str, int]) -> None:
    """Every size has the parameter count published for it; nothing is allocated."""
    assert {size: count_parameters(module.shapes(config)) for size, config in module.SIZES.items()} == counts


def assert_refused(cls: type, changes: dict, message: str) -> None:
    """A config with these fields is refused in one line that matches the message."""
    with pytest.raises(ValueError, match=message) as error:
        cls(**changes)
    assert "\n" not in str(error.value)
