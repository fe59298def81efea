"""Checks of a model's arguments, made once at its border: arrays, masks, keys, targets, gradients.

Values are read only on the host: on a GPU that would wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import random
from ..arguments import check_key, is_number, is_whole, shown, wrong
from ..backend import array_module, is_host

Check = Callable[[Any], None]


def as_array(name: str, values: Any, expected: str, kinds: str) -> Any:
    """Lists as host arrays, arrays as they are; ValueError for other kinds of dtype."""
    try:
        array_module(values)
        a = values
    except TypeError:
        try:
            a = np.asarray(values)
        except Exception:  # ragged, nested too deep, an object's own: NumPy raises several errors
            raise wrong(name, expected, values) from None
    if a.size and a.dtype.kind not in kinds:  # an empty list has no kind: its shape is refused
        raise wrong(name, expected, values)
    return a


def ids(name: str, values: Any) -> Any:
    """An array of integers; for a string the message says where ids come from."""
    hint = ", which model.tokenizer.encode makes of a text" if name == "input_ids" else ""
    return as_array(name, values, f"integers{hint}", "iu")


def check_range(name: str, a: Any, below: int) -> None:
    """ValueError unless all integers are in [0, below)."""
    if is_host(a) and a.size and not (0 <= a.min() and a.max() < below):
        bad = a.max() if a.min() >= 0 else a.min()
        raise wrong(name, f"integers from 0 to {below - 1}", int(bad))


def zeros_and_ones(name: str, values: Any, *, floats: bool = False) -> Any:
    """An array of 0 and 1, integers or booleans (or floats).

    An additive mask of 0 and -1e9 would be read the wrong way round.
    """
    expected = f"0 and 1 as integers{' or floats' * floats}, or booleans"
    a = as_array(name, values, expected, "biuf" if floats else "biu")
    if is_host(a) and a.dtype != bool and not (right := (a == 0) | (a == 1)).all():
        raise ValueError(f"{name}: expected {expected}, got {a[~right].flat[0]}")
    return a


def sample_keys(key: Any, first: Any) -> Any:
    """One key for each sample of `first` (B,), from an integer or as given; None stays None."""
    if key is None:
        return None
    if is_whole(key):
        check_key("key", key, or_none=True)
        return random.sample_keys(int(key), array_module(first).arange(first.shape[0]))
    if getattr(key, "dtype", None) != "uint64" or key.shape != first.shape[:1]:
        shape = first.shape[:1]
        raise wrong("key", f"None, an integer >= 0 or a uint64 array of shape {shape}", key)
    return key


def checked_targets(targets: Any) -> dict[str, Any]:
    """{output: array} of a loss, lists as host arrays."""
    if not isinstance(targets, Mapping) or not all(isinstance(name, str) for name in targets):
        raise wrong("targets", 'a dict such as {"logits": array}', targets)
    return {
        name: as_array(f"targets: {name}", a, "an array of numbers", "fiu")
        for name, a in targets.items()
    }


def check_total(total: Any) -> None:
    """None or {output: number > 0}."""
    if total is None:
        return
    if not isinstance(total, Mapping) or not all(is_number(n) and n > 0 for n in total.values()):
        raise wrong("total", 'None or a dict of numbers > 0 such as {"logits": 12}', total)


def gradient_check(outputs: Mapping[str, Any]) -> Check:
    """check(doutputs) for a backward: ValueError unless they are gradients of some of the outputs.

    Keeps only the shapes of the outputs.
    """
    shapes = {name: a.shape for name, a in outputs.items()}
    xp = array_module(next(iter(outputs.values())))

    def check(doutputs: Any) -> None:
        if not isinstance(doutputs, Mapping):
            names = ", ".join(sorted(shapes))
            raise wrong("backward", f"a dict of gradients of some of {names}", doutputs)
        if unknown := [name for name in doutputs if name not in shapes]:
            names = ", ".join(sorted(shapes))
            raise ValueError(f"backward: expected some of {names}, got {shown(unknown)}")
        for name, d in doutputs.items():
            if d is not None:
                check_gradient(f"backward: {name}", d, shapes[name], xp)

    return check


def check_gradient(name: str, d: Any, shape: tuple[int, ...], xp: Any) -> None:
    """ValueError unless d is an array of floats of this shape on the device of xp."""
    try:
        fits = array_module(d) is xp and d.dtype.kind == "f" and d.shape == shape
    except TypeError:
        fits = False
    if not fits:
        device = "" if xp is np else " on the model's device"
        raise wrong(name, f"an array of floating-point numbers of shape {shape}{device}", d)


def check_scale(dloss: Any) -> None:
    """ValueError unless dloss, the gradient of a loss, is one number."""
    scalar = getattr(dloss, "shape", None) == () and dloss.dtype.kind in "fiu"
    if not (scalar or is_number(dloss)):
        raise wrong("backward", "a number, the gradient of the loss", dloss)
