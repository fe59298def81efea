"""The prefix that ChatGLM's P-tuning v2 trained, from its own files.        Liu et al. 2022, sec. 3

    model, theta = load_ptuned(folder)                  of a folder that has the whole model
    model, theta = load_ptuned(folder, base=model)      or the prefix alone
    tuned = with_prefix(model, theta)

    rows = W,   or with prefix_projection   rows = tanh(W A1^T + b1) A2^T + b2
    rows (P, 2 L K E), read as (P, L, 2, K, E): of each layer the keys, and the values

RoPE turns none of the keys, every token sees them, and positions count from 0 behind them: a prefix
as in prefix.py.  The trained two layers (A1, A2) are not kept: theta holds what they give.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ...arguments import check_path, known_arguments, mismatch, wrong
from ...backend import array_module
from ...core import Tree
from ...files import LARGEST_SETTINGS, exists, printable, read_json
from ...hub import load
from ...hub.prefix_encoder import TENSORS, split_prefix
from ...hub.tensors import StoredTensor, open_folder
from ...memory import check_memory
from ...models.causal_model import CausalModel
from .files import check_tensor
from .prefix import check_attention

TABLE, LAYERS = "embedding.weight", ("trans.0.weight", "trans.0.bias", "trans.2.weight")
PLAIN, PROJECTED = {TABLE}, {TABLE, *LAYERS, "trans.2.bias"}


@known_arguments
def load_ptuned(
    folder: str | os.PathLike, *, base: CausalModel | None = None
) -> tuple[CausalModel, Tree]:
    """(model, theta of its prefix) of a folder with config.json and model.safetensors.

    base: the model that was tuned, where the folder holds `transformer.prefix_encoder.*` alone;
    None reads it from the same folder.  theta is one of prefix.py: for with_prefix, prefix_of,
    save_prefix.
    ValueError naming the folder for other tensors than a prefix has, shapes that do not fit the
    model, another number of rows than pre_seq_len, numbers that are not finite, and the faults that
    `load` names.
    """
    check_path("folder", folder)
    model: Any = load(folder, prefix=False) if base is None else base
    check_attention(model)
    stored, where = open_folder(Path(folder))
    own, _ = split_prefix(stored)
    if own.keys() not in (PLAIN, PROJECTED):
        table = f"{TENSORS}{TABLE}"
        expected = f"{table}, alone or with {TENSORS}trans.0 and trans.2 (weights and biases)"
        raise mismatch(where, expected, ", ".join(map(printable, sorted(own))) or "none of them")
    width = _check_shapes(own, model, where)
    rows = own[TABLE].shape[0]
    _check_settings(Path(folder), rows)
    check_memory(2 * rows * width * 8, "the keys and values of the prefix")
    arrays = {name: np.array(tensor) for name, tensor in own.items()}
    for name, a in arrays.items():
        check_tensor(f"{where}: {TENSORS}{name}", a)
    kinds = (np.float32, model.dtype, *(a.dtype for a in arrays.values()))
    return model, _theta(arrays, model, np.result_type(*kinds))


def _theta(arrays: dict[str, np.ndarray], model: CausalModel, dtype: Any) -> Tree:
    """{"body.layers.i.attention.Pk" and "...Pv": (K, P, E)}, computed in dtype."""
    a = {name: array.astype(dtype) for name, array in arrays.items()}
    rows = a[TABLE]
    if len(a) > 1:
        inner = np.tanh(rows @ a["trans.0.weight"].T + a["trans.0.bias"])
        rows = inner @ a["trans.2.weight"].T + a["trans.2.bias"]
    sizes, xp = model.config.cache_sizes, array_module(model.params["body"]["tokens"])
    split = rows.reshape(len(rows), sizes["layers"], 2, sizes["kv_heads"], sizes["width"])
    parts = split.transpose(1, 2, 3, 0, 4).astype(model.dtype)
    return {
        f"body.layers.{i}.attention.{name}": xp.asarray(part.copy())
        for i, layer in enumerate(parts)
        for name, part in zip(("Pk", "Pv"), layer, strict=True)
    }


def _check_shapes(own: dict[str, StoredTensor], model: CausalModel, where: str) -> int:
    """2 L K E, the width of a row; ValueError for a tensor that does not fit."""
    sizes = model.config.cache_sizes
    width = 2 * math.prod(sizes[name] for name in ("layers", "kv_heads", "width"))
    shapes = {name: tensor.shape for name, tensor in own.items()}
    P, A = shapes[TABLE] if len(shapes[TABLE]) == 2 else ("P", "A")
    wanted: dict[str, tuple] = {TABLE: (P, A if len(own) > 1 else width)}
    if len(own) > 1:
        M = next(iter(shapes["trans.0.weight"]), "M")
        wanted |= {"trans.0.weight": (M, A), "trans.0.bias": (M,)}
        wanted |= {"trans.2.weight": (width, M), "trans.2.bias": (width,)}
    for name, shape in wanted.items():
        if shapes[name] != shape or 0 in shapes[name]:
            expected = f"shape ({', '.join(map(str, shape))}) for this model"
            raise mismatch(f"{where}: {TENSORS}{name}", expected, shapes[name])
    return width


def _check_settings(folder: Path, rows: int) -> None:
    """ValueError where config.json says another number of rows."""
    file = folder / "config.json"
    settings = read_json(file, largest=LARGEST_SETTINGS) if exists(file) else {}
    said = settings.get("pre_seq_len") if isinstance(settings, dict) else None
    if said is not None and said != rows:
        raise wrong(f"{printable(file)}: pre_seq_len", f"{rows}, the rows of the prefix", said)
