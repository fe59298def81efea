"""Decoders with modules for later tokens as a user holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from ..arguments import known_arguments
from ..backend import array_module
from ..core import IGNORED, StackOptions, Tree
from ..kernels.cross_entropy import vocabulary_cross_entropy
from ..losses.targets import counted_weights
from . import multi_token
from .causal_lm import vocabulary_head
from .heads import weighted_sum
from .language_model import logits_alone
from .multi_token import later_targets
from .parts import Body, Head
from .protocol import Arrays, LossInputs, LossOptions
from .routed_model import RoutedModel
from .router_losses import Routing


class MultiTokenModel(RoutedModel):
    """A decoder with experts whose loss also trains modules for later tokens; its task is
    "multi_token_lm".

    Beside those of RoutedModel, its outputs have "later_hidden" (B, T, n, D), what the n modules
    make of each place (models/multi_token.py).  With a cache, as in decoding, the modules do not
    run.
    """

    @known_arguments
    def loss(
        self,
        *,
        targets: Arrays,
        total: Arrays | None = None,
        weights: Any = None,
        smoothing: float = 0.0,
        balance: float = 0.0,
        z_loss: float = 0.0,
        multi_token: float = 0.0,
        chunk: int = 1024,
        grad: bool = True,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
        **inputs: Any,
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """RoutedModel's, + multi_token times the mean over the modules of their loss."""
        options = LossOptions(
            smoothing=smoothing,
            chunk=chunk,
            balance=balance,
            z_loss=z_loss,
            multi_token=multi_token,
        )
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        weights = self._checked_weights(weights)
        return self._loss(inputs, LossInputs(targets, total, options, weights), stacking)

    def check_causal(self, name: str = "model") -> None:
        """It generates text."""

    def _body(self) -> Body:
        own = {"config": self.config, "buffers": self.buffers}
        return partial(multi_token.body, self.family.pieces, **own)

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        options = dataclasses.replace(loss.options, factors=False)  # two gradients of the matrix
        head = super()._loss_head(inputs, loss._replace(options=options), grad=grad)
        if not options.multi_token:
            return head
        later = partial(self._later, inputs=inputs, loss=loss, grad=grad)
        return weighted_sum((1.0, head), (options.multi_token, later))

    def _routing(self, states: dict[str, Any], attention_mask: Any) -> Routing:
        """RoutedModel's, where a module counts the places for which its text has a token."""
        routing = super()._routing(states, attention_mask)
        if "later_hidden" not in states:
            return routing
        weights, n = routing.weights, states["later_hidden"].shape[2]
        shift = partial(later_targets, modules=n, attention_mask=attention_mask, fill=0)
        own = [weights[:, :, :-n], shift(weights[:, :, 0])]
        return routing._replace(weights=array_module(weights).concatenate(own, axis=2))

    def _later(
        self, params: Tree, states: dict[str, Any], *, inputs: Arrays, loss: LossInputs, grad: bool
    ) -> tuple[Any, Callable]:
        """The mean of the modules' losses, a head."""
        if "later_hidden" not in states:  # a single token has none after it
            return 0.0, lambda dloss: (None, {})
        given, later = logits_alone(loss.targets, loss.total), states["later_hidden"]
        targets, weights, load = given["targets"], loss.weights, loss.options.load
        _, total = counted_weights(later, targets != IGNORED, weights, given["total"])
        mask = inputs.get("attention_mask")
        shift = partial(later_targets, modules=later.shape[2], attention_mask=mask)
        f = partial(
            vocabulary_cross_entropy,
            targets=shift(targets),
            weights=None if weights is None else shift(weights, fill=0),
            total=total * len(params["body"]["multi_token"]),  # a short text has not all of them
            cap=self.config.logit_cap,
            smoothing=loss.options.smoothing,
            chunk=loss.options.chunk,
            grad=grad,
        )
        value, back = vocabulary_head(f, self.family, self.config)(params, later)
        if load is not None:
            load.report({"multi_token_loss": value})

        def backward(dloss: Any) -> tuple[Tree, dict[str, Any]]:
            dparams, dlater = back(dloss)
            return dparams, {"later_hidden": dlater}

        return value, backward
