"""Callables that can be checked, each kind turned into one form (adapter.py).

plain.py  a function `y, backward = f(...)`, and a pair (forward, backward)
torch.py  a torch.autograd.Function, a torch module or function
jax.py    a JAX function
c.py      C functions in a shared library
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ...arguments import check_choice, wrong
from .adapter import Adapter, CallError, Parameter, Slot
from .c import CFunction
from .jax import Jax
from .plain import Contract, Pair
from .torch import Torch

__all__ = [
    "Adapter",
    "CFunction",
    "CallError",
    "Contract",
    "Jax",
    "Pair",
    "Parameter",
    "Slot",
    "Torch",
    "adapt",
]

KINDS: dict[str, Callable[[Any], Adapter]] = {"ours": Contract, "torch": Torch, "jax": Jax}


def adapt(f: Any, kind: str | None = None) -> Adapter:
    """f in the common form.

    Pairs, C functions, torch modules and subclasses of torch.autograd.Function, and what JAX has
    wrapped are recognised; a plain function is ours unless `kind` says torch or jax.
    """
    check_choice("kind", kind, list(KINDS), or_none=True)
    if isinstance(f, Adapter):
        return f
    if isinstance(f, (tuple, list)) and len(f) == 2 and all(map(callable, f)):
        return Pair(*f)
    if not callable(f):
        raise wrong("f", "a callable, or a pair (forward, backward) of them", f)
    return KINDS[kind or _kind(f)](f)


def _kind(f: Any) -> str:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "nn"):
        function = isinstance(f, type) and issubclass(f, torch.autograd.Function)
        if function or isinstance(f, torch.nn.Module):
            return "torch"
    for where in (str(getattr(f, "__module__", "")), type(f).__module__):
        if where.split(".")[0] in ("torch", "jax", "jaxlib"):
            return where[:5] if where.startswith("torch") else "jax"
    return "ours"
