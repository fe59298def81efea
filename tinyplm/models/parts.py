"""A body and a head combined, with the gradient as one tree or in parts.

    hidden = body(p["body"], x),    value = head(p, hidden)

p is the whole parameter tree, x the embeddings (B, T, D).  A head is a component of both of its
positional arguments:

    value, head_back = head(p, hidden);    head_back(dvalue) -> (dp, dhidden)

dp is a partial tree, of what the head reads: matrices of its own, and p["body"]["tokens"] if it is
tied.  value is a loss (0-dimensional) or a dict of outputs; None as a gradient means zero.
With E = p["body"]["tokens"] and ids[n], n = 0 ... N-1, the tokens looked up, the chain rule gives

    dp, dhidden = head_back(dvalue),    dbody, dx = body_back(dhidden)
    dE[v] = dp["body"]["tokens"][v] + sum of dx[n] over the n with ids[n] = v

and each other array of p has one gradient, from the head, from one layer, or from the rest of the
body.  `whole` returns that tree.  `in_parts` computes the same numbers without ever holding all of
them.  Its parts are a partition of the tree, except that E has two terms, which stay apart.  So
adding them into a buffer of zeros gives each array exactly, and E up to the order of its additions.
The order of the parts never changes (the head, the layers from last to first, the rest of the
body), so core.reduce_shards can add up the parts of several shards as they come, each array in the
order of the shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ..backend import array_module
from ..core import Product, Rows, StackOptions, Tree, add, complete
from ..layers.embedding import embedding
from .checks import check_scale, gradient_check

Body = Callable[..., tuple[Any, Any]]  # body(p, inputs_embeds, *, stacking, **inputs)
Head = Callable[[Tree, Any], tuple[Any, Any]]
Emit = Callable[[str, Tree], None]


def whole(
    body: Body, head: Head, params: Tree, inputs: Mapping[str, Any], stacking: StackOptions
) -> tuple[Any, Callable | None]:
    """value = head(params, body(params["body"], **inputs)).

    inputs: what the body takes, input_ids (B, T) or inputs_embeds (B, T, D) among it.
    backward(dvalue) gives (dparams, dinputs_embeds), the latter None for input_ids; it is None
    without stacking.grad.  An encoder-decoder's hidden is {"encoder_hidden", "hidden"}, and its
    backward gives (dparams, dinputs_embeds, ddecoder_inputs_embeds).  With stacking.on_gradient,
    dparams has None for each layer, whose gradient went to the callback, and no zeros for arrays
    without a gradient: they would be the full tree that the callback avoids.
    """
    hidden, body_back = body(params["body"], stacking=stacking, **inputs)
    value, head_back = head(params, hidden)
    if not stacking.grad:
        return value, None
    check = gradient_check(value) if isinstance(value, dict) else check_scale
    embeds = inputs.get("inputs_embeds")

    def finish(partial: Tree) -> Tree:
        return complete(partial, params) if stacking.on_gradient is None else partial

    def backward(dvalue: Any) -> tuple:
        check(dvalue)
        dparams, dhidden = head_back(dvalue)
        if dhidden is None:
            return finish(dparams or {}), None if embeds is None else _zeros(embeds)
        dbody, *dembeds = body_back(dhidden)
        return finish(add(dparams, {"body": dbody})), *dembeds

    return value, backward


def in_parts(
    body: Body,
    head: Head,
    params: Tree,
    emit: Emit,
    ids: tuple[Any, ...],
    inputs: Mapping[str, Any],
    stacking: StackOptions,
) -> tuple[Any, Callable[[Any], list[Tree]]]:
    """`whole` for training, with a backward that never holds the whole gradient.

    backward(dvalue), to be called once, calls emit(path, gradient) for each part of the gradient as
    soon as it is complete, and keeps none of them.
    ids: the tokens looked up in params["body"]["tokens"], one array (B, T), or an encoder-decoder's
    two, (B, S) and (B, T); inputs: the others.
    The parts are "" (the head), "body.layers.i" from last to first (of an encoder-decoder
    "body.decoder.layers.i", then "body.encoder.layers.i"), and "body" (the rest).
    backward returns the remaining ones, a list of partial trees with compact gradients:
        core.Product  of a matrix, as two factors, if the head returns it so (see the option
                      `factors` of vocabulary_cross_entropy): with fewer tokens than D they are
                      smaller than the matrix, and all threads share the product afterwards
        core.Rows     of the look-up, N rows of the table's V
    """
    xs = [embedding(params["body"]["tokens"], ids=some)[0] for some in ids]
    paths = layer_paths(params)
    options = dataclasses.replace(stacking, once=True, on_gradient=lambda i, dp: emit(paths[i], dp))
    hidden, body_back = body(params["body"], *xs, stacking=options, **inputs)
    value, *backs = head(params, hidden)

    def backward(dvalue: Any) -> list[Tree]:
        dparams, dhidden = backs.pop()(dvalue)  # pop: its closure is as large as the head
        remaining = _products(dparams)
        emit("", _without_products(dparams) if remaining else dparams)
        del dparams
        dbody, *dxs = body_back(_zeros(hidden) if dhidden is None else dhidden)
        emit("body", _without_layers(dbody))
        rows = [Rows(i.reshape(-1), dx.reshape(-1, dx.shape[-1])) for i, dx in zip(ids, dxs)]
        return [*remaining, *({"body": {"tokens": some}} for some in rows)]

    return value, backward


def layer_paths(params: Tree) -> list[str]:
    """The paths of all layers in the order of their numbers: an encoder's before a decoder's."""
    body = params["body"]
    sides = [""] if "layers" in body else ["encoder.", "decoder."]
    trees = [body if not side else body[side[:-1]] for side in sides]
    counts = [len(tree["layers"]) for tree in trees]
    return [f"body.{side}layers.{i}" for side, n in zip(sides, counts) for i in range(n)]


def _without_layers(tree: Tree) -> Tree:
    if not isinstance(tree, dict):
        return tree
    return {n: None if n == "layers" else _without_layers(branch) for n, branch in tree.items()}


def _zeros(like: Any) -> Any:
    return array_module(like).zeros_like(like)


def _products(tree: Tree) -> list[Tree]:
    """The branches of a tree that end in a core.Product, each as a tree of its own."""
    if isinstance(tree, Product):
        return [tree]
    branches = tree.items() if isinstance(tree, dict) else ()
    return [{name: product} for name, branch in branches for product in _products(branch)]


def _without_products(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {name: _without_products(branch) for name, branch in tree.items()}
    return None if isinstance(tree, Product) else tree
