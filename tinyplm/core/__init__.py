"""The contract `y, backward = f(...)`: trees of arrays (tree.py), the stack of layers (stack.py), threads (threads.py)."""

from .stack import StackOptions, chain, checkpoint, on_tree, stack
from .threads import blas_threads, map_shards, map_threads, reduce_shards, shards
from .tree import Product, Rows, Tree, add, complete, flatten, tree_map, unbroadcast, unflatten

__all__ = [
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
