"""PyTorch: an autograd.Function, a module, or any function of tensors.  Autograd differentiates."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import tree_map
from .adapter import Adapter, CallError, Gradients, Parameter, Slot, name_of


class Torch(Adapter):
    """A subclass of torch.autograd.Function, a module, or a function of tensors.

    A Function gets positional arguments, named as in its forward.  A module also takes its
    parameters, by their names: {"weight": "gamma"} in `arguments` says which of ours is which.
    Arrays are moved to `device` and back.
    """

    def __init__(self, f: Any, *, device: str = "cpu") -> None:
        try:
            import torch
        except ImportError:
            raise ValueError("kind: expected PyTorch to be installed, got none") from None
        self.torch, self.f, self.device, self.name = torch, f, device, name_of(f)
        self.module = isinstance(f, torch.nn.Module)
        own: Any = f  # for a type checker that does not find torch
        if isinstance(f, type) and issubclass(f, torch.autograd.Function):
            # with setup_context, forward has no ctx
            plain = own.setup_context is not torch.autograd.Function.setup_context
            self.describe(own.forward, skip=0 if plain else 1)
            self.f = own.apply
        elif self.module:
            self.describe(f.forward)
            names = [name for name, _ in f.named_parameters()]
            self.parameters = [*(self.parameters or []), *map(Parameter, names)]
            self.owned = set(names)
        else:
            self.describe(f)

    def tensor(self, value: Any, dtype: str) -> Any:
        """A tensor that shares an array's memory where device and dtype allow."""
        if not isinstance(value, (np.ndarray, np.generic)):
            return value
        value = np.asarray(value)
        tensor = self.torch.from_numpy(value)
        return tensor.to(self.device, self.torch.bfloat16 if _halved(value, dtype) else None)

    def call(self, slots: list[Slot], values: list[Any], keywords: dict[str, Any]) -> Any:
        if not self.module:
            return self.f(*values, **keywords)
        named = {slot.parameter: value for slot, value in zip(slots, values)}
        own = {name: value for name, value in named.items() if name in self.owned}
        rest = tuple(value for name, value in named.items() if name not in self.owned)
        return self.torch.func.functional_call(self.f, own, rest, keywords)

    def run(self, slots: list[Slot], keywords: dict[str, Any], dtype: str) -> tuple[Any, Gradients]:
        torch = self.torch
        shared: list[tuple[Any, Any]] = []

        def moved(value: Any) -> Any:
            tensor = self.tensor(value, dtype)
            if isinstance(value, np.ndarray) and (self.device != "cpu" or _halved(value, dtype)):
                shared.append((value, tensor))
            return tensor

        values = [_mapped(moved, slot.value) for slot in slots]
        leaves: list[Any] = []  # of the differentiable slots
        for slot, value in zip(slots, values):
            if slot.differentiable:
                _mapped(lambda t: leaves.append(t.requires_grad_()), value)
        given = {name: _mapped(moved, value) for name, value in keywords.items()}
        y = self.call(slots, values, given)
        self._write_back(shared)
        outputs: list[Any] = []
        _mapped(outputs.append, y)
        if not outputs or not all(isinstance(t, torch.Tensor) for t in outputs):
            raise CallError(f"expected a tensor, got a {type(y).__name__}")

        def backward(dy: Any) -> list[Any]:
            cotangents: list[Any] = []
            _mapped(lambda a: cotangents.append(self.tensor(np.asarray(a), dtype)), dy)
            if not any(t.requires_grad for t in outputs):  # every gradient is lost
                return [None for slot in slots if slot.differentiable]
            found = iter(
                torch.autograd.grad(
                    outputs, leaves, cotangents, retain_graph=True, allow_unused=True
                )
            )
            self._write_back(shared)
            return [
                _mapped(lambda _: self.array(next(found)), value)
                for slot, value in zip(slots, values)
                if slot.differentiable
            ]

        return _mapped(self.array, y), backward

    def array(self, tensor: Any) -> Any:
        if tensor is None:
            return None
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == self.torch.bfloat16 else tensor).numpy()

    def _write_back(self, shared: list[tuple[Any, Any]]) -> None:
        """Into arrays that their tensors do not share, so that a written input is seen."""
        for array, tensor in shared:
            array[...] = self.array(tensor)


def _halved(value: Any, dtype: str) -> bool:
    return dtype == "bfloat16" and value.dtype == np.float32


def _mapped(f: Any, tree: Any) -> Any:
    if isinstance(tree, tuple):
        return [_mapped(f, branch) for branch in tree]
    return tree_map(f, tree)
