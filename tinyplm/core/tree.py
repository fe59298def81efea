"""Trees of arrays, for parameters and gradients: nested dicts and lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..arguments import is_whole, shown, wrong
from ..backend import array_module, scatter_add, sum_float32

# Nested dicts and lists of arrays; None is an absent part. A tuple is a leaf: a shape, for example.
Tree = Any


class Rows(NamedTuple):
    """The gradient of a table: updates[n] (N, D) for row ids[n] (N,), zero elsewhere.

    Produced only on request (models.parts.in_parts); consumed by optim.flat.FlatTree.add.
    """

    ids: Any
    updates: Any

    def dense(self, rows: int) -> Any:
        """The gradient as an array (rows, D)."""
        return scatter_add(rows, self.ids, self.updates)


class Product(NamedTuple):
    """The gradient a^T b of a matrix as its factors a (N, I) and b (N, J), for N below I and J.

    Like Rows, produced only on request.
    """

    a: Any
    b: Any

    @property
    def T(self) -> Product:
        return Product(self.b, self.a)


def tree_map(f: Callable, tree: Tree, *others: Tree) -> Tree:
    """f of each leaf of trees of the same structure; None stays None. ValueError if one differs."""
    if not callable(f):
        raise wrong("tree_map: f", "a function", f)
    if tree is None:
        return None
    if isinstance(tree, dict):
        if others and any(not isinstance(o, dict) or not tree.keys() <= o.keys() for o in others):
            raise ValueError(f"tree_map: expected equal structures, got {_kinds(tree, *others)}")
        return {
            name: tree_map(f, branch, *(o[name] for o in others)) for name, branch in tree.items()
        }
    if isinstance(tree, list):
        if others and any(not isinstance(o, list) or len(o) < len(tree) for o in others):
            raise ValueError(f"tree_map: expected equal structures, got {_kinds(tree, *others)}")
        return [tree_map(f, branch, *(o[i] for o in others)) for i, branch in enumerate(tree)]
    return f(tree, *others)


def add(a: Tree, b: Tree) -> Tree:
    """a + b for gradient trees. A missing or None part is zero, so partial trees may be added.

    Never writes into a or b; a part that only one of them has is returned as it is (an alias).
    ValueError for different structures or shapes: gradients are never broadcast.
    """
    if a is None or b is None:
        return b if a is None else a
    if type(a) is not type(b) and (isinstance(a, (dict, list)) or isinstance(b, (dict, list))):
        raise ValueError(f"add: expected trees of the same structure, got {_kinds(a, b)}")
    if isinstance(a, dict):
        return {name: add(a.get(name), b.get(name)) for name in [*a, *(n for n in b if n not in a)]}
    if isinstance(a, list):
        if len(a) != len(b):
            raise ValueError(f"add: expected lists of equal length, got {_kinds(a, b)}")
        return [add(x, y) for x, y in zip(a, b)]
    if (shape := getattr(a, "shape", None)) != getattr(b, "shape", None):
        raise ValueError(f"add: expected gradients of equal shape, got {shown(a)} and {shown(b)}")
    if shape is None and not isinstance(a, NUMBERS):
        raise wrong("add", "trees of arrays", a)
    return a + b


NUMBERS = (int, float)


def _kinds(*trees: Tree) -> str:
    """Describe trees in a message."""
    kinds = []
    for tree in trees:
        if isinstance(tree, (dict, list)):
            kinds.append(f"a {type(tree).__name__} of {len(tree)} parts")
        else:
            kinds.append("an array" if hasattr(tree, "shape") else shown(tree))
    return " and ".join(kinds)


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """{"layers.0.norm1.gamma": array, ...}: the leaves by path, in tree order."""
    if tree is None:
        return {}
    if not isinstance(tree, (dict, list)):
        return {prefix: tree}
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
    leaves: dict[str, Any] = {}
    for name, branch in branches:
        leaves |= flatten(branch, f"{prefix}.{name}" if prefix else str(name))
    return leaves


def unflatten(leaves: dict[str, Any], like: Tree, prefix: str = "") -> Tree:
    """The tree with the structure of `like` and these leaves: the inverse of `flatten`.

    ValueError if a leaf is missing.
    """
    if like is None:
        return None
    start = f"{prefix}." if prefix else ""
    if isinstance(like, dict):
        return {n: unflatten(leaves, b, f"{start}{n}") for n, b in like.items()}
    if isinstance(like, list):
        return [unflatten(leaves, b, f"{start}{i}") for i, b in enumerate(like)]
    if not isinstance(leaves, dict) or prefix not in leaves:
        given = list(leaves) if isinstance(leaves, dict) else leaves
        raise wrong("unflatten: leaves", f"a dict with {shown(prefix)}", given)
    return leaves[prefix]


def unbroadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of an array of `shape` that was broadcast: summed over the repeated axes."""
    if type(shape) is tuple and getattr(gradient, "shape", None) == shape:
        return gradient
    number = getattr(getattr(gradient, "dtype", None), "kind", None) in ("f", "i", "u")
    if not number or not isinstance(shape, (tuple, list)) or not all(map(is_whole, shape)):
        given = gradient if type(shape) is tuple else shape
        raise wrong("unbroadcast", "a gradient (an array) and a shape", given)
    extra = gradient.ndim - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, gradient.shape[extra:])):
        expected = f"a gradient that broadcasting from shape {tuple(shape)} can have"
        raise wrong("unbroadcast", expected, gradient)
    repeated = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and gradient.shape[extra + i] != 1
    )
    return sum_float32(gradient, axis=repeated, keepdims=True).reshape(shape)


def complete(partial: Tree, like: Tree) -> Tree:
    """A partial gradient tree, with zeros for parts of `like` that it lacks.

    ValueError for another structure.
    """
    if like is None:
        return None
    kinds = [(isinstance(partial, kind), isinstance(like, kind)) for kind in (dict, list)]
    if partial is not None and any(a != b for a, b in kinds):
        raise ValueError(f"complete: expected a part of {_kinds(like)}, got {_kinds(partial)}")
    if isinstance(like, dict):
        return {name: complete((partial or {}).get(name), branch) for name, branch in like.items()}
    if isinstance(like, list):
        return [complete(p, branch) for p, branch in zip(partial or [None] * len(like), like)]
    return array_module(like).zeros_like(like) if partial is None else partial
