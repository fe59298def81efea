"""Decoders with mixtures of experts: what the walk of decoder.py needs beside LLaMA's pieces.

The stream is a tree that collects each layer's routing (layers/moe.py):

    embed     {"hidden": x_0, "logits": [], "choice": []}
    residual  routed_block: adds the router's logits z_i and choice of each layer with experts
    finish    {"hidden": norm(x_L), "router_logits": [z_i], "chosen_experts": [choice_i]}, stacked

A body returns that last tree, and its backward takes {"hidden", "router_logits"}: the gradient of a
loss of the logits reaches each router on the same way back as that of the hidden states.

The balance loss of a family is its BALANCE: see router_losses.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from ..backend import array_module
from ..core import Component, Tree, flatten
from ..layers.moe import routed_block
from . import decoder
from .decoder import Pieces, final_norm
from .walks import traceable_body

# ------------------------------------------------------------------------------- pieces of the walk


def routed(pieces: Pieces) -> Pieces:
    """The pieces of a pre-norm decoder on a routed stream.

    Its `mlp` gives moe_and_logits with its options, or an `unrouted` one; embed, residual and
    finish are made from its own.
    """
    embed, finish = partial(begun, embed=pieces.embed), partial(stacked, finish=pieces.finish)
    return pieces._replace(embed=embed, residual=routed_block, finish=finish)


def begun(
    p: Tree, x: Any, *, position_ids: Any, key: Any, embed: Component
) -> tuple[dict[str, Any], Callable]:
    """The stream before the first layer: {"hidden": embed(x)}, and no routing yet."""
    y, back = embed(p, x, position_ids=position_ids, key=key)
    return {"hidden": y, "logits": [], "choice": []}, lambda dstream: back(dstream["hidden"])


def stacked(
    p: Tree, stream: dict[str, Any], *, norm: Component, finish: Component = final_norm
) -> tuple[dict[str, Any], Callable]:
    """{"hidden": finish(x), "router_logits" (B, T, L, X), "chosen_experts" (B, T, L, k)}.

    L counts the layers with experts; without any the last two are missing.
    """
    hidden, back = finish(p, stream["hidden"], norm=norm)
    xp, logits = array_module(hidden), stream["logits"]
    states = {"hidden": hidden}
    if logits:
        states["router_logits"] = xp.stack(logits, axis=2)
        states["chosen_experts"] = xp.stack(stream["choice"], axis=2)

    def backward(dstates: dict[str, Any]) -> tuple[Tree, dict[str, Any]]:
        dhidden, dlogits = dstates.get("hidden"), dstates.get("router_logits")
        dfinish, dx = back(xp.zeros_like(hidden) if dhidden is None else dhidden)
        dlogits = None if dlogits is None else [dlogits[:, :, i] for i in range(len(logits))]
        return dfinish, {"hidden": dx, "logits": dlogits}

    return states, backward


def body(
    pieces: Callable[..., Pieces],
    p: Tree,
    inputs_embeds: Any = None,
    *,
    config: Any,
    buffers: Tree = None,
    **inputs: Any,
) -> tuple[dict[str, Any], Callable]:
    """decoder.body with pieces(config, **buffers), buffers being the model's.

    -> {"hidden" (B, T, D), "router_logits", "chosen_experts"}, see `stacked`.
    """
    return decoder.body(
        partial(pieces, **(buffers or {})), p, inputs_embeds, config=config, **inputs
    )


def hidden_alone(body: Component) -> Component:
    """A routed body that returns the hidden states (B, T, D) only, as other bodies do."""

    def component(*args: Any, **kwargs: Any) -> tuple[Any, Callable]:
        states, back = body(*args, **kwargs)
        return states["hidden"], lambda dhidden: back({"hidden": dhidden})

    return component


def causal_body(family: ModuleType, config: Any, buffers: Tree) -> Component:
    """What makes a causal model's hidden states (B, T, D)."""
    body = traceable_body(family, config)
    return hidden_alone(partial(body, buffers=buffers)) if is_routed(family) else body


def is_routed(family: ModuleType) -> bool:
    """Whether its models have experts."""
    return hasattr(family, "BALANCE")


def active_parameters(tree: Tree, top_k: int) -> int:
    """The number of parameters that a token passes through: of each layer's experts k.

    tree: of parameters, or of their shapes; without experts all of them count.
    """
    total = 0
    for path, leaf in flatten(tree).items():
        shape = leaf if isinstance(leaf, tuple) else leaf.shape
        seen = (top_k, *shape[1:]) if ".experts." in path else shape
        total += math.prod(seen)
    return total
