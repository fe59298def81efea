"""Losses of a decoder's routers, over all its layers and all parts of a training step.

The balance loss of a family is its BALANCE, of `switch_balance` or `sequence_balance`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..backend import array_module, at_least_float32
from ..core import Component
from ..layers.routing import expert_counts
from ..losses.balance import load_balancing_loss, router_z_loss, sequence_balance_loss


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
