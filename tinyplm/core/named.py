"""Names for intermediates: how a trace (checks/tracing.py) sees inside a model.

A component that is called as named("q", f)(...) is recorded under this name while a trace is open:
its value at once, the gradient of its value when the backward passes.  Otherwise named("q", f) is f
itself.  Names nest, with dots between them: layers.3.attention.q.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from .types import Component

Name = str | tuple[str | None, ...] | None
More = tuple[tuple[str, ...], Component]


class Recorder(Protocol):
    """What an open trace does with named components, and with calls of a model."""

    def recorded(self, name: Name, f: Component, scope: bool, more: More | None) -> Component:
        """f, recorded under this name."""

    def call(self, model: Any, f: Callable, targets: Any) -> Callable:
        """f(body, head, params, inputs, ...) -> (value, backward), recorded as one call of this
        model."""


RECORDER: ContextVar[Recorder | None] = ContextVar("RECORDER", default=None)


def named(name: Name, f: Component, *, scope: bool = True, more: More | None = None) -> Component:
    """f, recorded under this name while a trace is open.

    name   a tuple of names for a component that returns a tuple; None leaves a value out, or
           records only `more`
    scope  False: names inside f do not begin with this one
    more   (names, component): further values, which f computes inside and does not return.  The
           component takes what f takes and returns a tuple of them; its backward(dy) gives the
           tuple of their gradients.  It runs only where a trace asks for one of the names
    """
    recorder = RECORDER.get()
    return f if recorder is None else recorder.recorded(name, f, scope, more)


def named_part(name: str, f: Component) -> Component:
    """f under its own name with this one behind it, where a trace records f; otherwise f itself.

    For a component that is called several times: the norms before and after a sublayer.
    """
    return f.part(name) if hasattr(f, "part") else f


def call_of(model: Any, f: Callable, targets: Any = None) -> Callable:
    """models.parts.whole as f, for a call of this model: recorded likewise.

    targets: those of a loss, by the names of the outputs.
    """
    recorder = RECORDER.get()
    return f if recorder is None else recorder.call(model, f, targets)


def tracing() -> bool:
    """Whether a trace is open in this thread."""
    return RECORDER.get() is not None
