"""The contract `y, backward = f(...)`: trees of arrays (tree.py), the stack of layers (stack.py), threads (threads.py)."""

from .stack import blas_threads, chain, checkpoint, map_shards, map_threads, on_tree, reduce_shards, shards, stack
from .tree import Product, Rows, Tree, add, complete, flatten, tree_map, unbroadcast, unflatten

__all__ = ["Product", "Rows", "Tree", "add", "blas_threads", "chain", "checkpoint", "complete", "flatten", "map_shards",
           "map_threads", "on_tree", "reduce_shards", "shards", "stack", "tree_map", "unbroadcast", "unflatten"]  # fmt: skip
