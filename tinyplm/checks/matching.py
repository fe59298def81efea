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

# A sum within a layer: the norm behind it (post-norm), the norm that reads it (pre-norm).
RESIDUALS = {"residual": ("norm1", "norm2"), "cross_residual": ("norm2", "norm3")}


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
    prefix = model.family.PREFIX
    scale = getattr(model.config, "embedding_scale", 1.0)
    for place in _candidates(name, own, ours, scale):
        for found in (place, prefix + place, place.removeprefix(prefix)):
            if found in theirs.records:
                return found
    return None


def _candidates(name: str, own: dict[str, str], ours: Call, scale: float) -> list[str]:
    norm = name.replace("embeddings.", "")  # a trace has the parts of an embedding behind its name
    found = [own[n] for n in dict.fromkeys((name, norm)) if n in own]
    side, inner = sided(name)
    layer, number, role = _layer(inner)
    layer = side + layer
    pre = is_pre_norm(ours)
    last = "norm3" if f"{layer}.norm3" in ours else "norm2"

    def before(reader: str) -> None:
        if reader in own:
            found.append(own[reader] + INPUT)

    first = "norm1" if pre else "attention.q"  # what reads the input of a layer
    if name == "loss":
        found.append("loss")
    elif inner == "embeddings":
        before(f"{side}layers.0")
        before(f"{side}layers.0.{first}")
    elif inner == "tokens" and scale == 1:  # BART's module gives scaled rows
        found += [f"{side}embed_tokens", "shared" if side == "encoder." else "shared#2"]
    elif name in ("encoder", "decoder", "encoder_hidden"):
        found.append(name.removesuffix("_hidden"))
    elif name == "hidden":
        found += [own[n] for n in list(ours)[::-1] if n in own and n != "logits"][:1]
    elif role in ("attention.heads", "cross.heads"):
        before(f"{layer}.{role.removesuffix('.heads')}")
    elif role == "mlp.product" or (role == "mlp.activation" and f"{layer}.mlp.product" not in ours):
        before(f"{layer}.mlp")
    elif role == "mlp.activation" and f"{layer}.mlp.gate" in own:
        gate = own[f"{layer}.mlp.gate"].rpartition(".")[0]
        found += [f"{gate}.act_fn", f"{gate}.act"]
    elif role in RESIDUALS and pre:
        before(f"{layer}.{RESIDUALS[role][1]}")
    elif role in RESIDUALS and f"{layer}.{RESIDUALS[role][0]}" in own:
        found.append(own[f"{layer}.{RESIDUALS[role][0]}"])
    elif number >= 0 and not role:
        after = f"{side}layers.{number + 1}"
        if not pre and f"{layer}.{last}" in own:
            found.append(own[f"{layer}.{last}"])
        elif pre:
            before(f"{after}.{first}" if f"{after}.{first}" in own else f"{side}norm")
    return found


def sided(name: str) -> tuple[str, str]:
    """("encoder.", "layers.3.mlp") of encoder.layers.3.mlp; ("", name) where there are no sides."""
    side, _, inner = name.partition(".")
    return (f"{side}.", inner) if side in ("encoder", "decoder") and inner else ("", name)


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


def _mask_of(name: str, inputs: dict) -> str:
    """Which input tells the padding among the rows of this name."""
    two = "decoder_input_ids" in inputs or "decoder_inputs_embeds" in inputs
    source = name.startswith("encoder") or name.endswith((".cross.k", ".cross.v"))
    return "decoder_attention_mask" if two and not source else "attention_mask"


def real_rows(name: str, a: np.ndarray, inputs: dict) -> np.ndarray:
    """Booleans that broadcast to a (B, T, ...) or (B, H, T, E): False where a row is padding.

    What a model computes for padding is its own affair: rows without keys are zero here and a
    uniform average elsewhere.  Nothing reads them.  name: in an encoder-decoder each side has its
    own padding.
    """
    mask, shape = inputs.get(_mask_of(name, inputs)), a.shape
    if mask is None or mask.ndim != 2 or not mask.any():
        return np.ones((1,) * a.ndim, dtype=bool)
    if a.ndim == 4 and shape[0] == len(mask) and shape[2] <= mask.shape[1]:
        return (mask != 0)[:, None, mask.shape[1] - shape[2] :, None]
    if a.ndim in (2, 3) and shape[:2] == mask.shape:
        return (mask != 0).reshape(mask.shape + (1,) * (a.ndim - 2))
    return np.ones((1,) * a.ndim, dtype=bool)
