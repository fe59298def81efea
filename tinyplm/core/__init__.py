"""The contract `y, backward = f(...)` and what every part of the package builds on.

tree.py     trees of arrays: parameters and gradients
stack.py    the stack of layers, chains, checkpointing
threads.py  batch shards on worker threads
"""

from .stack import StackOptions, chain, checkpoint, on_tree, stack
from .threads import blas_threads, map_shards, map_threads, reduce_shards, shards
from .tree import Product, Rows, Tree, add, complete, flatten, tree_map, unbroadcast, unflatten

IGNORED = -100  # a target that does not count

__all__ = [
    "IGNORED",
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
