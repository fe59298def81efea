"""The norm of a tree of gradients, and clipping by it. A tree: nested dicts and lists of arrays."""

import math

import numpy as np


def global_norm(tree) -> float:
    """norm = sqrt(sum of g^2 over all elements of all arrays).  Pascanu et al. 2013, Algorithm 1"""
    return math.sqrt(_sum_of_squares(tree))


def clip_by_global_norm(tree, *, limit: float):
    """g <- g min(1, limit / norm) for every element -> (tree, old norm).

    Pascanu et al. 2013, Algorithm 1. A norm of 0 leaves the tree unchanged; None stays None.
    """
    norm = global_norm(tree)
    factor = 1.0 if norm <= limit else limit / norm
    return _scale(tree, factor), norm


def _sum_of_squares(tree) -> float:
    if tree is None:
        return 0.0
    total = 0.0
    if isinstance(tree, dict):
        for name in tree:
            total += _sum_of_squares(tree[name])
        return total
    if isinstance(tree, list):
        for branch in tree:
            total += _sum_of_squares(branch)
        return total
    array = np.asarray(tree, dtype=np.float64)
    for i in np.ndindex(array.shape):
        total += array[i] ** 2
    return total


def _scale(tree, factor: float):
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {name: _scale(tree[name], factor) for name in tree}
    if isinstance(tree, list):
        return [_scale(branch, factor) for branch in tree]
    array = np.asarray(tree, dtype=np.float64)
    scaled = np.zeros(array.shape)
    for i in np.ndindex(array.shape):
        scaled[i] = array[i] * factor
    return scaled
