"""Functions of NumPy arrays: by our contract, or a forward and a backward of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...arguments import shown
from .adapter import Adapter, CallError, Gradients, Slot, as_gradients, name_of


class Contract(Adapter):
    """y, backward = f(...);   backward(dy) returns one gradient for each argument of ours."""

    def __init__(self, f: Callable) -> None:
        self.f, self.name = f, name_of(f)
        self.describe(f)

    def run(self, slots: list[Slot], keywords: dict[str, Any], dtype: str) -> tuple[Any, Gradients]:
        out = self.f(*(slot.value for slot in slots), **keywords)
        if not (isinstance(out, tuple) and len(out) == 2 and callable(out[1])):
            raise CallError(
                f"expected the value and a backward, got {shown(out)} "
                "(a function of torch tensors or JAX arrays needs kind='torch' or kind='jax')"
            )
        y, backward = out
        count = sum(slot.differentiable for slot in slots)
        return y, lambda dy: as_gradients(backward(dy), count)


class Pair(Adapter):
    """y = forward(...);   backward(dy, ...) takes the same arguments after dy.

    If forward returns (y, kept), the call is backward(dy, kept).  Either way backward returns one
    gradient for each argument of ours.
    """

    def __init__(self, forward: Callable, backward: Callable) -> None:
        self.forward, self.backward, self.name = forward, backward, name_of(forward)
        self.describe(forward)

    def run(self, slots: list[Slot], keywords: dict[str, Any], dtype: str) -> tuple[Any, Gradients]:
        values = [slot.value for slot in slots]
        count = sum(slot.differentiable for slot in slots)
        out = self.forward(*values, **keywords)
        if isinstance(out, tuple) and len(out) == 2:
            y, kept = out
            return y, lambda dy: as_gradients(self.backward(dy, kept), count)
        if isinstance(out, tuple):
            raise CallError(f"forward: expected y or (y, kept), got a tuple of {len(out)}")
        return out, lambda dy: as_gradients(self.backward(dy, *values, **keywords), count)
