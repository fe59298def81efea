"""Samples of several sequences, (B, N, T): the choices of a question, or a pair in both orders.

The body reads them as B N samples, and the head joins them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import mismatch, wrong
from ..backend import array_module
from ..random import fold
from . import checks
from .protocol import Arrays


def checked_each(
    check: Callable[..., dict[str, Any]],
    input_ids: Any,
    inputs_embeds: Any,
    others: Arrays,
    *,
    axis: str = "choices",
) -> dict[str, Any]:
    """The inputs (B, N, T) of `check`, which gets each sequence as a sample of its own.

    axis: what the second one is called in an error.
    """
    if inputs_embeds is not None:
        what = "a multiple choice" if axis == "choices" else f"several {axis}"
        raise wrong("inputs_embeds", f"None and input_ids for {what}", inputs_embeds)
    input_ids = checks.ids("input_ids", input_ids)
    if input_ids.ndim != 3 or 0 in input_ids.shape:
        expected = f"shape (B, {axis}, T) with all of them >= 1"
        raise mismatch("input_ids", expected, input_ids.shape)
    B, N, T = input_ids.shape
    flat = {"input_ids": input_ids}
    for name, values in others.items():
        if values is not None:
            flat[name] = checks.as_array(name, values, "an array of integers", "biuf")
            if flat[name].shape != input_ids.shape:
                raise mismatch(name, f"shape {input_ids.shape}", flat[name].shape)
    checked = check(**{name: a.reshape(B * N, T) for name, a in flat.items()})
    return {n: None if a is None else a.reshape(B, N, T) for n, a in checked.items()}


def flattened(inputs: Arrays) -> tuple[int | None, Arrays]:
    """(N, inputs (B N, ...)) of checked inputs (B, N, ...); (None, inputs) of others.

    Each sequence has a key of its own.
    """
    ids, key = inputs.get("input_ids"), inputs.get("key")
    if ids is None or ids.ndim != 3:
        return None, inputs
    N = ids.shape[1]
    arrays = {n: a for n, a in inputs.items() if a is not None and n != "key"}
    flat = {n: a.reshape(-1, *a.shape[2:]) for n, a in arrays.items()}
    if key is not None:
        flat["key"] = fold(key[:, None], array_module(key).arange(N)).reshape(-1)
    return N, flat
