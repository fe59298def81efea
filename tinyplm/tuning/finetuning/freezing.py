"""Training the upper layers alone: the others cost neither moments nor gradients nor a backward pass."""

from __future__ import annotations

from ...core import Tree, flatten, unflatten
from ...optim.layerwise import depths


def upper_part(params: Tree, layers: int | None) -> tuple[Tree, int]:
    """(the parameters of the head, of the `layers` uppermost layers and of what stands behind these, and None in place of the
    others; how many layers lie below, for core.stack's `frozen`).  layers 0: the head alone; None: everything.

    ValueError for more layers than there are.
    """
    if layers is None:
        return params, 0
    depth = depths(params)
    L = len(params["body"]["layers"])
    if not 0 <= layers <= L:
        raise ValueError(f"trained_layers {layers}: expected 0 to {L}, the layers of the model, or None for everything")
    return unflatten({path: a if depth[path] > L - layers else None for path, a in flatten(params).items()}, params), L - layers


def joined(part: Tree, params: Tree) -> Tree:
    """params with the leaves that `part` has in their place."""
    return unflatten(flatten(params) | flatten(part), params)
