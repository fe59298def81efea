"""JAX: a function of arrays, differentiated by jax.vjp."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import tree_map
from .adapter import Adapter, Gradients, Slot, name_of


class Jax(Adapter):
    """A function of JAX arrays.  It is checked in float64 where jax_enable_x64 is set."""

    def __init__(self, f: Any) -> None:
        try:
            import jax
        except ImportError:
            raise ValueError("kind: expected JAX to be installed, got none") from None
        self.jax, self.f, self.name = jax, f, name_of(f)
        if not jax.config.jax_enable_x64:
            self.dtypes = ("float32",)
        self.describe(f)

    def array(self, value: Any, dtype: str) -> Any:
        if not isinstance(value, (np.ndarray, np.generic)):
            return value
        halved = dtype == "bfloat16" and value.dtype == np.float32
        return self.jax.numpy.asarray(value, "bfloat16" if halved else None)

    def run(self, slots: list[Slot], keywords: dict[str, Any], dtype: str) -> tuple[Any, Gradients]:
        def moved(tree: Any) -> Any:
            return tree_map(lambda a: self.array(a, dtype), tree)

        given = {name: moved(value) for name, value in keywords.items()}
        values = [moved(slot.value) for slot in slots]
        at = [i for i, slot in enumerate(slots) if slot.differentiable]

        def f(*differentiable: Any) -> Any:
            full = list(values)
            for i, value in zip(at, differentiable):
                full[i] = value
            return self.f(*full, **given)

        y, vjp = self.jax.vjp(f, *(values[i] for i in at))
        return _host(y), lambda dy: [_host(g) for g in vjp(moved(dy))]


def _host(tree: Any) -> Any:
    """NumPy arrays; bfloat16, which NumPy lacks, as float32."""

    def host(a: Any) -> Any:
        return np.asarray(a.astype("float32") if str(a.dtype) == "bfloat16" else a)

    return tree_map(host, list(tree) if isinstance(tree, tuple) else tree)
