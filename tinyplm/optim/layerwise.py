"""Learning rates by depth in the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import check_number, wrong
from ..core import Tree, flatten


def depths(params: Tree) -> dict[str, int]:
    """Path -> l, for params = {"body": {..., "layers": [L trees], ...}, "head": ...}.

    l = 0 for parameters before the layers (embeddings), 1 ... L for the layers, L for those after
    them (a final norm), L + 1 for the head. ValueError for a body without a list of layers.
    """
    body = params.get("body") if isinstance(params, dict) else None
    layers = body.get("layers") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(layers, list):
        raise wrong("depths: params", '{"body": {"layers": [...], ...}, ...}', params)
    L, place = len(layers), 0
    found: dict[str, int] = {}
    for name, part in body.items():
        if name == "layers":
            place = L
            for i, layer in enumerate(layers):
                found |= dict.fromkeys(flatten(layer, f"body.layers.{i}"), i + 1)
        else:
            found |= dict.fromkeys(flatten(part, f"body.{name}"), place)
    return found | {path: L + 1 for path in flatten(params) if not path.startswith("body.")}


def layerwise_rates(params: Tree, decay: float) -> Callable[[str, Any], float]:
    """rate(path, array) = decay^(L + 1 - l) for AdamW(rates=...), with l from `depths`.

    The head learns at the full rate, each layer at a lower one than the layer above it:
    discriminative fine-tuning (Howard & Ruder 2018, sec. 3.2, where 1 / decay = 2.6), used for
    XLNet and ELECTRA.
    """
    check_number("decay", decay, above=0, most=1)
    depth = depths(params)
    top = len(params["body"]["layers"]) + 1
    return lambda path, array: decay ** (top - depth[path])
