"""What every kind of callable is turned into: something that runs on NumPy arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from ...arguments import shown


class CallError(ValueError):
    """A callable cannot be called, or does not return what its kind should."""


class Parameter(NamedTuple):
    """A parameter of a callable."""

    name: str
    required: bool = True
    default: Any = None
    keyword: bool = False  # it is passed by name


class Slot(NamedTuple):
    """One positional argument of a call."""

    parameter: str  # the name that the callable gives it
    value: Any
    differentiable: bool  # it is an argument of ours with a gradient; the others are constants


Gradients = Callable[[Any], list[Any]]  # dy -> one gradient for each differentiable slot


class Adapter:
    """A callable of one kind.

    parameters is None where Python cannot tell; more_arguments and more_keywords say that it takes
    any number of further ones.  dtypes are those in which it is checked unless the caller says.
    """

    name = "f"
    dtypes: tuple[str, ...] = ("float64", "float32")
    parameters: list[Parameter] | None = None
    more_arguments = False
    more_keywords = False

    def run(self, slots: list[Slot], keywords: dict[str, Any], dtype: str) -> tuple[Any, Gradients]:
        """Value and backward on NumPy arrays of this dtype.  bfloat16 arrives as float32."""
        raise NotImplementedError

    def describe(self, f: Any, skip: int = 0) -> None:
        """Sets the parameters from the signature of f, without the first `skip`."""
        try:
            signature = inspect.signature(f)
        except (TypeError, ValueError):  # built in
            self.more_arguments = self.more_keywords = True
            return
        self.parameters = []
        for p in list(signature.parameters.values())[skip:]:
            if p.kind is p.VAR_POSITIONAL:
                self.more_arguments = True
            elif p.kind is p.VAR_KEYWORD:
                self.more_keywords = True
            else:
                required = p.default is p.empty
                default = None if required else p.default
                by_name = p.kind is p.KEYWORD_ONLY
                self.parameters.append(Parameter(p.name, required, default, by_name))


def name_of(f: Any) -> str:
    return str(getattr(f, "__name__", type(f).__name__))


def as_gradients(out: Any, count: int) -> list[Any]:
    """What a backward returned, as a list of `count` gradients; a single one may be bare."""
    if count == 1 and not (isinstance(out, tuple) and len(out) != 1):
        return [out[0] if isinstance(out, tuple) else out]
    if not isinstance(out, (tuple, list)):
        raise CallError(f"backward: expected a tuple of {count} gradients, got {shown(out)}")
    if len(out) != count:
        raise CallError(f"backward: expected {count} gradients, got {len(out)}")
    return list(out)
