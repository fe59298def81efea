"""The contract `y, backward = f(...)`: its types (types.py), trees of arrays (tree.py), the stack of layers (stack.py), half
precision (half.py), threads (threads.py)."""

from .half import in_float32
from .stack import StackOptions, chain, checkpoint, on_tree, stack
from .threads import blas_threads, map_shards, map_threads, reduce_shards, shards
from .tree import Product, Rows, Tree, add, complete, flatten, tree_map, unbroadcast, unflatten
from .types import IGNORED, Array, Backward, Component

__all__ = [
    "IGNORED",
    "Array",
    "Backward",
    "Component",
    "Product",
    "Rows",
    "StackOptions",
    "Tree",
    "add",
    "blas_threads",
    "chain",
    "checkpoint",
    "complete",
    "flatten",
    "in_float32",
    "map_shards",
    "map_threads",
    "on_tree",
    "reduce_shards",
    "shards",
    "stack",
    "tree_map",
    "unbroadcast",
    "unflatten",
]
