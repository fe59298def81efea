"""The contract `y, backward = f(...)` and what every part of the package builds on.

tree.py     trees of arrays: parameters and gradients
stack.py    the stack of layers, chains, checkpointing
threads.py  batch shards on worker threads
half.py     components of float16 arrays, computed in float32
named.py    names for intermediates, which a trace records
shift.py    labels shifted right: what a decoder reads in training
types.py    Array, Backward, Component; IGNORED, a target that does not count
"""

from .half import in_float32
from .named import named
from .shift import shift_right
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
    "named",
    "on_tree",
    "reduce_shards",
    "shards",
    "shift_right",
    "stack",
    "tree_map",
    "unbroadcast",
    "unflatten",
]
