"""A PyTorch model's trace under our names and in our layouts, so that both can be compared.

A name that is the output of a hub module is in modules.py.  Others are seen as the input of the
module that reads them: attention.heads of the output projection, mlp.product of the down
projection, residual of the second norm, embeddings and layers.N of the norm that follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import shown
from ..core import IGNORED
from .modules import modules
from .torch_tracing import INPUT
from .tracing import Call, Record


def is_pre_norm(names: Any) -> bool:
    """Whether the norm of a layer precedes its attention, by the order of a trace's names."""
    order = list(names)
    first = next((name for name in order if name.endswith(".attention.q")), None)
    norm = first and first.replace("attention.q", "norm1")
    return norm in order and order.index(norm) < order.index(first)


def in_our_names(
    ours: Call, model: Any, theirs: Call, side: str = "b"
) -> tuple[Call, dict[str, str]]:
    """What `theirs`, of a PyTorch model, has of the names of `ours`, as a trace; and where it has
    them: {our name: their module}."""
    places = {name: _place(name, ours, model, theirs) for name in ours}
    found = Call(None, "torch")
    found.inputs, found.dtypes = theirs.inputs, {}
    for name, place in places.items():
        if place is None:
            continue
        sharing = [n for n, other in places.items() if other == place and n in _parts(name, n)]
        record, like = theirs.records[place], ours[name].value
        widths = [ours[n].value.shape[-1] for n in sharing] if like.ndim else []
        start = sum(widths[: sharing.index(name)]) if len(sharing) > 1 else None

        def ours_of(a: np.ndarray | None, start=start, like=like, place=place) -> Any:
            if a is not None and start is not None and a.shape[-1] != like.shape[-1]:
                a = a[..., start : start + like.shape[-1]]
            return None if a is None else as_ours(a, like, f"{side}: {place}", ours.inputs)

        found.records[name] = Record(ours_of(record.value), ours_of(record.gradient))
        if place in theirs.dtypes:
            found.dtypes[name] = theirs.dtypes[place]
    found.backward = [name for name in ours.backward if name in found.records]
    return found, {name: place for name, place in places.items() if place is not None}


def _parts(name: str, other: str) -> tuple[str, ...]:
    """The names beside this one in a matrix that holds several: q, k and v, or gate and up."""
    start, _, last = name.rpartition(".")
    for parts in (("q", "k", "v"), ("gate", "up")):
        if last in parts:
            return tuple(f"{start}.{part}" for part in parts)
    return (name,)


def _place(name: str, ours: Call, model: Any, theirs: Call) -> str | None:
    """Where `theirs` has it: a module, or a module with ":input"."""
    own = modules(model) | dict(theirs.names or {})
    for place in _candidates(name, own, ours):
        for found in (place, place.removeprefix(model.family.PREFIX)):
            if found in theirs.records:
                return found
    return None


def _candidates(name: str, own: dict[str, str], ours: Call) -> list[str]:
    found = [own[name]] if name in own else []
    layer, _, role = _layer(name)
    pre = is_pre_norm(ours)

    def before(reader: str) -> None:
        if reader in own:
            found.append(own[reader] + INPUT)

    first = "norm1" if pre else "attention.q"  # what reads the input of a layer
    if name == "loss":
        found.append("loss")
    elif name == "embeddings":
        before("layers.0")
        before(f"layers.0.{first}")
    elif name == "hidden":
        found += [own[last] for last in list(ours)[::-1] if last in own and last != "logits"][:1]
    elif role == "attention.heads":
        before(f"{layer}.attention")
    elif role == "mlp.product" or (role == "mlp.activation" and f"{layer}.mlp.product" not in ours):
        before(f"{layer}.mlp")
    elif role == "mlp.activation" and f"{layer}.mlp.gate" in own:
        found.append(own[f"{layer}.mlp.gate"].rpartition(".")[0] + ".act_fn")
    elif role == "residual" and pre:
        before(f"{layer}.norm2")
    elif role == "residual" and f"{layer}.norm1" in own:
        found.append(own[f"{layer}.norm1"])
    elif layer and not role:
        after = f"layers.{int(layer.rpartition('.')[2]) + 1}"
        if not pre and f"{layer}.norm2" in own:
            found.append(own[f"{layer}.norm2"])
        elif pre:
            before(f"{after}.{first}" if f"{after}.{first}" in own else "norm")
    return found


def _layer(name: str) -> tuple[str, int, str]:
    """("layers.3", 3, "mlp.up") of layers.3.mlp.up; ("", -1, name) of another name."""
    first, _, rest = name.partition(".")
    number, _, role = rest.partition(".")
    return (f"layers.{number}", int(number), role) if first == "layers" else ("", -1, name)


def as_ours(a: np.ndarray, like: np.ndarray, place: str, inputs: dict) -> np.ndarray:
    """Their array in the layout of ours, or ValueError.

    (B, T, H E) as (B, H, T, E); (B T, D) as (B, T, D); of (B, T, V) the rows that have a target.
    """
    if a.shape == like.shape:
        return a
    if like.ndim == 4 and a.size == like.size:
        B, H, T, E = like.shape
        if a.shape in ((B, T, H * E), (B * T, H * E)):
            return a.reshape(B, T, H, E).transpose(0, 2, 1, 3)
    if like.ndim == 3 and a.shape == (like.shape[0] * like.shape[1], like.shape[2]):
        return a.reshape(like.shape)
    targets = inputs.get("targets.logits")
    if like.ndim == 2 and targets is not None and a.shape == (*targets.shape, like.shape[1]):
        rows = a[targets != IGNORED]
        if rows.shape == like.shape:
            return rows
    raise ValueError(f"compare: {place}: expected shape {like.shape}, got {shown(a)}")


def real_rows(a: np.ndarray, inputs: dict) -> np.ndarray:
    """Booleans that broadcast to a (B, T, ...) or (B, H, T, E): False where a row is padding.

    What a model computes for padding is its own affair: rows without keys are zero here and a
    uniform average elsewhere.  Nothing reads them.
    """
    mask, shape = inputs.get("attention_mask"), a.shape
    if mask is None or mask.ndim != 2 or not mask.any():
        return np.ones((1,) * a.ndim, dtype=bool)
    if a.ndim == 4 and shape[0] == len(mask) and shape[2] <= mask.shape[1]:
        return (mask != 0)[:, None, mask.shape[1] - shape[2] :, None]
    if a.ndim in (2, 3) and shape[:2] == mask.shape:
        return (mask != 0).reshape(mask.shape + (1,) * (a.ndim - 2))
    return np.ones((1,) * a.ndim, dtype=bool)
