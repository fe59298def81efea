"""Encoder-decoders with a head of classes or answers: the decoder reads the source once more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..arguments import known_arguments, mismatch, wrong
from ..backend import array_module, is_host
from ..core import StackOptions, Tree
from .encoder_heads import output_losses, outputs_head
from .heads import on_decoder, then, with_states
from .parts import Head
from .protocol import Arrays, LossInputs, LossOptions, OutputOptions
from .seq2seq_model import TARGET, Seq2SeqModel
from .tasks import Task


class Seq2SeqTaskModel(Seq2SeqModel):
    """An encoder-decoder with the head of a task of its family's HEADS.

    Lewis et al. 2020, sec. 3.1 and 3.2: without decoder inputs the decoder is given input_ids,
    shifted right.  Classes come from the decoder's state at the last end token of the source, so
    they need input_ids, and decoder inputs of the same length.  Answers come from all states.
    outputs: "logits" (B, labels), or "start_logits" and "end_logits" (B, T); "encoder_hidden",
    "hidden".
    """

    @known_arguments
    def inputs(
        self,
        input_ids: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_inputs_embeds: Any = None,
        decoder_attention_mask: Any = None,
        labels: Any = None,
    ) -> dict[str, Any]:
        """The inputs checked, and moved to the model's device."""
        if labels is not None:
            raise wrong("labels", "None; the loss takes targets", labels)
        by_ends = self.task == "sequence_classification"
        own_target = decoder_input_ids is not None or decoder_inputs_embeds is not None
        if input_ids is None and (by_ends or not own_target):
            why = "which have the end token" if by_ends else "which the decoder reads too"
            raise wrong("input_ids", f"token ids, {why}", input_ids)
        if not own_target:
            decoder_input_ids = self._shifted("input_ids", input_ids)
        target = (decoder_input_ids, decoder_inputs_embeds, decoder_attention_mask)
        inputs = super().inputs(input_ids, inputs_embeds, attention_mask, *target)
        if by_ends and own_target:
            S = inputs["input_ids"].shape[1]
            name = next(name for name in TARGET[:2] if inputs[name] is not None)
            if inputs[name].shape[1] != S:
                raise mismatch(name, f"{S} tokens, as the source has", inputs[name].shape[1])
        return inputs

    @known_arguments
    def loss(
        self,
        *,
        targets: Arrays,
        total: Arrays | None = None,
        smoothing: float = 0.0,
        grad: bool = True,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
        **inputs: Any,
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """The sum of the losses of the outputs named in targets, as EncoderModel.loss."""
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        options = LossOptions(smoothing=smoothing)
        return self._loss(inputs, LossInputs(targets, total, options), stacking)

    def for_decoding(self) -> Seq2SeqTaskModel:
        self.check_causal()
        return self

    def _target_of(self, targets: Arrays) -> dict[str, Any]:
        return {}  # the decoder reads the source

    def head_rows(self, targets: Arrays) -> int:
        """None of them is over the vocabulary."""
        return 0

    @property
    def _task(self) -> Task:
        return self.family.HEADS[self.task]

    def _task_head(self, inputs: Arrays) -> Head:
        """The task's head on the decoder's states."""
        head = outputs_head(self._task, self.config, key=inputs.get("key"))
        if self.task == "sequence_classification":
            head = at_ends(head, self._ends(inputs["input_ids"]))
        return on_decoder(head)

    def _ends(self, ids: Any) -> Any:
        """(B,): the place of the last end token of each source."""
        end, xp = self.config.eos_token_id, array_module(ids)
        found = ids == (end[0] if isinstance(end, list) else end)
        if is_host(ids) and not found.any(axis=1).all():
            row = int(found.any(axis=1).argmin())
            raise mismatch("input_ids", f"an end token {end} in each row", f"none in row {row}")
        return ids.shape[1] - 1 - xp.argmax(found[:, ::-1], axis=1)

    def _outputs_head(self, inputs: Arrays) -> Head:
        return with_states(self._task_head(inputs))

    def _training_head(self, inputs: Arrays, targets: Any, options: OutputOptions) -> Head:
        return self._outputs_head(inputs)

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        if loss.options.auxiliary:
            raise wrong("auxiliary", "0 for an encoder-decoder", loss.options.auxiliary)
        losses = partial(output_losses, loss.targets, loss.total or {}, loss.options.smoothing)
        return then(self._task_head(inputs), losses(self.config))


def at_ends(head: Head, ends: Any) -> Head:
    """head(params, h),   h[b, 0] = hidden[b, ends[b]]:   dhidden is dh there, 0 elsewhere."""

    def on_ends(params: Tree, hidden: Any) -> tuple[Any, Callable | None]:
        xp = array_module(hidden)
        rows = xp.arange(hidden.shape[0])
        value, back = head(params, hidden[rows, ends][:, None])

        def backward(dvalue: Any) -> tuple[Tree, Any]:
            dparams, dh = back(dvalue)
            dhidden = xp.zeros_like(hidden)
            dhidden[rows, ends] = dh[:, 0]
            return dparams, dhidden

        return value, None if back is None else backward

    return on_ends
