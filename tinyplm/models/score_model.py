"""Decoders with a score head: a classifier of texts, a choice among them, a reward model.

    logits = dropout(h) W,   h the hidden state of the last real token, W (D, labels)

Radford et al. 2018, sec. 3.2.  Only the last token sees the whole text.  transformers'
...ForSequenceClassification finds it by config.pad_token_id, while here it is the last 1 of
attention_mask: files of this model should have a pad_token_id.

A sample may be several sequences (B, N, T) (sec. 3.3).  A classifier adds up their h before W: a
similarity reads its two texts in both orders.  A multiple choice has W (D, 1) and a bias, one
number for each sequence.
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
from ..layers.dropout import dropout
from ..layers.linear import linear
from ..layers.pooling import last_pooling
from ..random import fold
from . import checks
from .causal_lm import vocabulary_head
from .causal_model import CausalModel
from .encoder_heads import output_losses
from .heads import HEAD_KEY, then, weighted_sum, with_hidden
from .model import Model
from .parts import Emit, Head
from .protocol import Arrays, InParts, LossInputs, LossOptions, OutputOptions, Passed
from .several import checked_each, flattened


def score_head(
    params: Tree,
    hidden: Any,
    *,
    attention_mask: Any,
    several: int | None = None,
    rate: float = 0.0,
    key: Any = None,
) -> tuple[dict, Callable]:
    """{"logits": dropout(h) W},   h = last_pooling(hidden),   W = params["head"]["score"].

    hidden (B, T, D), attention_mask (B, T) of 0/1 or None = all real, W (D, labels) -> (B, labels).
    several: N, the sequences of a sample, for hidden (B N, T, D).  Then h_b = sum_n h_bn; or, with
    params["head"]["choice"] = {"W" (D, 1), "b" (1,)}, logits (B, N) are dropout(h_bn) W + b.
    key: one for each row of h, or None.
    With dh of the linear layer at dlogits, through the dropout:  dhidden_bn = dh_b (of a choice,
    dh_bn) at the last real token, else 0.
    """
    xp = array_module(hidden)
    real = xp.ones(hidden.shape[:2], dtype=bool) if attention_mask is None else attention_mask != 0
    pooled, pool_back = last_pooling(hidden, mask=real)
    choice = params["head"].get("choice")
    W, b = (params["head"]["score"], None) if choice is None else (choice["W"], choice["b"])
    summed = several is not None and choice is None
    h = pooled.reshape(-1, several, pooled.shape[1]).sum(axis=1) if summed else pooled
    dropped, drop_back = dropout(h, rate=rate, key=key)
    scores, back = linear(dropped, W, b)
    logits = scores if choice is None else scores.reshape(-1, several)

    def backward(doutputs: Arrays) -> tuple[Tree, Any]:
        ddropped, dW, db = back(doutputs["logits"].reshape(scores.shape))
        dh = drop_back(ddropped)
        dpooled = xp.repeat(dh, several, axis=0) if summed else dh
        dhead = {"score": dW} if choice is None else {"choice": {"W": dW, "b": db}}
        return {"head": dhead}, pool_back(dpooled)

    return {"logits": logits}, backward


class ScoreModel(CausalModel):
    """A decoder with a score head; its task is "sequence_classification" or "multiple_choice"."""

    INPUTS = Model.INPUTS  # no prefix

    def for_decoding(self) -> ScoreModel:
        self.check_causal()
        return self

    def empty_cache(self, batch: int, capacity: int | None = None, *, spare: int = 0) -> Cache:
        self.check_causal()
        return super().empty_cache(batch, capacity, spare=spare)

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

        input_ids      (B, T), or (B, N, T) for samples of N sequences, whose representations are
                       added up; logits (B, N) of a multiple choice.  All other inputs have the same
                       shape, and hidden is (B N, T, D)
        attention_mask of 0/1, 1 = a real token; each sequence is scored at its last one
        key            also for the dropout before the head, where the config has one
        """
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        inputs = self.inputs(input_ids, inputs_embeds, attention_mask, position_ids)
        return self._call(inputs, key, stacking)

    @known_arguments
    def inputs(  # type: ignore[override]  # no prefix
        self,
        input_ids: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        cache: Cache | None = None,
    ) -> dict[str, Any]:
        """The inputs checked, and moved to the model's device."""
        others = {"attention_mask": attention_mask, "position_ids": position_ids}
        input_ids = None if input_ids is None else checks.ids("input_ids", input_ids)
        choosing = self.task == "multiple_choice"
        if not choosing and (input_ids is None or input_ids.ndim != 3):
            return super().inputs(input_ids, inputs_embeds, cache=cache, **others)
        axis = "choices" if choosing else "sequences"
        return checked_each(super().inputs, input_ids, inputs_embeds, others, axis=axis)

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

        auxiliary: the weight of a language model's loss added to it, of targets["language_model"],
        of the shape of input_ids (Radford et al. 2018, eq. 5; see losses.auxiliary).  Its head is
        the embedding table, so the model must be a tied one.
        """
        options = LossOptions(smoothing=smoothing, auxiliary=auxiliary)
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        return self._loss(inputs, LossInputs(targets, total, options), stacking)

    def head_rows(self, targets: Arrays) -> int:
        """Those of the auxiliary loss."""
        words = targets.get("language_model")
        return 0 if words is None else int((words != IGNORED).sum())

    def _score(self, inputs: Arrays) -> Head:
        several, inputs_each = flattened(inputs)
        each = self.task == "multiple_choice"
        key = (inputs_each if each else inputs).get("key")
        return partial(
            score_head,
            attention_mask=inputs_each.get("attention_mask"),
            several=several,
            rate=self.config.score_rate,
            key=fold(key, HEAD_KEY),
        )

    def _outputs_head(self, inputs: Arrays) -> Head:
        return with_hidden(self._score(inputs))

    def _training_head(self, inputs: Arrays, targets: Any, options: OutputOptions) -> Head:
        return self._outputs_head(inputs)

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        targets, total, options = loss.targets, loss.total or {}, loss.options
        expected = ["language_model", "logits"] if options.auxiliary else ["logits"]
        if sorted(targets) != expected:
            raise wrong("targets", f"a dict with {' and '.join(expected)}", list(targets))
        losses = output_losses({"logits": targets["logits"]}, total, options.smoothing, self.config)
        task = then(self._score(inputs), losses)
        if not options.auxiliary:
            return task
        if not self.config.tie_word_embeddings:
            raise mismatch("auxiliary", "a model with tie_word_embeddings = true", "false")
        words = targets["language_model"]
        f = partial(
            vocabulary_cross_entropy,
            targets=words.reshape(-1, words.shape[-1]) if words.ndim == 3 else words,
            cap=self.config.logit_cap,
            total=total.get("language_model"),
            grad=grad,
        )
        language_model = vocabulary_head(f, self.family, self.config)
        return weighted_sum((1.0, task), (options.auxiliary, language_model))

    def _whole(
        self, head: Head, inputs: Arrays, stacking: StackOptions, targets: Any = None
    ) -> Passed:
        return super()._whole(head, flattened(inputs)[1], stacking, targets)

    def _in_parts(self, emit: Emit, head: Head, inputs: Arrays, stacking: StackOptions) -> InParts:
        return super()._in_parts(emit, head, flattened(inputs)[1], stacking)
