"""Traces of PyTorch models: hooks on all modules.  PyTorch is imported only where one is given."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..arguments import check_function, known_arguments, wrong
from .tracing import Call, Record

INPUT = ":input"  # what the name of a module's input ends with


@known_arguments
def trace_torch(
    model: Any, inputs: Any, *, backward: Callable | None = None, names: Any = None
) -> Call:
    """One call of a PyTorch module, recorded; for `compare` with a trace of ours.

    inputs    a dict of keyword arguments, or a tuple of positional ones: arrays or tensors
    backward  function of the module's outputs -> the scalar to differentiate, recorded as "loss";
              None for values only
    names     where modules have other names than on the hub: {our path: their module}, or pairs of
              (regular expression, replacement) that make hub names of theirs.  A module's name with
              ":input" stands for what goes into it

    The trace has the output of each module, and the input ("NAME:input") of each leaf module and of
    those in a list, such as layers; the first array where there are several, and the second call of
    a module as "NAME#2".  A gradient is that of the scalar; zero where no path leads to it.
    Neither the module nor its `.grad`s change.
    """
    torch = _torch()
    if not isinstance(model, torch.nn.Module):
        raise wrong("trace_torch: model", "a PyTorch module (torch.nn.Module)", model)
    check_function("trace_torch: backward", backward, or_none=True)
    rules = check_names(names)
    args, kwargs = _arguments(torch, model, inputs)
    call = Call(None, "torch")
    call.names = names if isinstance(names, Mapping) else None
    call.inputs = {n: _array(call, n, t) for n, t in kwargs.items() if torch.is_tensor(t)}
    hooks: list[Any] = []

    def record(name: str, tensor: Any) -> None:
        if tensor is None:
            return
        path = name if name not in call.records else _next(name, call)
        call.records[path] = Record(_array(call, path, tensor))
        if backward is not None and tensor.requires_grad:
            call.records[path].gradient = np.zeros_like(call.records[path].value)
            hooks.append(tensor.register_hook(lambda d: arrived(path, d)))

    def arrived(path: str, d: Any) -> None:
        call.records[path].gradient = _array(call, path, d)
        if path in call.backward:
            call.backward.remove(path)
        call.backward.append(path)

    def before(name: str) -> Callable:  # what is inside may change its input in place
        def entered(module: Any, args: Any, kwargs: Any) -> None:
            record(name + INPUT, _first(torch, [*args, *kwargs.values()]))

        return entered

    def after(name: str) -> Callable:
        def left(module: Any, args: Any, output: Any) -> None:
            record(name, _first(torch, output))

        return left

    for path, module in model.named_modules():
        if path:
            name = renamed(path, rules)
            if path.rpartition(".")[2].isdigit() or next(module.children(), None) is None:
                hooks.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
            hooks.append(module.register_forward_hook(after(name)))
    try:
        with torch.set_grad_enabled(backward is not None):
            outputs = model(*args, **kwargs)
            if backward is not None:
                call.gradients = _differentiated(torch, call, model, backward(outputs), rules)
    finally:
        for handle in hooks:
            handle.remove()
    if not call.records:
        raise wrong("trace_torch: model", "a module with modules inside", type(model).__name__)
    return call


def _differentiated(
    torch: Any, call: Call, model: Any, loss: Any, rules: list
) -> dict[str, np.ndarray]:
    """The gradients of the parameters by name; those of the records come by their hooks."""
    if not torch.is_tensor(loss) or loss.numel() != 1:
        given = tuple(loss.shape) if torch.is_tensor(loss) else loss
        raise wrong("trace_torch: backward", "a function that gives one number, a tensor", given)
    if not loss.requires_grad:
        raise ValueError(
            "trace_torch: backward: expected a number with a gradient, got one without"
        )
    value = _array(call, "loss", loss).reshape(())
    call.records["loss"] = Record(value, np.ones((), value.dtype))
    call.backward.append("loss")
    known = [(renamed(n, rules), p) for n, p in model.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in known], allow_unused=True)
    zeros = (torch.zeros_like(p) if d is None else d for (_, p), d in zip(known, found))
    return {name: _array(call, name, d) for (name, _), d in zip(known, zeros)}


def check_names(names: Any) -> list[tuple[str, str]]:
    """The rules among `names`; ValueError unless it is as trace_torch says."""
    expected = "None, {our path: their module} or pairs of (regular expression, replacement)"
    if names is None:
        return []
    if isinstance(names, Mapping):
        if not all(isinstance(text, str) for pair in names.items() for text in pair):
            raise wrong("trace_torch: names", expected, names)
        return []
    try:
        rules = [(str(a), str(b)) for a, b in names]
        for pattern, _ in rules:
            re.compile(pattern)
    except (TypeError, ValueError, re.error):
        raise wrong("trace_torch: names", expected, names) from None
    return rules


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ValueError("trace_torch: expected PyTorch (pip install torch), got none") from None


def _arguments(torch: Any, model: Any, inputs: Any) -> tuple[list, dict[str, Any]]:
    """Positional and keyword arguments, arrays as tensors on the model's device."""
    first = next(model.parameters(), None)
    device = "cpu" if first is None else first.device

    def tensor(a: Any) -> Any:
        return torch.as_tensor(a).to(device) if isinstance(a, np.ndarray) else a

    if isinstance(inputs, Mapping):
        return [], {name: tensor(a) for name, a in inputs.items() if a is not None}
    if isinstance(inputs, (tuple, list)):
        return [tensor(a) for a in inputs], {}
    if isinstance(inputs, np.ndarray) or torch.is_tensor(inputs):
        return [tensor(inputs)], {}
    raise wrong("trace_torch: inputs", "a dict of arrays, a tuple of them or one", inputs)


def _first(torch: Any, output: Any) -> Any:
    """The first tensor of floating-point numbers, or None."""
    if torch.is_tensor(output):
        return output if output.is_floating_point() else None
    parts = output.values() if isinstance(output, Mapping) else output
    if isinstance(output, (Mapping, tuple, list)):
        return next((t for t in (_first(torch, part) for part in parts) if t is not None), None)
    return None


def _array(call: Call, name: str, tensor: Any) -> np.ndarray:
    """A copy on the host; bfloat16 as float32, with its name noted."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        call.dtypes[name], tensor = "bfloat16", tensor.float()
    return np.array(tensor.numpy())


def renamed(path: str, rules: list[tuple[str, str]]) -> str:
    """A module's name by the rules."""
    for pattern, replacement in rules:
        path = re.sub(pattern, replacement, path)
    return path


def _next(name: str, call: Call) -> str:
    n = 2
    while f"{name}#{n}" in call.records:
        n += 1
    return f"{name}#{n}"
