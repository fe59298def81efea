"""Decoders with a score head: a classifier of texts, or, with one label, a reward model.

    logits = h W,   h the hidden state of the last real token, W (D, labels)

Radford et al. 2018, sec. 3.2.  Only the last token sees the whole text.  transformers'
...ForSequenceClassification finds it by config.pad_token_id, while here it is the last 1 of
attention_mask: files of this model should have a pad_token_id.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..arguments import known_arguments, mismatch, wrong
from ..backend import array_module
from ..core import IGNORED, StackOptions, Tree
from ..kernels.cross_entropy import vocabulary_cross_entropy
from ..layers.cache import Cache
from ..layers.linear import linear
from ..layers.pooling import last_pooling
from .causal_lm import vocabulary_head
from .causal_model import CausalModel
from .encoder_heads import output_losses
from .heads import then, weighted_sum, with_hidden
from .parts import Head
from .protocol import Arrays, LossInputs, LossOptions, OutputOptions


def score_head(params: Tree, hidden: Any, *, attention_mask: Any) -> tuple[dict, Callable]:
    """{"logits": last_pooling(hidden) W},  W = params["head"]["score"] (D, labels).

    hidden (B, T, D), attention_mask (B, T) of 0/1 or None = all real -> (B, labels).
    With dpooled, dW of the product at dlogits:  dhidden = dpooled at the last real token, else 0.
    """
    xp = array_module(hidden)
    real = xp.ones(hidden.shape[:2], dtype=bool) if attention_mask is None else attention_mask != 0
    pooled, pool_back = last_pooling(hidden, mask=real)
    logits, back = linear(pooled, params["head"]["score"])

    def backward(doutputs: Arrays) -> tuple[Tree, Any]:
        dpooled, dW, _ = back(doutputs["logits"])
        return {"head": {"score": dW}}, pool_back(dpooled)

    return {"logits": logits}, backward


class ScoreModel(CausalModel):
    """A decoder with a score head; its task is "sequence_classification"."""

    def for_decoding(self) -> CausalModel:
        self.check_causal()
        return self

    def empty_cache(self, batch: int, capacity: int | None = None) -> Cache:
        self.check_causal()
        return super().empty_cache(batch, capacity)

    @known_arguments
    def __call__(  # type: ignore[override]  # no cache
        self,
        input_ids: Any = None,
        *,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        grad: bool = True,
        key: int | None = None,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
    ) -> tuple[dict[str, Any], Callable | None]:
        """outputs {"logits" (B, labels), "hidden" (B, T, D)} and backward, as for CausalModel.

        attention_mask (B, T) of 0/1, 1 = a real token; each row is scored at its last one.
        """
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        inputs = self.inputs(input_ids, inputs_embeds, attention_mask, position_ids)
        return self._call(inputs, key, stacking)

    def _check_mask(self, mask: Any, B: int, T: int, S: int) -> None:
        if mask.shape != (B, S):
            raise mismatch("attention_mask", f"shape {(B, S)}", mask.shape)

    @known_arguments
    def loss(
        self,
        *,
        targets: Arrays,
        total: Arrays | None = None,
        smoothing: float = 0.0,
        auxiliary: float = 0.0,
        grad: bool = True,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
        **inputs: Any,
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """The loss of {"logits": labels (B,), rows (B, labels), or numbers (B, 1)}, divided by
        total["logits"]; see tasks.loss_of.

        auxiliary: the weight of a language model's loss, of targets["language_model"] (B, T), added
        to it (Radford et al. 2018, eq. 5; see losses.auxiliary).  Its head is the embedding table,
        so the model must be a tied one.
        """
        options = LossOptions(smoothing=smoothing, auxiliary=auxiliary)
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        return self._loss(inputs, LossInputs(targets, total, options), stacking)

    def head_rows(self, targets: Arrays) -> int:
        """Those of the auxiliary loss."""
        words = targets.get("language_model")
        return 0 if words is None else int((words != IGNORED).sum())

    def _outputs_head(self, inputs: Arrays) -> Head:
        return with_hidden(partial(score_head, attention_mask=inputs.get("attention_mask")))

    def _training_head(self, inputs: Arrays, targets: Any, options: OutputOptions) -> Head:
        return self._outputs_head(inputs)

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        targets, total, options = loss.targets, loss.total or {}, loss.options
        expected = ["language_model", "logits"] if options.auxiliary else ["logits"]
        if sorted(targets) != expected:
            raise wrong("targets", f"a dict with {' and '.join(expected)}", list(targets))
        score = partial(score_head, attention_mask=inputs.get("attention_mask"))
        losses = output_losses({"logits": targets["logits"]}, total, options.smoothing, self.config)
        task = then(score, losses)
        if not options.auxiliary:
            return task
        if not self.config.tie_word_embeddings:
            raise mismatch("auxiliary", "a model with tie_word_embeddings = true", "false")
        f = partial(
            vocabulary_cross_entropy,
            targets=targets["language_model"],
            cap=self.config.logit_cap,
            total=total.get("language_model"),
            grad=grad,
        )
        language_model = vocabulary_head(f, self.family, self.config)
        return weighted_sum((1.0, task), (options.auxiliary, language_model))
