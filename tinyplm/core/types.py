"""Names that all of the package shares: what type hints say, and the target that does not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Array: TypeAlias = Any  # of NumPy, CuPy, or a registered device: see backend.py
Backward = Callable[..., Any]  # backward(dy) -> the gradients of the positional arguments
Component = Callable[..., tuple[Any, Backward]]  # y, backward = f(...)

IGNORED = -100  # a target that does not count
