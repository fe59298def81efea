"""Decoders with experts as a user holds them: outputs of the routers, balance losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..arguments import known_arguments
from ..backend import array_module
from ..core import StackOptions, Tree
from ..core.named import More
from .causal_lm import vocabulary_head
from .causal_model import CausalModel
from .heads import on_decoder, weighted_sum, with_states
from .model import INFERENCE
from .parts import Body, Head
from .protocol import Arrays, LossInputs, LossOptions
from .router_losses import Routing, z_loss
from .walks import traceable_body


class RoutedModel(CausalModel):
    """A decoder with experts and a language-modelling head; its task is "causal_lm".

    Beside those of CausalModel, its outputs have, of the L layers with experts,

        router_logits   (B, T, L, X), of which backward takes a gradient, too
        chosen_experts  (B, T, L, k), integers
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
        chunk: int = 1024,
        grad: bool = True,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
        **inputs: Any,
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """Cross-entropy as of other decoders, + balance L_b + z_loss L_z.

        L_b: the family's balance loss, L_z: losses.balance.router_z_loss, the mean over tokens and
        layers; both of the real tokens (attention_mask, if it is (B, T)).
        """
        options = LossOptions(smoothing=smoothing, chunk=chunk, balance=balance, z_loss=z_loss)
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        weights = self._checked_weights(weights)
        return self._loss(inputs, LossInputs(targets, total, options, weights), stacking)

    def _body(self) -> Body:
        """The family's, with all its states."""
        return partial(traceable_body(self.family, self.config), buffers=self.buffers)

    def _over_vocabulary(self, f: Callable, *, more: More | None = None) -> Head:
        return on_decoder(vocabulary_head(f, self.family, self.config, more=more))

    def _with_hidden(self, head: Head) -> Head:
        return with_states(head)

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        head, options = super()._loss_head(inputs, loss, grad=grad), loss.options
        if not (options.balance or options.z_loss or options.load):
            return head
        mask = inputs.get("attention_mask")
        routers = partial(self.router_losses, mask=mask, options=options)
        return weighted_sum((1.0, head), (1.0, routers))

    def expert_counts(self, inputs: Arrays) -> Any:
        """(L, X): how many real tokens of these inputs choose each expert of each layer with
        experts; None if there is none.  Without gradients."""
        inputs = self.checked(inputs)

        def head(params: Tree, states: dict[str, Any]) -> tuple[Any, None]:
            routed = "router_logits" in states
            mask = inputs.get("attention_mask")
            return self._routing(states, mask).counts() if routed else None, None

        return self._whole(head, inputs, INFERENCE)[0]

    def router_losses(
        self, params: Tree, states: dict[str, Any], *, mask: Any, options: LossOptions
    ) -> tuple[Any, Callable]:
        """balance L_b + z_loss L_z of the routers' logits, a head with their gradient alone.

        states: those of the body; mask: the attention_mask; options: its weights and its load.
        """
        if "router_logits" not in states:  # all layers are dense
            return 0.0, lambda dloss: (None, {})
        routing, balance = self._routing(states, mask), self.family.BALANCE
        counts, load = routing.counts(), options.load
        if load is not None:
            counts = load.joined(counts, wait=balance.joint and options.balance > 0)
        losses = {
            "balance_loss": (options.balance, balance.loss),
            "z_loss": (options.z_loss, z_loss),
        }
        on = {name: (w, loss) for name, (w, loss) in losses.items() if w}
        found = {n: (w, *loss(routing, counts=counts, load=load)) for n, (w, loss) in on.items()}
        if load is not None:
            load.report({name: value for name, (_, value, _) in found.items()})

        def backward(dloss: Any) -> tuple[None, dict[str, Any]]:
            dlogits = [back(w * dloss) for w, _, back in found.values()]
            return None, {"router_logits": sum(dlogits[1:], dlogits[0])} if dlogits else {}

        return sum(w * value for w, value, _ in found.values()), backward

    def _routing(self, states: dict[str, Any], attention_mask: Any) -> Routing:
        """The routing of a body's states; attention_mask (B, T) tells the real tokens, if given."""
        logits = states["router_logits"]
        xp, shape = array_module(logits), logits.shape[:3]
        weights = xp.ones(shape, dtype=logits.dtype)
        if attention_mask is not None and attention_mask.ndim == 2:
            real = (attention_mask != 0).astype(logits.dtype)
            weights = xp.broadcast_to(real[..., None], shape)
        return Routing(logits, states["chosen_experts"], weights)


def without_routing(model: CausalModel) -> CausalModel:
    """The same model, sharing everything, without outputs of its routers."""
    if not isinstance(model, RoutedModel):
        return model
    plain = CausalModel(model.family, model.config, model.params, task=model.task)
    plain.__dict__.update(model.__dict__)
    return plain
