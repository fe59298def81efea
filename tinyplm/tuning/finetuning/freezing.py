"""Training only the upper layers: those below need no moments, gradients or backward pass."""

from __future__ import annotations

from ...arguments import mismatch
from ...core import Tree, flatten, unflatten
from ...models.parts import layer_paths
from ...optim.layerwise import depths


def upper_part(params: Tree, layers: int | None) -> tuple[Tree, int]:
    """(trained parameters, number of frozen layers, for core.stack's `frozen`).

    Of an encoder-decoder the decoder's layers are the top ones.
    Trained are the head, the top `layers` layers and what follows them; other parameters are None.
    layers 0: only the head; None: everything.  ValueError for more layers than there are.
    """
    if layers is None:
        return params, 0
    depth = depths(params)
    L = len(layer_paths(params))
    if not 0 <= layers <= L:
        expected = f"None or an integer from 0 to {L}, the model's layers"
        raise mismatch("trained_layers", expected, layers)
    leaves = flatten(params).items()
    trained = {path: a if depth[path] > L - layers else None for path, a in leaves}
    return unflatten(trained, params), L - layers


def joined(part: Tree, params: Tree) -> Tree:
    """params with the leaves of `part` in place of their own."""
    return unflatten(flatten(params) | flatten(part), params)
