"""Decoders with mixtures of experts: what the walk of decoder.py needs beside LLaMA's pieces.

The stream is a tree that collects each layer's routing (layers/moe.py):

    embed     {"hidden": x_0, "logits": [], "choice": []}
    residual  routed_block: adds the router's logits z_i and choice of each layer with experts
    finish    {"hidden": norm(x_L), "router_logits": [z_i], "chosen_experts": [choice_i]}, stacked

A body returns that last tree, and its backward takes {"hidden", "router_logits"}: the gradient of a
loss of the logits reaches each router on the same way back as that of the hidden states.

The balance loss of a family is its BALANCE, one of `switch_balance` and `sequence_balance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from ..backend import array_module, at_least_float32
from ..core import Component, Tree, flatten
from ..layers.moe import routed_block
from ..layers.routing import expert_counts
from ..losses.balance import load_balancing_loss, router_z_loss, sequence_balance_loss
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


# ------------------------------------------------------------------------------- balance of experts


class StepLoad(Protocol):
    """What a loss of the routers knows of the other parts of its training step.

    tokens, sequences: how many real tokens and how many sequences the whole step has.
    """

    tokens: int
    sequences: int

    def joined(self, counts: Any, *, wait: bool) -> Any:
        """counts (L, X) of this part -> with `wait` the sum over all parts of the step."""

    def report(self, losses: dict[str, Any]) -> None:
        """Take note of this part of the routers' losses, by name and without their weights."""


class Routing(NamedTuple):
    """The routers of a call: logits (B, T, L, X), choice (B, T, L, k), weights (B, T, L): 1 for a
    real token, 0 for padding."""

    logits: Any
    choice: Any
    weights: Any

    def counts(self) -> Any:
        """(L, X): how many real tokens chose each expert of each layer, in float64."""
        L, X = self.logits.shape[2:]
        layers = [(self.choice[:, :, i], self.weights[:, :, i]) for i in range(L)]
        each = [expert_counts(c, experts=X, weights=w) for c, w in layers]
        return array_module(self.logits).stack(each)

    def total(self, load: StepLoad | None) -> Any:
        """Real tokens times layers, of the step or of this call: what a mean divides by.

        A module for later tokens counts as a layer, though it has fewer places.
        """
        L = self.logits.shape[2]
        if load is not None:
            return L * load.tokens
        tokens = at_least_float32(self.weights[:, :, 0]).sum()
        return L * array_module(tokens).maximum(tokens, 1)


class Balance(NamedTuple):
    """A family's balance loss.

    loss   function (routing, *, counts, load): counts (L, X) of the whole step, load a StepLoad or
           None -> loss and backward(dloss) -> dlogits
    joint  whether it depends on the counts, so that all parts of a step must be routed before any
           goes backward
    """

    loss: Callable[..., tuple[Any, Callable]]
    joint: bool


def switch_balance(routing: Routing, *, counts: Any, load: StepLoad | None) -> tuple[Any, Callable]:
    """load_balancing_loss over all layers together, as in transformers' Mixtral and Qwen-MoE."""
    logits, of_experts, k = routing.logits, counts.sum(axis=0), routing.choice.shape[-1]
    fractions = k * of_experts / array_module(logits).maximum(of_experts.sum(), 1)
    weights, total = routing.weights, routing.total(load)
    return load_balancing_loss(logits, fractions=fractions, weights=weights, total=total)


def sequence_balance(
    routing: Routing,
    *,
    counts: Any,
    load: StepLoad | None,
    affinities: Component,
    choose: Callable[..., Any] | None = None,
) -> tuple[Any, Callable]:
    """The mean of sequence_balance_loss over layers and sequences.

    Of the experts that tokens go to (DeepSeek team 2024a, eq. 24), or of those that `choose` picks:
    in DeepSeek-V3 by the logits alone, without groups and without a bias (2024b, eq. 18).
    """
    logits, choice = (a.swapaxes(1, 2) for a in (routing.logits, routing.choice))  # (B, L, T, ...)
    loss, back = sequence_balance_loss(
        logits,
        choice=choice if choose is None else choose(logits, top_k=choice.shape[-1]),
        affinities=affinities,
        weights=routing.weights.swapaxes(1, 2),
        total=None if load is None else logits.shape[1] * load.sequences,
    )
    return loss, lambda dloss: back(dloss).swapaxes(1, 2)


def z_loss(routing: Routing, *, counts: Any, load: StepLoad | None) -> tuple[Any, Callable]:
    """The mean of router_z_loss over layers and tokens."""
    return router_z_loss(routing.logits, weights=routing.weights, total=routing.total(load))


SWITCH = Balance(switch_balance, joint=True)
