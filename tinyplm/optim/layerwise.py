"""Learning rates by depth in the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import check_number, wrong
from ..core import Tree, flatten


def depths(params: Tree) -> dict[str, int]:
    """Path -> l, for params = {"body": {..., "layers": [L trees], ...}, "head": ...}.

    l = 0 for parameters before the layers (embeddings), 1 ... L for the layers, L for those after
    them (a final norm), L + 1 for the head.   Of an encoder-decoder, whose body is {"tokens",
    "encoder": {..., "layers"}, "decoder": {..., "layers"}}, the encoder's L' layers come first;
    what precedes the decoder's layers has the depth of the first, L' + 1.
    ValueError for a body without a list of layers.
    """
    return _depths(params)[0]


def _depths(params: Tree) -> tuple[dict[str, int], int]:
    """(depths by path, L)."""
    body = params.get("body") if isinstance(params, dict) else None
    sides = [("body", body)]
    found: dict[str, int] = {}
    if isinstance(body, dict) and "layers" not in body:
        sides = [(f"body.{side}", body.get(side)) for side in ("encoder", "decoder")]
        shared = {name: part for name, part in body.items() if name not in ("encoder", "decoder")}
        found = dict.fromkeys(flatten(shared, "body"), 0)
    L = 0
    for path, side in sides:
        layers = side.get("layers") if isinstance(side, dict) else None
        if not isinstance(side, dict) or not isinstance(layers, list):
            raise wrong("depths: params", '{"body": {"layers": [...], ...}, ...}', params)
        place = L + 1 if L else 0
        for name, part in side.items():
            if name != "layers":
                found |= dict.fromkeys(flatten(part, f"{path}.{name}"), place)
                continue
            for i, layer in enumerate(layers):
                found |= dict.fromkeys(flatten(layer, f"{path}.layers.{i}"), L + i + 1)
            L = place = L + len(layers)
    return found | {path: L + 1 for path in flatten(params) if not path.startswith("body.")}, L


def layerwise_rates(params: Tree, decay: float) -> Callable[[str, Any], float]:
    """rate(path, array) = decay^(L + 1 - l) for AdamW(rates=...), with l from `depths`.

    The head learns at the full rate, each layer at a lower one than the layer above it:
    discriminative fine-tuning (Howard & Ruder 2018, sec. 3.2, where 1 / decay = 2.6), used for
    XLNet and ELECTRA.
    """
    check_number("decay", decay, above=0, most=1)
    depth, L = _depths(params)
    return lambda path, array: decay ** (L + 1 - depth[path])
